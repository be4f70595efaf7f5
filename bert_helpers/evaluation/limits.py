"""Where a model is wrong: the numbers that its card gives besides the metrics."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from transformers.trainer_utils import PredictionOutput

from bert_helpers.evaluation.calibration import calibration_error, fit_temperature
from bert_helpers.evaluation.comparison import by_slice
from bert_helpers.metrics import ClassificationMeasure


def of_classifier(outputs: Mapping[str, PredictionOutput], names: Sequence[str], *, seed: int = 0) -> dict[str, dict]:
    """Measure a classifier's calibration and the class that it finds worst, on its test rows.

    `outputs` are logits and labels of the splits "validation", on which a temperature is fitted, and "test"; `names`
    are those of the classes. Classes of fewer than 10 rows count as one, "(rare)"; of one class only there is no worst.
    """
    test, validation = (
        (np.asarray(outputs[name].predictions), outputs[name].label_ids) for name in ("test", "validation")
    )
    logits, labels = test
    calibration = calibration_of(validation, test, seed=seed)

    def accuracy(rows: np.ndarray) -> pd.DataFrame:
        return ClassificationMeasure(logits[rows], labels[rows]).intervals(["accuracy"], seed=seed)

    table = by_slice([names[label] for label in labels], accuracy).xs("accuracy", level="metric")
    return {"calibration": calibration, **(_worst(table, "accuracy") if len(table) > 1 else {})}


def calibration_of(
    validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], *, seed: int = 0
) -> dict[str, object]:
    """Measure the calibration of logits (rows, classes) with labels, as it is and by a temperature."""
    logits, labels = test
    with warnings.catch_warnings():  # of rows that are all right; then the temperature is 1
        warnings.simplefilter("ignore")
        temperature = fit_temperature(*validation)
    error = calibration_error(logits, labels, seed=seed)
    return {
        "ece": error.loc["ece"].to_dict(),
        "by_chance": error.value["ece_by_chance"],
        "temperature": temperature,
        "scaled": calibration_error(logits / temperature, labels, seed=seed).loc["ece"].to_dict(),
        "rows": len(validation[1]),
    }


def of_parts(parts: pd.DataFrame) -> dict[str, dict]:
    """Choose the worst of metrics that are named "PART/METRIC", such as "PER/f1" (rows: `value`, `low`, `high`)."""
    known = parts[parts["value"].notna()]
    if known.empty:
        return {}
    metric = known.index[0].rpartition("/")[2]
    known = known[known.index.str.endswith(f"/{metric}")]
    return _worst(known.rename(index=lambda name: name.removesuffix(f"/{metric}")), metric)


def _worst(table: pd.DataFrame, metric: str) -> dict[str, dict]:
    row = table.loc[table["value"].idxmin()]
    rows = {"rows": int(row["rows"])} if "rows" in row else {}
    return {"worst": {"name": str(row.name), "metric": metric, **row[["value", "low", "high"]].to_dict(), **rows}}
