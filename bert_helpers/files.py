"""Files of this project: written whole or not at all, and read back with their types checked.

The only module that writes, besides the libraries' own savers, which fill folders that this module hands out.
"""

import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from bert_helpers.errors import DataError, ParameterError

LARGEST = 5_000_000  # bytes of a file that is read whole; a run writes kilobytes
SHOWN = 40  # characters of a value in a message
LARGEST_NUMBER = 1e100  # beyond it sums overflow; Python's JSON also reads NaN and infinity, which are no JSON


def base_folder() -> Path:
    """Return the folder that relative paths start from: where papermill was called, or the project's root.

    The working directory of a kernel started by JupyterLab or nbval is `notebooks/`; its runs belong next to it, not
    in it.
    """
    here = Path.cwd()
    return here.parent if here.name == "notebooks" and (here.parent / "bert_helpers").is_dir() else here


def resolve(source: str) -> str:
    """Return a relative path as seen from here, if something is there below `base_folder`; else the name unchanged."""
    path = base_folder() / source
    return os.path.relpath(path) if source != "sample" and os.path.exists(path) else source  # False for a long name


# --- write -------------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one ParameterError that says so."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):  # torch.save's file writer
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ParameterError(
            f"cannot be written ({reason})",
            source=str(path),
            fix="what was there is unchanged; make room, or choose another folder",
        ) from error


def check_writable(folder: Path) -> Path:
    """Make the folder, and raise ParameterError if nothing can be written there: before training, not after it."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # the savers of weights and tokenizers take no such name
        fix = "choose another folder"
        raise ParameterError("its name is not UTF-8", source=str(folder), fix=fix) from error
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    return folder


def write_text(path: Path, text: str, *, keep_date: bool = False) -> Path:
    """Write a UTF-8 file under a temporary name in the same folder, then move it into place in one step.

    What UTF-8 cannot encode, such as a file name that is not UTF-8, is written as `\\udcff`, which JSON reads back.
    `keep_date` leaves the time of the last change as it was. Raises ParameterError when it cannot be written.
    """
    temporary = _temporary(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if keep_date:
                before = path.stat()
                os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def write_json(path: Path, content: object, *, keep_date: bool = False) -> Path:
    """Write `to_json` as `write_text` does."""
    return write_text(path, to_json(content), keep_date=keep_date)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; at the end of the block it takes the place of `folder`.

    After an error `folder` is as it was. Raises ParameterError when it cannot be written.
    """
    fresh, old = _temporary(folder), _temporary(folder)
    with writing(folder):
        fresh.mkdir(parents=True)
        try:
            yield fresh
            if folder.exists():
                os.replace(folder, old)
            try:
                os.replace(fresh, folder)
            except OSError:
                if old.exists():
                    os.replace(old, folder)
                raise
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if old.exists():
            shutil.rmtree(old)


def _temporary(path: Path) -> Path:
    """Return a hidden name in the same folder, so that a rename stays on one disk."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def to_json(content: object, *, indent: int | None = 2) -> str:
    """Return what `plain` makes of the content as JSON, and a line feed; `indent` None: on one line."""
    return json.dumps(plain(content), indent=indent, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: object) -> object:
    """Return a value as JSON has it: NumPy numbers as plain ones, tuples as lists, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- read --------------------------------------------------------------------------------------------------


def read_text(path: Path, *, largest: int = LARGEST) -> str:
    """Read a UTF-8 file. Raises DataError for a pipe or a device, too many bytes, or what is not UTF-8."""
    try:
        if not path.is_file():  # opening a pipe would wait for its other end
            raise DataError("is no file, or is gone", source=str(path))
        if path.stat().st_size > largest:
            raise DataError(f"is larger than {largest // 1_000_000} MB", source=str(path))
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror})", source=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", source=str(path)) from error


def read_json(path: Path, schema: object = object, *, largest: int = LARGEST) -> object:
    """Read a JSON file whose content fits a schema (see `mismatch`). Raises DataError with the reason."""
    try:
        content = json.loads(read_text(path, largest=largest))
        problem = mismatch(content, schema)
    except RecursionError as error:
        raise DataError("is nested too deeply", source=str(path)) from error
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON, or only a part of it ({error})", source=str(path)) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError("is not JSON: it has a number of too many digits", source=str(path)) from error
    if problem:
        raise DataError(f"does not have the expected form ({problem})", source=str(path))
    return content


def mismatch(value: object, schema: object, name: str = "") -> str:
    """Say in which field JSON does not fit a schema; "" if it does.

    A schema is a type (`float`: a number, `object`: anything), None (null), a tuple of alternatives, a list with the
    schema of its items, or a dict with the schemas of its fields, `...` standing for all that are not named. A field
    that is missing counts as null.

    >>> mismatch({"seed": "0", "more": 1}, {"seed": int})
    'seed is "0"'
    >>> mismatch({"train": 1.5, "test": None}, {...: float})
    'test is null'
    """
    if isinstance(schema, tuple):
        problems = [mismatch(value, alternative, name) for alternative in schema]
        return "" if "" in problems else problems[0]
    if isinstance(schema, dict) and isinstance(value, dict):
        fields = dict.fromkeys(value, schema[...]) if ... in schema else {}
        fields |= {key: kind for key, kind in schema.items() if key is not ...}
        parts = [mismatch(value.get(key), kind, f"{name}.{key}" if name else key) for key, kind in fields.items()]
        return next(filter(None, parts), "")
    if isinstance(schema, list) and isinstance(value, list):
        return next(filter(None, (mismatch(item, schema[0], f"{name}[{i}]") for i, item in enumerate(value))), "")
    if schema is object or (schema is None and value is None):
        return ""
    if schema in (int, float):
        number = isinstance(value, (int, schema)) and not isinstance(value, bool)
        fits = number and abs(value) < LARGEST_NUMBER  # which NaN is not
    else:
        kind = schema if isinstance(schema, type) else type(schema)
        fits = schema is not None and isinstance(value, kind)
    return "" if fits else f"{name or 'it'} is {json.dumps(value, ensure_ascii=False)[:SHOWN]}"
