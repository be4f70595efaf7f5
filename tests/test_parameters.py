import re
import sys
from dataclasses import replace

import nbformat
import pytest
from conftest import ROOT

from bert_helpers import ParameterError, parameters
from bert_helpers.parameters import PARAMETERS, Parameter, check_parameters, row_of, trackers

ANNOTATIONS = {"DATA": str, "EPOCHS": int, "LEARNING_RATE": float, "QA_BATCH_SIZE": int, "PRECISION": str, "SHOW": bool}
VALUES = {
    "DATA": "sample",
    "EPOCHS": 3,
    "LEARNING_RATE": 1e-4,
    "QA_BATCH_SIZE": 8,
    "PRECISION": "auto",
    "SHOW": True,
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def check(**changes):
    return check_parameters({"__annotations__": ANNOTATIONS, "_": 1, "In": [], "np": 0, **VALUES, **changes})


def test_good_parameters_come_back_in_order():
    assert check() == VALUES
    assert list(check()) == list(ANNOTATIONS)


def test_annotations_are_found_where_python_evaluates_them_late():
    namespace = {"__annotate__": lambda form: {1: {"EPOCHS": int}}[form], "EPOCHS": 3}  # as in Python 3.14
    assert check_parameters(namespace) == {"EPOCHS": 3}
    with pytest.raises(ParameterError):
        check_parameters({**namespace, "EPOCH": 3})


def test_a_whole_number_is_a_float_too():
    assert check(LEARNING_RATE=1)["LEARNING_RATE"] == 1.0
    assert isinstance(check(LEARNING_RATE=1)["LEARNING_RATE"], float)


BETWEEN = "it must lie between"
BAD = [
    ("EPOCH", 3, "is no parameter of this notebook", "did you mean EPOCHS?"),
    ("XYZZY", 3, "is no parameter of this notebook", "there are DATA, EPOCHS, LEARNING_RATE, QA_BATCH_SIZE, PRECISION"),
    ("EPOCHS", "3", "is '3'", "it must be a whole number"),
    ("EPOCHS", 3.0, "is 3.0", "it must be a whole number"),
    ("EPOCHS", True, "is True", "it must be a whole number"),
    ("EPOCHS", None, "is None", "it must be a whole number"),
    ("EPOCHS", 0, "is 0", "it must lie between 1 and 1000"),
    ("EPOCHS", 10**9, "is 1000000000", BETWEEN),
    ("QA_EPOCHS", 0, "is 0", "it must lie between 1 and 1000"),
    ("SHOW", "false", "is 'false'", "it must be True or False"),
    ("LEARNING_RATE", "5e-5", "is '5e-5'", "it must be a number; in YAML write 5.0e-5, not 5e-5"),
    ("LEARNING_RATE", 0.0, "is 0.0", BETWEEN),
    ("LEARNING_RATE", -0.1, "is -0.1", BETWEEN),
    ("LEARNING_RATE", 5, "is 5.0", BETWEEN),
    ("LEARNING_RATE", float("nan"), "is nan", "it must lie between 1e-08 and 1.0"),
    ("LEARNING_RATE", float("inf"), "is inf", BETWEEN),
    ("BATCH_SIZE", 0, "is 0", BETWEEN),
    ("MAX_LENGTH", 2, "is 2", BETWEEN),
    ("STRIDE", -1, "is -1", BETWEEN),
    ("SEED", 2**40, "is 1099511627776", BETWEEN),
    ("STS_TRAIN_SIZE", -5, "is -5", BETWEEN),
    ("DIFFERENCE", 2.0, "is 2.0", BETWEEN),
    ("IMBALANCE", -1, "is -1", BETWEEN),
    ("PRECISION", "half", "is 'half'", "it must be one of auto, bf16, fp16, fp32"),
    ("TRUNCATION", "middle", "is 'middle'", "it must be one of head, tail, head+tail"),
    ("MODEL", " ", "is empty", "leave it out for the default"),
    ("QA_DATA", "", "is empty", "leave it out for the default"),
    ("DATA", 7, "is 7", "it must be text"),
    ("OUTPUT_DIR", "", "is empty", "leave it out for the default"),
    ("OUTPUT_DIR", "a\0b", "is 'a\\x00b', which holds a NUL character", "write it anew"),
]


@pytest.mark.parametrize(("name", "value", "problem", "fix"), BAD)
def test_a_bad_parameter_is_named(name, value, problem, fix):
    row = row_of(name)
    declared = ANNOTATIONS if row is None or name in ANNOTATIONS else {name: row.type}
    with pytest.raises(ParameterError) as caught:
        check_parameters({"__annotations__": declared, **{known: VALUES.get(known) for known in declared}, name: value})
    assert (caught.value.parameter, caught.value.problem) == (name, problem)
    assert caught.value.fix.startswith(fix)


def test_a_bad_parameter_in_one_sentence():
    with pytest.raises(ParameterError) as caught:
        check(EPOCHS=0)
    assert str(caught.value) == "EPOCHS is 0; it must lie between 1 and 1000."
    assert caught.value.sentence(parameters.option_of) == "--epochs is 0; it must lie between 1 and 1000."


@pytest.mark.parametrize("name", ["RUN_DATA", "TRANSFER_DATA", "QA_TRAINED"])
def test_what_a_notebook_can_do_without_may_be_empty(name):
    assert check_parameters({"__annotations__": {name: str}, name: ""}) == {name: ""}


# --- the table ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_of_the_notebooks_is_in_the_table_with_its_type(path):
    cells = nbformat.read(path, as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    declared = dict(re.findall(r"^([A-Z_]+): (\w+) =", source, re.MULTILINE))
    assert declared
    assert {name: row_of(name).type.__name__ for name in declared} == declared


def test_every_default_is_allowed_and_the_help_is_a_clause():
    for task in parameters.task_names():
        assert parameters.training_parameters(task, {}) == parameters.of_training(task)
    for name, row in PARAMETERS.items():
        assert re.fullmatch(r"[^.]+", row.help.replace("2e-5", "")), name
        assert set(row.defaults) <= set(row.tasks or parameters.task_names()), name


def test_a_row_gives_a_parameter_to_a_further_task(monkeypatch):
    row = Parameter("spans", "column of the spans", tasks=("spans",), predicts=True)
    monkeypatch.setitem(PARAMETERS, "SPANS_COLUMN", row)
    monkeypatch.setitem(PARAMETERS, "EPOCHS", replace(PARAMETERS["EPOCHS"], defaults={"spans": 7}))
    assert "spans" in parameters.task_names()
    ours = parameters.of_training("spans")
    assert (ours["SPANS_COLUMN"], ours["EPOCHS"], ours["OUTPUT_DIR"]) == ("spans", 7, "results/spans")
    assert not ours.keys() & {"TEXT_COLUMN", "STRIDE", "LOW", "RUN"}
    assert "SPANS_COLUMN" not in parameters.of_training("qa")
    assert parameters.of_predicting()["SPANS_COLUMN"] == ""
    assert parameters.training_parameters("spans", {"EPOCHS": "2"})["EPOCHS"] == 2
    with pytest.raises(ParameterError, match="TEXT_COLUMN is no parameter"):
        parameters.training_parameters("spans", {"TEXT_COLUMN": "body"})


# --- trackers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "expected"), [
    ("none", []), ("", []), ("tensorboard", ["tensorboard"]), ("tensorboard, none", ["tensorboard"]),
])  # fmt: skip
def test_trackers_are_a_list_with_commas(given, expected):
    assert trackers(given) == expected


@pytest.mark.parametrize(("given", "message"), [
    ("tensorbord", "REPORT_TO is 'tensorbord'; it must be none, or some of tensorboard, mlflow, trackio, wandb"),
    ("tensorboard, all", "must be none, or some of"),
    ("wandb,tensorboard", "wandb is not installed; pip install wandb.$"),
    (["wandb"], "must be text"),
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
