"""Texts, or pairs of texts, with a number each: the task, the scale that a model learns, and untrained baselines.

A model learns standardized labels, (label - mean) / deviation. Mean and deviation are in its config, so that
checkpoints keep them, and `models.load_model` makes the model apply them. Everywhere else, labels and predictions are
in the user's units.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, Value

from bert_helpers import files
from bert_helpers.data import CORRECT, bad_rows, in_splits, sample_by_label, values_of
from bert_helpers.errors import DataError, ParameterError, parameter
from bert_helpers.intervals import Metrics, Weights, ranker
from bert_helpers.metrics import Measure
from bert_helpers.readers.delimited import to_number
from bert_helpers.readers.source import note
from bert_helpers.tasks.base import Examples
from bert_helpers.tasks.texts import TextTask, read_texts, text_examples

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_utils import PredictionOutput

COMMA = re.compile(r"[-+]?\d+,\d+")  # a number with a decimal comma
LARGEST = 1e140  # sums of squares of larger numbers overflow


class Regression(TextTask):
    """Pairs of texts, or single texts, with a score each."""

    name = "regression"
    prefix = "STS_"
    usage = """\
from transformers import pipeline

score = pipeline("text-classification", "{folder}", function_to_apply="none")
print(score({example}, truncation=True, max_length={length}))"""
    numeric = True

    def load(
        self,
        source: str | Path,
        *,
        text_column: str = "text",
        pair_column: str = "text_pair",
        label_column: str = "label",
        low: float = 0.0,
        high: float = 5.0,
        train_size: int = 0,
        validation_size: int = 0,
        test_size: int = 0,
        seed: int = 0,
        **reading: str | bool,
    ) -> DatasetDict:
        """Read scored pairs of texts from `source`, as splits with columns `text`, `text_pair` and `label` (float).

        Without a `pair_column` (""), a row is one text. `source`, sizes and missing splits are as in
        `Classification.load`; "sample" is the packaged pairs. Like the published STS-B files, a delimited file may have
        no header; then its columns are text, pair and score, in this order. A test split without labels (in GLUE, all
        are -1) is left out with a warning, and taken from the training rows instead. Scores are in `low` to `high`.
        Raises DataError, naming the file, row and column, when the data cannot be used.
        """
        if not low < high:
            raise ParameterError(f"is {low:g}", parameter="LOW", fix=f"it must lie below {parameter('HIGH')}, {high:g}")
        splits = read_texts(source, text_column, pair_column, {"label": label_column}, sample="similarity", **reading)
        splits = {name: _scored(split, low, high, label_column) for name, split in splits.items()}
        return in_splits(splits, (train_size, validation_size, test_size), seed=seed, hold_out=sample_by_label)

    def examples(self, split: Dataset) -> Examples:
        """Return the texts and the scores."""
        return text_examples(split, split["label"][:])

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return one output and the scale of the training scores."""
        return {"num_labels": 1, **target_scale(train["label"][:])}

    def finish_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return the model with the scale of the scores in the head's weights."""
        fold_scale(model)
        return model

    def measure(self, predictions: np.ndarray, references: np.ndarray, rows: Dataset) -> Measure:
        """Measure scores in the user's units."""
        return RegressionMeasure(predictions, references)

    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return a score of 0 for every row."""
        return {"label": [0.0] * len(rows)}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return `score` in the units of the training data."""
        return {"score": np.ravel(output.predictions).astype(float).round(6)}

    def save_predictions(
        self, folder: Path, predictions: np.ndarray, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write labels and predicted scores as predictions.csv."""
        table = pd.DataFrame({"label": rows["test"]["label"], "predicted": np.ravel(predictions)})
        return files.write_text(folder / "predictions.csv", table.to_csv(index_label="row"))

    def fits(self, config: PreTrainedConfig) -> bool:
        """Whether a model is a sequence classifier with one output that is a number."""
        several = config.problem_type == "multi_label_classification"
        return super().fits(config) and config.num_labels == 1 and not several

    def chance_loss(self, encoded: Dataset, config: PreTrainedConfig) -> float:
        """Return the variance of the standardized scores."""
        return 1.0

    def untrained_loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the mean square of the standardized scores."""
        from bert_helpers.models import standardize  # see tasks/base.py

        return float(standardize(batch["labels"].float(), model.config).square().mean())


def _scored(dataset: Dataset, low: float, high: float, column: str) -> Dataset:
    """Turn the `label` column into floats, all in `low` to `high`."""
    values = values_of(dataset, "label")
    scores = [to_number(value) for value in values]
    commas = [value.strip() for value in values if isinstance(value, str) and "," in value]
    # If three digits follow every comma, these may separate thousands
    if all(map(COMMA.fullmatch, commas)) and not all(re.search(r",\d{3}$", value) for value in commas):
        note(dataset, "decimal sign", "a comma")
        scores = [to_number(value.replace(",", ".") if isinstance(value, str) else value) for value in values]
    if bad := [i for i, score in enumerate(scores) if score is None or not low <= score <= high]:
        value, score, fix = values[bad[0]], scores[bad[0]], CORRECT
        if score is not None:
            known = [score for score in scores if score is not None]
            found = f"scores go from {min(known):g} to {max(known):g}"
            problem = f"{score:g} lies outside the scale of {low:g} to {high:g}; {found}"
            fix = f"give the lowest and highest by {parameter('LOW')} and {parameter('HIGH')}, or correct the row"
        elif value in (None, ""):
            problem = "the score is missing"
        else:
            comma = isinstance(value, str) and COMMA.fullmatch(value.strip())
            problem = f"{value!r} is not a finite number" + (", write a point for the comma" if comma else "")
        raise bad_rows(dataset, bad, column, problem, fix)
    return dataset.remove_columns("label").add_column("label", scores, feature=Value("float64"))


class RegressionMeasure(Measure):
    """Predictions (examples,) or (examples, 1) and labels (examples,) in the same unit.

    `pearson` and `spearman` correlation, and the mean squared error in the square of the unit. Spearman's correlation
    is Pearson's of the ranks, with mean ranks for ties. Both are NaN if a side is constant. Raises DataError if
    predictions and labels do not match, or if one is not finite or too large to be squared.
    """

    lower_is_better = ("mse",)
    headline = ("pearson", "mse", "spearman")

    def __init__(self, predictions: np.ndarray, labels: np.ndarray) -> None:
        predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
        if predictions.ndim == 2 and predictions.shape[1] == 1:
            predictions = predictions[:, 0]
        if labels.ndim != 1 or predictions.shape != labels.shape or not len(labels):
            raise DataError(f"predictions of shape {predictions.shape} do not fit labels of shape {labels.shape}")
        for what, values in (("prediction", predictions), ("label", labels)):
            bad = np.flatnonzero(~(np.abs(values) < LARGEST))
            if bad.size:
                kind = "too large to be squared" if np.isfinite(values[bad[0]]) else "not finite"
                raise DataError(f"{what} {bad[0] + 1} is {kind}")
        self.units = self.examples = len(labels)
        self.squares = (predictions - labels) ** 2
        self.sides = [_standardized(values) for values in (predictions, labels)]
        self.ranks = [ranker(values) for values in self.sides]

    def statistic(self, weights: Weights) -> Metrics:
        """Return each metric (…) of weights (…, examples)."""
        return {
            "pearson": _correlation(weights, *self.sides),
            "mse": weights @ self.squares / weights.sum(axis=-1),
            "spearman": _correlation(weights, *(rank(weights) / self.units for rank in self.ranks)),
        }


def _standardized(values: np.ndarray) -> np.ndarray:
    """Scale values to mean 0 and variance 1; return zeros if they differ only by rounding, thus are constant."""
    centred = values - values.mean()
    spread = centred.std()
    return centred / spread if spread > 1e-9 * np.abs(values).max() else np.zeros_like(values)


def _correlation(weights: Weights, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of weighted examples; `first` and `second`: (examples,) or (…, examples)."""
    total = weights.sum(axis=-1, keepdims=True)
    first, second = (side - (weights * side).sum(axis=-1, keepdims=True) / total for side in (first, second))
    variances = (weights * first**2).sum(axis=-1) * (weights * second**2).sum(axis=-1)
    covariance = (weights * first * second).sum(axis=-1)
    return covariance / np.sqrt(np.where(variances > 1e-18, variances, np.nan))


def target_scale(labels: Sequence[float]) -> dict[str, float]:
    """Return the config fields that standardize training labels, for `models.load_model`."""
    mean, deviation = float(np.mean(labels)), float(np.std(labels))
    if not deviation > 0:
        raise DataError(f"every one of the {len(labels)} training scores is {mean:g}: there is nothing to learn")
    return {"target_mean": mean, "target_deviation": deviation}


def fold_scale(model: PreTrainedModel) -> None:
    """Move the scale into the head's weights, so that the model predicts in the user's units in any program.

    Call it after training: further training would have a badly scaled target.
    """
    import torch  # see tasks/base.py

    from bert_helpers.models import output_layer

    config = model.config
    mean, deviation = getattr(config, "target_mean", 0.0), getattr(config, "target_deviation", 1.0)
    with torch.no_grad():
        layer = output_layer(model)
        layer.weight.mul_(deviation)
        layer.bias.mul_(deviation).add_(mean)
    config.target_mean, config.target_deviation = 0.0, 1.0


def baselines(
    dataset: DatasetDict, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, split: str = "test"
) -> pd.DataFrame:
    """Return predictions for the rows of a split, in the user's units, without fine-tuning.

    `mean` is the mean training score for every row. `cosine` is the cosine of the embeddings of both texts, turned into
    a score by the line that fits the training rows best (least squares). The packaged model was trained for that
    cosine, so this baseline is strong.
    """
    train, rows = dataset["train"], dataset[split]
    labels = np.asarray(train["label"][:], dtype=np.float64)
    fitted, applied = (cosines(part["text"], part["text_pair"], encoder, tokenizer) for part in (train, rows))
    slope, intercept = np.polyfit(fitted, labels, deg=1)
    return pd.DataFrame({"mean": np.full(len(rows), labels.mean()), "cosine": intercept + slope * applied})


def cosines(
    texts: Sequence[str], others: Sequence[str], encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    """Return the cosine (rows,) between the embeddings of each text and its other."""
    both = embeddings([*texts, *others], encoder, tokenizer)
    return (both[: len(texts)] * both[len(texts) :]).sum(axis=1)


def embeddings(
    texts: Sequence[str], encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 64
) -> np.ndarray:
    """Return the mean of each text's last hidden states over tokens, normalized to length 1: (texts, hidden size).

    This is how sentence-transformers uses the packaged model (Reimers and Gurevych 2019). A head of `encoder` is not
    used, and texts are truncated to the model's maximum length.
    """
    import torch  # see tasks/base.py
    from transformers import DataCollatorWithPadding

    bert, collate = encoder.base_model.eval(), DataCollatorWithPadding(tokenizer)
    ids = tokenizer(list(texts), truncation=True)["input_ids"]
    order = np.argsort([len(row) for row in ids], kind="stable")  # texts of similar length share a batch: less padding
    means = np.empty((len(ids), bert.config.hidden_size))
    for start in range(0, len(ids), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([{"input_ids": ids[row]} for row in rows]).to(bert.device)
        mask = batch["attention_mask"][..., None]
        with torch.inference_mode():
            states = bert(**batch).last_hidden_state.float() * mask
        means[rows] = torch.nn.functional.normalize(states.sum(dim=1) / mask.sum(dim=1)).cpu().numpy()
    return means
