"""Old names of `files` and `records`, for notebooks that still use them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax
from transformers.trainer_utils import PredictionOutput

from bert_helpers.files import base_folder, check_writable, resolve, to_json, write_json, write_text, writing
from bert_helpers.models import save_model

__all__ = ["base_folder", "check_writable", "resolve", "save_model", "to_json", "write_json", "write_text", "writing"]


def __getattr__(name: str) -> object:
    if name not in ("describe_data", "environment", "device_name"):
        raise AttributeError(name)
    from bert_helpers import records  # loads the tasks, which import this module

    return getattr(records, name)


def write_record(folder: Path, *, findings: Iterable | None = None, tasks: list[str] | None = None, **values) -> Path:  # noqa: ANN003
    """Write cards and record."""
    from bert_helpers import records
    from bert_helpers.diagnosis.findings import summary
    from bert_helpers.report.cards import write_cards

    if tasks is None:
        tasks = [] if "source" in values["data"] else list(values["data"])
    record = records.make(tasks=tasks, findings=None if findings is None else summary(findings), **values)
    write_cards(folder, records.asdict(record))
    return records.write(folder, record)


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
