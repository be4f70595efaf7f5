"""Measure what grows with the data, and how fast: time and memory by rows, and by tokens per text.

    python benchmarks/growth.py

Rows: a CSV of made-up texts (40 words each, drawn by Zipf's law from the model's vocabulary) is loaded, checked, split
and tokenized. Lengths: training steps and predictions for texts of one length, 8,192 tokens per round. Each figure
comes from a process of its own; the lengths take turns in each round.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, disable_progress_bars
from speed import BATCH, MODEL, Clock, in_child
from transformers import logging

from bert_helpers import models, records, runs
from bert_helpers.tasks.registry import TASKS

ROWS = (1_000, 10_000, 100_000, 1_000_000)
LENGTHS = (16, 32, 64, 128, 256, 512)
WORDS, TOKENS = 40, 8192


def made_up(rows, seed, file):
    """Write a CSV of two columns, in parts."""
    words = np.array(sorted(word for word in models.load_tokenizer(MODEL).get_vocab() if word.isalpha()))
    rng = np.random.default_rng(seed)
    ranks = 1 / np.arange(1, len(words) + 1)
    for start in range(0, rows, 10_000):
        size = min(10_000, rows - start)
        drawn = rng.choice(words, (size, WORDS), p=ranks / ranks.sum())
        part = pd.DataFrame({"text": [" ".join(row) for row in drawn], "label": rng.choice(["no", "yes"], size)})
        part.to_csv(file, mode="a" if start else "w", header=not start, index=False)


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def by_rows(rows, folder):
    file = folder / "texts.csv"
    made_up(rows, 0, file)
    task, tokenizer = TASKS["classification"], models.load_tokenizer(MODEL)
    row = {"rows": rows, "start_gb": memory(), "file_gb": file.stat().st_size / 1e9}
    started = time.perf_counter()
    dataset = task.load(file, seed=0)
    loaded = time.perf_counter()
    row |= {"load_s": loaded - started, "load_gb": memory()}
    encoded = task.encode(dataset, tokenizer, max_length=128)
    row |= {"encode_s": time.perf_counter() - loaded, "peak_gb": memory()}
    row["mapped"] = bool(encoded["train"].cache_files)
    return row


def by_length(length, folder):
    task, tokenizer = TASKS["classification"], models.load_tokenizer(MODEL)
    count = max(TOKENS // length, 4 * BATCH)
    ids = np.random.default_rng(0).integers(1000, len(tokenizer), (count + BATCH, length)).tolist()
    rows = Dataset.from_dict({"input_ids": ids, "attention_mask": np.ones_like(ids).tolist(),
                              "length": [length] * len(ids), "labels": np.arange(len(ids)) % 2})  # fmt: skip
    model = models.load_model(MODEL, task.model_class, num_labels=2)
    splits = DatasetDict(train=rows, validation=rows.select(range(2)))
    parameters, switches = {"EPOCHS": 1, "BATCH_SIZE": BATCH}, {"eval_strategy": "no", "logging_strategy": "no"}
    trainer = runs.make_trainer("classification", model, splits, tokenizer, parameters, Path(folder), **switches)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    trainer.compute_metrics = None
    started = time.perf_counter()
    trainer.predict(rows)
    seconds = time.perf_counter() - started
    return {"length": length, "train_us_per_token": clock.seconds / (count * length) * 1e6,
            "predict_us_per_token": seconds / (len(rows) * length) * 1e6, "peak_gb": memory()}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the lengths; rows are measured once")
    parser.add_argument("--out", type=Path, default=Path("results/growth.jsonl"))
    parser.add_argument("--child", choices=("rows", "length"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        disable_progress_bars()
        logging.set_verbosity_error()
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = folder
            measure, size = (by_rows, options.rows) if options.child == "rows" else (by_length, options.lengths)
            print(json.dumps(measure(size[0], Path(folder))))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    calls = [("rows", "--rows", rows) for rows in options.rows]
    calls += [("length", "--lengths", length) for _ in range(options.rounds) for length in options.lengths]
    measured = []
    for kind, option, size in calls:
        printed = in_child(__file__, ["--child", kind, option, str(size)])
        measured.append(json.loads(printed.splitlines()[-1]))
        with options.out.open("a") as file:
            file.write(json.dumps(measured[-1]) + "\n")
        print(json.dumps(measured[-1]), flush=True)
    print(f"\n{records.device_name()}")
    for key in ("rows", "length"):
        found = [row for row in measured if key in row]
        if found:
            print(f"\n{pd.DataFrame(found).groupby(key).median().round(3).to_string()}")


if __name__ == "__main__":
    main()
