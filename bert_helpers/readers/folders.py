"""Which files of a folder or an archive hold which split, according to their names or to the data set's card.

The words for splits are those of `datasets`. Its patterns are not used, as file names may contain special characters.
"""

import filecmp
import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import yaml
from datasets.data_files import FILES_TO_IGNORE, SPLIT_KEYWORDS

from bert_helpers.errors import DataError

WORDS = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words}
WORDS |= {"testa": "validation", "testb": "test"}
SHARD = re.compile(r"-\d{5}-of-\d{5}")
NO_DATA = re.compile(r"readme|licen[cs]e|notice|citation|requirements|makefile", re.IGNORECASE)
# Words in the names of files of texts, and in those of the files with their labels (`parallel`)
PAIRS = (("seq.in", "label"), ("texts", "labels"), ("text", "labels"), ("text", "label"), ("sentences", "labels"))
PARALLEL_SUFFIXES = (".txt", ".in", ".text", ".texts", "")
ARCHIVES = (".gz", ".zip")
UNPACKED = 200_000_000  # bytes that any archive may unpack to, plus a hundred times its size


def split_of(name: str) -> str | None:
    """Return the split that a name refers to: train.csv, eng.testa, train-v2.0.json, NER-de-train.tsv."""
    found = {WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in WORDS}
    return found.pop() if len(found) == 1 else None


def data_files(folder: Path, recognises: Callable[[Path], bool], *, below: bool = False) -> list[Path]:
    """List the files in a folder, or anywhere below it, that may be data and that a reader recognises."""
    files = sorted(folder.rglob("*") if below else folder.iterdir())
    return [
        file
        for file in files
        if not any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
        and file.name not in FILES_TO_IGNORE
        and not NO_DATA.match(file.name)
        and not file.is_dir()
        and not _has_texts(file)
        and recognises(file)
    ]


def labels_of(path: Path) -> Path | None:
    """Return the file with the labels of a file's texts, if there is one according to their names."""
    if path.suffix not in PARALLEL_SUFFIXES:
        return None
    names = (path.name.replace(text, label) for text, label in PAIRS if text in path.name)
    return next((path.with_name(name) for name in names if name != path.name and path.with_name(name).is_file()), None)


def _has_texts(path: Path) -> bool:
    """Whether a file has the labels or tags of texts in a file next to it."""
    texts = [path.with_name(path.name.replace(label, text)) for text, label in PAIRS if label in path.name]
    return path.name == "seq.out" or any(file.is_file() and labels_of(file) == path for file in texts)


def split_files(folder: Path, recognises: Callable[[Path], bool]) -> dict[str, list[Path]]:
    """Find the files of each split that a reader recognises; several files are shards of one table.

    They are in the folder itself, or else below it. The split is in their own names or in those of folders. Raises
    DataError if several files claim to be the same split.
    """
    found: dict[str, list[Path]] = {}
    for below in (False, True):
        for file in data_files(folder, recognises, below=below) if not found else ():
            names = reversed(file.relative_to(folder).parts)
            if split := next(filter(None, map(split_of, names)), None):
                found.setdefault(split, []).append(file)
    return {split: _one_table(files, split, folder) for split, files in found.items()}


def _one_table(files: list[Path], split: str, folder: Path) -> list[Path]:
    """Return the file that has only the split's name, or all files if they are shards."""
    exact = [file for file in files if {file.stem.lower(), file.suffix.lower()[1:]} & WORDS.keys()]
    files = exact if len(exact) == 1 else files
    shards = {(file.parent, SHARD.sub("", file.name) if split_of(file.name) else file.suffix) for file in files}
    if len(files) > 1 and (len(shards) > 1 or any(split_of(f.name) and not SHARD.search(f.name) for f in files)):
        if all(filecmp.cmp(files[0], file, shallow=False) for file in files[1:]):  # copies of one file
            return files[:1]
        problem = f"both {files[0].name} and {files[1].name} hold the {split} split"
        raise DataError(problem, source=str(folder), fix="keep one")
    return files


# --- the card ---------------------------------------------------------------------------------------------


def card_configs(folder: Path) -> dict[str, dict]:
    """Return the configs in the card of a data set (README.md) by name, with their files by split."""
    card = folder / "README.md"
    if not card.is_file() or not (front := re.match(r"---\n(.*?)\n---", card.read_text("utf-8", "replace"), re.DOTALL)):
        return {}
    try:
        configs = yaml.safe_load(front[1]).get("configs") or []
        return {config["config_name"]: config for config in configs if config.get("data_files")}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}  # a README that is not a card


def config_files(folder: Path, config: dict) -> dict[str, list[Path]]:
    """Return the files of each split that match the patterns of a card's config. None is outside the folder."""
    entries = config["data_files"]
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        entries = [{"split": "train", "path": entries}]
    found = {}
    for entry in entries:
        patterns = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
        files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
        split = split_of(str(entry["split"]))
        if split and files and all(file.resolve().is_relative_to(folder.resolve()) for file in files):
            found[split] = files
    return found


# --- archives ---------------------------------------------------------------------------------------------


def holds_splits(path: Path) -> bool:
    """Whether a JSON file begins like an object of splits: {"train": [, or CLINC's "oos_val"."""
    with path.open("rb") as file:
        start = file.read(100).decode(errors="replace") if path.suffix.lower() == ".json" else ""
    match = re.match(r'\ufeff?\s*\{\s*"(\w+)"\s*:\s*\[', start)
    return bool(match) and match[1].lower().removeprefix("oos_") in WORDS


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a .gz or .zip into a folder; return the only file in it, or the folder. Raises DataError.

    A JSON object of splits becomes one file per split.
    """
    if path.suffix.lower() == ".json":
        return _split_json(path, folder)
    limit = UNPACKED + 100 * path.stat().st_size
    try:
        for name, packed in _members(path):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while part := packed.read(1 << 20):
                    limit -= len(part)
                    if limit < 0:
                        raise DataError("unpacks to far more than it is", source=path.name, fix="unpack it yourself")
                    file.write(part)
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, RuntimeError, NotImplementedError) as error:
        raise DataError(f"cannot be unpacked ({error})", source=path.name, fix="unpack it yourself") from error
    files = [file for file in folder.rglob("*") if file.is_file() and not NO_DATA.match(file.name)]
    return files[0] if len(files) == 1 else folder


def _split_json(path: Path, folder: Path) -> Path:
    try:
        splits = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON ({error})", source=path.name, fix="correct it") from error
    if other := [name for name in splits if not split_of(name)]:
        problem = f"holds splits, and {', '.join(map(repr, other))}"[:300]
        raise DataError(problem, source=path.name, fix="write each split as a file, train.json and so on")
    parts = {split: [name for name in splits if split_of(name) == split] for split in map(split_of, splits)}
    for names in parts.values():  # CLINC has texts without a class in a part of their own: oos_train besides train
        rows = splits[names[0]] if len(names) == 1 else [row for name in names for row in splits[name]]
        (folder / f"{'_and_'.join(names)}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def _members(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as packed:
            yield path.stem, packed
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = Path(member.filename)
            if member.is_dir() or any(part.startswith((".", "__")) for part in name.parts):
                continue  # __MACOSX, and paths that lead out of the folder
            with archive.open(member) as packed:
                yield name.as_posix().lstrip("/"), packed
