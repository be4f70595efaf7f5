"""Rows without labels, to predict for: from arguments, a file or a stream to a checked `Dataset`.

`columns` maps each field of a task's rows (`tasks.Task.fields`) to its column in the source. An entity tagger's field
`tokens`, lists of words, may stand in place of `text`. All raise DataError, naming the place.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset

from bert_helpers import data
from bert_helpers.errors import DataError
from bert_helpers.readers import source, tables

Columns = Mapping[str, str]


def from_arguments(texts: Sequence[str], columns: Columns) -> Dataset:
    """A text a row; of a task with two texts a row, two by two."""
    fields = _texts(columns)
    if len(texts) % len(fields):
        raise DataError(f"{len(texts)} texts given; a row needs two, {' and '.join(fields)}.")
    return _rows({columns[field]: texts[i :: len(fields)] for i, field in enumerate(fields)}, columns, "arguments")


def from_file(path: Path, columns: Columns) -> Dataset:
    """The rows of a CSV, TSV, JSON Lines or Parquet file, or of a .txt file as of a stream of plain text."""
    if not path.is_file():
        raise DataError(f"{path}: no such file (a relative path is taken from the folder '{Path.cwd().name}').")
    wanted = {columns[field]: data.COLUMN_PARAMETERS.get(field, "") for field in _texts(columns)}

    def read_lines(file: Path, _: Columns) -> Dataset:
        return Dataset.from_dict(_from_lines(_decoded(file.read_bytes(), file.name), columns, file.name))

    formats = (source.Format((".txt",), read_lines), *tables.FORMATS)
    rows = source.read_source(path.absolute(), sample="", formats=formats, wanted=wanted)["train"]
    return _rows(rows.to_dict(), columns, path.name)


def from_stream(content: bytes, columns: Columns) -> Dataset:
    """JSON Lines if the first character is {; else plain text, a row a line, two texts with a tab between them."""
    name = "standard input"
    text = _decoded(content, name)
    if not text.strip():
        raise DataError(f"{name} is empty; give a text a line.")
    read = _from_json_lines if text.lstrip().startswith("{") else _from_lines
    return _rows(read(text, columns, name), columns, name)


def _texts(columns: Columns) -> list[str]:
    return [field for field in columns if field != "tokens"]


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{name}, line {line}: not UTF-8; save the text as UTF-8.") from error


def _from_lines(text: str, columns: Columns, name: str) -> dict[str, list[str]]:
    fields = _texts(columns)
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    rows = [[line] if len(fields) == 1 else line.split("\t") for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != len(fields):
            needed = " and ".join(fields)
            raise DataError(f"{name}, line {number}: {len(row)} texts; {needed} are needed, with a tab between them.")
    return {columns[field]: [row[i] for row in rows] for i, field in enumerate(fields)}


def _from_json_lines(text: str, columns: Columns, name: str) -> dict[str, list]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}, line {number}: not valid JSON ({error}).") from error
        if row is not None and not isinstance(row, dict):
            raise DataError(f"{name}, line {number}: no object; rows are written as {_example(columns)}.")
        rows += [row] if row is not None else []
    return {column: [row.get(column) for row in rows] for column in {name for row in rows for name in row}}


def _example(columns: Columns) -> str:
    return json.dumps({columns[field]: "…" for field in _texts(columns)}, ensure_ascii=False)


def _rows(values: Mapping[str, Sequence], columns: Columns, name: str) -> Dataset:
    """The task's fields alone, checked: a text in every row, or a list of words."""
    tokens = columns.get("tokens")
    if tokens in values:
        check = _is_words
        chosen = {"tokens": tokens}
    else:
        check, chosen = _is_text, {field: columns[field] for field in _texts(columns)}
    for column in chosen.values():
        if column not in values:
            raise DataError(f"{name}: no column {column!r}; rows are written as {_example(columns)}.")
        bad = next((i for i, value in enumerate(values[column], 1) if not check(value)), None)
        if bad is not None:
            what = "a text" if check is _is_text else "a list of words"
            raise DataError(f"{name}, row {bad}, column {column!r}: {what} is needed; mend or delete the row.")
    rows = Dataset.from_dict({column: list(values[column]) for column in chosen.values()})
    rows.info.description = name
    for column in chosen.values() if check is _is_text else ():
        data.check_texts(rows, column)
    return rows.rename_columns({column: field for field, column in chosen.items()})


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not source.SURROGATE.search(value)


def _is_words(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_text(word) and "\0" not in word for word in value)
