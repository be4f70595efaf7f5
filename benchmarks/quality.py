"""Is what is fast also good? Contenders of speed.py, trained on the same rows and evaluated on the same test rows.

    python benchmarks/quality.py --data ../imdb --max-length 512
    python benchmarks/quality.py --task ner --data ../conll2003 --train-size 3000 --epochs 3 --learning-rate 1e-4

Model, epochs, learning rate and batch size are the same; each contender has its own padding, precision, kernels and
order of rows. Each run (contender, seed) is printed as a line of JSON with its metrics on the test rows; finished runs
are not repeated. At the end comes the difference with a 95% interval, which resamples the test rows, all seeds of a row
together.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
from datasets import DatasetDict, disable_progress_bars
from speed import CONTENDERS, LENGTHS, MODEL, in_child, make
from transformers import logging
from transformers.trainer_utils import PredictionOutput

from bert_helpers import intervals, models
from bert_helpers.tasks.registry import TASKS


def load(options):
    spec = TASKS[options.task]
    sizes = {"train_size": options.train_size, "test_size": options.test_size, "validation_size": 2}
    dataset = spec.load(options.data, **sizes, seed=0)  # the same rows for every seed of training
    lengths = {"max_length": options.max_length}
    encoded = spec.encode(dataset, models.load_tokenizer(MODEL), **lengths)
    return spec, dataset, encoded


def run(options):
    """Train one contender and save its predictions for the test rows."""
    disable_progress_bars()
    logging.set_verbosity_error()
    spec, dataset, encoded = load(options)
    fields = spec.model_fields(dataset["train"])
    settings = {"disable_tqdm": True, "save_strategy": "no", "learning_rate": options.learning_rate,
                "epochs": options.epochs, "warmup_steps": 0.1, "weight_decay": 0.01}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(options.child, options.task, encoded["train"], fields, folder, max_length=options.max_length,
                       seed=options.seeds[0], **settings)  # fmt: skip
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        trainer.compute_metrics = None
        trainer.args.per_device_eval_batch_size = 32
        trainer.args.train_sampling_strategy = "sequential"  # or Transformers' Trainer predicts in the sampler's order
        output = trainer.predict(encoded["test"])
    np.savez_compressed(path(options, options.child, options.seeds[0]), logits=output.predictions,
                        labels=output.label_ids, seconds=seconds)  # fmt: skip


def path(options, contender, seed):
    name = f"{options.task}-{options.max_length}-{options.train_size}-{options.epochs}-{contender}-{seed}.npz"
    return options.out / name


def predictions_and_references(options, contender, spec, dataset, encoded):
    """Return predictions, references and seconds of training, a list with one entry per seed for each."""
    predicted, truth, seconds = [], [], []
    for seed in options.seeds:
        kept = np.load(path(options, contender, seed))
        output = PredictionOutput(kept["logits"], kept["labels"], {})
        one, true = spec.predictions_and_references(output, encoded["test"], dataset["test"], None)
        predicted.append(one)
        truth.append(true)
        seconds.append(float(kept["seconds"]))
    return predicted, truth, seconds


def train_all(options):
    """Train every contender with every seed, except those that were trained before."""
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(options).items() if name not in ("child", "contenders", "seeds")}
    for seed in options.seeds:
        for contender in options.contenders:
            if path(options, contender, seed).is_file():
                continue
            words = [word for k, v in settings.items() for word in (f"--{k.replace('_', '-')}", str(v))]
            words += ["--child", contender, "--seeds", str(seed)]
            in_child(__file__, words)
            print(f"{contender}, seed {seed}: done", flush=True)


def report(options):
    """Print each run's metrics, and the difference between the first two contenders, if there are two."""
    spec, dataset, encoded = load(options)
    encoded = DatasetDict(test=encoded["test"])
    results = {name: predictions_and_references(options, name, spec, dataset, encoded) for name in options.contenders}
    for name, (predicted, truth, seconds) in results.items():
        for seed, one, true, spent in zip(options.seeds, predicted, truth, seconds, strict=True):
            measure = spec.measure(one, true, dataset["test"])
            values = measure.values()
            shown = ", ".join(f"{metric} {value:.4f}" for metric, value in list(values.items())[:3])
            print(json.dumps({"contender": name, "seed": seed, "seconds": round(spent), "result": shown}))
    if len(results) < 2:
        return
    (first, (one, truth, _)), (second, (other, _, _)) = list(results.items())[:2]
    measures = [
        [spec.measure(p, t, dataset["test"]) for p, t in zip(side, truth, strict=True)] for side in (one, other)
    ]

    def difference(weights):
        values = [[m.statistic(weights) for m in side] for side in measures]
        return {name: np.mean([v[name] for v in values[1]], axis=0) - np.mean([v[name] for v in values[0]], axis=0)
                for name in values[0][0]}  # fmt: skip

    table = intervals.intervals(difference, measures[0][0].units, seed=0, difference=True)
    print(f"\n{second} minus {first}, mean of {len(options.seeds)} seeds\n{table.round(4).to_string()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("classification", "ner"), default="classification")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--contenders", nargs="+", choices=tuple(CONTENDERS), default=["stock", "ours"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-size", type=int, default=2000)
    parser.add_argument("--test-size", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/quality"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.max_length = options.max_length or LENGTHS[options.task]
    if options.child:
        run(options)
        return
    train_all(options)
    report(options)


if __name__ == "__main__":
    main()
