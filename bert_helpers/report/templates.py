"""Templates of pages and cards, filled in: HTML with everything escaped, Markdown with what is not ours as code."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bert_helpers import files
from bert_helpers.errors import DataError
from bert_helpers.metrics import format_interval

FOLDER = Path(__file__).parent
LONGEST = 300  # characters of a text of somebody else
MARK = '<meta name="generator" content="bert_helpers'  # in the head of each page that is written here


def render(name: str, /, **values: object) -> str:
    """Fill in the template `name`.j2 of this folder."""
    return _ENVIRONMENT.get_template(f"{name}.j2").render(**values)


def one_line(value: object) -> str:
    """Return a value as one line of characters that can be seen, shortened where it is long.

    >>> one_line("a  b\\n\\x00c")
    'a b c'
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def code(value: object, empty: str = "not recorded") -> str:
    """Put a text between more backticks than it has in a row, so that nothing in it is Markdown or HTML.

    >>> print(code("a `b` <c>"))
    `` a `b` <c> ``
    """
    text = one_line("" if value is None else value)
    if not text:
        return empty
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}"


# --- pages: files below a folder, where other people's may lie too -----------------------------------------


def update_page(
    page: Path,
    source: Path,
    folder: Path,
    convert: Callable[[str], str],
    *,
    version: str,
    largest: int = files.LARGEST,
) -> str:
    """Write what `convert` makes of the text of a file, unless the page has that already; returns the text.

    `version` stands for all else that decides what the page is. Raises DataError where the file cannot be read or the
    page is none of ours (`check_page`), ParameterError when it cannot be written.
    """
    check_page(page, folder)
    text = read_own(source, folder, largest=largest)
    digest = hashlib.sha256((text + version).encode()).hexdigest()
    if not _has_mark(page, digest):
        write_page(page, digest, convert(text))
    return text


def check_page(page: Path, folder: Path) -> None:
    """Raise DataError where a page would take the place of a file that is not ours, or follow a link."""
    if os.path.lexists(page) and not _has_mark(page, MARK):
        raise DataError("is no page of the gallery, and would be replaced", source=str(page))
    _check_inside(page, folder)


def write_page(page: Path, digest: str, html: str) -> None:
    """Write a page with the mark by which it is known again."""
    files.write_text(page, html.replace("<head>", f'<head>\n{MARK} {digest}">', 1))


def _has_mark(page: Path, mark: str) -> bool:
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as file:
        return mark.encode() in file.read(1000)


def read_own(path: Path, folder: Path, *, largest: int = files.LARGEST) -> str:
    """Read a text below a folder. Raises DataError where a link leads to it, as to a file that is not to be shown."""
    _check_inside(path, folder)
    return files.read_text(path, largest=largest)


def _check_inside(path: Path, folder: Path) -> None:
    """Raise DataError if a link, or "..", leads from the folder to the path."""
    if os.path.realpath(path) != os.path.join(os.path.realpath(folder), os.path.relpath(path, folder)):
        raise DataError("lies behind a link, or is one", source=str(path))


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=lambda name: name.endswith(".html.j2"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {"code": code, "one_line": one_line, "interval": format_interval, "sha256": _sha256}
