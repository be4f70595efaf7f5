"""What a run leaves behind: one folder with model, history, predictions and a JSON record, written atomically."""

import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import DatasetDict
from safetensors import SafetensorError
from scipy.special import softmax
from transformers import BertPreTrainedModel, BertTokenizerFast
from transformers.trainer_utils import PredictionOutput

from bert_helpers.data import fingerprint
from bert_helpers.diagnosis.findings import Finding, summary
from bert_helpers.errors import ParameterError
from bert_helpers.models import quiet

LIBRARIES = ("torch", "transformers", "datasets", "scikit-learn", "numpy")


def base_folder() -> Path:
    """The folder that relative paths are taken from: where papermill was called, or the project's root.

    A kernel started by JupyterLab or nbval stands in `notebooks/`; its runs belong beside it, not in it.
    """
    here = Path.cwd()
    return here.parent if here.name == "notebooks" and (here.parent / "bert_helpers").is_dir() else here


def resolve(source: str) -> str:
    """A parameter that may be a relative path, taken from `base_folder` if something is there; else unchanged."""
    path = base_folder() / source
    return os.path.relpath(path) if source != "sample" and path.exists() else source


def environment(precision: str) -> dict[str, str]:
    """Versions, device and precision of this run, by name."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **libraries, "device": device_name(), "precision": precision}


def device_name() -> str:
    """The accelerator's name, or the number of CPU threads PyTorch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return "Apple GPU (MPS)"
    return f"CPU, {torch.get_num_threads()} threads"


def write_record(
    folder: Path,
    *,
    metrics: pd.DataFrame,
    parameters: dict[str, object],
    data: dict[str, object],
    model: str,
    precision: str,
    seed: int,
    seconds: dict[str, float],
    findings: Iterable[Finding] | None = None,
) -> Path:
    """Write `metrics.json`: each metric with its interval, and all that is needed to tell what produced it.

    `data` is `describe_data` of the run's data, or a dict of several by task. `findings` are those of the diagnosis,
    None where there was none. The models that stand in `folder` by now get their cards first: a record says that the
    run is whole.
    """
    from bert_helpers.report.cards import write_cards  # cards are made of runs, which are written by this module

    environment_ = environment(precision)
    device = environment_.pop("device")
    environment_.pop("precision")
    record = _plain(
        {
            "metrics": metrics.to_dict(orient="index"),
            "parameters": {name: _portable(value) for name, value in parameters.items()},
            "data": data,
            "model": _portable(model),
            "versions": environment_,
            "device": device,
            "precision": precision,
            "seed": seed,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            **({} if findings is None else {"findings": summary(findings)}),
        }
    )
    write_cards(folder, record)
    return write_json(folder / "metrics.json", record)


def describe_data(source: str, dataset: DatasetDict) -> dict[str, object]:
    """Where a run's data came from, its fingerprint, and the rows of each split."""
    rows = {name: len(split) for name, split in dataset.items()}
    return {"source": _portable(source), "fingerprint": fingerprint(dataset), "rows": rows}


def _portable(value: object) -> object:
    """An absolute path says where somebody's files lie: keep its last part only."""
    return Path(value).name if isinstance(value, str) and Path(value).expanduser().is_absolute() else value


def check_writable(folder: Path) -> Path:
    """Make the folder, and raise ParameterError if nothing can be written there: before training, not after it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    return folder


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A disk that is full, a folder that is read-only: one ParameterError that says so."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):  # torch.save's file writer
            raise
        reason = getattr(error, "strerror", None) or str(error)
        cure = "What was there is unchanged; make room, or choose another folder"
        raise ParameterError(f"{path}: cannot be written ({reason}). {cure}.") from error


def write_json(path: Path, content: object) -> Path:
    """Write `to_json` whole or not at all."""
    return write_text(path, to_json(content))


def to_json(content: object, *, indent: int | None = 2) -> str:
    """JSON and a line feed; `indent` None: on one line. NumPy numbers become plain ones, NaN and infinity null."""
    return json.dumps(_plain(content), indent=indent, allow_nan=False, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file beside its place, then move it there in one step."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return path


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_model(model: BertPreTrainedModel, tokenizer: BertTokenizerFast, folder: Path) -> Path:
    """Save safetensors weights, config and tokenizer as `folder`; an earlier model there is replaced at the end."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            with quiet():
                model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            os.chmod(fresh, 0o755)
            _replace_folder(folder, fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    return folder


def _replace_folder(folder: Path, fresh: Path) -> None:
    if not folder.exists():
        os.replace(fresh, folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    os.replace(folder, old)
    try:
        os.replace(fresh, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)


def save_predictions(folder: Path, predictions: dict[str, PredictionOutput], names: list[str]) -> Path:
    """`predictions.csv`: a line for every row of every split given, in the data's order.

    Columns: `split`, `row` (from 0), `label`, `predicted`, `probability` (of the predicted class), and a `logit_…`
    for each class.
    """
    tables = []
    for split, output in predictions.items():
        logits = np.asarray(output.predictions, dtype=np.float64)
        table = pd.DataFrame(logits, columns=[f"logit_{name}" for name in names]).round(6)
        chosen = logits.argmax(axis=1)
        table.insert(0, "probability", softmax(logits, axis=1).max(axis=1).round(6))
        table.insert(0, "predicted", [names[i] for i in chosen])
        table.insert(0, "label", [names[i] for i in output.label_ids])
        table.insert(0, "row", range(len(table)))
        table.insert(0, "split", split)
        tables.append(table)
    return write_text(folder / "predictions.csv", pd.concat(tables).to_csv(index=False))
