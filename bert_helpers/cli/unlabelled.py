"""Read rows without labels, to predict for, from arguments, a file or standard input into a checked `Dataset`.

`columns` maps each field of a task's rows (`tasks.Task.fields`) to its column in the source. An entity tagger's field
`tokens`, lists of words, may take the place of `text`. All functions raise DataError with the place of the fault.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Value

from bert_helpers import data
from bert_helpers.errors import DataError, counted, parameter
from bert_helpers.parameters import column_parameter
from bert_helpers.readers import source, squad, tables
from bert_helpers.readers.delimited import read_delimited
from bert_helpers.readers.json_rows import read_json

Columns = Mapping[str, str]
Rows = tuple[Dataset, Dataset]  # the task's fields; the source's other columns
LINES = (".txt",)  # endings of plain text files with one row per line


def is_file_name(text: str) -> bool:
    """Return whether a text has the ending of a file that can be read."""
    ending = Path(text).suffix.lower()
    return bool(ending) and ending in {*LINES, *(suffix for kind in tables.FORMATS for suffix in kind.suffixes)}


def from_arguments(texts: Sequence[str], columns: Columns) -> Rows:
    """Read one text per row, or two for a task with two texts per row."""
    names = _names(columns)
    if len(texts) % len(names):
        raise DataError(f"{counted(len(texts), 'text')} given", fix=f"a row needs two, {' and '.join(names)}")
    if bad := [i // len(names) + 1 for i, text in enumerate(texts) if source.SURROGATE.search(text)]:
        raise DataError("half a character (a lone surrogate)", source="arguments", row=bad, fix="write the whole one")
    rows = Dataset.from_dict({name: texts[i :: len(names)] for i, name in enumerate(names)})
    rows.info.description = "arguments"
    return _checked(rows, columns)


def from_file(path: Path, columns: Columns, **reading: str | bool) -> Rows:
    """Read a table of any kind; a .txt file has one row per line unless `reading` or `columns` say otherwise.

    `reading` holds options of `readers.source.Reading`; `named` is whether the user named a column.
    """
    in_columns = _has_columns(reading) or any(c[:1].isdigit() for c in columns.values())
    lines = [] if in_columns else [source.Format(LINES, _read_lines)]
    return _read(path, columns, (squad.NESTED, *lines, *tables.FORMATS), **reading)


def from_stream(content: bytes, columns: Columns, **reading: str | bool) -> Rows:
    """Read JSON if the first row is an object, a table if `reading` says that there are columns (as in `from_file`).

    Anything else is plain text, one row per line, two texts with a tab between.
    """
    if not content.strip():
        raise DataError("is empty", source="standard input", fix="give one text per line")
    with tempfile.TemporaryDirectory() as folder:  # the readers read files
        path = Path(folder) / "standard input"
        path.write_bytes(content)
        is_json = re.match(r"\s*(\[\s*)?\{", source.head(path))
        read = read_json if is_json else read_delimited if _has_columns(reading) else _read_lines
        return _read(path, columns, [source.Format(("",), read)], **reading)


def _read(path: Path, columns: Columns, formats: Sequence[source.Format], **reading: str | bool) -> Rows:
    wanted = {columns[field]: column_parameter(field) for field in columns if field != "tokens"}
    how = source.Reading(wanted, **reading)
    splits = source.read_source(path.absolute(), sample="", formats=formats, reading=how)
    source.say_assumed(splits)
    return _checked(splits["train"], columns)


def _has_columns(reading: Mapping[str, object]) -> bool:
    return any(reading.get(name) for name in ("delimiter", "header", "named"))


def _names(columns: Columns) -> list[str]:
    return [column for field, column in columns.items() if field != "tokens"]


def _read_lines(path: Path, reading: source.Reading) -> Dataset:
    wanted = reading.wanted
    text = source.text_of(path, reading).decode().removesuffix("\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    rows = [line.split("\t") for line in lines] if len(wanted) > 1 else [[line] for line in lines]
    if bad := [number for number, row in enumerate(rows, 1) if len(row) != len(wanted)]:
        problem, fix = counted(len(rows[bad[0] - 1]), "text"), f"write {' and '.join(wanted)} with a tab between them"
        raise DataError(problem, source=path.name, row=bad, unit="line", fix=fix)
    return Dataset.from_dict(dict(zip(wanted, zip(*rows, strict=True), strict=True)))


def _checked(rows: Dataset, columns: Columns) -> Rows:
    """Rename the columns to the task's fields. A row may lack a text, but not a list of words."""
    in_words = columns.get("tokens") in rows.column_names
    chosen = {field: column for field, column in columns.items() if (field == "tokens") == in_words}
    renamed = data.rename_columns(rows, chosen)
    named = {tuple(source.columns_of(column, rows.column_names)) for column in chosen.values()}
    if len(named) < len(chosen):
        raise DataError("one column for both texts of a row", source=source.source_name(rows), fix="name two columns")
    others = rows.remove_columns([found[0] for found in named if len(found) == 1])
    rows = renamed.select_columns([*chosen])
    for field, column in chosen.items():
        if not in_words:
            data.check_texts(rows, field, column, blank=True)
        elif bad := [i for i, words in enumerate(data.values_of(rows, field)) if not _is_words(words)]:
            fix = f"{data.CORRECT}, or name a column of texts by {parameter('TEXT_COLUMN')}"
            raise data.bad_rows(rows, bad, column, "not a list of words", fix)
    return rows, others


def filled(rows: Dataset) -> np.ndarray:
    """Return the numbers of the rows that have all their texts: for the others there is nothing to predict."""
    texts = [field for field, kind in rows.features.items() if kind in (Value("string"), Value("large_string"))]
    table = rows.select_columns(texts).with_format("arrow")
    blank = [pc.fill_null(pc.match_substring_regex(column, data.INVISIBLE), True) for column in table[:].columns]
    found = np.flatnonzero(~np.any(blank, axis=0)) if blank else np.arange(len(rows))
    if not len(found):
        raise DataError("no row has a text", source=source.source_name(rows))
    return found


def _is_words(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) and "\0" not in word for word in value)
