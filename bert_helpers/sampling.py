"""Rows drawn from splits: a validation or test split that is missing, and fewer rows of one; seeded."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict

from bert_helpers.errors import DataError
from bert_helpers.readers.source import source_name

HELD_OUT = 0.1  # share of the training rows that becomes a missing validation or test split


def stratified_indices(labels: Sequence[int], size: int, *, seed: int) -> np.ndarray:
    """`size` row numbers, ascending, each class in its share (to within one row); seeded.

    The rows are shuffled, sorted by label, and taken at even steps (systematic sampling), so that classes of
    a single row do no harm.
    """
    labels = np.asarray(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    steps = ((np.arange(size) + 0.5) * len(labels) / size).astype(int)
    return np.sort(by_label[steps])


def draw_by_label(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """`size` row numbers, stratified by column `label`."""
    return stratified_indices(dataset["label"], size, seed=seed)


def draw_but_last_of_class(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """As `draw_by_label`, but no class's only row: without it the rows that are left could not teach the class.

    Where the other rows are fewer than `size` these are not classes that could be learned, and any row will do.
    """
    labels = np.asarray(dataset["label"])
    others = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if len(others) < size:
        return draw_by_label(dataset, size, seed=seed)
    return others[stratified_indices(labels[others], size, seed=seed)]


def draw_rows(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """`size` row numbers, ascending, every row as likely as any other."""
    return np.sort(np.random.default_rng(seed).permutation(len(dataset))[:size])


def draw_contexts(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """The row numbers of whole contexts, drawn one by one until they have at least `size` rows.

    Raises DataError when no context would be left.
    """
    context = pd.factorize(np.asarray(dataset["context"], dtype=object))[0]
    rows = np.bincount(context)
    order = np.random.default_rng(seed).permutation(len(rows))
    drawn = order[: np.searchsorted(rows[order].cumsum(), size) + 1]
    if len(drawn) == len(rows):
        raise DataError(
            f"{len(dataset)} questions on {len(rows)} contexts are too few to hold out {size} of them with contexts of "
            "their own",
            source=source_name(dataset),
            fix="give more, or a file for each split",
        )
    return np.flatnonzero(np.isin(context, drawn))


def split_missing(
    splits: dict[str, Dataset],
    sizes: Mapping[str, int],
    *,
    seed: int,
    draw: Callable[..., np.ndarray] = draw_by_label,
) -> dict[str, Dataset]:
    """Take a missing test or validation split from the training rows, as `draw` chooses them, seeded.

    It gets as many rows as `sizes` says, or a tenth of the training rows where that is 0. Raises DataError when
    no training rows would be left.
    """
    splits, total = dict(splits), len(splits["train"])
    for name in ("test", "validation"):
        if name in splits:
            continue
        train, size = splits["train"], sizes[name] or max(1, round(HELD_OUT * total))
        if size >= len(train):
            problem = f"{total} rows are too few to hold out {size} of them as {name} rows"
            raise DataError(problem, source=source_name(train), fix="give more, or a file for each split")
        held_out = draw(train, size, seed=seed)
        kept = np.setdiff1d(np.arange(len(train)), held_out)
        splits[name], splits["train"] = train.select(held_out), train.select(kept)
        splits[name].info.description = f"{source_name(train)}, {len(held_out)} rows held out as {name}"
    return splits


def subsample(dataset: Dataset, size: int, *, seed: int, draw: Callable[..., np.ndarray] = draw_by_label) -> Dataset:
    """`size` rows, as `draw` chooses them, seeded; all of them for 0 or when there are no more."""
    if size == 0 or size >= len(dataset):
        return dataset
    return dataset.select(draw(dataset, size, seed=seed))


def thin_out(dataset: DatasetDict, one_in: int, *, seed: int) -> DatasetDict:
    """Every split with one in `one_in` rows of its rarest class (of several, the last), at least one; seeded."""
    counts = np.bincount(dataset["train"]["label"])
    rarest = len(counts) - 1 - int(np.argmin(counts[::-1]))
    rng = np.random.default_rng(seed)

    def keep(split: Dataset) -> Dataset:
        rare = np.asarray(split["label"]) == rarest
        drawn = rng.permutation(np.flatnonzero(rare))[: max(1, rare.sum() // one_in)]
        return split.select(np.sort(np.concatenate([np.flatnonzero(~rare), drawn])))

    return DatasetDict({name: keep(split) for name, split in dataset.items()})
