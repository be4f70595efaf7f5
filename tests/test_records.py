import json
import os

import pandas as pd
import pytest

from bert_helpers import DataError, files, records
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
    # a column may have any name; a path is cut to its last part
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


def test_the_date_of_a_record_stays_on_request(tmp_path):
    path = records.write(tmp_path, made())
    os.utime(path, (1, 1))
    records.write(tmp_path, made(findings=FINDINGS), keep_date=True)
    assert path.stat().st_mtime == 1
    assert records.read(tmp_path).findings == FINDINGS
