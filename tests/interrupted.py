"""Child processes of test_checkpoints: train, be killed at any moment, continue. Prints one line of JSON.

python tests/interrupted.py BERT FOLDER KILLS
"""

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import helpers
import numpy as np
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from bert_helpers import models, training


def rows(count, seed):
    rng = np.random.default_rng(seed)
    ids = [[101, *rng.integers(1000, 9000, rng.integers(3, 12)).tolist(), 102] for _ in range(count)]
    return Dataset.from_dict(
        {
            "input_ids": ids,
            "attention_mask": [[1] * len(row) for row in ids],
            "labels": rng.integers(0, 2, count).tolist(),
            "length": [len(row) for row in ids],
        }
    )


def make(bert, folder, *, minutes=10.0, **arguments):
    """Return a Trainer that is the same each time, and saves after the given minutes."""
    torch.set_num_threads(1)
    model = models.load_model(str(bert), BertForSequenceClassification, seed=0)
    options = {"epochs": 3, "batch_size": 4, "precision": "fp32", "learning_rate": 1e-3, "disable_tqdm": True}
    args = helpers.arguments(folder, **{**options, **arguments})
    encoded = DatasetDict(train=rows(90, 0), validation=rows(8, 1))
    tokenizer = models.load_tokenizer(str(bert))
    return helpers.make_trainer(
        model, args, encoded, task="classification", tokenizer=tokenizer, checkpoint_minutes=minutes
    )


def life(bert, folder):
    """Be one process: continue from what is there, and leave weights and history if it survives to the end."""
    warnings.simplefilter("ignore")
    trainer = make(bert, folder, minutes=0)
    trainer.train()
    weights = {name: tensor.contiguous() for name, tensor in trainer.model.state_dict().items()}
    save_file(weights, folder / "final.part")
    (folder / "history.json").write_text(training.history(trainer).to_json())
    os.replace(folder / "final.part", folder / "final.safetensors")


def born(bert, folder):
    """Fork, so that nothing is imported again. PyTorch has not started any thread here."""
    if (child := os.fork()) == 0:
        try:
            life(bert, folder)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return child


def main(bert, folder, kills):
    draw, all_lives, killed, same = random.Random(0), 0, 0, []
    reference, start = folder / "undisturbed", time.monotonic()
    os.waitpid(born(bert, reference), 0)
    whole = time.monotonic() - start  # seconds of a life that nobody ends
    while killed < kills:
        run, lives = folder / f"run{len(same)}", 0
        while not (run / "final.safetensors").exists():
            child, lives, start = born(bert, run), lives + 1, time.monotonic()
            # Measured in whole lives, so that some are killed on a fast machine and some survive on a slow one; longer
            # with each life of a run, should the machine have become slower.
            end = start + whole * draw.uniform(0.1, 1.1) * (1 + lives / 10)
            while (over := os.waitpid(child, os.WNOHANG)[0] == child) is False and time.monotonic() < end:
                time.sleep(0.005)
            if not over:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed += 1
            elif lives == 1:
                whole = time.monotonic() - start
        weights = [(place / "final.safetensors").read_bytes() for place in (run, reference)]
        histories = [json.loads((place / "history.json").read_text()) for place in (run, reference)]
        same.append(weights[0] == weights[1] and histories[0] == histories[1])
        all_lives += lives
    print(json.dumps({"lives": all_lives, "killed": killed, "runs": len(same), "same": sum(same)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
