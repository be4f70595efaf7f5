"""Checked data: a source's splits with canonical columns, every row one that can be learned from.

Labels become a `ClassLabel`, whose names the model's config takes over. Every error names the place.
"""

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from bert_helpers.errors import DataError, ParameterError, parameter
from bert_helpers.readers import tags
from bert_helpers.readers.sources import (
    COLUMN_READERS,
    QUESTIONS,
    SPLITS,
    innermost_reason,
    no_column,
    place,
    read_source,
    read_squad,
    read_table,
    to_number,
)
from bert_helpers.sampling import draw_but_last_of_class, draw_contexts, draw_rows, split_missing, subsample

# White space, control characters and the like: nothing of it reaches the model
INVISIBLE = r"^[\s\p{C}\p{Z}]*$"
LONGEST = 1_000_000  # characters, as many as a long novel has
DAMAGED = "the text holds a NUL character, as damaged files and files that are no text do"
TOO_LONG = f"the text has {LONGEST:,} characters or more, as when a quotation mark is not closed"


def load_classification(
    source: str | Path,
    *,
    text_column: str = "text",
    label_column: str = "label",
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Texts and labels from `source`, as splits train, validation and test with columns `text` and `label`.

    `source` is "sample", a local file or folder (CSV, TSV, JSON Lines, Parquet; in a folder one file a
    split: train, validation, test), or a Hub id "owner/name[/config][@revision]". The sizes draw that many rows
    from a split, stratified (0 = all). A validation or test split that is missing is taken from the training
    rows: of the size asked for, or a tenth. Other columns of the source are kept.

    Raises DataError, naming the file, row and column, when the data cannot be used.
    """
    columns = {"text": text_column, "label": label_column}
    splits = read_source(source, sample="reviews", header=columns)
    splits = {name: _rename(split, columns) for name, split in splits.items()}
    with _own_names(columns):
        for split in splits.values():
            check_texts(split, "text")
        splits = _class_labels(splits)
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed, draw=draw_but_last_of_class)
    dataset = DatasetDict({name: subsample(splits[name], sizes[name], seed=seed) for name in SPLITS})
    _check_classes(dataset)
    return dataset


def load_questions(
    source: str | Path,
    *,
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Questions and contexts from `source`, as splits train, validation and test in SQuAD's columns.

    `source` is "sample", a .json file in SQuAD's format, JSON Lines or Parquet with the columns, a folder of such
    files (one a split: train, validation or dev, test), or a Hub id. Columns: `id`, `question`, `context`, `answers`
    (a dict of the lists `text` and `answer_start`, the latter in characters), and `title` where there is one. The
    sizes draw that many questions (0 = all). A split that is missing is taken from the training rows by context, so
    that no context lies in two splits.

    Raises DataError, naming the file and the question's id, when the data cannot be used.
    """
    splits = read_source(source, sample="qa", readers={".json": read_squad, ".csv": _no_table, ".tsv": _no_table})
    splits = {name: _question_columns(split) for name, split in splits.items()}
    for split in splits.values():
        check_questions(split)
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed, draw=draw_contexts)
    return DatasetDict({name: subsample(splits[name], sizes[name], seed=seed, draw=draw_rows) for name in SPLITS})


def load_pairs(
    source: str | Path,
    *,
    text_column: str = "text",
    pair_column: str = "text_pair",
    label_column: str = "label",
    low: float = 0.0,
    high: float = 5.0,
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Scored pairs of texts from `source`, as splits with columns `text`, `text_pair` and `label` (float).

    `source`, sizes and missing splits are as in `load_classification`; "sample" is the packaged pairs. A delimited
    file may lack a header, as the published STS-B files do: its columns are then text, pair and score, in that order.
    A test split without labels (GLUE's are all -1) is left out with a warning, and taken from the training rows.
    Scores lie in `low` to `high`. Raises DataError, naming the file, row and column, when the data cannot be used.
    """
    if not low < high:
        raise ParameterError(f"is {low:g}", parameter="LOW", fix=f"it must lie below {parameter('HIGH')}, {high:g}")
    columns = {"text": text_column, "text_pair": pair_column, "label": label_column}
    table = partial(read_table, header=columns, headerless=True)
    splits = read_source(source, sample="similarity", readers={".csv": table, ".tsv": table})
    splits = {name: _rename(split, columns) for name, split in splits.items()}
    if low > -1 and "test" in splits and to_number(splits["test"]["label"][0]) == -1:
        _drop_unlabelled(splits)
    with _own_names(columns):
        splits = {name: _scored(split, low, high) for name, split in splits.items()}
        for split in splits.values():
            check_texts(split, "text")
            check_texts(split, "text_pair")
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed)
    return DatasetDict({name: subsample(splits[name], sizes[name], seed=seed) for name in SPLITS})


def load_transfer(
    source: str | Path,
    *,
    names: Sequence[str],
    text_column: str = "text",
    label_column: str = "label",
    test_size: int = 0,
    seed: int = 0,
) -> Dataset:
    """Rows of another domain for a classifier that exists already: columns `text` and `label`.

    `names` are the classifier's classes in order; every label must be one of them. `source` as in
    `load_classification`, or "sample": 80 product and restaurant reviews; of several splits the test split is taken.
    Raises DataError for a label that the classifier does not know.
    """
    columns = {"text": text_column, "label": label_column}
    splits = read_source(source, sample="transfer_reviews", header=columns, need_train=False)
    rows = next(splits[name] for name in ("test", "validation", "train") if name in splits)
    rows = _rename(rows, columns)
    with _own_names(columns):
        check_texts(rows, "text")
        labels = _label_strings(rows)
        unknown = [i for i, label in enumerate(labels) if label not in names]
        if unknown:
            raise DataError(
                f"{_at(rows, unknown, 'label')}: {labels[unknown[0]]!r} is no class of the model, which has "
                f"{', '.join(map(repr, names))}; rename the labels to these."
            )
    return subsample(_replace_label(rows, labels, ClassLabel(names=list(names))), test_size, seed=seed)


def load_entities(
    source: str | Path,
    *,
    tokens_column: str = "tokens",
    tags_column: str = "ner_tags",
    types: Mapping[str, str] | None = None,
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Words and entity tags from `source`, as splits train, validation and test.

    `source` is "sample", a file or folder of CoNLL columns (last column: the tag) or of JSON Lines or Parquet with
    lists of words and tags, or a Hub id. IOB1, IOB2, BIOES and IO are recognised over all splits and turned into
    IOB2; each split's `info.description` says what was found. `types` renames entity types and drops those it does
    not name. Columns of the result: `tokens` (strings), `ner_tags` (`ClassLabel`: O, then B- and I- of every
    type of the training rows, sorted). Missing splits and sizes as in `load_classification`, drawn at random.

    Raises DataError, naming the file and the line or row.
    """
    splits = _tagged(read_source(source, sample="ner", readers=COLUMN_READERS), tokens_column, tags_column, types)
    names = tags.tag_names(splits["train"]["ner_tags"])
    if len(names) == 1:
        raise DataError(
            f"{place(splits['train'])}: no entity: every tag is O. Is the last column, or TAGS_COLUMN, right?"
        )
    splits = {name: _tag_classes(split, names) for name, split in splits.items()}
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed, draw=draw_rows)
    return DatasetDict({name: subsample(splits[name], sizes[name], seed=seed, draw=draw_rows) for name in SPLITS})


def load_tagged_rows(
    source: str | Path,
    names: Sequence[str],
    *,
    types: Mapping[str, str] | None = None,
    tokens_column: str = "tokens",
    tags_column: str = "ner_tags",
    sample: str = "ner_transfer",
) -> Dataset:
    """The test rows of `source` (or its only split) with the tag names of a tagger that exists already.

    As `load_entities`; raises DataError for a tag that `names` does not hold, so call it before the training.
    """
    splits = read_source(source, sample=sample, readers=COLUMN_READERS, need_train=False)
    splits = _tagged(splits, tokens_column, tags_column, types)
    cure = 'map its type by TRANSFER_TYPES, or leave this text out (TRANSFER_DATA "")'
    return _tag_classes(next(splits[name] for name in reversed(SPLITS) if name in splits), names, cure)


# --- checking -------------------------------------------------------------------------------------------


def _rename(dataset: Dataset, columns: dict[str, str]) -> Dataset:
    """Give the columns their canonical names (the keys of `columns`)."""
    names = set(dataset.column_names)  # those of a CSV without the blanks around them
    columns = {field: name if name in names else name.strip() for field, name in columns.items()}
    for canonical, given in columns.items():
        if given not in names:
            raise no_column(place(dataset), columns, dataset.column_names)
        twice = [other for other in columns if columns[other] == given and other != canonical]
        if twice:
            raise ParameterError(
                f"column {given!r} is named both for {canonical} and for {twice[0]}; name two columns."
            )
    # Unrelated columns of these names stand in the way.
    dataset = dataset.remove_columns(
        [name for name in columns if name in set(dataset.column_names) - {*columns.values()}]
    )
    return dataset.rename_columns({given: canonical for canonical, given in columns.items() if given != canonical})


@contextmanager
def _own_names(columns: Mapping[str, str]) -> Iterator[None]:
    """Errors of renamed columns, with the names that the file has: 'label' may be 'team' there."""
    try:
        yield
    except DataError as error:
        told = re.sub(r", column '(\w+)':", lambda at: f", column {columns.get(at[1], at[1])!r}:", str(error), count=1)
        raise DataError(told) from error


def _no_table(path: Path) -> Dataset:
    raise DataError(
        f"{path.name}: questions are not read from a table; they are read from SQuAD's JSON (.json), JSON Lines or "
        "Parquet."
    )


def check_texts(dataset: Dataset, column: str) -> None:
    """Raise DataError at the first row whose text is missing, not a string, invisible, damaged or far too long."""
    table = dataset.data.column(column)
    if pa.types.is_null(table.type):
        raise DataError(f"{place(dataset)}, column {column!r}: every value is null.")
    if not (pa.types.is_string(table.type) or pa.types.is_large_string(table.type)):
        raise DataError(f"{place(dataset)}, column {column!r}: holds {table.type}, not text.")
    values = dataset.with_format("arrow")[:][column]
    tests = {
        "the text is null; fill it or delete the row": pc.is_null(values),
        "the text is empty; fill it or delete the row": pc.match_substring_regex(values, INVISIBLE),
        f"{DAMAGED}; mend or delete the row": pc.match_substring(values, "\0"),
        f"{TOO_LONG}; split it, or mend the file": pc.greater_equal(pc.utf8_length(values), LONGEST),
    }
    for problem, found in tests.items():
        rows = np.flatnonzero(pc.fill_null(found, False))
        if len(rows):
            raise DataError(f"{_at(dataset, rows, column)}: {problem}.")


def _at(dataset: Dataset, rows: Sequence[int], column: str) -> str:
    """Where a fault stands: its first row (of `rows`, counted from 0), and the others, to be mended in one go."""
    shown = ", ".join(str(row + 1) for row in rows[1:9])
    more = f" and {len(rows) - 9} more" if len(rows) > 9 else ""
    also = f" (also row{'s' * (len(rows) > 2)} {shown}{more})" if shown else ""
    return f"{place(dataset)}, row {rows[0] + 1}{also}, column {column!r}"


def _class_labels(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    """Turn the `label` column of every split into one `ClassLabel`, the names taken from the training rows."""
    if all(isinstance(split.features["label"], ClassLabel) for split in splits.values()):
        for split in splits.values():
            _check_label_range(split)
        return splits
    keys = {name: _label_strings(split) for name, split in splits.items()}
    names = sorted(set(keys["train"]), key=_natural)
    known = set(names)
    for split_name, values in keys.items():
        rows = [i for i, value in enumerate(values) if value not in known]
        if rows:
            raise DataError(
                f"{_at(splits[split_name], rows, 'label')}: {values[rows[0]]!r} does not occur in the training rows, "
                f"whose labels are {', '.join(map(repr, names[:12]))}."
            )
    feature = ClassLabel(names=names)
    return {name: _replace_label(split, keys[name], feature) for name, split in splits.items()}


def _replace_label(dataset: Dataset, values: list[str], feature: ClassLabel) -> Dataset:
    index = {name: i for i, name in enumerate(feature.names)}
    labels = [index[value] for value in values]
    return dataset.remove_columns("label").add_column("label", labels, feature=feature)


def _natural(name: str) -> tuple[int, float, str]:
    """Sort "2" before "10", numbers before words; "7" and "07" by their letters, or a set's order would decide."""
    return (0, int(name), name) if re.fullmatch(r"-?\d{1,15}", name) else (1, 0, name)


def _label_strings(dataset: Dataset) -> list[str]:
    values = dataset.with_format("arrow")[:]["label"].to_pylist()
    missing = [i for i, value in enumerate(values) if value is None or (isinstance(value, str) and not value.strip())]
    if missing:
        raise DataError(f"{_at(dataset, missing, 'label')}: the label is missing; fill it or delete the row.")
    feature = dataset.features["label"]
    strings = []
    for row, value in enumerate(values, 1):
        at = f"{place(dataset)}, row {row}, column 'label'"
        if isinstance(feature, ClassLabel):
            value = feature.int2str(value)
        if isinstance(value, float) and not value.is_integer():
            raise DataError(f"{at}: {value} is no class; labels are strings, whole numbers or booleans.")
        if not isinstance(value, (str, int, float)):
            raise DataError(f"{at}: {value!r} is no class; labels are strings, whole numbers or booleans.")
        strings.append(str(int(value)) if isinstance(value, float) else str(value).strip())
    return strings


def _check_label_range(dataset: Dataset) -> None:
    labels = np.asarray(dataset.with_format("arrow")[:]["label"].to_numpy(zero_copy_only=False), dtype=float)
    bad = np.flatnonzero(~((labels >= 0) & (labels < dataset.features["label"].num_classes)))
    if bad.size:
        raise DataError(f"{place(dataset)}, row {bad[0] + 1}, column 'label': no label (the split is unlabelled?).")


def _drop_unlabelled(splits: dict[str, Dataset]) -> None:
    """Take out a test split whose every score is -1, which is how GLUE withholds its test labels."""
    if {to_number(value) for value in splits["test"]["label"]} == {-1}:
        warnings.warn(f"{place(splits['test'])}: every score is -1, so it is unlabelled and left out.", stacklevel=3)
        del splits["test"]


def _scored(dataset: Dataset, low: float, high: float) -> Dataset:
    """Turn the `label` column into floats, all of them in `low` to `high`."""
    values = dataset.with_format("arrow")[:]["label"].to_pylist()
    scores = [to_number(value) for value in values]
    bad = [i for i, score in enumerate(scores) if score is None or not low <= score <= high]
    if bad:
        value, score = values[bad[0]], scores[bad[0]]
        if score is None:
            comma = isinstance(value, str) and re.fullmatch(r"[-+]?\d+,\d+", value.strip())
            what = f"{value!r} is no finite number" + (", write a point for the comma" if comma else "")
            what = "the score is missing" if value in (None, "") else what
        else:
            what = f"{score:g} lies outside the scale of {low:g} to {high:g}"
        raise DataError(f"{_at(dataset, bad, 'label')}: {what}; mend or delete the row.")
    return dataset.remove_columns("label").add_column("label", scores, feature=Value("float64"))


def _check_classes(dataset: DatasetDict) -> None:
    classes, rows = len(set(dataset["train"]["label"])), len(dataset["train"])
    if classes < 2:
        raise DataError(f"{place(dataset['train'])}: one class only; a classifier needs rows of at least two.")
    if classes > max(2, rows / 2):
        raise DataError(
            f"{place(dataset['train'])}: {classes} classes in {rows} training rows: most occur once, and cannot be "
            "learned; name the column that holds classes (LABEL_COLUMN), or give more rows."
        )


def _tagged(
    splits: dict[str, Dataset], tokens_column: str, tags_column: str, types: Mapping[str, str] | None
) -> dict[str, Dataset]:
    """Splits with checked words and their tags as IOB2 strings."""
    renaming = {"tokens": tokens_column, "ner_tags": tags_column}
    splits = {name: _rename(split, renaming) for name, split in splits.items()}
    sequences = {name: _tag_strings(split) for name, split in splits.items()}
    _check_types(splits, sequences, types or {})
    scheme = _scheme(splits, sequences)
    for name, split in splits.items():
        converted = [_map_types(tags.to_iob2(row, scheme), types) for row in sequences[name]]
        description = f"{place(split)}, tags in {scheme}"
        splits[name] = split.remove_columns("ner_tags").add_column("ner_tags", converted)
        splits[name].info.description = description
    return splits


def _check_types(
    splits: Mapping[str, Dataset], sequences: Mapping[str, list[list[str]]], types: Mapping[str, str]
) -> None:
    """Raise DataError for a type that is to be mapped and occurs nowhere: mistyped, it would drop its entities."""
    found = sorted({tag[2:] for rows in sequences.values() for row in rows for tag in row if tag != "O"})
    for kind in types:
        if kind not in found:
            places = ", ".join(place(split) for split in splits.values())
            raise DataError(
                f"{places}: no entity of the type {kind!r}, which TRANSFER_TYPES maps; there are {', '.join(found)}."
            )


def _row_place(dataset: Dataset, row: int, position: int = 0) -> str:
    """File and line of a word where the file has lines, else the row; both from 1."""
    if "line" in dataset.column_names:
        return f"{place(dataset)}, line {dataset[row]['line'] + position}"
    return f"{place(dataset)}, row {row + 1}, word {position + 1}"


def _tag_strings(dataset: Dataset) -> list[list[str]]:
    feature = getattr(dataset.features["ner_tags"], "feature", None)
    rows = []
    for number, (words, labels) in enumerate(zip(dataset["tokens"], dataset["ner_tags"], strict=True)):
        if not isinstance(words, list) or not isinstance(labels, list) or not words:
            raise DataError(f"{_row_place(dataset, number)}: needs a list of words and a list of tags, not empty.")
        if len(words) != len(labels):
            raise DataError(f"{_row_place(dataset, number)}: {len(words)} words but {len(labels)} tags; mend the row.")
        if isinstance(feature, ClassLabel):
            labels = [feature.int2str(label) for label in labels]
        for position, (word, label) in enumerate(zip(words, labels, strict=True)):
            if not isinstance(word, str) or "\0" in word:
                raise DataError(f"{_row_place(dataset, number, position)}: the word {word!r} is no text.")
            if not isinstance(label, str) or not tags.TAG.fullmatch(label):
                at = _row_place(dataset, number, position)
                raise DataError(f"{at}: {label!r} is no tag; write O, or prefix and type as B-PER.")
        rows.append(labels)
    return rows


def _scheme(splits: dict[str, Dataset], sequences: dict[str, list[list[str]]]) -> str:
    try:
        return tags.find_scheme([row for rows in sequences.values() for row in rows])
    except tags.SequenceError as error:
        row = error.sequence
        for name, rows in sequences.items():
            if row < len(rows):
                raise DataError(f"{_row_place(splits[name], row, error.position)}: {error}") from error
            row -= len(rows)
        raise


def _map_types(labels: list[str], types: Mapping[str, str] | None) -> list[str]:
    if types is None:
        return labels
    return [f"{tag[:2]}{types[tag[2:]]}" if tag[2:] in types else "O" for tag in labels]


def _tag_classes(dataset: Dataset, names: Sequence[str], cure: str = "retag or delete the word") -> Dataset:
    index, rows = {name: i for i, name in enumerate(names)}, []
    for number, labels in enumerate(dataset["ner_tags"]):
        unknown = next((position for position, tag in enumerate(labels) if tag not in index), None)
        if unknown is not None:
            raise DataError(
                f"{_row_place(dataset, number, unknown)}: the tag {labels[unknown]!r} is not among those trained on, "
                f"{', '.join(names)}; {cure}."
            )
        rows.append([index[tag] for tag in labels])
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=list(names)))})
    tagged = Dataset.from_dict({"tokens": dataset["tokens"], "ner_tags": rows}, features=features)
    tagged.info.description = place(dataset)
    return tagged


def _question_columns(dataset: Dataset) -> Dataset:
    needed = {name: name for name in QUESTIONS if name != "title"}
    if not needed.keys() <= set(dataset.column_names):
        raise no_column(place(dataset), needed, dataset.column_names)
    kept = Features({name: feature for name, feature in QUESTIONS.items() if name in dataset.column_names})
    try:
        return dataset.select_columns(list(kept)).cast(kept)
    except (TypeError, ValueError, pa.ArrowNotImplementedError) as error:  # ValueError: also Arrow's, of a bad cast
        raise DataError(
            f"{place(dataset)}: a column of another type than SQuAD's ({innermost_reason(error)}). id, question and "
            'context are strings, answers is {"text": [strings], "answer_start": [whole numbers]}.'
        ) from error


def check_questions(dataset: Dataset) -> None:
    """Raise DataError at the first question that cannot be learned from or judged."""
    seen: set[str] = set()
    columns = dataset.with_format("arrow")[:]
    values = (columns[name].to_pylist() for name in ("id", "question", "context", "answers"))
    for row, (name, question, context, answers) in enumerate(zip(*values, strict=True), 1):
        problem = "a second question of this id; give each its own." if name in seen else None
        problem = problem or _question_problem(question, context, answers)
        if not name:
            raise DataError(f"{place(dataset)}, row {row}, column 'id': the question has no id; give it one.")
        if problem:
            raise DataError(f"{place(dataset)}, question {name!r}: {problem}")
        seen.add(name)


def _question_problem(question: str | None, context: str | None, answers: dict[str, list] | None) -> str | None:
    for name, text in (("question", question), ("context", context)):
        if not (text and any(letter.isprintable() and not letter.isspace() for letter in text)):
            return f"the {name} is empty; fill it or delete the question."
        if "\0" in text:
            return f"{DAMAGED} ({name}); mend or delete the question."
        if len(text) >= LONGEST:
            return f"{TOO_LONG} ({name}); split it, or mend the file."
    texts, starts = ((answers or {}).get(name) or [] for name in ("text", "answer_start"))
    if not texts or len(texts) != len(starts):
        return (
            f"{len(texts)} answer texts and {len(starts)} values of answer_start; each question needs at least one of "
            "both. Delete those without an answer (SQuAD 2.0 has them)."
        )
    for text, start in zip(texts, starts, strict=True):
        if not (text and text.strip()):
            return "an answer is empty; fill it or delete it."
        if start is None or start < 0 or not context.startswith(text, start):
            found = context.find(text)
            cure = "the context does not hold it" if found < 0 else f"the context first holds it at {found}"
            return f"the answer {text!r} is not at answer_start {start}; {cure} (characters, counted from 0)."
    return None


# --- describing -----------------------------------------------------------------------------------------


def label_counts(dataset: DatasetDict) -> pd.DataFrame:
    """Rows by class (index) and split (columns)."""
    names = dataset["train"].features["label"].names
    counts = {name: Counter(split["label"]) for name, split in dataset.items()}
    return pd.DataFrame({name: [count[i] for i in range(len(names))] for name, count in counts.items()}, index=names)


def fingerprint(dataset: DatasetDict) -> str:
    """SHA-256 over every split's name, columns and values: the same rows give the same digest anywhere."""
    digest = hashlib.sha256()
    for name, split in dataset.items():
        digest.update(json.dumps([name, split.column_names]).encode())
        for batch in split.with_format(None).iter(batch_size=1000):
            digest.update(json.dumps(batch, default=str, ensure_ascii=True).encode())
    return digest.hexdigest()


def slice_column(dataset: Dataset, column: str) -> list[str]:
    """The values of a column as text, to slice results by. Raises DataError when there is no such column."""
    if column not in dataset.column_names:
        known = ", ".join(dataset.column_names)
        raise DataError(f"{place(dataset)}: no column {column!r} to slice by; it has {known}.")
    return ["" if value is None else str(value) for value in dataset[column]]
