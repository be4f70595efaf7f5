"""Checked data: a source's splits with canonical columns, every row one that can be learned from.

Labels become a `ClassLabel`, whose names the model's config takes over. Every error names the place.
"""

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features, Json, List, Value

from bert_helpers.errors import DataError, ParameterError, parameter
from bert_helpers.readers import conll, squad, tables
from bert_helpers.readers.hub import innermost_reason
from bert_helpers.readers.source import SPLITS, Format, no_column, read_source, source_name
from bert_helpers.sampling import draw_but_last_of_class, draw_contexts, draw_rows, split_missing, subsample

# The parameter that names the column of a field
COLUMN_PARAMETERS = {"text": "TEXT_COLUMN", "text_pair": "PAIR_COLUMN", "label": "LABEL_COLUMN",
                     "tokens": "TOKENS_COLUMN", "ner_tags": "TAGS_COLUMN"}  # fmt: skip
# White space, control characters and the like: nothing of it reaches the model
INVISIBLE = r"^[\s\p{C}\p{Z}]*$"
LONGEST = 1_000_000  # characters, as many as a long novel has
DAMAGED = "the text holds a NUL character, as damaged files and files that are not text do"
TOO_LONG = f"the text has {LONGEST:,} characters or more, as when a quotation mark is not closed"
CORRECT = "correct or delete the row"


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
    splits = read_columns(source, columns, sample="reviews")
    for split in splits.values():
        check_texts(split, "text", text_column)
    splits = _class_labels(splits, label_column)
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed, draw=draw_but_last_of_class)
    dataset = DatasetDict({name: subsample(splits[name], sizes[name], seed=seed) for name in SPLITS})
    _check_classes(dataset, label_column)
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
    splits = read_source(source, sample="qa", formats=squad.FORMATS)
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
    splits = read_columns(source, columns, sample="similarity", formats=(tables.HEADERLESS, *tables.FORMATS))
    if low > -1 and "test" in splits and tables.to_number(splits["test"]["label"][0]) == -1:
        _drop_unlabelled(splits)
    splits = {name: _scored(split, low, high, label_column) for name, split in splits.items()}
    for split in splits.values():
        check_texts(split, "text", text_column)
        check_texts(split, "text_pair", pair_column)
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
    splits = read_columns(source, columns, sample="transfer_reviews", need_train=False)
    rows = next(splits[name] for name in reversed(SPLITS) if name in splits)
    check_texts(rows, "text", text_column)
    labels = _label_strings(rows, label_column)
    if unknown := [i for i, label in enumerate(labels) if label not in names]:
        problem = f"{labels[unknown[0]]!r} is not a class of the model, which has {', '.join(map(repr, names))}"
        raise bad_rows(rows, unknown, label_column, problem, "rename the labels to these")
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
    columns = {"tokens": tokens_column, "ner_tags": tags_column}
    splits = _tagged(read_columns(source, columns, sample="ner", formats=conll.FORMATS), types)
    names = conll.tag_names(splits["train"]["ner_tags"])
    if len(names) == 1:
        raise DataError(
            "no entity: every tag is O",
            source=source_name(splits["train"]),
            column=tags_column,
            fix="name the column of tags; in a file of columns it is the last",
            parameter="TAGS_COLUMN",
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
    columns = {"tokens": tokens_column, "ner_tags": tags_column}
    splits = _tagged(read_columns(source, columns, sample=sample, formats=conll.FORMATS, need_train=False), types)
    fix = f'map its type by {parameter("TRANSFER_TYPES")}, or leave this text out ({parameter("TRANSFER_DATA")} "")'
    return _tag_classes(next(splits[name] for name in reversed(SPLITS) if name in splits), names, fix)


# --- columns --------------------------------------------------------------------------------------------


def read_columns(
    source: str | Path,
    columns: Mapping[str, str],
    *,
    sample: str,
    formats: Sequence[Format] = tables.FORMATS,
    need_train: bool = True,
) -> dict[str, Dataset]:
    """Read a source's splits and give the columns their canonical names: `columns` has the user's names by these.

    Other columns are kept, unless they have a canonical name. Raises DataError, ParameterError.
    """
    for field, other in ((f, o) for o in columns for f in columns if f != o and columns[f] == columns[o]):
        problem = f"names the column {columns[field]!r}, as {parameter(COLUMN_PARAMETERS[other])} does"
        raise ParameterError(problem, parameter=COLUMN_PARAMETERS[field], fix="name two columns")
    wanted = {name: COLUMN_PARAMETERS[field] for field, name in columns.items()}
    splits = read_source(source, sample=sample, formats=formats, wanted=wanted, need_train=need_train)
    return {name: _rename(split, columns, wanted) for name, split in splits.items()}


def _rename(dataset: Dataset, columns: Mapping[str, str], wanted: Mapping[str, str]) -> Dataset:
    names = set(dataset.column_names)  # those of a CSV without the blanks around them
    given = {field: name if name in names else name.strip() for field, name in columns.items()}
    if not names >= {*given.values()}:
        raise no_column(source_name(dataset), {name.strip(): wanted[name] for name in wanted}, dataset.column_names)
    # Unrelated columns of these names stand in the way.
    dataset = dataset.remove_columns([field for field in given if field in names - {*given.values()}])
    return dataset.rename_columns({name: field for field, name in given.items() if field != name})


# --- checking -------------------------------------------------------------------------------------------


def bad_rows(dataset: Dataset, rows: Sequence[int], column: str, problem: str, fix: str) -> DataError:
    """Make the error about `rows`, counted from 0, of a column that the user calls `column`."""
    return DataError(problem, source=source_name(dataset), row=[row + 1 for row in rows], column=column, fix=fix)


def values_of(dataset: Dataset, column: str) -> list:
    """Take a column out as Python objects, those of `datasets.Json` (JSON of several types) too."""
    values = dataset.with_format("arrow")[:][column].to_pylist()
    if isinstance(dataset.features[column], Json):
        return [None if value is None else json.loads(value) for value in values]
    return values


def check_texts(dataset: Dataset, field: str, column: str | None = None) -> None:
    """Raise DataError with the rows whose text is missing, not a string, invisible, damaged or far too long.

    `column` is what the user calls the field.
    """
    column, feature = column or field, dataset.features[field]
    if feature == Value("null"):
        raise DataError("every value is null", source=source_name(dataset), column=column)
    if isinstance(feature, Json):
        values = values_of(dataset, field)
        rows = [i for i, value in enumerate(values) if not isinstance(value, str)]
        raise bad_rows(dataset, rows, column, f"{str(values[rows[0]])[:40]} is not text", "put it in quotation marks")
    if feature not in (Value("string"), Value("large_string")):
        kind = str(dataset.data.schema.field(field).type)[:60]
        raise DataError(f"holds {kind}, not text", source=source_name(dataset), column=column)
    values = dataset.with_format("arrow")[:][field]
    tests = {
        ("the text is null", "fill it or delete the row"): pc.is_null(values),
        ("the text is empty", "fill it or delete the row"): pc.match_substring_regex(values, INVISIBLE),
        (DAMAGED, CORRECT): pc.match_substring(values, "\0"),
        (TOO_LONG, "split it, or correct the file"): pc.greater_equal(pc.utf8_length(values), LONGEST),
    }
    for (problem, fix), found in tests.items():
        rows = np.flatnonzero(pc.fill_null(found, False))
        if len(rows):
            raise bad_rows(dataset, rows, column, problem, fix)


def _class_labels(splits: dict[str, Dataset], column: str) -> dict[str, Dataset]:
    """Turn the `label` column of every split into one `ClassLabel`, the names taken from the training rows."""
    if all(isinstance(split.features["label"], ClassLabel) for split in splits.values()):
        for split in splits.values():
            _check_label_range(split, column)
        return splits
    keys = {name: _label_strings(split, column) for name, split in splits.items()}
    names = sorted(set(keys["train"]), key=_natural)
    known = set(names)
    for split_name, values in keys.items():
        if rows := [i for i, value in enumerate(values) if value not in known]:
            labels = ", ".join(map(repr, names[:12]))
            problem = f"{values[rows[0]]!r} does not occur in the training rows, whose labels are {labels}"
            raise bad_rows(splits[split_name], rows, column, problem, "rename it to one of these, or delete the row")
    feature = ClassLabel(names=names)
    return {name: _replace_label(split, keys[name], feature) for name, split in splits.items()}


def _replace_label(dataset: Dataset, values: list[str], feature: ClassLabel) -> Dataset:
    index = {name: i for i, name in enumerate(feature.names)}
    labels = [index[value] for value in values]
    return dataset.remove_columns("label").add_column("label", labels, feature=feature)


def _natural(name: str) -> tuple[int, float, str]:
    """Sort "2" before "10", numbers before words; "7" and "07" by their letters, or a set's order would decide."""
    return (0, int(name), name) if re.fullmatch(r"-?\d{1,15}", name) else (1, 0, name)


def _label_strings(dataset: Dataset, column: str) -> list[str]:
    values = values_of(dataset, "label")
    if rows := [i for i, value in enumerate(values) if value is None or (isinstance(value, str) and not value.strip())]:
        raise bad_rows(dataset, rows, column, "the label is missing", "fill it or delete the row")
    if isinstance(dataset.features["label"], ClassLabel):
        values = dataset.features["label"].int2str(values)
    if rows := [i for i, value in enumerate(values) if not _is_class(value)]:
        fix = "write labels as strings, whole numbers or booleans"
        raise bad_rows(dataset, rows, column, f"{str(values[rows[0]])[:40]} is not a class", fix)
    return [str(int(value)) if isinstance(value, float) else str(value).strip() for value in values]


def _is_class(value: object) -> bool:
    return value.is_integer() if isinstance(value, float) else isinstance(value, (str, int))


def _check_label_range(dataset: Dataset, column: str) -> None:
    labels = np.asarray(dataset.with_format("arrow")[:]["label"].to_numpy(zero_copy_only=False), dtype=float)
    bad = np.flatnonzero(~((labels >= 0) & (labels < dataset.features["label"].num_classes)))
    if bad.size:
        raise bad_rows(dataset, bad, column, "no label (the split is unlabelled?)", "leave the split out, or label it")


def _drop_unlabelled(splits: dict[str, Dataset]) -> None:
    """Take out a test split whose every score is -1, which is how GLUE withholds its test labels."""
    if {tables.to_number(value) for value in splits["test"]["label"]} == {-1}:
        warnings.warn(
            f"{source_name(splits['test'])}: every score is -1, so it is unlabelled and left out.", stacklevel=3
        )
        del splits["test"]


def _scored(dataset: Dataset, low: float, high: float, column: str) -> Dataset:
    """Turn the `label` column into floats, all of them in `low` to `high`."""
    values = values_of(dataset, "label")
    scores = [tables.to_number(value) for value in values]
    bad = [i for i, score in enumerate(scores) if score is None or not low <= score <= high]
    if bad:
        value, score = values[bad[0]], scores[bad[0]]
        if score is not None:
            problem = f"{score:g} lies outside the scale of {low:g} to {high:g}"
        elif value in (None, ""):
            problem = "the score is missing"
        else:
            comma = isinstance(value, str) and re.fullmatch(r"[-+]?\d+,\d+", value.strip())
            problem = f"{value!r} is not a finite number" + (", write a point for the comma" if comma else "")
        raise bad_rows(dataset, bad, column, problem, CORRECT)
    return dataset.remove_columns("label").add_column("label", scores, feature=Value("float64"))


def _check_classes(dataset: DatasetDict, column: str) -> None:
    train = dataset["train"]
    classes, at = len(set(train["label"])), {"source": source_name(train), "column": column}
    if classes < 2:
        raise DataError("one class only; a classifier needs rows of at least two", **at)
    if classes > max(2, len(train) / 2):
        raise DataError(
            f"{classes} classes in {len(train)} training rows: most occur once, and cannot be learned",
            fix=f"name the column that holds classes by {parameter('LABEL_COLUMN')}, or give more rows",
            parameter="LABEL_COLUMN",
            **at,
        )


# --- tagged sentences -----------------------------------------------------------------------------------


def _tagged(splits: dict[str, Dataset], types: Mapping[str, str] | None) -> dict[str, Dataset]:
    """Check words and tags; returns the splits with their tags as IOB2 strings."""
    sequences = {name: _tag_strings(split) for name, split in splits.items()}
    _check_types(splits, sequences, types or {})
    scheme = _scheme(splits, sequences)
    for name, split in splits.items():
        converted = [_map_types(conll.to_iob2(row, scheme), types) for row in sequences[name]]
        description = f"{source_name(split)}, tags in {scheme}"
        splits[name] = split.remove_columns("ner_tags").add_column("ner_tags", converted)
        splits[name].info.description = description
    return splits


def _check_types(
    splits: Mapping[str, Dataset], sequences: Mapping[str, list[list[str]]], types: Mapping[str, str]
) -> None:
    """Raise DataError for a type that is to be mapped and occurs nowhere: mistyped, it would drop its entities."""
    found = sorted({tag[2:] for rows in sequences.values() for row in rows for tag in row if tag != "O"})
    if missing := [kind for kind in types if kind not in found]:
        raise DataError(
            f"no entity of the type {missing[0]!r}; there are {', '.join(found)}",
            source=", ".join(source_name(split) for split in splits.values()),
            fix="name the types of this text",
            parameter="TRANSFER_TYPES",
        )


def _bad_words(dataset: Dataset, places: Sequence[tuple[int, int]], problem: str, fix: str) -> DataError:
    """Make the error about words (row and position, from 0): by line where the file has a line a word, else by row."""
    source = source_name(dataset)
    if conll.LINE in dataset.column_names:
        lines = [dataset[row][conll.LINE] + position for row, position in places]
        return DataError(problem, source=source, row=lines, unit="line", fix=fix)
    rows = list(dict.fromkeys(row + 1 for row, _ in places))
    return DataError(f"word {places[0][1] + 1}: {problem}", source=source, row=rows, fix=fix)


def _tag_strings(dataset: Dataset) -> list[list[str]]:
    """The tags of every row as strings. Raises DataError with all rows, or words, that have the first one's fault."""
    sentences = list(zip(dataset["tokens"], dataset["ner_tags"], strict=True))
    if rows := [i for i, pair in enumerate(sentences) if not all(isinstance(part, list) and part for part in pair)]:
        at = {"source": source_name(dataset), "row": [row + 1 for row in rows]}
        raise DataError("a list of words and a list of tags are needed, not empty", **at)
    if rows := [i for i, (words, labels) in enumerate(sentences) if len(words) != len(labels)]:
        words, labels = sentences[rows[0]]
        at = {"source": source_name(dataset), "row": [row + 1 for row in rows]}
        raise DataError(f"{len(words)} words but {len(labels)} tags", fix="correct the row", **at)
    if isinstance(feature := getattr(dataset.features["ner_tags"], "feature", None), ClassLabel):
        sentences = [(words, feature.int2str(labels)) for words, labels in sentences]
    pairs = [((i, j), *pair) for i, row in enumerate(sentences) for j, pair in enumerate(zip(*row, strict=True))]
    if bad := [(at, word) for at, word, _ in pairs if not isinstance(word, str) or "\0" in word]:
        raise _bad_words(dataset, [at for at, _ in bad], f"the word {bad[0][1]!r} is not text", CORRECT)
    if bad := [(at, tag) for at, _, tag in pairs if not isinstance(tag, str) or not conll.TAG.fullmatch(tag)]:
        raise _bad_words(dataset, [at for at, _ in bad], f"{bad[0][1]!r} is not a tag", conll.WRITE_TAGS)
    return [labels for _, labels in sentences]


def _scheme(splits: dict[str, Dataset], sequences: dict[str, list[list[str]]]) -> str:
    try:
        return conll.find_scheme([row for rows in sequences.values() for row in rows])
    except conll.SequenceError as error:
        first = 0
        for name, rows in sequences.items():
            places = [(row - first, position) for row, position in error.places if first <= row < first + len(rows)]
            if places:
                raise _bad_words(splits[name], places, error.problem, error.fix) from error
            first += len(rows)
        raise


def _map_types(labels: list[str], types: Mapping[str, str] | None) -> list[str]:
    if types is None:
        return labels
    return [f"{tag[:2]}{types[tag[2:]]}" if tag[2:] in types else "O" for tag in labels]


def _tag_classes(dataset: Dataset, names: Sequence[str], fix: str = "correct the tag or delete the word") -> Dataset:
    index, rows = {name: i for i, name in enumerate(names)}, list(dataset["ner_tags"])
    if unknown := [(i, j) for i, labels in enumerate(rows) for j, tag in enumerate(labels) if tag not in index]:
        row, position = unknown[0]
        problem = f"the tag {rows[row][position]!r} is not among those trained on, {', '.join(names)}"
        raise _bad_words(dataset, unknown, problem, fix)
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=list(names)))})
    columns = {"tokens": dataset["tokens"], "ner_tags": [[index[tag] for tag in labels] for labels in rows]}
    tagged = Dataset.from_dict(columns, features=features)
    tagged.info.description = source_name(dataset)
    return tagged


# --- questions ------------------------------------------------------------------------------------------


def _question_columns(dataset: Dataset) -> Dataset:
    needed = {name: "" for name in squad.QUESTIONS if name != "title"}
    if not needed.keys() <= set(dataset.column_names):
        raise no_column(source_name(dataset), needed, dataset.column_names)
    kept = Features({name: feature for name, feature in squad.QUESTIONS.items() if name in dataset.column_names})
    try:
        return dataset.select_columns(list(kept)).cast(kept)
    except (TypeError, ValueError, pa.ArrowNotImplementedError) as error:  # ValueError: also Arrow's, of a bad cast
        raise DataError(
            f"a column of another type than SQuAD's ({innermost_reason(error)})",
            source=source_name(dataset),
            fix='write id, question and context as strings, answers as {"text": [strings], "answer_start": [integers]}',
        ) from error


def check_questions(dataset: Dataset) -> None:
    """Raise DataError with the questions that cannot be learned from, or whose answer cannot be scored."""
    columns = dataset.with_format("arrow")[:]
    ids, *values = (columns[name].to_pylist() for name in ("id", "question", "context", "answers"))
    if rows := [i for i, name in enumerate(ids) if not name]:
        raise bad_rows(dataset, rows, "id", "the question has no id", "give it one")
    counts = Counter(ids)
    faults: dict[str, list[str]] = {}  # ids of the questions by the kind of fault
    for name, *question in zip(ids, *values, strict=True):
        if counts[name] > 1:
            kind, problem, fix = "id", f"{counts[name]} questions have this id", "give each its own"
        elif fault := _question_fault(*question):
            kind, problem, fix = fault
        else:
            continue
        if not faults:
            first = kind, problem, fix
        faults.setdefault(kind, []).append(name)
    if faults:
        kind, problem, fix = first
        ids = list(dict.fromkeys(faults[kind]))
        raise DataError(problem, source=source_name(dataset), row=ids, unit="question", fix=fix)


def _question_fault(
    question: str | None, context: str | None, answers: dict[str, list] | None
) -> tuple[str, str, str] | None:
    """The kind of fault, the problem and the fix."""
    for name, text in (("question", question), ("context", context)):
        if not (text and any(letter.isprintable() and not letter.isspace() for letter in text)):
            return f"{name} empty", f"the {name} is empty", "fill it or delete the question"
        if "\0" in text:
            return "damaged", f"{DAMAGED} ({name})", "correct or delete the question"
        if len(text) >= LONGEST:
            return "long", f"{TOO_LONG} ({name})", "split it, or correct the file"
    texts, starts = ((answers or {}).get(name) or [] for name in ("text", "answer_start"))
    if not texts or len(texts) != len(starts):
        problem = f"{len(texts)} answer texts and {len(starts)} values of answer_start; at least one of both is needed"
        return "counts", problem, "delete the questions without an answer (SQuAD 2.0 has them)"
    for text, start in zip(texts, starts, strict=True):
        if not (text and text.strip()):
            return "answer empty", "an answer is empty", "fill it or delete it"
        if start is None or start < 0 or not context.startswith(text, start):
            found = context.find(text)
            where = "the context does not hold it" if found < 0 else f"the context first holds it at {found}"
            problem = f"the answer {text!r} is not at answer_start {start}; {where} (characters, counted from 0)"
            return "offset", problem, "correct answer_start"
    return None


# --- describing -----------------------------------------------------------------------------------------


def label_counts(dataset: DatasetDict) -> pd.DataFrame:
    """Count the rows by class (index) and split (columns)."""
    names = dataset["train"].features["label"].names
    counts = {name: Counter(split["label"]) for name, split in dataset.items()}
    return pd.DataFrame({name: [count[i] for i in range(len(names))] for name, count in counts.items()}, index=names)


def fingerprint(dataset: DatasetDict) -> str:
    """Return the SHA-256 over every split's name, columns and values: the same rows give the same digest anywhere."""
    digest = hashlib.sha256()
    for name, split in dataset.items():
        digest.update(json.dumps([name, split.column_names]).encode())
        for batch in split.with_format(None).iter(batch_size=1000):
            digest.update(json.dumps(batch, default=str, ensure_ascii=True).encode())
    return digest.hexdigest()


def slice_column(dataset: Dataset, column: str) -> list[str]:
    """Take out the values of a column as text, to slice results by. Raises DataError when there is no such column."""
    if column not in dataset.column_names:
        problem = f"no column {column!r} to slice by; it has {', '.join(dataset.column_names)}"
        raise DataError(problem, source=source_name(dataset), column=column)
    return ["" if value is None else str(value) for value in dataset[column]]
