"""A folder for each class, with a text in each file, as aclImdb and 20 newsgroups are published; or a file for each.

Files are those that are called pos and neg, with a text a line (cs.cornell.edu/people/pabo/movie-review-data).
"""

from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from bert_helpers.readers.folders import split_of
from bert_helpers.readers.source import Format, Reading, lines_of, name_of, text_of, to_dataset

CLASSES = ("pos", "neg", "neu", "positive", "negative", "neutral")
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


def read_class_files(path: Path, reading: Reading) -> Dataset:
    """Read a text from each line of the files of a folder, of the class that is in the file's name."""
    rows = []
    for name, file in sorted(_class_files(path).items()):
        rows += [(line, name) for line in lines_of(file, reading) if line.strip()]
    reading.assume("classes", ", ".join(file.name for _, file in sorted(_class_files(path).items())))
    names = name_of(reading, "TEXT_COLUMN", "text"), name_of(reading, "LABEL_COLUMN", "label")
    return to_dataset(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))))


def _class_files(path: Path) -> dict[str, Path]:
    """The files that say a class, as pos.txt or rt-polarity.pos, by it."""
    said = ((word, file) for file in path.iterdir() if file.is_file() for word in (file.stem, file.suffix[1:]))
    return {word: file for word, file in said if word.lower() in CLASSES}


CLASS_FOLDERS = Format((), read_class_folder, is_folder=is_class_folder)
CLASS_FILES = Format((), read_class_files, is_folder=lambda path: len(_class_files(path)) > 1)
