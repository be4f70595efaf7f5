"""fastText's lines, recognised by `__label__` before the first label (fasttext.cc/docs/en/supervised-tutorial)."""

import re
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from bert_helpers.readers.source import Format, Reading, name_of, text_of, to_dataset

LABELS = re.compile(r"(?:__label__(\S+)\s*)")


def read_fasttext(path: Path, reading: Reading) -> Dataset:
    """Read texts and their labels, a row a line; labels are lists where a line has several."""
    lines = [line for line in text_of(path, reading).decode().split("\n") if line.strip()]
    labels = [LABELS.findall(line) for line in lines]
    single = all(len(found) == 1 for found in labels)
    reading.assume("format", "fastText")
    columns = {
        name_of(reading, "TEXT_COLUMN", "text"): [LABELS.sub("", line).strip() for line in lines],
        name_of(reading, "LABEL_COLUMN", "label"): [found[0] for found in labels] if single else labels,
    }
    return to_dataset(pa.table(columns))


FASTTEXT = Format(
    (".txt", ".train", ".valid", ".test", ".ft", ""),
    read_fasttext,
    looks=lambda head: head.lstrip().startswith("__label__"),
)
