"""Pages in a folder that may hold other people's files, none of which is replaced, or copied through a link."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from bert_helpers import files
from bert_helpers.errors import DataError

MARK = '<meta name="generator" content="bert_helpers'  # in the head of each page written here


def update_page(
    page: Path,
    source: Path,
    folder: Path,
    convert: Callable[[str], str],
    *,
    version: str,
    largest: int = files.LARGEST,
) -> str:
    """Write what `convert` makes of the text of `source`, unless the page is up to date; return the text.

    `version` stands for everything else that the page depends on. Raises DataError if the file cannot be read or the
    page is not ours (`check_page`), ParameterError if the page cannot be written.
    """
    check_page(page, folder)
    text = read_own(source, folder, largest=largest)
    digest = hashlib.sha256((text + version).encode()).hexdigest()
    if not _has_mark(page, digest):
        write_page(page, digest, convert(text))
    return text


def check_page(page: Path, folder: Path) -> None:
    """Raise DataError if a page would replace a file that is not ours, or follow a link."""
    if os.path.lexists(page) and not _has_mark(page, MARK):
        raise DataError("is not a page of the gallery, and would be replaced", source=str(page))
    _check_inside(page, folder)


def write_page(page: Path, digest: str, html: str) -> None:
    """Write a page with the mark by which it is recognised later."""
    files.write_text(page, html.replace("<head>", f'<head>\n{MARK} {digest}">', 1))


def _has_mark(page: Path, mark: str) -> bool:
    if page.is_symlink() or not page.is_file():
        return False
    with page.open("rb") as file:
        return mark.encode() in file.read(1000)


def read_own(path: Path, folder: Path, *, largest: int = files.LARGEST) -> str:
    """Read a text below a folder. Raises DataError if a link leads to it: the file may not be meant to be shown."""
    _check_inside(path, folder)
    return files.read_text(path, largest=largest)


def _check_inside(path: Path, folder: Path) -> None:
    """Raise DataError if a link or ".." leads from the folder to the path."""
    if os.path.realpath(path) != os.path.join(os.path.realpath(folder), os.path.relpath(path, folder)):
        raise DataError("lies behind a link, or is one", source=str(path))
