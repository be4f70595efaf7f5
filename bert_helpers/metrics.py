"""From predictions to numbers with 95% confidence intervals.

Every metric here is a function of sums over examples (counts of hits, summed losses). That one fact serves all
of them: resampling examples becomes a matrix product of resample weights and per-example columns.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax
from transformers import EvalPrediction

from bert_helpers.errors import DataError

RESAMPLES = 2000
Sums = np.ndarray  # (…, columns)
Statistic = Callable[[Sums], dict[str, np.ndarray]]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Class probabilities (examples, classes) by softmax of the logits."""
    return softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def classification_scores(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy, F1 and log loss without intervals: `Trainer`'s `compute_metrics`."""
    columns, statistic = _classification(prediction.predictions, prediction.label_ids)
    return {name: float(value) for name, value in statistic(columns.sum(axis=0)).items()}


def classification_metrics(
    logits: np.ndarray, labels: np.ndarray, *, n_resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Accuracy, F1 and log loss (rows) with `value`, `low` and `high` (columns), 95% bootstrap over examples.

    F1 is that of class 1 for two classes and the unweighted mean over classes (macro) for more; a class that
    is neither present nor predicted counts as 0. Log loss is in nats, by softmax of the logits (examples,
    classes). Raises DataError when logits and labels do not belong together.
    """
    columns, statistic = _classification(logits, labels)
    return bootstrap(columns, statistic, n_resamples=n_resamples, seed=seed)


def _classification(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Statistic]:
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(f"predictions of shape {logits.shape} do not fit labels of shape {labels.shape}.")
    classes = logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels lie in {labels.min()}…{labels.max()}; the model has classes 0…{classes - 1}.")
    if not np.isfinite(logits).all():
        raise DataError(f"prediction {int(np.argmax(~np.isfinite(logits).all(axis=1))) + 1} is not finite.")
    one_hot = np.eye(classes)
    true, predicted = one_hot[labels], one_hot[logits.argmax(axis=1)]
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    columns = np.column_stack([true, predicted, true * predicted, loss])

    def statistic(sums: Sums) -> dict[str, np.ndarray]:
        true, predicted, hits = (sums[..., i * classes : (i + 1) * classes] for i in range(3))
        n = true.sum(axis=-1)
        f1 = 2 * hits / np.maximum(true + predicted, 1)
        return {
            "accuracy": hits.sum(axis=-1) / n,
            "f1": f1[..., 1] if classes == 2 else f1.mean(axis=-1),
            "log_loss": sums[..., -1] / n,
        }

    return columns, statistic


def bootstrap(
    columns: np.ndarray, statistic: Statistic, *, n_resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Percentile bootstrap intervals (Efron 1979) of metrics that depend on the sums of `columns`.

    `columns`: (units, columns), one row per resampled unit: an example, or a group of examples that belong
    together, already summed. `statistic` maps sums (…, columns) to a dict of metrics (…).
    Returns one row a metric with columns `value`, `low`, `high`.
    """
    n = len(columns)
    rng = np.random.default_rng(seed)
    chunk = max(1, 5_000_000 // n)  # resamples at a time: weights stay under 40 MB
    sums = []
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums.append(weights.astype(np.float64) @ columns)
    resampled = statistic(np.concatenate(sums))
    tails = [(1 - level) / 2, (1 + level) / 2]
    rows = {}
    for name, value in statistic(columns.sum(axis=0)).items():
        low, high = np.quantile(resampled[name], tails)
        rows[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return pd.DataFrame.from_dict(rows, orient="index")


def format_interval(row: pd.Series) -> str:
    """A row of a metrics table as text: "0.871 (0.829 to 0.912)"."""
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
