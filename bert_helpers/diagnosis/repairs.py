"""What a finding's fix does to the data: actions by name, all but one on training rows only."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets

from bert_helpers.diagnosis.augmentation import augment, oversample
from bert_helpers.errors import ParameterError


def mend(dataset: DatasetDict, fix: Mapping[str, object], *, seed: int = 0) -> DatasetDict:
    """The dataset after the data actions (lower-case names) of a finding's `fix`; its parameters are not looked at.

    "remove_rows": numbers of training rows to leave out. "relabel_rows": {row: label}. "shuffle", "oversample",
    "augment": True. "shift_tags": places to move every training sentence's tags, to the right if positive.
    "redraw_splits": True draws the rows of all splits anew, in the sizes they have; only this one changes evaluation
    rows. Names that are no data action ("unfreeze", "temperature") are the caller's. Raises ParameterError when no
    training row would be left.
    """
    train = dataset["train"]
    for name, action in ACTIONS.items():
        if name in fix:
            train = action(train, fix[name], seed)
    if not len(train):
        raise ParameterError("the fix would leave no training row.")
    mended = DatasetDict({**dataset, "train": train})
    return redraw_splits(mended, seed=seed) if fix.get("redraw_splits") else mended


def remove_rows(train: Dataset, rows: Sequence[int]) -> Dataset:
    """All other rows."""
    return train.select(np.setdiff1d(np.arange(len(train)), rows))


def relabel_rows(train: Dataset, labels: Mapping[int, int | float]) -> Dataset:
    """The rows with new values of column `label`, by row number."""
    changed = list(train["label"])
    for row, label in labels.items():
        changed[row] = label
    feature = train.features["label"]
    return train.remove_columns("label").add_column("label", changed, feature=feature)


def shift_tags(train: Dataset, places: int) -> Dataset:
    """Every sentence's tags moved right (left if negative); O where none is left, and B- where an entity lost it."""
    names = train.features["ner_tags"].feature.names

    def shift(row: dict) -> dict:
        tags = row["ner_tags"]
        moved = [tags[i - places] if 0 <= i - places < len(tags) else names.index("O") for i in range(len(tags))]
        for i, tag in enumerate(moved):
            if names[tag].startswith("I-") and (i == 0 or names[moved[i - 1]][2:] != names[tag][2:]):
                moved[i] = names.index(f"B-{names[tag][2:]}")
        return {"ner_tags": moved}

    return train.map(shift, features=train.features, load_from_cache_file=False)


def redraw_splits(dataset: DatasetDict, *, seed: int = 0) -> DatasetDict:
    """All rows drawn into splits of the same sizes at random."""
    pooled = concatenate_datasets(list(dataset.values())).shuffle(seed=seed)
    ends = np.cumsum([len(split) for split in dataset.values()])
    starts = [0, *ends[:-1]]
    return DatasetDict(
        {name: pooled.select(range(start, end)) for name, start, end in zip(dataset, starts, ends, strict=True)}
    )


# In this order: row numbers are those before any other action.
ACTIONS: dict[str, Callable[[Dataset, object, int], Dataset]] = {
    "relabel_rows": lambda train, labels, seed: relabel_rows(train, labels),
    "remove_rows": lambda train, rows, seed: remove_rows(train, rows),
    "shift_tags": lambda train, places, seed: shift_tags(train, places),
    "oversample": lambda train, _, seed: oversample(train, seed=seed),
    "augment": lambda train, _, seed: augment(train, seed=seed),
    "shuffle": lambda train, _, seed: train.shuffle(seed=seed),
}
