"""Checked data: a source's splits with canonical columns, in which every row can be learned from.

The part of reading that all tasks share; each task's `Task.load` uses it. Every error names the place.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Json, List, Value
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable

from bert_helpers.errors import SHOWN, DataError, ParameterError, parameter
from bert_helpers.parameters import column_parameter
from bert_helpers.readers import tables
from bert_helpers.readers.json_rows import parsed_cell
from bert_helpers.readers.source import (
    SPLITS,
    Format,
    Reading,
    columns_of,
    no_column,
    note,
    read_source,
    say_assumed,
    source_name,
)

# Only white space, control characters and the like, none of which reaches the model
INVISIBLE = r"^[\s\p{C}\p{Z}]*$"
LONGEST = 1_000_000  # characters, the length of a long novel
DAMAGED = "the text holds a NUL character, as damaged files and files that are not text do"
TOO_LONG = f"the text has {LONGEST:,} characters or more, as when a quotation mark is not closed"
CORRECT = "correct or delete the row"
LABELS = ("label", "labels", "ner_tags")  # canonical columns of labels
NO_LABELS = ("-", "-1", "nan", "none", "na", "n/a", "null")  # how a missing label is written, in any case
HELD_OUT = 0.1  # share of the training rows that replaces a missing validation or test split
Sampler = Callable[..., np.ndarray]  # takes a dataset, a size and a seed; returns row numbers, ascending


# --- read --------------------------------------------------------------------------------------------------


def read_columns(
    source: str | Path,
    columns: Mapping[str, str],
    *,
    sample: str,
    formats: Sequence[Format] = tables.FORMATS,
    need_train: bool = True,
    **reading: str | bool,
) -> dict[str, Dataset]:
    """Read a source's splits and rename their columns: `columns` maps canonical names to the user's.

    `reading` holds options of `readers.source.Reading`. Other columns are kept, unless they have a canonical name.
    Raises DataError and ParameterError.
    """
    for other, field in combinations(columns, 2):
        if columns[field] == columns[other]:
            problem = f"names the column {columns[field]!r}, as {parameter(column_parameter(other))} does"
            raise ParameterError(problem, parameter=column_parameter(field), fix="name two columns")
    wanted = {name: column_parameter(field.partition(" ")[0]) for field, name in columns.items()}
    labels = frozenset(name for field, name in columns.items() if field in LABELS)
    how = Reading(wanted, labels, named=any(field != name for field, name in columns.items()), **reading)
    splits = read_source(source, sample=sample, formats=formats, reading=how, need_train=need_train)
    splits = {name: _flat(split, columns.values()) for name, split in splits.items()}
    splits = without_unlabelled(splits, labels)
    splits = {name: rename_columns(split, columns) for name, split in splits.items()}
    if "label" in columns:
        splits = {name: _one_label(split, columns["label"]) for name, split in splits.items()}
    for field in {"text", "text_pair"} & columns.keys():
        splits = {name: _numbers_as_texts(split, field) for name, split in splits.items()}
    return {name: _leave_out(split, columns, how) for name, split in splits.items()}


def without_unlabelled(splits: dict[str, Dataset], labels: Collection[str]) -> dict[str, Dataset]:
    """Leave out a validation or test split without labels: one that lacks their column, or has only -1, "-" or blanks.

    Another split's notes say so. Raises DataError if no split is left.
    """
    left = {name: split for name, split in splits.items() if name == "train" or not _is_unlabelled(split, labels)}
    if not left:
        names = ", ".join(map(source_name, splits.values()))
        raise DataError("no labels", source=names, fix="label the rows, or use it with predict")
    for name in splits.keys() - left.keys():
        note(next(iter(left.values())), "left out", "no labels; use it with predict", of=source_name(splits[name]))
    return left


def _is_unlabelled(split: Dataset, labels: Collection[str]) -> bool:
    for label in labels:
        names = columns_of(label, split.column_names)
        if names is None:
            return True
        values = {str(value).strip().casefold() for value in values_of(split, names[0])}
        if values <= {"", "none", "-", "-1", "-1.0", "nan"}:
            return True
    return False


def _one_label(split: Dataset, column: str) -> Dataset:
    """Unpack lists of one label, as annotation tools write them. Raises DataError for rows with several."""
    kind = split.features["label"]
    in_cells = kind == Value("string") and pc.any(pc.starts_with(split.with_format("arrow")[:]["label"], "{")).as_py()
    is_list = isinstance(kind, (List, Json, dict)) and not isinstance(getattr(kind, "feature", None), ClassLabel)
    if not is_list and not in_cells:
        return split
    values = [choices_in(value) for value in values_of(split, "label")]
    if several := [i for i, value in enumerate(values) if isinstance(value, list) and len(value) > 1]:
        fix = "train multilabel, which gives a text several labels, or keep one"
        raise bad_rows(split, several, column, "several labels", fix)
    if not any(isinstance(value, list) for value in values):
        return split
    values = [(value[0] if value else None) if isinstance(value, list) else value for value in values]
    try:
        labels = pa.array(values)
    except pa.ArrowException:  # some numbers, some words
        labels = pa.array([None if value is None else str(value) for value in values])
    note(split, "labels", "lists of one")
    return _replaced(split, "label", labels)


def choices_in(value: object) -> object:
    """Return the list in Label Studio's `{"choices": […]}`, also written out in a cell; other values unchanged.

    >>> choices_in('{"choices": ["food", "price"]}')
    ['food', 'price']
    """
    found = parsed_cell(value)
    return found["choices"] if isinstance(found, dict) and "choices" in found else value


def _numbers_as_texts(split: Dataset, field: str) -> Dataset:
    """Convert numbers among the texts of a JSON file to text; the notes count them."""
    values = values_of(split, field) if isinstance(split.features[field], Json) else []
    numbers = sum(type(value) in (int, float) for value in values)
    if not numbers or not all(type(value) in (int, float, str) for value in values):
        return split
    note(split, "numbers among the texts", f"{numbers}, as texts")
    return _replaced(split, field, pa.array(map(str, values)))


def _replaced(split: Dataset, name: str, values: pa.Array) -> Dataset:
    notes = split.info.citation
    split = split.remove_columns(name).add_column(name, values)
    split.info.citation = notes
    return split


def _leave_out(split: Dataset, columns: Mapping[str, str], how: Reading) -> Dataset:
    """Leave out the rows that DROP_EMPTY and DROP_LABELS name; the notes count them."""
    fields = [field for field in columns if not field.startswith("labels")]  # of those a row may have none
    table, dropped = split.with_format("arrow")[:], {}
    if how.drop_empty:
        dropped["rows without a text or a label"] = reduce(pc.or_, [_is_blank(table[field]) for field in fields])
    if how.drop_labels and "label" in columns:
        names, labels = [name.strip() for name in how.drop_labels.split(",")], values_of(split, "label")
        if isinstance(split.features["label"], ClassLabel):
            classes = dict(enumerate(split.features["label"].names))
            labels = [classes.get(label, label) for label in labels]
        dropped[f"rows labelled {how.drop_labels}"] = [str(label).strip() in names for label in labels]
    keep = np.ones(len(split), bool)
    for what, found in dropped.items():
        rows = np.flatnonzero(found)
        if len(rows):
            shown = ", ".join(str(row + 1) for row in rows[:SHOWN]) + ("" if len(rows) <= SHOWN else ", …")
            note(split, f"{what}, left out", f"{len(rows):,} ({shown})")
        keep[rows] = False
    if keep.all():
        return split
    # As an indices table, from which `bad_rows` can count rows as the file does
    kept = InMemoryTable.from_pydict({"indices": np.flatnonzero(keep).astype(np.uint64)})
    return Dataset(split.data, info=split.info, indices_table=kept, fingerprint=generate_random_fingerprint())


def _is_blank(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type) or pa.types.is_null(values.type):
        return pc.fill_null(pc.match_substring_regex(values.cast(pa.string()), INVISIBLE), True)
    return pc.is_null(values)


def rename_columns(dataset: Dataset, columns: Mapping[str, str]) -> Dataset:
    """Rename columns to their canonical names: `columns` maps these to the user's. Raises DataError."""
    names, given = set(dataset.column_names), {}
    for field, name in columns.items():
        found = columns_of(name, dataset.column_names)
        if found is None or (len(found) > 1 and field in LABELS):
            wanted = {name.strip(): column_parameter(field.partition(" ")[0]) for field, name in columns.items()}
            raise no_column(source_name(dataset), wanted, dataset.column_names)
        given[field] = found[0]
        if len(found) > 1:
            given[field] = f"{field}: {name}"
            parts = [dataset.with_format("arrow")[:][part].cast(pa.string()) for part in found]
            joined = pc.binary_join_element_wise(*parts, " ", null_handling="replace", null_replacement="")
            dataset = dataset.add_column(given[field], pc.utf8_trim_whitespace(joined))
        if found != [name.strip()]:
            note(dataset, field, " + ".join(repr(part[:40]) for part in found))
    # Unrelated columns of these names would be in the way.
    dataset = dataset.remove_columns([field for field in given if field in names - {*given.values()}])
    return dataset.rename_columns({name: field for field, name in given.items() if field != name})


def _flat(dataset: Dataset, wanted: Collection[str]) -> Dataset:
    """Turn the fields of object columns into columns such as `data.text`, if a wanted column is missing."""
    missing = any(columns_of(name, dataset.column_names) is None for name in wanted)
    if not missing or not any(isinstance(feature, dict) for feature in dataset.features.values()):
        return dataset
    notes, flat = dataset.info, dataset.flatten()
    flat.info.description, flat.info.citation = notes.description, notes.citation
    return flat


def check_label_names(dataset: Dataset, labels: Sequence[str], column: str, keep: str) -> None:
    """Raise DataError with the rows whose label means "none", unless `keep` names it as a class.

    -1 counts as a class if only one class would be left without it.
    """
    kept = [name.strip() for name in keep.split(",")]
    odd = {name for name in set(labels) if name.casefold() in NO_LABELS and name not in kept}
    if len(set(labels) - odd) < 2:
        odd -= {"-1"}
    if odd:
        names = ",".join(sorted(odd))
        fix = (
            f"leave such rows out by {parameter('DROP_LABELS')} {names}, "
            f"or say by {parameter('KEEP_LABELS')} {names} that it is a class"
        )
        rows = [i for i, label in enumerate(labels) if label in odd]
        raise bad_rows(dataset, rows, column, f"the label {labels[rows[0]]!r} says that there is none", fix)


def bad_rows(dataset: Dataset, rows: Sequence[int], column: str, problem: str, fix: str) -> DataError:
    """Return the error about `rows`, counted from 0; `column` is the user's name for the column."""
    if dataset._indices is not None:  # some rows of the file were left out
        rows = dataset._indices.column(0).take(pa.array(rows)).to_pylist()
    return DataError(problem, source=source_name(dataset), row=[row + 1 for row in rows], column=column, fix=fix)


def values_of(dataset: Dataset, column: str) -> list:
    """Return a column as Python objects, also one of `datasets.Json` (JSON of several types)."""
    values = dataset.with_format("arrow")[:][column].to_pylist()
    if isinstance(dataset.features[column], Json):
        return [None if value is None else json.loads(value) for value in values]
    return values


FILL = f"fill it, delete the row, or leave such rows out by {parameter('DROP_EMPTY')}"


def check_texts(dataset: Dataset, field: str, column: str | None = None, *, blank: bool = False) -> None:
    """Raise DataError with the rows whose text is missing, not a string, invisible, damaged or far too long.

    `column` is the user's name for the field. With `blank`, texts may be missing or invisible.
    """
    column, feature = column or field, dataset.features[field]
    if feature == Value("null") and not blank:
        raise DataError("every value is null", source=source_name(dataset), column=column, fix="fill the column")
    if isinstance(feature, Json):
        values = values_of(dataset, field)
        rows = [i for i, value in enumerate(values) if not isinstance(value, str)]
        raise bad_rows(dataset, rows, column, f"{str(values[rows[0]])[:40]} is not text", "put it in quotation marks")
    if feature not in (Value("string"), Value("large_string")):
        kind = str(dataset.data.schema.field(field).type)[:60]
        raise DataError(
            f"holds {kind}, not text",
            source=source_name(dataset),
            column=column,
            fix="name the column of texts" if column_parameter(field) else "write texts",
            parameter=column_parameter(field),
        )
    values = dataset.with_format("arrow")[:][field]
    tests = {
        ("the text is null", FILL): pc.and_(pc.is_null(values), not blank),
        ("the text is empty", FILL): pc.and_(pc.match_substring_regex(values, INVISIBLE), not blank),
        (DAMAGED, CORRECT): pc.match_substring(values, "\0"),
        (TOO_LONG, "split it, or correct the file"): pc.greater_equal(pc.utf8_length(values), LONGEST),
    }
    for (problem, fix), found in tests.items():
        rows = np.flatnonzero(pc.fill_null(found, False))
        if len(rows):
            raise bad_rows(dataset, rows, column, problem, fix)


# --- sample ------------------------------------------------------------------------------------------------


def in_splits(
    splits: Mapping[str, Dataset],
    sizes: tuple[int | None, int, int],
    *,
    seed: int,
    hold_out: Sampler,
    sample: Sampler | None = None,
) -> DatasetDict:
    """Return the splits train, validation and test with `sizes` rows, in that order (0: all).

    If the first size is None, as for `info`, the splits are returned as they are. Otherwise `hold_out` takes a missing
    validation or test split from the training rows, and `sample` (by default `hold_out`) chooses the rows of a split
    that has more. Raises DataError if there are too few rows.
    """
    say_assumed(splits)
    if sizes[0] is None:
        return DatasetDict(splits)
    wanted = dict(zip(SPLITS, sizes, strict=True))
    splits = split_missing(splits, wanted, seed=seed, sample=hold_out)
    return DatasetDict(
        {name: subsample(splits[name], wanted[name], seed=seed, sample=sample or hold_out) for name in SPLITS}
    )


def stratified_indices(labels: Sequence[int], size: int, *, seed: int) -> np.ndarray:
    """Return `size` row numbers, ascending, with each class in its share (to within one row).

    The rows are shuffled, sorted by label, and taken at even steps (systematic sampling), which also works for classes
    of a single row.
    """
    labels = np.asarray(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    steps = ((np.arange(size) + 0.5) * len(labels) / size).astype(int)
    return np.sort(by_label[steps])


def sample_by_label(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """Return `size` row numbers, stratified by column `label`."""
    return stratified_indices(dataset["label"][:], size, seed=seed)


def sample_rows(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """Return `size` row numbers, ascending, all rows being equally likely."""
    return np.sort(np.random.default_rng(seed).permutation(len(dataset))[:size])


def split_missing(
    splits: Mapping[str, Dataset], sizes: Mapping[str, int], *, seed: int, sample: Sampler = sample_by_label
) -> dict[str, Dataset]:
    """Take a missing test or validation split from the training rows that `sample` chooses.

    It has as many rows as `sizes` says, or a tenth of the training rows if that is 0. Raises DataError if no training
    rows would be left.
    """
    splits, total = dict(splits), len(splits["train"])
    for name in ("test", "validation"):
        if name in splits:
            continue
        train, size = splits["train"], sizes[name] or max(1, round(HELD_OUT * total))
        if size >= len(train):
            problem = f"{total} rows are too few to hold out {size} of them as {name} rows"
            raise DataError(problem, source=source_name(train), fix="give more, or a file for each split")
        held_out = sample(train, size, seed=seed)
        kept = np.setdiff1d(np.arange(len(train)), held_out)
        splits[name], splits["train"] = train.select(held_out), train.select(kept)
        splits[name].info.description = f"{source_name(train)}, {len(held_out)} rows held out as {name}"
    return splits


def subsample(dataset: Dataset, size: int, *, seed: int, sample: Sampler = sample_by_label) -> Dataset:
    """Return `size` rows chosen by `sample`; all rows if `size` is 0 or there are no more."""
    if size == 0 or size >= len(dataset):
        return dataset
    return dataset.select(sample(dataset, size, seed=seed))


def thin_out(dataset: DatasetDict, one_in: int, *, seed: int) -> DatasetDict:
    """Return every split with one in `one_in` rows of the rarest class (of several, the last), but at least one."""
    counts = np.bincount(dataset["train"]["label"])
    rarest = len(counts) - 1 - int(np.argmin(counts[::-1]))
    rng = np.random.default_rng(seed)

    def keep(split: Dataset) -> Dataset:
        rare = np.asarray(split["label"]) == rarest
        drawn = rng.permutation(np.flatnonzero(rare))[: max(1, rare.sum() // one_in)]
        return split.select(np.sort(np.concatenate([np.flatnonzero(~rare), drawn])))

    return DatasetDict({name: keep(split) for name, split in dataset.items()})


# --- describe ----------------------------------------------------------------------------------------------


def label_counts(dataset: DatasetDict) -> pd.DataFrame:
    """Count the rows by class (index) and split (columns)."""
    names = dataset["train"].features["label"].names
    counts = {name: np.bincount(split["label"], minlength=len(names)) for name, split in dataset.items()}
    return pd.DataFrame(counts, index=names)


def fingerprint(dataset: DatasetDict) -> str:
    """Return the SHA-256 of every split's name, columns and values, which is the same on any machine."""
    digest = hashlib.sha256()
    for name, split in dataset.items():
        digest.update(json.dumps([name, split.column_names]).encode())
        for batch in split.with_format(None).iter(batch_size=1000):
            digest.update(json.dumps(batch, default=str, ensure_ascii=True).encode())
    return digest.hexdigest()


def slice_column(dataset: Dataset, column: str) -> list[str]:
    """Return the values of a column as text, to slice results by. Raises DataError if there is no such column."""
    if column not in dataset.column_names:
        problem = f"no column {column!r} to slice by; it has {', '.join(dataset.column_names)}"
        raise DataError(problem, source=source_name(dataset), column=column)
    return ["" if value is None else str(value) for value in dataset[column]]
