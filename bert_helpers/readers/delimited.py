"""Delimited text, recognised by its suffix.

Arrow's parser reads files that follow the rules of quoting, in a tenth of the time of Python's. Everything else, and
every explanation of an error, is left to Python's, which is exact (tests/readers/test_tables.py compares the two).
"""

import codecs
import csv
import math
import mmap
import re
import string
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from datasets import Dataset

from bert_helpers.errors import DataError, parameter
from bert_helpers.readers.source import (
    BOMS,
    Format,
    NoColumn,
    Reading,
    check_width,
    columns_of,
    no_column,
    text_of,
    to_dataset,
    to_table,
)

DELIMITERS = (",", ";", "\t", "|")
HEAD = 1_000_000  # characters in which the header must end
TITLES = 20  # lines that may precede the header
LARGEST_ROW = 1 << 24  # bytes; longer rows are left to Python
PIECE = 1 << 18  # bytes, which fit into a processor's cache
SAMPLE = 1_000  # rows that decide whether the first row is a header
EXCEL_SIGN = re.compile(rb"sep=([^\r\n])(?=[\r\n])", re.IGNORECASE)
# The bytes of a file, memory-mapped if they are UTF-8: copying 100 MB takes longer than parsing them
Content = bytes | mmap.mmap
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
NUMBERS = re.compile(r" *\d+ *(, *\d+ *)*")


class Layout(NamedTuple):
    """The dialect of a delimited file, and the names of its columns, whether or not the first row is a `header`."""

    delimiter: str
    quoting: int
    names: Sequence[str] = ()
    header: bool = True
    escape: str | None = None  # the character before a quotation mark within a text, if it is not another mark
    blanks: bool = False  # whether blanks may precede the quotation mark that opens a text

    def rows(self, text: str) -> Iterator[list[str]]:
        return csv.reader(
            (line[0] for line in LINE.finditer(text)),  # io.StringIO makes a copy of four bytes per character
            delimiter=self.delimiter,
            quoting=self.quoting,
            escapechar=self.escape,
            doublequote=self.escape is None,
            skipinitialspace=self.blanks,
            strict=True,
        )


def read_delimited(path: Path, reading: Reading) -> Dataset:
    """Read the rows of a delimited text file. Every cell is text: "007" stays "007", and "null" is a word.

    The delimiter is the one under which the first row has all wanted columns, or under which all rows have the same
    number of fields. If a row has fewer fields than the header, the others are empty. Raises DataError with all lines
    that have more, or with the first one that breaks the rules of quoting: a lenient parser would take everything
    between two stray marks, whole rows included, for one text. In tab-separated and .txt files, such marks are text.
    """
    before = csv.field_size_limit(2**31 - 1)
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if not reading.encoding and not content[:3].startswith(tuple(BOMS)):
            attempt = replace(reading)
            with suppress(UnicodeDecodeError):
                table = _read_text(path, content, attempt)
                reading.assumed.update(attempt.assumed)
                return to_dataset(table)
        return to_dataset(_read_text(path, text_of(path, reading), reading))
    finally:
        csv.field_size_limit(before)


def _read_text(path: Path, content: Content, reading: Reading) -> pa.Table:
    """Read UTF-8 without a byte order mark. Raises DataError, and UnicodeDecodeError for text that is not UTF-8."""
    if line := EXCEL_SIGN.match(content):  # Excel's own line that names the delimiter
        reading = copy(reading)
        reading.delimiter = line[1].decode()
        content = content[line.end(1) :]  # from the line end on, so that line numbers are right
    try:
        layout = _find_layout(path, _head(content), reading)
    except NoColumn:
        if not (above := _lines_above(content, reading)):
            raise
        content = b"\n" * above + content[:].split(b"\n", above)[-1]  # so that line numbers are right
        layout = _find_layout(path, _head(content), reading)
        reading.assume("lines above the header", f"{above}, left out")
    return _read_rows(path, content, layout, reading)


def _head(content: Content) -> str:
    return codecs.getincrementaldecoder("utf-8")().decode(content[:HEAD])  # its last character may be cut


def _lines_above(content: Content, reading: Reading) -> int:
    """Return how many lines (titles, comments) precede the one with all wanted names; 0 if there is no such line."""
    names = [name for name in reading.wanted if not NUMBERS.fullmatch(name)]
    if reading.header == "no" or len(names) < 2:
        return 0
    lines = _head(content).split("\n")[: TITLES + 1]
    for number, line in enumerate(lines):
        for sign in (*DELIMITERS, reading.delimiter):
            fields = header_names(line.split(sign or ","), marks=True)
            if None not in [columns_of(name, fields, numbers=False) for name in names]:
                return number
    return 0


def _read_rows(path: Path, content: Content, layout: Layout, reading: Reading) -> pa.Table:
    if not _holds(content, b'"'):
        layout = layout._replace(quoting=csv.QUOTE_NONE)
    elif layout.quoting == csv.QUOTE_NONE:
        reading.assume("quotation marks", "part of the texts")
    table = _read_quickly(content, layout)
    if layout.quoting != csv.QUOTE_NONE and _marks_may_be_text(path, layout):
        line = re.split(rb"[\r\n]", content[:HEAD].lstrip(), maxsplit=1)[0]
        even = line.count(layout.delimiter.encode()) == len(layout.names) - 1
        plain = _read_quickly(content, layout._replace(quoting=csv.QUOTE_NONE)) if even else None
        # In GLUE's files, a mark at the beginning of one row and one at the end of another do not quote
        if plain and (table is None or plain.num_rows != table.num_rows):
            reading.assume("quotation marks", "part of the texts")
            return plain
    if table is not None:
        return table
    if layout.blanks:
        with suppress(csv.Error, DataError):
            table = _read_exactly(path, content, layout, reading)
            reading.assume("blanks after delimiters", "left out")
            return table
        layout = layout._replace(blanks=False)
    other = {"part of the texts": layout._replace(quoting=csv.QUOTE_NONE)} if _marks_may_be_text(path, layout) else {}
    if _holds(content, b'\\"'):  # as written by Spark and MySQL
        other = {"in texts after a backslash": layout._replace(escape="\\"), **other}
    try:
        return _read_exactly(path, content, layout, reading)
    except csv.Error as error:
        for what, layout_ in other.items():
            with suppress(csv.Error, DataError):
                table = _read_exactly(path, content, layout_, reading)
                reading.assume("quotation marks", what)
                return table
        raise _bad_rows(path, content, layout, HEAD) from error


def _holds(content: Content, marks: bytes) -> bool:
    """Whether a file contains these bytes, searched in pieces (0.1 s for 100 MB; `mmap.find` takes 0.25 s)."""
    starts = range(0, len(content), PIECE)
    return any(marks in content[start : start + PIECE + len(marks) - 1] for start in starts)


def _marks_may_be_text(path: Path, layout: Layout) -> bool:
    return layout.delimiter in "\t@" or path.suffix.lower() in ("", ".txt")


def _read_quickly(content: Content, layout: Layout, block_size: int = 1 << 20) -> pa.Table | None:
    """Parse with Arrow; return None for a file that breaks the rules of quoting, or whose rows differ in width.

    A block must hold a whole row; small blocks are faster (1.5 times as fast as those of 16 MB).
    """
    quotes = layout.quoting != csv.QUOTE_NONE
    if not layout.delimiter.isascii() or (quotes and not _is_quoted_by_the_rules(content, layout.delimiter)):
        return None
    try:
        return pa.csv.read_csv(
            pa.BufferReader(_without_header(content, layout) if layout.header else content),
            pa.csv.ReadOptions(column_names=layout.names, block_size=block_size),
            pa.csv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if quotes else False,
                escape_char=False,
                newlines_in_values=quotes,
            ),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(layout.names, pa.string())),
        )
    except pa.ArrowInvalid:
        return _read_quickly(content, layout, LARGEST_ROW) if block_size < LARGEST_ROW else None


def _without_header(content: Content, layout: Layout) -> memoryview:
    head = _head(content)
    rows = layout.rows(head)
    next(filter(None, rows))
    *_, last = islice(LINE.finditer(head), rows.line_num)
    return memoryview(content)[len(head[: last.end()].encode()) :]


def _is_quoted_by_the_rules(content: Content, delimiter: str) -> bool:
    """Whether every quotation mark opens a field at its start, closes one at its end, or is doubled within one."""
    signs = np.frombuffer(content, np.uint8)
    marks = np.flatnonzero(signs == ord('"'))
    if len(marks) % 2:
        return False
    ends = np.zeros(256, bool)
    ends[[ord(delimiter), ord("\r"), ord("\n"), ord('"')]] = True
    opening, closing = marks[::2], marks[1::2]
    return bool(
        ends[signs[opening[opening > 0] - 1]].all() and ends[signs[closing[closing < len(signs) - 1] + 1]].all()
    )


def _read_exactly(path: Path, content: Content, layout: Layout, reading: Reading) -> pa.Table:
    rows, names, cut = layout.rows(str(content, "utf-8")), layout.names, 0
    if layout.header:
        next(filter(None, rows))

    def full() -> Iterator[list[str]]:
        nonlocal cut
        for row in rows:
            if len(row) > len(names):
                if "".join(row[len(names) :]).strip():
                    deque(rows, maxlen=0)  # raises csv.Error if the cause is a mark that is never closed
                    raise _bad_rows(path, content, layout, len(names))
                row, cut = row[: len(names)], cut + 1
            # A blank line is not a row, unless there is one column and the line has blanks.
            if row and (len(names) == 1 or len(row) > 1 or row[0].strip()):
                yield row + [""] * (len(names) - len(row))

    table = to_table(full(), pa.schema([(name, pa.string()) for name in names]))
    if cut:
        reading.assume("empty fields after the last column", f"left out in {cut:,} rows")
    return table


def _bad_rows(path: Path, content: Content, layout: Layout, width: int) -> DataError:
    """Return the error, once reading has failed, about all rows that are too wide, or else about a wrong quotation."""
    rows, first, wide = layout.rows(str(content, "utf-8")), 1, {}
    with suppress(csv.Error):
        for row in rows:
            if "".join(row[width:]).strip():
                wide[first] = len(row)
            first = rows.line_num + 1
    if wide:
        expected = f"the {'header' if layout.header else 'first row'} has {width}"
        problem = f"{next(iter(wide.values()))} fields where {expected}"
        fix = f"put a text that holds the delimiter {layout.delimiter!r} in quotation marks"
    else:
        problem = "a quotation mark opens a text and is not closed, or the text goes on after the closing one"
        fix = 'close it, and write "" for a mark within a text'
    return DataError(problem, source=path.name, row=list(wide) or first, unit="line", fix=fix)


# --- layout -----------------------------------------------------------------------------------------------


def _find_layout(path: Path, head: str, reading: Reading) -> Layout:
    """Find the layout under which the file has the wanted columns. Raises DataError."""
    if not head.strip():
        raise DataError("the file holds no rows", source=path.name)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    if reading.delimiter:
        signs = ["\t" if len(reading.delimiter) > 1 else reading.delimiter]
    else:
        signs = ["\t"] if usual == "\t" else [*DELIMITERS]
    shown = len(signs)
    if not reading.delimiter and usual != "\t":  # other signs of the first line that may separate names
        counts = Counter(sign for sign in re.split(r"[\r\n]", head.lstrip())[0] if sign in string.punctuation)
        signs += [sign for sign, _ in counts.most_common() if sign not in "\"'_-.,;|"]
    samples = {}
    for sign in signs:
        layout = Layout(sign, csv.QUOTE_MINIMAL)
        if not _is_quoted(path, head, layout):
            layout = layout._replace(quoting=csv.QUOTE_NONE)
        elif not _marks_may_be_text(path, layout):
            layout = layout._replace(blanks=bool(re.search(rf'{re.escape(sign)} +"(?!")', head)))
        samples[layout] = _sample(head, layout)
    found = find_names(path, samples, reading, shown)
    if found.delimiter != usual and not reading.delimiter:
        reading.assume("delimiter", {"\t": "tab"}.get(found.delimiter, found.delimiter))
    check_width(path, found.names)
    return found


def find_names(
    path: Path, samples: Mapping[Layout, list[list[str]]], reading: Reading, shown: int | None = None
) -> Layout:
    """Return the layout with the wanted columns, of those with the given first rows, and the names of its columns.

    Raises DataError, which quotes the first row under one of the first `shown` layouts.
    """
    for find in (_with_names, _with_numbers, _without_names):
        if found := find(path, samples, reading):
            return found
    if reading.header == "no":
        samples = {layout: [list(map(str, range(1, len(rows[0]) + 1)))] for layout, rows in samples.items()}
    rows = max(
        list(samples.values())[:shown],
        key=lambda rows: (sum(map(len, rows)) == len(rows[0]) * len(rows), len(rows[0])),
    )
    raise no_header(path, reading.wanted, rows[0])


def _is_quoted(path: Path, head: str, layout: Layout) -> bool:
    """Whether marks may quote under this layout: not if they break its rules in a file whose marks may be text."""
    try:
        deque(islice(layout.rows(head), SAMPLE), maxlen=0)
    except csv.Error:
        return len(head) >= HEAD or not _marks_may_be_text(path, layout)
    return True


def _sample(head: str, layout: Layout) -> list[list[str]]:
    """Return the first rows, up to the first error; quoted fields may contain delimiters and line ends."""
    rows: list[list[str]] = []
    with suppress(csv.Error):  # a quotation mark that is never closed
        rows.extend(filter(None, islice(layout.rows(head), SAMPLE)))
    rows = rows[:-1] if len(head) >= HEAD - 3 and len(rows) > 1 else rows  # the last may be cut
    return rows or [re.split(r"[\r\n]", head.lstrip())[0].split(layout.delimiter)]


def _with_names(path: Path, samples: Mapping[Layout, list[list[str]]], reading: Reading) -> Layout | None:
    """Find the layout whose first row has the wanted names, or all of them but the labels if these may be missing."""
    if reading.header == "no":
        return None
    for needed in ([*reading.wanted], [name for name in reading.wanted if name not in reading.labels]):
        for layout, rows in samples.items():
            names = header_names(rows[0], marks=layout.quoting == csv.QUOTE_NONE)
            columns = [columns_of(name, names) for name in needed]
            by_name = [columns_of(name, names, numbers=False) for name in needed]
            if None not in columns and any(by_name) and not _is_row(needed, by_name, rows):
                counts = Counter(names)
                if twice := next((name for part in columns for name in part if counts[name] > 1), None):
                    problem = f"the header has {counts[twice]} columns {twice!r}"
                    raise DataError(problem, source=path.name, column=twice, fix="rename all but one")
                return layout._replace(names=_unique(names))
    return None


def _is_row(needed: Sequence[str], by_name: Sequence[list[str] | None], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row has wanted numbers by chance: some are missing, or one is repeated in its column."""
    if not all(NUMBERS.fullmatch(name) for name in needed):
        return False
    places = [i for i, field in enumerate(rows[0]) if [field.strip()] in by_name]
    return None in by_name or any(row[i] == rows[0][i] for row in rows[1:] for i in places if i < len(row))


def _with_numbers(path: Path, samples: Mapping[Layout, list[list[str]]], reading: Reading) -> Layout | None:
    """Find the layout with the columns of the wanted numbers, and whether its first row is a header."""
    needed = [name for name in reading.wanted if name not in reading.labels] or list(reading.wanted)
    if not needed or not all(NUMBERS.fullmatch(name) for name in needed):
        return None
    least = max(int(number) for name in needed for number in name.split(","))
    if (layout := _even(path, samples, least)) is None:
        return None
    first, *others = samples[layout]
    header = is_header(first, others) if not reading.header else reading.header == "yes"
    nameless = any(not first[int(number) - 1].strip() for name in needed for number in name.split(","))
    if header is None or (header and nameless and not reading.header):
        shown = ", ".join(repr(field[:40]) for field in first[:6])
        problem = f"the first line may name the columns or be a row: {shown}"
        fix = f"say {parameter('HEADER')} yes or {parameter('HEADER')} no"
        raise DataError(problem, source=path.name, fix=fix, parameter="HEADER")
    if not reading.header:
        reading.assume("header", "yes" if header else "no")
    names = _unique(header_names(first)) if header else [str(number) for number in range(1, len(first) + 1)]
    return layout._replace(names=names, header=header)


def _without_names(path: Path, samples: Mapping[Layout, list[list[str]]], reading: Reading) -> Layout | None:
    """Find the layout of a file with no header, and with no columns but the wanted ones, if the user named none."""
    if not reading.wanted or reading.header == "yes" or reading.named:
        return None
    known = {layout: roles for layout, rows in samples.items() if (roles := roles_of(rows, reading))}
    if (layout := _even(path, {layout: samples[layout] for layout in known}, len(reading.wanted))) is None:
        return None
    note_roles(known[layout], reading)
    return layout._replace(names=known[layout], header=False)


def _even(path: Path, samples: Mapping[Layout, list[list[str]]], least: int) -> Layout | None:
    """Return the layout under which most rows have the same width, at least `least`; the others are reported later."""
    shares = {}
    for layout, rows in samples.items():
        width, count = Counter(map(len, rows)).most_common(1)[0]
        if width >= max(least, 2) and count >= 0.5 * len(rows) and len(rows[0]) == width:
            shares[layout] = count / len(rows)
    best = [layout for layout, share in shares.items() if share == max(shares.values())]
    best = [layout for layout in best if layout.delimiter in (*DELIMITERS, "@")] or best
    best = [layout for layout in best if layout.delimiter == "\t"] or best  # no text holds a tab in every row
    if len(best) > 1:
        fix = f"name it by {parameter('DELIMITER')}"
        signs = " or ".join(repr(layout.delimiter) for layout in best)
        raise DataError(f"the delimiter may be {signs}", source=path.name, fix=fix, parameter="DELIMITER")
    return best[0] if best else next(iter(samples), None) if least == 1 else None


# --- headers, of spreadsheets too -------------------------------------------------------------------------


def header_names(fields: Sequence[str], *, marks: bool = False) -> list[str]:
    """Return the columns' names without blanks around them and, with `marks`, without quotation marks."""
    names = [field.strip() for field in fields]
    return [name.strip('"') for name in names] if marks else names


def is_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool | None:
    """Whether a first row is a header; None if it may be either.

    It is not if one of its fields is a number, or occurs again in its column. A long text is not a name either, unless
    some field is above a column of few different values, such as labels: forms are exported with questions as names.
    """
    columns = [{row[i] for row in others if i < len(row)} for i in range(len(first))]
    if any(field.strip() and field in column for field, column in zip(first, columns, strict=True)):
        return False
    if any(to_number(field) is not None for field in first):
        return False
    # Whether a field is none of the few values that are repeated below it, as labels are
    is_other = any(field and len(others) >= 5 * len(column) for field, column in zip(first, columns, strict=True))
    if not is_other and any(len(field) > 60 or len(field.split()) > 4 for field in first):
        return False
    return True if all(len(field.split()) <= 1 for field in first) and len(others) > 1 else None


def roles_of(rows: Sequence[Sequence[str]], reading: Reading) -> list[str] | None:
    """Return which wanted column each column of a table without a header is; None where that is not clear.

    The label is the only column of numbers, or the only one with few different values.
    """
    wanted, label = list(reading.wanted), [n for n, named in reading.wanted.items() if named == "LABEL_COLUMN"]
    width = len(wanted)
    rows = [row for row in rows if len(row) == width]
    if not label or not rows or (reading.header != "no" and is_header(rows[0], rows[1:]) is not False):
        return None
    columns = list(zip(*rows, strict=True))
    numeric = [i for i, column in enumerate(columns) if all(to_number(value) is not None for value in column)]
    again = [i for i, column in enumerate(columns) if 2 <= len(set(column)) <= max(2, len(column) / 4)]
    chosen = next((found[0] for found in (numeric, again) if len(found) == 1), None)
    if chosen is None:
        return None
    roles = [name for name in wanted if name not in label]
    roles.insert(chosen, label[0])
    return roles


def note_roles(roles: Sequence[str], reading: Reading) -> None:
    """Note that there is no header, and what each column is taken for."""
    if reading.header != "no":
        reading.assume("header", "no")
    reading.assume("columns", ", ".join(f"{i} is {name}" for i, name in enumerate(roles, 1)))


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names, with a number after those that are empty or repeated (their columns are not wanted)."""
    unique: dict[str, None] = {}
    for position, name in enumerate(names):
        unique[name if name and name not in unique else f"{name or 'Unnamed'}: {position}"] = None
    return list(unique)


def no_header(path: Path, wanted: Mapping[str, str], names: Sequence[str]) -> DataError:
    """Return the error about a first row without the wanted names."""
    names, wanted = header_names(names), {name.strip(): named_by for name, named_by in wanted.items()}
    # With one field, the delimiter is unusual, and the wanted names are not there either
    plain = len(names) > 1 or names[0].isalnum()
    hint = "" if plain else "; give each column's name by itself: the delimiter is found by them"
    if any(to_number(name) is not None or len(name.split()) > 4 for name in names):
        hint += "; or is that a row of data? Then name the columns by number, from 1"
    return no_column(path.name, wanted, names, where=" in the header", hint=hint)


def to_number(value: object) -> float | None:
    """Return a number, or the number that a text is; None for anything else, including NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


DELIMITED = Format((".csv", ".tsv", ".txt", ".tab", ".data", ""), read_delimited)
