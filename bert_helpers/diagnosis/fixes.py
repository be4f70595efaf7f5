"""What the fix of a finding does to the data: named, seeded actions, all but one on training rows only."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets

from bert_helpers.errors import DataError, ParameterError


def apply_fix(dataset: DatasetDict, fix: Mapping[str, object], *, seed: int = 0) -> DatasetDict:
    """Apply the data actions (lower-case names) of a finding's `fix` to the dataset; parameters are ignored.

    "remove_rows": numbers of training rows to leave out. "relabel_rows": {row: label}. "oversample", "augment": True.
    "swap_pairs": True exchanges the two texts. "shift_tags": number of words by which to move the tags of every
    training sentence, to the right if positive. "redraw_splits": True distributes the rows of all splits again, keeping
    the sizes; only this action changes evaluation rows. Raises ParameterError if no training row would be left.
    """
    train = dataset["train"]
    for name, action in ACTIONS.items():
        if name in fix:
            train = action(train, fix[name], seed)
    if not len(train):
        raise ParameterError("the fix would leave no training row")
    fixed = DatasetDict({**dataset, "train": train})
    return redraw_splits(fixed, seed=seed) if fix.get("redraw_splits") else fixed


def remove_rows(train: Dataset, rows: Sequence[int]) -> Dataset:
    """Leave out the rows with these numbers."""
    return train.select(np.setdiff1d(np.arange(len(train)), rows))


def relabel_rows(train: Dataset, labels: Mapping[int, int | float]) -> Dataset:
    """Replace values of the column `label`, by row number."""
    values = [labels.get(row, label) for row, label in enumerate(train["label"])]
    changed = train.remove_columns("label").add_column("label", values, feature=train.features["label"])
    return changed.select_columns(train.column_names)


def swap_pairs(train: Dataset) -> Dataset:
    """Exchange `text` and `text_pair` of every row."""
    swapped = train.rename_columns({"text": "text_pair", "text_pair": "text"})
    return swapped.select_columns(train.column_names)


def shift_tags(train: Dataset, places: int) -> Dataset:
    """Move the tags of every sentence to the right, or to the left if `places` is negative.

    A word left without a tag becomes O; an entity that loses its first word begins with the next one.
    """
    names = train.features["ner_tags"].feature.names

    def shift(row: dict) -> dict:
        tags = row["ner_tags"]
        moved = [tags[i - places] if 0 <= i - places < len(tags) else names.index("O") for i in range(len(tags))]
        for i, tag in enumerate(moved):
            if names[tag].startswith("I-") and (i == 0 or names[moved[i - 1]][2:] != names[tag][2:]):
                moved[i] = names.index(f"B-{names[tag][2:]}")
        return {"ner_tags": moved}

    return train.map(shift, features=train.features, load_from_cache_file=False)


def oversample(train: Dataset, *, seed: int = 0) -> Dataset:
    """Repeat random rows of the rarer classes until every class has as many as the most frequent one.

    Of tagged sentences, those with a rarer entity type are repeated, one at a time, until every type has as many
    entities as the most frequent one, as far as possible. Raises DataError if there is no column of classes.
    """
    rng = np.random.default_rng(seed)
    if "ner_tags" in train.column_names:
        extra = _rows_with_rare_types(train, rng)
    elif hasattr(train.features.get("label"), "names"):
        labels = np.asarray(train["label"])
        counts = np.bincount(labels)
        rows = {label: np.flatnonzero(labels == label) for label in np.flatnonzero(counts)}
        extra = np.concatenate([rng.choice(rows[label], counts.max() - counts[label]) for label in rows])
    else:
        raise DataError("oversampling needs a column of classes: label, or ner_tags")
    return concatenate_datasets([train, train.select(extra.astype(int))])


def _rows_with_rare_types(train: Dataset, rng: np.random.Generator) -> np.ndarray:
    names = train.features["ner_tags"].feature.names
    begins = [i for i, name in enumerate(names) if name.startswith("B-")]
    entities = np.array([[row.count(tag) for tag in begins] for row in train["ner_tags"]])  # (sentences, types)
    totals, extra = entities.sum(axis=0), []
    for kind in np.argsort(totals):
        candidates = np.flatnonzero(entities[:, kind])
        while len(candidates) and totals[kind] < totals.max():
            row = rng.choice(candidates)
            extra.append(row)
            totals = totals + entities[row]
            if len(extra) > 20 * len(train):  # types that always occur together cannot be balanced
                return np.array(extra)
    return np.array(extra)


def augment(train: Dataset, *, share: float = 0.1, seed: int = 0) -> Dataset:
    """Add a copy of every row with an altered `text` (and `text_pair`, if there is one) and the same label.

    Half of the copies lose each word with probability `share` (at least one stays), half have `share` of their words
    swapped in pairs: random deletion and random swap of Wei and Zou (2019).
    Raises DataError for rows without a text: in questions and tagged words each position has a meaning.
    """
    columns = [name for name in ("text", "text_pair") if name in train.column_names]
    if not columns:
        raise DataError("augmentation needs a column of texts; in questions and tagged words every position counts")
    rng = np.random.default_rng(seed)

    def altered(row: dict, number: int) -> dict:
        alter = delete_words if number % 2 else swap_words
        return {name: " ".join(alter(row[name].split(), rng, share=share)) for name in columns}

    copies = train.map(altered, with_indices=True, features=train.features, load_from_cache_file=False)
    return concatenate_datasets([train, copies])


def delete_words(words: list[str], rng: np.random.Generator, *, share: float = 0.1) -> list[str]:
    """Leave out each word with probability `share`, but keep at least one."""
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= share]
    return kept or [words[rng.integers(len(words))]]


def swap_words(words: list[str], rng: np.random.Generator, *, share: float = 0.1) -> list[str]:
    """Exchange `share` of the words, at least two, in pairs."""
    words = list(words)
    for _ in range(max(1, round(share * len(words) / 2)) if len(words) > 1 else 0):
        i, j = rng.choice(len(words), 2, replace=False)
        words[i], words[j] = words[j], words[i]
    return words


def redraw_splits(dataset: DatasetDict, *, seed: int = 0) -> DatasetDict:
    """Distribute all rows at random over splits of the same sizes."""
    pooled = concatenate_datasets(list(dataset.values())).shuffle(seed=seed)
    parts = np.split(np.arange(len(pooled)), np.cumsum([len(split) for split in dataset.values()])[:-1])
    return DatasetDict({name: pooled.select(rows) for name, rows in zip(dataset, parts, strict=True)})


# Applied in this order: row numbers refer to the rows before any other action.
ACTIONS: dict[str, Callable[[Dataset, object, int], Dataset]] = {
    "relabel_rows": lambda train, labels, seed: relabel_rows(train, labels),
    "remove_rows": lambda train, rows, seed: remove_rows(train, rows),
    "shift_tags": lambda train, places, seed: shift_tags(train, places),
    "swap_pairs": lambda train, _, seed: swap_pairs(train),
    "oversample": lambda train, _, seed: oversample(train, seed=seed),
    "augment": lambda train, _, seed: augment(train, seed=seed),
}
