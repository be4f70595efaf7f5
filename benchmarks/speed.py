"""How fast, compared with the usual alternatives? Contenders take turns in one run, each in its own process.

    python benchmarks/speed.py                                        # on the sample reviews
    python benchmarks/speed.py --task classification --data ../imdb --max-length 512 --batches 8 --rounds 3
    python benchmarks/speed.py predict --task ner --data ../conll2003
    python benchmarks/speed.py --model bert --data joined --contenders ours compiled       # for a GPU

Every contender orders the training rows as it would in a run over all of them; some of its batches, evenly spaced from
the least work to the most, are trained on. Padding does not count as tokens; the share of the machine's rate counts
only the arithmetic that the real tokens need. Peak memory is that of the process on a CPU, and what PyTorch allocated
on a GPU. Warm-up steps, which compile, are timed separately.
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
from datasets import Dataset, DatasetDict, disable_progress_bars
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    logging,
    pipeline,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from bert_helpers import models, prediction, records, runs, training
from bert_helpers.diagnosis import checks_run
from bert_helpers.tasks.registry import TASKS

MODEL = models.DEFAULT_MODEL
BATCH = 16
CONTENDERS = {
    "lesson": "every row padded to the full length, fp32",
    "stock": "Trainer as in Transformers' examples: each batch padded to its longest, fp32",
    "switches": "the same with bf16 and group_by_length",
    "ours": "bert_helpers",
    "compiled": "ours with torch.compile, each batch padded to a multiple of 64, which gives few shapes",
}
USUAL = ["lesson", "stock", "switches", "ours"]
OURS = ("ours", "compiled")
PREDICTORS = ("pipeline", "ours")
MULTIPLE = 64
SIGNS = {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102, "bos_token_id": None, "eos_token_id": None}
DEBERTA = {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
           "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}  # fmt: skip
# Models of base size with random weights: what differs from the defaults of Transformers' configs
SHAPES = {"bert": {}, "distilbert": {}, "roberta": {"max_position_embeddings": 514, "pad_token_id": 0},
          "modernbert": SIGNS, "deberta-v2": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                                              "intermediate_size": 3072, **DEBERTA}}  # fmt: skip
LENGTHS = {"classification": 512, "ner": 128, "qa": 384, "regression": 128}


def now():
    """Return the time in seconds, once a GPU has finished its work so far; with `--processor`, the CPU time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() if "--processor" in sys.argv else time.perf_counter()


def peak_gb():
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


class Clock(TrainerCallback):
    """Measures the seconds from the end of the warm-up steps to the end of the last step.

    Only at these two moments does it wait for a GPU, which may lag behind in between, as it does in a run.
    """

    def __init__(self, warm_up=1):
        self.warm_up = warm_up

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun = now()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.warm_up:
            self.warm = now()
        if state.global_step == state.max_steps:
            self.ended = now()

    @property
    def seconds(self):
        return self.ended - self.warm


def order(contender, lengths, size, seed):
    if contender in OURS:
        return list(training.SeededLengthGroups(size, lengths, seed))
    if contender == "switches":
        return list(LengthGroupedSampler(size, lengths=list(lengths)))
    return np.random.default_rng(seed).permutation(len(lengths)).tolist()


def chosen(contender, lengths, batches, size, seed):
    """Return the rows of the warm-up batches, and of `batches` batches evenly spaced by work.

    One batch from the middle warms up. With torch.compile, one of each shape does, since it may compile each anew, and
    all of them twice, since the first step changes the config (`problem_type`) and makes it compile once more.
    """
    rows = order(contender, lengths, size, seed)
    whole = [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
    whole.sort(key=lambda batch: max(lengths[row] for row in batch))
    places = np.linspace(0, len(whole) - 1, batches + 2).round().astype(int)[1:-1]
    picked = [whole[place] for place in np.random.default_rng(seed).permutation(places)]
    if contender != "compiled":
        return [whole[len(whole) // 2]], picked
    shapes = {-(-max(lengths[row] for row in batch) // MULTIPLE): batch for batch in picked}
    return 2 * list(shapes.values()), picked


def computed(contender, lengths, max_length):
    """Return the tokens that a batch computes, including padding."""
    longest = max_length if contender == "lesson" else max(lengths)
    return len(lengths) * (-(-longest // MULTIPLE) * MULTIPLE if contender == "compiled" else longest)


def work(lengths, config):
    """Count the operations of forward and backward pass for these lengths: matrix products of layers, and attention."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or config.hidden_dim  # DistilBERT's name
    weights = layers * (4 * hidden**2 + 2 * hidden * inner)
    lengths = np.asarray(lengths, dtype=float)
    return float(3 * (2 * weights * lengths.sum() + 4 * layers * hidden * (lengths**2).sum()))


def random_encoder(kind, folder):
    """Save a model of base size with random weights, which do for speed, and the packaged tokenizer."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](vocab_size=30522, **SHAPES[kind])
    AutoModel.from_config(config).save_pretrained(folder)
    models.load_tokenizer(MODEL).save_pretrained(folder)


def joined(rows=2048):
    """Join one to a dozen sample reviews per text: half of the texts are under 220 tokens, one in twenty over 512."""
    reviews, rng = TASKS["classification"].load("sample")["train"], np.random.default_rng(0)
    counts = np.ceil(rng.lognormal(np.log(2.2), 0.6, rows)).astype(int)
    texts = [" ".join(rng.choice(reviews["text"], count)) for count in counts]
    labels = rng.choice(reviews["label"], rows)
    features = reviews.select_columns(["text", "label"]).features
    return DatasetDict(train=Dataset.from_dict({"text": texts, "label": labels}, features=features))


def make_ours(contender, task, rows, fields, folder, *, model, batch_size, seed, epochs, **options):
    spec, tokenizer = TASKS[task], models.load_tokenizer(model)
    loaded = models.load_model(model, spec.model_class, seed=seed, **fields)
    options = {"eval_strategy": "no", "torch_compile": contender == "compiled", **options}
    splits = DatasetDict(train=rows, validation=rows.select(range(2)))
    parameters = {"BATCH_SIZE": batch_size, "SEED": seed, "EPOCHS": epochs}
    trainer = runs.make_trainer(task, loaded, splits, tokenizer, parameters, Path(folder), **options)
    if contender == "compiled":
        trainer.data_collator = spec.collator(tokenizer, pad_to_multiple_of=MULTIPLE)
    return trainer


def make(
    contender, task, rows, fields, folder, *, max_length, seed, epochs=1, model=MODEL, batch_size=BATCH, **options
):
    """Return the contender's Trainer for encoded rows, with its model, padding, precision and kernels."""
    if contender in OURS:
        options = {"model": model, "batch_size": batch_size, "seed": seed, "epochs": epochs, **options}
        return make_ours(contender, task, rows, fields, folder, **options)
    spec, tokenizer = TASKS[task], models.load_tokenizer(model)
    set_seed(seed)  # which draws the new head
    own = {name: value for name, value in fields.items() if "target" not in name}
    loaded = spec.model_class.from_pretrained(models.locate(model), **own)
    if contender == "switches":
        options = {"train_sampling_strategy": "group_by_length", **options}
    args = TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        bf16=contender == "switches",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        seed=seed,
        **options,
    )
    padding = {"padding": "max_length", "max_length": max_length} if contender == "lesson" else {}
    return Trainer(loaded, args, spec.collator(tokenizer, **padding), rows, processing_class=tokenizer)


def train(options, folder):
    contender, task, seed, max_length = options.child, options.task, options.seed, options.max_length
    spec, size = TASKS[task], options.batch_size
    dataset = joined() if options.data == "joined" else spec.load(options.data)
    tokenizer = models.load_tokenizer(options.model)
    encoded = spec.encode(DatasetDict(train=dataset["train"]), tokenizer, max_length=max_length)["train"]
    lengths = encoded["length"]
    warm_up, groups = chosen(contender, lengths, options.batches, size, seed)
    fields = spec.model_fields(dataset["train"])
    rows = encoded.select([row for group in [*warm_up, *groups] for row in group])
    # The order is set here; the Trainer keeps it.
    settings = {"train_sampling_strategy": "sequential", "disable_tqdm": True, "logging_strategy": "no"}
    settings |= {"model": options.model, "batch_size": size}
    trainer = make(contender, task, rows, fields, folder, max_length=max_length, seed=seed, **settings)
    clock = Clock(len(warm_up))
    trainer.add_callback(clock)
    trainer.train()
    used = [[lengths[row] for row in group] for group in groups]
    tokens = sum(map(sum, used))
    return {
        "examples_per_s": size * len(groups) / clock.seconds,
        "tokens_per_s": tokens / clock.seconds,
        "padding": 1 - tokens / sum(computed(contender, batch, max_length) for batch in used),
        "operations_per_s": work(np.concatenate(used), trainer.model.config) / clock.seconds,
        "warm_up_s": clock.warm - clock.begun,
        "peak_gb": peak_gb(),
    }


def predict(options, folder):
    """Time the prediction of test texts, including tokenization: by `pipeline` as in its documentation, or by ours."""
    contender, task, seed, max_length = options.child, options.task, options.seed, options.max_length
    spec, size = TASKS[task], options.batch_size
    dataset = spec.load(options.data, test_size=options.batches * size, seed=seed)
    tokenizer = models.load_tokenizer(options.model)
    texts = DatasetDict(test=dataset["test"])
    fields = spec.model_fields(dataset["train"])
    encoded = spec.encode(texts, tokenizer, max_length=max_length)["test"]
    if contender == "pipeline":
        kind = {"classification": "text-classification", "ner": "token-classification"}[task]
        model = spec.model_class.from_pretrained(models.locate(options.model), **fields)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        run = pipeline(kind, model=model, tokenizer=tokenizer, device=device, batch_size=size)
        column = (
            list(texts["test"]["text"]) if task == "classification" else [" ".join(t) for t in texts["test"]["tokens"]]
        )
        settings = {"truncation": True, "max_length": max_length} if task == "classification" else {}
        run(column[:size], **settings)
        started = now()
        run(column, **settings)
    else:
        model = models.load_model(options.model, spec.model_class, seed=seed, **fields)
        wanted = TASKS[task].fields
        rows = texts["test"].select_columns([name for name in texts["test"].column_names if name in wanted])
        predictor = prediction.Predictor(task, model, tokenizer, {"MAX_LENGTH": max_length, "STRIDE": max_length // 4})
        prediction.predict(predictor, rows.select(range(size)), batch_size=size)
        started = now()
        prediction.predict(predictor, rows, batch_size=size)
    seconds = now() - started
    return {"examples_per_s": len(texts["test"]) / seconds, "tokens_per_s": sum(encoded["length"]) / seconds,
            "peak_gb": peak_gb()}  # fmt: skip


def child(options):
    disable_progress_bars()
    logging.set_verbosity_error()
    measure = predict if options.what == "predict" else train
    with tempfile.TemporaryDirectory() as folder:
        row = measure(options, folder)
    print(json.dumps(row))


def in_child(file, words):
    """Call a benchmark again with these arguments, in a process of its own; return what it prints."""
    done = subprocess.run([sys.executable, file, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def measured(options, model, contender, seed):
    words = [options.what, "--child", contender, "--seed", str(seed), "--model", model]
    for name in ("task", "data", "max_length", "batches", "batch_size"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    words += ["--processor"] if options.processor else []
    return json.loads(in_child(__file__, words).splitlines()[-1])


def compare(options, model, contenders):
    """Run all rounds of all contenders; return one row for each, which is also written to a file as it comes."""
    rows = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(options.rounds):
        for contender in contenders:
            row = {"contender": contender, "round": seed, **measured(options, model, contender, seed)}
            rows.append(row)
            of_run = {name: getattr(options, name) for name in ("what", "task", "max_length", "model", "batch_size")}
            with options.out.open("a") as file:
                file.write(json.dumps({**of_run, "data": Path(options.data).name, **row}) + "\n")
            print(json.dumps(row), flush=True)
    return pd.DataFrame(rows)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "predict"), nargs="?", default="train")
    parser.add_argument("--task", choices=tuple(TASKS), default="classification")
    parser.add_argument("--data", default="sample", help="a source, or 'joined': longer texts made from the samples")
    parser.add_argument("--model", default=MODEL, help="a name, or a model type of base size with random weights: "
                        + ", ".join(SHAPES))  # fmt: skip
    parser.add_argument("--max-length", type=int, default=0)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help=f"train: {', '.join(CONTENDERS)}; "
                        f"predict: {', '.join(PREDICTORS)}")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results/speed.jsonl"))
    parser.add_argument("--processor", action="store_true", help="measure CPU time, summed over threads, which "
                        "other jobs on the machine change little")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.max_length = options.max_length or LENGTHS[options.task]
    unknown = set(options.contenders or ()) - set(CONTENDERS if options.what == "train" else PREDICTORS)
    if unknown:
        parser.error(f"no such contender to {options.what}: {', '.join(sorted(unknown))}")
    return options


def main():
    options = arguments()
    if options.child:
        child(options)
        return
    contenders = options.contenders or (["pipeline", "ours"] if options.what == "predict" else USUAL)
    size = 8192 if torch.cuda.is_available() else 1024  # on a GPU, smaller products take less time than their launch
    rate = checks_run.matrix_product_rate(precision=training.resolve_precision(), size=size)
    with tempfile.TemporaryDirectory() as folder:
        if options.model in SHAPES:
            random_encoder(options.model, folder)
        rows = compare(options, folder if options.model in SHAPES else options.model, contenders)
    table = rows.groupby("contender", sort=False).median(numeric_only=True).drop(columns="round")
    if "operations_per_s" in table:
        table["share_of_rate"] = table.pop("operations_per_s") / rate
    table["ours_is_faster"] = table.examples_per_s["ours"] / table.examples_per_s if "ours" in table.index else None
    print(f"\n{records.device_name()}, matrix products at {rate / 1e9:.0f} GFLOP/s\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main()
