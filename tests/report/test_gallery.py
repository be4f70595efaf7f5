"""The page of all runs: it is complete and sortable, executes nothing planted in it, and needs no network."""

import html
import json
import os
import re
import shutil
import socket
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from nbconvert import HTMLExporter
from test_security import CHROMIUM, MARK, PLANTS, live, marked, page_after_scripts

from bert_helpers import ParameterError, files, records
from bert_helpers.cli import commands, notebooks
from bert_helpers.cli import main as cli
from bert_helpers.records import Record
from bert_helpers.report import gallery
from bert_helpers.report.gallery import write_gallery
from bert_helpers.report.pages import MARK as MARK_OF_OURS

HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu")
POLICY = re.compile(r'<meta[^>]*http-equiv="Content-Security-Policy"[^>]*>')
browser = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
METRICS = {"accuracy": (0.9, 0.8, 1.0), "f1": (0.85, 0.7, 0.95)}
FINDINGS = [{"finding": "leakage", "symptom": "3 rows of test"}]
EPOCHS = [(1, 0.7, 0.6, 0.5), (2, 0.5, 0.55, 0.7), (3, 0.2, 0.6, 0.8)]


def history(epochs=EPOCHS):
    """Return a history as a Trainer logs it."""
    log = []
    for epoch, train, validation, accuracy in epochs:
        log.append({"loss": train, "epoch": epoch, "learning_rate": 1e-4})
        log.append({"eval_train_loss": train, "eval_train_accuracy": 0.9, "eval_train_runtime": 1.0, "epoch": epoch})
        log.append({"eval_validation_loss": validation, "eval_validation_accuracy": accuracy, "epoch": epoch})
    return log


def write_run(folder, metrics=METRICS, *, source="sample", train=60.0, day=0, log=None, **changes):
    """Write a run as a notebook leaves it; `day` is the date of its record."""
    values = {
        "metrics": {name: dict(zip(("value", "low", "high"), score, strict=True)) for name, score in metrics.items()},
        "parameters": {"EPOCHS": 3, "DATA": source},
        "data": {"source": source, "fingerprint": "f" * 64, "rows": {"train": 480, "test": 240}},
        "tasks": ["classification"],
        "model": "bert-base-uncased",
        "versions": {"transformers": "5.24.0"},
        "device": "CPU",
        "precision": "bf16",
        "seed": 0,
        "seconds": {"train": train, "evaluate": 3.0},
    }
    path = records.write(folder, Record(**{**values, **changes}))
    files.write_json(folder / "history.json", history() if log is None else log)
    os.utime(path, (1.7e9 + 86400 * day,) * 2)
    return path


def write_notebook(path, *outputs, output_dir="results/a", injected=None, code="run()"):
    """Write an executed notebook: a cell of parameters, then one with these outputs."""
    cell = nbformat.v4.new_code_cell
    cells = [cell(f'EPOCHS: int = 3\nOUTPUT_DIR: str = "{output_dir}"', metadata={"tags": ["parameters"]})]
    if injected:
        cells.append(cell(injected, metadata={"tags": ["injected-parameters"]}))
    cells.append(cell(code, outputs=list(outputs)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def shown(data):
    return nbformat.v4.new_output("display_data", data)


class Page(HTMLParser):
    """Collects the runs in order, the text, the links, what is loaded, and the sorting of the heading cells."""

    def __init__(self, text):
        super().__init__()
        self.runs, self.links, self.loaded, self.sorted, self.text = [], [], [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.runs += [attrs["data-sort"]] if attrs.get("role") == "rowheader" else []
        self.links += [attrs["href"]] if tag == "a" and "href" in attrs else []
        self.loaded += [attrs[name] for name in ("src", "srcset", "data", "poster", "action") if name in attrs]
        self.loaded += [attrs[name] for name in ("href", "xlink:href") if name in attrs and tag != "a"]
        if "data-key" in attrs and attrs["aria-sort"] != "none":
            self.sorted[attrs["data-key"]] = attrs["aria-sort"]

    def handle_data(self, data):
        self.text += f" {data.strip()}" if data.strip() else ""


def fetched(text):
    """Return what a browser would fetch for a page, besides the page itself."""
    wanted = Page(text).loaded + re.findall(r"url\(\s*['\"]?([^)'\"]+)|@import\s+([^;]+)|\bimport\s*\(([^)]+)", text)
    wanted = ["".join(item) for item in wanted]
    return [item for item in wanted if not item.startswith(("data:", "#"))]


@pytest.fixture
def folder(tmp_path):
    """Three runs whose order by date is not alphabetical, one of them nested, and a fourth that cannot be read."""
    folder = tmp_path / "results"
    write_run(folder / "b", {"accuracy": (0.8, 0.7, 0.9)}, train=5.0, day=2)
    write_run(folder / "a", {"accuracy": (0.9, 0.8, 1.0)}, source="imdb", train=1000.0, day=1)
    write_run(folder / "of mine/c", {"f1": (0.1, 0.0, 0.2)}, train=70.0, tasks=["ner"])
    (folder / "broken").mkdir()
    (folder / "broken/metrics.json").write_text('{"metrics": {"accuracy": {"val')
    return folder


# --- what stands on it ----------------------------------------------------------------------------------------


def test_every_run_is_there_newest_first_and_the_unreadable_last(folder):
    path = write_gallery(folder)
    page = Page(path.read_text(encoding="utf-8"))
    assert path == folder / "index.html"
    assert page.runs == ["b", "a", "of mine/c", "broken"]
    assert page.sorted == {"date": "descending"}
    for text in ("0.800 (0.700 to 0.900)", "imdb", "480 train, 240 test", "bert-base-uncased", "bf16", "1003",
                 "2023-11-15", "ner", "classification", "EPOCHS", "transformers"):  # fmt: skip
        assert text in page.text, text
    assert "unreadable: metrics.json is not JSON, or only a part of it (Unterminated string" in page.text


def test_a_record_of_several_tasks_names_them_and_the_first_metric_of_each(tmp_path):
    names = ("classification/accuracy", "qa/f1", "qa/exact_match", "regression/pearson")
    tasks = ["classification", "qa", "regression"]
    data = {task: {"source": f"my {task}"} for task in tasks}
    write_run(tmp_path / "all", dict.fromkeys(names, (0.5, 0.4, 0.6)), data=data, tasks=tasks)
    (tmp_path / "all/history.json").unlink()
    for task in ("classification", "qa"):
        files.write_json(tmp_path / "all" / task / "history.json", history())
        files.write_text(tmp_path / "all" / task / "model/README.md", "card")
    write_run(tmp_path / "all/again")  # a run of its own: its curves are not the parent's
    page = Page(write_gallery(tmp_path).read_text(encoding="utf-8"))
    assert "classification, qa, regression" in page.text
    assert "qa: my qa" in page.text
    assert (page.text.count("qa/f1"), page.text.count("qa/exact_match")) == (2, 1)  # once among all numbers
    assert page.text.count("loss by epoch") == 3
    assert {"cards/all/qa/model.html", "cards/all/classification/model.html"} <= set(page.links)


@pytest.mark.parametrize(("findings", "shown"), [
    (FINDINGS, ["Diagnosis: leakage", "Findings leakage 3 rows of test"]), ([], ["Diagnosis: no finding"]), (None, []),
    ({"qa": FINDINGS, "ner": []}, ["Diagnosis: qa: leakage", "Findings qa: leakage"]),
])  # fmt: skip
def test_findings_are_shown_where_there_was_a_diagnosis(findings, shown, tmp_path):
    write_run(tmp_path / "run", findings=findings)
    text = Page(write_gallery(tmp_path).read_text(encoding="utf-8")).text
    assert [part for part in shown if part not in text] == []
    assert ("Diagnosis" in text) == (findings is not None)


def test_the_picture_shows_the_history(tmp_path):
    write_run(tmp_path / "a")
    text = write_gallery(tmp_path).read_text(encoding="utf-8")
    assert 'aria-label="loss by epoch, 1 to 3: train 0.7 to 0.2, validation 0.6 to 0.6"' in text
    lines = re.findall(r'polyline class="(\w+)" points="([^"]+)"', text)[2:]  # after the legend's
    width, height = gallery.WIDTH, gallery.HEIGHT
    assert lines[:2] == [
        ("train", f"0.0,0.0 {width / 2},{height * 0.4} {width}.0,{height}.0"),
        ("validation", f"0.0,{height * 0.2} {width / 2},{height * 0.3} {width}.0,{height * 0.2}"),
    ]
    assert [split for split, _ in lines] == ["train", "validation"] * 2  # loss, then accuracy


def test_a_run_that_was_not_evaluated_as_it_trained_shows_its_batches(tmp_path):
    write_run(tmp_path / "a", log=[{"loss": 1 / step, "epoch": step / 100} for step in range(1, 1001)])
    text = write_gallery(tmp_path).read_text(encoding="utf-8")
    (points,) = re.findall(r'polyline class="train" points="([^"]+)"', text)[1:]
    assert len(points.split()) <= 2 * gallery.POINTS
    assert points.split()[-1] == f"{gallery.WIDTH}.0,{gallery.HEIGHT}.0"
    assert "loss by epoch, 0.01 to 10: train 1 to 0.001" in text


@pytest.mark.parametrize("log", [[], [{"epoch": 1.0, "eval_validation_loss": None}], [{"loss": 1.0}]])
def test_a_history_without_a_loss_by_epoch_leaves_the_run_without_a_picture(log, tmp_path):
    write_run(tmp_path / "a", log=log)
    text = Page(write_gallery(tmp_path).read_text(encoding="utf-8")).text
    assert "history.json has no loss by epoch" in text
    assert "0.900 (0.800 to 1.000)" in text


def test_one_epoch_is_a_point_and_a_flat_line_is_flat(tmp_path):
    write_run(tmp_path / "a", log=history(EPOCHS[:1]))
    write_run(tmp_path / "b", log=history([(1, 0.5, 0.5, 0.9), (2, 0.5, 0.5, 0.9)]))
    text = write_gallery(tmp_path).read_text(encoding="utf-8")
    assert "nan" not in text.lower()
    assert f'points="0.0,{gallery.HEIGHT / 2} {gallery.WIDTH}.0,{gallery.HEIGHT / 2}"' in text


def test_a_page_of_somebody_else_is_not_replaced(folder):
    index = write_gallery(folder)
    assert write_gallery(folder) == index  # its own page is
    index.write_text("<h1>My photographs</h1>")
    with pytest.raises(ParameterError, match=r"is not a page of the gallery, and would be replaced; move it"):
        write_gallery(folder)
    assert index.read_text() == "<h1>My photographs</h1>"


def test_no_runs_is_a_page_that_says_how_to_make_one(tmp_path):
    text = write_gallery(tmp_path / "results").read_text(encoding="utf-8")
    assert "No runs yet" in text
    assert "make run" in text
    assert "<table" not in text


def test_what_cannot_be_read_is_listed_with_its_reason_beside_the_good(tmp_path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "log", log=[{"loss": "high"}])
    os.mkfifo((tmp_path / "pipe").mkdir() or tmp_path / "pipe/metrics.json")
    files.write_json(tmp_path / "text/metrics.json", {"metrics": {"f1": {"value": "high"}}})
    page = Page(write_gallery(tmp_path).read_text(encoding="utf-8"))
    assert page.runs[0] == "good"
    for reason in (
        "metrics.json is no file, or is gone",
        'metrics.json does not have the expected form (metrics.f1.value is "high")',
        'history.json does not have the expected form ([0].loss is "high")',
    ):
        assert f"unreadable: {reason}" in page.text


def test_a_record_with_less_than_ours_is_shown_as_far_as_it_goes(tmp_path):
    content = {"metrics": {"f1": {"value": None}}, "parameters": {}, "data": {}}
    files.write_json(tmp_path / "old/metrics.json", content)
    page = Page(write_gallery(tmp_path).read_text(encoding="utf-8"))
    assert page.runs == ["old"]
    assert "unreadable" not in page.text
    assert "undefined" in page.text


# --- notebooks ------------------------------------------------------------------------------------------------


def test_a_run_links_the_notebook_that_wrote_it_and_the_rest_is_listed(folder):
    write_notebook(
        folder / "notebooks/01.ipynb", output_dir="results/a", injected="OUTPUT_DIR = './results/of mine/d/../c'"
    )
    write_notebook(folder / "notebooks/02.ipynb", output_dir="results/a", injected="EPOCHS = 5")
    error = nbformat.v4.new_output("error", ename="DataError", evalue="mine.csv: no such file", traceback=[])
    write_notebook(folder / "notebooks/failed.ipynb", error, output_dir="results/never")
    (folder / "notebooks/half.ipynb").write_text('{"cells": [')
    page = Page(write_gallery(folder).read_text(encoding="utf-8"))
    assert page.text.index("Run ") < page.text.index(" 02 ") < page.text.index(" 01 ")
    rest = page.text[page.text.index("Notebooks without a record") :]
    assert re.search(r"failed +DataError: mine.csv: no such file", rest)
    assert "half cannot be read as a notebook (Notebook does not appear to be JSON" in rest
    assert {"notebooks/01.html", "notebooks/02.html", "notebooks/failed.html"} <= set(page.links)
    assert "notebooks/half.html" not in page.links


def test_a_notebook_page_leads_to_the_next(folder):
    write_notebook(folder / "notebooks/01.ipynb", shown({"text/markdown": "[next](02_debug.ipynb) [all](../x.ipynb)"}))
    write_gallery(folder)
    links = Page((folder / "notebooks/01.html").read_text(encoding="utf-8")).links
    assert {"02_debug.html", "../x.ipynb"} <= set(links)


def test_a_notebook_page_holds_the_project_s_drawings_and_no_other_file(folder, tmp_path, monkeypatch):
    for name in ("docs/drawings/here.svg", "docs/other.svg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("<svg/>")
    monkeypatch.chdir(tmp_path)
    images = ("docs/drawings/here.svg", "docs/drawings/gone.svg", "docs/other.svg")
    write_notebook(
        folder / "notebooks/01.ipynb", shown({"text/markdown": " ".join(f"![a picture](../{name})" for name in images)})
    )
    write_gallery(folder)
    sources = re.findall(r'<img[^>]* src="(.*?)"', (folder / "notebooks/01.html").read_text(encoding="utf-8"))
    assert sources == ["data:image/svg+xml;base64,PHN2Zy8+", "../docs/drawings/gone.svg", "../docs/other.svg"]


def test_a_page_is_converted_again_only_when_its_notebook_changed(folder):
    path = write_notebook(folder / "notebooks/01.ipynb", shown({"text/plain": "one"}))
    write_gallery(folder)
    page = folder / "notebooks/01.html"
    os.utime(page, (1, 1))
    write_gallery(folder)
    assert page.stat().st_mtime == 1
    write_notebook(path, shown({"text/plain": "another"}))
    write_gallery(folder)
    assert "another" in page.read_text()


def test_links_lead_to_files_whatever_their_names(tmp_path):
    for name in ("a b", "a#b?c=d", "100%25", "javascript:alert(1)", "ünïcode 🎬", "'\"<&>", "--x", "results\\x"):
        write_run(tmp_path / name)
        files.write_text(tmp_path / name / "model/README.md", "card")
    shutil.copytree(tmp_path / "a b", tmp_path / os.fsdecode(b"not utf-8 \xff"))
    write_notebook(tmp_path / "notebooks/my #1.ipynb", output_dir="results/a b")
    links = Page(write_gallery(tmp_path).read_text(encoding="utf-8")).links
    assert len(links) == 19
    for link in links:
        assert re.fullmatch(r"[\w./%~-]+", link, re.ASCII), link
        assert os.path.isfile(os.path.join(os.fsencode(tmp_path), os.fsencode(unquote(link, errors="surrogateescape"))))


# --- what is somebody else's ----------------------------------------------------------------------------------

MENTION = "<p>Made by <code>python -m bert_helpers gallery</code>, bert_helpers gallery</p>"


def everything(folder):
    """Write a run with a card, and a notebook; return the pages that the gallery writes for them."""
    write_run(folder / "a")
    files.write_text(folder / "a/model/README.md", "# card")
    write_notebook(folder / "notebooks/01.ipynb", shown({"text/plain": "one"}))
    return [folder / "notebooks/01.html", folder / "cards/a/model.html"]


@pytest.mark.parametrize("content", ["", "my own notes", MENTION, f"<html><head></head>{'x' * 2000}{MARK_OF_OURS}"])
def test_a_page_that_is_not_the_gallerys_stays_and_is_said(content, tmp_path):
    written = everything(tmp_path)
    for page in written:
        files.write_text(page, content)
    text = Page(write_gallery(tmp_path).read_text(encoding="utf-8")).text
    assert [page.read_text() for page in written] == [content] * 2
    assert text.count("is not a page of the gallery, and would be replaced") == 2
    for page in written:
        page.unlink()
    write_gallery(tmp_path)
    write_gallery(tmp_path)  # it recognises its own pages
    assert all(MARK_OF_OURS in page.read_text() for page in written)


@pytest.mark.parametrize("linked", ["notebooks/01.html", "cards/a/model.html", "cards", "cards/a", "notebooks"])
@pytest.mark.parametrize("there", [True, False])
def test_no_page_is_written_through_a_link(linked, there, tmp_path):
    folder, target = tmp_path / "results", tmp_path / "target"
    everything(folder)
    if linked == "notebooks":  # with the notebook in it
        (folder / "notebooks").rename(target)
    elif Path(linked).suffix:
        target.write_text("mine") if there else None
    else:
        (target / "a" / "model").mkdir(parents=True)
    (folder / linked).parent.mkdir(parents=True, exist_ok=True)
    (folder / linked).symlink_to(target)
    before = sorted(tmp_path.rglob("*")), target.read_text() if target.is_file() else None
    write_gallery(folder)
    outside = [path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)]
    assert outside == [path for path in before[0] if not path.is_relative_to(folder)]
    assert (target.read_text() if target.is_file() else None) == before[1]
    assert (folder / linked).is_symlink()


SECRET = "the private text"


@pytest.mark.parametrize(("place", "content"), [
    ("a/model/README.md", SECRET), ("a/model", {"README.md": SECRET}), ("notebooks/02.ipynb", None),
    ("a/history.json", f'[{{"{SECRET}": 1}}]'), ("a/metrics.json", f'{{"metrics": {{"{SECRET}": "{SECRET}"}}}}'),
])  # fmt: skip
def test_what_a_link_leads_to_is_not_copied_into_a_page(place, content, tmp_path):
    folder, target = tmp_path / "results", tmp_path / "private"
    write_run(folder / "a")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).unlink(missing_ok=True)
    if content is None:
        write_notebook(target, shown({"text/plain": SECRET}))
    elif isinstance(content, dict):
        files.write_text(target / "README.md", content["README.md"])
    else:
        files.write_text(target, content)
    (folder / place).symlink_to(target)
    index = write_gallery(folder)
    assert "lies behind a link, or is one" in Page(index.read_text(encoding="utf-8")).text
    assert not [page for page in folder.rglob("*.html") if SECRET in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("task", ["../../private", "/private", "\0", "x" * 300])
def test_the_tasks_of_a_record_lead_nowhere_else(task, tmp_path):
    private = tmp_path / "private"
    files.write_text(private / "model/README.md", SECRET)
    task = str(private) if task == "/private" else task
    write_run(tmp_path / "results/a", {f"{task}/f1": (0.5, 0.4, 0.6)}, data={task: {"source": "x"}}, tasks=[task])
    before = sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "results"))
    index = write_gallery(tmp_path / "results")
    assert SECRET not in "".join(page.read_text() for page in (tmp_path / "results").rglob("*.html"))
    assert Page(index.read_text(encoding="utf-8")).runs == ["a"]
    assert sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "results")) == before


@pytest.mark.parametrize("place", ["notebooks/x.ipynb", "a/metrics.json", "b/history.json", "b/model/README.md"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_opened(kind, place, tmp_path):
    """Reading a pipe would wait for it, reading a device would never end."""
    write_run(tmp_path / "b")
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    text = Page(write_gallery(tmp_path).read_text(encoding="utf-8")).text
    assert "0.900 (0.800 to 1.000)" in text


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    write_run(tmp_path / "a")
    everything(tmp_path)
    for place in ("a/metrics.json", "a/model/README.md", "notebooks/01.ipynb"):
        with (tmp_path / place).open("a") as file:
            file.truncate(600_000_000)  # a hole: it takes no room on the disk
    started = time.process_time()
    assert Page(write_gallery(tmp_path).read_text(encoding="utf-8")).text.count("is larger than") == 2
    assert time.process_time() - started < 2


def test_a_run_that_is_being_written_is_not_listed(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "a/.staged/a")
    assert Page(write_gallery(tmp_path).read_text(encoding="utf-8")).runs == ["a"]


def test_a_date_beyond_the_calendar_is_shown_as_its_end(tmp_path):
    os.utime(write_run(tmp_path / "a"), (1e12, 1e12))
    assert "2106" in write_gallery(tmp_path).read_text(encoding="utf-8")


# --- model cards ----------------------------------------------------------------------------------------------


def test_a_card_is_a_page_of_the_gallery(folder):
    card = "---\ntags:\n- hidden\n---\n\n# `a`\n\n| metric | value |\n| --- | --- |\n| f1 | 0.9 |\n"
    files.write_text(folder / "a/model/README.md", card)
    (folder / "b/model").mkdir()
    (folder / "b/model/README.md").write_bytes(b"\xff")  # edited by hand
    page = Page(write_gallery(folder).read_text(encoding="utf-8"))
    assert "Model card is not UTF-8 text" in page.text
    assert [link for link in page.links if "cards" in link] == ["cards/a/model.html"]
    shown = (folder / "cards/a/model.html").read_text(encoding="utf-8")
    assert "<td>f1</td>" in shown
    assert "hidden" not in shown
    for link in Page(shown).links:
        assert (folder / "cards/a" / link).resolve() in (folder / "index.html", folder / "a/model/README.md")
    os.utime(folder / "cards/a/model.html", (1, 1))
    write_gallery(folder)
    assert (folder / "cards/a/model.html").stat().st_mtime == 1  # it is up to date
    files.write_text(folder / "a/model/README.md", "another")
    write_gallery(folder)
    assert "another" in (folder / "cards/a/model.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("plant", [*PLANTS.values(), f"[x](javascript:{MARK})", "![x](http://x.y/z.png)"])
def test_what_is_planted_in_a_card_is_text_or_not_fetched(plant, folder):
    files.write_text(folder / "a/model/README.md", f"# {plant}\n\n{plant}\n\n| {plant} |\n| --- |\n| `{plant}` |\n")
    write_gallery(folder)
    page = folder / "cards/a/model.html"
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in POLICY.search(text)[0]
    assert [item for item in live(text) if item != "img" or "http" not in plant] == []
    if CHROMIUM:
        page.write_text(POLICY.sub("", text), encoding="utf-8")
        assert not marked(page_after_scripts(page))


@pytest.mark.parametrize("deep", ["[" * 50_000, "> " * 50_000, "*_" * 50_000, "- " * 50_000])
def test_a_card_of_brackets_ends(deep, folder):
    files.write_text(folder / "a/model/README.md", deep)
    started = time.process_time()
    write_gallery(folder)
    assert time.process_time() - started < 5


# --- no network, nothing planted lives ------------------------------------------------------------------------


def test_no_page_asks_for_anything_from_elsewhere(folder):
    path = write_notebook(folder / "notebooks/01.ipynb", shown({"text/html": "<b>bold</b>", "text/plain": "bold"}))
    pages = [write_gallery(folder), folder / "notebooks/01.html"]
    assert [fetched(page.read_text(encoding="utf-8")) for page in pages] == [[], []]
    as_it_comes, _ = HTMLExporter().from_filename(str(path))
    assert [item for item in fetched(as_it_comes) if "cdnjs" in item]  # the search sees what nbconvert loads
    for page in pages:  # and what a notebook's output asks for, the browser refuses
        assert "default-src 'none'" in POLICY.search(page.read_text(encoding="utf-8"))[0]


def planted(folder, plant):
    """Write a run, a broken run and a notebook, with the plant wherever foreign text may be."""
    name = folder / plant  # a slash in it makes a folder below
    write_run(
        name,
        {f"{plant}/accuracy": (0.5, 0.4, 0.6), plant: (0.1, 0.0, 0.2)},
        source=plant,
        parameters={plant: plant},
        data={"source": plant, "rows": {plant: 3}},
        tasks=[plant],
        model=plant,
        device=plant,
        precision=plant,
        versions={plant: plant},
        seconds={plant: 1.0},
        findings={plant: [{"finding": plant, "symptom": plant}]},
    )
    files.write_text(name / "model/README.md", plant)
    files.write_json(folder / f"bad{plant}" / "metrics.json", {"metrics": {plant: plant}})
    error = nbformat.v4.new_output("error", ename=plant, evalue=plant, traceback=[plant])
    write_notebook(folder / "notebooks" / f"{plant.replace('/', '')}.ipynb", error)
    return write_gallery(folder)


# Each navigates away or opens a connection by itself; the policy does not prevent that.
ACTING = [
    '<meta http-equiv="refresh" content="0;url=http://x.y/">', "<META\nHTTP-EQUIV=refresh CONTENT='0;http://x.y'>",
    "<svg><foreignObject><meta/http-equiv=refresh content=0;http://x.y></foreignObject></svg>",
    '<link rel="preconnect" href="http://x.y">', '<link rel="dns-prefetch" href="//x.y">', "<lInK\trel=icon href=/>",
    '<base href="http://x.y/">', '<iframe srcdoc="&lt;meta http-equiv=refresh content=0;http://x.y&gt;"></iframe>',
    '<object data="http://x.y"></object>', '<embed src="http://x.y">', "<frameset><frame src=http://x.y></frameset>",
]  # fmt: skip


@pytest.mark.parametrize("acting", ACTING)
def test_no_page_of_a_notebook_goes_elsewhere_or_connects(acting, tmp_path):
    path = write_notebook(tmp_path / "notebooks/01.ipynb", shown({"text/html": f"<b>{acting}</b>"}), code=acting)
    notebook = nbformat.read(path, as_version=4)
    outputs = [{"text/markdown": acting}, {"image/svg+xml": acting}, {"text/latex": acting}, {"image/png": acting}]
    error = nbformat.v4.new_output("error", ename=acting, evalue=acting, traceback=[acting])
    notebook.cells[-1].outputs += [*map(shown, outputs), error]
    notebook.cells += [nbformat.v4.new_markdown_cell(acting), nbformat.v4.new_raw_cell(acting)]
    notebook.metadata["title"] = acting
    nbformat.write(notebook, path)
    write_gallery(tmp_path)
    text = (tmp_path / "notebooks/01.html").read_text(encoding="utf-8")
    body = text[text.index("</head>") :]
    assert not re.search(r"<(meta|link|base|iframe|frame|frameset|object|embed)\b", body, re.IGNORECASE)
    found = re.findall(r"<(?:meta|link|base)\b[^>]*", text[: text.index("</head>")])
    assert [tag for tag in found if not re.search("charset=|viewport|generator|Content-Security-Policy", tag)] == []
    assert "&lt;" in body


@browser
@pytest.mark.parametrize(
    "acting", ['<meta http-equiv="refresh" content="0;url=URL">', '<link rel="preconnect" href="URL">']
)
def test_a_browser_opens_no_connection_for_the_page_of_a_notebook(acting, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        acting = acting.replace("URL", f"http://127.0.0.1:{server.getsockname()[1]}/")
        write_notebook(tmp_path / "notebooks/01.ipynb", shown({"text/html": acting, "text/plain": "x"}))
        write_gallery(tmp_path)
        page = tmp_path / "notebooks/01.html"
        page_after_scripts(page, "", "--timeout=1500")
        with pytest.raises(BlockingIOError):
            server.accept()
        page.write_text(page.read_text(encoding="utf-8").replace("&lt;", "<"), encoding="utf-8")
        line = [CHROMIUM, *HEADLESS, "--timeout=1500", "--dump-dom", page.as_uri()]
        subprocess.run(line, check=False, timeout=60, capture_output=True)
        server.accept()[0].close()  # the policy alone would not have prevented it


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_text(plant, tmp_path):
    text = planted(tmp_path / "a", PLANTS[plant]).read_text(encoding="utf-8")
    harmless = planted(tmp_path / "b", re.sub("[^/]", "x", PLANTS[plant]))
    sorted_by = re.compile(' data-(sort|group)="[^"]*"')  # an address in it is not a link
    assert live(sorted_by.sub("", text)) == live(sorted_by.sub("", harmless.read_text(encoding="utf-8")))
    assert html.escape(PLANTS[plant]).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in text  # it is shown


@pytest.fixture(scope="module")
def all_planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    return [planted(folder, plant) for plant in PLANTS.values()][-1]


@browser
def test_nothing_planted_lives_in_the_gallery_even_without_its_policy(all_planted):
    text = all_planted.read_text(encoding="utf-8")
    all_planted.write_text(POLICY.sub("", text), encoding="utf-8")
    assert not marked(page_after_scripts(all_planted))


@browser
def test_the_policy_stops_what_a_notebook_put_out(folder):
    outputs = [shown({"text/html": plant, "text/plain": ""}) for plant in PLANTS.values()]
    write_notebook(folder / "notebooks/01.ipynb", *outputs, shown({"application/javascript": MARK, "text/plain": "x"}))
    index, page = write_gallery(folder), folder / "notebooks/01.html"
    assert not marked(page_after_scripts(page))
    page.write_text(POLICY.sub("", page.read_text(encoding="utf-8")), encoding="utf-8")
    assert marked(page_after_scripts(page))  # it is the policy that does
    index.write_text(index.read_text(encoding="utf-8").replace("</main>", f"<script>{MARK}</script></main>"))
    assert not marked(page_after_scripts(index))


# --- in the browser -------------------------------------------------------------------------------------------

# Clicked one after the other, each heading twice: equal runs keep their order, runs without a value come last.
CLICKS = [
    ("run", "ascending", ["a", "b", "broken", "of mine/c"]),
    ("run", "descending", ["of mine/c", "broken", "b", "a"]),
    ("task", "ascending", ["b", "a", "of mine/c", "broken"]),
    ("task", "descending", ["of mine/c", "b", "a", "broken"]),
    ("result", "descending", ["a", "b", "of mine/c", "broken"]),
    ("result", "ascending", ["b", "a", "of mine/c", "broken"]),  # accuracies, then the F1 of another task
    ("data", "ascending", ["a", "b", "of mine/c", "broken"]),
    ("data", "descending", ["b", "of mine/c", "a", "broken"]),
    ("seconds", "descending", ["a", "of mine/c", "b", "broken"]),
    ("seconds", "ascending", ["b", "of mine/c", "a", "broken"]),
    ("date", "descending", ["b", "a", "of mine/c", "broken"]),
    ("date", "ascending", ["of mine/c", "a", "b", "broken"]),
]
CLICK = """<script>
const seen = KEYS.map(key => {
  document.querySelector(`[data-key=${key}] button`).click();
  const sorted = [...document.querySelectorAll("[aria-sort]:not([aria-sort=none])")];
  const runs = [...document.querySelectorAll("[role=rowheader]")].map(cell => cell.textContent);
  return [...sorted.map(head => head.dataset.key), ...sorted.map(head => head.getAttribute("aria-sort")), runs];
});
document.title = JSON.stringify(seen) + location.hash;
</script></body>"""


@browser
def test_a_click_sorts_and_another_turns_the_order(folder):
    path = write_gallery(folder)
    click = CLICK.replace("KEYS", json.dumps([key for key, _, _ in CLICKS]))
    path.write_text(POLICY.sub("", path.read_text(encoding="utf-8")).replace("</body>", click), encoding="utf-8")
    title = re.search("<title>(.*?)</title>", page_after_scripts(path), re.DOTALL)[1]
    seen, address = title.rsplit("#", 1)
    assert [tuple(click) for click in json.loads(seen)] == CLICKS
    assert address == "sort=date"


@browser
@pytest.mark.parametrize(("fragment", "order"), [
    ("#sort=seconds", ["b", "of mine/c", "a", "broken"]), ("#sort=-run", ["of mine/c", "broken", "b", "a"]),
    ("#sort=nothing", ["b", "a", "of mine/c", "broken"]), ("#sort=x'];alert(1)", ["b", "a", "of mine/c", "broken"]),
])  # fmt: skip
def test_the_address_keeps_the_order_under_the_policy(fragment, order, folder):
    assert Page(page_after_scripts(write_gallery(folder), fragment)).runs == order


MEASURE = """<script>
document.querySelectorAll("details").forEach(details => details.open = true);
const clipped = [...document.querySelectorAll("body *")].filter(
  element => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX === "hidden");
document.title = JSON.stringify([document.documentElement.scrollWidth, clipped.map(element => element.className)]);
</script></body>"""
# A window is never narrower than 500 pixels, but a frame may be.
FRAMES = """<html><head></head><body><script>
onload = () => document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(
  frame => [frame.contentWindow.innerWidth, ...JSON.parse(frame.contentDocument.title)]));
</script>"""


@browser
def test_no_page_scrolls_sideways_or_clips(folder):
    long, widths = "x" * 250, [320, 400, 800, 1100, 1300]
    write_run(folder / long, {long: (1e90, 1e90, 1e90)}, source=long, model=long, parameters={long: long})
    table = pd.DataFrame([["a cell"] * 40]).to_html()
    write_notebook(
        folder / "notebooks/01.ipynb", shown({"text/html": table, "text/plain": "x" * 500}), code="wide = 1  # " * 50
    )
    frames = ""
    files.write_text(folder / "a/model/README.md", f"# `{long}`\n\n{long}\n\n    {long}\n")
    for page in (write_gallery(folder), folder / "notebooks/01.html", folder / "cards/a/model.html"):
        text = POLICY.sub("", page.read_text(encoding="utf-8")).replace("</body>", MEASURE)
        page.write_text(text, encoding="utf-8")
        source = page.relative_to(folder).as_posix()
        frames += "".join(f'<iframe src="{source}" width="{width}" height="900"></iframe>' for width in widths)
    (folder / "frames.html").write_text(f"{FRAMES}{frames}</body></html>")
    # Without the flag a page from disk may not look into another.
    dom = page_after_scripts(folder / "frames.html", "", "--allow-file-access-from-files")
    measured = json.loads(re.search("<title>(.*?)</title>", dom)[1])
    assert [width for width, _, _ in measured] == 3 * widths
    assert not [row for row in measured if row[1] > row[0] or row[2]]


# --- writing it -----------------------------------------------------------------------------------------------


def test_a_page_that_cannot_be_written_leaves_the_one_before(folder, monkeypatch):
    path = write_gallery(folder)
    before = path.read_bytes()
    write_run(folder / "more")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(ParameterError, match=r"index.html: cannot be written \(No space left on device\)"):
        write_gallery(folder)
    assert path.read_bytes() == before
    assert not list(folder.glob(".index*"))


@pytest.mark.parametrize(("error", "status"), [(None, 0), ("DataError: no such file", 2), ("OSError: full", 1)])
def test_no_room_for_a_page_is_one_error_and_the_status_is_that_of_the_notebooks(
    error, status, folder, monkeypatch, capsys
):
    before = write_gallery(folder).read_bytes()
    files.write_text(folder / "a/model/README.md", "card")
    page, replace = Path("results/cards/a/model.html"), os.replace

    def full(source, target):
        if Path(target) == page:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    monkeypatch.chdir(folder.parent)
    row = {"notebook": "01.ipynb", "seconds": 1.0, "error": error, "record": Path("results/a/metrics.json")}
    monkeypatch.setattr(notebooks, "run_notebooks", lambda *args: [row])
    assert cli.main(["run", "01.ipynb"]) == status
    out, err = capsys.readouterr()
    assert "01.ipynb" in out
    assert err.startswith(f"ParameterError: {page}: cannot be written (No space left on device)")
    assert (folder / "index.html").read_bytes() == before
    assert not list((folder / page.relative_to("results")).parent.glob(".*"))


def test_two_hundred_runs_take_seconds(tmp_path):
    write_run(tmp_path / "0", log=history([(epoch, 1 / epoch, 1 / epoch, 0.5) for epoch in range(1, 21)]))
    for i in range(1, 200):
        shutil.copytree(tmp_path / "0", tmp_path / str(i))
    started = time.process_time()
    path = write_gallery(tmp_path)
    assert time.process_time() - started < 5
    assert path.stat().st_size < 3_000_000
    assert len(Page(path.read_text(encoding="utf-8")).runs) == 200


@pytest.mark.parametrize(("error", "status"), [(None, 0), ("DataError: no such file", 2), ("OSError: full", 1)])
def test_run_ends_with_the_page(error, status, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    row = {"notebook": "01.ipynb", "seconds": 1.0, "error": error, "record": Path("results/a/metrics.json")}
    monkeypatch.setattr(notebooks, "run_notebooks", lambda paths, parameters: [row])
    assert cli.main(["run", "01.ipynb"]) == status
    assert capsys.readouterr().out.splitlines()[-1] == str(Path("results/index.html"))
    assert (folder / "index.html").is_file()


def test_a_training_ends_with_the_page_and_is_well_without_it(folder, monkeypatch, capsys):
    """How `train` calls it: tests/test_cli.py."""
    monkeypatch.chdir(folder.parent)
    commands._refresh_gallery(Path("results/run"))
    assert capsys.readouterr() == ("", f"gallery: {Path('results/index.html')}\n")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    commands._refresh_gallery(Path("results/run"))
    assert "no gallery: " in capsys.readouterr().err


def test_the_gallery_by_itself(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    assert cli.main(["gallery"]) == 0
    assert capsys.readouterr().out == f"{Path('results/index.html')}\n"
    (folder.parent / "file").write_text("")
    assert cli.main(["gallery", "file"]) == 2
    assert "file/index.html: cannot be written" in capsys.readouterr().err
