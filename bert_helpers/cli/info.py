"""`info SOURCE`: what a source is, how it would be read and what is wrong with it; or what a run measured.

It trains nothing and imports neither PyTorch nor Transformers.
"""

import argparse
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, List
from tokenizers import Tokenizer

from bert_helpers import data, files, parameters, records
from bert_helpers.cli.inputs import show
from bert_helpers.errors import BertHelpersError, DataError, ParameterError, counted
from bert_helpers.metrics import format_interval
from bert_helpers.readers import source as readers
from bert_helpers.readers import tables
from bert_helpers.readers.delimited import to_number
from bert_helpers.readers.model_files import DEFAULT_MODEL, packaged_folder
from bert_helpers.tasks import base
from bert_helpers.tasks.base import Task
from bert_helpers.tasks.registry import TASKS

Splits = Mapping[str, Dataset]
FIRST, SAMPLE = 3, 1_000  # rows to show; rows to count tokens in, and to guess columns from
CLASSES, BINS, COLUMNS = 12, 10, 6  # classes per line; ranges of numbers; columns per line
LABELS = re.compile("label|class|grade|categor|sentiment|target|topic|intent|polarity|emotion|rating|stars|score")
SHORT, CUT = 60, 20_000  # characters of a text to show; characters of a text to count tokens in


def info(options: argparse.Namespace) -> int:
    """Print what a source or a run is; the status is 2 if nothing could be read."""
    path = Path(files.resolve(options.source))
    return _run(options, path) if (path / records.NAME).is_file() else _source(options, str(path))


def _source(options: argparse.Namespace, source: str) -> int:
    given, asked = options.parameters, options.task
    with _quiet(warned=bool(asked)):
        tried = {task: _read(TASKS[task], source, given) for task in ([asked] if asked else TASKS)}
        guessed = {}
        if not asked and not any(splits for splits, _ in tried.values()):
            tried, guessed = _with_guessed_columns(source, given, tried)
    serves = [task for task, (splits, _) in tried.items() if splits]
    chosen = (serves or list(tried))[0]
    splits, faults = tried[chosen]
    if not splits:
        splits = _rows_alone(source, given)
    shown = {name: _split(TASKS[chosen] if serves else None, split) for name, split in splits.items()}
    content = {
        "source": options.source,
        "format": _format(Path(source), splits),
        "task": asked or serves,
        "splits": shown,
        "assumed": readers.assumed(splits),
        "faults": [entry for error in faults for entry in error.entries(options.spell)],
    }
    lines = [("source", options.source), ("format", content["format"])]
    if not asked:
        lines.append(("could serve", ", ".join(serves) or "no task as it is"))
    if guessed:
        usual = parameters.of_training(chosen)
        named = {parameters.option_of(name): column for name, column in guessed.items() if column != usual[name]}
        names = " ".join(f"{option} {column!r}" for option, column in named.items())
        lines.append(("columns", f"{names} (guessed from their values; give them to `train`)"))
    lines += [("assumed", f"{name}: {_pairs(values)}") for name, values in content["assumed"].items()]
    for name, split in shown.items():
        labels = f": {_labels_in_a_line(split['labels'])}" if split["labels"] else ""
        lines.append((name, f"{counted(split['rows'], 'row')}{labels}"))
    if serves:
        lines.append(("length", _lengths(TASKS[chosen], splits["train"])))
    named = {*(TASKS[chosen].fields if serves else ()), *data.LABELS}
    for row in next(iter(shown.values()), {"first": []})["first"]:
        columns = sorted(row, key=lambda column: column not in named)
        lines.append(("row", _pairs({column: repr(_short(row[column])) for column in columns[:COLUMNS]})))
    said: dict[str, list[str]] = {}  # sentence -> tasks for which it holds
    for task, (_, errors) in tried.items() if asked or not serves else ():
        for error in errors:
            said.setdefault(error.sentence(options.spell), []).append(task)
    lines += [("fault", sentence if asked else f"{', '.join(tasks)}: {sentence}") for sentence, tasks in said.items()]
    show(options, content, "\n".join(f"{name:<12} {text}" for name, text in lines))
    return 0 if splits else 2


@contextmanager
def _quiet(*, warned: bool) -> Iterator[None]:
    """Silence the log of assumptions, which are among the results, and warnings too unless only one task is tried."""
    before = readers.LOGGER.level
    with warnings.catch_warnings():
        if not warned:
            warnings.simplefilter("ignore")
        readers.LOGGER.setLevel(logging.ERROR)
        try:
            yield
        finally:
            readers.LOGGER.setLevel(before)


def _read(task: Task, source: str, given: Mapping[str, object]) -> tuple[Splits, list[BertHelpersError]]:
    """Return the checked splits as they are in the source, none if the task cannot read it, and the errors."""
    own = parameters.of_training(task.name)
    own |= {name: value for name, value in given.items() if name in own}
    try:
        splits = task.load(source, **{**base.options(task.load, own), "train_size": None})
    except (DataError, ParameterError) as error:
        return {}, [error]
    try:
        data.split_missing(splits, dict.fromkeys(readers.SPLITS, 0), seed=0, sample=data.sample_rows)
    except DataError as error:
        return splits, [error]
    return splits, []


def _rows_alone(source: str, given: Mapping[str, object]) -> Splits:
    """Return the splits of a table whatever its columns are; none if it cannot be read as a table."""
    reading = {name.lower(): value for name, value in given.items() if parameters.PARAMETERS[name].reads}
    for header in ({}, {"header": "yes"}):  # the second if the first line may or may not be a header
        try:
            how = readers.Reading({"1": ""}, **{**header, **reading})  # every file has a first column
            return readers.read_source(source, sample="", formats=tables.FORMATS, reading=how, need_train=False)
        except (DataError, ParameterError):
            continue
    return {}


def _with_guessed_columns(source: str, given: Mapping[str, object], tried: dict) -> tuple[dict, dict[str, object]]:
    """Try the tasks that read texts and labels from columns again, with the columns that seem to hold them."""
    rows = next(iter(_rows_alone(source, given).values()), None)
    guessed = _guess(rows) if rows and not any(name.endswith("_COLUMN") for name in given) else {}
    can = [task for task in TASKS if guessed.keys() <= parameters.of_training(task).keys()] if guessed else []
    again = {task: _read(TASKS[task], source, {**given, **guessed}) for task in can}
    served = {task: found for task, found in again.items() if found[0]}
    return (served, guessed) if served else (tried, {})


def _guess(rows: Dataset) -> dict[str, object]:
    """Guess the columns of texts and labels from the first rows, and the lowest and highest value of numeric labels.

    Texts are in the columns with the most words. Labels are several columns of 0 and 1; else a column whose values
    recur, one with a telling name or else with the fewest values; else a column of lists; else one of numbers.
    """
    head = rows.select(range(min(SAMPLE, len(rows))))
    values = {name: [value for value in head[name] if value is not None] for name in head.column_names}
    words = {name: column for name, column in values.items() if all(isinstance(value, str) for value in column)}
    if not words:
        return {}
    blanks = {name: np.mean([value.count(" ") for value in column] or [0]) for name, column in words.items()}
    text = max(blanks, key=blanks.__getitem__)
    plain = {name: column for name, column in values.items() if not any(isinstance(v, (list, dict)) for v in column)}
    counts = {name: len(set(column)) for name, column in plain.items() if name != text}
    hot = [name for name in counts if {str(value).lower() for value in plain[name]} <= {"0", "1", "true", "false"}]
    labels = [name for name, count in counts.items() if 2 <= count <= max(2, len(head) / 5)]
    others = [name for name, mean in blanks.items() if mean > 1 and name != text and name not in labels]
    texts = sorted([text, *others[:1]], key=head.column_names.index)
    guessed = dict(zip(("TEXT_COLUMN", "PAIR_COLUMN"), [*texts, ""][:2], strict=True))
    lists = [name for name, column in values.items() if column and all(isinstance(value, list) for value in column)]
    scores = {name: [to_number(value) for value in plain[name]] for name in counts if name not in texts}
    numbers = [name for name, column in scores.items() if column and None not in column]
    if len(hot) > 1:
        label = ",".join(hot)
    elif labels:
        label = min(labels, key=lambda name: (not LABELS.search(name.lower()), counts[name]))
    elif lists:
        label = lists[0]
    elif numbers:
        label = max(numbers, key=lambda name: bool(LABELS.search(name.lower())))
        guessed |= {"LOW": math.floor(min(scores[label])), "HIGH": math.ceil(max(scores[label]))}
    else:
        return {}
    return {**guessed, "LABEL_COLUMN": label}


def _format(path: Path, splits: Splits) -> str:
    """Return the kind of source: the one that reading recognised, or the ending of its name."""
    noted = {values["format"] for values in readers.assumed(splits).values() if "format" in values}
    if noted or not splits:
        return ", ".join(sorted(noted)) or "unknown"
    if str(path) == "sample" or path.is_dir():
        return "sample" if str(path) == "sample" else "folder"
    return path.suffix.lower().removeprefix(".") or "text" if path.exists() else "Hub"


def _split(task: Task | None, split: Dataset) -> dict[str, object]:
    """Describe a split: rows, labels (none without a task) and the first rows."""
    first = [_plain(split, row) for row in split.select(range(min(FIRST, len(split))))]
    return {"rows": len(split), "labels": _labels(task, split) if task else {}, "first": first}


def _plain(split: Dataset, row: Mapping[str, object]) -> dict[str, object]:
    """Return a row with the names of its classes in place of their numbers."""
    named = {}
    for name, value in row.items():
        feature = split.features[name]
        inner = feature.feature if isinstance(feature, List) else feature
        named[name] = inner.int2str(value) if isinstance(inner, ClassLabel) and value is not None else value
    return named


def _labels(task: Task, split: Dataset) -> dict[str, int]:
    """Count the labels of a split; numbers with many values are counted in ranges."""
    if counted := task.counts(split):
        return counted
    examples = task.examples(split)
    if task.numeric:
        counts = Counter(examples.labels)
        if len(counts) <= CLASSES:
            return {f"{value:g}": counts[value] for value in sorted(counts)}
        rows, edges = np.histogram(examples.labels, BINS)
        return {f"{low:g} to {high:g}": int(n) for n, low, high in zip(rows, edges, edges[1:], strict=False)}
    return dict(Counter(map(str, examples.counted)).most_common()) if examples.classes else {}


def _labels_in_a_line(labels: Mapping[str, int]) -> str:
    more = f" and {len(labels) - CLASSES} more" if len(labels) > CLASSES else ""
    return ", ".join(f"{_short(name)} {count}" for name, count in [*labels.items()][:CLASSES]) + more


def _lengths(task: Task, split: Dataset) -> str:
    """Describe the texts' token counts (packaged tokenizer), and the share above the task's default MAX_LENGTH."""
    drawn = np.linspace(0, len(split) - 1, min(SAMPLE, len(split)), dtype=int)
    texts = [text[:CUT] for text in task.examples(split.select(drawn)).texts]
    tokenizer = Tokenizer.from_file(str(packaged_folder(DEFAULT_MODEL) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = np.array([len(encoded.ids) for encoded in tokenizer.encode_batch(texts)])
    most = parameters.of_training(task.name)["MAX_LENGTH"]
    middle, high = np.quantile(lengths, (0.5, 0.95))
    over = f"{np.mean(lengths > most):.0%} longer than {parameters.option_of('MAX_LENGTH')} {most}"
    which = f"of {len(texts)} rows" if len(texts) < len(split) else "of all rows"
    return f"median {middle:.0f} tokens, 95% at most {high:.0f}, longest {lengths.max()} ({which}); {over}"


def _run(options: argparse.Namespace, folder: Path) -> int:
    """Print a run's record."""
    record = records.read(folder)
    lines = [("run", options.source), ("task", ", ".join(record.tasks)), ("model", record.model)]
    parts = record.data.items() if record.has_several_tasks else [("", record.data)]
    for task, described in parts:
        rows = ", ".join(f"{count} {name}" for name, count in (described.get("rows") or {}).items())
        lines.append(("data", " ".join(filter(None, (task, described.get("source"), f"({rows} rows)")))))
        lines += [("assumed", f"{name}: {_pairs(values)}") for name, values in (described.get("assumed") or {}).items()]
    lines += [("metric", f"{name} {format_interval(score)}") for name, score in record.metrics.items()]
    found = record.findings.values() if isinstance(record.findings, dict) else [record.findings or []]
    lines += [("finding", f"{row['finding']}: {row['symptom']}") for rows in found for row in rows]
    content = files.read_json(records.find(folder))
    return show(options, {"run": options.source, **content}, "\n".join(f"{name:<12} {text}" for name, text in lines))


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _short(value: object) -> object:
    text = str(value)
    return value if len(text) <= SHORT else f"{text[: SHORT - 1]}…"
