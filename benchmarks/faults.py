"""Plant faults in fault-free runs: does the diagnosis name them first, and does its fix win back what was lost?

    python benchmarks/faults.py                         # the report seeds on the samples; continues where it stopped
    python benchmarks/faults.py --seeds 0 1 --only label_noise truncation --tasks ner
    python benchmarks/faults.py --data classification=../imdb --out results/faults-imdb.jsonl
    python benchmarks/faults.py --seeds 101 --neighbours # harmless changes that resemble a fault: no finding expected
    python benchmarks/faults.py --table results/faults.jsonl

The thresholds were chosen on the seeds 0 to 4; the default seeds, 100 to 102, were not looked at before.
Every cell (task, fault, seed) is a line of JSON: findings, fix, and the metrics before and after the fix on the
fault-free test rows. The first cells of a seed are its healthy runs, with which the others are compared.
"""

import argparse
import codecs
import dataclasses
import gc
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pandas as pd
import torch
from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets, disable_progress_bars
from transformers import BertTokenizerFast, Trainer, logging

from bert_helpers import BertHelpersError, DataError, metrics, models, runs, training
from bert_helpers.diagnosis import checks_data, checks_model, checks_run, fixes
from bert_helpers.diagnosis import findings as diagnosis
from bert_helpers.tasks import entities, qa
from bert_helpers.tasks.base import options
from bert_helpers.tasks.registry import TASKS

MODEL = models.DEFAULT_MODEL
REPORT = (100, 101, 102)
ALL, TEXTS = ("classification", "regression", "ner", "qa"), ("classification", "regression")
EVERY = (*ALL, "multilabel")
PARAMETERS = {"BATCH_SIZE": 16, "GRADIENT_ACCUMULATION": 1, "EARLY_STOPPING": 0, "WEIGHT_DECAY": 0.01, "DROPOUT": 0.1,
              "LABEL_SMOOTHING": 0.0, "TRUNCATION": "head", "PRECISION": "auto", "DATALOADER_WORKERS": 0,
              "DIFFERENCE": 0.15}  # fmt: skip
HEALTHY = {  # only as many epochs as lower the validation loss on the samples: with more, they are overconfident
    "classification": {"EPOCHS": 3, "LEARNING_RATE": 1e-4, "MAX_LENGTH": 48, "TRUNCATION": "tail"},
    "regression": {"EPOCHS": 6, "LEARNING_RATE": 2e-4, "MAX_LENGTH": 64},
    "ner": {"EPOCHS": 5, "LEARNING_RATE": 3e-4, "MAX_LENGTH": 96, "STRIDE": 16},
    "qa": {"EPOCHS": 6, "LEARNING_RATE": 3e-4, "MAX_LENGTH": 160, "STRIDE": 40},
    "multilabel": {  # 16 test rows show no difference; after 30 epochs, deciding at 0.5 costs nothing
        "EPOCHS": 10,
        "LEARNING_RATE": 3e-4,
        "MAX_LENGTH": 64,
        "THRESHOLDS": "each",
        "DIFFERENCE": None,
    },
}
REAL = {  # real texts are longer: 48 tokens hold less than half of a review of IMDb
    "classification": {"MAX_LENGTH": 192, "TRUNCATION": "head+tail"},
}
SIZES = {"train_size": 480, "validation_size": 160, "test_size": 240}  # of real data
SAMPLE_SIZES = {"multilabel": {"validation_size": 40, "test_size": 16}}  # of 96 rows; 24 do not show the fault
HEADLINE = {"classification": "f1_macro", "regression": "pearson", "ner": "f1", "qa": "f1", "multilabel": "f1_macro"}
REFUSED = "refused"  # in place of a finding, if rows cannot be read
NOT = "not "  # before the name of a fault whose harmless neighbour is planted


@dataclass
class Setup:
    """Everything that defines a run; a fault changes some of it, a fix changes it back."""

    task: str
    dataset: DatasetDict
    parameters: dict[str, object]
    seed: int
    scaled: bool = True
    memory: float | None = None
    tokenizer: Callable[[], BertTokenizerFast] = lambda: models.load_tokenizer(MODEL)
    changes: dict[str, Callable] = field(default_factory=dict)  # of "encoded", "model", "trainer", "fitted", "logits"

    def change(self, what: str, value: object) -> object:
        changed = self.changes[what](value) if what in self.changes else None
        return value if changed is None else changed

    def replace(self, **splits: Dataset) -> None:
        self.dataset = DatasetDict({**self.dataset, **splits})


@dataclass(frozen=True)
class Fault:
    """A fault: `plant` changes a healthy setup; with `trains`, only the finished run shows the fault."""

    name: str
    tasks: tuple[str, ...]
    plant: Callable[[Setup, np.random.Generator], None]
    metric: str = ""  # the metric that suffers and that training can win back; "headline" is the task's
    trains: bool = False
    finding: str = ""  # the finding's name, if it differs


# --- faults ------------------------------------------------------------------------------------------------


def with_column(split: Dataset, name: str, values: list) -> Dataset:
    feature, order = split.features[name], split.column_names
    return split.remove_columns(name).add_column(name, values, feature=feature).select_columns(order)


def class_imbalance(setup, rng):
    train = setup.dataset["train"]
    if setup.task == "ner":
        names = train.features["ner_tags"].feature.names
        rare = rng.choice([i for i, name in enumerate(names) if name.startswith("B-")])
        rows, kept = [i for i, tags in enumerate(train["ner_tags"]) if rare in tags], 8
    else:
        rare = rng.integers(0, train.features["label"].num_classes)
        rows, kept = np.flatnonzero(np.array(train["label"]) == rare), max(4, len(train) // 40)
    setup.replace(train=fixes.remove_rows(train, rows[kept:]))


def add_to_train(setup, rows, name):
    if setup.task == "qa":
        rows = with_column(rows, "id", [f"{id_}-{name}" for id_ in rows["id"]])
    setup.replace(train=concatenate_datasets([setup.dataset["train"], rows]).shuffle(seed=setup.seed))


def duplicates(setup, rng):
    train = setup.dataset["train"]
    add_to_train(setup, train.select(rng.choice(len(train), len(train) // 3, replace=False)), "again")


def leakage(setup, rng):
    test = setup.dataset["test"]
    add_to_train(setup, test.select(rng.choice(len(test), len(test) // 5, replace=False)), "leaked")


def constant_labels(setup, rng):
    validation = setup.dataset["validation"]
    if setup.task == "ner":
        validation = with_column(validation, "ner_tags", [[0] * len(tags) for tags in validation["ner_tags"]])
    else:
        validation = validation.select(np.flatnonzero(np.array(validation["label"]) == 0))
    setup.replace(validation=validation)


def label_variants(setup, rng):
    name, *others = setup.dataset["train"].features["label"].names
    feature = ClassLabel(names=[name, *others, name.upper()])
    for split, rows in setup.dataset.items():
        labels = np.array(rows["label"])
        labels[(labels == 0) & (rng.random(len(labels)) < 0.3)] = len(others) + 1
        setup.replace(**{split: rows.remove_columns("label").add_column("label", labels, feature=feature)})


def small_evaluation(setup, rng):
    setup.replace(test=setup.dataset["test"].select(range(20)))


def truncation(setup, rng):
    setup.parameters["MAX_LENGTH"] = {"classification": 16, "regression": 10}[setup.task]


def unknown_tokens(setup, rng):
    def keeps_capitals():
        tokenizer = BertTokenizerFast.from_pretrained(models.locate(MODEL), do_lower_case=False)
        tokenizer.model_max_length = 512
        return tokenizer

    setup.tokenizer = keeps_capitals


def initial_loss(setup, rng):
    def enlarge(model):
        head = model.qa_outputs if setup.task == "qa" else model.classifier
        head.weight.data.mul_(50)

    setup.changes["model"] = enlarge


def other_tokenizer(setup, rng):
    def shrink(model):
        model.resize_token_embeddings(20_000)

    setup.changes["model"] = shrink


def added_tokens(setup, rng):
    def with_names():
        tokenizer = models.load_tokenizer(MODEL)
        tokenizer.add_tokens([f"<place {i}>" for i in range(20)])
        return tokenizer

    setup.tokenizer = with_names
    setup.changes["model"] = lambda model: models.fit_embeddings(model, with_names())


def untrained_encoder(setup, rng):
    def forget(model):
        model.bert.encoder.apply(lambda part: part.reset_parameters() if hasattr(part, "reset_parameters") else None)

    setup.changes["model"] = forget


def trained_head(setup, rng):
    def trained(model):
        head = models.output_layer(model)
        head.weight.data.normal_(std=0.1)
        head.bias.data.normal_(std=0.5)

    setup.changes["model"] = trained


def lower_cased_texts(setup, rng, *, every=1):
    for name, split in setup.dataset.items():
        texts = [text if i % every else text.lower() for i, text in enumerate(split["text"])]
        setup.replace(**{name: with_column(split, "text", texts)})
    unknown_tokens(setup, rng)  # gives it a tokenizer that keeps capitals


def many_pieces(setup, rng, *, every=1):
    """Texts in a language of which the vocabulary has only the letters: each is moved 13 places in the alphabet."""
    for name, split in setup.dataset.items():
        texts = [text if i % every else codecs.encode(text, "rot13") for i, text in enumerate(split["text"])]
        setup.replace(**{name: with_column(split, "text", texts)})


def fp16_overflow(setup, rng, *, factor=1e6):
    """Attention values a million times as large and outputs divided by as much, which makes no difference in fp32."""

    def enlarge(model):
        for layer in model.bert.encoder.layer:
            for values in (layer.attention.self.value.weight, layer.attention.self.value.bias):
                values.data.mul_(factor)
            layer.attention.output.dense.weight.data.div_(factor)

    def in_fp16(trainer):
        trainer.args.fp16, trainer.args.bf16 = True, False

    setup.changes.update(model=enlarge, trainer=in_fp16)


def cannot_overfit_batch(setup, rng):
    setup.parameters["DROPOUT"] = 0.9  # the share to keep, mistaken for the share to drop


def frozen_parameters(setup, rng):
    def freeze(model):
        model.bert.requires_grad_(False)

    setup.changes["model"] = freeze


def frozen_norms_and_embeddings(setup, rng):
    def freeze(model):
        for name, weights in model.named_parameters():
            weights.requires_grad = not re.search("LayerNorm|embeddings", name)

    setup.changes["model"] = freeze


def target_scale(setup, rng):
    stretched = {name: [20 * score for score in split["label"]] for name, split in setup.dataset.items()}
    setup.replace(**{name: with_column(setup.dataset[name], "label", scores) for name, scores in stretched.items()})
    setup.scaled = False


def lost_answers(setup, rng):
    setup.parameters.update(MAX_LENGTH=40, STRIDE=0)


def shifted_tags(setup, rng):
    setup.replace(train=fixes.shift_tags(setup.dataset["train"], int(rng.choice([-1, 1]))))


def label_noise(setup, rng):
    """Change a quarter of the labels, or the types of a third of the entities."""
    train = setup.dataset["train"]
    if setup.task == "ner":
        names = train.features["ner_tags"].feature.names
        kinds = [name[2:] for name in names if name.startswith("B-")]
        noisy = []
        for tags in train["ner_tags"]:
            kind, changed = "", []
            for tag in tags:
                if names[tag].startswith("B-"):
                    kind = rng.choice(kinds) if rng.random() < 0.4 else names[tag][2:]
                changed.append(names.index(names[tag][:2] + kind) if tag else 0)
            noisy.append(changed)
        setup.replace(train=with_column(train, "ner_tags", noisy))
        return
    labels, classes = np.array(train["label"]), train.features["label"].num_classes
    wrong = rng.random(len(labels)) < 0.25
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, wrong.sum())) % classes
    setup.replace(train=with_column(train, "label", labels.tolist()))


def different_evaluation(setup, rng):
    """Add a stock phrase to the training rows, but not to the evaluation rows."""
    train = setup.dataset["train"]
    if setup.task == "ner":
        train = with_column(train, "tokens", [["(", "Reuters", ")", *words] for words in train["tokens"]])
        train = with_column(train, "ner_tags", [[0, 0, 0, *tags] for tags in train["ner_tags"]])
    else:
        train = with_column(train, "text", [f"Verified buyer, 5 of 9 found this helpful. {t}" for t in train["text"]])
    setup.replace(train=train)


def memory_short(setup, rng):
    setup.memory = 400e6  # a step of 16 texts takes 460e6 bytes in bf16


def overfitting(setup, rng):
    train = setup.dataset["train"]
    setup.replace(train=train.select(rng.choice(len(train), 96, replace=False)))
    setup.parameters.update(EPOCHS=20, LEARNING_RATE=3e-4)


def underfitting(setup, rng):
    setup.parameters.update(EPOCHS=1, BATCH_SIZE=64)


def learning_rate_too_high(setup, rng, *, factor=100):
    setup.parameters["LEARNING_RATE"] *= factor


def learning_rate_too_low(setup, rng):
    setup.parameters["LEARNING_RATE"] /= 1000


def not_finite_loss(setup, rng):
    setup.parameters["LEARNING_RATE"] = 1e30  # the first step exceeds the range of floats


def out_of_memory(setup, rng):
    def limit(trainer: Trainer) -> None:
        forward = trainer.model.forward

        @wraps(forward)
        def limited(*args, **kwargs):
            if trainer.optimizer is not None and trainer.model.training and len(kwargs["input_ids"]) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(*args, **kwargs)

        trainer.model.forward = limited

    setup.changes["trainer"] = limit


def slow(setup, rng):
    def wait(trainer: Trainer) -> None:
        collate = trainer.data_collator

        def slowly(rows):
            time.sleep(0.1 * len(rows))
            return collate(rows)

        trainer.data_collator = slowly

    setup.changes["trainer"] = wait


def overconfidence(setup, rng):
    setup.changes["logits"] = lambda logits: 5 * logits  # as if five models' logits were added, not averaged


def label_without_rows(setup, rng, *, left=0):
    """Leave only `left` validation rows with the rarest label."""
    validation = setup.dataset["validation"]
    rows = [np.flatnonzero([label in row for row in validation["labels"]])
            for label in range(validation.features["labels"].feature.num_classes)]  # fmt: skip
    setup.replace(validation=fixes.remove_rows(validation, min(rows, key=len)[left:]))


def constant_text(setup, rng, *, texts=("Cordless drill",)):
    """Put the same text in one of two columns of all rows, or one of a few `texts`, like the names of aspects."""
    for split, rows in setup.dataset.items():
        column = [texts[i % len(texts)] for i in range(len(rows))]
        setup.replace(**{split: with_column(rows, "text_pair", column)})


def two_constant_texts(setup, rng):
    constant_text(setup, rng, texts=("Cordless drill", "Garden hose"))


def swap(setup, splits):
    setup.replace(**{name: fixes.swap_pairs(setup.dataset[name]) for name in splits})


def swapped_pairs(setup, rng, *, splits=("validation", "test")):
    """Pair the sample's questions with the sentence of the answer, or another one, as in QNLI (Wang et al. 2019)."""
    for name, rows in TASKS["qa"].load("sample").items():
        pairs = []
        for context, question, answers in zip(rows["context"], rows["question"], rows["answers"], strict=True):
            sentences = re.findall(r"[^.!?]+[.!?]*\s*", context)
            place = int(np.searchsorted(np.cumsum([*map(len, sentences)]), answers["answer_start"][0], side="right"))
            pairs += [(question, sentences[i % len(sentences)], int(i == place)) for i in (place, place + 1)]
        texts, others, labels = zip(*pairs, strict=True)
        split = Dataset.from_dict({"text": texts, "text_pair": others, "label": labels})
        setup.replace(**{name: split.cast_column("label", ClassLabel(names=["other", "answer"]))})
    setup.parameters.update(MAX_LENGTH=160, TRUNCATION="head")
    swap(setup, splits)


def pairs_in_another_order(setup, rng):
    swapped_pairs(setup, rng, splits=("train", "validation", "test"))


def swapped_pairs_of_one_kind(setup, rng):
    swap(setup, ("validation", "test"))


def unfitted_thresholds(setup, rng):
    setup.parameters["THRESHOLDS"] = "none"


def common_threshold(setup, rng):
    setup.parameters["THRESHOLDS"] = "one"


def without_answers(setup, rng):
    """Also ask every second question of the next text, which does not answer it; three epochs, as in notebook 3."""
    setup.parameters["EPOCHS"] = 3
    for name, rows in setup.dataset.items():
        asked = rows.to_pandas()
        texts, elsewhere = asked["context"].unique(), asked.iloc[::2].copy()
        elsewhere["context"] = elsewhere["context"].map(dict(zip(texts, np.roll(texts, -1), strict=True)))
        elsewhere["id"] += "-elsewhere"
        elsewhere["answers"] = [{"text": [], "answer_start": []} for _ in range(len(elsewhere))]
        mixed = pd.concat([asked, elsewhere])
        setup.replace(**{name: Dataset.from_pandas(mixed, rows.features, preserve_index=False)})


def unfitted_no_answer(setup, rng):
    """Save the model like a program that fits no threshold: every question gets an answer."""
    without_answers(setup, rng)
    setup.changes["fitted"] = lambda fields: {qa.THRESHOLD: None}


def overlapping_windows(setup, rng):
    setup.parameters.update(MAX_LENGTH=64, STRIDE=30)


def spans_of(rows: Dataset, *, normalised: float = 0.0, blanks: float = 0.0, rng: np.random.Generator) -> list[dict]:
    """Write tagged sentences as texts with character spans.

    A share of the texts is `normalised` afterwards: of two spaces after the first word, one is left. A share of the
    spans (`blanks`) ends with a space.
    """
    names, found = rows.features["ner_tags"].feature.names, []
    for words, tags in zip(rows["tokens"], rows["ner_tags"], strict=True):
        text, spans = " ".join(words), []
        for start, end, kind, _ in entities.character_spans(text, words, [names[tag] for tag in tags]):
            longer = int(end < len(text) and rng.random() < blanks)
            spans.append([start, end + longer, kind])
        if rng.random() < normalised:
            first = len(words[0])
            spans = [[start + (start > first), end + (end > first), kind] for start, end, kind in spans]
        found.append({"text": text, "label": spans})
    return found


def from_spans(setup, rng, **changes):
    """Read the same rows from texts with character spans."""
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in setup.dataset.items():
            lines = [json.dumps(row) + "\n" for row in spans_of(rows, rng=rng, **changes)]
            (Path(folder) / f"{name}.jsonl").write_text("".join(lines))
        setup.dataset = TASKS["ner"].load(folder)


def cut_spans(setup, rng):
    from_spans(setup, rng, normalised=0.2)


def spans_of_another_text(setup, rng):
    from_spans(setup, rng, normalised=1.0)


def spans_with_blanks(setup, rng):
    from_spans(setup, rng, blanks=0.2)


FAULTS = [
    Fault("class_imbalance", ("classification", "ner"), class_imbalance, metric="headline"),
    Fault("duplicates", ALL, duplicates),
    Fault("leakage", ALL, leakage),
    Fault("constant_labels", ("classification", "ner"), constant_labels),
    Fault("label_variants", ("classification",), label_variants),
    Fault("small_evaluation", ALL, small_evaluation),
    Fault("truncation", TEXTS, truncation, metric="headline"),
    Fault("unknown_tokens", ALL, unknown_tokens, metric="headline"),
    Fault("other_tokenizer", ALL, other_tokenizer),
    Fault("many_pieces", TEXTS, many_pieces),
    Fault("lower_cased_texts", TEXTS, lower_cased_texts),
    Fault("fp16_overflow", ALL, fp16_overflow),
    Fault("initial_loss", ALL, initial_loss, metric="headline"),
    Fault("untrained_encoder", ALL, untrained_encoder, metric="headline"),
    Fault("trained_head", ALL, trained_head, metric="headline"),
    Fault("cannot_overfit_batch", ALL, cannot_overfit_batch, metric="headline"),
    Fault("frozen_parameters", ALL, frozen_parameters, metric="headline"),
    Fault("frozen_norms_and_embeddings", ALL, frozen_norms_and_embeddings, finding="frozen_parameters"),
    Fault("label_without_rows", ("multilabel",), label_without_rows),
    Fault("constant_text", ("regression",), constant_text),
    Fault("swapped_pairs", ("classification",), swapped_pairs),
    Fault("cut_spans", ("ner",), cut_spans),
    Fault(REFUSED, ("ner",), spans_of_another_text),
    Fault("target_scale", ("regression",), target_scale, metric="headline"),
    Fault("lost_answers", ("qa",), lost_answers, metric="headline"),
    Fault("shifted_tags", ("ner",), shifted_tags, metric="headline"),
    Fault("label_noise", ("classification", "ner"), label_noise, metric="headline"),
    Fault("different_evaluation", ("classification", "regression", "ner"), different_evaluation),
    Fault("memory_short", ALL, memory_short),
    Fault("overfitting", ("classification", "ner"), overfitting, metric="log_loss", trains=True),
    Fault("underfitting", ALL, underfitting, metric="headline", trains=True),
    Fault("learning_rate_too_high", ALL, learning_rate_too_high, metric="headline", trains=True),
    Fault("learning_rate_too_low", ALL, learning_rate_too_low, metric="headline", trains=True),
    Fault("not_finite_loss", ALL, not_finite_loss, metric="headline", trains=True),
    Fault("out_of_memory", ALL, out_of_memory, metric="headline", trains=True),
    Fault("slow", ("classification", "ner"), slow, metric="seconds", trains=True),
    Fault("overconfidence", ("classification",), overconfidence, metric="log_loss", trains=True),
    Fault("unfitted_thresholds", ("multilabel",), unfitted_thresholds, metric="headline", trains=True),
    Fault("unfitted_no_answer", ("qa",), unfitted_no_answer, trains=True),
]
NEIGHBOURS = [
    Fault(f"{NOT}other_tokenizer", ALL, added_tokens),
    Fault(f"{NOT}many_pieces", TEXTS, partial(many_pieces, every=5)),
    Fault(f"{NOT}lower_cased_texts", TEXTS, partial(lower_cased_texts, every=2)),
    Fault(f"{NOT}fp16_overflow", ALL, partial(fp16_overflow, factor=100)),
    Fault(f"{NOT}learning_rate_too_high", TEXTS, partial(learning_rate_too_high, factor=2), trains=True),
    Fault(f"{NOT}label_without_rows", ("multilabel",), partial(label_without_rows, left=1)),
    Fault(f"{NOT}constant_text", ("regression",), two_constant_texts),
    Fault(f"{NOT}swapped_pairs", ("classification",), pairs_in_another_order),
    Fault(f"{NOT}swapped_pairs", ("regression",), swapped_pairs_of_one_kind),
    Fault(f"{NOT}cut_spans", ("ner",), spans_with_blanks),
    Fault(f"{NOT}lost_answers", ("qa",), overlapping_windows),
    Fault(f"{NOT}unfitted_thresholds", ("multilabel",), common_threshold, trains=True),
    Fault(f"{NOT}unfitted_no_answer", ("qa",), without_answers, trains=True),
]
HEALTHY_RUN = Fault("healthy", EVERY, lambda setup, rng: None, metric="headline")


# --- runs --------------------------------------------------------------------------------------------------


def healthy_setup(task: str, source: str, seed: int) -> Setup:
    """Load the task's data, with splits drawn anew from `seed`.

    Questions keep their splits, since contexts must stay apart; those of several labels are drawn on reading.
    """
    sizes = SAMPLE_SIZES.get(task, {}) if source == "sample" else SIZES
    dataset = TASKS[task].load(source, seed=seed, **sizes)
    if task not in ("qa", "multilabel"):
        dataset = fixes.redraw_splits(dataset, seed=seed)
    real = {} if source == "sample" else REAL.get(task, {})
    return Setup(task, dataset, {**PARAMETERS, **HEALTHY[task], **real}, seed)


def encode(setup: Setup, dataset: DatasetDict, tokenizer: BertTokenizerFast) -> DatasetDict:
    encode_ = TASKS[setup.task].encode
    return setup.change("encoded", encode_(dataset, tokenizer, **options(encode_, setup.parameters)))


def model_fields(setup: Setup) -> dict[str, object]:
    fields = TASKS[setup.task].model_fields(setup.dataset["train"])
    return fields if setup.scaled else {"num_labels": 1}


def prepare(setup: Setup, folder: Path) -> tuple[BertTokenizerFast, DatasetDict, Trainer]:
    """Return tokenizer, encoded splits and a fresh Trainer of the setup, each changed by the fault."""
    p, tokenizer = setup.parameters, setup.tokenizer()
    encoded = encode(setup, setup.dataset, tokenizer)
    model = models.load_model(MODEL, TASKS[setup.task].model_class, seed=setup.seed,
                              hidden_dropout_prob=p["DROPOUT"], **model_fields(setup))  # fmt: skip
    model = setup.change("model", model)
    trainer = runs.make_trainer(
        setup.task, model, encoded, tokenizer, {**p, "SEED": setup.seed}, Path(folder),
        label_smoothing_factor=p["LABEL_SMOOTHING"] if TASKS[setup.task].has_classes else 0.0,
    )  # fmt: skip
    return tokenizer, encoded, setup.change("trainer", trainer)


def fit(setup: Setup, encoded: DatasetDict, trainer: Trainer) -> None:
    """Fit what the task fits on validation rows, such as thresholds."""
    task, config = TASKS[setup.task], trainer.model.config
    rows = encoded["validation"], setup.dataset["validation"]
    chosen = options(task.fitted_fields, setup.parameters)
    fitted = task.fitted_fields(trainer.predict(rows[0]), *rows, config, **chosen)
    config.update(setup.change("fitted", fitted))


def check_before_training(
    setup: Setup, tokenizer: BertTokenizerFast, encoded: DatasetDict, trainer: Trainer
) -> list[diagnosis.Finding]:
    task, difference = setup.task, setup.parameters["DIFFERENCE"]
    return [
        *checks_data.check_dataset(setup.dataset, task=task, difference=difference, seed=setup.seed),
        *checks_model.check_tokens(setup.dataset, encoded, tokenizer, task=task),
        *checks_model.check_model(trainer, task=task, memory=setup.memory, seed=setup.seed),
    ]


def check_after_training(setup: Setup, encoded: DatasetDict, trainer: Trainer) -> list[diagnosis.Finding]:
    task, config, classes = TASKS[setup.task], trainer.model.config, None
    found: list[diagnosis.Finding] = []
    output = trainer.predict(encoded["validation"])
    if task.has_classes:
        classes = task.class_logits(output._replace(predictions=setup.change("logits", output.predictions)))
    if hasattr(config, "thresholds"):
        found = checks_run.check_thresholds(*output[:2], config.thresholds, seed=setup.seed)
    if hasattr(config, qa.THRESHOLD):
        rows, threshold = setup.dataset["validation"], getattr(config, qa.THRESHOLD)
        found = checks_run.check_no_answer(output, encoded["validation"], rows, threshold, seed=setup.seed)
    return found + checks_run.check_run(
        trainer.state.log_history,
        training.history(trainer),
        chance=task.chance_loss(encoded["train"], config),
        learning_rate=setup.parameters["LEARNING_RATE"],
        weight=models.weight_size(models.load_model(MODEL, task.model_class)),
        classes=classes,
        losses=checks_run.row_losses(trainer, output) if task.has_classes else None,
        rate=RATE[trainer.args.bf16],
    )


class Rates(dict):
    """The machine's matrix-product rate, measured once for bf16 (True) and once for fp32 (False)."""

    def __missing__(self, bf16: bool) -> float:
        self[bf16] = checks_run.matrix_product_rate(precision="bf16" if bf16 else "fp32")
        return self[bf16]


RATE = Rates()


def score(setup: Setup, test: Dataset, tokenizer: BertTokenizerFast, trainer: Trainer) -> dict[str, float]:
    """Return metrics on the fault-free test rows, tokenized as in the setup."""
    encoded = encode(setup, DatasetDict(test=test), tokenizer)["test"]
    output = trainer.predict(encoded)
    spec = TASKS[setup.task]
    predictions, truth = spec.predictions_and_references(output, encoded, test, trainer.model.config)
    if setup.task == "classification":
        measure = metrics.ClassificationMeasure(setup.change("logits", predictions), truth)
    else:
        measure = spec.measure(predictions, truth, test)
    values = measure.values()
    if setup.task == "ner":
        losses, words = checks_run.row_losses(trainer, output)
        values["log_loss"] = np.average(losses, weights=words)
    return values


def run(setup: Setup, test: Dataset, *, train: bool, diagnose: bool) -> tuple[list[diagnosis.Finding], dict]:
    """Return findings and metrics of one run; metrics are empty if it could not be finished."""
    found, scores = [], {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, encoded, trainer = prepare(setup, Path(folder))
        if diagnose:
            found += check_before_training(setup, tokenizer, encoded, trainer)
        if train:
            try:
                started = time.perf_counter()
                trainer.train()
                scores["seconds"] = time.perf_counter() - started
                fit(setup, encoded, trainer)
                found += check_after_training(setup, encoded, trainer) if diagnose else []
                scores |= score(setup, test, tokenizer, trainer)
            except (BertHelpersError, torch.OutOfMemoryError) as error:
                found += checks_run.check_failure(error, parameters=setup.parameters)
    return diagnosis.sort_by_priority(found), scores


def fixed(setup: Setup, finding: diagnosis.Finding) -> Setup:
    """Return the setup after the fix of a finding: parameters, data actions and advice."""
    changes, tokenizer = dict(setup.changes), setup.tokenizer
    if finding.name in ("frozen_parameters", "initial_loss", "untrained_encoder", "trained_head"):
        changes.pop("model", None)
    if finding.name == "overconfidence":
        changes["logits"] = lambda logits: setup.change("logits", logits) / finding.evidence.value
    if finding.name == "unknown_tokens":
        tokenizer = lambda: models.load_tokenizer(MODEL)  # noqa: E731
    return dataclasses.replace(
        setup,
        dataset=fixes.apply_fix(setup.dataset, finding.fix, seed=setup.seed),
        parameters=diagnosis.with_fix(setup.parameters, finding.fix),
        scaled=setup.scaled or finding.name == "target_scale",
        tokenizer=tokenizer,
        changes=changes,
    )


def cell(task: str, fault: Fault, seed: int, source: str, *, train: bool) -> dict:
    """Run one cell and return its line of the results."""
    setup = healthy_setup(task, source, seed)
    test = setup.dataset["test"]
    try:
        fault.plant(setup, np.random.default_rng(seed))
    except DataError as error:
        return {"source": Path(source).name, "task": task, "fault": fault.name, "seed": seed, "trained": False,
                "findings": [REFUSED], "evidence": [], "fix": str(error)[:300], "before": {}, "after": {}}  # fmt: skip
    if fault.name == "target_scale":  # the scale does not matter to correlations
        test = setup.dataset["test"]
    train = train and (fault.trains or bool(fault.metric))
    found, before = run(setup, test, train=train, diagnose=True)
    after: dict[str, float] = {}
    if train and fault.metric and fault is not HEALTHY_RUN and found and found[0].remedy:
        _, after = run(fixed(setup, found[0]), test, train=True, diagnose=False)
    return {
        "source": Path(source).name,
        "task": task,
        "fault": fault.name,
        "seed": seed,
        "trained": train,
        "findings": [finding.name for finding in found],
        "evidence": [[float(finding.evidence.value), float(finding.evidence.threshold)] for finding in found],
        "fix": found[0].remedy if found else "",
        "before": before,
        "after": after,
    }


# --- the table ---------------------------------------------------------------------------------------------


def summary(rows: list[dict]) -> str:
    """Write a table with a row per fault and task (runs that name it first, metrics, other findings), and the goals."""
    healthy = {(r["source"], r["task"], r["seed"]): r for r in rows if r["fault"] == "healthy"}
    lines, named, spared, won = (
        [("fault", "task", "named first", "healthy / before / after", "other findings"), ("---",) * 5],
        [],
        [],
        [],
    )
    for (fault, task), group in pd.DataFrame(rows).groupby(["fault", "task"], sort=False):
        expected = next((f.finding for f in FAULTS if f.name == fault), "") or fault
        if fault == "healthy":
            first = [not found for found in group.findings]
            text = ""
        elif fault.startswith(NOT):
            first, text = [fault.removeprefix(NOT) not in found for found in group.findings], ""
            spared += first
        else:
            first = [found[:1] == [expected] for found in group.findings]
            named += first
            text, back = won_back(fault, task, group, healthy)
            won += [back] if np.isfinite(back) else []
        others = sorted({name for found in group.findings for name in found} - {expected})
        lines.append((fault, task, f"{sum(first)}/{len(first)}", text, ", ".join(others)))
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    goals = []
    if named:
        goals.append(f"planted faults named first: {np.mean(named):.1%} of {len(named)} (goal 95%)")
    if spared:
        goals.append(f"harmless neighbours without the finding: {sum(spared)} of {len(spared)} (goal: all)")
    if healthy:
        share = np.mean([bool(run["findings"]) for run in healthy.values()])
        goals.append(f"healthy runs with a finding: {share:.1%} of {len(healthy)} (goal: at most 5%)")
    if won:
        goals.append(f"won back: median {np.median(won):.0%}; 90% or more in {np.mean(np.array(won) >= 0.9):.0%} of "
                     f"{len(won)} faults and tasks (goal: each)")  # fmt: skip
    return table + "\n\n" + "\n".join(goals)


def won_back(fault: str, task: str, group: pd.DataFrame, healthy: dict) -> tuple[str, float]:
    """Return the metric's means as text, and the share of the loss that was won back (NaN if nothing was lost)."""
    metric = next(f.metric for f in FAULTS if f.name == fault)
    metric = HEADLINE[task] if metric == "headline" else metric
    values = []
    for row in group.itertuples():
        healthy_run = healthy.get((row.source, task, row.seed), {}).get("before", {})
        if metric in healthy_run and metric in row.after:
            # An unfinished run has no metrics; NaN (constant predictions) counts as a correlation of 0.
            before = row.before.get(metric, 0.0)
            values.append((healthy_run[metric], 0.0 if np.isnan(before) else before, row.after[metric]))
    if not values:
        return "", float("nan")
    right, before, after = np.mean(values, axis=0)
    lower_is_better = metric in ("seconds", "log_loss")
    lost = before - right if lower_is_better else right - before
    significant = lost > (0.1 * right if lower_is_better else 0.02)
    back = (after - before) / (right - before) if significant else float("nan")
    text = f"{metric} {right:.3f} / {before:.3f} / {after:.3f}"
    return (f"{text}, {back:.0%} back" if significant else f"{text}, nothing lost"), back


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(REPORT))
    parser.add_argument("--only", nargs="+", help="names of faults, or 'healthy'")
    parser.add_argument("--tasks", nargs="+", choices=EVERY, default=list(EVERY))
    parser.add_argument("--neighbours", action="store_true", help="plant harmless neighbours of faults instead")
    parser.add_argument("--data", nargs="+", default=[], metavar="TASK=SOURCE", help="use these instead of the samples")
    parser.add_argument("--out", type=Path, default=Path("results/faults.jsonl"))
    parser.add_argument("--no-train", action="store_true", help="only diagnose before training")
    parser.add_argument("--table", type=Path, help="print the table of finished cells and run nothing")
    options = parser.parse_args()
    if options.table:
        print(summary(read(options.table)))
        return
    disable_progress_bars()
    logging.set_verbosity_error()
    sources = dict(given.split("=", 1) for given in options.data)
    tasks = [task for task in options.tasks if not sources or task in sources]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = {(r["source"], r["task"], r["fault"], r["seed"]) for r in read(options.out)}
    runs_ = NEIGHBOURS if options.neighbours else [HEALTHY_RUN, *FAULTS]
    for seed, fault in ((seed, fault) for seed in options.seeds for fault in runs_):
        if (options.only and fault.name not in options.only) or (options.no_train and fault.trains):
            continue
        for task in tasks:
            source = sources.get(task, "sample")
            if task not in fault.tasks or (Path(source).name, task, fault.name, seed) in done:
                continue
            started = time.perf_counter()
            row = cell(task, fault, seed, source, train=not options.no_train)
            gc.collect()  # a Trainer and its callbacks refer to one another
            row["minutes"] = round((time.perf_counter() - started) / 60, 2)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            found = ", ".join(row["findings"]) or "-"
            print(f"{task:15} {fault.name:23} {seed:4} {row['minutes']:6.2f} min  {found}", flush=True)
    print("\n" + summary(read(options.out)))


if __name__ == "__main__":
    main()
