"""Comparison of two runs on the same examples, and of the parts of one test set."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from bert_helpers.errors import DataError
from bert_helpers.intervals import RESAMPLES, Metrics, Weights, intervals
from bert_helpers.metrics import Measure


class Comparison(NamedTuple):
    """Two runs side by side."""

    table: pd.DataFrame  # one row per metric: both values, then `difference` (second - first), `low`, `high`
    p_value: float | None  # of McNemar's exact test; None if examples are not simply right or wrong
    sentence: str


def compare(
    first: Measure,
    second: Measure,
    *,
    metric: str | None = None,
    names: tuple[str, str] = ("first", "second"),
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Return whether two runs' predictions for the same examples differ by more than chance.

    `first` and `second` are measures of the same kind, with the same references. The 95% intervals of the differences
    come from resamples that are the same for both runs. The sentence is about `metric`, by default the first one. Only
    the choice of examples counts here: another training seed may change either run as well.

    Raises DataError if the two have other numbers of examples or other metrics; references are not compared.
    """
    values = [run.values() for run in (first, second)]
    if first.units != second.units or values[0].keys() != values[1].keys():
        raise DataError(f"{names[0]} and {names[1]} do not predict the same examples and classes")

    def difference(weights: Weights) -> Metrics:
        one, other = (run.statistic(weights) for run in (first, second))
        return {name: other[name] - one[name] for name in one}

    table = intervals(difference, first.units, n_resamples=n_resamples, seed=seed, difference=True)
    table = table.rename(columns={"value": "difference"})
    for position, name in enumerate(names):
        table.insert(position, name, [values[position][metric] for metric in table.index])
    metric = metric or table.index[0]
    only = None
    if first.correct is not None and metric == "accuracy":  # McNemar's test is about right and wrong only
        one, other = first.correct, second.correct
        only = (int(np.sum(one & ~other)), int(np.sum(other & ~one)))
    return Comparison(table, only and mcnemar(*only), _sentence(table.loc[metric], names, only, first))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's exact two-sided p-value (1947), from how many examples only one of the two runs got right.

    >>> mcnemar(10, 2)
    0.03857421875
    """
    n = only_first + only_second
    return 1.0 if n == 0 else float(binomtest(only_first, n).pvalue)


def _sentence(row: pd.Series, names: tuple[str, str], only: tuple[int, int] | None, measure: Measure) -> str:
    """Say which run is better; `only` counts the examples that only the first, or only the second, gets right."""
    real = [row["low"] > 0 or row["high"] < 0]
    figures = f"difference {row['difference']:+.3f}, 95% interval {row['low']:+.3f} to {row['high']:+.3f}"
    if only is not None:
        p = mcnemar(*only)
        real.append(p < 0.05)
        figures += f"; McNemar p = {p:.2g}: only {names[0]} right {only[0]} times, only {names[1]} {only[1]}"
    what = f"{row.name} is {row[names[0]]:.3f} for {names[0]} and {row[names[1]]:.3f} for {names[1]} ({figures})"
    if all(real):
        better = names[int((row["difference"] > 0) != (row.name in measure.lower_is_better))]
        size = f"beyond what the choice of these {measure.examples} examples explains"
        return f"{what}: the difference is in favour of {better}, {size}."
    how_sure = "is on the edge of chance" if any(real) else "may well be chance"
    return f"{what}: on these {measure.examples} examples the difference {how_sure}."


def by_slice(slices: Sequence, metrics: Callable[[np.ndarray], pd.DataFrame], *, at_least: int = 10) -> pd.DataFrame:
    """Return `metrics` of each slice's rows, with their number: index (slice, metric), `value`, `low`, `high`, `rows`.

    `slices` names each row's slice, such as a column of the dataset or `length_slices`; `metrics` takes row numbers:
    `by_slice(test["hard"], lambda rows: ClassificationMeasure(logits[rows], labels[rows]).intervals())`. Slices with
    fewer than `at_least` rows are merged as "(rare)", so that none is lost.
    """
    names = pd.Series(slices).astype(str).replace("", "(none)")
    counts = names.value_counts()
    names = names.where(names.map(counts) >= at_least, "(rare)")
    tables = {}
    for name in sorted(set(names), key=_slice_order):
        rows = np.flatnonzero(names == name)
        tables[name] = metrics(rows).assign(rows=len(rows))
    return pd.concat(tables, names=["slice", "metric"])


def _slice_order(name: str) -> tuple[bool, int, str]:
    """Sort lengths by number, other names alphabetically, and the merged slices last."""
    number = re.match(r"\d+", name)
    return name == "(rare)", int(number[0]) if number else 0, name


def length_slices(lengths: Sequence[int], *, parts: int = 4, unit: str = "tokens") -> list[str]:
    """Return each row's slice by length: one of `parts` with about equally many rows, named by its range.

    >>> length_slices([3, 12, 5, 40], parts=2)
    ['3 to 5 tokens', '12 to 40 tokens', '3 to 5 tokens', '12 to 40 tokens']
    """
    lengths = np.asarray(lengths)
    if not len(lengths):
        raise DataError("no lengths to slice by")
    # Rows of one length stay together.
    part = np.searchsorted(np.sort(lengths), lengths, side="left") * parts // len(lengths)
    ranges = {p: f"{lengths[part == p].min()} to {lengths[part == p].max()} {unit}" for p in set(part)}
    return [ranges[p] for p in part]
