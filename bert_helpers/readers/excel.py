"""Spreadsheets, recognised by their endings; read by pandas and a library for each, which need not be installed."""

import csv
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
from datasets import Dataset

from bert_helpers.errors import DataError, parameter
from bert_helpers.readers.delimited import Layout, find_names
from bert_helpers.readers.folders import UNPACKED
from bert_helpers.readers.hub import innermost_reason
from bert_helpers.readers.source import Format, Reading, columns_of, to_dataset, to_table

Rows = list[list[str]]
LIBRARIES = {".ods": "odfpy", ".xls": "xlrd"}  # of the others: openpyxl
TITLES = 20  # rows that may stand above the header


def read_excel(path: Path, reading: Reading) -> Dataset:
    """Read the rows of one sheet, every cell as text: SHEET's, or the only one with the wanted columns.

    Raises DataError, also for several such sheets.
    """
    sheets = {name: _without_titles(rows, reading) for name, rows in _sheets(path).items()}
    names = list(sheets)
    if reading.sheet:
        number = int(reading.sheet) if reading.sheet.isdigit() else 0
        name = names[number - 1] if reading.sheet not in sheets and 0 < number <= len(names) else reading.sheet
        if name not in sheets:
            problem = f"no sheet {name!r}; it has {', '.join(map(repr, names))}"[:500]
            raise DataError(problem, source=path.name, fix="name one", parameter="SHEET")
        return _dataset(sheets[name], find_names(path, _sample(sheets[name]), reading))
    found, errors = {}, []
    for name, rows in sheets.items():
        try:
            found[name] = find_names(path, _sample(rows), reading)
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[0] if errors else DataError("the file holds no rows", source=path.name)
    if len(found) > 1:
        fix = f"name one by {parameter('SHEET')}"
        raise DataError(
            f"the sheets {' and '.join(map(repr, found))}"[:500] + " have the columns", source=path.name, fix=fix
        )
    if len(sheets) > 1:
        reading.assume("sheet", next(iter(found)))
    return _dataset(sheets[next(iter(found))], next(iter(found.values())))


def _sheets(path: Path) -> dict[str, Rows]:
    """The rows of every sheet that has some, as text, without rows that are blank."""
    try:
        if path.suffix.lower() != ".xls":
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > UNPACKED + 100 * path.stat().st_size:
                    raise DataError("unpacks to far more than it is", source=path.name, fix="save it as CSV")
        frames = pd.read_excel(path, sheet_name=None, header=None, dtype=object, na_filter=False)
    except ImportError as error:
        library = LIBRARIES.get(path.suffix.lower(), "openpyxl")
        problem = f"{path.suffix} files are read by {library}, which is not installed"
        raise DataError(problem, source=path.name, fix=f"pip install {library}, or save it as CSV") from error
    except DataError:
        raise
    except Exception as error:  # a dozen types, for whatever is wrong in a file
        problem = f"not a readable spreadsheet ({innermost_reason(error)})"
        raise DataError(problem, source=path.name, fix="save it as .xlsx or CSV") from error
    sheets = {
        name: [row for row in ([_text(cell) for cell in cells] for cells in frame.to_numpy()) if any(row)]
        for name, frame in frames.items()
    }
    return {name: rows for name, rows in sheets.items() if rows}


def _without_titles(rows: Rows, reading: Reading) -> Rows:
    """Leave out what is above the row with the wanted names, or rows of one filled cell above a table: its title."""
    filled = [sum(map(bool, row)) for row in rows]
    named = [all(columns_of(name, row, numbers=False) for name in reading.wanted) for row in rows[:TITLES]]
    start = (
        named.index(True)
        if reading.wanted and any(named)
        else next((i for i, count in enumerate(filled) if count > 1), 0)
    )
    if start:
        reading.assume("title above the table", " ".join(filter(None, rows[0]))[:40])
    return rows[start:]


def _text(cell: object) -> str:
    """A cell as text: numbers have no type of their own in Excel, so that 1.0 is 1."""
    if cell is None or cell != cell:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _sample(rows: Rows) -> dict[Layout, Rows]:
    return {Layout("", csv.QUOTE_NONE): rows[:1000]}


def _dataset(rows: Rows, layout: Layout) -> Dataset:
    return to_dataset(to_table(iter(rows[layout.header :]), pa.schema([(name, pa.string()) for name in layout.names])))


EXCEL = Format((".xlsx", ".xlsm", ".xls", ".ods"), read_excel, is_text=False)
