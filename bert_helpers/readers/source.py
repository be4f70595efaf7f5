"""From a source (the sample, a local file or folder, a Hub id) to the raw rows of its splits.

This module finds the files and the format that recognises them. Each format has a module of its own.
"""

import codecs
import json
import logging
import re
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, List, concatenate_datasets, load_from_disk
from datasets.fingerprint import generate_random_fingerprint

from bert_helpers.errors import DataError, parameter
from bert_helpers.files import local_path
from bert_helpers.readers import folders, hub

SAMPLES = Path(__file__).parents[1] / "samples"
SPLITS = ("train", "validation", "test")
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
# First bytes of files that are not plain text: what the file is, and what to do with it
MAGIC = {b"\x1f\x8b": ("gzip data", "unpack it"), b"PK\x03\x04": ("a zip or Excel file", "unpack it or save it as CSV"),
         b"PAR1": ("Parquet data", "name it .parquet"),
         b"<?xm": ("XML", "write its rows as CSV, such as by pandas.read_xml")}  # fmt: skip
# What to do with files of a kind that is not read
CONVERT = {
    ".spacy": "write its documents as JSON Lines, each by json.dumps(doc.to_json())",
    ".xml": "write its rows as CSV, such as by pandas.read_xml",
    **dict.fromkeys((".tar", ".tgz", ".bz2", ".xz", ".7z", ".rar"), "unpack it"),
    **dict.fromkeys(
        (".doc", ".docx", ".pdf", ".odt", ".rtf", ".html", ".md", ".yml"), "write its texts in a column of a CSV"
    ),
    **dict.fromkeys((".pkl", ".pickle"), "write its rows as Parquet; a pickle can run code as it is read"),
}
SURROGATE = re.compile("[\ud800-\udfff]")
HEAD = 100_000  # characters by which the format of a file is recognised
MOST_COLUMNS = 2_000  # `datasets` takes a millisecond or two for each, whatever is done with the rows
BATCH = 10_000  # rows held as Python objects at a time, before they become Arrow

BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

LOGGER = logging.getLogger(__name__)


@dataclass
class Reading:
    """What to read from a file, what the user says about its format, and what the reader assumed.

    `wanted` maps the columns that are needed to the parameters that name them ("" if none does). `labels` are those of
    them that a file may lack: a split without labels is left out later. `named` is whether the user named a column. The
    other options are parameters in lower case. Where one is empty, the reader finds the value itself and notes it with
    `assume`, unless it is the usual one.
    """

    wanted: Mapping[str, str] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    named: bool = False
    encoding: str = ""
    delimiter: str = ""
    header: str = ""
    sheet: str = ""
    drop_empty: bool = False
    drop_labels: str = ""
    keep_labels: str = ""
    assumed: dict[str, str] = field(default_factory=dict, init=False)

    def assume(self, what: str, value: str) -> None:
        """Note an assumption about this file: `assume("encoding", "cp1252")`."""
        self.assumed[what] = value


Reader = Callable[[Path, Reading], Dataset]


@dataclass(frozen=True)
class Format:
    """A file format: how it is recognised, and the function that reads it.

    A file is recognised by the suffix of its name ("" for a name without one) and, if other formats share the suffix,
    by how its text begins. A format of several files, such as brat's, has `is_folder`, which is called with a split's
    folder or with the source itself; `read` then gets the folder.
    """

    suffixes: tuple[str, ...]
    read: Reader
    is_text: bool = True
    looks: Callable[[str], bool] | None = None  # whether a text with these first HEAD characters has this format
    is_file: Callable[[Path], bool] | None = None  # whether the files that belong to a file are next to it
    is_folder: Callable[[Path], bool] | None = None

    def recognises(self, path: Path) -> bool:
        if self.is_folder or path.is_dir():
            return bool(self.is_folder) and path.is_dir() and self.is_folder(path)
        if path.suffix.lower() not in self.suffixes or (self.is_file and not self.is_file(path)):
            return False
        return self.looks is None or (path.is_file() and self.looks(head(path)))


def source_name(dataset: Dataset) -> str:
    """Return where a split came from, for messages and records."""
    return dataset.info.description or "data"


def keep_source(rows: Dataset, origin: Dataset) -> Dataset:
    """Give rows the source name and the notes of the data set that they were made from."""
    rows.info.description, rows.info.citation = origin.info.description, origin.info.citation
    return rows


def note(dataset: Dataset, what: str, value: str, *, of: str = "") -> None:
    """Note an assumption about a split that has been read; the note stays with the rows when they are transformed.

    `of` is the source that the note is about, if it is not the split's own.
    """
    notes = assumed({"": dataset})
    notes.setdefault(of or source_name(dataset), {})[what] = value
    dataset.info.citation = json.dumps(notes, ensure_ascii=False)


def assumed(splits: Mapping[str, Dataset]) -> dict[str, dict[str, str]]:
    """Return what was assumed when these splits were read, by file: {"spam.csv": {"encoding": "cp1252"}}."""
    notes: dict[str, dict[str, str]] = {}
    for split in splits.values():  # besides the description, `info.citation` is the only text that every copy keeps
        for name, values in json.loads(split.info.citation or "{}").items():
            notes.setdefault(name, {}).update(values)
    return notes


def say_assumed(splits: Mapping[str, Dataset]) -> None:
    """Log in one line what was assumed when these splits were read."""
    files: dict[str, list[str]] = {}  # file names by assumption
    for name, values in assumed(splits).items():
        files.setdefault(", ".join(f"{what} {value}" for what, value in values.items()), []).append(name)
    if files:
        LOGGER.warning("assumed: %s", "; ".join(f"{', '.join(names)}: {what}" for what, names in files.items()))


def read_source(
    source: str | Path,
    *,
    sample: str,
    formats: Sequence[Format],
    reading: Reading | None = None,
    need_train: bool = True,
) -> dict[str, Dataset]:
    """Read the raw splits of a source; `sample` is the packaged folder that "sample" stands for.

    The first of `formats` that recognises a file reads it, as `reading` says. Without `need_train`, any split will do.
    Each split's `info.description` is the name of its file, for messages. Raises DataError.
    """
    reading = reading or Reading()
    if not str(source).strip():
        raise DataError("no data: the source is empty", fix='give "sample", a file or folder, or a Hub id')
    path = SAMPLES / sample if str(source) == "sample" else local_path(source)
    try:
        if path.is_file() and (path.suffix.lower() in folders.ARCHIVES or folders.holds_splits(path)):
            with tempfile.TemporaryDirectory() as folder:
                inner = folders.unpack(path, Path(folder))
                return _read_path(inner, formats, reading, need_train, str(source))
        if path.exists():
            return _read_path(path, formats, reading, need_train, str(source))
        if config := folders.card_configs(path.parent).get(path.name):
            return _read_files(folders.config_files(path.parent, config), formats, reading, path.parent)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", source=str(source)) from error
    if path.is_symlink():
        raise DataError("a link that leads nowhere, or in a circle", source=str(source))
    match = HUB_ID.fullmatch(str(source))
    local = str(source).startswith((".", "/", "~")) or path.suffix in _suffixes(formats)
    if match is None or local or hub.is_below_a_folder_here(str(source)):
        problem = f"no such file or folder (a relative path is taken from the folder '{Path.cwd().name}')"
        raise DataError(problem, source=str(source))
    return _plain_splits(hub.read_hub(match["repo"], match["config"], match["revision"]), match["repo"])


def _suffixes(formats: Iterable[Format]) -> list[str]:
    return list(dict.fromkeys(suffix for kind in formats for suffix in kind.suffixes if suffix))


def _read_path(
    path: Path, formats: Sequence[Format], reading: Reading, need_train: bool, source: str
) -> dict[str, Dataset]:
    """Read a file, or the content of a folder: a data set that `datasets` saved, a format's own folders, or files."""
    while path.is_dir() and len(inner := list(path.iterdir())) == 1 and inner[0].is_dir():
        path = inner[0]  # such as an unpacked archive of a folder
    if not path.is_dir():
        return _read_files({"train": [path]}, formats, reading, path.parent)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_saved(path, source)

    def recognises(path: Path) -> bool:
        return any(kind.recognises(path) for kind in formats)

    files = {split: [sub] for sub in sorted(path.iterdir()) if (split := folders.split_of(sub.name)) and sub.is_dir()
             and recognises(sub)}  # fmt: skip
    files = files or ({"train": [path]} if recognises(path) else {})
    if not files and (configs := folders.card_configs(path)):
        config = next((config for config in configs.values() if config.get("default")), next(iter(configs.values())))
        if len(configs) > 1 and not config.get("default"):
            fix = f"name one: {path.name}/{next(iter(configs))}"
            raise DataError(f"its card has the configs {', '.join(configs)}"[:300], source=source, fix=fix)
        files = folders.config_files(path, config)
    files = files or folders.split_files(path, recognises)
    if not files and len(only := folders.data_files(path, recognises)) == 1:
        files = {"train": only}
    if not files or (need_train and "train" not in files):
        fix = f"name the files train, validation, test + {' / '.join(_suffixes(formats))}"
        raise DataError("no train file in the folder", source=source, fix=fix)
    return _read_files(files, formats, reading, path)


def _read_files(
    files: Mapping[str, Sequence[Path]], formats: Sequence[Format], reading: Reading, folder: Path
) -> dict[str, Dataset]:
    """Read the files of each split, in the order of SPLITS."""
    splits = {}
    for split in sorted(files, key=SPLITS.index):
        asked = replace(reading, labels=reading.labels if split != "train" else frozenset())
        try:
            parts = [_read_file(file, formats, asked) for file in files[split]]
        except NoColumn as error:  # such as test.tsv in GLUE's CoLA; a column given by name may be a typo
            if not splits or not all(name.isdigit() for name in reading.wanted):
                raise
            note(next(iter(splits.values())), "left out", f"it has no column {error.column}", of=files[split][0].name)
            continue
        splits[split] = parts[0]
        if len(parts) > 1:
            notes = assumed(dict(zip(map(str, files[split]), parts, strict=True)))
            splits[split] = concatenate_datasets(parts)
            splits[split].info.citation = json.dumps(notes, ensure_ascii=False)
            splits[split].info.description = f"{files[split][0].relative_to(folder)} and {len(parts) - 1} more"
    return splits


def _read_saved(path: Path, source: str) -> dict[str, Dataset]:
    """Read what `save_to_disk` wrote: one data set, or one for each split."""
    try:
        loaded = load_from_disk(str(path), keep_in_memory=True)
    except Exception as error:  # a dozen types, depending on what is wrong in a file
        problem = f"not a readable data set of save_to_disk ({hub.innermost_reason(error)})"
        raise DataError(problem, source=source, fix="save it anew") from error
    return _plain_splits(loaded if isinstance(loaded, DatasetDict) else DatasetDict(train=loaded), path.name)


def _read_file(path: Path, formats: Sequence[Format], reading: Reading) -> Dataset:
    kind = next((kind for kind in formats if kind.recognises(path)), None)
    if kind is None:
        fix = CONVERT.get(path.suffix.lower()) or f"known suffixes are {', '.join(_suffixes(formats))}"
        raise DataError("unknown kind of file", source=path.name, fix=fix)
    if not kind.is_folder:
        _check_start(path, kind)
    reading = replace(reading)  # assumptions hold for one file
    dataset = kind.read(path, reading)
    if len(dataset) == 0:
        raise DataError("the file holds no rows", source=path.name)
    dataset.info.description = path.name
    for what, value in reading.assumed.items():
        note(dataset, what, value)
    return dataset


def _check_start(path: Path, kind: Format) -> None:
    if not path.is_file():  # reading a named pipe would wait for its other end
        raise DataError("not a file", source=path.name)
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise DataError("the file is empty", source=path.name)
    for magic, (what, fix) in MAGIC.items() if kind.is_text else ():
        if start.startswith(magic):
            raise DataError(f"not a text file but {what}", source=path.name, fix=fix)


def _plain_splits(loaded: DatasetDict, source: str) -> dict[str, Dataset]:
    """Return the splits that have a known name, without features that would decode anything."""
    # Where there are both "validation" and "dev", the former is taken
    known = sorted(folders.WORDS.keys() & loaded.keys(), key=SPLITS.__contains__)
    named = {folders.WORDS[name]: loaded[name] for name in known}
    splits = {name: named[name] for name in SPLITS if name in named}
    if "train" not in splits:
        raise DataError(f"no train split; it has {', '.join(loaded)}", source=source)
    for name, split in splits.items():
        features = plain_features(split.data.schema, split.features)
        info = DatasetInfo(description=f"{source}, {name} split", features=features)
        table = split.data.replace_schema_metadata(None)
        splits[name] = Dataset(table, info=info, fingerprint=split._fingerprint)
    return splits


# --- for the readers --------------------------------------------------------------------------------------


def columns_of(name: str, names: Sequence[str], *, numbers: bool = True) -> list[str] | None:
    """Return the columns that a parameter names: one, or several separated by commas, each by name or number from 1.

    A column whose name is the number comes before the column at that position. Where no name is equal, a name that
    differs in case or by a leading "#" counts, or a field of a column of objects, if there is only one. Returns None if
    a column is missing.

    >>> columns_of("title, 3", ["class", "title", "body"])
    ['title', 'body']
    >>> columns_of("text", ["id", "data.text"])
    ['data.text']
    """
    known = set(names)

    def find(part: str) -> str | None:
        if numbers and part.isdigit() and 0 < int(part) <= len(names):
            return names[int(part) - 1] if part not in known else part
        alike = [name for name in names if name.lstrip("# ").casefold() == part.casefold()]
        alike = alike or [name for name in names if name.endswith(f".{part}") and not re.search(r"\s|\d$", name)]
        return part if part in known else alike[0] if len(alike) == 1 and part else None

    if name in known or name.strip() in known:
        return [name if name in known else name.strip()]
    found = [find(part.strip()) for part in name.split(",")]
    return None if None in found else found


def name_of(reading: Reading, named_by: str, default: str) -> str:
    """Return the wanted column that a parameter names, for readers of files without column names."""
    return next((name for name, parameter in reading.wanted.items() if parameter == named_by), default)


def labelled_texts(reading: Reading, texts: Sequence, labels: Sequence, **others: Sequence) -> Dataset:
    """Return texts and labels in the wanted columns, for readers of files without column names."""
    text, label = name_of(reading, "TEXT_COLUMN", "text"), name_of(reading, "LABEL_COLUMN", "label")
    return to_dataset(pa.table({text: texts, label: labels, **others}))


def tagged_words(reading: Reading, words: Sequence[list], tags: Sequence[list]) -> Dataset:
    """Return the words of sentences and their tags in the wanted columns, which are those two or not given."""
    names = [*reading.wanted, "tokens", "ner_tags"][:2]
    return to_dataset(pa.table(dict(zip(names, (words, tags), strict=True))))


def head(path: Path) -> str:
    """Return the first HEAD characters of a text file, however damaged it is."""
    with path.open("rb") as file:
        start = file.read(HEAD)
    encoding = next((name for mark, name in BOMS.items() if start.startswith(mark)), "utf-8")
    return start.decode(encoding, errors="replace")


def text_of(path: Path, reading: Reading) -> bytes:
    """Return the text of a file, converted to UTF-8 without a byte order mark.

    The encoding is ENCODING, or else what the byte order mark says, or else UTF-8. Text that is not valid UTF-8 is read
    as cp1252, or as Latin-1 if a byte is undefined there. Raises DataError where the text is UTF-8 in part, or has too
    many non-ASCII bytes for a western language: then it may be in one of several encodings.
    """
    content = path.read_bytes()
    bom = next((mark for mark in BOMS if content.startswith(mark)), b"")
    name = reading.encoding or BOMS.get(bom, "utf-8")
    try:
        if codecs.lookup(name).name == "utf-8" or name == "utf-8-sig":
            content = content.removeprefix(codecs.BOM_UTF8)
            if _is_utf8(content):
                return content
            if reading.encoding or bom or (name := _western(content)) is None:
                raise not_utf8(path.name, content)
        if not reading.encoding:
            reading.assume("encoding", name)
        return content.decode(name).removeprefix("\ufeff").encode()
    except (UnicodeError, LookupError) as error:
        problem = f"is not {name} ({hub.innermost_reason(error)})"
        raise DataError(problem, source=path.name, fix="name another", parameter="ENCODING") from error


def lines_of(path: Path, reading: Reading) -> list[str]:
    """Return the lines of a text file without their line ends; only line feeds separate lines."""
    return text_of(path, reading).decode().replace("\r\n", "\n").removesuffix("\n").split("\n")


def _is_utf8(content: bytes) -> bool:
    offsets = pa.py_buffer(struct.pack("=qq", 0, len(content)))
    whole = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(content)])
    try:
        whole.cast(pa.large_string())  # checks, and copies nothing
    except pa.ArrowInvalid:
        return False
    return True


def _western(content: bytes) -> str | None:
    """Return "cp1252" or "latin-1" for bytes that are not UTF-8 but may be western text, else None.

    Western text has accents on some letters only, and hardly any byte sequence that would be a character in UTF-8.
    """
    high, plain = re.sub(rb"[^\x80-\xff]", b"", content), len(re.findall(rb"[A-Za-z]", content))
    # Where Mac Roman has accented letters, cp1252 has rare ones and Latin-1 has none
    rare = len(re.findall(rb"[\x81\x83\x88-\x8a\x8c-\x90\x98\x9a\x9c-\x9f]", high))
    pairs = sum(map(len, re.findall(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", content)))
    is_mac = rare > 1 + len(re.findall(rb"[\xc0-\xff]", high))
    if b"\0" in content or len(high) > plain / 4 or pairs > len(high) / 10 or is_mac:
        return None
    return "latin-1" if re.search(rb"[\x81\x8d\x8f\x90\x9d]", high) else "cp1252"


def to_table(rows: Iterator[Sequence], schema: pa.Schema) -> pa.Table:
    """Turn rows into an Arrow table batch by batch, for as Python objects they take many times the memory."""
    batches = []
    while batch := list(islice(rows, BATCH)):
        columns = zip(zip(*batch, strict=True), schema.types, strict=True)
        batches.append(pa.record_batch([pa.array(values, kind) for values, kind in columns], schema))
    return pa.Table.from_batches(batches, schema)


def to_dataset(table: pa.Table, features: Features | None = None, *, builder_name: str | None = None) -> Dataset:
    """Wrap a table in memory as a `Dataset`. Nothing is cached on disk, so no old content can come back."""
    info = DatasetInfo(features=features, builder_name=builder_name)
    return Dataset(table.replace_schema_metadata(None), info=info, fingerprint=generate_random_fingerprint())


def plain_features(schema: pa.Schema, declared: Features) -> Features:
    """Return the features that a table's own types have; of the `declared` features, only class names are used.

    Images and audio stay bytes and a path, which nothing decodes or opens.
    """
    features = Features.from_arrow_schema(schema.remove_metadata())
    for name, feature in declared.items():
        if isinstance(feature, ClassLabel) or (isinstance(feature, List) and isinstance(feature.feature, ClassLabel)):
            features[name] = feature
    return features


def check_width(path: Path, columns: Sized) -> None:
    """Raise DataError if there are more columns than can be handled in seconds."""
    if len(columns) > MOST_COLUMNS:
        fix = f"keep those that are needed; {MOST_COLUMNS:,} are read"
        raise DataError(f"{len(columns):,} columns", source=path.name, fix=fix)


def not_utf8(name: str, content: bytes) -> DataError:
    """Return the error about the lines that are not UTF-8, once decoding has failed."""
    bad = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            bad[number] = error.start + 1
    fix = f"save the file as UTF-8, or name its encoding by {parameter('ENCODING')} (cp1252, mac-roman, gb18030, …)"
    problem = f"byte {next(iter(bad.values()))} is not UTF-8"
    return DataError(problem, source=name, row=list(bad), unit="line", fix=fix, parameter="ENCODING")


class NoColumn(DataError):
    """A column that is needed is missing."""


def no_column(
    source: str, wanted: Mapping[str, str], names: Sequence[str], *, where: str = "", hint: str = ""
) -> NoColumn:
    """Return the error about the first of the `wanted` columns that is not among `names`."""
    missing = next((name for name in wanted if columns_of(name, names) is None), next(iter(wanted)))
    named_by, shown = wanted[missing], ", ".join(repr(name[:60]) for name in names[:12])
    fix = f"name the right one by {parameter(named_by)}" if named_by else "rename it in the file"
    if named_by == "PAIR_COLUMN":
        fix += f'; if there is one text per row, give {parameter(named_by)} ""'
    problem = f"no column {missing!r}{where}; it has {shown}"
    return NoColumn(problem, source=source, column=missing, fix=fix + hint, parameter=named_by)
