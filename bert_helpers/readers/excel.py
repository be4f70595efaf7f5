"""Spreadsheets, recognised by their suffixes; read by pandas and a library per format, which need not be installed."""

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
LIBRARIES = {".ods": "odfpy", ".xls": "xlrd"}  # openpyxl for the others
TITLES = 20  # rows that may precede the header


def read_excel(path: Path, reading: Reading) -> Dataset:
    """Read the rows of one sheet, every cell as text: the sheet SHEET, or the only one with the wanted columns.

    Raises DataError, also if several sheets have them.
    """
    sheets = {name: _without_titles(rows, reading) for name, rows in _sheets(path).items()}
    names = list(sheets)
    if reading.sheet:
        number = int(reading.sheet) if reading.sheet.isdigit() else 0
        name = names[number - 1] if reading.sheet not in sheets and 0 < number <= len(names) else reading.sheet
        if name not in sheets:
            problem = f"no sheet {name!r}; it has {', '.join(map(repr, names))}"[:500]
            raise DataError(problem, source=path.name, fix="name one", parameter="SHEET")
        names = [name]
    found, errors = {}, []
    for name in names:
        try:
            layout = Layout("", csv.QUOTE_NONE)
            found[name] = find_names(path, {layout: sheets[name][:1000]}, reading)
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[0] if errors else DataError("the file holds no rows", source=path.name)
    if len(found) > 1:
        problem = f"the sheets {' and '.join(map(repr, found))}"[:500] + " have the columns"
        raise DataError(problem, source=path.name, fix=f"name one by {parameter('SHEET')}")
    ((name, layout),) = found.items()
    if len(sheets) > 1 and not reading.sheet:
        reading.assume("sheet", name)
    schema = pa.schema([(column, pa.string()) for column in layout.names])
    return to_dataset(to_table(iter(sheets[name][layout.header :]), schema))


def _sheets(path: Path) -> dict[str, Rows]:
    """Return the rows of every sheet as text, without blank rows and empty sheets."""
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
    except Exception as error:  # a dozen types, depending on what is wrong in a file
        problem = f"not a readable spreadsheet ({innermost_reason(error)})"
        raise DataError(problem, source=path.name, fix="save it as .xlsx or CSV") from error
    sheets = {
        name: [row for row in ([_text(cell) for cell in cells] for cells in frame.to_numpy()) if any(row)]
        for name, frame in frames.items()
    }
    return {name: rows for name, rows in sheets.items() if rows}


def _without_titles(rows: Rows, reading: Reading) -> Rows:
    """Leave out a table's title: what precedes the row with the wanted names, or else rows with one filled cell."""
    named = [all(columns_of(name, row, numbers=False) for name in reading.wanted) for row in rows[:TITLES]]
    if reading.wanted and any(named):
        start = named.index(True)
    else:
        start = next((i for i, row in enumerate(rows) if sum(map(bool, row)) > 1), 0)
    if start:
        reading.assume("title above the table", " ".join(filter(None, rows[0]))[:40])
    return rows[start:]


def _text(cell: object) -> str:
    """Return a cell as text; whole numbers lose their point, as Excel has no type for them."""
    if cell is None or cell != cell:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


EXCEL = Format((".xlsx", ".xlsm", ".xls", ".ods"), read_excel, is_text=False)
