import numpy as np
import pandas as pd
import pytest
from transformers.trainer_utils import PredictionOutput

from bert_helpers.evaluation import calibration, limits


def output(logits, labels):
    return PredictionOutput(predictions=logits, label_ids=labels, metrics={})


def test_the_limits_of_a_classifier_are_measured():
    labels = np.arange(400) % 2
    logits = np.zeros((400, 2))
    logits[np.arange(400), labels] = 3.0
    logits[1:80:2] *= -1  # 40 of the 200 rows of "10" are wrong, but as confident as the others
    both = dict.fromkeys(("validation", "test"), output(logits, labels))
    measured = limits.of_classifier(both, ["null", "10"])
    worst = measured["worst"]
    assert (worst["name"], worst["metric"], worst["rows"], worst["value"]) == ("10", "accuracy", 200, 0.8)
    assert 0.7 < worst["low"] < 0.8 < worst["high"] < 0.9
    sure, right = 1 / (1 + np.exp(-3)), 0.9
    found = measured["calibration"]
    assert found["ece"] == calibration.calibration_error(logits, labels).loc["ece"].to_dict()
    assert found["ece"]["value"] == pytest.approx(sure - right)
    assert found["temperature"] == pytest.approx(3 / np.log(right / (1 - right)), rel=1e-4)
    assert found["scaled"]["value"] == pytest.approx(0, abs=1e-4)
    assert found["rows"] == 400


def test_of_few_rows_and_of_rows_that_are_all_right_there_are_limits_too():
    labels = np.arange(12) % 2
    right = output(np.eye(2)[labels] * 3, labels)
    measured = limits.of_classifier({"validation": right, "test": right}, ["a", "b"])
    assert "worst" not in measured  # both classes are rare, and are merged
    assert measured["calibration"]["temperature"] == 1


def test_the_worst_part_is_that_of_the_lowest_value():
    values = {"PER/f1": 0.9, "LOC/f1": 0.7, "RARE/f1": float("nan")}
    parts = pd.DataFrame({"value": values, "low": 0.6, "high": 1.0})
    assert limits.of_parts(parts) == {"worst": {"name": "LOC", "metric": "f1", "value": 0.7, "low": 0.6, "high": 1.0}}
    assert limits.of_parts(parts[parts.value.isna()]) == limits.of_parts(parts[:0]) == {}
