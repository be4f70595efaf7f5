"""95% confidence intervals by resampling the examples of a test set.

A resample is a vector of weights, the number of times each example was drawn, and a metric is a function of weights.
This one form serves sums (accuracy, losses), ranks (ROC AUC, Spearman) and differences between two runs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtrit

LEVEL = 0.95
RESAMPLES = 2000
MANY = 2000  # units up to which a metric is computed for each unit alone, which takes a second at most
LEFT_OUT = 200  # groups of the jackknife; with no more units than this, it leaves out one at a time
Weights = np.ndarray  # (…, units)
Metrics = dict[str, np.ndarray]  # each of shape (…)


def intervals(
    statistic: Callable[[Weights], Metrics],
    units: int,
    *,
    shares: Mapping[str, bool] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
    difference: bool = False,
) -> pd.DataFrame:
    """Return bootstrap intervals of metrics: one row per metric with columns `value`, `low`, `high`.

    `statistic` maps weights (…, units) to a dict of metrics (…), NaN where one is undefined. Bias-corrected and
    accelerated (BCa, Efron 1987), with Student's t in place of the normal quantile (the expansion of Hesterberg
    2015): on 100 rows plain percentile intervals of accuracy, ROC AUC and Pearson contained the truth in 91-92% of
    simulated test sets, these in 93-95%.

    If all resamples agree, the bootstrap says nothing: 20 right out of 20 do not prove an accuracy of 1. A share of 0
    or 1 then gets the exact bound for that many units that all agree (Clopper and Pearson 1934), if it is known which
    units it is about; any other metric gets no interval (NaN). `shares` is as in `metrics.Measure`; a tuple is looked
    up by its last part. A `difference` is then 0 to 0, because the two runs gave the same answers.
    """
    rng = np.random.default_rng(seed)
    values = statistic(np.ones(units))
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample in which a metric is undefined
        resampled = _each(statistic, resamples(units, n_resamples, rng))
        left_out = _each(statistic, _jackknife(units, min(units, LEFT_OUT, n_resamples), rng))
    rows = {}
    for name, value in values.items():
        low, high = _bca(float(value), resampled[name], left_out[name], units)
        if low == high and not difference:
            of_all = (shares or {}).get(name[-1] if isinstance(name, tuple) else name)
            low, high = _where_all_agree(statistic, name, float(value), units, of_all)
        rows[name] = {"value": float(value), "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index")


def resamples(units: int, n_resamples: int, rng: np.random.Generator) -> Iterator[Weights]:
    """Yield resamples, many at a time: (some, units)."""
    chunk = max(1, 2_000_000 // units)  # resamples at a time, whose weights take less than 16 MB
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        drawn = rng.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def _jackknife(units: int, groups: int, rng: np.random.Generator) -> Iterator[Weights]:
    """Leave out one group of units at a time: single units, or random groups if there are many."""
    group = rng.permutation(units) % max(2, groups)
    for number in range(max(2, groups)):
        yield (group != number).astype(np.float64)[None]


def _each(statistic: Callable[[Weights], Metrics], chunks: Iterable[Weights]) -> Metrics:
    parts = [statistic(weights) for weights in chunks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _bca(value: float, resampled: np.ndarray, left_out: np.ndarray, units: int) -> tuple[float, float]:
    resampled, left_out = resampled[np.isfinite(resampled)], left_out[np.isfinite(left_out)]
    if not np.isfinite(value) or not resampled.size:
        return np.nan, np.nan
    below = (np.mean(resampled < value) + np.mean(resampled <= value)) / 2
    bias = ndtri(np.clip(below, 0.5 / resampled.size, 1 - 0.5 / resampled.size))
    influence = left_out.mean() - left_out if left_out.size else np.zeros(1)
    influence = influence / (np.abs(influence).max() or 1.0)  # otherwise the cube of a large error would overflow
    spread = np.sum(influence**2) ** 1.5
    acceleration = np.sum(influence**3) / (6 * spread) if spread > 0 else 0.0
    reach = np.sqrt(units / max(units - 1, 1)) * stdtrit(max(units - 1, 1), (1 + LEVEL) / 2)
    shifted = bias + np.array([-reach, reach])
    tails = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-9))
    low, high = np.quantile(resampled, tails)
    return float(low), float(high)


def _where_all_agree(
    statistic: Callable[[Weights], Metrics], name: object, value: float, units: int, of_all: bool | None
) -> tuple[float, float]:
    """Return the exact bound of a share; `of_all` is as in `metrics.Measure.shares`, None for other metrics."""
    agree = units
    if of_all is None or value not in (0.0, 1.0) or (not of_all and units > MANY):
        return np.nan, np.nan
    if not of_all:  # count the units that have the value on their own
        with np.errstate(invalid="ignore", divide="ignore"):
            agree = int(np.sum([statistic(weights)[name] == value for weights in np.eye(units)]))
        # F1 is also 0 for a unit that it is not about, which cannot be recognized here.
        if agree == 0 or (value == 0 and agree == units):
            return np.nan, np.nan
    missed = ((1 - LEVEL) / 2) ** (1 / agree)
    return (0.0, 1 - missed) if value == 0 else (missed, 1.0)


def ranker(values: np.ndarray) -> Callable[[Weights], np.ndarray]:
    """Return the function from the weights (…, units) of resamples to the ranks (…, units) of `values` (units,).

    A rank counts the drawn units with a lower value, and half of those with the same value.
    """
    order = np.argsort(values, kind="stable")
    below = np.searchsorted(values[order], values, side="left")
    up_to = np.searchsorted(values[order], values, side="right")

    def ranks(weights: Weights) -> np.ndarray:
        counted = np.cumsum(weights[..., order], axis=-1)
        counted = np.concatenate([np.zeros((*counted.shape[:-1], 1)), counted], axis=-1)
        return (counted[..., below] + counted[..., up_to]) / 2

    return ranks
