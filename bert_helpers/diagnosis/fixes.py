"""What the fix of a finding does to the data: named actions, all but one on training rows only; seeded."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets

from bert_helpers.errors import DataError, ParameterError


def apply_fix(dataset: DatasetDict, fix: Mapping[str, object], *, seed: int = 0) -> DatasetDict:
    """Return the dataset after the data actions (lower-case names) of a finding's `fix`; parameters are ignored.

    "remove_rows": numbers of training rows to leave out. "relabel_rows": {row: label}. "oversample", "augment": True.
    "swap_pairs": True exchanges the two texts. "shift_tags": number of words to move the tags of every training
    sentence by, to the right if positive.
    "redraw_splits": True distributes the rows of all splits again, keeping the sizes; only this one changes
    evaluation rows. Raises ParameterError when no training row would be left.
    """
    train = dataset["train"]
    for name, action in ACTIONS.items():
        if name in fix:
            train = action(train, fix[name], seed)
    if not len(train):
        raise ParameterError("the fix would leave no training row.")
    fixed = DatasetDict({**dataset, "train": train})
    return redraw_splits(fixed, seed=seed) if fix.get("redraw_splits") else fixed


def remove_rows(train: Dataset, rows: Sequence[int]) -> Dataset:
    """Return all other rows."""
    return train.select(np.setdiff1d(np.arange(len(train)), rows))


def relabel_rows(train: Dataset, labels: Mapping[int, int | float]) -> Dataset:
    """Return the rows with new values of column `label`, by row number."""
    values = list(train["label"])
    for row, label in labels.items():
        values[row] = label
    return _with_column(train, "label", values)


def _with_column(split: Dataset, name: str, values: list) -> Dataset:
    """Return the rows with other values in a column, whose type and place stay."""
    changed = split.remove_columns(name).add_column(name, values, feature=split.features[name])
    return changed.select_columns(split.column_names)


def swap_pairs(train: Dataset) -> Dataset:
    """Exchange `text` and `text_pair` of every row."""
    swapped = train.rename_columns({"text": "text_pair", "text_pair": "text"})
    return swapped.select_columns(train.column_names)


def shift_tags(train: Dataset, places: int) -> Dataset:
    """Move the tags of every sentence to the right, to the left if `places` is negative.

    A word that gets no tag is O; an entity that loses its first word begins with its next.
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
    """Add random rows of the rarer classes a second time, until every class has as many as the most frequent one.

    Of tagged sentences, those with an entity type are its rows: they are repeated until every type has as many
    entities as the most frequent one, as far as that is possible by adding one sentence at a time. Raises DataError
    when there is no column of classes.
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
        raise DataError("oversampling needs a column of classes: label, or ner_tags.")
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
            if len(extra) > 20 * len(train):  # types that only occur together can never be balanced
                return np.array(extra)
    return np.array(extra)


def augment(train: Dataset, *, share: float = 0.1, seed: int = 0) -> Dataset:
    """Add an altered version of every row's `text` (of `text_pair` too, if there is one), with the label it has.

    Half of the versions lose each word with probability `share` (at least one stays), half have `share` of their words
    swapped in pairs: random deletion and random swap of Wei and Zou (2019).
    Raises DataError for rows without a text: in questions and tagged words each position has a meaning.
    """
    columns = [name for name in ("text", "text_pair") if name in train.column_names]
    if not columns:
        raise DataError("augmentation needs a column of texts; in questions and tagged words every position counts.")
    rng, version = np.random.default_rng(seed), train
    texts = {name: list(train[name]) for name in columns}
    for row in range(len(train)):
        alter = delete_words if row % 2 else swap_words
        for name in columns:
            texts[name][row] = " ".join(alter(texts[name][row].split(), rng, share=share))
    for name in columns:
        version = _with_column(version, name, texts[name])
    return concatenate_datasets([train, version])


def delete_words(words: list[str], rng: np.random.Generator, *, share: float = 0.1) -> list[str]:
    """Leave out each word with probability `share`; one stays in any case."""
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


# In this order: row numbers are those before any other action.
ACTIONS: dict[str, Callable[[Dataset, object, int], Dataset]] = {
    "relabel_rows": lambda train, labels, seed: relabel_rows(train, labels),
    "remove_rows": lambda train, rows, seed: remove_rows(train, rows),
    "shift_tags": lambda train, places, seed: shift_tags(train, places),
    "swap_pairs": lambda train, _, seed: swap_pairs(train),
    "oversample": lambda train, _, seed: oversample(train, seed=seed),
    "augment": lambda train, _, seed: augment(train, seed=seed),
}
