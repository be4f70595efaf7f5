"""Run the numbered notebooks headless with papermill, then say in one table what came out."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import papermill
from papermill.exceptions import PapermillExecutionError

from bert_helpers.metrics import format_interval

EXECUTED = Path("results/notebooks")


def run_notebooks(notebooks: Sequence[Path]) -> list[dict[str, object]]:
    """Execute each notebook with its default parameters, from the current folder, into `results/notebooks/`.

    One that fails does not keep the others from running. Returns one row a notebook: `notebook`, `seconds`,
    `error` (None if it ran through), `record` (path of its metrics.json).
    """
    EXECUTED.mkdir(parents=True, exist_ok=True)
    return [_run(path) for path in notebooks]


def _run(path: Path) -> dict[str, object]:
    print(f"\n{path.name}", file=sys.stderr, flush=True)
    record = Path("results") / path.stem / "metrics.json"
    started, error = time.perf_counter(), None
    try:
        papermill.execute_notebook(path, EXECUTED / path.name, kernel_name="python3", progress_bar=True)
    except PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    return {"notebook": path.name, "seconds": time.perf_counter() - started, "error": error, "record": record}


def summary(rows: Sequence[dict[str, object]]) -> str:
    """The rows of `run_notebooks` as a table: notebook, headline metrics with 95% intervals, seconds, record."""
    lines = [("notebook", "metric", "value (95% interval)", "seconds", "record")]
    for row in rows:
        seconds = f"{row['seconds']:.0f}"
        if row["error"]:
            lines.append((row["notebook"], "FAILED", row["error"][:60], seconds, str(EXECUTED / row["notebook"])))
            continue
        metrics = json.loads(row["record"].read_text(encoding="utf-8"))["metrics"]
        for i, (name, value) in enumerate(headline(metrics).items()):
            first = (row["notebook"], seconds, str(row["record"])) if i == 0 else ("", "", "")
            lines.append((first[0], name, format_interval(value), *first[1:]))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def headline(metrics: dict[str, dict]) -> dict[str, dict]:
    """The first three metrics of a record; of one with several tasks ("qa/f1") only, the first of each."""
    if plain := [name for name in metrics if "/" not in name]:
        return {name: metrics[name] for name in plain[:3]}
    firsts: dict[str, str] = {}
    for name in metrics:
        firsts.setdefault(name.split("/")[0], name)
    return {name: metrics[name] for name in firsts.values()}
