"""Texts, or pairs of texts, with one class each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict

from bert_helpers.data import (
    FILL,
    bad_rows,
    check_label_names,
    in_splits,
    sample_by_label,
    stratified_indices,
    subsample,
    values_of,
)
from bert_helpers.errors import DataError, ParameterError, parameter
from bert_helpers.metrics import ClassificationMeasure, probabilities
from bert_helpers.readers.delimited import to_number
from bert_helpers.readers.source import SPLITS, source_name
from bert_helpers.tasks.base import Examples, class_fields, class_losses, class_names, mean_loss
from bert_helpers.tasks.texts import TextTask, read_texts, save_logits, text_examples

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig
    from transformers.trainer_utils import PredictionOutput


WHOLE = re.compile(r"-?\d+(\.0+)?")  # a class that is a whole number, in the spelling of any type of number


class Classification(TextTask):
    """Texts, or pairs of texts, with one class each."""

    name = "classification"
    usage = """\
from transformers import pipeline

classify = pipeline("text-classification", "{folder}")
print(classify({example}, truncation=True, max_length={length}))"""
    has_classes = True

    def load(
        self,
        source: str | Path,
        *,
        text_column: str = "text",
        pair_column: str = "",
        label_column: str = "label",
        train_size: int = 0,
        validation_size: int = 0,
        test_size: int = 0,
        seed: int = 0,
        **reading: str | bool,
    ) -> DatasetDict:
        """Read texts and labels from `source`, as splits train, validation and test with columns `text` and `label`.

        With `pair_column`, a row has two texts, `text` and `text_pair`. `source` is "sample", a local file or folder
        (CSV, TSV, JSON Lines, Parquet; a folder has one file per split: train, validation, test), or a Hub id
        "owner/name[/config][@revision]". The sizes are numbers of rows to draw from a split, stratified (0 = all). A
        missing validation or test split is taken from the training rows: the given size, or a tenth. Other columns of
        the source are kept. Raises DataError, naming the file, row and column, when the data cannot be used.
        """
        splits = read_texts(source, text_column, pair_column, {"label": label_column}, sample="reviews", **reading)
        splits = _class_labels(splits, label_column, keep=reading.get("keep_labels", ""))
        sizes = (train_size, validation_size, test_size)
        dataset = in_splits(splits, sizes, seed=seed, hold_out=sample_but_last_of_class, sample=sample_by_label)
        _check_classes(dataset["train"], label_column)
        return dataset

    def examples(self, split: Dataset) -> Examples:
        """Return the texts and the names of their classes."""
        names = split.features["label"].names
        return text_examples(split, [names[label] for label in split["label"][:]], names)

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return the number and names of the classes."""
        return class_fields(train.features["label"].names)

    def loss(
        self, train: Dataset, config: PreTrainedConfig, *, class_weights: str = "none", label_smoothing: float = 0.0
    ) -> Callable[..., torch.Tensor] | None:
        """Return cross entropy in which each row has its class's weight; None if classes have no weights."""
        weights = weights_of(class_weights, train["labels"], class_names(config))
        return None if weights is None else weighted_loss(weights, label_smoothing=label_smoothing)

    def chance_loss(
        self, encoded: Dataset, config: PreTrainedConfig, *, class_weights: str = "none", label_smoothing: float = 0.0
    ) -> float:
        """Return the loss of always predicting the classes' weighted shares, in nats."""
        return _losses(encoded, config, class_weights, label_smoothing)[0]

    def lowest_loss(
        self, encoded: Dataset, config: PreTrainedConfig, *, class_weights: str = "none", label_smoothing: float = 0.0
    ) -> float:
        """Return the loss of the best possible predictions, in nats: above 0 if labels are smoothed."""
        return _losses(encoded, config, class_weights, label_smoothing)[1]

    def measure(self, predictions: np.ndarray, references: np.ndarray, rows: Dataset) -> ClassificationMeasure:
        """Measure logits (rows, classes) against label ids."""
        return ClassificationMeasure(predictions, references)

    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return the first class for every row."""
        return {"label": [0] * len(rows)}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return `label`, its `probability`, and `probability_…` of each class (softmax)."""
        chances, names = probabilities(output.predictions).round(6), class_names(config)
        each = {f"probability_{name}": chances[:, i] for i, name in enumerate(names)}
        labels = [names[i] for i in output.predictions.argmax(axis=1)]
        return {"label": labels, "probability": chances.max(axis=1), **each}

    def save_predictions(
        self, folder: Path, predictions: np.ndarray, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write `label`, `predicted`, `probability` (of the predicted class) and logits: see `save_logits`."""
        names = rows["test"].features["label"].names

        def columns(logits: np.ndarray, label_ids: np.ndarray) -> dict[str, Sequence]:
            predicted, chances = logits.argmax(axis=1), probabilities(logits).max(axis=1).round(6)
            label, predicted = ([names[i] for i in numbers] for numbers in (label_ids, predicted))
            return {"label": label, "predicted": predicted, "probability": chances}

        return save_logits(folder, outputs, names, columns)

    def fits(self, config: PreTrainedConfig) -> bool:
        """Whether a model is a sequence classifier with several outputs, of which it chooses one."""
        several = config.problem_type == "multi_label_classification"
        return super().fits(config) and config.num_labels > 1 and not several


def weights_of(text: str, labels: Sequence[int], names: Sequence[str]) -> np.ndarray | None:
    """Return the weight of each class according to CLASS_WEIGHTS; None for "none".

    "balanced" gives a class n / (classes * rows of the class) for n rows, which is 1 on average over rows, so that all
    classes count the same: scikit-learn's rule, after King and Zeng (2001); a class without rows gets 1. Otherwise
    names and numbers, "spam: 5, other: 1", also in Python's or JSON's notation; the weight of other classes is 1.
    Raises ParameterError for an unknown class, or a weight that is not a number above 0.

    >>> weights_of("balanced", [0, 0, 0, 1], ["a", "b"]).round(2).tolist()
    [0.67, 2.0]
    """
    if text == "none":
        return None
    if text == "balanced":
        counts = np.bincount(labels, minlength=len(names))
        return np.where(counts > 0, len(labels) / (len(names) * np.maximum(counts, 1)), 1.0)
    weights, fix = np.ones(len(names)), f"write none, balanced, or {names[0]}: 2 for classes of {', '.join(names[:12])}"
    for part in text.strip("{} ").split(","):
        name, _, number = (side.strip(" '\"") for side in part.rpartition(":"))
        if name not in names or not 0 < (weight := to_number(number) or 0) < math.inf:
            raise ParameterError(f"has the part {part.strip()!r}", parameter="CLASS_WEIGHTS", fix=fix)
        weights[names.index(name)] = weight
    return weights


def _losses(encoded: Dataset, config: PreTrainedConfig, class_weights: str, smoothing: float) -> tuple[float, float]:
    weights = weights_of(class_weights, encoded["labels"], class_names(config))
    shares = np.bincount(encoded["labels"], minlength=config.num_labels) / len(encoded)
    return class_losses(shares, np.ones(len(shares)) if weights is None else weights, smoothing)


def weighted_loss(weights: Sequence[float], *, label_smoothing: float = 0.0) -> Callable[..., torch.Tensor]:
    """Return cross entropy in which each row has its class's weight, as a `Trainer`'s `compute_loss_func`.

    PyTorch's `weight` would give the share of a smoothed label that goes to another class that class's weight: with a
    ratio of 20 and smoothing 0.1, the best prediction for every row would be the rare class.
    """
    import torch  # see tasks/base.py
    from torch.nn.functional import cross_entropy

    def total(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return weight[labels] @ cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")

    return mean_loss(total, weight=torch.tensor(weights, dtype=torch.float32))


def load_transfer(
    source: str | Path,
    *,
    names: Sequence[str],
    text_column: str = "text",
    pair_column: str = "",
    label_column: str = "label",
    test_size: int = 0,
    seed: int = 0,
) -> Dataset:
    """Read rows of another domain for an existing classifier, with columns `text` and `label`.

    `names` are the classifier's classes in order; every label must be one of them. `source` is as in
    `Classification.load`; "sample" is 80 product and restaurant reviews. Of several splits, the test split is taken.
    Raises DataError for a label that is not a class.
    """
    options = {"sample": "transfer_reviews", "need_train": False}
    splits = read_texts(source, text_column, pair_column, {"label": label_column}, **options)
    rows = next(splits[name] for name in reversed(SPLITS) if name in splits)
    labels = _label_strings(rows, label_column)
    if unknown := [i for i, label in enumerate(labels) if label not in names]:
        problem = f"{labels[unknown[0]]!r} is not a class of the model, which has {', '.join(map(repr, names))}"
        raise bad_rows(rows, unknown, label_column, problem, "rename the labels to these")
    return subsample(_replace_label(rows, labels, ClassLabel(names=list(names))), test_size, seed=seed)


def _class_labels(splits: dict[str, Dataset], column: str, *, keep: str = "") -> dict[str, Dataset]:
    """Turn the `label` column of every split into the same `ClassLabel`, with names from the training rows."""
    if all(isinstance(split.features["label"], ClassLabel) for split in splits.values()):
        for split in splits.values():
            labels = split.with_format("arrow")[:]["label"].to_numpy(zero_copy_only=False).astype(float)
            if rows := np.flatnonzero(~((labels >= 0) & (labels < split.features["label"].num_classes))).tolist():
                fix = f"label them, or leave such rows out by {parameter('DROP_LABELS')} -1"
                raise bad_rows(split, rows, column, "no label (the split is unlabelled?)", fix)
        return splits
    keys = {name: _label_strings(split, column) for name, split in splits.items()}
    if all(WHOLE.fullmatch(value) for values in keys.values() for value in values):  # 1.0 here, 1 there
        keys = {name: [value.partition(".")[0] for value in values] for name, values in keys.items()}
    for split_name, values in keys.items():
        check_label_names(splits[split_name], values, column, keep)
    names = sorted(set(keys["train"]), key=natural_order)
    known = set(names)
    for split_name, values in keys.items():
        if rows := [i for i, value in enumerate(values) if value not in known]:
            labels = ", ".join(map(repr, names[:12]))
            problem = f"{values[rows[0]]!r} does not occur in the training rows, whose labels are {labels}"
            raise bad_rows(splits[split_name], rows, column, problem, "rename it to one of these, or delete the row")
    feature = ClassLabel(names=names)
    return {name: _replace_label(split, keys[name], feature) for name, split in splits.items()}


def _replace_label(dataset: Dataset, values: list[str], feature: ClassLabel) -> Dataset:
    index = {name: i for i, name in enumerate(feature.names)}
    labels = [index[value] for value in values]
    return dataset.remove_columns("label").add_column("label", labels, feature=feature)


def natural_order(name: str) -> tuple[int, float, str]:
    """Return a sort key: "2" before "10", numbers before words, and "7" and "07" in a fixed order."""
    return (0, int(name), name) if re.fullmatch(r"-?\d{1,15}", name) else (1, 0, name)


def _label_strings(dataset: Dataset, column: str) -> list[str]:
    values = values_of(dataset, "label")
    if rows := [i for i, value in enumerate(values) if value is None or (isinstance(value, str) and not value.strip())]:
        raise bad_rows(dataset, rows, column, "the label is missing", FILL)
    if isinstance(dataset.features["label"], ClassLabel):
        values = dataset.features["label"].int2str(values)
    strings = [str(int(value)) if isinstance(value, float) and value % 1 == 0 else value for value in values]
    if rows := [i for i, value in enumerate(strings) if not isinstance(value, (str, int))]:  # fractions, lists, dates
        fix = "write labels as strings, whole numbers or booleans"
        if isinstance(values[rows[0]], dict):
            names = ", ".join(f"{column}.{name}" for name in values[rows[0]])
            fix = f"name one of its fields by {parameter('LABEL_COLUMN')}: {names}"
        raise bad_rows(dataset, rows, column, f"{str(values[rows[0]])[:40]} is not a class", fix)
    return [str(value).strip() for value in strings]


def _check_classes(train: Dataset, column: str) -> None:
    classes, at = len(set(train["label"][:])), {"source": source_name(train), "column": column}
    if classes < 2:
        raise DataError("one class only", fix="give rows of at least two, which a classifier needs", **at)
    if classes > max(2, len(train) / 2):
        problem = f"{classes} classes in {len(train)} training rows: most occur once, and cannot be learned"
        fix = f"name the column that holds classes by {parameter('LABEL_COLUMN')}, or give more rows"
        raise DataError(problem, fix=fix, parameter="LABEL_COLUMN", **at)


def sample_but_last_of_class(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """Sample like `sample_by_label`, but never a class's only row, without which the class cannot be learned.

    If fewer than `size` other rows exist, the classes cannot be learned anyway, and all rows are sampled from.
    """
    labels = np.asarray(dataset["label"][:])
    others = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(others) < size:
        return sample_by_label(dataset, size, seed=seed)
    return others[stratified_indices(labels[others], size, seed=seed)]
