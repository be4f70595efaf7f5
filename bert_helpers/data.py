"""From a source (the sample, a local file or folder, a Hub id) to a checked `DatasetDict`.

Labels become a `ClassLabel`, whose names the model's config takes over. Every error names the place.
"""

import csv
import hashlib
import json
import math
import re
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset, load_dataset_builder
from datasets.builder import DatasetBuilder
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError
from datasets.packaged_modules.cache.cache import Cache
from datasets.utils import logging

from bert_helpers import hub, tags
from bert_helpers.errors import DataError, ParameterError

SAMPLES = Path(__file__).parent / "samples"
SPLITS = ("train", "validation", "test")
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "dev": "validation", "testa": "validation", "test": "test", "testb": "test"}  # fmt: skip
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
HELD_OUT = 0.1  # share of the training rows that becomes a missing validation or test split
QUESTIONS = Features(
    {
        **{name: Value("string") for name in ("id", "title", "question", "context")},
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)
# White space, control characters and the like: nothing of it reaches the model
# What names the column of a field
PARAMETERS = {"text": "TEXT_COLUMN", "text_pair": "PAIR_COLUMN", "label": "LABEL_COLUMN", "tokens": "TOKENS_COLUMN",
              "ner_tags": "TAGS_COLUMN"}  # fmt: skip
INVISIBLE = r"^[\s\p{C}\p{Z}]*$"
LONGEST = 1_000_000  # characters, as many as a long novel has
DAMAGED = "the text holds a NUL character, as damaged files and files that are no text do"
TOO_LONG = f"the text has {LONGEST:,} characters or more, as when a quotation mark is not closed"
# What the first bytes of a file say that is no plain text
MAGIC = {b"\x1f\x8b": "gzip data; unpack it", b"PK\x03\x04": "a zip or Excel file; unpack it or save it as CSV",
         b"\xff\xfe": "UTF-16 text; save it as UTF-8", b"\xfe\xff": "UTF-16 text; save it as UTF-8",
         b"PAR1": "Parquet data; name it .parquet"}  # fmt: skip
SURROGATE = re.compile("[\ud800-\udfff]")
Reader = Callable[[Path], Dataset]
# Suffixes under which words and tags stand in columns, a word a line
COLUMN_FILES = (
    ".conll",
    ".iob",
    ".iob2",
    ".bio",
    ".txt",
    ".tsv",
    ".csv",
    ".train",
    ".testa",
    ".testb",
    ".dev",
    ".test",
)


def load_classification(
    source: str | Path,
    *,
    text_column: str = "text",
    label_column: str = "label",
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Texts and labels from `source`, as splits train, validation and test with columns `text` and `label`.

    `source` is "sample", a local file or folder (CSV, TSV, JSON Lines, Parquet; in a folder one file a
    split: train, validation, test), or a Hub id "owner/name[/config][@revision]". The sizes draw that many rows
    from a split, stratified (0 = all). A validation or test split that is missing is taken from the training
    rows: of the size asked for, or a tenth. Other columns of the source are kept.

    Raises DataError, naming the file, row and column, when the data cannot be used.
    """
    columns = {"text": text_column, "label": label_column}
    splits = read_source(source, sample="reviews", header=columns)
    splits = {name: _rename(split, columns) for name, split in splits.items()}
    with _own_names(columns):
        for split in splits.values():
            check_texts(split, "text")
        splits = _class_labels(splits)
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed)
    dataset = DatasetDict({name: subsample(splits[name], sizes[name], seed=seed) for name in SPLITS})
    _check_classes(dataset)
    return dataset


def load_questions(
    source: str | Path,
    *,
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Questions and contexts from `source`, as splits train, validation and test in SQuAD's columns.

    `source` is "sample", a .json file in SQuAD's format, JSON Lines or Parquet with the columns, a folder of such
    files (one a split: train, validation or dev, test), or a Hub id. Columns: `id`, `question`, `context`, `answers`
    (a dict of the lists `text` and `answer_start`, the latter in characters), and `title` where there is one. The
    sizes draw that many questions (0 = all). A split that is missing is taken from the training rows by context, so
    that no context lies in two splits.

    Raises DataError, naming the file and the question's id, when the data cannot be used.
    """
    splits = read_source(source, sample="qa", readers={".json": _read_squad})
    splits = {name: _question_columns(split) for name, split in splits.items()}
    for split in splits.values():
        check_questions(split)
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed, draw=draw_contexts)
    return DatasetDict({name: subsample(splits[name], sizes[name], seed=seed, draw=draw_rows) for name in SPLITS})


def load_pairs(
    source: str | Path,
    *,
    text_column: str = "text",
    pair_column: str = "text_pair",
    label_column: str = "label",
    low: float = 0.0,
    high: float = 5.0,
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Scored pairs of texts from `source`, as splits with columns `text`, `text_pair` and `label` (float).

    `source`, sizes and missing splits are as in `load_classification`; "sample" is the packaged pairs. A delimited
    file may lack a header, as the published STS-B files do: its columns are then text, pair and score, in that order.
    A test split without labels (GLUE's are all -1) is left out with a warning, and taken from the training rows.
    Scores lie in `low` to `high`. Raises DataError, naming the file, row and column, when the data cannot be used.
    """
    columns = {"text": text_column, "text_pair": pair_column, "label": label_column}
    table = partial(_read_table, header=columns, headerless=True)
    splits = read_source(source, sample="similarity", readers={".csv": table, ".tsv": table})
    splits = {name: _rename(split, columns) for name, split in splits.items()}
    if low > -1 and "test" in splits and _number(splits["test"]["label"][0]) == -1:
        _drop_unlabelled(splits)
    with _own_names(columns):
        splits = {name: _scored(split, low, high) for name, split in splits.items()}
        for split in splits.values():
            check_texts(split, "text")
            check_texts(split, "text_pair")
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed)
    return DatasetDict({name: subsample(splits[name], sizes[name], seed=seed) for name in SPLITS})


def load_transfer(
    source: str | Path,
    *,
    names: Sequence[str],
    text_column: str = "text",
    label_column: str = "label",
    test_size: int = 0,
    seed: int = 0,
) -> Dataset:
    """Rows of another domain for a classifier that exists already: columns `text` and `label`.

    `names` are the classifier's classes in order; every label must be one of them. `source` as in
    `load_classification`, or "sample": 80 product and restaurant reviews; of several splits the test split is taken.
    Raises DataError for a label that the classifier does not know.
    """
    columns = {"text": text_column, "label": label_column}
    splits = read_source(source, sample="transfer_reviews", header=columns, need_train=False)
    rows = next(splits[name] for name in ("test", "validation", "train") if name in splits)
    rows = _rename(rows, columns)
    with _own_names(columns):
        check_texts(rows, "text")
        labels = _label_strings(rows)
        unknown = [i for i, label in enumerate(labels) if label not in names]
        if unknown:
            raise DataError(
                f"{_at(rows, unknown, 'label')}: {labels[unknown[0]]!r} is no class of the model, which has "
                f"{', '.join(map(repr, names))}; rename the labels to these."
            )
    return subsample(_replace_label(rows, labels, ClassLabel(names=list(names))), test_size, seed=seed)


def load_entities(
    source: str | Path,
    *,
    tokens_column: str = "tokens",
    tags_column: str = "ner_tags",
    types: Mapping[str, str] | None = None,
    train_size: int = 0,
    validation_size: int = 0,
    test_size: int = 0,
    seed: int = 0,
) -> DatasetDict:
    """Words and entity tags from `source`, as splits train, validation and test.

    `source` is "sample", a file or folder of CoNLL columns (last column: the tag) or of JSON Lines or Parquet with
    lists of words and tags, or a Hub id. IOB1, IOB2, BIOES and IO are recognised over all splits and turned into
    IOB2; each split's `info.description` says what was found. `types` renames entity types and drops those it does
    not name. Columns of the result: `tokens` (strings), `ner_tags` (`ClassLabel`: O, then B- and I- of every
    type of the training rows, sorted). Missing splits and sizes as in `load_classification`, drawn at random.

    Raises DataError, naming the file and the line or row.
    """
    splits = _tagged(read_source(source, sample="ner", readers=_COLUMN_READERS), tokens_column, tags_column, types)
    names = tags.tag_names(splits["train"]["ner_tags"])
    if len(names) == 1:
        raise DataError(
            f"{place(splits['train'])}: no entity: every tag is O. Is the last column, or TAGS_COLUMN, right?"
        )
    splits = {name: _tag_classes(split, names) for name, split in splits.items()}
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed, draw=draw_rows)
    return DatasetDict({name: subsample(splits[name], sizes[name], seed=seed, draw=draw_rows) for name in SPLITS})


def load_tagged_rows(
    source: str | Path,
    names: Sequence[str],
    *,
    types: Mapping[str, str] | None = None,
    tokens_column: str = "tokens",
    tags_column: str = "ner_tags",
    sample: str = "ner_transfer",
) -> Dataset:
    """The test rows of `source` (or its only split) with the tag names of a tagger that exists already.

    As `load_entities`; raises DataError for a tag that `names` does not hold, so call it before the training.
    """
    splits = read_source(source, sample=sample, readers=_COLUMN_READERS, need_train=False)
    splits = _tagged(splits, tokens_column, tags_column, types)
    cure = 'map its type by TRANSFER_TYPES, or leave this text out (TRANSFER_DATA "")'
    return _tag_classes(next(splits[name] for name in reversed(SPLITS) if name in splits), names, cure)


# --- reading -----------------------------------------------------------------------------------------------


def read_source(
    source: str | Path,
    *,
    sample: str,
    header: Mapping[str, str] | None = None,
    readers: Mapping[str, Reader] | None = None,
    need_train: bool = True,
) -> dict[str, Dataset]:
    """The raw splits of a source; `sample` names the packaged folder that "sample" stands for.

    `header` has the columns a delimited file must have, by field of a row; they tell its delimiter (comma, semicolon,
    tab, bar).
    `readers` read the files of a task's own formats, by suffix (".json"). Without `need_train` any split will do.
    Each split's `info.description` names the place for error messages. Raises DataError.
    """
    if not str(source).strip():
        raise DataError('no data: the source is empty; give "sample", a file or folder, or a Hub id.')
    if str(source) == "sample":
        source = SAMPLES / sample
    path, header, readers = Path(source).expanduser(), header or {}, readers or {}
    try:
        if path.is_file():
            return {"train": _read_file(path, header, readers)}
        if path.is_dir():
            files = _split_files(path, readers)
            if not files or (need_train and "train" not in files):
                kinds = " / ".join({**FORMATS, **readers})
                raise DataError(
                    f"{source}: no train file in the folder. Name the files train, validation, test + {kinds}."
                )
            return {name: _read_file(file, header, readers) for name, file in files.items()}
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error}).") from error
    if path.is_symlink():
        raise DataError(f"{source}: a link that leads nowhere, or in a circle.")
    match = HUB_ID.fullmatch(str(source))
    if match is None or path.suffix in {*FORMATS, *readers} or str(source).startswith((".", "/", "~")):
        raise DataError(f"{source}: no such file or folder (a relative path is taken from {_here()}).")
    return _read_hub(match["repo"], match["config"], match["revision"])


def _here() -> str:
    return f"the folder '{Path.cwd().name}'"


def _split_files(folder: Path, readers: Mapping[str, Reader]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        suffix = file.suffix.lower()
        name = SPLIT_NAMES.get(file.stem.lower()) or SPLIT_NAMES.get(suffix[1:])  # train.csv; eng.train
        if name is None or suffix not in {*FORMATS, *readers}:
            continue
        if name in files:
            raise DataError(f"{folder}: both {files[name].name} and {file.name} hold the {name} split; keep one.")
        files[name] = file
    return files


def _read_file(path: Path, header: Mapping[str, str], readers: Mapping[str, Reader]) -> Dataset:
    suffix = path.suffix.lower()
    if suffix not in {*FORMATS, *readers}:
        raise DataError(f"{path.name}: unknown kind of file; known are {', '.join({**FORMATS, **readers})}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name}: the file is empty.")
    if suffix != ".parquet":
        with path.open("rb") as file:
            start = file.read(4)
        for magic, what in MAGIC.items():
            if start.startswith(magic):
                raise DataError(f"{path.name}: is no text file but {what}.")
    dataset = readers[suffix](path) if suffix in readers else _read_table(path, header)
    if len(dataset) == 0:
        raise DataError(f"{path.name}: no rows.")
    dataset.info.description = path.name
    return dataset


def _read_table(path: Path, header: Mapping[str, str], *, headerless: bool = False) -> Dataset:
    kind = FORMATS[path.suffix.lower()]
    if kind == "json":
        _check_json(path)
    try:
        options = _csv_options(path, header, headerless=headerless) if kind == "csv" else {}
        with _silent():
            return load_dataset(kind, data_files=str(path), split="train", **options)
    except DataError:
        raise
    except Exception as error:  # the builders raise a dozen types, none of which names the row
        raise DataError(_why_unreadable(path, kind, error)) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without the readers' own reports of what is wrong with a file: an error says it, and where."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _csv_options(path: Path, header: Mapping[str, str], *, headerless: bool) -> dict[str, object]:
    """Every cell is text: "007" stays "007", and the word "null" stays a word.

    With `headerless`, a first line of as many fields as `header`, the last a number, is a row: columns are `header`.
    """
    sep = _delimiter_without_header(path, header) if headerless else None
    options = {"sep": sep or _delimiter(path, header), "encoding": "utf-8-sig"}
    options["quoting"] = _quoting(path, options["sep"])
    if sep:
        options["names"] = list(header.values())
    columns = header.values() if sep else pd.read_csv(path, nrows=0, **options).columns
    return {**options, "keep_default_na": False, "features": Features({name: Value("string") for name in columns})}


def _delimiter_without_header(path: Path, header: Mapping[str, str]) -> str | None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline()
    for sep in _delimiters(path):
        fields = next(csv.reader([first], delimiter=sep, quoting=_quoting(path, sep)), [])
        if len(fields) == len(header) and _number(fields[-1]) is not None:
            return sep
    return None


def _quoting(path: Path, sep: str) -> int:
    """Whether quotation marks are text: in a tab-separated file that breaks the rules of quoting, as STS-B's do.

    Read by those rules, a text that opens with a mark and does not close it would swallow the rows after it.
    """
    if sep != "\t":
        return csv.QUOTE_MINIMAL
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            deque(csv.reader(file, delimiter=sep, strict=True), maxlen=0)
        except csv.Error:
            return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL


def _delimiters(path: Path) -> list[str]:
    return ["\t"] if path.suffix.lower() == ".tsv" else [",", ";", "\t", "|"]


def _number(value: object) -> float | None:
    """A number, or text that is one; None for anything else, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _delimiter(path: Path, header: Mapping[str, str]) -> str:
    fields = {sep: _header(path, sep) for sep in _delimiters(path)}
    found = [sep for sep, names in fields.items() if set(header.values()) <= set(names)]
    if not found and header:
        if problem := _undecodable(path):  # a name with an umlaut is not found for that
            raise DataError(problem)
        names = max(fields.values(), key=len)
        other = "" if len(names) > 1 else " Delimiters that are read: comma, semicolon, tab, bar."
        raise DataError(f"{_no_column(path.name, header, names, where=' in the header')}{other}")
    sep = found[0] if found else next(iter(fields))
    names = Counter(fields[sep])
    if twice := [name for name in header.values() if names[name] > 1]:
        raise DataError(f"{path.name}: the header has {names[twice[0]]} columns {twice[0]!r}; rename all but one.")
    return sep


def _header(path: Path, sep: str) -> list[str]:
    """The names in the first row, which may be quoted and then hold delimiters."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            fields = next(csv.reader(file, delimiter=sep, quoting=_quoting(path, sep)), [])
        except csv.Error:  # a quotation mark that is never closed, or a NUL
            file.seek(0)
            fields = file.readline().strip("\r\n").split(sep)
    return [field.strip().strip('"') for field in fields]


def _why_unreadable(path: Path, kind: str, error: Exception) -> str:
    """Find the first bad line by reading again, slowly: only done once reading has failed."""
    if "corresponds to no data" in str(error):
        return f"{path.name}: holds no rows."
    if kind == "parquet":
        return f"{path.name}: not a readable Parquet file ({_reason(error)})."
    return _undecodable(path) or f"{path.name}: cannot be read ({_reason(error)})."


def _undecodable(path: Path) -> str | None:
    """What to say of the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as bad:
                return f"{path.name}, line {number}: byte {bad.start + 1} is not UTF-8; save the file as UTF-8."
    return None


def _check_json(path: Path) -> None:
    """Raise DataError for bytes that are no text, invalid JSON, and rows that are no objects; 33 MB take 0.3 s.

    Arrow takes any bytes for text and fails later, and for a line such as `null{}` it ends the whole process.
    """
    if problem := _undecodable(path):
        raise DataError(problem)
    with path.open(encoding="utf-8-sig") as file:
        if path.suffix.lower() == ".json" and (content := _json_or_none(file.read())) is not None:
            rows = content if isinstance(content, list) else [content]
            _check_objects(((f"{path.name}, item {number}", row) for number, row in enumerate(rows, 1)))
            return
        file.seek(0)
        lines = (
            (f"{path.name}, line {number}", line) for number, line in enumerate(file, 1) if line.strip("\ufeff\r\n\t ")
        )
        _check_objects((place, _parsed(place, line)) for place, line in lines)


def _json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None  # it may still be JSON Lines


def _parsed(place: str, line: str) -> object:
    try:
        return json.loads(line.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as bad:
        raise DataError(f"{place}: not valid JSON ({bad}).") from bad


def _check_objects(rows: Iterable[tuple[str, object]]) -> None:
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f'{place}: no object; rows are written as {{"text": "…", "label": "…"}}.')
        if any(SURROGATE.search(value) for value in row.values() if isinstance(value, str)):
            raise DataError(f"{place}: half a character (a lone surrogate); write the whole one.")


def _reason(error: Exception) -> str:
    """The innermost cause's own words, on one line: the builders wrap it in 'An error occurred…'."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read_squad(path: Path) -> Dataset:
    """One row a question from SQuAD's nesting of articles, paragraphs and questions."""
    rows: list[dict[str, object]] = []
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                rows.extend(_squad_row(article, paragraph, question) for question in paragraph["qas"])
        return Dataset.from_dict({name: [row[name] for row in rows] for name in QUESTIONS}, features=QUESTIONS)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else _reason(error)
        after = f" after question {rows[-1]['id']!r}" if rows else ""
        raise DataError(
            f"{path.name}{after}: not a file in SQuAD's format ({reason}). It holds data > paragraphs > context and "
            "qas > id, question, answers > text, answer_start; name a file of JSON Lines .jsonl."
        ) from error


def _read_columns(path: Path) -> Dataset:
    words, labels, lines = zip(*tags.read_columns(path), strict=True)
    return Dataset.from_dict({"tokens": words, "ner_tags": labels, "line": lines})


_COLUMN_READERS = dict.fromkeys(COLUMN_FILES, _read_columns)


def _squad_row(article: dict, paragraph: dict, question: dict) -> dict[str, object]:
    answers = question.get("answers") or []
    if not all(isinstance(text, str) for text in (question["id"], question["question"], paragraph["context"])):
        raise TypeError("an id, question or context is no string")
    return {
        "id": question["id"],
        "title": article.get("title"),
        "question": question["question"],
        "context": paragraph["context"],
        "answers": {name: [answer[name] for answer in answers] for name in ("text", "answer_start")},
    }


def _read_hub(repo: str, config: str | None, revision: str | None) -> dict[str, Dataset]:
    try:
        commit = hub.find_commit(repo, revision, kind="dataset")
        if commit.offline:
            builder = _cached_builder(repo, config, commit)
        else:
            builder = load_dataset_builder(f"hf://datasets/{repo}", config, revision=commit.hash)
        if builder.hash != commit.hash:  # the Hub went away meanwhile: this is the cache's latest, not what was asked
            raise hub.HubError(hub.unreachable("it stopped answering"))
        builder.download_and_prepare()
        loaded = builder.as_dataset()
    except hub.HubError as error:
        raise DataError(f"{repo}: {error}.") from error
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        raise DataError(f"{repo}: the repository has no data files of a kind that is known.") from error
    except Exception as error:  # as with files; a connection cut in mid-download has types of its own, too
        raise DataError(f"{repo}: {_reason(error)}") from error
    named = {SPLIT_NAMES[name]: loaded[name] for name in sorted(loaded, key=SPLITS.__contains__) if name in SPLIT_NAMES}
    splits = {name: named[name] for name in SPLITS if name in named}
    if "train" not in splits:
        raise DataError(f"{repo}: no train split; it has {', '.join(loaded)}.")
    for name, split in splits.items():
        split.info.description = f"{repo}, {name} split"
    return splits


def _cached_builder(repo: str, config: str | None, commit: hub.Commit) -> DatasetBuilder:
    """The builder of an earlier load of the same commit and config; "default" is the one of a repository without."""
    name = config or "default"
    builder = Cache(repo_id=repo, dataset_name=repo.split("/")[1], config_name=name, version="0.0.0", hash=commit.hash)
    if not Path(builder.cache_dir).is_dir():
        raise hub.HubError(
            f"{hub.unreachable(commit.offline)}, and the cache does not hold the config {name!r} of this revision; "
            "name the config (owner/name/config) or give a local file or folder"
        )
    return builder


# --- checking ----------------------------------------------------------------------------------------------


def place(dataset: Dataset) -> str:
    """Where a split came from, for messages and records."""
    return dataset.info.description or "data"


def _no_column(at: str, columns: Mapping[str, str], names: Sequence[str], *, where: str = "") -> DataError:
    """The error for the first of `columns` (by field of a row) that is not among `names`, with its parameter."""
    field, missing = next((field, column) for field, column in columns.items() if column not in names)
    cure = "Rename it in the file."
    if field in PARAMETERS:
        # Pairs stand beside other data in notebook 3, whose parameters for them have a prefix.
        prefixed = f" (in notebook 3 STS_{PARAMETERS[field]})" if "text_pair" in columns else ""
        cure = f"Name the right one by {PARAMETERS[field]}{prefixed}."
    shown = ", ".join(repr(name[:60]) for name in names[:12])
    return DataError(f"{at}: no column {missing!r}{where}; it has {shown}. {cure}")


def _rename(dataset: Dataset, columns: dict[str, str]) -> Dataset:
    """Give the columns their canonical names (the keys of `columns`)."""
    for canonical, given in columns.items():
        if given not in dataset.column_names:
            raise _no_column(place(dataset), columns, dataset.column_names)
        twice = [other for other in columns if columns[other] == given and other != canonical]
        if twice:
            raise ParameterError(
                f"column {given!r} is named both for {canonical} and for {twice[0]}; name two columns."
            )
    # Unrelated columns of these names stand in the way.
    dataset = dataset.remove_columns(
        [name for name in columns if name in set(dataset.column_names) - {*columns.values()}]
    )
    return dataset.rename_columns({given: canonical for canonical, given in columns.items() if given != canonical})


@contextmanager
def _own_names(columns: Mapping[str, str]) -> Iterator[None]:
    """Errors of renamed columns, with the names that the file has: 'label' may be 'team' there."""
    try:
        yield
    except DataError as error:
        told = re.sub(r", column '(\w+)':", lambda at: f", column {columns.get(at[1], at[1])!r}:", str(error), count=1)
        raise DataError(told) from error


def check_texts(dataset: Dataset, column: str) -> None:
    """Raise DataError at the first row whose text is missing, not a string, invisible, damaged or far too long."""
    table = dataset.data.column(column)
    if pa.types.is_null(table.type):
        raise DataError(f"{place(dataset)}, column {column!r}: every value is null.")
    if not (pa.types.is_string(table.type) or pa.types.is_large_string(table.type)):
        raise DataError(f"{place(dataset)}, column {column!r}: holds {table.type}, not text.")
    values = dataset.with_format("arrow")[:][column]
    tests = {
        "the text is null; fill it or delete the row": pc.is_null(values),
        "the text is empty; fill it or delete the row": pc.match_substring_regex(values, INVISIBLE),
        f"{DAMAGED}; mend or delete the row": pc.match_substring(values, "\0"),
        f"{TOO_LONG}; split it, or mend the file": pc.greater_equal(pc.utf8_length(values), LONGEST),
    }
    for problem, found in tests.items():
        rows = np.flatnonzero(pc.fill_null(found, False))
        if len(rows):
            raise DataError(f"{_at(dataset, rows, column)}: {problem}.")


def _at(dataset: Dataset, rows: Sequence[int], column: str) -> str:
    """Where a fault stands: its first row (of `rows`, counted from 0), and the others, to be mended in one go."""
    shown = ", ".join(str(row + 1) for row in rows[1:9])
    more = f" and {len(rows) - 9} more" if len(rows) > 9 else ""
    also = f" (also row{'s' * (len(rows) > 2)} {shown}{more})" if shown else ""
    return f"{place(dataset)}, row {rows[0] + 1}{also}, column {column!r}"


def _class_labels(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    """Turn the `label` column of every split into one `ClassLabel`, the names taken from the training rows."""
    if all(isinstance(split.features["label"], ClassLabel) for split in splits.values()):
        for split in splits.values():
            _check_label_range(split)
        return splits
    keys = {name: _label_strings(split) for name, split in splits.items()}
    names = sorted(set(keys["train"]), key=_natural)
    known = set(names)
    for split_name, values in keys.items():
        rows = [i for i, value in enumerate(values) if value not in known]
        if rows:
            raise DataError(
                f"{_at(splits[split_name], rows, 'label')}: {values[rows[0]]!r} does not occur in the training rows, "
                f"whose labels are {', '.join(map(repr, names[:12]))}."
            )
    feature = ClassLabel(names=names)
    return {name: _replace_label(split, keys[name], feature) for name, split in splits.items()}


def _replace_label(dataset: Dataset, values: list[str], feature: ClassLabel) -> Dataset:
    index = {name: i for i, name in enumerate(feature.names)}
    labels = [index[value] for value in values]
    return dataset.remove_columns("label").add_column("label", labels, feature=feature)


def _natural(name: str) -> tuple[int, float, str]:
    """Sort "2" before "10", numbers before words."""
    return (0, int(name), "") if re.fullmatch(r"-?\d{1,15}", name) else (1, 0, name)


def _label_strings(dataset: Dataset) -> list[str]:
    values = dataset.with_format("arrow")[:]["label"].to_pylist()
    missing = [i for i, value in enumerate(values) if value is None or (isinstance(value, str) and not value.strip())]
    if missing:
        raise DataError(f"{_at(dataset, missing, 'label')}: the label is missing; fill it or delete the row.")
    feature = dataset.features["label"]
    strings = []
    for row, value in enumerate(values, 1):
        at = f"{place(dataset)}, row {row}, column 'label'"
        if isinstance(feature, ClassLabel):
            value = feature.int2str(value)
        if isinstance(value, float) and not value.is_integer():
            raise DataError(f"{at}: {value} is no class; labels are strings, whole numbers or booleans.")
        if not isinstance(value, (str, int, float)):
            raise DataError(f"{at}: {value!r} is no class; labels are strings, whole numbers or booleans.")
        strings.append(str(int(value)) if isinstance(value, float) else str(value).strip())
    return strings


def _check_label_range(dataset: Dataset) -> None:
    labels = np.asarray(dataset.with_format("arrow")[:]["label"].to_numpy(zero_copy_only=False), dtype=float)
    bad = np.flatnonzero(~((labels >= 0) & (labels < dataset.features["label"].num_classes)))
    if bad.size:
        raise DataError(f"{place(dataset)}, row {bad[0] + 1}, column 'label': no label (the split is unlabelled?).")


def _drop_unlabelled(splits: dict[str, Dataset]) -> None:
    """Take out a test split whose every score is -1, which is how GLUE withholds its test labels."""
    if {_number(value) for value in splits["test"]["label"]} == {-1}:
        warnings.warn(f"{place(splits['test'])}: every score is -1, so it is unlabelled and left out.", stacklevel=3)
        del splits["test"]


def _scored(dataset: Dataset, low: float, high: float) -> Dataset:
    """Turn the `label` column into floats, all of them in `low` to `high`."""
    values = dataset.with_format("arrow")[:]["label"].to_pylist()
    scores = [_number(value) for value in values]
    bad = [i for i, score in enumerate(scores) if score is None or not low <= score <= high]
    if bad:
        value, score = values[bad[0]], scores[bad[0]]
        if score is None:
            what = "the score is missing" if value in (None, "") else f"{value!r} is no finite number"
        else:
            what = f"{score:g} lies outside the scale of {low:g} to {high:g}"
        raise DataError(f"{_at(dataset, bad, 'label')}: {what}; mend or delete the row.")
    return dataset.remove_columns("label").add_column("label", scores, feature=Value("float64"))


def _check_classes(dataset: DatasetDict) -> None:
    classes, rows = len(set(dataset["train"]["label"])), len(dataset["train"])
    if classes < 2:
        raise DataError(f"{place(dataset['train'])}: one class only; a classifier needs rows of at least two.")
    if classes > max(2, rows / 2):
        raise DataError(
            f"{place(dataset['train'])}: {classes} classes in {rows} training rows: most occur once, and cannot be "
            "learned; name the column that holds classes (LABEL_COLUMN), or give more rows."
        )


def _tagged(
    splits: dict[str, Dataset], tokens_column: str, tags_column: str, types: Mapping[str, str] | None
) -> dict[str, Dataset]:
    """Splits with checked words and their tags as IOB2 strings."""
    renaming = {"tokens": tokens_column, "ner_tags": tags_column}
    splits = {name: _rename(split, renaming) for name, split in splits.items()}
    sequences = {name: _tag_strings(split) for name, split in splits.items()}
    _check_types(splits, sequences, types or {})
    scheme = _scheme(splits, sequences)
    for name, split in splits.items():
        converted = [_map_types(tags.to_iob2(row, scheme), types) for row in sequences[name]]
        description = f"{place(split)}, tags in {scheme}"
        splits[name] = split.remove_columns("ner_tags").add_column("ner_tags", converted)
        splits[name].info.description = description
    return splits


def _check_types(
    splits: Mapping[str, Dataset], sequences: Mapping[str, list[list[str]]], types: Mapping[str, str]
) -> None:
    """Raise DataError for a type that is to be mapped and occurs nowhere: mistyped, it would drop its entities."""
    found = sorted({tag[2:] for rows in sequences.values() for row in rows for tag in row if tag != "O"})
    for kind in types:
        if kind not in found:
            places = ", ".join(place(split) for split in splits.values())
            raise DataError(
                f"{places}: no entity of the type {kind!r}, which TRANSFER_TYPES maps; there are {', '.join(found)}."
            )


def _row_place(dataset: Dataset, row: int, position: int = 0) -> str:
    """File and line of a word where the file has lines, else the row; both from 1."""
    if "line" in dataset.column_names:
        return f"{place(dataset)}, line {dataset[row]['line'] + position}"
    return f"{place(dataset)}, row {row + 1}, word {position + 1}"


def _tag_strings(dataset: Dataset) -> list[list[str]]:
    feature = getattr(dataset.features["ner_tags"], "feature", None)
    rows = []
    for number, (words, labels) in enumerate(zip(dataset["tokens"], dataset["ner_tags"], strict=True)):
        if not isinstance(words, list) or not isinstance(labels, list) or not words:
            raise DataError(f"{_row_place(dataset, number)}: needs a list of words and a list of tags, not empty.")
        if len(words) != len(labels):
            raise DataError(f"{_row_place(dataset, number)}: {len(words)} words but {len(labels)} tags; mend the row.")
        if isinstance(feature, ClassLabel):
            labels = [feature.int2str(label) for label in labels]
        for position, (word, label) in enumerate(zip(words, labels, strict=True)):
            if not isinstance(word, str) or "\0" in word:
                raise DataError(f"{_row_place(dataset, number, position)}: the word {word!r} is no text.")
            if not isinstance(label, str) or not tags.TAG.fullmatch(label):
                at = _row_place(dataset, number, position)
                raise DataError(f"{at}: {label!r} is no tag; write O, or prefix and type as B-PER.")
        rows.append(labels)
    return rows


def _scheme(splits: dict[str, Dataset], sequences: dict[str, list[list[str]]]) -> str:
    try:
        return tags.find_scheme([row for rows in sequences.values() for row in rows])
    except tags.SequenceError as error:
        row = error.sequence
        for name, rows in sequences.items():
            if row < len(rows):
                raise DataError(f"{_row_place(splits[name], row, error.position)}: {error}") from error
            row -= len(rows)
        raise


def _map_types(labels: list[str], types: Mapping[str, str] | None) -> list[str]:
    if types is None:
        return labels
    return [f"{tag[:2]}{types[tag[2:]]}" if tag[2:] in types else "O" for tag in labels]


def _tag_classes(dataset: Dataset, names: Sequence[str], cure: str = "retag or delete the word") -> Dataset:
    index, rows = {name: i for i, name in enumerate(names)}, []
    for number, labels in enumerate(dataset["ner_tags"]):
        unknown = next((position for position, tag in enumerate(labels) if tag not in index), None)
        if unknown is not None:
            raise DataError(
                f"{_row_place(dataset, number, unknown)}: the tag {labels[unknown]!r} is not among those trained on, "
                f"{', '.join(names)}; {cure}."
            )
        rows.append([index[tag] for tag in labels])
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=list(names)))})
    tagged = Dataset.from_dict({"tokens": dataset["tokens"], "ner_tags": rows}, features=features)
    tagged.info.description = place(dataset)
    return tagged


def _question_columns(dataset: Dataset) -> Dataset:
    needed = {name: name for name in QUESTIONS if name != "title"}
    if not needed.keys() <= set(dataset.column_names):
        raise _no_column(place(dataset), needed, dataset.column_names)
    kept = Features({name: feature for name, feature in QUESTIONS.items() if name in dataset.column_names})
    try:
        return dataset.select_columns(list(kept)).cast(kept)
    except (TypeError, ValueError, pa.ArrowNotImplementedError) as error:  # ValueError: also Arrow's, of a bad cast
        raise DataError(
            f"{place(dataset)}: a column of another type than SQuAD's ({_reason(error)}). id, question and context are "
            'strings, answers is {"text": [strings], "answer_start": [whole numbers]}.'
        ) from error


def check_questions(dataset: Dataset) -> None:
    """Raise DataError at the first question that cannot be learned from or judged."""
    seen: set[str] = set()
    columns = dataset.with_format("arrow")[:]
    values = (columns[name].to_pylist() for name in ("id", "question", "context", "answers"))
    for row, (name, question, context, answers) in enumerate(zip(*values, strict=True), 1):
        problem = "a second question of this id; give each its own." if name in seen else None
        problem = problem or _question_problem(question, context, answers)
        if not name:
            raise DataError(f"{place(dataset)}, row {row}, column 'id': the question has no id; give it one.")
        if problem:
            raise DataError(f"{place(dataset)}, question {name!r}: {problem}")
        seen.add(name)


def _question_problem(question: str | None, context: str | None, answers: dict[str, list] | None) -> str | None:
    for name, text in (("question", question), ("context", context)):
        if not (text and any(letter.isprintable() and not letter.isspace() for letter in text)):
            return f"the {name} is empty; fill it or delete the question."
        if "\0" in text:
            return f"{DAMAGED} ({name}); mend or delete the question."
        if len(text) >= LONGEST:
            return f"{TOO_LONG} ({name}); split it, or mend the file."
    texts, starts = ((answers or {}).get(name) or [] for name in ("text", "answer_start"))
    if not texts or len(texts) != len(starts):
        return (
            f"{len(texts)} answer texts and {len(starts)} values of answer_start; each question needs at least one of "
            "both. Delete those without an answer (SQuAD 2.0 has them)."
        )
    for text, start in zip(texts, starts, strict=True):
        if not (text and text.strip()):
            return "an answer is empty; fill it or delete it."
        if start is None or start < 0 or not context.startswith(text, start):
            found = context.find(text)
            cure = "the context does not hold it" if found < 0 else f"the context first holds it at {found}"
            return f"the answer {text!r} is not at answer_start {start}; {cure} (characters, counted from 0)."
    return None


# --- splitting ---------------------------------------------------------------------------------------------


def stratified_indices(labels: Sequence[int], size: int, *, seed: int) -> np.ndarray:
    """`size` row numbers, ascending, each class in its share (to within one row); seeded.

    The rows are shuffled, sorted by label, and taken at even steps (systematic sampling), so that classes of
    a single row do no harm.
    """
    labels = np.asarray(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    steps = ((np.arange(size) + 0.5) * len(labels) / size).astype(int)
    return np.sort(by_label[steps])


def draw_by_label(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """`size` row numbers, stratified by column `label`."""
    return stratified_indices(dataset["label"], size, seed=seed)


def draw_rows(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """`size` row numbers, ascending, every row as likely as any other."""
    return np.sort(np.random.default_rng(seed).permutation(len(dataset))[:size])


def draw_contexts(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """The row numbers of whole contexts, drawn one by one until they have at least `size` rows.

    Raises DataError when no context would be left.
    """
    context = pd.factorize(np.asarray(dataset["context"], dtype=object))[0]
    rows = np.bincount(context)
    order = np.random.default_rng(seed).permutation(len(rows))
    drawn = order[: np.searchsorted(rows[order].cumsum(), size) + 1]
    if len(drawn) == len(rows):
        raise DataError(
            f"{place(dataset)}: {len(dataset)} questions on {len(rows)} contexts are too few to hold out {size} of "
            "them with contexts of their own; give more, or a file for each split."
        )
    return np.flatnonzero(np.isin(context, drawn))


def split_missing(
    splits: dict[str, Dataset],
    sizes: Mapping[str, int],
    *,
    seed: int,
    draw: Callable[..., np.ndarray] = draw_by_label,
) -> dict[str, Dataset]:
    """Take a missing test or validation split from the training rows, as `draw` chooses them, seeded.

    It gets as many rows as `sizes` says, or a tenth of the training rows where that is 0. Raises DataError when
    no training rows would be left.
    """
    splits, total = dict(splits), len(splits["train"])
    for name in ("test", "validation"):
        if name in splits:
            continue
        train, size = splits["train"], sizes[name] or max(1, round(HELD_OUT * total))
        if size >= len(train):
            raise DataError(f"{place(train)}: {total} rows are too few to hold out {size} of them as {name} rows.")
        held_out = draw(train, size, seed=seed)
        kept = np.setdiff1d(np.arange(len(train)), held_out)
        splits[name], splits["train"] = train.select(held_out), train.select(kept)
        splits[name].info.description = f"{place(train)}, {len(held_out)} rows held out as {name}"
    return splits


def subsample(dataset: Dataset, size: int, *, seed: int, draw: Callable[..., np.ndarray] = draw_by_label) -> Dataset:
    """`size` rows, as `draw` chooses them, seeded; all of them for 0 or when there are no more."""
    if size == 0 or size >= len(dataset):
        return dataset
    return dataset.select(draw(dataset, size, seed=seed))


def slice_column(dataset: Dataset, column: str) -> list[str]:
    """The values of a column as text, to slice results by. Raises DataError when there is no such column."""
    if column not in dataset.column_names:
        known = ", ".join(dataset.column_names)
        raise DataError(f"{place(dataset)}: no column {column!r} to slice by; it has {known}.")
    return ["" if value is None else str(value) for value in dataset[column]]


def thin_out(dataset: DatasetDict, one_in: int, *, seed: int) -> DatasetDict:
    """Every split with one in `one_in` rows of its rarest class (of several, the last), at least one; seeded."""
    counts = np.bincount(dataset["train"]["label"])
    rarest = len(counts) - 1 - int(np.argmin(counts[::-1]))
    rng = np.random.default_rng(seed)

    def keep(split: Dataset) -> Dataset:
        rare = np.asarray(split["label"]) == rarest
        drawn = rng.permutation(np.flatnonzero(rare))[: max(1, rare.sum() // one_in)]
        return split.select(np.sort(np.concatenate([np.flatnonzero(~rare), drawn])))

    return DatasetDict({name: keep(split) for name, split in dataset.items()})


# --- describing --------------------------------------------------------------------------------------------


def label_counts(dataset: DatasetDict) -> pd.DataFrame:
    """Rows by class (index) and split (columns)."""
    names = dataset["train"].features["label"].names
    counts = {name: Counter(split["label"]) for name, split in dataset.items()}
    return pd.DataFrame({name: [count[i] for i in range(len(names))] for name, count in counts.items()}, index=names)


def fingerprint(dataset: DatasetDict) -> str:
    """SHA-256 over every split's name, columns and values: the same rows give the same digest anywhere."""
    digest = hashlib.sha256()
    for name, split in dataset.items():
        digest.update(json.dumps([name, split.column_names]).encode())
        for batch in split.with_format(None).iter(batch_size=1000):
            digest.update(json.dumps(batch, default=str, ensure_ascii=True).encode())
    return digest.hexdigest()
