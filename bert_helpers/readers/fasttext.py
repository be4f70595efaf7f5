"""Lines that begin with their labels: fastText's with `__label__` (fasttext.cc/docs/en/supervised-tutorial), and TREC's
questions with one of six classes (cogcomp.seas.upenn.edu/Data/QA/QC).
"""

import re
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from bert_helpers.errors import DataError
from bert_helpers.readers.source import Format, Reading, labelled_texts, lines_of, name_of, to_dataset

LABELS = re.compile(r"(?<!\S)__label__(\S+)\s*")
QUESTION = re.compile(r"(?P<fine>(?P<coarse>ABBR|DESC|ENTY|HUM|LOC|NUM):\w+) (?P<text>.*)")


def read_fasttext(path: Path, reading: Reading) -> Dataset:
    """Read texts and their labels, one row per line; if a line has several labels, labels are lists."""
    lines = [line for line in lines_of(path, reading) if line.strip()]
    labels = [LABELS.findall(line) for line in lines]
    single = all(len(found) == 1 for found in labels)
    reading.assume("format", "fastText")
    texts = [LABELS.sub("", line).strip() for line in lines]
    return labelled_texts(reading, texts, [found[0] for found in labels] if single else labels)


def read_trec(path: Path, reading: Reading) -> Dataset:
    """Read questions with the Hub's columns `coarse_label` (HUM) and `fine_label` (HUM:ind). Raises DataError."""
    lines = [line for line in lines_of(path, reading) if line.strip()]
    found = [QUESTION.match(line) for line in lines]
    if bad := [number for number, match in enumerate(found, 1) if not match]:
        raise DataError("not a class and a question", source=path.name, row=bad, unit="line", fix="correct the line")
    columns = {name_of(reading, "TEXT_COLUMN", "text"): [match["text"] for match in found]}
    columns |= {f"{kind}_label": [match[kind] for match in found] for kind in ("coarse", "fine")}
    return to_dataset(pa.table(columns))


TREC = Format((".label", ".txt", ""), read_trec, looks=lambda head: bool(QUESTION.match(head)))
FASTTEXT = Format(
    (".txt", ".train", ".valid", ".test", ".ft", ""),
    read_fasttext,
    looks=lambda head: head.lstrip().startswith("__label__"),
)
