"""Several labels per text: from logits to decisions by thresholds, and from decisions to metrics."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from bert_helpers.errors import DataError
from bert_helpers.intervals import RESAMPLES, Metrics, Weights, intervals
from bert_helpers.metrics import Measure

HALF = 0.5  # the threshold if none is fitted
STEPS = 400  # thresholds to try, at even steps of the logit
# Number of positive rows with which a label's own threshold counts as much as the common one. On GoEmotions (28 labels;
# word counts and logistic regression; test macro F1), thresholds fitted to 300 validation rows gave 0.414 without it,
# 0.441 with it, and 0.434 with one for all; to 1,000 rows 0.439, 0.444, 0.434; to 5,426 rows 0.459, 0.452, 0.434. With
# thresholds of 0.5, macro F1 is 0.281.
PRIOR = 20


def decide(logits: np.ndarray, thresholds: np.ndarray | float = HALF) -> np.ndarray:
    """Return which labels each row gets (rows, labels): those whose probability (sigmoid) reaches the threshold."""
    return np.asarray(logits, dtype=np.float64) >= logit(thresholds)


def fit_thresholds(logits: np.ndarray, labels: np.ndarray, *, each: bool = True, prior: float = PRIOR) -> np.ndarray:
    """Return the threshold (a probability) of each label with the highest F1 on these rows, which should be validation
    rows.

    The common threshold has the highest macro F1. With `each`, every label's own best threshold is shrunk towards it on
    the scale of logits, own * n / (n + prior) + common * prior / (n + prior) for n positive rows: a label with few rows
    gets nearly the common threshold, and one without rows exactly that. Of several best thresholds, the middle one is
    taken, because F1 is flat near its maximum.
    """
    logits, labels = check_multilabel(logits, labels)
    grid, positive = np.linspace(logits.min(), logits.max(), STEPS), labels.sum(axis=0)
    f1 = f1_curves(logits, labels, grid)
    common = grid[_middle_best(np.mean(f1, axis=0))]
    if not each:
        return expit(np.full(len(positive), common))
    own = np.array([grid[_middle_best(curve)] for curve in f1])
    trust = positive / (positive + prior) if prior else positive > 0
    return expit(np.where(positive > 0, trust * own + (1 - trust) * common, common))


def f1_curves(logits: np.ndarray, labels: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return F1 of each label with each logit of the grid as its threshold: (labels, thresholds)."""
    f1 = []
    for scores, is_positive in zip(logits.T, np.asarray(labels).T.astype(bool), strict=True):
        predicted, hits = (len(part) - np.searchsorted(np.sort(part), grid) for part in (scores, scores[is_positive]))
        f1.append(_f1(hits, predicted, is_positive.sum()))
    return np.array(f1)


def gain_of_fitting(logits: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> pd.Series:
    """Return `value`, `low`, `high` of what fitted thresholds gain in macro F1 over 0.5 (two-fold cross-validation)."""
    logits, labels = check_multilabel(logits, labels)
    half = np.random.default_rng(seed).permutation(len(labels)) % 2 == 0
    fitted = np.zeros(labels.shape, dtype=bool)
    for part in (half, ~half):
        fitted[part] = decide(logits[part], fit_thresholds(logits[~part], labels[~part]))

    def macro_f1(predicted: np.ndarray, weights: Weights) -> np.ndarray:
        return _f1(weights @ (predicted * labels), weights @ predicted, weights @ labels).mean(axis=-1)

    def statistic(weights: Weights) -> Metrics:
        return {"gain": macro_f1(fitted, weights) - macro_f1(decide(logits), weights)}

    return intervals(statistic, len(labels), seed=seed, difference=True).loc["gain"]


def _middle_best(curve: np.ndarray) -> int:
    best = np.flatnonzero(curve == curve.max())
    return best[len(best) // 2]


class MultilabelMeasure(Measure):
    """Logits (rows, labels), labels (rows, labels) of 0 and 1, and one threshold, or one for each label.

    `f1_micro`: of all decisions; `f1_macro`: mean over labels, 0 for a label that is neither present nor predicted;
    `average_precision`: area under the precision-recall curve as in scikit-learn, mean over the labels that occur;
    `subset_accuracy`: share of rows with every label right; `log_loss`: binary cross entropy, mean over rows and labels
    (nats); `threshold_gain`: macro F1 minus that with thresholds of 0.5, 0 if none were fitted. Raises DataError if
    logits and labels do not match.
    """

    shares: ClassVar = {"f1_micro": False, "f1_macro": False, "subset_accuracy": True, "f1": False}
    lower_is_better = ("log_loss",)
    headline = ("f1_micro", "f1_macro", "average_precision", "log_loss")

    def __init__(self, logits: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | float = HALF) -> None:
        logits, labels = check_multilabel(logits, labels)
        self.units = self.examples = len(labels)
        predicted, at_half = decide(logits, thresholds), decide(logits)
        losses = (np.logaddexp(0, logits) - labels * logits).mean(axis=1)
        counts = [labels, predicted, predicted * labels, at_half, at_half * labels]
        self.count = labels.shape[1]
        self.columns = np.column_stack([*counts, (predicted == labels).all(axis=1), losses])
        self.order = np.argsort(-logits, axis=0, kind="stable")
        self.positive = np.take_along_axis(labels, self.order, axis=0)
        descending = np.take_along_axis(logits, self.order, axis=0)
        self.ends = [np.flatnonzero(np.append(np.diff(column) < 0, True)) for column in descending.T]  # of ties

    def statistic(self, weights: Weights) -> Metrics:
        """Return each metric (…) of weights (…, rows)."""
        true, predicted, hits, half, half_hits, exact, losses = self._sums(weights)
        n, f1 = weights.sum(axis=-1), _f1(hits, predicted, true)
        return {
            "f1_micro": _f1(hits.sum(axis=-1), predicted.sum(axis=-1), true.sum(axis=-1)),
            "f1_macro": f1.mean(axis=-1),
            "average_precision": _mean_of_known(self._average_precision(weights)),
            "subset_accuracy": exact / n,
            "log_loss": losses / n,
            "threshold_gain": (f1 - _f1(half_hits, half, true)).mean(axis=-1),
        }

    def by_label(self, names: Sequence[str], *, seed: int = 0, n_resamples: int = RESAMPLES) -> pd.DataFrame:
        """Return F1 and average precision of each label: index (label, metric), `value`, `low`, `high`, `rows`."""

        def statistic(weights: Weights) -> Metrics:
            true, predicted, hits, *_ = self._sums(weights)
            of = {"f1": _f1(hits, predicted, true), "average_precision": self._average_precision(weights)}
            return {(name, kind): values[..., i] for i, name in enumerate(names) for kind, values in of.items()}

        table = intervals(statistic, self.units, shares=self.shares, n_resamples=n_resamples, seed=seed)
        table.index = pd.MultiIndex.from_tuples(table.index, names=["label", "metric"])
        return table.assign(rows=np.repeat(self.columns[:, : self.count].sum(axis=0).astype(int), 2))

    def _sums(self, weights: Weights) -> list[np.ndarray]:
        """Return five counts of each label, (…, labels), then exact rows and losses, (…)."""
        sums, n = weights @ self.columns, self.count
        return [*(sums[..., i * n : (i + 1) * n] for i in range(5)), sums[..., -2], sums[..., -1]]

    def _average_precision(self, weights: Weights) -> np.ndarray:
        """Return the mean precision at each step of recall, (…, labels); NaN for a label that no row has."""
        areas = []
        for order, positive, ends in zip(self.order.T, self.positive.T, self.ends, strict=True):
            drawn = weights[..., order]
            predicted, hits = np.cumsum(drawn, axis=-1)[..., ends], np.cumsum(drawn * positive, axis=-1)[..., ends]
            steps, total = np.diff(hits, prepend=0, axis=-1), hits[..., -1]
            areas.append((steps * hits / np.maximum(predicted, 1)).sum(axis=-1) / np.where(total > 0, total, np.nan))
        return np.stack(areas, axis=-1)


def check_multilabel(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels (rows, labels) as arrays of floats. Raises DataError if they do not match."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if logits.ndim != 2 or labels.shape != logits.shape or not len(labels):
        raise DataError(f"predictions of shape {logits.shape} do not fit labels of shape {labels.shape}")
    if not np.isfinite(logits).all():
        raise DataError(f"prediction {int(np.argmax(~np.isfinite(logits).all(axis=1))) + 1} is not finite")
    return logits, labels


def _f1(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    return 2 * hits / np.maximum(predicted + true, 1)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis without NaN; NaN if there is nothing else."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=-1) / np.where(known.any(axis=-1), known.sum(axis=-1), np.nan)
