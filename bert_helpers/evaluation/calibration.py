"""Whether a classifier's probabilities can be trusted, and what they are good for.

Confidence is the probability of the predicted class.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest

from bert_helpers.intervals import RESAMPLES, Metrics, Weights, intervals, resamples
from bert_helpers.metrics import check_classification, probabilities

BINS = 10


def reliability(logits: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> pd.DataFrame:
    """Return confidence and accuracy in bins of about equally many examples, for a reliability diagram.

    One row per bin, least confident first: `rows`, `confidence` and `accuracy` (means), `low` and `high` (95% interval
    of the accuracy, Wilson 1927). Examples of equal confidence share a bin, so there may be fewer bins than `bins`.
    """
    confidence, correct = _confidence(logits, labels)
    table = pd.DataFrame({"confidence": confidence, "accuracy": correct}).groupby(_bins(confidence, bins))
    table = table.mean().assign(rows=table.size())
    hits = (table.rows * table.accuracy).round().astype(int)
    wilson = [binomtest(k, n).proportion_ci(method="wilson") for k, n in zip(hits, table.rows, strict=True)]
    return table.assign(low=[interval.low for interval in wilson], high=[interval.high for interval in wilson])


def calibration_error(
    logits: np.ndarray, labels: np.ndarray, *, bins: int = BINS, n_draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the expected calibration error over the bins of `reliability`, and the error that chance alone causes.

    `ece`: mean distance of accuracy from confidence, weighted by rows (Naeini et al. 2015; equal-mass bins). Its
    `value` is too high on few rows, since chance opens a gap in every bin, and resampling would open it twice. So `low`
    and `high` (95%) bound the errors under which the measured one is likely: outcomes are drawn from the model's
    confidences, shifted by c times the measured gaps, for c from 0 (perfect calibration) up (a test inversion). Both
    may lie below `value`. In simulations they contained the true error of a badly calibrated model in 84 to 91 of 100
    test sets, fewer than the 95 they aim at, because the gaps they scale contain noise too. `ece_by_chance`: mean and
    95% range of the error that a perfectly calibrated model would show.

    Of several decisions per row, logits have the shape (rows, decisions, classes) and labels (rows, decisions). They
    are not independent of each other, so chance is then that of resampled rows.
    """
    units, several, labels = len(labels), np.ndim(labels) == 2, np.ravel(labels)
    logits = np.reshape(logits, (-1, np.shape(logits)[-1]))
    table = reliability(logits, labels, bins=bins)
    rows, confidence = table.rows.to_numpy(), table.confidence.to_numpy()
    gap = table.accuracy.to_numpy() - confidence
    measured = rows @ np.abs(gap) / rows.sum()
    accuracy = np.clip(confidence + np.linspace(0, 2, 41)[:, None] * gap, 0, 1)  # (values of c, bins)
    true = np.abs(accuracy - confidence) @ rows / rows.sum()
    rng = np.random.default_rng(seed)
    if several:
        (sure, correct), sums = _confidence(logits, labels), np.zeros((units, len(rows)))
        place = _bins(sure, bins)
        np.add.at(sums, (np.repeat(np.arange(units), len(labels) // units), place), correct - sure - gap[place])
        noise = np.concatenate([weights @ sums for weights in resamples(units, n_draws, rng)])
        off = noise[:, None] + rows * (accuracy - confidence)
    else:
        off = rng.binomial(rows, accuracy, size=(n_draws, *accuracy.shape)) - rows * confidence
    shown = np.abs(off).sum(axis=-1) / rows.sum()
    lowest, highest = np.quantile(shown, [0.025, 0.975], axis=0)
    low = min(true[highest >= measured], default=measured)
    high = max(true[lowest <= measured], default=measured)
    return pd.DataFrame(
        [(measured, low, high), (shown[:, 0].mean(), lowest[0], highest[0])],
        index=["ece", "ece_by_chance"],
        columns=["value", "low", "high"],
    )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the number that logits must be divided by for the lowest log loss on these rows (Guo et al. 2017).

    Fit it on validation rows and apply it to test logits: `test_logits / temperature`. Above 1 it makes the model less
    confident; it never changes which class is predicted. If all rows are predicted right, it would be 0: the function
    then warns and returns 1, which changes nothing.
    """
    logits, labels = check_classification(logits, labels)
    rows = np.arange(len(labels))
    if (logits.argmax(axis=1) == labels).all():
        warnings.warn(f"all {len(labels)} rows are right: no temperature can be fitted; use more rows.", stacklevel=2)
        return 1.0

    def log_loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean()

    found = minimize_scalar(log_loss, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def risk_coverage(logits: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return the error rate among the most confident share of the rows (El-Yaniv and Wiener 2010).

    One row per example, most confident first: `coverage` (share answered if the model refuses the rest), `risk` (error
    rate of the answers) and `confidence` (the lowest of the answers).
    """
    confidence, errors = _by_confidence(logits, labels)
    answered = np.arange(1, len(errors) + 1)
    table = {"coverage": answered / len(errors), "risk": np.cumsum(errors) / answered, "confidence": confidence}
    return pd.DataFrame(table)


def risk_coverage_area(
    logits: np.ndarray, labels: np.ndarray, *, n_resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Return the mean risk over all coverages (`aurc`, Geifman and El-Yaniv 2017) with `value`, `low`, `high`.

    Lower is better; uninformative confidence gives the error rate.
    """
    _, errors = _by_confidence(logits, labels)

    def statistic(weights: Weights) -> Metrics:
        answered = np.cumsum(weights, axis=-1)
        risk = np.cumsum(weights * errors, axis=-1) / np.maximum(answered, 1)
        return {"aurc": (weights * risk).sum(axis=-1) / answered[..., -1]}

    return intervals(statistic, len(errors), n_resamples=n_resamples, seed=seed)


def confident_mistakes(
    logits: np.ndarray, labels: np.ndarray, texts: Sequence[str], *, names: Sequence[str], count: int = 10
) -> pd.DataFrame:
    """Return the most confident wrong predictions: `label`, `predicted`, `confidence`, `text`, by row number."""
    confidence, correct = _confidence(logits, labels)
    wrong = np.flatnonzero(~correct)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    table = {
        "label": [names[label] for label in np.asarray(labels)[worst]],
        "predicted": [names[label] for label in np.argmax(logits, axis=1)[worst]],
        "confidence": confidence[worst],
        "text": [texts[int(row)] for row in worst],
    }
    return pd.DataFrame(table, index=pd.Index(worst, name="row"))


def _confidence(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = check_classification(logits, labels)
    return probabilities(logits).max(axis=1), logits.argmax(axis=1) == labels


def _bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return each example's bin, one of at most `bins` of about equally many examples."""
    rank = np.searchsorted(np.sort(confidence), confidence, side="left")
    return np.unique(rank * bins // len(rank), return_inverse=True)[1]


def _by_confidence(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and error by row, most confident first; rows of equal confidence share their mean error."""
    confidence, correct = _confidence(logits, labels)
    errors = pd.Series(~correct).groupby(confidence).transform("mean").to_numpy()
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], errors[order]
