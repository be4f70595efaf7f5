"""A folder for each class, with a text in each file, as aclImdb and 20 newsgroups are published."""

from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from bert_helpers.readers.folders import split_of
from bert_helpers.readers.source import Format, Reading, name_of, text_of, to_dataset

UNLABELLED = ("unsup", "unlabeled", "unlabelled")


def read_class_folder(path: Path, reading: Reading) -> Dataset:
    """Read the wanted columns of text and label, and `file`, from a folder's folders. Raises DataError."""
    text, label = name_of(reading, "TEXT_COLUMN", "text"), name_of(reading, "LABEL_COLUMN", "label")
    rows = []
    for folder in _folders(path):
        files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
        if folder.name in UNLABELLED:
            reading.assume("left out", f"{folder.name}, {len(files):,} texts without a label")
            continue
        rows += [(text_of(file, reading).decode(), folder.name, f"{folder.name}/{file.name}") for file in files]
    columns = dict(zip((text, label, "file"), zip(*rows, strict=True), strict=True))
    return to_dataset(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}))


def is_class_folder(path: Path) -> bool:
    """Whether a folder has two folders or more, none of them a split's, with nothing but texts in them."""
    folders = _folders(path)
    classes = [folder for folder in folders if folder.name not in UNLABELLED]
    return len(classes) > 1 and not any(split_of(f.name) for f in folders) and all(map(_holds_texts, folders))


def _folders(path: Path) -> list[Path]:
    return sorted(sub for sub in path.iterdir() if sub.is_dir() and not sub.name.startswith((".", "__")))


def _holds_texts(folder: Path) -> bool:
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return bool(files) and all(file.is_file() and (file.suffix == ".txt" or file.stem.isdigit()) for file in files)


CLASS_FOLDERS = Format((), read_class_folder, is_folder=is_class_folder)
