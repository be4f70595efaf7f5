"""JSON Lines, and JSON in the forms in which pandas and others write tables, recognised by their suffixes.

Arrow's parser reads lines that have the same types as the first ones. Everything else is left to Python's, which is
exact.
"""

import ast
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.json
from datasets import Dataset, Json

from bert_helpers.errors import DataError
from bert_helpers.readers import delimited
from bert_helpers.readers.source import BATCH, SURROGATE, Format, Reading, check_width, columns_of, text_of, to_dataset

CORRECT = "correct the line or delete it"
SAMPLE = 1_000  # lines whose types all others must have to be read quickly


def read_json(path: Path, reading: Reading) -> Dataset:
    """Read the rows of JSON Lines, or of JSON in one of the forms of `_rows`.

    A column whose values have no common type is kept as `datasets.Json`. Raises DataError with all lines that are not
    valid JSON, or all lines or items that are not objects.
    """
    content = text_of(path, reading)
    if (table := _read_quickly(content)) is not None:
        check_width(path, table.column_names)
        return to_dataset(table)
    unit, rows = read_rows(path, reading, content)
    columns: dict[str, list[pa.Array]] = {}
    total = 0
    while batch := list(islice(rows, BATCH)):
        try:
            names = dict.fromkeys(name for _, row in batch for name in row)
            check_width(path, names | columns)
            for name in names:
                columns.setdefault(name, [pa.nulls(total)])
                columns[name].append(_to_arrow([row.get(name) for _, row in batch]))
            json.dumps(list(columns), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            bad = [number for number, row in batch if SURROGATE.search(json.dumps(row, ensure_ascii=False))]
            problem, fix = "half a character (a lone surrogate)", "write the whole one"
            raise DataError(problem, source=path.name, row=bad, unit=unit, fix=fix) from error
        except RecursionError as error:
            fix = "write rows without deep nesting"
            raise DataError("JSON nested too deeply", source=path.name, fix=fix) from error
        total += len(batch)
        for arrays in columns.values():  # columns that no row of this batch has
            arrays += [pa.nulls(len(batch))] * (sum(map(len, arrays)) < total)
    return to_dataset(pa.table({name: _joined(arrays) for name, arrays in columns.items()}))


def read_rows(path: Path, reading: Reading, content: bytes = b"") -> tuple[str, Iterator[tuple[int, dict]]]:
    """Return the unit in which rows are counted, and the rows with their numbers. Raises DataError for other values."""
    unit, rows = _numbered(path, content or text_of(path, reading), reading)

    def objects() -> Iterator[tuple[int, dict]]:
        for number, row in rows:
            if not isinstance(row, dict):
                bad = [number, *(number for number, row in rows if not isinstance(row, dict))]
                fix = 'write rows as {"text": "…", "label": "…"}'
                raise DataError("not an object", source=path.name, row=bad, unit=unit, fix=fix)
            yield number, row

    return unit, objects()


def _read_quickly(content: bytes) -> pa.Table | None:
    """Parse JSON Lines with Arrow; None if a line is not a row, or differs in columns or types from the first ones."""
    lines = content[: 1 << 20].split(b"\n")[: SAMPLE + 1][:-1]
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
        names = dict.fromkeys(name for row in rows for name in [*row])
        schema = pa.schema({name: pa.array([row.get(name) for row in rows]).type for name in names})
        if not names or re.search("null|struct|date|time", str(schema.types)):
            return None
        table = pa.json.read_json(
            pa.BufferReader(content),
            pa.json.ReadOptions(block_size=1 << 24),
            pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, pa.ArrowException):
        return None
    lines = content.count(b"\n") + (not content.endswith(b"\n"))
    if table.num_rows != lines:
        lines = sum(bool(line.strip()) for line in content.split(b"\n"))
    return table if table.num_rows == lines else None  # two objects in one line are an error


def _numbered(path: Path, content: bytes, reading: Reading) -> tuple[str, Iterator[tuple[int, object]]]:
    """Return the unit in which rows are counted, and each row, or another value in its place, with its number."""
    is_whole = path.suffix.lower() == ".json" or content.lstrip().startswith(b"[")
    if is_whole and (whole := parse_whole(path, content, _whole)) is not None:
        return "item", iter(enumerate(_rows(whole, reading), 1))
    return "line", parse_lines(path, content, _whole)


def parse_whole(path: Path, content: bytes, parse_int: Callable = int) -> object:
    """Parse JSON; return None for JSON Lines, whose first line closes the bracket that it opens. Raises DataError."""
    try:
        return json.loads(content, parse_int=parse_int)
    except (ValueError, RecursionError) as error:
        first = content.strip().split(b"\n", 1)[0].rstrip()
        is_open = first.startswith((b"[", b"{")) and first[:1] + first[-1:] not in (b"[]", b"{}")
        if not is_open or (path.suffix.lower() != ".json" and first.startswith(b"{")):
            return None
        row = getattr(error, "lineno", None if b"\n" in content.strip() else 1)
        raise DataError(f"not valid JSON ({error})", source=path.name, row=row, unit="line", fix=CORRECT) from error


def _rows(content: object, reading: Reading) -> Sequence[object]:
    """Find the rows: an array of objects, or what pandas' `to_json` writes with another `orient`.

    These are "split" (`columns` and `data`), "table" (`data` next to `schema`), "values" (an array of arrays), and
    "columns" and "index" (an object of objects). Also read are an object of lists by column, and the only array in an
    object or in an object within it. Anything else is one row.
    """
    if isinstance(content, list):
        return _named(content, reading) if all(isinstance(row, list) for row in content) else content
    if not isinstance(content, dict) or not content:
        return [content]
    values, data = list(content.values()), content.get("data")
    if isinstance(names := content.get("columns"), list) and isinstance(data, list):
        return [dict(zip(map(str, names), row, strict=True)) for row in data]
    if isinstance(rows := content.get("rows"), list) and all(isinstance(row, dict) and "row" in row for row in rows):
        return [row["row"] for row in rows]  # as returned by the Hub
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    wanted = columns_in(reading, list(content))
    if not wanted and (isinstance(data, list) or len(lists) == 1):
        return data if isinstance(data, list) else lists[0]
    if wanted and all(isinstance(value, list) for value in values) and len({*map(len, values)}) == 1:
        return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(value, dict) for value in values):
        if wanted and all(value.keys() == values[0].keys() for value in values):
            return [{name: value[key] for name, value in content.items()} for key in values[0]]
        if not wanted and columns_in(reading, list(values[0])):
            return values
    inner = [rows for value in values if isinstance(value, dict) and (rows := _rows(value, reading)) != [value]]
    return inner[0] if len(inner) == 1 and not wanted else [content]


def columns_in(reading: Reading, names: Sequence[str]) -> bool:
    """Whether one of the names is wanted."""
    return any(columns_of(name, names, numbers=False) for name in reading.wanted)


def _named(rows: Sequence[list], reading: Reading) -> list[dict[str, object]]:
    """Name the columns of rows without names by their content, as for delimited text, or else by number."""
    if roles := delimited.roles_of([list(map(str, row)) for row in rows[:SAMPLE]], reading):
        delimited.note_roles(roles, reading)
    return [dict(zip(roles or map(str, range(1, len(row) + 1)), row, strict=False)) for row in rows]


def parse_lines(path: Path, content: bytes, parse_int: Callable = int) -> Iterator[tuple[int, object]]:
    """Yield each value of JSON Lines with the number of its line. Raises DataError with all lines that are not JSON."""
    stripped = ((number, line.strip("\ufeff\r\n\t ")) for number, line in enumerate(io.StringIO(content.decode()), 1))
    lines = ((number, line) for number, line in stripped if line)
    for number, line in lines:
        try:
            yield number, json.loads(line, parse_int=parse_int)
        except (ValueError, RecursionError) as error:
            bad = [number, *(number for number, line in lines if not _is_json(line, parse_int))]
            raise DataError(f"not valid JSON ({error})", source=path.name, row=bad, unit="line", fix=CORRECT) from error


def _is_json(line: str, parse_int: Callable) -> bool:
    try:
        json.loads(line, parse_int=parse_int)
    except (ValueError, RecursionError):
        return False
    return True


def parsed_cell(value: object) -> object:
    """Return the list or object that a cell of a table writes out in JSON, Python or NumPy; other values unchanged."""
    if not isinstance(value, str) or not re.match(r"\s*[\[{]", value):
        return value
    python = re.sub(r"array\((\[.*?\])(, dtype=\w+)?\)", r"\1", value.strip(), flags=re.DOTALL)
    if not re.match(r"\[?\s*\{", python):  # NumPy's lists have no commas
        python = re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", python)
    for parse, text in ((json.loads, value), (ast.literal_eval, python)):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(text)
    return value


def _whole(digits: str) -> int:
    """Parse an integer. Raises ValueError if it is too large for Arrow and `datasets`."""
    if abs(number := int(digits)) >= 2**63:
        raise ValueError(f"{digits[:20]}… is a number of more than 64 bits")
    return number


def _to_arrow(values: Sequence[object]) -> pa.Array:
    try:
        array = pa.array(values)
    except pa.ArrowException:  # types that do not mix
        return _as_json(values)
    # Arrow cannot write a type of more than 64 levels; its name has a bracket for each.
    return array if str(array.type).count("<") < 32 else _as_json(values)


def _as_json(values: Iterable[object]) -> pa.Array:
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.ExtensionArray.from_storage(Json.pa_type, pa.array(texts, pa.string()))


def _joined(arrays: Sequence[pa.Array]) -> pa.ChunkedArray:
    """Return the batches of one column in their common type."""
    if not any(array.type == Json.pa_type for array in arrays):
        with suppress(pa.ArrowException):
            tables = [pa.table({"": array}) for array in arrays]
            return pa.concat_tables(tables, promote_options="permissive").column(0)
    return pa.chunked_array([array if array.type == Json.pa_type else _as_json(array.to_pylist()) for array in arrays])


JSON = Format((".jsonl", ".json", ".ndjson"), read_json)
