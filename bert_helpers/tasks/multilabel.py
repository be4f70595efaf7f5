"""Texts, or pairs of texts, with any number of labels each, including none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, List
from scipy.special import entr, expit

from bert_helpers.data import CORRECT, bad_rows, choices_in, in_splits, values_of
from bert_helpers.errors import DataError, parameter
from bert_helpers.readers.json_rows import parsed_cell
from bert_helpers.readers.source import note, source_name
from bert_helpers.tasks.base import Examples, class_fields, class_names, mean_loss
from bert_helpers.tasks.classification import natural_order
from bert_helpers.tasks.texts import TextTask, read_texts, save_logits, text_examples
from bert_helpers.tasks.thresholds import HALF, MultilabelMeasure, decide, fit_thresholds
from bert_helpers.tokenization import encode_texts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_utils import PredictionOutput

DELIMITERS = ("|", ";", ",")  # between labels in one column
OPENING = ("[", "{", "(", "set(")  # of a cell that writes out several labels
TUPLE = re.compile(r"\A\s*(?:set)?\((.*,.*)?\)\s*\Z", re.DOTALL)  # as Python writes one, or an empty set
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", ""}


class Decisions(NamedTuple):
    """Logits (rows, labels), and the thresholds that turn them into decisions."""

    logits: np.ndarray
    thresholds: np.ndarray
    names: Sequence[str]


class Multilabel(TextTask):
    """Texts, or pairs of texts, with any number of labels each."""

    name = "multilabel"
    usage = """\
from transformers import pipeline

tag = pipeline("text-classification", "{folder}", top_k=None)
thresholds = dict(zip(tag.model.config.id2label.values(), tag.model.config.thresholds))
for label in tag([{example}], truncation=True, max_length={length})[0]:
    print(label["label"], label["score"], label["score"] >= thresholds[label["label"]])"""
    has_classes = True

    def load(
        self,
        source: str | Path,
        *,
        text_column: str = "text",
        pair_column: str = "",
        label_column: str = "labels",
        label_delimiter: str = "",
        train_size: int = 0,
        validation_size: int = 0,
        test_size: int = 0,
        seed: int = 0,
        **reading: str | bool,
    ) -> DatasetDict:
        """Read texts and labels, as splits with columns `text` and `labels`, a list of `ClassLabel`s.

        `label_column` names one column of lists of names, of names separated by `label_delimiter` ("": whichever of
        | ; , occurs), or of lists of 0 and 1, whose labels are their positions, from 0. Or it names columns of 0 and 1,
        separated by commas, one per label. A row may have no label. `source`, sizes and missing splits are as in
        `Classification.load`, but sampling keeps rare labels in every split (`stratified_rows`). Raises DataError,
        naming the file, row and column, when the data cannot be used.
        """
        names = [name.strip() for name in label_column.split(",")]
        columns = {f"labels {i}": name for i, name in enumerate(names)} if len(names) > 1 else {"labels": label_column}
        splits = read_texts(source, text_column, pair_column, columns, sample="tags", **reading)
        if len(names) > 1 or _is_hot(splits):
            splits = {name: _of_columns(split, columns) for name, split in splits.items()}
        else:
            splits = _of_lists(splits, label_column, label_delimiter)
        if not any(splits["train"]["labels"]):
            raise DataError("no training row has a label", source=source_name(splits["train"]), column=label_column)
        sizes = (train_size, validation_size, test_size)
        return in_splits(splits, sizes, seed=seed, hold_out=sample_by_labels)

    def encode(
        self, dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, max_length: int, truncation: str = "head"
    ) -> DatasetDict:
        """Encode as `encode_texts`, with `labels` a list of 0.0 and 1.0, a number for each label there is."""
        hot = {}
        for name, split in dataset.items():
            numbered = isinstance(split.features["labels"].feature, ClassLabel)
            labels = one_hot(split).tolist() if numbered else list(split["labels"])
            hot[name] = split.remove_columns("labels").add_column("label", labels)
        return encode_texts(DatasetDict(hot), tokenizer, max_length=max_length, truncation=truncation)

    def examples(self, split: Dataset) -> Examples:
        """Return the texts and, for each row, a tuple of label names."""
        names = split.features["labels"].feature.names
        return text_examples(split, [tuple(names[i] for i in row) for row in split["labels"][:]], names)

    def model_fields(self, train: Dataset, *, positive_weights: str = "none") -> dict[str, object]:
        """Return the labels' names, the problem type, thresholds not fitted yet, and the head's initial biases.

        The biases say how frequent each label is (Lin et al. 2017), all that is known about an unseen text. With biases
        of 0, which predict half of all labels, the first steps on GoEmotions teach little but that most labels are
        rare: after 80 steps of 64 texts (learning rate 5e-4) the loss was 0.155, and 0.126 with these biases. The
        labels' shares alone give 0.149.
        """
        names = train.features["labels"].feature.names
        several = {"problem_type": "multi_label_classification", "thresholds": [HALF] * len(names)}
        if positive_weights == "none":
            positive = one_hot(train).sum(axis=0)
            several["output_bias"] = np.log((positive + 0.5) / (len(train) - positive + 0.5)).tolist()
        return {**class_fields(names), **several}

    def loss(
        self, train: Dataset, config: PreTrainedConfig, *, positive_weights: str = "none"
    ) -> Callable[..., torch.Tensor] | None:
        """Return binary cross entropy, unless "none", in which a label's positive and negative rows weigh the same."""
        if positive_weights == "none":
            return None
        import torch  # see tasks/base.py
        from torch.nn.functional import binary_cross_entropy_with_logits

        weights = torch.tensor(balanced_weights(train), dtype=torch.float32)
        return mean_loss(partial(binary_cross_entropy_with_logits, reduction="sum"), pos_weight=weights)

    def fitted_fields(
        self,
        output: PredictionOutput,
        encoded: Dataset,
        rows: Dataset,
        config: PreTrainedConfig,
        *,
        thresholds: str = "each",
    ) -> dict[str, object]:
        """Return the thresholds that fit the validation rows best: one per label, one for all, or 0.5."""
        if thresholds == "none":
            return {"thresholds": [HALF] * config.num_labels}
        return {"thresholds": fit_thresholds(*output[:2], each=thresholds == "each").tolist()}

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> tuple[Decisions, np.ndarray]:
        """Return logits with the model's thresholds, and labels as 0 and 1."""
        return Decisions(output.predictions, _thresholds(config), class_names(config)), one_hot(rows)

    def measure(
        self, predictions: Decisions | np.ndarray, references: np.ndarray, rows: Dataset | None
    ) -> MultilabelMeasure:
        """Measure decisions; logits alone, as during training, are decided at 0.5."""
        if isinstance(predictions, Decisions):
            return MultilabelMeasure(predictions.logits, references, predictions.thresholds)
        return MultilabelMeasure(predictions, references)

    def parts(self, predictions: Decisions, references: np.ndarray, seed: int) -> pd.DataFrame:
        """Return F1 of every label ("toxic/f1")."""
        table = self.measure(predictions, references, None).by_label(predictions.names, seed=seed)
        f1 = table.xs("f1", level="metric")[["value", "low", "high"]]
        return f1.add_suffix("/f1", axis=0)

    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return no label for every row, in the form of encoded rows, which need no names."""
        return {"labels": [[0.0] * config.num_labels] * len(rows)}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return `labels`, the predicted names separated by |, and `probability_…` of each."""
        names, chances = class_names(config), expit(output.predictions.astype(np.float64)).round(6)
        predicted = decide(output.predictions, _thresholds(config))
        each = {f"probability_{name}": chances[:, i] for i, name in enumerate(names)}
        return {"labels": joined(predicted, names), **each}

    def save_predictions(
        self, folder: Path, predictions: Decisions, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write `labels` and `predicted`, both names separated by |, and logits: see `save_logits`."""
        names = predictions.names

        def columns(logits: np.ndarray, label_ids: np.ndarray) -> dict[str, Sequence]:
            predicted = decide(logits, predictions.thresholds)
            return {"labels": joined(label_ids > 0, names), "predicted": joined(predicted, names)}

        return save_logits(folder, outputs, names, columns)

    def fits(self, config: PreTrainedConfig) -> bool:
        """Whether a model is a sequence classifier that decides on each of its outputs separately."""
        return super().fits(config) and config.problem_type == "multi_label_classification"

    def chance_loss(self, encoded: Dataset, config: PreTrainedConfig, *, positive_weights: str = "none") -> float:
        """Return the loss of always predicting each label's weighted share, in nats: without weights, the entropies."""
        positive = np.mean(encoded["labels"], axis=0)
        yes, no = positive * (balanced_weights(encoded) if positive_weights == "balanced" else 1), 1 - positive
        return float(np.mean(entr(yes) + entr(no) - entr(yes + no)))

    def class_logits(self, output: PredictionOutput) -> tuple[np.ndarray, np.ndarray]:
        """Return every decision as one between two classes, no and yes: (rows, labels, 2) and (rows, labels)."""
        yes = np.asarray(output.predictions, dtype=np.float64)
        return np.stack([np.zeros_like(yes), yes], axis=-1), np.asarray(output.label_ids).astype(int)

    def untrained_loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the loss of the probabilities that a new head predicts."""
        bias, labels = np.array(getattr(model.config, "output_bias", None) or 0.0), batch["labels"].cpu().numpy()
        return float(np.mean(np.logaddexp(0, bias) - labels * bias))


def one_hot(rows: Dataset) -> np.ndarray:
    """Return the labels of rows as 0 and 1: (rows, labels)."""
    hot = np.zeros((len(rows), rows.features["labels"].feature.num_classes))
    for row, labels in enumerate(rows["labels"][:]):
        hot[row, labels] = 1
    return hot


def joined(decisions: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return decisions (rows, labels) as names separated by |."""
    return ["|".join(names[i] for i in np.flatnonzero(row)) for row in decisions]


def balanced_weights(encoded: Dataset) -> np.ndarray:
    """Return the ratio of rows without each label to rows with it; 1 for a label that no row has."""
    positive = np.mean(encoded["labels"], axis=0)
    return np.where(positive > 0, (1 - positive) / np.where(positive > 0, positive, 1), 1.0)


def _thresholds(config: PreTrainedConfig) -> np.ndarray:
    """Return the thresholds of a model; 0.5 for a model trained by another program."""
    return np.asarray(getattr(config, "thresholds", None) or [HALF] * config.num_labels, dtype=np.float64)


# --- read --------------------------------------------------------------------------------------------------


def _of_columns(split: Dataset, columns: Mapping[str, str]) -> Dataset:
    """Turn columns of 0 and 1 into one column of lists; labels are named after the columns."""
    hot = []
    for field, column in columns.items():
        values = ["" if value is None else str(value).strip().lower() for value in values_of(split, field)]
        if rows := [i for i, value in enumerate(values) if value not in YES | NO]:
            raise bad_rows(split, rows, column, f"{values[rows[0]]!r} is neither 0 nor 1", CORRECT)
        hot.append([value in YES for value in values])
    labels = [np.flatnonzero(row).tolist() for row in zip(*hot, strict=True)]
    return _with_labels(split.remove_columns(list(columns)), labels, list(columns.values()))


def _is_hot(splits: Mapping[str, Dataset]) -> bool:
    """Whether the column of labels is a single label's, 0 and 1."""
    return {str(value).strip().lower() for split in splits.values() for value in values_of(split, "labels")} <= YES | NO


def _with_labels(split: Dataset, labels: list[list[int]], names: Sequence[str]) -> Dataset:
    return split.add_column("labels", labels, feature=List(ClassLabel(names=list(names))))


def _of_lists(splits: Mapping[str, Dataset], column: str, delimiter: str) -> dict[str, Dataset]:
    """Turn the column of labels of every split into lists of the same names, those in the training rows."""
    feature = splits["train"].features["labels"]
    if isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
        return {name: _with_missing_as_none(split) for name, split in splits.items()}
    values = {name: values_of(split, "labels") for name, split in splits.items()}
    for rows in values.values():
        rows[:] = [choices_in(_listed(value)) if str(value).lstrip().startswith(OPENING) else value for value in rows]
    if _are_hot(list(chain(*values.values()))):
        values = {name: [np.flatnonzero(row).tolist() for row in rows] for name, rows in values.items()}
        for split in splits.values():
            note(split, column, "lists of 0 and 1, whose labels are their positions, from 0")
    strings = [value for rows in values.values() for value in rows if isinstance(value, str)]
    if not delimiter and strings:
        delimiter = _delimiter(strings, source_name(splits["train"]), column)
        for split in splits.values():
            note(split, "between labels", delimiter)
    lists = {name: [_names_of(value, delimiter) for value in rows] for name, rows in values.items()}
    for name, rows in lists.items():
        if bad := [i for i, row in enumerate(rows) if row is None]:
            problem = f"{str(values[name][bad[0]])[:40]} is not a list of labels"
            raise bad_rows(splits[name], bad, column, problem, "write names, or a list of them")
    known = sorted({label for row in lists["train"] for label in row}, key=natural_order)
    index = {label: i for i, label in enumerate(known)}
    for name, rows in lists.items():
        if bad := [i for i, row in enumerate(rows) if not index.keys() >= set(row)]:
            label = next(label for label in rows[bad[0]] if label not in index)
            problem = f"{label!r} does not occur in the training rows, whose labels are {', '.join(known[:12])}"
            raise bad_rows(splits[name], bad, column, problem, "rename it to one of these, or delete the row")
    numbers = {name: [[index[label] for label in row] for row in rows] for name, rows in lists.items()}
    return {name: _with_labels(split.remove_columns("labels"), numbers[name], known) for name, split in splits.items()}


def _with_missing_as_none(split: Dataset) -> Dataset:
    """Return rows whose labels are numbers with names already, with an empty list for a missing one."""
    labels = [sorted(set(row or [])) for row in values_of(split, "labels")]
    return _with_labels(split.remove_columns("labels"), labels, split.features["labels"].feature.names)


def _listed(value: object) -> object:
    """Return the object, or the list, tuple or set as a list, that a cell writes out; other values unchanged."""
    found = parsed_cell(TUPLE.sub(r"[\1]", value) if isinstance(value, str) else value)
    return sorted(found, key=str) if isinstance(found, set) else value if isinstance(found, str) else found


def _delimiter(values: Sequence[str], source: str, column: str) -> str:
    """Return which of DELIMITERS the values contain. Raises DataError if they contain two."""
    values = [value for value in values if not value.strip().startswith(("[", "{"))]
    found = [mark for mark in DELIMITERS if any(mark in value for value in values)]
    if len(found) > 1:
        problem = f"{' and '.join(map(repr, found))} occur between labels, or in their names"
        fix = f"say which it is by {parameter('LABEL_DELIMITER')}"
        raise DataError(problem, source=source, column=column, fix=fix, parameter="LABEL_DELIMITER")
    return found[0] if found else DELIMITERS[0]


def _names_of(value: object, delimiter: str) -> list[str] | None:
    """Return the labels of a row, each once, from a list or names separated by a delimiter; None for other values."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        if str(value).strip().startswith(("[", "{")):  # an object, or a list that cannot be parsed
            return None
        value = str(value).split(delimiter) if delimiter else [value]
    if any(isinstance(part, (list, dict, float)) or part is None for part in value):
        return None
    return list(dict.fromkeys(name for part in value if (name := str(part).strip())))


def _are_hot(rows: Sequence[object]) -> bool:
    """Whether all rows are lists of 0 and 1, one per label: of equal length, and not sets of two names."""
    if not all(isinstance(row, (list, tuple)) and all(value in (0, 1) for value in row) for row in rows):
        return False
    return len({len(row) for row in rows}) == 1 and any(len({*row}) < len(row) for row in rows)


# --- sample ------------------------------------------------------------------------------------------------


def sample_by_labels(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """Return `size` row numbers in which every label has its share; see `stratified_rows`."""
    return stratified_rows(one_hot(dataset), size, seed=seed)


def stratified_rows(hot: np.ndarray, size: int, *, seed: int) -> np.ndarray:
    """Return `size` row numbers, ascending, with every label's share, and with each label that has at least two rows.

    Iterative stratification (Sechidis et al. 2011): each row with the label that has the fewest rows left goes to the
    side, chosen or not, that lacks the most rows with it. Having no label counts as another label.
    """
    hot = np.column_stack([hot, ~hot.any(axis=1)]).astype(bool)
    rng, total = np.random.default_rng(seed), hot.sum(axis=0)
    wanted = np.maximum(total * size / len(hot), total > 1)
    lacking, room = np.array([wanted, total - wanted]), np.array([size, len(hot) - size])
    chosen, waiting = np.zeros(len(hot), dtype=bool), np.ones(len(hot), dtype=bool)
    while waiting.any():
        left = hot[waiting].sum(axis=0)
        label = min(np.flatnonzero(left), key=left.__getitem__)
        for row in rng.permutation(np.flatnonzero(waiting & hot[:, label])):
            # Of two sides that lack the same number, the one with more room
            side = max(np.flatnonzero(room), key=lambda side: (lacking[side, label], room[side]))
            chosen[row] = side == 0
            lacking[side, hot[row]] -= 1
            room[side] -= 1
        waiting &= ~hot[:, label]
    return np.flatnonzero(chosen)
