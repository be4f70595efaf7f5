"""Files of this project: written whole or not at all, and read back with their types checked.

Every file of a result is written here, or by a library's own saver into a folder that this module provides.
"""

import datetime
import decimal
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from bert_helpers.errors import DataError, ParameterError

LARGEST = 5_000_000  # bytes of a file that is read whole; a run writes kilobytes
SHOWN = 40  # characters of a value in a message
LARGEST_NUMBER = 1e100  # sums of larger ones overflow; Python's json also accepts NaN and infinity


def base_folder() -> Path:
    """Return the folder that relative paths start from: where papermill was called, or the project's root.

    A kernel that JupyterLab or nbval starts works in `notebooks/`; its runs belong next to that folder, not in it.
    """
    here = Path.cwd()
    return here.parent if here.name == "notebooks" and (here.parent / "bert_helpers").is_dir() else here


def resolve(source: str) -> str:
    """Return a path below `base_folder` as seen from here, if something is there; otherwise `source` unchanged."""
    path = base_folder() / source
    return os.path.relpath(path) if source != "sample" and os.path.exists(path) else source  # False for a long name


def local_path(name: str | Path) -> Path:
    """Return the path that a name stands for: "~mine.csv" may be a file here; otherwise ~ is a home."""
    return Path(name if os.path.lexists(name) else os.path.expanduser(name))


# --- write -------------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise ParameterError for a full disk, a read-only folder and the like."""
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
    """Create the folder, and raise ParameterError if nothing can be written there: before training, not after it."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # the savers of weights and tokenizers accept no such name
        fix = "choose another folder"
        raise ParameterError("its name is not UTF-8", source=str(folder), fix=fix) from error
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    return folder


def check_room(folder: Path, size: int) -> None:
    """Raise ParameterError if the disk of `folder` has less than `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        problem = f"has {free / 1e6:,.0f} MB free where {size / 1e6:,.0f} MB will be written"
        raise ParameterError(problem, source=str(folder), fix="make room, or choose another folder")


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file under a temporary name in the same folder, then move it into place in one step.

    What UTF-8 cannot encode, such as parts of a file name, is written as `\\udcff`, which JSON reads back. A replaced
    file keeps its mode. Raises ParameterError if the file cannot be written, or if a link or a folder is in its place.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _check_is_file(path)
        _remove_leftovers(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            with temporary.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if before:
                temporary.chmod(stat.S_IMODE(before.st_mode))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def write_json(path: Path, content: object) -> Path:
    """Write the content as JSON (`to_json`), in one step as `write_text` does."""
    return write_text(path, to_json(content))


def _check_is_file(path: Path) -> os.stat_result | None:
    """Return a file's status, None if nothing is there; raise ParameterError for a link, a folder or a device."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise ParameterError("is a link, a folder or a device", source=str(path), fix="remove it, or choose another")
    return found


def _remove_leftovers(path: Path) -> None:
    """Remove temporary versions of the file whose process was killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.????????"):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and not _is_running(int(pid)):
            left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or too large a number
        pass
    return True


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- write several files together --------------------------------------------------------------------------

STAGED, READY = ".staged", ".ready"  # subfolders of the one that changes: being filled; complete
REMOVED = "removed.json"  # in READY: the names of files to remove


@contextmanager
def replace_files(folder: Path, *, ours: Mapping[str, str]) -> Iterator[Path]:
    """Yield an empty folder to fill; at the end of the block its files take their places in `folder`, all or none.

    `ours` are the `written_files` of an earlier run: they are replaced, or removed if they are not written again. Any
    other file stays; if one is in the way, ParameterError is raised. Renaming one folder commits all files together;
    after a crash the next process continues from there (`finish_replacing`). After an error `folder` is as it was.
    """
    check_writable(folder)
    finish_replacing(folder)
    name = folder.resolve().name  # which the cards of models show
    staged, new = folder / STAGED, folder / STAGED / ("run" if name in ("", REMOVED) else name)
    with writing(folder):
        shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
        new.mkdir(parents=True)
        try:
            yield new
            names = written_files(new)
            check_replaceable(folder, names, ours=ours)
            removed = [name for name in ours if name not in names and is_unchanged(folder / name, ours[name])]
            write_json(staged / REMOVED, removed)
            for path in staged.rglob("*"):
                _fsync(path)
            os.replace(staged, folder / READY)
            _fsync(folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        finish_replacing(folder)


def finish_replacing(folder: Path) -> None:
    """Move the files of an interrupted `replace_files`, if there are any, to their places. Raises ParameterError."""
    ready = folder / READY
    if not ready.is_dir() or ready.is_symlink():
        return
    with writing(folder):
        for new in (path for path in ready.iterdir() if path.is_dir()):
            for path in sorted(path for path in new.rglob("*") if path.is_file()):
                place = _place_in(folder, path.relative_to(new).as_posix())
                place.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # another process has moved it
                    os.replace(path, place)
        if (ready / REMOVED).is_file():
            for name in read_json(ready / REMOVED, [str]):
                _place_in(folder, name).unlink(missing_ok=True)
        shutil.rmtree(ready, ignore_errors=True)


def check_replaceable(folder: Path, names: Iterable[str], *, ours: Mapping[str, str]) -> None:
    """Raise ParameterError if `names` would replace a file that is not one of `ours`, or was changed since.

    The same holds for a link or a file where a folder is needed.
    """
    for name in names:
        path = _place_in(folder, name)
        if os.path.lexists(path) and not is_unchanged(path, ours.get(name)):
            problem = "was changed since a run wrote it" if name in ours else "was not written by a run of this project"
            raise ParameterError(problem, source=str(path), fix="move it away, or choose another folder")


def _place_in(folder: Path, name: str) -> Path:
    """Return the path of a file below a folder; neither of them need be trusted.

    Raises ParameterError for a path that leaves the folder, and for a link or a file where a folder is needed.
    """
    path = folder / name
    if ".." in Path(name).parts or folder not in path.parents:
        raise ParameterError(f"names the file {name!r}, which is outside", source=str(folder), fix="remove the folder")
    for parent in path.parents:
        if folder in parent.parents and (parent.is_symlink() or (parent.exists() and not parent.is_dir())):
            problem = "is a link or a file where a folder is to be written"
            raise ParameterError(problem, source=str(parent), fix="move it away, or choose another folder")
    return path


def written_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path relative to it."""
    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def is_unchanged(path: Path, known: str | None) -> bool:
    """Return whether a path is a file (not a link) with this SHA-256."""
    return known is not None and path.is_file() and not path.is_symlink() and digest(path) == known


def _fsync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    try:
        number = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows does not open folders
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)


# --- as JSON -----------------------------------------------------------------------------------------------


def to_json(content: object, *, indent: int | None = 2) -> str:
    """Return the content, made `plain`, as JSON with a final line feed; with `indent` None, on one line."""
    return json.dumps(plain(content), indent=indent, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: object) -> object:
    """Return a value that JSON can hold: tuples as lists, NaN and infinity as None, dates and bytes as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal)):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- read --------------------------------------------------------------------------------------------------


def read_text(path: Path, *, largest: int = LARGEST) -> str:
    """Read a UTF-8 file. Raises DataError for a pipe or a device, too large a file, or one that is not UTF-8."""
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
    text = read_text(path, largest=largest)
    try:
        content = json.loads(text)
        problem = mismatch(content, schema)
    except RecursionError as error:
        raise DataError("is nested too deeply", source=str(path)) from error
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON, or only a part of it ({error})", source=str(path)) from error
    except ValueError as error:
        raise DataError("is not JSON: it has a number of too many digits", source=str(path)) from error
    if problem:
        raise DataError(f"does not have the expected form ({problem})", source=str(path))
    return content


def mismatch(value: object, schema: object, name: str = "") -> str:
    """Say which field of JSON does not fit a schema; "" if all do.

    A schema is a type (`float`: a number, `object`: anything), None (null), a tuple of alternatives, a list with the
    schema of its items, or a dict with the schemas of its fields, where `...` stands for all others. A missing field
    counts as null.

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
