"""From a source (the sample, a local file or folder, a Hub id) to the raw rows of its splits.

`datasets` reads the files; what stands here finds the file, its delimiter and quoting, and says why one cannot be read.
"""

import csv
import json
import math
import re
import string
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from datasets import Dataset, Features, List, Value, load_dataset, load_dataset_builder
from datasets.builder import DatasetBuilder
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError
from datasets.packaged_modules.cache.cache import Cache
from datasets.utils import logging

from bert_helpers.errors import DataError, parameter
from bert_helpers.readers import hub, tags

SAMPLES = Path(__file__).parents[1] / "samples"
SPLITS = ("train", "validation", "test")
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "dev": "validation", "testa": "validation", "test": "test", "testb": "test"}  # fmt: skip
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
QUESTIONS = Features(
    {
        **{name: Value("string") for name in ("id", "title", "question", "context")},
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
)
# The parameter that names the column of a field
PARAMETERS = {"text": "TEXT_COLUMN", "text_pair": "PAIR_COLUMN", "label": "LABEL_COLUMN", "tokens": "TOKENS_COLUMN",
              "ner_tags": "TAGS_COLUMN"}  # fmt: skip
# What the first bytes of a file say that is no plain text
MAGIC = {b"\x1f\x8b": "gzip data; unpack it", b"PK\x03\x04": "a zip or Excel file; unpack it or save it as CSV",
         b"\xff\xfe": "UTF-16 text; save it as UTF-8", b"\xfe\xff": "UTF-16 text; save it as UTF-8",
         b"PAR1": "Parquet data; name it .parquet"}  # fmt: skip
SURROGATE = re.compile("[\ud800-\udfff]")
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
Reader = Callable[[Path], Dataset]


def place(dataset: Dataset) -> str:
    """Where a split came from, for messages and records."""
    return dataset.info.description or "data"


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
    dataset = readers[suffix](path) if suffix in readers else read_table(path, header)
    if len(dataset) == 0:
        raise DataError(f"{path.name}: no rows.")
    dataset.info.description = path.name
    return dataset


def read_table(path: Path, header: Mapping[str, str], *, headerless: bool = False) -> Dataset:
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
    if sep:
        columns = list(header.values())
    else:  # blanks at the ends of names are nobody's
        columns = [name.strip() for name in pd.read_csv(path, nrows=0, **options).columns]
        options |= {"names": columns, "header": 0}
    _check_rows(path, options["sep"], options["quoting"], len(columns))
    return {**options, "keep_default_na": False, "features": Features({name: Value("string") for name in columns})}


def _check_rows(path: Path, sep: str, quoting: int, width: int) -> None:
    """Raise DataError at the first row that is not quoted by the rules, or too wide; a million rows take 1 s.

    pandas takes what stands between two stray marks for one text, rows and all, and says nothing of it.
    """
    first = 1  # line of the row that is read
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file, _fields_of_any_length():
        reader = csv.reader(file, delimiter=sep, quoting=quoting, strict=True)
        try:
            for fields in reader:
                if len(fields) > width:
                    raise DataError(
                        f"{path.name}, line {first}: {len(fields)} fields where the header has {width}; put a text "
                        f"that holds the delimiter {sep!r} in quotation marks."
                    )
                first = reader.line_num + 1
        except csv.Error as error:
            if "NUL" not in str(error):  # on Python 3.10; what to do with it is said of the text
                raise DataError(
                    f"{path.name}, line {first}: a quotation mark opens a text and is not closed, or the text goes on "
                    'behind the closing one; close it, and write "" for a mark within a text.'
                ) from error


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimiter_without_header(path: Path, header: Mapping[str, str]) -> str | None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline()
    for sep in _delimiters(path):
        fields = next(csv.reader([first], delimiter=sep, quoting=_quoting(path, sep)), [])
        if len(fields) == len(header) and to_number(fields[-1]) is not None:
            return sep
    return None


def _quoting(path: Path, sep: str) -> int:
    """Whether quotation marks are text: in a tab-separated file that breaks the rules of quoting, as STS-B's do.

    Read by those rules, a text that opens with a mark and does not close it would swallow the rows after it.
    """
    if sep != "\t":
        return csv.QUOTE_MINIMAL
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file, _fields_of_any_length():
        try:
            deque(csv.reader(file, delimiter=sep, strict=True), maxlen=0)
        except csv.Error:
            return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL


def _delimiters(path: Path) -> list[str]:
    return ["\t"] if path.suffix.lower() == ".tsv" else [",", ";", "\t", "|"]


def _unusual_delimiters(path: Path) -> list[str]:
    """Other signs of the first line that may stand between names; none for .tsv, whose delimiter is known."""
    if path.suffix.lower() == ".tsv":
        return []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        counts = Counter(sign for sign in file.readline(10_000) if sign in string.punctuation and sign not in "\"'_-.")
    return [sign for sign, _ in counts.most_common() if sign not in _delimiters(path)]


def _delimiter(path: Path, header: Mapping[str, str]) -> str:
    wanted = {name.strip() for name in header.values()}
    fields = {sep: _header(path, sep) for sep in _delimiters(path)}
    found = [sep for sep, names in fields.items() if wanted <= set(names)]
    if not found and header:
        found = [sep for sep in _unusual_delimiters(path) if wanted <= set(_header(path, sep))]
        fields |= {sep: _header(path, sep) for sep in found}
    if not found and header:
        if problem := _undecodable(path):  # a name with an umlaut is not found for that
            raise DataError(problem)
        names = max(fields.values(), key=len)
        if names and names[0].lower().startswith("sep="):
            raise DataError(f"{path.name}: the first line is Excel's {names[0]!r}, not a header; delete it.")
        # one field: the delimiter is unusual, and the names asked for are not there either
        other = "" if len(names) > 1 else " Give each column's name by itself; the delimiter is found by them."
        if any(to_number(name) is not None or len(name.split()) > 4 for name in names):
            other += " Is that a row of data? Then write a line with names above it."
        raise DataError(f"{no_column(path.name, header, names, where=' in the header').problem}{other}")
    sep = found[0] if found else next(iter(fields))
    names = Counter(fields[sep])
    if twice := [name for name in header.values() if names[name.strip()] > 1]:
        raise DataError(
            f"{path.name}: the header has {names[twice[0].strip()]} columns {twice[0]!r}; rename all but one."
        )
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
        return f"{path.name}: not a readable Parquet file ({innermost_reason(error)})."
    return _undecodable(path) or f"{path.name}: cannot be read ({innermost_reason(error)})."


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


def innermost_reason(error: Exception) -> str:
    """The innermost cause's own words, on one line: the builders wrap it in 'An error occurred…'."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return " ".join(str(error).split())[:300] or type(error).__name__


def read_squad(path: Path) -> Dataset:
    """One row a question from SQuAD's nesting of articles, paragraphs and questions."""
    rows: list[dict[str, object]] = []
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                rows.extend(_squad_row(article, paragraph, question) for question in paragraph["qas"])
        return Dataset.from_dict({name: [row[name] for row in rows] for name in QUESTIONS}, features=QUESTIONS)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else innermost_reason(error)
        after = f" after question {rows[-1]['id']!r}" if rows else ""
        raise DataError(
            f"{path.name}{after}: not a file in SQuAD's format ({reason}). It holds data > paragraphs > context and "
            "qas > id, question, answers > text, answer_start; name a file of JSON Lines .jsonl."
        ) from error


def _read_columns(path: Path) -> Dataset:
    words, labels, lines = zip(*tags.read_columns(path), strict=True)
    return Dataset.from_dict({"tokens": words, "ner_tags": labels, "line": lines})


COLUMN_READERS = dict.fromkeys(COLUMN_FILES, _read_columns)


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
        raise DataError(f"{repo}: {innermost_reason(error)}") from error
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


def no_column(at: str, columns: Mapping[str, str], names: Sequence[str], *, where: str = "") -> DataError:
    """The error for the first of `columns` (by field of a row) that is not among `names`, with its parameter."""
    field, missing = next((field, column) for field, column in columns.items() if column not in names)
    cure = "Rename it in the file."
    if field in PARAMETERS:
        cure = f"Name the right one by {parameter(PARAMETERS[field])}."
    shown = ", ".join(repr(name[:60]) for name in names[:12])
    return DataError(f"{at}: no column {missing!r}{where}; it has {shown}. {cure}")


def to_number(value: object) -> float | None:
    """A number, or text that is one; None for anything else, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
