import json
import os
import shutil

import pandas as pd
import pytest

from bert_helpers import DataError, ParameterError, files, records
from bert_helpers.records import Record

METRICS = pd.DataFrame({"value": [0.9], "low": [0.8], "high": [float("nan")]}, index=["accuracy"])
SCORE = {"value": 0.5, "low": 0.4, "high": 0.6}
FINDINGS = [{"finding": "leakage", "symptom": "3 rows"}]
SEVERAL = Record(
    metrics={"classification/accuracy": SCORE, "qa/f1": SCORE, "qa/exact_match": SCORE, "qa/transfer/f1": SCORE},
    parameters={"MODEL": "m", "EPOCHS": 1, "QA_EPOCHS": 2, "DATA": "texts", "QA_DATA": "questions"},
    data={"classification": {"source": "texts"}, "qa": {"source": "questions"}},
    tasks=["classification", "qa"],
)


def made(**changes):
    values = {
        "tasks": ["classification"],
        "metrics": METRICS,
        "parameters": {"EPOCHS": 3},
        "data": {"source": "sample", "fingerprint": "f", "rows": {"train": 3}},
        "model": "bert-base-uncased",
        "precision": "fp32",
        "seed": 0,
        "seconds": {"train": 1.234},
    }
    return records.make(**{**values, **changes})


def test_a_record_says_what_produced_it_and_no_absolute_path(small_dataset, tmp_path):
    mine = "/home/somebody/data/reviews.csv"
    record = made(
        parameters={"DATA": mine, "QA_TRAINED": "~/x/model", "OUTPUT_DIR": "results/a", "TEXT_COLUMN": "/text"},
        data=records.describe_data(mine, small_dataset),
        model="~nobody/models/bert",
    )
    path = records.write(tmp_path, record)
    content = json.loads(path.read_text())
    assert set(content) == {
        *("metrics", "parameters", "data", "tasks", "model", "versions", "device", "precision", "seed", "seconds")
    }
    assert content["metrics"] == {"accuracy": {"value": 0.9, "low": 0.8, "high": None}}
    assert content["data"]["rows"] == {"train": 48, "validation": 16, "test": 16}
    assert len(content["data"]["fingerprint"]) == 64
    assert content["seconds"] == {"train": 1.2}
    assert (content["tasks"], content["model"]) == (["classification"], "bert")
    # a column may have any name; of a path only the last part is kept
    given = {"DATA": "reviews.csv", "QA_TRAINED": "model", "OUTPUT_DIR": "results/a", "TEXT_COLUMN": "/text"}
    assert content["parameters"] == given
    assert "somebody" not in path.read_text()


@pytest.mark.parametrize("record", [made(), made(findings=[]), made(findings=FINDINGS), SEVERAL])
def test_a_record_reads_back_as_it_was(record, tmp_path):
    records.write(tmp_path, record)
    assert records.read(tmp_path) == record


def test_a_record_of_several_tasks_is_found_from_their_folders_and_gives_each_its_part(tmp_path):
    (tmp_path / "qa").mkdir()
    records.write(tmp_path, SEVERAL.with_findings("qa", FINDINGS))
    record = records.read(tmp_path / "qa")
    part = record.of_task("qa", "QA_")
    assert list(part.metrics) == ["f1", "exact_match", "transfer/f1"]
    assert [part.parameters[name] for name in ("MODEL", "EPOCHS", "DATA")] == ["m", 2, "questions"]
    assert (part.data, part.tasks, part.findings) == ({"source": "questions"}, ["qa"], FINDINGS)
    other = record.of_task("classification")
    assert (other.parameters["EPOCHS"], other.data, other.findings) == (1, {"source": "texts"}, None)
    both = record.with_findings("classification", [])
    assert both.findings == {"qa": FINDINGS, "classification": []}


def test_the_headline_is_three_metrics_or_the_first_of_each_task():
    names = ["f1", "PER/f1", "precision", "recall", "token_accuracy"]
    assert list(Record(dict.fromkeys(names, SCORE), {}, {}).headline()) == ["f1", "precision", "recall"]
    assert list(SEVERAL.headline()) == ["classification/accuracy", "qa/f1"]
    apart = dict.fromkeys(["classification/f1", "qa/f1", "classification/transfer/f1"], SCORE)  # as notebook 3 has them
    assert list(Record(apart, {}, {}).headline()) == ["classification/f1", "qa/f1"]


def test_an_old_record_that_names_no_task_is_read(tmp_path):
    data = {"source": "sample"}
    files.write_json(tmp_path / "metrics.json", {"metrics": {"f1": SCORE}, "parameters": {}, "data": data})
    record = records.read(tmp_path)
    assert (record.tasks, record.with_findings("ner", []).tasks) == ((), ["ner"])
    files.write_json(tmp_path / "metrics.json", {"metrics": {}, "parameters": {}, "data": {"qa": data}})
    assert records.read(tmp_path).tasks == ["qa"]


NEEDED = {"metrics": {}, "parameters": {}, "data": {}}
BAD = [
    ([], "it is []"), ({"eval_loss": 0.3}, "metrics is null"), ({"metrics": {"f1": 0.5}}, "metrics.f1 is 0.5"),
    ({"metrics": {"f1": {"value": "high"}}}, 'metrics.f1.value is "high"'),
    ({**NEEDED, "data": {"source": 3}}, "data.source is 3"), ({**NEEDED, "seed": "0"}, 'seed is "0"'),
    ({**NEEDED, "findings": [{"finding": "leakage"}]}, "findings[0].symptom is null"),
    ({**NEEDED, "seconds": {"train": None}}, "seconds.train is null"), ({**NEEDED, "tasks": "ner"}, 'tasks is "ner"'),
    ({**NEEDED, "limits": {"ner": {"worst": {"name": 3}}}}, "limits.ner.worst.name is 3"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "problem"), BAD)
def test_a_record_with_a_field_of_another_type_is_refused(content, problem, tmp_path):
    files.write_json(tmp_path / "metrics.json", content)
    with pytest.raises(DataError) as caught:
        records.read(tmp_path)
    assert caught.value.problem == f"does not have the expected form ({problem})"
    assert caught.value.source == str(tmp_path / "metrics.json")


def test_a_folder_without_a_record_and_a_history_of_something_else_are_refused(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match=r"run: no metrics.json; a run's folder has history.json, model"):
        records.read(tmp_path / "run")
    path = files.write_json(tmp_path / "history.json", [{"epoch": 1, "loss": "high"}])
    with pytest.raises(DataError, match=r'\[0\]\.loss is "high"'):
        records.read_history(path)
    files.write_json(path, [{"epoch": 1.0, "loss": float("nan")}])
    assert records.read_history(path) == [{"epoch": 1.0, "loss": None}]


def write_run(folder, text):
    with records.new_run(folder) as new:
        (new / "model").mkdir()
        (new / "model/config.json").write_text(text)
        (new / "history.json").write_text(text)
        records.write(new, made(model=text))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_run_takes_the_place_of_an_earlier_one_and_leaves_what_is_not_its_own(tmp_path):
    write_run(tmp_path, "first")
    (tmp_path / "model/LICENSE").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with records.new_run(tmp_path) as new:
        (new / "predictions.csv").write_text("second")
        records.write(new, made(model="second"))
    now = contents(tmp_path)
    assert set(now) == {"model/LICENSE", "notes.txt", "predictions.csv", "metrics.json"}
    assert records.read(tmp_path).model == "second"
    assert records.read(tmp_path).files.keys() == {"predictions.csv"}


def test_a_run_may_have_the_name_of_a_file_in_staging_or_be_the_root(tmp_path, monkeypatch):
    write_run(tmp_path / files.REMOVED, "first")
    assert records.read(tmp_path / files.REMOVED).model == "first"
    monkeypatch.setattr(files.Path, "resolve", lambda path: files.Path("/"))
    with files.replace_files(tmp_path / "root", ours={}) as new:
        (new / "history.json").write_text("[]")
    assert contents(tmp_path / "root") == {"history.json": "[]"}


OWN = {
    "history.json": lambda folder: (folder / "history.json").write_text("mine"),
    "model": lambda folder: (shutil.rmtree(folder / "model"), (folder / "model").write_text("mine")),
    "model/config.json": lambda folder: (folder / "model/config.json").write_text("changed"),
    "metrics.json": lambda folder: (folder / "metrics.json").write_text('{"my": "own"}'),
    "a link": lambda folder: (
        shutil.move(folder / "model", folder / "elsewhere"),
        (folder / "model").symlink_to(folder / "elsewhere"),
    ),
}


@pytest.mark.parametrize("case", OWN)
@pytest.mark.parametrize("before", [True, False], ids=["a run was there", "no run"])
def test_a_file_of_somebody_else_in_the_way_is_refused_and_nothing_changes(case, before, tmp_path):
    write_run(tmp_path, "first")
    OWN[case](tmp_path)
    if not before:
        (tmp_path / "metrics.json").unlink()
    was = contents(tmp_path)
    with pytest.raises(ParameterError, match="move it away, or choose another folder"):
        write_run(tmp_path, "second")
    assert contents(tmp_path) == was


@pytest.mark.parametrize("name", ["../mine", "{}/mine", "link/mine", "a/../../mine"])
def test_a_folder_from_elsewhere_does_not_decide_what_is_removed_or_written(name, tmp_path):
    (tmp_path / "mine").write_text("mine")
    run = tmp_path / "run"
    write_run(run, "first")
    (run / "link").symlink_to(tmp_path)
    files.write_json(run / files.READY / files.REMOVED, [name.format(tmp_path)])
    with pytest.raises(ParameterError):
        records.read(run)
    shutil.rmtree(run / files.READY)
    files.write_text(run / files.READY / "run/link/mine", "theirs")
    with pytest.raises(ParameterError):
        records.read(run)
    assert (tmp_path / "mine").read_text() == "mine"


STEPS = ("replace", "fsync", "unlink", "rmdir", "mkdir")


@pytest.mark.parametrize("name", STEPS)
def test_a_run_that_is_killed_while_it_is_saved_is_the_old_one_or_the_new_one(name, tmp_path, monkeypatch):
    """The process ends after each system call in turn; the next one examines the folder."""
    call, survived = getattr(os, name), 0
    for last in range(100):
        folder = tmp_path / str(last)
        write_run(folder, "first")
        left = [last]

        def die(*args, left=left, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return call(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(os, name, die)
            try:
                write_run(folder, "second")
            except Killed:
                survived += 1
            else:
                break
        text = records.read(folder).model
        assert text in ("first", "second")
        assert {contents(folder)[path] for path in ("model/config.json", "history.json")} == {text}
        write_run(folder, "third")
        assert records.read(folder).model == "third"
        assert set(contents(folder)) == {"model/config.json", "history.json", "metrics.json"}
    assert survived >= (name in ("replace", "fsync", "mkdir"))


class Killed(BaseException):
    """Behave as if the process had ended, so that no handler runs."""
