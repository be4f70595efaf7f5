"""From a source (the sample, a local file or folder, a Hub id) to the raw rows of its splits.

This module finds the file and the format that recognises it; each format is read in a module of its own.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, List
from datasets.fingerprint import generate_random_fingerprint

from bert_helpers.errors import DataError, parameter
from bert_helpers.files import local_path
from bert_helpers.readers import hub

SAMPLES = Path(__file__).parents[1] / "samples"
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "dev": "validation", "testa": "validation", "test": "test", "testb": "test"}  # fmt: skip
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
# What the first bytes of a file say that is not plain text, and what to do
MAGIC = {b"\x1f\x8b": ("gzip data", "unpack it"), b"PK\x03\x04": ("a zip or Excel file", "unpack it or save it as CSV"),
         b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"), b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
         b"PAR1": ("Parquet data", "name it .parquet")}  # fmt: skip
SURROGATE = re.compile("[\ud800-\udfff]")
MOST_COLUMNS = 2_000  # `datasets` takes a millisecond or two for each, whatever is done with the rows
BATCH = 10_000  # rows that are Python objects at one time, before they become Arrow

# Reads a file: its path, and the columns it must have with the parameter that names each ("" where none does)
Reader = Callable[[Path, Mapping[str, str]], Dataset]


@dataclass(frozen=True)
class Format:
    """A kind of file: the endings of names by which it is recognised, and the function that reads one."""

    suffixes: tuple[str, ...]
    read: Reader
    is_text: bool = True

    def recognises(self, path: Path) -> bool:
        return path.suffix.lower() in self.suffixes


def source_name(dataset: Dataset) -> str:
    """Where a split came from, for messages and records."""
    return dataset.info.description or "data"


def read_source(
    source: str | Path,
    *,
    sample: str,
    formats: Sequence[Format],
    wanted: Mapping[str, str] | None = None,
    need_train: bool = True,
) -> dict[str, Dataset]:
    """Read the raw splits of a source; `sample` names the packaged folder that "sample" stands for.

    The first of `formats` that recognises a file reads it. `wanted` has the columns that are needed, each with the
    notebook parameter that names it; in a delimited file they decide the delimiter. Without `need_train` any split
    will do. Each split's `info.description` is the name of its file, for messages. Raises DataError.
    """
    if not str(source).strip():
        raise DataError("no data: the source is empty", fix='give "sample", a file or folder, or a Hub id')
    path = SAMPLES / sample if str(source) == "sample" else local_path(source)
    try:
        if path.is_file():
            return {"train": _read_file(path, formats, wanted or {})}
        if path.is_dir():
            files = _split_files(path, formats)
            if not files or (need_train and "train" not in files):
                endings = " / ".join(_suffixes(formats))
                fix = f"name the files train, validation, test + {endings}"
                raise DataError("no train file in the folder", source=str(source), fix=fix)
            return {name: _read_file(file, formats, wanted or {}) for name, file in files.items()}
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", source=str(source)) from error
    if path.is_symlink():
        raise DataError("a link that leads nowhere, or in a circle", source=str(source))
    match = HUB_ID.fullmatch(str(source))
    local = str(source).startswith((".", "/", "~")) or path.suffix in _suffixes(formats)
    if match is None or local or hub.is_below_a_folder_here(str(source)):
        problem = f"no such file or folder (a relative path is taken from the folder '{Path.cwd().name}')"
        raise DataError(problem, source=str(source))
    return _read_hub(match["repo"], match["config"], match["revision"])


def _suffixes(formats: Iterable[Format]) -> list[str]:
    return list(dict.fromkeys(suffix for kind in formats for suffix in kind.suffixes))


def _split_files(folder: Path, formats: Sequence[Format]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        # train.csv; eng.train
        name = SPLIT_NAMES.get(file.stem.lower()) or SPLIT_NAMES.get(file.suffix.lower()[1:])
        if name is None or not any(kind.recognises(file) for kind in formats):
            continue
        if name in files:
            problem = f"both {files[name].name} and {file.name} hold the {name} split"
            raise DataError(problem, source=str(folder), fix="keep one")
        files[name] = file
    return files


def _read_file(path: Path, formats: Sequence[Format], wanted: Mapping[str, str]) -> Dataset:
    kind = next((kind for kind in formats if kind.recognises(path)), None)
    if kind is None:
        fix = f"known are {', '.join(_suffixes(formats))}"
        raise DataError("unknown kind of file", source=path.name, fix=fix)
    if not path.is_file():  # a pipe of that name in a folder would wait for its other end
        raise DataError("not a file", source=path.name)
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DataError("the file is empty", source=path.name)
    for magic, (what, fix) in MAGIC.items() if kind.is_text else ():
        if start.startswith(magic):
            raise DataError(f"not a text file but {what}", source=path.name, fix=fix)
    dataset = kind.read(path, wanted)
    if len(dataset) == 0:
        raise DataError("the file holds no rows", source=path.name)
    dataset.info.description = path.name
    return dataset


def _read_hub(repo: str, config: str | None, revision: str | None) -> dict[str, Dataset]:
    loaded = hub.read_hub(repo, config, revision)
    # "validation" before "dev", where there are both
    named = {SPLIT_NAMES[name]: loaded[name] for name in sorted(loaded, key=SPLITS.__contains__) if name in SPLIT_NAMES}
    splits = {name: named[name] for name in SPLITS if name in named}
    if "train" not in splits:
        raise DataError(f"no train split; it has {', '.join(loaded)}", source=repo)
    for name, split in splits.items():
        features = plain_features(split.data.schema, split.features)
        info = DatasetInfo(description=f"{repo}, {name} split", features=features)
        table = split.data.replace_schema_metadata(None)
        splits[name] = Dataset(table, info=info, fingerprint=split._fingerprint)
    return splits


# --- for the readers --------------------------------------------------------------------------------------


def to_table(rows: Iterator[Sequence], schema: pa.Schema) -> pa.Table:
    """Turn rows into Arrow, few at a time: as Python objects they are many times as large."""
    batches = []
    while batch := list(islice(rows, BATCH)):
        columns = zip(zip(*batch, strict=True), schema.types, strict=True)
        batches.append(pa.record_batch([pa.array(values, kind) for values, kind in columns], schema))
    return pa.Table.from_batches(batches, schema)


def to_dataset(table: pa.Table, features: Features | None = None, *, builder_name: str | None = None) -> Dataset:
    """Wrap a table in memory as a `Dataset`. Nothing of it is cached on disk, so no old content can come back."""
    info = DatasetInfo(features=features, builder_name=builder_name)
    return Dataset(table.replace_schema_metadata(None), info=info, fingerprint=generate_random_fingerprint())


def plain_features(schema: pa.Schema, declared: Features) -> Features:
    """Return the features of a table's own types: of the `declared` ones only names of classes are believed.

    An image or audio stays the bytes and path it is, which nothing decodes or asks for.
    """
    features = Features.from_arrow_schema(schema.remove_metadata())
    for name, feature in declared.items():
        if isinstance(feature, ClassLabel) or (isinstance(feature, List) and isinstance(feature.feature, ClassLabel)):
            features[name] = feature
    return features


def check_width(path: Path, columns: Sized) -> None:
    """Raise DataError for more columns than can be handled in seconds."""
    if len(columns) > MOST_COLUMNS:
        fix = f"keep those that are needed; {MOST_COLUMNS:,} are read"
        raise DataError(f"{len(columns):,} columns", source=path.name, fix=fix)


def not_utf8(name: str, content: bytes) -> DataError:
    """Find the first line that is not UTF-8: for an error, once decoding has failed."""
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError as bad:
            at = {"source": name, "row": number, "unit": "line"}
            return DataError(f"byte {bad.start + 1} is not UTF-8", fix="save the file as UTF-8", **at)
    raise AssertionError(f"{name} is UTF-8")


def no_column(
    source: str, wanted: Mapping[str, str], names: Sequence[str], *, where: str = "", hint: str = ""
) -> DataError:
    """Say which of the `wanted` columns is not among `names`, and the parameter that names it."""
    missing = next(name for name in wanted if name not in names)
    shown = ", ".join(repr(name[:60]) for name in names[:12])
    return DataError(
        f"no column {missing!r}{where}; it has {shown}",
        source=source,
        column=missing,
        fix=(
            f"name the right one by {parameter(named_by)}" if (named_by := wanted[missing]) else "rename it in the file"
        )
        + hint,
        parameter=named_by,
    )
