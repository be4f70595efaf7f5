"""Rows in columns: delimited text, JSON and Parquet, recognised by the endings of their names.

What is read is the file itself, once, into Arrow: no name is taken for a pattern, and nothing is cached.
"""

import csv
import io
import json
import math
import re
import string
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Json

from bert_helpers.errors import DataError
from bert_helpers.readers.hub import innermost_reason
from bert_helpers.readers.source import (
    BATCH,
    Format,
    Reading,
    check_width,
    no_column,
    plain_features,
    text_of,
    to_dataset,
    to_table,
)

DELIMITERS = (",", ";", "\t", "|")
HEAD = 1_000_000  # characters in which the header must end
UNPACKED = 200_000_000  # bytes that any Parquet file may unpack to; a larger one to a hundred times its size

# --- delimited text ---------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """How a delimited file is written: its delimiter, whether marks quote, and its columns where it has no header."""

    delimiter: str
    quoting: int
    names: list[str] | None = None

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self.delimiter, quoting=self.quoting, strict=True)


def read_delimited(path: Path, reading: Reading, *, headerless: bool = False) -> Dataset:
    """Read the rows of a CSV or TSV file (UTF-8) in one pass. Every cell is text: "007" stays "007", "null" a word.

    The delimiter is the one under which the header has all `wanted` columns. With `headerless`, a first line of as
    many fields as `wanted`, the last of them a number, is a row, and the columns are `wanted`. A row may have fewer
    fields than the header; the others are empty. Raises DataError with all lines that have more, or with the first that
    is not quoted by the rules: a lenient parser takes what lies between two stray marks for one text, rows and all.
    """
    before = csv.field_size_limit(2**31 - 1)
    try:
        with io.StringIO(text_of(path, reading).decode(), newline="") as file:
            layout = _find_layout(path, file.read(HEAD), reading.wanted, headerless)
            try:
                return to_dataset(_read_rows(path, file, layout))
            except csv.Error as error:
                if layout.delimiter != "\t" or layout.quoting == csv.QUOTE_NONE:
                    raise _bad_rows(path, file, layout, HEAD) from error
                # In a tab-separated file that is not quoted by the rules, as STS-B's, marks are text.
                return to_dataset(_read_rows(path, file, layout._replace(quoting=csv.QUOTE_NONE)))
    finally:
        csv.field_size_limit(before)


def _read_rows(path: Path, file: TextIO, layout: Layout) -> pa.Table:
    file.seek(0)
    rows, names = layout.rows(file), layout.names
    if not names:
        fields = next(filter(None, rows))
        check_width(path, fields)
        names = _unique(_names(fields, layout.quoting))

    def full() -> Iterator[list[str]]:
        for row in rows:
            if len(row) > len(names):
                deque(rows, maxlen=0)  # a mark that is never closed may be why, and is the error then
                raise _bad_rows(path, file, layout, len(names))
            # A blank line is no row, unless there is one column and the line has blanks.
            if row and (len(names) == 1 or len(row) > 1 or row[0].strip()):
                yield row + [""] * (len(names) - len(row))

    return to_table(full(), pa.schema([(name, pa.string()) for name in names]))


def _bad_rows(path: Path, file: TextIO, layout: Layout, width: int) -> DataError:
    """Find the rows that are wider, or else the one that is not quoted by the rules: only once reading has failed."""
    file.seek(0)
    rows, first, wide = layout.rows(file), 1, {}
    with suppress(csv.Error):
        for row in rows:
            if len(row) > width:
                wide[first] = len(row)
            first = rows.line_num + 1
    if wide:
        problem = f"{next(iter(wide.values()))} fields where the header has {width}"
        fix = f"put a text that holds the delimiter {layout.delimiter!r} in quotation marks"
    else:
        problem = "a quotation mark opens a text and is not closed, or the text goes on behind the closing one"
        fix = 'close it, and write "" for a mark within a text'
    return DataError(problem, source=path.name, row=list(wide) or first, unit="line", fix=fix)


def _names(fields: Sequence[str], quoting: int) -> list[str]:
    """The columns' names: blanks at their ends belong to nobody, nor do marks where they do not quote."""
    names = [field.strip() for field in fields]
    return [name.strip('"') for name in names] if quoting == csv.QUOTE_NONE else names


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that are empty or there already (nobody asked for their columns)."""
    unique: dict[str, None] = {}
    for position, name in enumerate(names):
        unique[name if name and name not in unique else f"{name or 'Unnamed'}: {position}"] = None
    return list(unique)


def _find_layout(path: Path, head: str, wanted: Mapping[str, str], headerless: bool) -> Layout:
    """Find the layout under which the first row is a header with the `wanted` columns. Raises DataError."""
    if not head.strip():
        raise DataError("the file holds no rows", source=path.name)
    usual = ["\t"] if path.suffix.lower() == ".tsv" else DELIMITERS
    layouts = [Layout(sign, csv.QUOTE_MINIMAL) for sign in usual]
    layouts += [Layout("\t", csv.QUOTE_NONE)] * ("\t" in usual)
    for layout in layouts if headerless else ():
        fields = _first_row(head, layout)
        if len(fields) == len(wanted) and to_number(fields[-1]) is not None:
            return layout._replace(names=list(wanted))
    if path.suffix.lower() != ".tsv":  # other signs of the first line that may part names
        signs = Counter(sign for sign in re.split(r"[\r\n]", head.lstrip())[0] if sign in string.punctuation)
        layouts += [Layout(sign, csv.QUOTE_MINIMAL) for sign, _ in signs.most_common() if sign not in "\"'_-.,;|"]
    names = {name.strip() for name in wanted}
    headers = {layout: _first_row(head, layout) for layout in layouts}
    found = next((layout for layout, fields in headers.items() if names <= {*fields}), None)
    if found is None:
        raise _no_header(
            path, wanted, max((headers[layout] for layout in layouts if layout.delimiter in usual), key=len)
        )
    counts = Counter(headers[found])
    if twice := next((name for name in wanted if counts[name.strip()] > 1), None):
        problem = f"the header has {counts[twice.strip()]} columns {twice!r}"
        raise DataError(problem, source=path.name, column=twice, fix="rename all but one")
    return found


def _first_row(head: str, layout: Layout) -> list[str]:
    """The names in the first row, which may be quoted and then hold delimiters and lines."""
    try:
        return _names(next(filter(None, layout.rows(io.StringIO(head, newline=""))), []), layout.quoting)
    except csv.Error:  # a quotation mark that is never closed
        return _names(re.split(r"[\r\n]", head.lstrip())[0].split(layout.delimiter), csv.QUOTE_NONE)


def _no_header(path: Path, wanted: Mapping[str, str], names: list[str]) -> DataError:
    if names[0].lower().startswith("sep="):
        return DataError(f"the first line is Excel's {names[0]!r}, not a header", source=path.name, fix="delete it")
    # one field: the delimiter is unusual, and the names asked for are not there either
    hint = "" if len(names) > 1 else "; give each column's name by itself: the delimiter is found by them"
    if any(to_number(name) is not None or len(name.split()) > 4 for name in names):
        hint += "; or is that a row of data? Then write a line with names above it"
    return no_column(
        path.name, {name.strip(): wanted[name] for name in wanted}, names, where=" in the header", hint=hint
    )


def to_number(value: object) -> float | None:
    """A number, or text that is one; None for anything else, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# --- JSON -------------------------------------------------------------------------------------------------


def read_json(path: Path, reading: Reading) -> Dataset:
    """Read the rows of JSON Lines or, in a .json file, of an array of objects (or one object).

    A column whose values have no type in common is kept as `datasets.Json`. Raises DataError with the line or item
    that is not valid JSON, or all those that are not objects.
    """
    columns: dict[str, list[pa.Array]] = {}
    total = 0
    try:
        with io.StringIO(text_of(path, reading).decode()) as file:
            unit, rows = _json_rows(path, file)
            while batch := list(islice(rows, BATCH)):
                if bad := [number for number, row in batch if not isinstance(row, dict)]:
                    fix = 'write rows as {"text": "…", "label": "…"}'
                    raise DataError("not an object", source=path.name, row=bad, unit=unit, fix=fix)
                try:
                    names = dict.fromkeys(name for _, row in batch for name in row)
                    check_width(path, names | columns)
                    for name in names:
                        columns.setdefault(name, [pa.nulls(total)])
                        columns[name].append(_to_arrow([row.get(name) for _, row in batch]))
                    json.dumps(list(columns), ensure_ascii=False).encode()
                except UnicodeEncodeError as error:
                    raise _half_characters(path, unit, batch) from error
                total += len(batch)
                for arrays in columns.values():  # columns that no row of this batch has
                    arrays += [pa.nulls(len(batch))] * (sum(map(len, arrays)) < total)
        return to_dataset(pa.table({name: _joined(arrays) for name, arrays in columns.items()}))
    except RecursionError as error:
        raise DataError("JSON in too many brackets", source=path.name, fix="write rows without deep nesting") from error


def _json_rows(path: Path, file: TextIO) -> tuple[str, Iterator[tuple[int, object]]]:
    """The unit that rows are counted in, and each row with its number."""
    if path.suffix.lower() == ".json":
        try:
            content = json.load(file, parse_int=_whole)
            return "item", iter(enumerate(content if isinstance(content, list) else [content], 1))
        except (ValueError, RecursionError):  # it may still be JSON Lines
            file.seek(0)
    lines = ((number, line.strip("\ufeff\r\n\t ")) for number, line in enumerate(file, 1))
    return "line", ((number, _parsed(path, number, line)) for number, line in lines if line)


def _parsed(path: Path, number: int, line: str) -> object:
    try:
        return json.loads(line, parse_int=_whole)
    except (ValueError, RecursionError) as bad:
        fix = "correct the line or delete it"
        raise DataError(f"not valid JSON ({bad})", source=path.name, row=number, unit="line", fix=fix) from bad


def _whole(digits: str) -> int:
    """Read a number that Arrow and `datasets` can hold."""
    if abs(number := int(digits)) >= 2**63:
        raise ValueError(f"{digits[:20]}… is a number of more than 64 bits")
    return number


def _half_characters(path: Path, unit: str, batch: Sequence[tuple[int, object]]) -> DataError:
    """Find the rows with a lone surrogate: only once turning them into Arrow has failed."""
    bad = []
    for number, row in batch:
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            bad.append(number)
    problem = "half a character (a lone surrogate)"
    return DataError(problem, source=path.name, row=bad, unit=unit, fix="write the whole one")


def _to_arrow(values: Sequence[object]) -> pa.Array:
    try:
        array = pa.array(values)
    except pa.ArrowException:  # types that do not mix
        return _as_json(values)
    # Arrow cannot write more than 64 levels of a type, which its name shows as brackets.
    return array if str(array.type).count("<") < 32 else _as_json(values)


def _as_json(values: Iterable[object]) -> pa.Array:
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.ExtensionArray.from_storage(Json.pa_type, pa.array(texts, pa.string()))


def _joined(arrays: Sequence[pa.Array]) -> pa.ChunkedArray:
    """The batches of one column in the type they have in common."""
    if not any(array.type == Json.pa_type for array in arrays):
        try:
            tables = [pa.table({"": array}) for array in arrays]
            return pa.concat_tables(tables, promote_options="permissive").column(0)
        except pa.ArrowException:
            pass
    return pa.chunked_array([array if array.type == Json.pa_type else _as_json(array.to_pylist()) for array in arrays])


# --- Parquet ----------------------------------------------------------------------------------------------


def read_parquet(path: Path, reading: Reading) -> Dataset:
    """Read the rows of a Parquet file; what it declares of its columns is believed as `plain_features` says.

    Raises DataError for a file that is damaged, unpacks to far more than it is, or holds what Python has no value for.
    """
    largest, batches = UNPACKED + 100 * path.stat().st_size, []
    try:
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file)
            check_width(path, parquet.schema_arrow.names)
            for batch in parquet.iter_batches():
                batches.append(batch)
                if sum(batch.nbytes for batch in batches) > largest:
                    fix = "write it anew, without compression"
                    raise DataError(f"unpacks to more than {largest // 10**6} MB", source=path.name, fix=fix)
            table = pa.Table.from_batches(batches, parquet.schema_arrow)
        table.validate(full=True)
        for position, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):
                values = table.column(position).cast(field.type.value_type)
                table = table.set_column(position, field.name, values)
            elif re.search("date|time", str(field.type)):
                table.column(position).to_pylist()  # fails for years and time zones that Python does not know
        json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"), object_hook=_check_classes)
        features = plain_features(table.schema, Features.from_arrow_schema(table.schema))
    except DataError:
        raise
    except Exception as error:  # a dozen types, for whatever is wrong in a file
        problem = f"not a readable Parquet file ({innermost_reason(error)})"
        raise DataError(problem, source=path.name, fix="write it anew") from error
    return to_dataset(table, features)


def _check_classes(fields: dict) -> None:
    """Refuse a number of classes without their names, for each of which `datasets` would make one."""
    if "num_classes" in fields and not fields.get("names"):
        raise ValueError("a column has classes without names")


DELIMITED = Format((".csv", ".tsv"), read_delimited)
HEADERLESS = Format((".csv", ".tsv"), partial(read_delimited, headerless=True))
JSON = Format((".jsonl", ".json"), read_json)
PARQUET = Format((".parquet",), read_parquet, is_text=False)
# What rows of texts are read from
FORMATS = (DELIMITED, JSON, PARQUET)
