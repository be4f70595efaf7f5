"""One page over all runs, `index.html`: a scoreboard made from their records, that opens from disk."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import mistune
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from bert_helpers.errors import DataError, ParameterError
from bert_helpers.metrics import format_interval, headline
from bert_helpers.report.notebook_pages import NotebookPage, write_pages
from bert_helpers.results import write_text
from bert_helpers.training import history_table

# Key, title, and what the column sorts by; numbers start with the greatest.
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
# A metric that only one task has tells which it was.
SIGNS = {"accuracy": "classification", "exact_match": "qa", "pearson": "regression", "token_accuracy": "ner"}
SCORES = ("accuracy", "f1", "pearson")  # the first that a history has is drawn beside the loss
WIDTH, HEIGHT, POINTS = 160, 60, 200  # of a picture, and about how many points a line may have
RECORD = "metrics.json"
LARGEST = 5_000_000  # bytes of a record, a history or a card; a run writes kilobytes
LONGEST = 300  # characters of a text
MADE_BY = "python -m bert_helpers gallery"  # stands at the end of its page
SIGNATURE = '<meta name="generator" content="bert_helpers gallery {}">'  # of a card's page, with a digest
CARD_PAGE = b"".join(Path(__file__).with_name(f"{name}.j2").read_bytes() for name in ("card.html", "page.css"))


@dataclass(frozen=True)
class Panel:
    """One score by epoch: lines as points in a box of WIDTH by HEIGHT, by split."""

    score: str
    lines: dict[str, list[tuple[float, float]]]
    scale: tuple[str, str]  # least and greatest score
    epochs: tuple[str, str]  # first and last
    words: str  # for those who cannot see it


@dataclass(frozen=True)
class Curves:
    """The panels of one history.json, or the reason why there are none."""

    name: str  # its folder, where a run has several
    panels: list[Panel]
    error: str | None = None


def write_gallery(folder: Path) -> Path:
    """Write `index.html` over all runs below `folder`, newest first, and HTML pages of its executed notebooks.

    A run is a metrics.json and what stands beside it; one that cannot be read is listed with the reason. The page
    asks for nothing but files below `folder`. Returns its path.

    Raises ParameterError when a page cannot be written, and an earlier one stays as it was; also when the folder's
    index.html is somebody else's.
    """
    index = folder / "index.html"
    if _is_foreign(index):
        raise ParameterError(
            f"{index}: is no page of the gallery, and would be replaced; move it, or name the folder of the runs."
        )
    pages = write_pages(folder / "notebooks")
    # Folders may go while this looks: a training that ends removes its checkpoints.
    records = sorted(Path(at, RECORD) for at, folders, files in os.walk(folder) if RECORD in (*folders, *files))
    folders = {path.parent for path in records}
    runs = [_run(path, folder, folders, pages) for path in records]
    runs.sort(key=lambda run: (run["error"] is None, run["date"] or datetime.min), reverse=True)
    html = _template("gallery").render(
        columns=COLUMNS,
        runs=runs,
        notebooks=[_notebook(page, folder) for page in pages if _owner(page, folder) not in folders],
        folder=folder.resolve().name,
        built=datetime.now(),
        made_by=MADE_BY,
        width=WIDTH,
        height=HEIGHT,
    )
    write_text(index, _encodable(html))
    _remove_stale(folder / "cards")
    return index


def _is_foreign(index: Path) -> bool:
    """Whether somebody else wrote the page; one that cannot be read cannot be written either, which says more."""
    try:
        return index.is_file() and MADE_BY not in index.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _remove_stale(pages: Path) -> None:
    """Remove pages of cards that are gone, and folders that this leaves empty; no file but the gallery's own."""
    for parent, _, names in list(os.walk(pages)):
        for page in (Path(parent, name) for name in names if name.endswith(".html")):
            card = pages.parent / page.relative_to(pages).with_suffix("") / "README.md"
            if os.path.isfile(card) or SIGNATURE.split("{}")[0] not in _head(page):
                continue
            page.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                os.removedirs(page.parent)


def _head(page: Path) -> str:
    """The first lines of a page, in which the gallery's own say that they are; of a link or no file none."""
    if page.is_symlink() or not os.path.isfile(page):
        return ""
    with page.open("rb") as file:
        return file.read(1000).decode("utf-8", "replace")


def _encodable(html: str) -> str:
    """Without lone surrogates, as in the name of a file that is not UTF-8."""
    return html.encode("utf-8", "replace").decode("utf-8")


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return environment.get_template(f"{name}.html.j2")


def _run(path: Path, folder: Path, folders: Collection[Path], pages: Sequence[NotebookPage]) -> dict[str, object]:
    """What the page shows of a run; where its record cannot be read, `error` says why and the facts are missing."""
    parent = path.parent
    shown = {
        "name": parent.relative_to(folder).as_posix(),
        "record": _href(path, folder),
        "date": _changed(path),
        "notebooks": [_notebook(page, folder) for page in pages if _owner(page, folder) == parent],
        "cards": [_card(card, parent, folder) for card in _files(parent, "model/README.md", folders)],
        "curves": [_curves(history, _part(history, parent)) for history in _files(parent, "history.json", folders)],
        "error": None,
    }
    try:
        return {**shown, **_facts(_read_json(path))}
    except DataError as error:
        return {**shown, "error": str(error)}


def _card(card: Path, parent: Path, folder: Path) -> dict[str, str | None]:
    """The part of a run that a model card is of, and its HTML page: `cards/` has the folders that runs have.

    One that is up to date is left as it is: most of the time would go into them. A card may come from anywhere: HTML in
    it is shown as text, and the page's policy keeps pictures from being fetched.
    """
    shown = {"name": _part(card.parent, parent), "href": None, "error": None}
    try:
        text = _read_text(card)
    except DataError as error:
        return {**shown, "error": str(error)}
    page = folder / "cards" / card.parent.relative_to(folder).with_suffix(".html")
    signature = SIGNATURE.format(hashlib.sha256(text.encode() + CARD_PAGE).hexdigest())
    if signature not in _head(page):
        body = re.sub(r"\A---\r?\n.*?\n---\r?\n", "", text, flags=re.DOTALL)
        html = _template("card").render(
            signature=signature,
            name=card.parent.parent.relative_to(folder).as_posix(),
            card=mistune.create_markdown(escape=True, plugins=["table"])(body),
            index="../" * len(card.parent.relative_to(folder).parts) + "index.html",
            source="../" * len(card.parent.relative_to(folder).parts) + _href(card, folder),
        )
        write_text(page, _encodable(html))
    return {**shown, "href": _href(page, folder)}


def _owner(page: NotebookPage, folder: Path) -> Path | None:
    """The folder of the run that a notebook wrote."""
    return page.output_dir and folder / page.output_dir


def _notebook(page: NotebookPage, folder: Path) -> dict[str, str | None]:
    return {"name": page.notebook.stem, "href": page.page and _href(page.page, folder), "error": page.error}


def _href(path: Path, folder: Path) -> str:
    return quote(os.fsencode(path.relative_to(folder).as_posix()))


def _part(path: Path, parent: Path) -> str:
    """The task's folder of a run of several tasks, "" for the run's own."""
    return "" if path.parent == parent else path.parent.relative_to(parent).as_posix()


def _files(parent: Path, name: str, folders: Collection[Path]) -> list[Path]:
    """A run's files of this name: its own, and one in the folder of each task; not those of another run."""
    below = [path for path in sorted(parent.glob("*")) if path not in folders]
    return [path / name for path in (parent, *below) if os.path.isfile(path / name)]


def _changed(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime)
    except (OSError, OverflowError, ValueError):
        return None


def _read_json(path: Path) -> object:
    """Raises DataError with the reason, in words that follow the file's name."""
    try:
        return json.loads(_read_text(path))
    except DataError:
        raise
    except RecursionError as error:
        raise DataError("is nested too deeply") from error
    except ValueError as error:
        raise DataError(f"is not JSON, or only a part of it ({error})") from error


def _read_text(path: Path) -> str:
    """Raises DataError as `_read_json`."""
    if not os.path.isfile(path):  # opening a pipe would wait
        raise DataError("is no file, or is gone")
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"is larger than {LARGEST // 1_000_000} MB")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text") from error


def _facts(record: object) -> dict[str, object]:
    """What stands in a record, as text and numbers. Raises DataError for JSON that is no record of a run."""
    metrics = _metrics(record)
    first = headline(metrics)
    data, seconds = _mapping(record.get("data")), _numbers(record.get("seconds"))
    tasks = [task for sign, task in SIGNS.items() if any(name.split("/")[-1] == sign for name in metrics)]
    return {
        "tasks": tasks,
        "group": _group(next(iter(first), ""), tasks),
        "headline": {_text(name): _interval(row) for name, row in first.items()},
        "score": next((row["value"] for row in first.values()), None),
        "metrics": {_text(name): _interval(row) for name, row in metrics.items()},
        "sources": _sources(data),
        "rows": ", ".join(f"{rows:g} {_text(split)}" for split, rows in _numbers(data.get("rows")).items()),
        "model": _text(record.get("model")),
        "device": _text(record.get("device")),
        "precision": _text(record.get("precision")),
        "seconds": sum(seconds.values()) if seconds else None,
        "parameters": {_text(name): _text(value) for name, value in _mapping(record.get("parameters")).items()},
        "findings": _findings(record.get("findings")),
        "more": {
            "seed": _text(record.get("seed")),
            **{f"seconds, {_text(name)}": f"{value:g}" for name, value in seconds.items()},
            **{_text(name): _text(value) for name, value in _mapping(record.get("versions")).items()},
        },
    }


def _findings(recorded: object) -> dict[str, str] | None:
    """Symptoms by finding, of several tasks by "qa: overfitting"; None where no diagnosis is recorded."""
    if not isinstance(recorded, (list, dict)):
        return None
    parts = recorded.items() if isinstance(recorded, dict) else [("", recorded)]
    return {
        (f"{_text(task)}: " if task else "") + _text(row.get("finding")): _text(row.get("symptom"))
        for task, rows in parts
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    }


def _group(metric: str, tasks: Sequence[str]) -> str:
    """The task and metric that a run's score is of; only scores of one group can be compared."""
    part, _, name = metric.rpartition("/")
    return " ".join([part if part in SIGNS.values() else (*tasks, "")[0], _text(name)])


def _metrics(record: object) -> dict[str, dict[str, float | None]]:
    if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
        raise DataError('is no record of a run ("metrics" is missing)')
    for name, row in record["metrics"].items():
        if (
            not isinstance(row, dict)
            or "value" not in row
            or (row["value"] is not None and _number(row["value"]) is None)
        ):
            raise DataError(f'is no record of a run (the metric "{_text(name)}" has no "value" that is a number)')
    return {
        name: {key: _number(row.get(key)) for key in ("value", "low", "high")}
        for name, row in record["metrics"].items()
    }


def _interval(row: Mapping[str, float | None]) -> str:
    if row["value"] is not None and (row["low"] is None or row["high"] is None):
        return f"{row['value']:.3f}"
    return format_interval(row)


def _sources(data: Mapping[str, object]) -> list[str]:
    """Where the data came from; for several tasks a line each, or one if it is the same."""
    if "source" in data:
        return [_text(data["source"])]
    parts = {_text(task): _text(_mapping(part).get("source")) for task, part in data.items()}
    return list(set(parts.values())) if len(set(parts.values())) == 1 else [f"{t}: {s}" for t, s in parts.items()]


def _number(value: object) -> float | None:
    """A number that can be drawn, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e100 else None  # NaN is not


def _numbers(value: object) -> dict[str, float]:
    return {name: number for name, item in _mapping(value).items() if (number := _number(item)) is not None}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _curves(path: Path, name: str) -> Curves:
    try:
        return Curves(name, _panels(_read_json(path)))
    except DataError as error:
        return Curves(name, [], str(error))


def _panels(log: object) -> list[Panel]:
    """The loss, and a score beside it. Raises DataError where a history has no loss by epoch.

    Drawn as SVG in the page's colours, dark or light: 3 ms and 2 kB a run, where matplotlib takes 190 ms and 37 kB.
    """
    entries = [_numbers(entry) for entry in log] if isinstance(log, list) else []
    entries = [entry for entry in entries if "epoch" in entry]
    table = history_table(entries)
    if table.empty:  # not evaluated while it trained: the batches' loss is all there is
        losses = {entry["epoch"]: {"train_loss": entry["loss"]} for entry in entries if "loss" in entry}
        table = pd.DataFrame.from_dict(losses, orient="index")
    scores = ["loss", *[name for name in SCORES if f"validation_{name}" in table][:1]]
    panels = [_panel(table.sort_index(), score) for score in scores if f"train_{score}" in table]
    if not panels:
        raise DataError("has no loss by epoch")
    return panels


def _panel(table: pd.DataFrame, score: str) -> Panel:
    columns = {split: f"{split}_{score}" for split in ("train", "validation") if f"{split}_{score}" in table}
    values = {split: table[column].dropna() for split, column in columns.items()}
    low, high = min(v.min() for v in values.values()), max(v.max() for v in values.values())
    first, last = table.index.min(), table.index.max()
    told = [f"{split} {line.iloc[0]:.3g} to {line.iloc[-1]:.3g}" for split, line in values.items()]
    lines = {
        split: [(_place(epoch, first, last, WIDTH), HEIGHT - _place(v, low, high, HEIGHT)) for epoch, v in line.items()]
        for split, line in values.items()
    }
    return Panel(
        score,
        {split: line[:: -max(1, len(line) // POINTS)][::-1] for split, line in lines.items()},
        (f"{low:.3g}", f"{high:.3g}"),
        (f"{first:.3g}", f"{last:.3g}"),
        f"{score} by epoch, {first:.3g} to {last:.3g}: {', '.join(told)}",
    )


def _place(value: float, low: float, high: float, size: int) -> float:
    return round(size * (value - low) / (high - low), 1) if high > low else size / 2
