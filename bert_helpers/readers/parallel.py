"""Texts in one file and their labels in another, one per line: seq.in with label and seq.out (ATIS and SNIPS of
github.com/sz128/slot_filling_and_intent_detection_of_SLU), train_text.txt with train_labels.txt (TweetEval).

They are recognised by the names of both files.
"""

import re
from pathlib import Path

from datasets import Dataset

from bert_helpers.errors import DataError
from bert_helpers.readers.folders import PARALLEL_SUFFIXES, labels_of
from bert_helpers.readers.source import Format, Reading, labelled_texts, lines_of, tagged_words

WORDS = re.compile(r"[^ \t]+")


def read_parallel(path: Path, reading: Reading) -> Dataset:
    """Read texts from the lines of a file, and labels from those of the file next to it. Raises DataError."""
    reading.assume("labels", f"the lines of {labels_of(path).name}")
    return labelled_texts(reading, *_lines(path, labels_of(path), reading))


def read_slots(path: Path, reading: Reading) -> Dataset:
    """Read the sentences of seq.in as words separated by blanks, and the tags of seq.out. Raises DataError."""
    lines = _lines(path, path.with_name("seq.out"), reading)
    return tagged_words(reading, *([*map(WORDS.findall, part)] for part in lines))


def _lines(path: Path, others: Path, reading: Reading) -> tuple[list[str], list[str]]:
    texts, labels = lines_of(path, reading), lines_of(others, reading)
    if len(texts) != len(labels):
        problem = f"{len(texts):,} lines of text, but {len(labels):,} of labels"
        raise DataError(problem, source=path.name, fix="write one line per text in both files")
    return texts, labels


PARALLEL = Format(PARALLEL_SUFFIXES, read_parallel, is_file=lambda path: labels_of(path) is not None)
SLOTS = Format((".in",), read_slots, is_file=lambda path: path.with_name("seq.out").is_file())
