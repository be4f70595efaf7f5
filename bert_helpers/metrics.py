"""From predictions to numbers with 95% confidence intervals: the base of all measures, and that of classifiers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax

from bert_helpers.errors import DataError
from bert_helpers.intervals import RESAMPLES, Metrics, Weights, intervals, ranker


class Measure(ABC):
    """One run's metrics as functions of how often each unit is drawn, as intervals and comparisons need them.

    A subclass takes predictions and references, sets `units` and `examples`, and defines `statistic`.
    """

    # Metrics that are shares: of all units (True), or of those in which a class or an entity occurs (False)
    shares: ClassVar[Mapping[str, bool]] = {}
    lower_is_better: ClassVar[Sequence[str]] = ()
    headline: ClassVar[Sequence[str]]  # the metrics shown during training

    units: int  # the number that is drawn: examples, or groups of them
    examples: int
    correct: np.ndarray | None = None  # (examples,) booleans, where an example is either right or wrong

    @abstractmethod
    def statistic(self, weights: Weights) -> Metrics:
        """Return each metric (…) of weights (…, units); NaN where it is undefined."""

    def values(self, names: Sequence[str] | None = None) -> dict[str, float]:
        """Return all metrics, or the named ones, without intervals."""
        values = self.statistic(np.ones(self.units))
        return {name: float(values[name]) for name in names or values}

    def intervals(
        self, names: Sequence[str] | None = None, *, seed: int = 0, n_resamples: int = RESAMPLES
    ) -> pd.DataFrame:
        """Return all metrics, or the named ones, as rows with `value`, `low`, `high`: 95% bootstrap intervals."""

        def chosen(weights: Weights) -> Metrics:
            values = self.statistic(weights)
            return {name: values[name] for name in names or values}

        return intervals(chosen, self.units, shares=self.shares, n_resamples=n_resamples, seed=seed)


def format_interval(row: pd.Series) -> str:
    """Return a row of a metrics table as text: "0.871 (0.829 to 0.912)", "0.571 (no interval)" or "undefined"."""
    if pd.isna(row["value"]):
        return "undefined"
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return f"{row['value']:.3f} (no interval)"
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


# --- classes -----------------------------------------------------------------------------------------------


class ClassificationMeasure(Measure):
    """Measures of logits (examples, classes) against labels (examples,), which are class numbers.

    `accuracy`; `f1`: of class 1 if there are two classes, else the mean over classes (macro), where a class that is
    neither present nor predicted counts as 0; `f1_macro` and `f1_weighted`: means over classes, plain and by their
    share of the labels; `log_loss` (nats); `brier`: mean squared error of the probabilities (Brier 1950), of class 1's
    for two classes, summed over classes for more; `roc_auc` (for more than two classes the mean of one against the
    rest), left out if a class has no examples or all of them. Raises DataError if logits and labels do not match.
    """

    shares: ClassVar = {"accuracy": True, "precision": False, "recall": False, "f1": False, "f1_macro": False,
                        "f1_weighted": False}  # fmt: skip
    lower_is_better = ("log_loss", "brier")
    headline = ("accuracy", "f1", "log_loss")

    def __init__(self, logits: np.ndarray, labels: np.ndarray) -> None:
        logits, labels = check_classification(logits, labels)
        chances, self.classes = probabilities(logits), logits.shape[1]
        self.units = self.examples = len(labels)
        self.correct = logits.argmax(axis=1) == labels
        true, predicted = (np.eye(self.classes)[index] for index in (labels, logits.argmax(axis=1)))
        loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
        squares = ((chances - true) ** 2).sum(axis=1) / (2 if self.classes == 2 else 1)
        self.columns = np.column_stack([true, predicted, true * predicted, loss, squares])
        ranked = range(1, 2) if self.classes == 2 else range(self.classes)
        has_area = all(0 < true[:, i].sum() < len(labels) for i in ranked)
        self.ranks = [(ranker(chances[:, i]), true[:, i]) for i in ranked if has_area]

    def statistic(self, weights: Weights) -> Metrics:
        """Return each metric (…) of weights (…, examples)."""
        true, predicted, hits, loss, squares = self._sums(weights)
        n = true.sum(axis=-1)
        f1 = 2 * hits / np.maximum(true + predicted, 1)
        values = {
            "accuracy": hits.sum(axis=-1) / n,
            "f1": f1[..., 1] if self.classes == 2 else f1.mean(axis=-1),
            "f1_macro": f1.mean(axis=-1),
            "f1_weighted": (f1 * true).sum(axis=-1) / n,
            "log_loss": loss / n,
            "brier": squares / n,
        }
        if self.ranks:
            values["roc_auc"] = np.mean([_roc_auc(weights, rank(weights), of) for rank, of in self.ranks], axis=0)
        return values

    def by_class(self, names: Sequence[str], *, seed: int = 0, n_resamples: int = RESAMPLES) -> pd.DataFrame:
        """Return recall and precision of each class, with intervals.

        Index: (class name, "recall" or "precision"); columns `value`, `low`, `high`, and `rows`: the class's examples.
        Recall is undefined (NaN) for a class without examples, precision for one that is never predicted.
        """
        if len(names) != self.classes:
            raise DataError(f"{len(names)} class names for {self.classes} classes")

        def statistic(weights: Weights) -> Metrics:
            true, predicted, hits, _, _ = self._sums(weights)
            of = {"recall": hits / np.where(true > 0, true, np.nan)}
            of["precision"] = hits / np.where(predicted > 0, predicted, np.nan)
            return {(name, kind): values[..., i] for i, name in enumerate(names) for kind, values in of.items()}

        table = intervals(statistic, self.units, shares=self.shares, n_resamples=n_resamples, seed=seed)
        table.index = pd.MultiIndex.from_tuples(table.index, names=["class", "metric"])
        return table.assign(rows=np.repeat(self.columns[:, : self.classes].sum(axis=0).astype(int), 2))

    def _sums(self, weights: Weights) -> list[np.ndarray]:
        """Return each class's examples, predictions and hits, (…, classes) each; log loss and squared errors, (…)."""
        sums, n = weights @ self.columns, self.classes
        return [*(sums[..., i * n : (i + 1) * n] for i in range(3)), sums[..., -2], sums[..., -1]]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return class probabilities (examples, classes) by softmax of the logits."""
    return softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def check_classification(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (examples, classes) and labels (examples,) as arrays. Raises DataError if they do not match."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(f"predictions of shape {logits.shape} do not fit labels of shape {labels.shape}")
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels lie in {labels.min()}…{labels.max()}; the model has classes 0…{classes - 1}")
    if not np.isfinite(logits).all():
        raise DataError(f"prediction {int(np.argmax(~np.isfinite(logits).all(axis=1))) + 1} is not finite")
    return logits, labels


def _roc_auc(weights: Weights, ranks: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve: the share of pairs in the right order, ties half (Mann and Whitney)."""
    positives = weights @ positive
    pairs = positives * (weights.sum(axis=-1) - positives)
    return ((weights * ranks) @ positive - positives**2 / 2) / np.where(pairs > 0, pairs, np.nan)
