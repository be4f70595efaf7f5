"""Executed notebooks as HTML that opens from disk: nothing in it runs, and nothing is fetched."""

import base64
import json
import logging
import posixpath
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bert_helpers import files
from bert_helpers.errors import DataError, ParameterError
from bert_helpers.report.pages import update_page
from bert_helpers.report.templates import FOLDER, one_line

TEMPLATE = (FOLDER / "notebook.html.j2").read_text(encoding="utf-8")  # extends a template of nbconvert
LARGEST = 50_000_000  # bytes of a notebook
# An output that needs a script to draw is shown as text.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]
# Elements that act by themselves and that the page's policy does not stop: `meta` redirects, `link` opens connections,
# a frame is a page of its own. A browser creates one only from exactly these characters, wherever they stand.
ACTIVE = re.compile(r"<(?=(?:base|embed|fencedframe|frame|frameset|iframe|link|meta|object|portal|script)\b)", re.I)
VERSION = TEMPLATE + ACTIVE.pattern + version("nbconvert")
OUTPUT_DIR = re.compile(r"""^OUTPUT_DIR\b[^=\n]*=\s*(["'])(.+)\1""", re.MULTILINE)


@dataclass(frozen=True)
class NotebookPage:
    """An executed notebook, its page and its outcome."""

    notebook: Path
    page: Path | None  # None: the notebook could not be read, or another page is in its place
    output_dir: Path | None  # folder of its record, below results/
    error: str | None  # what ended the run, or why there is no page


def write_pages(folder: Path) -> list[NotebookPage]:
    """Write an HTML page next to each notebook in `notebooks/` of a folder, unless it is up to date.

    Raises ParameterError if a page cannot be written.
    """
    return [_page(path, folder) for path in sorted((folder / "notebooks").glob("*.ipynb"))]


def _page(path: Path, folder: Path) -> NotebookPage:
    page = path.with_suffix(".html")
    try:
        # Only converts if the page is outdated: that takes a second.
        text = update_page(page, path, folder, lambda text: _convert(path, text), version=VERSION, largest=LARGEST)
        cells = json.loads(text)["cells"]
        return NotebookPage(path, page, _output_dir(cells), _failure(cells))
    except ParameterError:
        raise
    except DataError as problem:
        error = f"{Path(problem.source).name} {problem.problem}"
    # A notebook may come from anywhere, and nbformat and nbconvert let any exception through.
    except Exception as problem:
        error = f"cannot be read as a notebook ({one_line(problem) or type(problem).__name__})"
    return NotebookPage(path, None, None, error)


def _convert(path: Path, text: str) -> str:
    import nbformat  # takes a second to import with nbconvert, and is seldom needed
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
    log = logging.getLogger(__name__)
    log.setLevel(logging.ERROR)  # nbconvert warns about every figure without a description
    exporter = HTMLExporter(config=config, raw_template=TEMPLATE, log=log)
    resources = {"metadata": {"name": path.stem}}
    html, _ = exporter.from_notebook_node(nbformat.reads(text, as_version=4), resources)
    head, end, body = html.partition("</head>")
    body = ACTIVE.sub("&lt;", body)
    body = re.sub(r'src="\.\./(docs/drawings/[\w-]+\.svg)"', _embedded, body)
    body = re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', body)  # the next notebook's page is in the same folder
    return head + end + body


def _embedded(drawing: re.Match[str]) -> str:
    """Return the drawing in place of its path, which is relative to notebooks/; keep the path if the file is gone."""
    path = files.base_folder() / drawing[1]
    if not path.is_file():
        return drawing[0]
    return f'src="data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"'


def _output_dir(cells: list[dict]) -> Path | None:
    """Return OUTPUT_DIR of the run: papermill puts the cell with given parameters after the one with the defaults."""
    tagged = [c for c in cells if {"parameters", "injected-parameters"} & set(c.get("metadata", {}).get("tags", []))]
    found = [match[2] for cell in tagged for match in OUTPUT_DIR.finditer("".join(cell["source"]))]
    parts = posixpath.normpath(found[-1].replace("\\", "/")).split("/") if found else []
    return Path(*parts[1:]) if parts[:1] == ["results"] and len(parts) > 1 else None


def _failure(cells: list[dict]) -> str | None:
    """Return the error that ended the run, if one did."""
    outputs = (output for cell in cells for output in cell.get("outputs", []) if output.get("output_type") == "error")
    return next((one_line(f"{output.get('ename')}: {output.get('evalue')}") for output in outputs), None)
