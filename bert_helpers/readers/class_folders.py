"""A folder for each class with a file for each text, as in aclImdb and 20 newsgroups; or a file for each class.

The files have names such as pos and neg, and one text per line (cs.cornell.edu/people/pabo/movie-review-data).
"""

from pathlib import Path

from datasets import Dataset

from bert_helpers.readers.folders import split_of
from bert_helpers.readers.source import Format, Reading, labelled_texts, lines_of, text_of

CLASSES = ("pos", "neg", "neu", "positive", "negative", "neutral")
UNLABELLED = ("unsup", "unlabeled", "unlabelled")


def read_class_folder(path: Path, reading: Reading) -> Dataset:
    """Read the wanted columns of texts and labels, and `file`, from the folders in a folder. Raises DataError."""
    texts, labels, names = [], [], []
    for folder in _folders(path):
        files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
        if folder.name in UNLABELLED:
            reading.assume("left out", f"{folder.name}, {len(files):,} texts without a label")
            continue
        texts += [text_of(file, reading).decode() for file in files]
        labels += [folder.name] * len(files)
        names += [f"{folder.name}/{file.name}" for file in files]
    return labelled_texts(reading, texts, labels, file=names)


def is_class_folder(path: Path) -> bool:
    """Whether a folder contains at least two folders, none of them a split, with nothing but texts in them."""
    folders = _folders(path)
    classes = [folder for folder in folders if folder.name not in UNLABELLED]
    return len(classes) > 1 and not any(split_of(f.name) for f in folders) and all(map(_holds_texts, folders))


def _folders(path: Path) -> list[Path]:
    return sorted(sub for sub in path.iterdir() if sub.is_dir() and not sub.name.startswith((".", "__")))


def _holds_texts(folder: Path) -> bool:
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return bool(files) and all(file.is_file() and (file.suffix == ".txt" or file.stem.isdigit()) for file in files)


def read_class_files(path: Path, reading: Reading) -> Dataset:
    """Read a text from each line of the files in a folder; its class is in the file's name."""
    files = sorted(_class_files(path).items())
    rows = [(line, name) for name, file in files for line in lines_of(file, reading) if line.strip()]
    reading.assume("classes", ", ".join(file.name for _, file in files))
    return labelled_texts(reading, [text for text, _ in rows], [name for _, name in rows])


def _class_files(path: Path) -> dict[str, Path]:
    """Return the files that are named after a class, such as pos.txt or rt-polarity.pos, by class."""
    parts = ((word, file) for file in path.iterdir() if file.is_file() for word in (file.stem, file.suffix[1:]))
    return {word: file for word, file in parts if word.lower() in CLASSES}


CLASS_FOLDERS = Format((), read_class_folder, is_folder=is_class_folder)
CLASS_FILES = Format((), read_class_files, is_folder=lambda path: len(_class_files(path)) > 1)
