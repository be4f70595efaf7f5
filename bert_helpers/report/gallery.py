"""One page of all runs, `index.html`: a scoreboard made from their records, which opens from disk."""

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import mistune
import pandas as pd

from bert_helpers import records
from bert_helpers.errors import DataError, ParameterError
from bert_helpers.metrics import format_interval
from bert_helpers.records import Record
from bert_helpers.report.notebook_pages import NotebookPage, write_pages
from bert_helpers.report.pages import check_page, read_own, update_page, write_page
from bert_helpers.report.templates import FOLDER, render

# Key, title, and how the column is sorted; numbers start with the greatest.
COLUMNS = [
    ("run", "Run", "text"),
    ("task", "Task", "text"),
    ("result", "Result (95% interval)", "number"),
    ("data", "Data", "text"),
    ("model", "Model", "text"),
    ("device", "Device", "text"),
    ("seconds", "Seconds", "number"),
    ("date", "Date", "number"),
]
SCORES = ("accuracy", "f1", "pearson")  # the first one in a history is drawn next to the loss
WIDTH, HEIGHT, POINTS = 160, 60, 200  # of a picture, and the approximate number of points per line
LAST = 2**32  # the latest second to show as a date: files may have times beyond the calendar
CARD_PAGE = "".join((FOLDER / f"{name}.j2").read_text(encoding="utf-8") for name in ("card.html", "page.css"))


def write_gallery(folder: Path) -> Path:
    """Write `index.html` of all runs below `folder`, newest first, and HTML pages of its executed notebooks.

    A run is a metrics.json and the files of its folder; one that cannot be read is listed with the reason. The page
    loads nothing but files below `folder`. Returns its path.

    Raises ParameterError if a page cannot be written, which leaves an earlier one unchanged, or if the folder's
    index.html is not ours.
    """
    index = folder / "index.html"
    try:
        check_page(index, folder)
    except DataError as error:
        fix = "move it, or name the folder of the runs"
        raise ParameterError(error.problem, source=str(index), fix=fix) from error
    pages = write_pages(folder)
    # os.walk tolerates folders that vanish meanwhile: a training that ends removes its checkpoints.
    paths = sorted(Path(at, records.NAME) for at, _, names in os.walk(folder) if records.NAME in names)
    paths = [path for path in paths if "/." not in path.relative_to(folder.parent).as_posix()]  # of runs being written
    folders = {path.parent.relative_to(folder) for path in paths}
    runs = [_run(path, folder, pages) for path in paths]
    runs.sort(key=lambda run: (run["error"] is None, run["date"]), reverse=True)
    html = render(
        "gallery.html",
        columns=COLUMNS,
        runs=runs,
        notebooks=[_notebook(page, folder) for page in pages if page.output_dir not in folders],
        folder=folder.resolve().name,
        built=datetime.now(),
        width=WIDTH,
        height=HEIGHT,
    )
    write_page(index, "gallery", html)
    return index


def _run(path: Path, folder: Path, pages: Sequence[NotebookPage]) -> dict[str, object]:
    """Return what the page shows of a run; if its record cannot be read, `error` says why."""
    parent = path.parent
    shown = {
        "name": parent.relative_to(folder).as_posix(),
        "href": _href(path, folder),
        "date": datetime.fromtimestamp(min(max(path.lstat().st_mtime, 0), LAST)),
        "notebooks": [_notebook(page, folder) for page in pages if page.output_dir == parent.relative_to(folder)],
        "cards": [],
        "curves": {},
        "error": None,
    }
    try:
        read_own(path, folder)
        record = records.read(parent)
        parts = {task: parent / task for task in record.tasks} if record.has_several_tasks else {"": parent}
        curves, cards = {}, []
        for part, at in parts.items():
            history, card = at / "history.json", at / "model" / "README.md"
            if os.path.isfile(history):
                read_own(history, folder)
                curves[part] = _panels(records.read_history(history))
            if os.path.isfile(card):
                cards.append(_card(part, card, folder))
        return {**shown, **_facts(record), "cards": cards, "curves": curves}
    except DataError as error:
        return {**shown, "error": f"{Path(error.source).name} {error.problem}"}


def _facts(record: Record) -> dict[str, object]:
    """Return what the page derives from a record, and the record itself."""
    headline = record.headline()
    metric = next(iter(headline), "")
    part, _, name = metric.rpartition("/")
    data = record.data if record.has_several_tasks else {"": record.data}
    sources = {task: described.get("source") or "–" for task, described in data.items()}
    same = len(set(sources.values())) == 1
    findings = record.findings if isinstance(record.findings, dict) else {"": record.findings or []}
    seconds = {f"seconds, {name}": f"{value:g}" for name, value in record.seconds.items()}
    return {
        "record": record,
        "headline": {name: format_interval(score) for name, score in headline.items()},
        "metrics": {name: format_interval(score) for name, score in record.metrics.items()},
        "score": headline[metric]["value"] if headline else None,
        # Scores are sorted within one task and metric; others cannot be compared.
        "group": f"{part if part in record.tasks else ', '.join(record.tasks)} {name}",
        "sources": [*sources.values()][:1] if same else [f"{task}: {source}" for task, source in sources.items()],
        "rows": {} if record.has_several_tasks else record.data.get("rows"),
        "findings": {
            f"{task}: {row['finding']}" if task else row["finding"]: row["symptom"]
            for task, rows in findings.items()
            for row in rows
        },
        "seconds": sum(record.seconds.values()) if record.seconds else None,
        "made_with": {"seed": record.seed, **seconds, **record.versions},
    }


def _card(part: str, card: Path, folder: Path) -> dict[str, str | None]:
    """Write the HTML page of a part's model card if it is missing or outdated: `cards/` has the same folders as runs.

    A card may come from anywhere: HTML in it is shown as text, and the page's policy keeps pictures from being fetched.
    """
    place = Path(os.path.relpath(card.parent, folder))  # a damaged record may lead anywhere
    up = "../" * len(place.parts)

    def convert(text: str) -> str:
        body = re.sub(r"\A---\r?\n.*?\n---\r?\n", "", text, flags=re.DOTALL)
        return render(
            "card.html",
            name=place.parent.as_posix(),
            card=mistune.create_markdown(escape=True, plugins=["table"])(body),
            index=f"{up}index.html",
            source=f"{up}{_href(card, folder)}",
        )

    page = folder / "cards" / place.with_suffix(".html")
    try:
        update_page(page, card, folder, convert, version=CARD_PAGE)
    except DataError as error:
        return {"name": part, "href": None, "error": error.problem}
    return {"name": part, "href": _href(page, folder), "error": None}


def _notebook(page: NotebookPage, folder: Path) -> dict[str, str | None]:
    return {"name": page.notebook.stem, "href": page.page and _href(page.page, folder), "error": page.error}


def _href(path: Path, folder: Path) -> str:
    return quote(os.fsencode(path.relative_to(folder).as_posix()))


# --- curves ------------------------------------------------------------------------------------------------


def _panels(log: Sequence[dict[str, float | None]]) -> list[dict[str, object]]:
    """Return the curves of the loss by epoch and of one score; none if a history has no loss by epoch.

    They are drawn as SVG in the page's colours, dark or light: 3 ms and 2 kB per run (matplotlib: 190 ms and 37 kB).
    """
    entries = [entry for entry in log if entry.get("epoch") is not None]
    table = records.history_table(entries)
    if table.empty:  # no evaluation during training: there is only the loss of the batches
        losses = {entry["epoch"]: {"train_loss": entry["loss"]} for entry in entries if "loss" in entry}
        table = pd.DataFrame.from_dict(losses, orient="index")
    table = table.astype(float).dropna(axis="columns", how="all").sort_index()
    scores = ["loss", *[name for name in SCORES if f"validation_{name}" in table][:1]]
    return [_panel(table, score) for score in scores if f"train_{score}" in table]


def _panel(table: pd.DataFrame, score: str) -> dict[str, object]:
    splits = [split for split in ("train", "validation") if f"{split}_{score}" in table]
    values = {split: table[f"{split}_{score}"].dropna() for split in splits}
    low, high = min(v.min() for v in values.values()), max(v.max() for v in values.values())
    first, last = table.index.min(), table.index.max()
    words = [f"{split} {line.iloc[0]:.3g} to {line.iloc[-1]:.3g}" for split, line in values.items()]
    lines = {}
    for split, line in values.items():
        x = [_scaled(epoch, first, last, WIDTH) for epoch in line.index]
        y = [HEIGHT - _scaled(value, low, high, HEIGHT) for value in line]
        lines[split] = [*zip(x, y, strict=True)][:: -max(1, len(x) // POINTS)][::-1]
    return {
        "score": score,
        "lines": lines,  # points in a box of WIDTH by HEIGHT, by split
        "scale": (f"{low:.3g}", f"{high:.3g}"),
        "epochs": (f"{first:.3g}", f"{last:.3g}"),
        "words": f"{score} by epoch, {first:.3g} to {last:.3g}: {', '.join(words)}",  # for those who cannot see it
    }


def _scaled(value: float, low: float, high: float, size: int) -> float:
    return round(size * (value - low) / (high - low), 1) if high > low else size / 2
