"""What a run measured, and on what: `metrics.json`, written and read here only."""

import os
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from datasets import DatasetDict

from bert_helpers import files
from bert_helpers.data import fingerprint
from bert_helpers.errors import DataError, parameter
from bert_helpers.readers import tables
from bert_helpers.readers.source import HUB_ID, assumed

NAME = "metrics.json"
ASK = f"say where its data lies by {parameter('RUN_DATA')}"
PLACES = ".places.json"  # next to it: paths of data on this machine, which the record itself must not contain
LIBRARIES = ("torch", "transformers", "datasets", "scikit-learn", "numpy")
PATHS = ("DATA", "MODEL", "TRAINED", "RUN", "OUTPUT_DIR")  # endings of the names of parameters that may be paths

TEXT, NUMBER = (str, None), (float, None)
SCORE = {"value": NUMBER, "low": NUMBER, "high": NUMBER}
KNOWN = {"value": float, "low": float, "high": float}
DATA = {"source": TEXT, "fingerprint": TEXT, "rows": ({...: int}, None), "assumed": ({...: {...: str}}, None)}
FINDINGS = [{"finding": str, "symptom": str}]
LIMITS = {
    "calibration": ({"ece": KNOWN, "by_chance": float, "temperature": float, "scaled": KNOWN, "rows": int}, None),
    "worst": ({"name": str, "metric": str, "rows": (int, None), **SCORE}, None),
}
SCHEMA = {
    "metrics": {...: SCORE},
    "parameters": {...: object},
    "data": ({...: DATA}, DATA),
    "tasks": ([str], None),
    "model": TEXT,
    "versions": ({...: str}, None),
    "device": TEXT,
    "precision": TEXT,
    "seed": (int, None),
    "seconds": ({...: float}, None),
    "limits": ({...: LIMITS}, None),
    "findings": (FINDINGS, {...: FINDINGS}, None),
    "training": TEXT,
    "kernels": ([str], None),
    "files": ({...: str}, None),
}
LOG = [{...: NUMBER}]  # history.json, as a Trainer logs it

Score = Mapping[str, float | None]  # with `value`, `low` and `high`; None where undefined


@dataclass(frozen=True)
class Record:
    """All numbers of a run with their intervals, and everything that identifies what produced them.

    In a record of several tasks the names of metrics begin with the task ("qa/f1"), and `data` and `findings` are
    dicts by task. `limits`, which `evaluation.limits` measured for the model card, is always a dict by task.
    """

    metrics: Mapping[str, Score]
    parameters: Mapping[str, object]
    data: Mapping[str, object]  # as `describe_data` gives it
    tasks: Sequence[str] = ()  # keys of `tasks.registry.TASKS`; empty in old records of one task
    model: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    seed: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, object]] | None = None
    findings: Sequence[Mapping[str, object]] | Mapping[str, Sequence] | None = None  # None: no diagnosis
    training: str | None = None  # `checkpoints.run_identity` of the training that gave the model
    kernels: Sequence[str] | None = None  # of a CPU: `kernels.used`
    files: Mapping[str, str] | None = None  # SHA-256 of each file written with the record, by relative path

    @property
    def has_several_tasks(self) -> bool:
        """Whether `metrics`, `data` and `findings` cover several tasks."""
        return bool(self.data) and all(isinstance(part, dict) for part in self.data.values())

    @property
    def _findings_by_task(self) -> Mapping[str, Sequence]:
        return self.findings if isinstance(self.findings, dict) else {}

    def of_task(self, task: str, prefix: str = "") -> "Record":
        """Return the part of one task in a record of several, parameters without prefix; otherwise the record."""
        if not self.has_several_tasks:
            foreign = isinstance(self.findings, dict)  # in a damaged record
            return replace(self, tasks=[task], findings=None if foreign else self.findings)
        own = {name.removeprefix(prefix): value for name, value in self.parameters.items() if name.startswith(prefix)}
        start = f"{task}/"
        return replace(
            self,
            tasks=[task],
            metrics={name.removeprefix(start): score for name, score in self.metrics.items() if name.startswith(start)},
            parameters={**self.parameters, **own},
            data=self.data.get(task, {}),
            findings=self._findings_by_task.get(task),
        )

    def with_findings(self, task: str, findings: Sequence[Mapping[str, object]]) -> "Record":
        """Return the record with the findings of a diagnosis of the task's model (`findings.summary`)."""
        if self.has_several_tasks:
            return replace(self, findings={**self._findings_by_task, task: findings})
        return replace(self, findings=findings, tasks=[task])

    def headline(self) -> dict[str, Score]:
        """Return the first three metrics; in a record of several tasks, the first of each."""
        plain = [name for name in self.metrics if "/" not in name]
        firsts = {name.split("/")[0]: name for name in reversed(self.metrics)}  # a task's metrics may lie apart
        return {name: self.metrics[name] for name in self.metrics if name in (plain[:3] or firsts.values())}


def make(
    *,
    tasks: Sequence[str],
    metrics: pd.DataFrame,
    parameters: Mapping[str, object],
    data: Mapping[str, object],
    model: str,
    precision: str,
    seed: int,
    seconds: Mapping[str, float],
    **optional: object,
) -> Record:
    """Return the record of a run that ends now on this machine, without absolute paths.

    `tasks` are those that were trained; `metrics` has one row per metric with `value`, `low` and `high`; `data` comes
    from `describe_data`, for several tasks as a dict; `seconds` has the duration of each part; `optional` are `limits`,
    `findings`, `training` and `kernels` of `Record`.
    """
    # An entity type may have the name of another part of the record, such as "transfer".
    twice = metrics.index.duplicated()
    metrics = metrics.set_axis(metrics.index.where(~twice, metrics.index + " (type)"))
    versions = environment(precision)
    device = versions.pop("device")
    output = str(parameters.get("OUTPUT_DIR", ""))
    found_again = _path(str(_portable(output))) == _path(output)  # the run's folder, by what the record says of it
    return Record(
        metrics=files.plain(metrics.to_dict(orient="index")),
        parameters={k: _portable(v) if k.endswith(PATHS) else v for k, v in files.plain(parameters).items()},
        data=_without_places(data) if found_again else data,
        tasks=list(tasks),
        model=_portable(model),
        precision=versions.pop("precision"),
        versions=versions,
        device=device,
        seed=seed,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        **files.plain(optional),
    )


@contextmanager
def new_run(folder: Path, *, replaced: Collection[str] | None = None) -> Iterator[Path]:
    """Yield an empty folder for a run's files, which in the end replace those of an earlier run in `folder`.

    All of them or none, by `files.replace_files`. `replaced` names the earlier run's files that may be removed; by
    default all may. Raises ParameterError if another file is in the way.
    """
    ours = written_by_run(folder)
    with files.replace_files(folder, ours={name: ours[name] for name in ours if name in (replaced or ours)}) as new:
        yield new


def written_by_run(folder: Path) -> dict[str, str]:
    """Return the files that the run in `folder` wrote there, with their SHA-256; none if there is no run."""
    files.finish_replacing(folder)
    path = folder / NAME
    try:
        known = files.read_json(path, SCHEMA).get("files")
    except DataError:
        return {}
    return {**(known or {}), NAME: files.digest(path)}


def write(folder: Path, record: Record) -> Path:
    """Write `metrics.json` into a `new_run` after all other files, whose digests it contains.

    Absolute paths of data go to a separate file, since the record may be published.
    """
    known = {**(record.files or {}), **files.written_files(folder)}
    known.pop(NAME, None)
    content = {name: value for name, value in asdict(replace(record, files=known or None)).items() if value is not None}
    parts = content["data"] if record.has_several_tasks else dict.fromkeys(record.tasks[:1], content["data"])
    if places := {task: part.pop("place") for task, part in parts.items() if "place" in part}:
        files.write_json(folder / PLACES, places)
    return files.write_json(folder / NAME, content)


def find(folder: Path) -> Path | None:
    """Return the path of a run's record: in its folder, or for one of several tasks one level up; None if missing."""
    for place in (folder, folder.parent):
        files.finish_replacing(place)
        if os.path.lexists(place / NAME):
            return place / NAME
    return None


def read(folder: Path) -> Record:
    """Read the record that `find` finds. Raises DataError if there is none, or if a field has a wrong type."""
    path = find(folder)
    if path is None:
        raise DataError(f"no {NAME}; a run's folder has history.json, model and {NAME}", source=folder.name)
    content = files.read_json(path, SCHEMA)
    content["metrics"] = {name: {**dict.fromkeys(SCORE), **score} for name, score in content["metrics"].items()}
    record = Record(**{name: content[name] for name in SCHEMA if content.get(name) is not None})
    return replace(record, tasks=list(record.data)) if record.has_several_tasks and not record.tasks else record


def check_run(folder: Path) -> None:
    """Raise DataError unless the folder holds history and model of a finished run."""
    files.finish_replacing(folder)
    for name in ("history.json", "model"):
        if not (folder / name).exists():
            fix = f"a run's folder has history.json, model and {NAME}"
            if (folder / "checkpoints").is_dir():
                fix = "its training has not ended; give the same command again to continue it"
            raise DataError(f"no {name}", source=folder.name, fix=fix)


def read_history(path: Path) -> list[dict[str, object]]:
    """Read history.json, the log of a run's Trainer. Raises DataError."""
    return files.read_json(path, LOG)


def environment(precision: str) -> dict[str, str]:
    """Return versions, device and precision of this run, by name."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **libraries, "device": device_name(), "precision": precision}


def device_name() -> str:
    """Return the name of the accelerator, or the number of CPU threads that PyTorch uses."""
    import torch  # takes a second, and reading a record does not need it

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return "Apple GPU (MPS)"
    return f"CPU, {torch.get_num_threads()} threads"


def describe_data(source: str, dataset: DatasetDict) -> dict[str, object]:
    """Return the source of a run's data, its fingerprint, the rows of each split, and what was assumed about its files.

    Also the `place` of a local file on this machine, which `write` keeps out of the record.
    """
    rows = {name: len(split) for name, split in dataset.items()}
    described = {"source": _portable(source), "fingerprint": fingerprint(dataset), "rows": rows}
    if notes := assumed(dataset):
        described["assumed"] = notes
    if (path := _path(source)).exists() and source != "sample":
        described["place"] = str(path)
    return described


def data_places(folder: Path, task: str, parameters: Mapping[str, object]) -> list[str]:
    """List where the data of the run in `folder` may be now, given its record's `parameters` of the task.

    That is the path in the record, relative to this folder and to the run's former one; the run's own folder; and the
    former place on this machine. What is not a path (the sample, a data set on the Hub) stays as it is. Raises
    DataError for a file that is in none of these places.
    """
    source, output = Path(str(parameters["DATA"])), Path(str(parameters["OUTPUT_DIR"]))
    run = find(folder).parent.resolve()
    if str(source) == "sample":
        return ["sample"]
    at = [files.base_folder(), *(parent for parent in run.parents if parent / output == run)]
    places = [*(parent / source for parent in at), run / source.name, run.parent / source.name]
    with suppress(DataError):
        places.append(Path(files.read_json(run / PLACES, {...: str})[task]))
    if found := [os.path.relpath(place, at[0]) for place in places if os.path.exists(place)]:
        return list(dict.fromkeys(found))
    is_file = any(source.suffix.lower() in kind.suffixes for kind in tables.FORMATS)
    if is_file or not HUB_ID.fullmatch(str(source)):
        problem = f"no file {str(source)!r} here, nor where it was, nor next to the run"
        raise DataError(problem, source=folder.name, fix=ASK)
    return [str(source)]


def _path(value: str) -> Path:
    return Path(os.path.abspath(files.base_folder() / files.local_path(value)))


def _without_places(data: Mapping[str, object]) -> dict[str, object]:
    """Return descriptions of data without the places that can be found from their sources."""
    if all(isinstance(part, dict) for part in data.values()):
        return {task: _without_places(part) for task, part in data.items()}
    leads = _path(str(data.get("source"))) == Path(str(data.get("place")))
    return {name: value for name, value in data.items() if name != "place" or not leads}


def _portable(value: object) -> object:
    """Return an absolute path relative to the base folder, or, outside of it, only its last part.

    The whole path would reveal where the user's files are.
    """
    if not (isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute())):
        return value
    path, base = files.local_path(value), files.base_folder()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def history_table(log_history: Sequence[dict[str, float]]) -> pd.DataFrame:
    """Return one row per epoch of a Trainer's log history, such as a run's history.json: `training.history`."""
    rows: dict[float, dict[str, float]] = {}
    for entry in log_history:
        for name, value in entry.items():
            if name.startswith(("eval_train_", "eval_validation_")) and not name.endswith(("runtime", "per_second")):
                rows.setdefault(round(entry["epoch"], 4), {})[name.removeprefix("eval_")] = value
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("epoch")
