"""How fast, beside the ways one would otherwise do it: contenders interleaved in one run, each in its own process.

    python benchmarks/speed.py                                        # on the sample reviews
    python benchmarks/speed.py --task classification --data ../imdb --max-length 512 --batches 8 --rounds 3
    python benchmarks/speed.py predict --task ner --data ../conll2003

Every contender orders the training rows as it would in a run over all of them; of its batches some are taken, evenly
from the one with the least work to the one with the most, and trained on. Tokens are real ones, padding not counted;
the share of the machine's rate is that of the arithmetic that these tokens need, whatever a contender does beyond it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pandas as pd
import torch
from datasets import DatasetDict, disable_progress_bars
from transformers import Trainer, TrainerCallback, TrainingArguments, logging, pipeline, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler

from bert_helpers import checks_run, models, prediction, results, tasks, training

MODEL = models.DEFAULT_MODEL
BATCH = 16
CONTENDERS = {
    "lesson": "every row padded to the full length, fp32",
    "stock": "Trainer as in Transformers' examples: each batch padded to its longest, fp32",
    "switches": "the same with bf16 and group_by_length",
    "ours": "bert_helpers",
}
LENGTHS = {"classification": 512, "ner": 128, "qa": 384, "regression": 128}


class Clock(TrainerCallback):
    """Seconds from the end of the first step, which warms up, to the end of the last."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())

    @property
    def seconds(self):
        return self.ends[-1] - self.ends[0]


def order(contender, lengths, seed):
    if contender == "ours":
        return list(training.SeededLengthGroups(BATCH, lengths, seed))
    if contender == "switches":
        return list(LengthGroupedSampler(BATCH, lengths=list(lengths)))
    return np.random.default_rng(seed).permutation(len(lengths)).tolist()


def chosen(contender, lengths, batches, max_length, seed):
    """Rows of so many batches, evenly spaced by work; before them one of the middle, to warm up."""
    rows = order(contender, lengths, seed)
    whole = [rows[i : i + BATCH] for i in range(0, len(rows) - BATCH + 1, BATCH)]
    whole.sort(key=lambda batch: max(lengths[row] for row in batch))
    places = np.linspace(0, len(whole) - 1, batches + 2).round().astype(int)[1:-1]
    picked = [whole[place] for place in np.random.default_rng(seed).permutation(places)]
    return [whole[len(whole) // 2], *picked]


def work(lengths, config):
    """Operations of forward and backward over texts of these lengths: matrix products of layers, and attention."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    weights = layers * (4 * hidden**2 + 2 * hidden * inner)
    lengths = np.asarray(lengths, dtype=float)
    return float(3 * (2 * weights * lengths.sum() + 4 * layers * hidden * (lengths**2).sum()))


def make(contender, task, rows, fields, folder, *, max_length, seed, epochs=1, **options):
    """The contender's Trainer over encoded rows: its model, padding, precision and kernels."""
    spec, tokenizer = tasks.TASKS[task], models.load_tokenizer(MODEL)
    if contender == "ours":
        model = models.load_model(MODEL, spec.model_class, seed=seed, **fields)
        args = training.training_arguments(
            folder, epochs=epochs, batch_size=BATCH, eval_strategy="no", seed=seed, **options
        )
        splits = DatasetDict(train=rows, validation=rows.select(range(2)))
        return training.make_trainer(model, args, splits, task=task, tokenizer=tokenizer)
    set_seed(seed)  # which draws the new head
    own = {name: value for name, value in fields.items() if "target" not in name}
    model = spec.model_class.from_pretrained(models.locate(MODEL), **own)
    if contender == "switches":
        options = {"train_sampling_strategy": "group_by_length", **options}
    args = TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        bf16=contender == "switches",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        seed=seed,
        **options,
    )
    padding = {"padding": "max_length", "max_length": max_length} if contender == "lesson" else {}
    return Trainer(model, args, spec.collator(tokenizer, **padding), rows, processing_class=tokenizer)


def train(contender, task, source, max_length, batches, seed, folder):
    spec = tasks.TASKS[task]
    dataset = spec.load(source)
    tokenizer = models.load_tokenizer(MODEL)
    encoded = spec.encode(DatasetDict(train=dataset["train"]), tokenizer, max_length=max_length)["train"]
    lengths = encoded["length"]
    groups = chosen(contender, lengths, batches, max_length, seed)
    fields = spec.model_fields(dataset["train"])
    rows = encoded.select([row for group in groups for row in group])
    # The order is made here, the Trainer keeps it.
    options = {"train_sampling_strategy": "sequential", "disable_tqdm": True, "logging_strategy": "no"}
    trainer = make(contender, task, rows, fields, folder, max_length=max_length, seed=seed, **options)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    used = [lengths[row] for group in groups[1:] for row in group]
    longest = [max_length if contender == "lesson" else max(lengths[row] for row in group) for group in groups[1:]]
    return {
        "examples_per_s": len(used) / clock.seconds,
        "tokens_per_s": sum(used) / clock.seconds,
        "padding": 1 - sum(used) / (BATCH * sum(longest)),
        "operations_per_s": work(used, trainer.model.config) / clock.seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def predict(contender, task, source, max_length, batches, seed, folder):
    """Of `batches` x 16 test texts, tokenization included: `pipeline`, as its documentation has it, or ours."""
    spec = tasks.TASKS[task]
    dataset = spec.load(source, test_size=batches * BATCH, seed=seed)
    tokenizer = models.load_tokenizer(MODEL)
    texts = DatasetDict(test=dataset["test"])
    fields = spec.model_fields(dataset["train"])
    encoded = spec.encode(texts, tokenizer, max_length=max_length)["test"]
    if contender == "pipeline":
        kind = {"classification": "text-classification", "ner": "token-classification"}[task]
        model = spec.model_class.from_pretrained(models.locate(MODEL), **fields)
        run = pipeline(kind, model=model, tokenizer=tokenizer, device="cpu", batch_size=BATCH)
        column = (
            list(texts["test"]["text"]) if task == "classification" else [" ".join(t) for t in texts["test"]["tokens"]]
        )
        options = {"truncation": True, "max_length": max_length} if task == "classification" else {}
        run(column[:BATCH], **options)
        started = time.perf_counter()
        run(column, **options)
    else:
        model = models.load_model(MODEL, spec.model_class, seed=seed, **fields)
        wanted = prediction.TASKS[task].fields
        rows = texts["test"].select_columns([name for name in texts["test"].column_names if name in wanted])
        predictor = prediction.Predictor(task, model, tokenizer, {"MAX_LENGTH": max_length, "STRIDE": max_length // 4})
        prediction.predict(predictor, rows.select(range(BATCH)))
        started = time.perf_counter()
        prediction.predict(predictor, rows)
    seconds = time.perf_counter() - started
    return {"examples_per_s": len(texts["test"]) / seconds, "tokens_per_s": sum(encoded["length"]) / seconds,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}  # fmt: skip


def child(options):
    disable_progress_bars()
    logging.set_verbosity_error()
    measure = predict if options.what == "predict" else train
    with tempfile.TemporaryDirectory() as folder:
        row = measure(
            options.child, options.task, options.data, options.max_length, options.batches, options.seed, folder
        )
    print(json.dumps(row))


def in_child(file, words):
    """What a benchmark prints when it is called again with these words, in a process of its own."""
    done = subprocess.run([sys.executable, file, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def measured(options, contender, seed):
    words = [options.what, "--child", contender, "--seed", str(seed)]
    for name in ("task", "data", "max_length", "batches"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return json.loads(in_child(__file__, words).splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "predict"), nargs="?", default="train")
    parser.add_argument("--task", choices=tuple(tasks.TASKS), default="classification")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--max-length", type=int, default=0)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("results/speed.jsonl"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.max_length = options.max_length or LENGTHS[options.task]
    if options.child:
        child(options)
        return
    contenders = options.contenders or (["pipeline", "ours"] if options.what == "predict" else list(CONTENDERS))
    rate = checks_run.matrix_product_rate(precision=training.resolve_precision())
    rows = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(options.rounds):
        for contender in contenders:
            row = {"contender": contender, "round": seed, **measured(options, contender, seed)}
            rows.append(row)
            with options.out.open("a") as file:
                file.write(json.dumps({"what": options.what, "task": options.task, "data": Path(options.data).name,
                                       "max_length": options.max_length, **row}) + "\n")  # fmt: skip
            print(json.dumps(row), flush=True)
    table = pd.DataFrame(rows).groupby("contender", sort=False).median(numeric_only=True).drop(columns="round")
    if "operations_per_s" in table:
        table["share_of_rate"] = table.pop("operations_per_s") / rate
    table["ours_is_faster"] = table.examples_per_s["ours"] / table.examples_per_s if "ours" in table.index else None
    print(f"\n{results.device_name()}, matrix products at {rate / 1e9:.0f} GFLOP/s\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main()
