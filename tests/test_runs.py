import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import DatasetDict

from bert_helpers import DataError, ModelError, ParameterError, files, models, records, runs
from bert_helpers.diagnosis import diagnose
from bert_helpers.report import cards
from bert_helpers.tasks import base, regression
from bert_helpers.tasks.registry import TASKS

SIZES = {"TRAIN_SIZE": 48, "VALIDATION_SIZE": 16, "TEST_SIZE": 16}
PARAMETERS = {
    "DATA": "sample",
    **SIZES,
    "EPOCHS": 1,
    "BATCH_SIZE": 16,
    "LEARNING_RATE": 1e-7,
    "MAX_LENGTH": 64,
    "STRIDE": 16,
    "PRECISION": "fp32",
    "SEED": 0,
}


def trained(task, parameters):
    load = TASKS[task].load
    return runs.finish(runs.prepare(load("sample", **base.options(load, parameters)), parameters, task=task))


@pytest.fixture
def run(tiny_bert, tmp_path):
    return trained("classification", {**PARAMETERS, "MODEL": str(tiny_bert), "OUTPUT_DIR": str(tmp_path)})


def leave(run, folder, name=""):
    """Write what a notebook does; with a `name`, as notebook 3: one record of several tasks above their folders."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    if run.task == "regression":
        regression.fold_scale(run.trainer.model)
    models.save_model(run.trainer.model, run.tokenizer, folder / name / "model")
    files.write_json(folder / name / "history.json", run.log_history)
    prefix = TASKS[run.task].prefix
    common = ("MODEL", "BATCH_SIZE", "SEED", "PRECISION", "OUTPUT_DIR")
    own = {(key if key in common else prefix + key): value for key, value in run.parameters.items()}
    own["REPORT_TO"] = "mlflow"  # which need not be installed to read the run
    described = records.describe_data("sample", run.dataset)
    record = {
        "metrics": {},
        "parameters": {**own, "EPOCHS": 99} if prefix else own,
        "data": {run.task: described} if name else described,
    }
    files.write_json(folder / "metrics.json", record)


def test_a_record_from_elsewhere_decides_neither_where_is_written_nor_how_many_processes_start(run, tmp_path):
    mine = tmp_path / "mine"
    leave(run, mine)
    record = json.loads((mine / "metrics.json").read_text())
    record["parameters"] |= {"OUTPUT_DIR": "../elsewhere", "DATALOADER_WORKERS": 200, "REPORT_TO": "wandb"}
    (mine / "metrics.json").write_text(json.dumps(record))
    read = runs.read(mine)
    assert (files.base_folder() / read.parameters["OUTPUT_DIR"]).resolve() == mine.resolve()
    assert (read.parameters["DATALOADER_WORKERS"], read.parameters["REPORT_TO"]) == (0, "none")
    for name, value in {"BATCH_SIZE": 10**9, "EPOCHS": "many", "LEARNING_RATE": True, "PRECISION": "fp1"}.items():
        record["parameters"] |= {name: value}
        (mine / "metrics.json").write_text(json.dumps(record))
        with pytest.raises(DataError, match=f"its record says that {name}"):
            runs.read(mine)
        record["parameters"] |= {name: run.parameters[name]}


def test_a_run_has_curves_and_logits_in_the_order_of_the_rows(run):
    assert run.history.index.tolist() == [1]
    output = run.trainer.predict(run.encoded["test"])
    assert np.array_equal(run.test.predictions, output.predictions)
    assert run.validation.predictions.shape == (16, 2)
    assert run.trainer.optimizer is None


def test_parameters_of_a_fix_reach_the_run(tiny_bert, small_dataset, tmp_path):
    fix = {"WEIGHT_DECAY": 0.3, "LABEL_SMOOTHING": 0.2, "DROPOUT": 0.4, "TRUNCATION": "tail", "EARLY_STOPPING": 2}
    parameters = {**PARAMETERS, **fix, "MAX_LENGTH": 8, "MODEL": str(tiny_bert), "OUTPUT_DIR": str(tmp_path)}
    run = runs.prepare(small_dataset, parameters)
    args = run.trainer.args
    assert (args.weight_decay, args.label_smoothing_factor, args.save_strategy) == (0.3, 0.2, "epoch")
    assert run.trainer.model.config.hidden_dropout_prob == 0.4
    text = run.tokenizer(small_dataset["train"][0]["text"])["input_ids"]
    assert run.encoded["train"][0]["input_ids"] == [text[0], *text[-7:]]


@pytest.mark.parametrize("task", TASKS)
def test_the_folder_that_a_run_of_any_task_left_says_what_the_run_says(task, tiny_bert, tmp_path):
    parameters = {**PARAMETERS, "MODEL": str(tiny_bert), "OUTPUT_DIR": str(tmp_path / "run")}
    run = trained(task, parameters)
    found, table = [f.name for f in diagnose.diagnose(run)], run.measure()
    name = task if TASKS[task].prefix else ""
    leave(run, tmp_path / "run", name)
    again = runs.read(tmp_path / "run" / name)
    assert (again.task, again.parameters["EPOCHS"], again.parameters["MAX_LENGTH"]) == (task, 1, 64)
    assert [f.name for f in diagnose.diagnose(again)] == found
    assert "learning_rate_too_low" in found
    again_table = again.measure()
    before, values = (pd.Series(m.values()) for m in (table, again_table))
    pd.testing.assert_series_equal(values, before, atol=1e-3)  # of constant predictions, correlations are rounding
    # the fix, and its effect on the task's first metric
    better = diagnose.retrain(again, {"LEARNING_RATE": 1e-3, "EPOCHS_FACTOR": 2})
    comparison = runs.compare(again, better)
    assert comparison.table.before.iloc[0] == pytest.approx(before[comparison.table.index[0]], abs=1e-3, nan_ok=True)
    assert better.log_history[-1]["epoch"] == 2


def test_a_folder_that_cannot_be_read_says_why(run, tiny_bert, tmp_path):
    leave(run, tmp_path / "run")
    description = records.describe_data("sample", run.dataset)
    other = {"metrics": {}, "parameters": {**run.parameters, "SEED": 1}, "data": description}
    files.write_json(tmp_path / "run" / "metrics.json", other)
    with pytest.raises(DataError, match="does not hold the rows of this run"):
        runs.read(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"no metrics\.json"):
        runs.read(tmp_path / "run")
    files.write_json(tmp_path / "run" / "history.json", [])
    with pytest.raises(DataError, match="not trained by that run"):
        runs.read(tmp_path / "run")
    (tmp_path / "run" / "history.json").unlink()
    with pytest.raises(DataError, match=r"no history\.json"):
        runs.read(tmp_path / "run")
    with pytest.raises(ModelError, match="none of the tasks"):
        runs.task_of(tiny_bert)


def test_a_fix_is_proven_on_the_same_test_rows(run):
    again = diagnose.retrain(run, {"LEARNING_RATE": 1e-3, "EPOCHS_FACTOR": 2, "remove_rows": [0, 1]})
    assert (again.parameters["LEARNING_RATE"], again.parameters["EPOCHS"]) == (1e-3, 2)
    assert len(again.dataset["train"]) == 46
    assert again.dataset["test"].to_dict() == run.dataset["test"].to_dict()
    labels = np.array(run.dataset["test"]["label"])
    told = runs.compare(run, again).table.loc["accuracy"]
    expected = [np.mean(r.test.predictions.argmax(axis=1) == labels) for r in (run, again)]
    assert told[["before", "after"]].tolist() == expected


def test_runs_on_other_rows_or_of_another_task_are_not_compared(run):
    rows = run.dataset["test"].select(range(8))
    with pytest.raises(DataError, match="different rows"):
        runs.compare(run, replace(run, dataset={**run.dataset, "test": rows}))
    with pytest.raises(DataError, match="a run of classification, after of ner"):
        runs.compare(run, replace(run, task="ner"))


def test_before_training_the_model_is_judged_after_it_the_run(tiny_bert, small_dataset, tmp_path):
    parameters = {**PARAMETERS, "MODEL": str(tiny_bert), "OUTPUT_DIR": str(tmp_path)}
    fresh = runs.prepare(small_dataset, parameters)
    fresh.trainer.model.bert.requires_grad_(False)
    assert "frozen_parameters" in [f.name for f in diagnose.diagnose(fresh)]
    assert "memory_short" in [f.name for f in diagnose.diagnose(fresh, memory=1e3)]
    assert "learning_rate_too_low" not in [f.name for f in diagnose.diagnose(fresh)]


@pytest.mark.parametrize(("stopping", "overfitted"), [(0, True), (1, False)])
def test_a_run_that_kept_its_best_epoch_is_judged_by_that(stopping, overfitted, run):
    curves = {"train_loss": [0.6, 0.4, 0.1], "validation_loss": [0.69, 0.6, 3.0]}
    history = pd.DataFrame(curves, index=[1.0, 2.0, 3.0])
    run = replace(run, history=history, parameters={**run.parameters, "EARLY_STOPPING": stopping})
    assert ("overfitting" in [f.name for f in diagnose.diagnose(run)]) == overfitted


def test_a_run_that_kept_an_epoch_at_chance_has_learned_nothing(run):
    """Later epochs memorised labels that were drawn at random."""
    curves = {"train_loss": [0.70, 0.69, 0.4, 0.1], "validation_loss": [0.71, 0.69, 1.5, 3.0]}
    history = pd.DataFrame(curves, index=[1.0, 2.0, 3.0, 4.0])
    log = [{"step": 3 * n, "epoch": n, "eval_train_loss": loss} for n, loss in enumerate(curves["train_loss"], 1)]
    for stopping, expected in ((24, "underfitting"), (0, "overfitting")):
        parameters = {**run.parameters, "EARLY_STOPPING": stopping}
        found = diagnose.diagnose(replace(run, history=history, log_history=log, parameters=parameters), rows=[])
        assert [f.name for f in found] == [expected]


@pytest.mark.parametrize("fix", [{"TEST_SIZE": 400}, {"unfreeze": True}, {"redraw_splits": True, "EPOCHS": 2}])
def test_a_fix_that_training_does_not_prove_is_refused(run, fix):
    with pytest.raises(ParameterError, match="no new training"):
        diagnose.retrain(run, fix)
    assert diagnose.retrain(run, {}) is run


def test_a_run_is_used_again_for_the_same_recipe_rows_and_precision_only(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bert, tmp_path / "tiny")
    parameters = {**PARAMETERS, "MODEL": "tiny", "OUTPUT_DIR": "results/run"}
    run, folder = trained("classification", parameters), tmp_path / "results/run"
    assert runs.reusable(folder, parameters, run.dataset) == ""  # nothing there yet
    runs.save(run, folder)
    assert runs.reusable(folder, {**parameters, "REPORT_TO": "wandb"}, run.dataset) == str(folder / "model")
    other = {
        "EPOCHS": 2,
        "LEARNING_RATE": 1e-6,
        "SEED": 1,
        "MODEL": "./tiny",
        "LABEL_SMOOTHING": 0.1,
        "PRECISION": "bf16",
    }
    for name, value in other.items():
        assert runs.reusable(folder, {**parameters, name: value}, run.dataset) == "", name
    fewer = DatasetDict({**run.dataset, "train": run.dataset["train"].select(range(40))})
    assert runs.reusable(folder, parameters, fewer) == ""


@pytest.fixture
def left(tiny_bert, tmp_path, monkeypatch):
    """Train on project/mine.csv, as DATA names it, and leave a run in project/results/run."""

    def leave(data):
        project = tmp_path / "project"
        project.mkdir()
        monkeypatch.chdir(project)
        rows = [{"text": f"text number {i}", "label": "ab"[i % 2]} for i in range(40)]
        Path(data).parent.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(data, index=False)
        parameters = {**PARAMETERS, "MODEL": str(tiny_bert), "DATA": data, "OUTPUT_DIR": "results/run"}
        load = TASKS["classification"].load
        run = runs.prepare(load(data, **base.options(load, parameters)), parameters)
        runs.save(runs.finish(run), project / "results/run", publish=cards.publish)
        monkeypatch.chdir(tmp_path)
        return project / "results/run"

    return leave


def test_data_is_found_where_it_lay_as_seen_from_the_run(left, tmp_path):
    folder = left("mine.csv")
    assert not (folder / records.PLACES).exists()
    assert runs.read(folder).parameters["DATA"] == "project/mine.csv"
    shutil.move(tmp_path / "project", tmp_path / "renamed")
    assert runs.read(tmp_path / "renamed/results/run").parameters["DATA"] == "renamed/mine.csv"


def test_data_is_found_next_to_the_run(left, tmp_path):
    left("mine.csv")
    shutil.move(tmp_path / "project/results", tmp_path / "sent")
    with pytest.raises(DataError, match=r"no file 'mine\.csv' here, nor where it was, nor next to the run"):
        runs.read(tmp_path / "sent/run")
    shutil.move(tmp_path / "project/mine.csv", tmp_path / "sent/run")
    assert runs.read(tmp_path / "sent/run").parameters["DATA"] == "sent/run/mine.csv"


def test_data_elsewhere_on_the_machine_is_found_and_no_record_or_card_says_where(left, tmp_path):
    data = tmp_path / "elsewhere/mine.csv"
    folder = left(str(data))
    assert json.loads((folder / records.PLACES).read_text()) == {"classification": str(data)}
    record = records.read(folder)
    assert (record.data["source"], record.parameters["DATA"]) == ("mine.csv", "mine.csv")
    for path in folder.rglob("*.*"):
        assert path.name == records.PLACES or str(data.parent).encode() not in path.read_bytes(), path
    assert runs.read(folder).parameters["DATA"] == "elsewhere/mine.csv"
    shutil.move(data, tmp_path / "there.csv")
    with pytest.raises(DataError, match=r"no file 'mine\.csv' here"):
        runs.read(folder)
    assert runs.read(folder, source=str(tmp_path / "there.csv")).parameters["DATA"] == str(tmp_path / "there.csv")


def test_a_file_that_changed_is_named_with_both_fingerprints_unless_another_has_the_rows(left, tmp_path):
    folder = left("mine.csv")
    shutil.copy(tmp_path / "project/mine.csv", tmp_path / "copy.csv")
    with open(tmp_path / "project/mine.csv", "a") as file:
        file.write("one more,a\n")
    known = records.read(folder).data["fingerprint"]
    with pytest.raises(DataError, match=rf"project/mine\.csv does not hold the rows of this run.*{known[:12]}"):
        runs.read(folder)
    shutil.move(tmp_path / "copy.csv", folder / "mine.csv")
    assert runs.read(folder).parameters["DATA"] == "project/results/run/mine.csv"


def test_what_was_assumed_in_reading_is_in_the_record(tmp_path):
    (tmp_path / "old.csv").write_bytes(b"text,label\n" + "schön,a\ngrün,b\n".encode("cp1252") * 10)
    dataset = TASKS["classification"].load(tmp_path / "old.csv")
    described = records.describe_data(str(tmp_path / "old.csv"), dataset)
    assert described["assumed"] == {"old.csv": {"encoding": "cp1252"}}
    assert "assumed" not in records.describe_data(
        "sample", dataset.__class__(train=TASKS["ner"].load("sample")["test"])
    )
