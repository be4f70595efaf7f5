"""Boxes, text and arrows as SVG, in colours for light and for dark pages; each drawing is a script next to this one."""

import runpy
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
# Text on its background has a contrast of at least 4.5 in both (tests/test_drawings.py).
LIGHT = {"page": "#ffffff", "ink": "#1f2328", "quiet": "#4d5660", "line": "#59636e",
         "plain": "#f0f2f5", "old": "#cfe5f5", "new": "#ffdcc2", "waste": "#e3e6ea"}  # fmt: skip
DARK = {"page": "#0d1117", "ink": "#e6edf3", "quiet": "#bcc5cf", "line": "#9ba5b0",
        "plain": "#21262d", "old": "#17406b", "new": "#6b3410", "waste": "#30363d"}  # fmt: skip


def _colours(values: dict[str, str]) -> str:
    return "; ".join(f"--{name}: {value}" for name, value in values.items())


STYLE = f"""
svg {{ {_colours(LIGHT)}; font: 14px system-ui, sans-serif }}
@media (prefers-color-scheme: dark) {{ svg {{ {_colours(DARK)} }} }}
text {{ fill: var(--ink) }} .quiet {{ fill: var(--quiet); font-size: 12px }} .strong {{ font-weight: 600 }}
rect {{ stroke: var(--line); stroke-width: 1 }} .page {{ fill: var(--page); stroke: none }}
{" ".join(f"rect.{name} {{ fill: var(--{name}) }}" for name in ("plain", "old", "new", "waste"))}
line, path {{ stroke: var(--line); stroke-width: 1.5; fill: none }} marker path {{ fill: var(--line); stroke: none }}
"""


class Drawing:
    """An SVG in the making; x and y are pixels from the upper left corner.

    `title` and `description` are what a screen reader says. Kinds of boxes: plain, old (pretrained, used), new, waste;
    of text: quiet, strong.
    """

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.width, self.height, self.title, self.description = width, height, title, description
        self.parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, text: str = "", *, kind: str = "plain") -> None:
        """Draw a box, with its text in the middle."""
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>')
        if text:
            self.text(x + width / 2, y + height / 2 + 5, text)

    def text(self, x: float, y: float, text: str, *, kind: str = "", anchor: str = "middle") -> None:
        """Draw a line of text; `y` is its base line, `anchor` start, middle or end."""
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Draw an arrow from one point to another."""
        self.parts.append(f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" marker-end="url(#head)"/>')

    def path(self, steps: str) -> None:
        """Draw a line along an SVG path, such as "M 0 0 L 10 10"."""
        self.parts.append(f'<path d="{steps}"/>')

    def __str__(self) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}"'
                f' width="{self.width}" height="{self.height}" role="img" aria-labelledby="title desc">',
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="desc">{escape(self.description)}</desc>',
                f"<style>{STYLE}</style>",
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
                ' orient="auto"><path d="M 0 0 L 10 5 L 0 10 z"/></marker></defs>',
                '<rect class="page" width="100%" height="100%"/>',
                *self.parts,
                "</svg>\n",
            ]
        )

    def write(self, script: str) -> None:
        """Write the drawing next to the script that makes it, under the script's name."""
        Path(script).with_suffix(".svg").write_text(str(self), encoding="utf-8")


if __name__ == "__main__":  # python docs/drawings/drawing.py: all of them
    for path in sorted(HERE.glob("*.py")):
        if path.name != Path(__file__).name:
            runpy.run_path(str(path), run_name="__main__")
