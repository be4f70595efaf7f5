"""Fill in the templates of pages and cards: HTML is escaped throughout, Markdown shows foreign text as code."""

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bert_helpers.metrics import format_interval

FOLDER = Path(__file__).parent
LONGEST = 300  # characters of a foreign text


def render(name: str, /, **values: object) -> str:
    """Fill in the template `name`.j2 of this folder."""
    return _ENVIRONMENT.get_template(f"{name}.j2").render(**values)


def one_line(value: object) -> str:
    """Return a value as one line of visible characters, shortened if it is long.

    >>> one_line("a  b\\n\\x00c")
    'a b c'
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def code(value: object, empty: str = "not recorded") -> str:
    """Put a text between more backticks than it has in a row, so that nothing in it acts as Markdown or HTML.

    >>> print(code("a `b` <c>"))
    `` a `b` <c> ``
    """
    text = one_line("" if value is None else value)
    if not text:
        return empty
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=lambda name: name.endswith(".html.j2"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "code": code,
    "interval": format_interval,
    "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
}
