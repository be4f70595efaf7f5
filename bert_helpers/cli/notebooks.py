"""Run the numbered notebooks headless with papermill, then put their metrics in one table."""

import ast
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import papermill
import yaml
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from bert_helpers.errors import ParameterError
from bert_helpers.parameters import complete

EXECUTED = Path("results/notebooks")
# Sockets in the file system, which nobody else can read: over TCP the kernel warns of eavesdropping.
LOCAL = Config() if os.name == "nt" else Config({"KernelManager": {"transport": "ipc"}})


def run_notebooks(notebooks: Sequence[Path], parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
    """Execute each notebook with these parameters, from the current folder, into `results/notebooks/`.

    Before anything runs, the parameters are checked against those that each notebook declares: papermill would write
    an unknown name into the notebook as it is, even a line of code. A string is read as the declared type. If a
    notebook fails, the others still run. Returns one row per notebook: `notebook`, `seconds`, `error` (None if it
    succeeded), `record` (path of its metrics.json).

    Raises ParameterError if a notebook does not exist, or a parameter is unknown, of the wrong type or out of range.
    """
    checked = [declared_parameters(path, parameters or {}) for path in notebooks]
    EXECUTED.mkdir(parents=True, exist_ok=True)
    return [_run(path, values, list(parameters or {})) for path, values in zip(notebooks, checked, strict=True)]


def read_parameters(path: Path) -> dict[str, object]:
    """Read a YAML file of parameters, such as those in notebooks/params/. Raises ParameterError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ParameterError(f"cannot be read as YAML ({reason})", source=path.name) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ParameterError("holds no parameters", source=path.name, fix="write one per line, such as 'EPOCHS: 3'")
    return content


def declared_parameters(path: Path, given: Mapping[str, object]) -> dict[str, object]:
    """Return all parameters of a notebook, checked, with the values `given` in place of its own.

    Raises ParameterError.
    """
    if path.suffix != ".ipynb" or not path.is_file():
        raise ParameterError("no such notebook", source=str(path))
    declared = papermill.inspect_notebook(path)
    if not declared:
        raise ParameterError("declares no parameters, in a cell with the tag 'parameters'", source=str(path))
    return complete({name: ast.literal_eval(parameter["default"]) for name, parameter in declared.items()}, given)


def _run(path: Path, values: Mapping[str, object], given: Sequence[str]) -> dict[str, object]:
    from bert_helpers import records  # a second to import, for which a refusal of parameters need not wait

    print(f"{path.name}: started", file=sys.stderr, flush=True)
    started, error = time.perf_counter(), None
    try:
        papermill.execute_notebook(
            path,
            EXECUTED / path.name,
            parameters={name: values[name] for name in given},
            kernel_name="python3",
            progress_bar=True,
            config=LOCAL,
        )
    except PapermillExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except Exception as failure:  # a kernel that died, a full disk: the other notebooks still run
        error = f"{type(failure).__name__}: {failure}"
    seconds = time.perf_counter() - started
    print(f"{path.name}: {'failed after' if error else 'done in'} {seconds:.0f} s", file=sys.stderr, flush=True)
    record = Path(values["OUTPUT_DIR"]) / records.NAME
    return {"notebook": path.name, "seconds": seconds, "error": error, "record": record}


def summary(rows: Sequence[dict[str, object]]) -> str:
    """Write the rows of `run_notebooks` as a table: notebook, headline metrics with 95% intervals, seconds, record."""
    from bert_helpers import records  # as above
    from bert_helpers.metrics import format_interval

    lines = [("notebook", "metric", "value (95% interval)", "seconds", "record")]
    for row in rows:
        seconds = f"{row['seconds']:.0f}"
        if row["error"]:
            lines.append((row["notebook"], "FAILED", "see below", seconds, str(EXECUTED / row["notebook"])))
            continue
        headline = records.read(row["record"].parent).headline()
        for i, (name, value) in enumerate(headline.items()):
            first = (row["notebook"], seconds, str(row["record"])) if i == 0 else ("", "", "")
            lines.append((first[0], name, format_interval(value), *first[1:]))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(table + [f"\n{row['notebook']}: {row['error']}" for row in rows if row["error"]])
