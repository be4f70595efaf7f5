"""Check what a command was given before PyTorch and Transformers are imported, so that a refusal takes no seconds.

What has been read by then is kept in the options: the `dataset` of a training, the folders of `runs`.
"""

import argparse
import os
import re
import sys
import warnings
from pathlib import Path

import datasets

from bert_helpers import files, records
from bert_helpers.cli import unlabelled
from bert_helpers.errors import DataError, ModelError, ParameterError, parameter
from bert_helpers.readers import model_files
from bert_helpers.tasks import base
from bert_helpers.tasks.registry import TASKS


def prepare() -> None:
    """Hide progress bars, show warnings in one line without their place in the code, and write UTF-8 on Windows too."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    datasets.disable_progress_bars()
    warnings.formatwarning = lambda message, category, *place: f"{category.__name__}: {message}\n"


def look(options: argparse.Namespace) -> None:
    """Read or check what the command needs. Raises every error that can be found without loading a model."""
    command = options.command
    if command == "train":
        spec, p = TASKS[options.task], options.parameters
        options.dataset = spec.load(files.resolve(p["DATA"]), **base.options(spec.load, p))
        _look_at_model(p["MODEL"], p["MAX_LENGTH"])
    elif command == "predict":
        _look_at_texts(options)
    elif command != "info":
        names = [options.first, options.second] if command == "compare" else [options.folder]
        options.runs = [_run(name, options.data) for name in names]
        if len(names) == 2 and options.runs[0].resolve() == options.runs[1].resolve():
            raise ParameterError(f"is the folder {names[1]} too", source=names[0], fix="name two runs")


def _look_at_model(name: str, max_length: int) -> None:
    """Refuse a folder without a model, or one whose model has fewer than `max_length` positions."""
    folder = model_files.local_folder(name)
    most = model_files.fields(folder / "config.json").get("max_position_embeddings") if folder else None
    if isinstance(most, int) and max_length > most:
        fix = f"this model takes 3 to {most} tokens a text"
        raise ParameterError(f"is {max_length}", fix=fix, parameter="MAX_LENGTH")


def _look_at_texts(options: argparse.Namespace) -> None:
    if options.out:
        out = Path(options.out)
        if options.file and out.resolve() == Path(options.file).resolve():
            raise ParameterError(f"is {options.out}, the file that is read", parameter="OUT", fix="name another")
        options.format = options.format or {".csv": "csv", ".jsonl": "jsonl"}.get(out.suffix.lower())
        if not options.format:
            raise ParameterError(
                f"is {options.out}, whose ending says neither CSV nor JSON Lines",
                parameter="OUT",
                fix=f"end it in .csv or .jsonl, or say which by {parameter('FORMAT')}",
            )
        files.check_writable(out.parent)
    for text in options.text:
        # A single word with a file's ending is refused even if there is no such file: its name would be classified.
        if unlabelled.is_file_name(text) and (os.path.isfile(files.resolve(text)) or not re.search(r"\s", text)):
            fix = f"name it by {parameter('FILE')}"
            raise ParameterError("is the name of a file, not a text", source=text, fix=fix)
    if options.file and options.file != "-" and not os.path.isfile(files.resolve(options.file)):
        problem = f"no such file (a relative path is taken from the folder '{Path.cwd().name}')"
        raise DataError(problem, source=options.file)
    folder = Path(files.resolve(options.folder))
    if not folder.is_dir():
        raise ModelError("no such folder", source=options.folder, fix="name that of a run or of a fine-tuned model")
    files.finish_replacing(folder)
    model_files.check(options.folder, folder / "model" if (folder / "model").is_dir() else folder)


def _run(name: str, source: str) -> Path:
    """Return the folder of a finished run after checking that its record can be read and its data are there."""
    folder = Path(files.resolve(name))
    if not folder.is_dir():
        raise DataError("no such folder", source=name, fix="name that of a run, such as results/01_fine_tune")
    folder = folder if folder.name else folder.resolve()
    records.check_run(folder)
    record = records.read(folder)
    task = folder.name if record.has_several_tasks else next(iter(record.tasks), "")
    if task in TASKS and not source:
        records.data_places(folder, task, record.of_task(task, TASKS[task].prefix).parameters)
    return folder


def say(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)


def show(options: argparse.Namespace, content: object, text: str) -> int:
    """Print a result, as JSON if the options say so, and return status 0."""
    print(files.to_json(content) if options.json else text + "\n", end="")
    return 0
