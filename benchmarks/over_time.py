"""How good after how many seconds? The 480 sample reviews, learned by the methods one would otherwise choose.

    pip install -r benchmarks/requirements.txt   # SetFit, for this comparison only
    python benchmarks/over_time.py

Rows, pretrained model and test reviews are the same; the contenders of a round run one after the other, each in its own
process. The seconds are those of training, from texts in memory to a fitted classifier, without loading or evaluating a
model. Each point is the accuracy over all rounds, with a 95% interval that resamples the test reviews, all rounds of a
review together.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import numpy as np
import pandas as pd
from datasets import disable_progress_bars
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from speed import BATCH, MODEL, in_child
from transformers import TrainerCallback, logging

from bert_helpers import intervals, models, records, runs
from bert_helpers.tasks import regression
from bert_helpers.tasks.registry import TASKS

EPOCHS, LEARNING_RATE = 6, 1e-4  # notebook 1's, chosen on its validation reviews
SETFIT_STEPS = 100


class TestPredictions(TrainerCallback):
    """Collects predictions for the test rows after every epoch, and the seconds of training until then."""

    def __init__(self, predict):
        self.predict, self.points, self.left_out = predict, [], 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.points.append((now - self.started - self.left_out, self.predict()))
        self.left_out += time.perf_counter() - now


def tfidf(dataset, max_length, seed, folder):
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10))
    started = time.perf_counter()
    model.fit(list(dataset["train"]["text"]), dataset["train"]["label"])
    return [(time.perf_counter() - started, model.predict(list(dataset["test"]["text"])))]


def frozen(dataset, max_length, seed, folder):
    tokenizer = models.load_tokenizer(MODEL)
    encoder = models.load_model(MODEL, TASKS["classification"].model_class, seed=seed, num_labels=2)
    model = LogisticRegression(C=10, max_iter=1000)
    started = time.perf_counter()
    model.fit(regression.embeddings(dataset["train"]["text"], encoder, tokenizer), dataset["train"]["label"])
    seconds = time.perf_counter() - started
    return [(seconds, model.predict(regression.embeddings(dataset["test"]["text"], encoder, tokenizer)))]


def setfit(dataset, max_length, seed, folder):
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(str(models.locate(MODEL)))
    model.model_body.max_seq_length = max_length
    args = TrainingArguments(folder, batch_size=BATCH, max_steps=SETFIT_STEPS, save_strategy="no", report_to="none",
                             show_progress_bar=False, seed=seed)  # fmt: skip
    trainer = Trainer(model, args, train_dataset=dataset["train"].select_columns(["text", "label"]))
    started = time.perf_counter()
    trainer.train()
    return [(time.perf_counter() - started, np.asarray(model.predict(list(dataset["test"]["text"]))))]


def ours(dataset, max_length, seed, folder):
    task = TASKS["classification"]
    tokenizer = models.load_tokenizer(MODEL)
    model = models.load_model(MODEL, task.model_class, seed=seed, **task.model_fields(dataset["train"]))
    started = time.perf_counter()
    encoded = task.encode(dataset, tokenizer, max_length=max_length)
    seconds = time.perf_counter() - started
    parameters = {"EPOCHS": EPOCHS, "BATCH_SIZE": BATCH, "LEARNING_RATE": LEARNING_RATE, "SEED": seed}
    trainer = runs.make_trainer(
        "classification", model, encoded, tokenizer, parameters, Path(folder), eval_strategy="no"
    )
    collected = TestPredictions(lambda: trainer.predict(encoded["test"]).predictions.argmax(axis=1))
    trainer.add_callback(collected)
    trainer.train()
    return [(seconds + spent, predicted) for spent, predicted in collected.points]


CONTENDERS = {"tfidf": tfidf, "frozen": frozen, "setfit": setfit, "ours": ours}


def child(options):
    disable_progress_bars()
    logging.set_verbosity_error()
    dataset = TASKS["classification"].load(options.data, seed=0)
    truth = np.asarray(dataset["test"]["label"])
    with tempfile.TemporaryDirectory() as folder:
        points = CONTENDERS[options.child](dataset, options.max_length, options.seed, folder)
    for step, (seconds, predicted) in enumerate(points, start=1):
        right = (np.asarray(predicted) == truth).astype(int).tolist()
        print(json.dumps({"step": step, "seconds": round(seconds, 2), "right": right}))


def accuracy(right):
    """Return the accuracy over rounds and rows, an array (rounds, rows) of 0 and 1, with its interval over rows."""
    share = right.mean(axis=0)

    def statistic(weights):
        return {"accuracy": weights @ share / weights.sum(axis=-1)}

    return intervals.intervals(statistic, len(share), shares={"accuracy": True}).loc["accuracy"]


def report(rows):
    table, right = [], {}
    for (contender, step), group in pd.DataFrame(rows).groupby(["contender", "step"], sort=False):
        right[contender, step] = np.array(group["right"].tolist())
        table.append({"contender": contender, "step": step, "seconds": group["seconds"].median(),
                      **accuracy(right[contender, step])})  # fmt: skip
    print(f"\n{records.device_name()}\n{pd.DataFrame(table).round(3).to_string(index=False)}")
    last = dict(right.keys())
    if {"ours", "setfit"} <= last.keys():
        difference = accuracy(right["ours", last["ours"]] - right["setfit", last["setfit"]])
        print("\nours minus setfit: {value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**difference))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--contenders", nargs="+", choices=tuple(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/over_time.jsonl"))
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(options.rounds):
        for contender in options.contenders:
            words = ["--child", contender, "--data", options.data, "--max-length", str(options.max_length)]
            printed = in_child(__file__, [*words, "--seed", str(seed)])
            points = [json.loads(line) for line in printed.splitlines() if line.startswith('{"step"')]
            with options.out.open("a") as file:
                for point in points:
                    rows.append({"contender": contender, "round": seed, **point})
                    file.write(json.dumps(rows[-1]) + "\n")
            print(
                f"{contender}, round {seed}: {points[-1]['seconds']} s, {np.mean(points[-1]['right']):.3f}", flush=True
            )
    report(rows)


if __name__ == "__main__":
    main()
