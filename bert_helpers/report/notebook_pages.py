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

from bert_helpers.results import write_text

# nbconvert's "lab" template without what it loads from elsewhere: require.js, MathJax, Mermaid, widgets. Should an
# output ask for something all the same, the policy keeps the browser from fetching or running it.
TEMPLATE = """\
{% extends 'index.html.j2' %}
{% block html_head %}
<meta name="generator" content="{{ resources.generator }}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; font-src data:; \
style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
{{ super() }}
{% endblock %}
{% block html_head_js %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block notebook_css %}
{{ super() }}
<style>
:root { color-scheme: light dark; }
img, svg { max-width: 100%; height: auto; }
.jp-InputArea-editor, .jp-OutputArea-output, .jp-RenderedMarkdown { overflow-x: auto !important; }
@media (max-width: 760px) {
  .jp-InputArea, .jp-OutputArea-child, .jp-InputArea-editor, .jp-OutputArea-output { display: block !important; }
  .jp-OutputArea-output { width: auto !important; margin-left: 0 !important; }
}
</style>
<style media="(prefers-color-scheme: dark)">{{ resources.include_css('static/theme-dark.css').split('>', 1)[1] }}
<style media="(prefers-color-scheme: dark)">
:root { --jp-mirror-editor-comment-color: #7fb8b8; --jp-mirror-editor-operator-color: #d08bff; }
</style>
{% endblock %}
"""
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
    """An HTML page beside each notebook of `folder`; one that is up to date is left as it is.

    Raises ParameterError when a page cannot be written.
    """
    return [_page(path) for path in sorted(folder.glob("*.ipynb"))]


def _page(path: Path) -> NotebookPage:
    try:
        content = path.read_bytes()
        notebook = json.loads(content)
        facts = _output_dir(notebook), _failure(notebook)
        html = _convert(path, content)
    # A notebook may come from anywhere, and nbformat and nbconvert raise whatever they stumble over.
    except Exception as error:
        reason = f"cannot be read as a notebook ({' '.join(str(error).split())[:200] or type(error).__name__})"
        return NotebookPage(path, None, None, reason)
    page = path.with_suffix(".html")
    return NotebookPage(path, write_text(page, html) if html else page, *facts)


def _convert(path: Path, content: bytes) -> str | None:
    """The page, or None where it stands already: one takes a second."""
    digest = hashlib.sha256(content + TEMPLATE.encode() + version("nbconvert").encode()).hexdigest()
    page = path.with_suffix(".html")
    if page.is_file() and digest.encode() in page.read_bytes()[:1000]:
        return None
    import nbformat  # with nbconvert a second to import, and mostly not needed
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config({"NbConvertBase": {"display_data_priority": SHOWN}})
    log = logging.getLogger(__name__)
    log.setLevel(logging.ERROR)  # nbconvert warns of every figure without a description
    exporter = HTMLExporter(config=config, raw_template=TEMPLATE, log=log)
    resources = {"generator": f"bert_helpers {digest}", "metadata": {"name": path.stem}}
    html, _ = exporter.from_notebook_node(nbformat.reads(content.decode("utf-8"), as_version=4), resources)
    html = re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', html)  # the next notebook's page stands beside it
    return html.encode("utf-8", "replace").decode("utf-8")


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
