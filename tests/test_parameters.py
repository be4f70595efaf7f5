import sys

import pytest

from bert_helpers import ParameterError
from bert_helpers.parameters import check_parameters, trackers

ANNOTATIONS = {"DATA": str, "EPOCHS": int, "LEARNING_RATE": float, "QA_BATCH_SIZE": int, "PRECISION": str, "SHOW": bool}
VALUES = {
    "DATA": "sample",
    "EPOCHS": 3,
    "LEARNING_RATE": 1e-4,
    "QA_BATCH_SIZE": 8,
    "PRECISION": "auto",
    "SHOW": True,
}


def check(**changes):
    return check_parameters({"__annotations__": ANNOTATIONS, "_": 1, "In": [], "np": 0, **VALUES, **changes})


def test_good_parameters_come_back_in_order():
    assert check() == VALUES
    assert list(check()) == list(ANNOTATIONS)


def test_a_whole_number_is_a_float_too():
    assert check(LEARNING_RATE=1)["LEARNING_RATE"] == 1.0
    assert isinstance(check(LEARNING_RATE=1)["LEARNING_RATE"], float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"EPOCH": 3}, "EPOCH: this notebook has no such parameter; did you mean EPOCHS"),
        ({"XYZZY": 3}, "no such parameter; there are DATA"),
        ({"EPOCHS": "3"}, "EPOCHS is '3', a str; it must be int"),
        ({"EPOCHS": 3.0}, "must be int"),
        ({"EPOCHS": True}, "must be int"),
        ({"SHOW": "false"}, "SHOW is 'false', a str; it must be bool"),
        ({"LEARNING_RATE": "5e-5"}, "in YAML write 5.0e-5"),
        ({"LEARNING_RATE": float("nan")}, "between"),
        ({"LEARNING_RATE": -0.1}, "between"),
        ({"EPOCHS": 0}, "EPOCHS is 0; it must lie between 1"),
        ({"QA_BATCH_SIZE": 0}, "QA_BATCH_SIZE is 0"),
        ({"PRECISION": "half"}, "one of auto, bf16"),
        ({"DATA": 7}, "DATA is 7"),
        ({"DATA": None}, "DATA is None"),
    ],
)
def test_a_bad_parameter_is_named(changes, message):
    with pytest.raises(ParameterError, match=message):
        check(**changes)


@pytest.mark.parametrize(("given", "expected"), [
    ("none", []), ("", []), ("tensorboard", ["tensorboard"]), ("tensorboard, none", ["tensorboard"]),
])  # fmt: skip
def test_trackers_are_a_list_with_commas(given, expected):
    assert trackers(given) == expected


@pytest.mark.parametrize(("given", "message"), [
    ("tensorbord", "REPORT_TO is 'tensorbord'; it must be none, or some of tensorboard, mlflow, trackio, wandb"),
    ("tensorboard, all", "must be none, or some of"),
    ("wandb,tensorboard", "wandb is not installed: pip install wandb$"),
    (["wandb"], "must be str"),
])  # fmt: skip
def test_a_tracker_that_cannot_be_used_is_named(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "site-packages" not in place])
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard/__init__.py").touch()
    (tmp_path / "wandb").mkdir()  # its logs, which Python takes for a package
    with pytest.raises(ParameterError, match=message):
        check_parameters({"__annotations__": {"REPORT_TO": str}, "REPORT_TO": given})
