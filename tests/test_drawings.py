"""Drawings are what their scripts draw, can be read in both themes, and are shown with a description."""

import re
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from conftest import ROOT

FOLDER = ROOT / "docs/drawings"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.name != "drawing.py")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
GLOSSARY = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def scripts_find_their_helper(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])


def prose(path: Path) -> str:
    return "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_drawing_is_what_its_script_draws_and_says_what_it_shows(script):
    drawing = runpy.run_path(str(script))["draw"]()
    svg = script.with_suffix(".svg").read_text(encoding="utf-8")
    assert svg == str(drawing), "python docs/drawings/drawing.py"
    names = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg)]
    assert names[:2] == ["title", "desc"]
    assert len(drawing.description) > 80


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["LIGHT", "DARK"])
def test_text_can_be_read_on_every_background(theme):
    """WCAG 2.1 asks for a contrast of 4.5."""
    colours = runpy.run_path(str(FOLDER / "drawing.py"))[theme]
    for text in ("ink", "quiet"):
        for background in colours.keys() - {"ink", "quiet", "line"}:
            dark, light = sorted(luminance(colours[name]) for name in (text, background))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, background)


def test_every_drawing_is_shown_and_every_picture_exists_and_has_a_description():
    shown = [picture for path in NOTEBOOKS for picture in re.findall(r"!\[(.*?)\]\((.*?)\)", prose(path))]
    assert not [target for description, target in shown if len(description) < 20]
    assert not [target for _, target in shown if not (ROOT / "notebooks" / target).is_file()]
    assert {Path(target).stem for _, target in shown} >= {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("name", ["01_fine_tune", "04_ner"])
def test_every_figure_has_a_description(name):
    cells = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4).cells
    figures = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(figures) >= 2
    assert all(len(figure.metadata["image/png"]["alt"]) > 30 for figure in figures)


def test_links_into_the_glossary_lead_to_a_term():
    terms = {
        re.sub(r"[^\w -]", "", term.lower()).replace(" ", "-") for term in re.findall(r"^## (.+)$", GLOSSARY, re.M)
    }
    assert len(terms) >= 25
    linked = {name for path in NOTEBOOKS for name in re.findall(r"glossary\.md#([\w-]+)\)", prose(path))}
    assert linked
    assert linked <= terms
