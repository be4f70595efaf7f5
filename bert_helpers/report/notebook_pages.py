"""Executed notebooks as HTML that opens from disk: nothing in it runs, and nothing is fetched."""

import ast
import hashlib
import json
import logging
import posixpath
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from bert_helpers import files
from bert_helpers.report.templates import FOLDER, has_mark

TEMPLATE = (FOLDER / "notebook.html.j2").read_text(encoding="utf-8")  # extends one of nbconvert's
LARGEST = 200_000_000  # bytes of a notebook
# What has no picture without a script is shown as text.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain"]


@dataclass(frozen=True)
class NotebookPage:
    """An executed notebook, and what became of it."""

    notebook: Path
    page: Path | None  # None: it could not be read
    output_dir: PurePosixPath | None  # below results/, where its record stands
    error: str | None  # what ended the run, or why the notebook cannot be read


def write_pages(folder: Path) -> list[NotebookPage]:
    """Write an HTML page next to each notebook of `folder`; one that is up to date is left as it is.

    Raises ParameterError when a page cannot be written.
    """
    return [_page(path) for path in sorted(folder.glob("*.ipynb"))]


def _page(path: Path) -> NotebookPage:
    page = path.with_suffix(".html")
    try:
        text = files.read_text(path, largest=LARGEST)
        notebook = json.loads(text)
        output_dir, error = _output_dir(notebook), _failure(notebook)
        digest = hashlib.sha256((text + TEMPLATE + version("nbconvert")).encode()).hexdigest()
        # Converting takes a second, mostly for a page that is there already
        html = None if has_mark(page, digest) else _convert(path, text, digest)
    # A notebook may come from anywhere, and nbformat and nbconvert raise whatever they stumble over.
    except Exception as problem:
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        return NotebookPage(path, None, None, f"cannot be read as a notebook ({reason})")
    if html:
        files.write_text(page, html)
    return NotebookPage(path, page, output_dir, error)


def _convert(path: Path, text: str, digest: str) -> str:
    import nbformat  # with nbconvert a second to import, and mostly not needed
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
    log = logging.getLogger(__name__)
    log.setLevel(logging.ERROR)  # nbconvert warns of every figure without a description
    exporter = HTMLExporter(config=config, raw_template=TEMPLATE, log=log)
    resources = {"generator": f"bert_helpers {digest}", "metadata": {"name": path.stem}}
    html, _ = exporter.from_notebook_node(nbformat.reads(text, as_version=4), resources)
    return re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', html)  # the next notebook's page is in the same folder


def _output_dir(notebook: dict) -> PurePosixPath | None:
    """OUTPUT_DIR as it ran: papermill puts the cell with given parameters after that with the defaults."""
    found = None
    for cell in notebook["cells"]:
        if {"parameters", "injected-parameters"} & set(cell.get("metadata", {}).get("tags", [])):
            found = _assigned("".join(cell["source"]), "OUTPUT_DIR") or found
    parts = posixpath.normpath((found or "").replace("\\", "/")).split("/")
    return PurePosixPath(*parts[1:]) if parts[0] == "results" and len(parts) > 1 else None


def _assigned(source: str, name: str) -> str | None:
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a magic command
        return None
    for statement in statements:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = ast.literal_eval(statement.value)
            return value if isinstance(value, str) else None
    return None


def _failure(notebook: dict) -> str | None:
    """The error that ended the run, if one did."""
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        if output.get("output_type") == "error":
            return f"{output.get('ename')}: {output.get('evalue')}"
    return None
