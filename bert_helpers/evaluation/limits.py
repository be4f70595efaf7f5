"""Where a model is wrong: the numbers in its card besides the metrics."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from transformers.trainer_utils import PredictionOutput

from bert_helpers.evaluation.calibration import calibration_error, fit_temperature
from bert_helpers.evaluation.comparison import by_slice
from bert_helpers.metrics import ClassificationMeasure


def of_classifier(outputs: Mapping[str, PredictionOutput], names: Sequence[str], *, seed: int = 0) -> dict[str, dict]:
    """Measure a classifier's calibration and its worst class on its test rows.

    `outputs` holds logits and labels of the splits "validation", on which a temperature is fitted, and "test"; `names`
    are those of the classes. Classes with fewer than 10 rows are merged as "(rare)"; a single class is not the worst.
    """
    sides = {name: (np.asarray(output.predictions), output.label_ids) for name, output in outputs.items()}
    logits, labels = sides["test"]

    def accuracy(rows: np.ndarray) -> pd.DataFrame:
        return ClassificationMeasure(logits[rows], labels[rows]).intervals(["accuracy"], seed=seed)

    table = by_slice([names[label] for label in labels], accuracy).xs("accuracy", level="metric")
    worst = _worst(table, "accuracy") if len(table) > 1 else {}
    return {"calibration": calibration_of(sides["validation"], sides["test"], seed=seed), **worst}


def calibration_of(
    validation: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], *, seed: int = 0
) -> dict[str, object]:
    """Measure the calibration of logits against labels as in `calibration_error`, before and after scaling them."""
    logits, labels = test
    with warnings.catch_warnings():  # about rows that are all right, whose temperature is 1
        warnings.simplefilter("ignore")
        temperature = fit_temperature(validation[0].reshape(-1, logits.shape[-1]), validation[1].ravel())
    error = calibration_error(logits, labels, seed=seed)
    return {
        "ece": error.loc["ece"].to_dict(),
        "by_chance": error.value["ece_by_chance"],
        "temperature": temperature,
        "scaled": calibration_error(logits / temperature, labels, seed=seed).loc["ece"].to_dict(),
        "rows": len(validation[1]),
    }


def of_parts(parts: pd.DataFrame) -> dict[str, dict]:
    """Return the worst of the metrics named "PART/METRIC", such as "PER/f1" (rows: `value`, `low`, `high`)."""
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
