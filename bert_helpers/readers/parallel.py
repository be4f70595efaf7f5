"""Texts in one file and their labels in another, a row a line: seq.in with label and seq.out (ATIS and SNIPS as
github.com/sz128/slot_filling_and_intent_detection_of_SLU has them), train_text.txt with train_labels.txt (TweetEval).

Recognised by the names of both.
"""

import re
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from bert_helpers.errors import DataError
from bert_helpers.readers.folders import PARALLEL_SUFFIXES, labels_of
from bert_helpers.readers.source import Format, Reading, lines_of, name_of, to_dataset

WORDS = re.compile(r"[^ \t]+")


def read_parallel(path: Path, reading: Reading) -> Dataset:
    """Read the lines of a file of texts, and those of the file beside it as their labels. Raises DataError."""
    texts, labels = lines_of(path, reading), lines_of(labels_of(path), reading)
    reading.assume("labels", f"the lines of {labels_of(path).name}")
    columns = {name_of(reading, "TEXT_COLUMN", "text"): texts, name_of(reading, "LABEL_COLUMN", "label"): labels}
    return _table(path, columns)


def read_slots(path: Path, reading: Reading) -> Dataset:
    """Read the sentences of seq.in, words between blanks, and the tags of seq.out. Raises DataError."""
    words, tags = [*reading.wanted, "tokens", "ner_tags"][:2]
    files = {words: path, tags: path.with_name("seq.out")}
    return _table(path, {name: [*map(WORDS.findall, lines_of(file, reading))] for name, file in files.items()})


def _table(path: Path, columns: dict[str, list]) -> Dataset:
    counts = [len(values) for values in columns.values()]
    if counts[0] != counts[1]:
        problem = f"{counts[0]:,} lines, and {counts[1]:,} of labels beside them"
        raise DataError(problem, source=path.name, fix="write a line for each text in both files")
    return to_dataset(pa.table(columns))


PARALLEL = Format(PARALLEL_SUFFIXES, read_parallel, is_file=lambda path: labels_of(path) is not None)
SLOTS = Format((".in",), read_slots, is_file=lambda path: path.with_name("seq.out").is_file())
