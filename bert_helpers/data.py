"""From a source (the sample, a local file or folder, a Hub id) to a checked `DatasetDict`.

Labels become a `ClassLabel`, whose names the model's config takes over. Every error names the place.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from bert_helpers.errors import DataError

SAMPLES = Path(__file__).parent / "samples"
SPLITS = ("train", "validation", "test")
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
               "dev": "validation", "test": "test"}  # fmt: skip
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
HELD_OUT = 0.1  # share of the training rows that becomes a missing validation or test split


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
    splits = {
        name: _rename(split, {text_column: "text", label_column: "label"}, source=source)
        for name, split in read_source(source, sample="reviews", header=(text_column, label_column)).items()
    }
    for split in splits.values():
        check_texts(split, "text")
    splits = _class_labels(splits)
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    splits = split_missing(splits, sizes, seed=seed)
    dataset = DatasetDict({name: subsample(splits[name], sizes[name], seed=seed) for name in SPLITS})
    _check_classes(dataset)
    return dataset


# --- reading -----------------------------------------------------------------------------------------------


def read_source(source: str | Path, *, sample: str, header: Sequence[str] = ()) -> dict[str, Dataset]:
    """The raw splits of a source; `sample` names the packaged folder that "sample" stands for.

    `header` lists the columns a delimited file must have; they tell its delimiter (comma, semicolon, tab, bar).
    Each split's `info.description` names the place for error messages. Raises DataError.
    """
    if str(source) == "sample":
        source = SAMPLES / sample
    path = Path(source).expanduser()
    try:
        if path.is_file():
            return {"train": _read_file(path, header)}
        if path.is_dir():
            return {name: _read_file(file, header) for name, file in _split_files(path).items()}
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error}).") from error
    match = HUB_ID.fullmatch(str(source))
    if match is None or path.suffix in FORMATS or str(source).startswith((".", "/", "~")):
        raise DataError(f"{source}: no such file or folder (a relative path is taken from {_here()}).")
    return _read_hub(match["repo"], match["config"], match["revision"])


def _here() -> str:
    return f"the folder '{Path.cwd().name}'"


def _split_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in FORMATS or file.stem.lower() not in SPLIT_NAMES:
            continue
        name = SPLIT_NAMES[file.stem.lower()]
        if name in files:
            raise DataError(f"{folder}: both {files[name].name} and {file.name} hold the {name} split; keep one.")
        files[name] = file
    if "train" not in files:
        raise DataError(f"{folder}: no train file. Name the files train, validation, test + {' / '.join(FORMATS)}.")
    return files


def _read_file(path: Path, header: Sequence[str]) -> Dataset:
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path.name}: unknown kind of file; known are {', '.join(FORMATS)}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name}: the file is empty.")
    kind = FORMATS[path.suffix.lower()]
    # Everything in a delimited file is text: "007" stays "007" and the word "null" stays a word.
    options = {"csv": {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}}.get(kind, {})
    if kind == "csv":
        options["sep"] = _delimiter(path, header)
    try:
        dataset = load_dataset(kind, data_files=str(path), split="train", **options)
    except Exception as error:  # the builders raise a dozen types, none of which names the row
        raise DataError(_why_unreadable(path, kind, error)) from error
    if len(dataset) == 0:
        raise DataError(f"{path.name}: no rows below the header.")
    dataset.info.description = path.name
    return dataset


def _delimiter(path: Path, header: Sequence[str]) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    candidates = ["\t"] if path.suffix.lower() == ".tsv" else [",", ";", "\t", "|"]
    found = [sep for sep in candidates if set(header) <= set(_fields(first, sep))]
    if not found and header:
        names = _fields(first, max(candidates, key=first.count))
        missing = [name for name in header if name not in names]
        raise DataError(
            f"{path.name}: no column {missing[0]!r} in the header; it has {', '.join(map(repr, names[:12]))}. "
            "Name the column by parameter (TEXT_COLUMN, LABEL_COLUMN)."
        )
    return found[0] if found else candidates[0]


def _fields(line: str, sep: str) -> list[str]:
    return [field.strip().strip('"') for field in line.strip("\r\n").split(sep)]


def _why_unreadable(path: Path, kind: str, error: Exception) -> str:
    """Find the first bad line by reading again, slowly: only done once reading has failed."""
    if kind == "parquet":
        return f"{path.name}: not a readable Parquet file ({_reason(error)})."
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as bad:
                return f"{path.name}, line {number}: byte {bad.start + 1} is not UTF-8; save the file as UTF-8."
            if path.suffix.lower() == ".jsonl" and text.strip():
                try:
                    json.loads(text)
                except ValueError as bad:
                    return f"{path.name}, line {number}: not valid JSON ({bad})."
    return f"{path.name}: {_reason(error)}"


def _reason(error: Exception) -> str:
    """The innermost cause's own words, on one line: the builders wrap it in 'An error occurred…'."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read_hub(repo: str, config: str | None, revision: str | None) -> dict[str, Dataset]:
    try:
        loaded = load_dataset(repo, config, revision=revision)
    except DatasetNotFoundError as error:
        raise DataError(
            f"{repo}: no such file or folder here, and no such dataset (or revision) on the Hub."
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError, OSError) as error:
        raise DataError(
            f"{repo}: the Hub cannot be reached ({_reason(error)}); give a local file or folder."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{repo}: {_reason(error)}") from error
    splits = {name: loaded[name] for name in SPLITS if name in loaded}
    if "train" not in splits:
        raise DataError(f"{repo}: no train split; it has {', '.join(loaded)}.")
    for name, split in splits.items():
        split.info.description = f"{repo}, {name} split"
    return splits


# --- checking ----------------------------------------------------------------------------------------------


def place(dataset: Dataset) -> str:
    """Where a split came from, for messages and records."""
    return dataset.info.description or "data"


def _rename(dataset: Dataset, columns: dict[str, str], *, source: str | Path) -> Dataset:
    for given, canonical in columns.items():
        if given not in dataset.column_names:
            names = ", ".join(map(repr, dataset.column_names[:12]))
            raise DataError(f"{place(dataset)}: no column {given!r}; it has {names}. Name it by parameter.")
        if given == canonical:
            continue
        if canonical in dataset.column_names:  # an unrelated column of that name stands in the way
            dataset = dataset.remove_columns(canonical)
        dataset = dataset.rename_column(given, canonical)
    return dataset


def check_texts(dataset: Dataset, column: str) -> None:
    """Raise DataError at the first row whose text is missing, not a string, or blank."""
    table = dataset.data.column(column)
    if pa.types.is_null(table.type):
        raise DataError(f"{place(dataset)}, column {column!r}: every value is null.")
    if not (pa.types.is_string(table.type) or pa.types.is_large_string(table.type)):
        raise DataError(f"{place(dataset)}, column {column!r}: holds {table.type}, not text.")
    values = dataset.with_format("arrow")[:][column]
    for test, what in ((pc.is_null(values), "null"), (pc.equal(pc.utf8_trim_whitespace(values), ""), "empty")):
        row = pc.index(test, True).as_py()
        if row >= 0:
            raise DataError(
                f"{place(dataset)}, row {row + 1}, column {column!r}: the text is {what}; fill it or delete the row."
            )


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
        row = next((i for i, value in enumerate(values) if value not in known), None)
        if row is not None:
            raise DataError(
                f"{place(splits[split_name])}, row {row + 1}, column 'label': {values[row]!r} does not occur in the "
                f"training rows, whose labels are {', '.join(map(repr, names[:12]))}."
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
    feature = dataset.features["label"]
    strings = []
    for row, value in enumerate(values, 1):
        at = f"{place(dataset)}, row {row}, column 'label'"
        if value is None or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{at}: the label is missing; fill it or delete the row.")
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


def _check_classes(dataset: DatasetDict) -> None:
    classes = len(set(dataset["train"]["label"]))
    if classes < 2:
        raise DataError(f"{place(dataset['train'])}: one class only; a classifier needs rows of at least two.")


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


def split_missing(splits: dict[str, Dataset], sizes: Mapping[str, int], *, seed: int) -> dict[str, Dataset]:
    """Take a missing test or validation split from the training rows, stratified and seeded.

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
        held_out = stratified_indices(train["label"], size, seed=seed)
        kept = np.setdiff1d(np.arange(len(train)), held_out)
        splits[name], splits["train"] = train.select(held_out), train.select(kept)
        splits[name].info.description = f"{place(train)}, {size} rows held out as {name}"
    return splits


def subsample(dataset: Dataset, size: int, *, seed: int) -> Dataset:
    """`size` rows, stratified by label and seeded; all of them for 0 or when there are no more."""
    if size == 0 or size >= len(dataset):
        return dataset
    return dataset.select(stratified_indices(dataset["label"], size, seed=seed))


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
