"""The card of a saved model: facts of its record, read back by the Hub's library; nothing planted lives in it."""

import json
import re

import mistune
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from test_security import PLANTS, live
from transformers.trainer_utils import PredictionOutput

from bert_helpers import ParameterError, files, models, results, runs, tasks
from bert_helpers.cli import main as cli
from bert_helpers.diagnosis.findings import Evidence, Finding
from bert_helpers.evaluation import calibration
from bert_helpers.report import cards

PARAMETERS = {"MODEL": "bert-base-uncased", "DATA": "mine.csv", "EPOCHS": 3, "LEARNING_RATE": 1e-4, "MAX_LENGTH": 32,
              "STRIDE": 8, "SEED": 7, "PRECISION": "fp32", "OUTPUT_DIR": "results/mine"}  # fmt: skip
SCORES = {"accuracy": (0.9, 0.8, 0.95), "f1": (0.85, 0.7, 0.95), "log_loss": (0.3, 0.2, 0.4)}
LIMITS = ("Calibration", "Worst slice", "Another domain", "Diagnosis")
MARKDOWN = ["a\n\n---\n# b", "x\r\n---\r\nlicense: mit", "`` ` ```", "| a | b |", "![x](http://x.y/z.png)", "[a](b)",
            "{{ 7 * 7 }}{% for %}", "'\": [&*!", "a\u202eb\x00\x1b\u2028c", "\ud800", "", "~~~", "*_#>"]  # fmt: skip


def table(scores):
    return pd.DataFrame.from_dict(scores, orient="index", columns=["value", "low", "high"])


def save(folder, bert, task="classification", names=("bad", "good")):
    """A model of the task, with these classes."""
    spec, fields = tasks.TASKS[task], {"num_labels": 1}
    if task in ("classification", "ner"):
        fields = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    model = models.load_model(str(bert), spec.model_class, seed=0, **({} if task == "qa" else fields))
    results.save_model(model, models.load_tokenizer(str(bert)), folder / "model")
    return folder


def write(folder, scores=SCORES, *, source="mine.csv", parameters=PARAMETERS, **changes):
    """The record, and with it the card; returns the card."""
    described = {"source": source, "fingerprint": "f" * 64, "rows": {"train": 480, "validation": 80, "test": 240}}
    told = {"data": described, "model": parameters["MODEL"], "seconds": {"train": 61.6, "evaluate": 3.0}, **changes}
    results.write_record(
        folder, metrics=table(scores), parameters=parameters, precision="fp32", seed=parameters["SEED"], **told
    )
    return folder / "model" / "README.md"


def line(card, title):
    return re.search(f"^- {title}: (.*)$", card.text, re.MULTILINE)[1]


# --- what stands in it ----------------------------------------------------------------------------------------


def test_a_card_holds_the_facts_of_its_record_and_reads_back(tiny_bert, tmp_path):
    path = write(save(tmp_path / "mine", tiny_bert))
    card = ModelCard.load(path)
    assert str(card) == path.read_text(encoding="utf-8")
    assert (card.data.base_model, card.data.pipeline_tag) == ("bert-base-uncased", "text-classification")
    assert (card.data.library_name, card.data.model_name, card.data.license) == ("transformers", "mine", None)
    found = {(r.dataset_name, r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert found == {("mine.csv", "test", name): row[0] for name, row in SCORES.items()}
    assert "| accuracy | 0.900 (0.800 to 0.950) |" in card.text
    assert line(card, "Data") == "`mine.csv`: 480 `train`, 80 `validation`, 240 `test` rows"
    assert line(card, "Fingerprint of the data") == f"`{'f' * 64}`"
    assert (line(card, "Seed"), line(card, "Classes")) == ("`7`", "`bad`, `good`")
    assert line(card, "Device and precision").endswith("`fp32`; trained for 62 s")
    assert "`transformers 5." in line(card, "Versions")
    given = json.loads(re.search("```json\n(.*?)```", card.text, re.DOTALL)[1])
    assert given == {name: value for name, value in PARAMETERS.items() if name != "STRIDE"}  # which no classifier has
    assert "python -m bert_helpers predict results/mine" in card.text
    assert [line(card, title) for title in LIMITS[:3]] == ["not measured"] * 3
    assert line(card, "Diagnosis").startswith("not recorded; `python -m bert_helpers diagnose results/mine`")


def test_limits_are_measured_on_the_predictions_beside_it(tiny_bert, tmp_path):
    names = ["null", "10"]  # which a CSV reader could take for nothing and for a number
    folder = save(tmp_path / "mine", tiny_bert, names=names)
    labels = np.arange(400) % 2
    logits = np.zeros((400, 2))
    logits[np.arange(400), labels] = 3.0
    logits[1:80:2] *= -1  # 40 of the 200 rows of "10" are wrong, sure as the others
    output = PredictionOutput(predictions=logits, label_ids=labels, metrics={})
    results.save_predictions(folder, {"validation": output, "test": output}, names)
    card = ModelCard.load(write(folder))
    assert re.match(r"of the 200 rows of `10`, a share of 0\.800 \(0\.7\d\d to 0\.8\d\d\) is found",
                    line(card, "Worst slice"))  # fmt: skip
    sure, right = 1 / (1 + np.exp(-3)), 0.9
    temperature = 3 / np.log(right / (1 - right))
    told = line(card, "Calibration")
    assert told.startswith(f"expected calibration error {sure - right:.3f} (")
    assert f"temperature {temperature:.2f}, fitted on 400 validation rows" in told
    assert "; 0.000 (" in told
    assert "does not help" not in told
    right = np.eye(2)[labels] * 3
    assert cards._calibration({"validation": (logits, labels, names), "test": (right, labels, names)}, seed=0).endswith(
        "fitted on 400 validation rows, which does not help here"
    )
    few = PredictionOutput(predictions=logits[:12], label_ids=labels[:12], metrics={})
    results.save_predictions(folder, {"validation": few, "test": few}, names)
    assert line(ModelCard.load(write(folder)), "Worst slice") == "not measured"


def test_a_calibration_error_above_its_interval_is_explained():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(40):
        logits, labels = rng.normal(size=(9, 2)), rng.integers(0, 2, 9)
        ece = calibration.calibration_error(logits, labels, seed=0).loc["ece"]
        told = cards._calibration(dict.fromkeys(("validation", "test"), (logits, labels, ["a", "b"])), seed=0)
        assert ("above its interval" in told) == (ece.value > ece.high)
        seen.add(bool(ece.value > ece.high))
    assert seen == {True, False}


@pytest.mark.parametrize("content", ["", "split\n", "split,label,logit_bad\ntest,good,1\n", "split,label\ntest,bad\n",
                                     "split,label,logit_bad,logit_good\ntest,bad,x,y\n", "\xff"])  # fmt: skip
def test_predictions_that_are_none_of_a_classifier_leave_limits_unmeasured(content, tiny_bert, tmp_path):
    folder = save(tmp_path / "mine", tiny_bert)
    (folder / "predictions.csv").write_bytes(content.encode("latin-1"))
    card = ModelCard.load(write(folder))
    assert [line(card, title) for title in LIMITS[:2]] == ["not measured"] * 2


def test_entities_tell_the_worst_type_and_the_other_domain(tiny_bert, tmp_path):
    folder = save(tmp_path / "mine", tiny_bert, "ner", ["O", "B-PER", "B-LOC"])
    scores = {"f1": (0.8, 0.7, 0.9), "token_accuracy": (0.9, 0.8, 1.0), "transfer/f1": (0.4, 0.3, 0.5),
              "PER/f1": (0.9, 0.8, 1.0), "LOC/f1": (0.7, 0.6, 0.8), "RARE/f1": (float("nan"),) * 3}  # fmt: skip
    card = ModelCard.load(write(folder, scores, parameters={**PARAMETERS, "TRANSFER_DATA": "chat.conll"}))
    assert line(card, "Worst slice") == "`LOC`, f1 0.700 (0.600 to 0.800)"
    assert line(card, "Another domain") == "`chat.conll`: f1 0.400 (0.300 to 0.500)"
    assert line(card, "Tags") == "`O`, `B-PER`, `B-LOC`"
    assert [row.metric_type for row in card.data.eval_results] == ["f1", "token_accuracy"]


def test_a_record_of_several_tasks_gives_each_model_its_own_part(tiny_bert, tmp_path):
    folder = tmp_path / "all"
    for task in ("classification", "regression", "qa"):
        save(folder / task, tiny_bert, task)
    save(folder, tiny_bert, "ner")  # another run's: no model of this record
    scores = {
        "classification/accuracy": (0.9, 0.8, 1.0),
        "classification/transfer/accuracy": (0.7, 0.6, 0.8),
        "qa/f1": (0.3, 0.2, 0.4),
        "regression/pearson": (0.5, 0.4, 0.6),
        "regression/cosine/pearson": (0.4,) * 3,
    }
    given = {**PARAMETERS, "OUTPUT_DIR": "results/all", "TRANSFER_DATA": "abroad.csv", "QA_EPOCHS": 9,
             "QA_TRAINED": "", "STS_TRAINED": "results/before/model", "STS_MAX_LENGTH": 16}  # fmt: skip
    write(folder, scores, parameters=given,
          data={task: {"source": f"my {task}"} for task in ("classification", "qa", "regression")})  # fmt: skip
    assert not (folder / "model/README.md").exists()
    read = {task: ModelCard.load(folder / task / "model/README.md") for task in ("classification", "regression", "qa")}
    found = {task: {r.metric_type: r.metric_value for r in card.data.eval_results} for task, card in read.items()}
    assert found == {"classification": {"accuracy": 0.9}, "regression": {"pearson": 0.5}, "qa": {"f1": 0.3}}
    assert line(read["classification"], "Another domain").startswith("`abroad.csv`: accuracy 0.700")
    assert [line(card, "Data") for card in read.values()] == ["`my classification`", "`my regression`", "`my qa`"]
    assert '"EPOCHS": 9' in read["qa"].text
    assert "predict results/all/qa" in read["qa"].text
    assert line(read["regression"], "Base model").startswith("`results/before/model`; not trained by this run")
    assert "EPOCHS" not in read["regression"].text
    assert read["regression"].data.base_model is None
    assert "max_length=16" in read["regression"].text


def test_findings_of_the_diagnosis_stand_among_the_limits(tiny_bert, tmp_path):
    found = [
        Finding("overfitting", "it climbs to 0.9", Evidence(0.9, 0.5, "as measured"), "few rows", {"EPOCHS": 2}),
        Finding("leakage", "3 rows", Evidence(3, 0, "none should"), "copies", {"redraw_splits": True}),
    ]
    folder = save(tmp_path / "mine", tiny_bert)
    card = ModelCard.load(write(folder, findings=found))
    assert line(card, "Diagnosis") == "`leakage`, `3 rows`; `overfitting`, `it climbs to 0.9`"
    record = json.loads((folder / "metrics.json").read_text())
    evidence = {"value": 0.9, "threshold": 0.5, "reason": "as measured"}
    assert record["findings"][1] == {"finding": "overfitting", "symptom": "it climbs to 0.9", "evidence": evidence}
    assert line(ModelCard.load(write(folder, findings=[])), "Diagnosis") == "no finding"
    assert "findings" not in json.loads((write(folder).parent.parent / "metrics.json").read_text())


def test_findings_of_one_task_leave_those_of_the_others(tiny_bert, tmp_path):
    folder = tmp_path / "all"
    for task in ("classification", "qa"):
        save(folder / task, tiny_bert, task)
    scores = {"classification/accuracy": (0.9, 0.8, 1.0), "qa/f1": (0.3, 0.2, 0.4)}
    write(folder, scores, data={task: {"source": task} for task in ("classification", "qa")})
    found = [Finding("leakage", "3 rows", Evidence(3, 0, "none should"), "copies", {})]
    runs.record_findings(folder / "qa", "qa", found)
    runs.record_findings(folder / "classification", "classification", [])
    told = {
        task: line(ModelCard.load(folder / task / "model/README.md"), "Diagnosis") for task in ("qa", "classification")
    }
    assert told == {"qa": "`leakage`, `3 rows`", "classification": "no finding"}
    assert json.loads((folder / "metrics.json").read_text())["findings"].keys() == told.keys()


def test_a_record_of_other_models_writes_no_card(tiny_bert, tmp_path):
    folder = save(tmp_path / "mine", tiny_bert)
    before = write(folder).read_bytes()
    assert (
        write(folder, {"healthy/accuracy": (0.9, 0.8, 1.0), "sick/x/accuracy": (0.5, 0.4, 0.6)}).read_bytes() == before
    )


LESS = [{}, {"findings": "none"}, {"findings": {}},
        {"metrics": {}, "data": {}, "parameters": {}, "versions": {}, "seconds": {}},
        {"metrics": {"f1": {"value": None, "low": None, "high": None}}, "seed": None}]  # fmt: skip


@pytest.mark.parametrize("record", LESS)
@pytest.mark.parametrize("task", tasks.TASKS)
def test_what_a_record_lacks_is_said_to_be_unknown(task, record, tiny_bert, tmp_path):
    (path,) = cards.write_cards(save(tmp_path / "mine", tiny_bert, task), record)
    card = ModelCard.load(path)
    assert card.data.eval_results is None
    assert ("| f1 | undefined |" if record.get("metrics") else "Not measured.") in card.text
    for title in ("Base model", "Data", "Fingerprint of the data", "Seed", "Versions"):
        assert line(card, title) == "not recorded"
    assert [line(card, title) for title in LIMITS[:3]] == ["not measured"] * 3
    assert "predict FOLDER" in card.text
    assert "None" not in card.text


def test_a_folder_that_holds_no_fine_tuned_bert_gets_no_card(tiny_bert, tmp_path):
    folder = save(tmp_path / "mine", tiny_bert)
    for config in ("{", '{"architectures": ["GPT"], "model_type": "bert"}'):
        (folder / "model/config.json").write_text(config)
        assert not write(folder).exists()
    assert (folder / "metrics.json").exists()


# --- what it says how to do -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_lines_of_a_card_run_as_they_stand(task, tiny_bert, tmp_path, monkeypatch, capsys):
    scores = {"f1": (0.8, 0.7, 0.9)}
    path = write(save(tmp_path / "results/mine", tiny_bert, task), scores)
    monkeypatch.chdir(tmp_path)
    code, command = re.search(
        "```python\n(.*?)```.*?```\npython -m bert_helpers (.*?)\n```", path.read_text(), re.DOTALL
    ).groups()
    exec(code, {})
    assert cli.main([word.strip('"') for word in re.findall('"[^"]*"|[^ ]+', command)]) == 0
    out = capsys.readouterr().out
    assert out.strip(), out


# --- somebody else's text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [*PLANTS.values(), *MARKDOWN])
def test_what_is_planted_is_text(plant, tiny_bert, tmp_path):
    folder = save(tmp_path / "mine", tiny_bert, names=["x", "other"])
    config = json.loads((folder / "model/config.json").read_text())
    config.update(id2label={"0": plant, "1": "other"}, label2id={plant: 0, "other": 1})
    (folder / "model/config.json").write_text(json.dumps(config))
    parameters = dict.fromkeys(("MODEL", "DATA", "TEXT_COLUMN", "LABEL_COLUMN", "OUTPUT_DIR", "SEED"), plant)
    half = {"value": 0.5, "low": 0.4, "high": 0.6}
    record = {"metrics": {"accuracy": half, "transfer/accuracy": half},
              "parameters": {**parameters, "TRANSFER_DATA": plant, plant: plant}, "seed": plant, "model": plant,
              "data": {"source": plant, "fingerprint": plant, "rows": {plant: 3}}, "device": plant,
              "precision": plant, "versions": {plant: plant},
              "findings": [{"finding": plant, "symptom": plant}, plant]}  # fmt: skip
    (path,) = cards.write_cards(folder, record)
    card, shown = ModelCard.load(path), cards._clean(plant)
    assert set(card.data.to_dict()) <= {"base_model", "library_name", "metrics", "pipeline_tag", "tags", "model-index"}
    assert card.data.eval_results[0].dataset_name == (shown or "unknown")
    page = mistune.create_markdown(escape=False, plugins=["table", "url", "strikethrough"])(card.text)
    assert live(page) == []
    assert re.findall("<h(.)>(.*?)</h", page) == [
        ("1", "<code>mine</code>"),
        *(("2", title) for title in ("Metrics", "Limits", "Use", "Parameters")),
    ]
    assert not re.search("<(a|img|em|strong|del|hr|blockquote)[ >]", page)
    assert page.count("<table>") == 1
    for title in ("Data", "Device and precision", "Versions", "Classes", "Diagnosis"):
        text = re.search(f"<li>{title}: (.*?)</li>", page)[1]
        empty = {"Versions": "", "Classes": "(empty)", "Diagnosis": "(empty)"}.get(title, "not recorded")
        assert mistune.escape(shown or empty) in text


def test_a_card_that_cannot_be_written_leaves_no_half_and_the_run_without_a_record(tiny_bert, tmp_path, monkeypatch):
    folder = save(tmp_path / "mine", tiny_bert)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(ParameterError, match=r"README.md: cannot be written \(No space left on device\)"):
        write(folder)
    assert not [path for path in (folder / "model").iterdir() if "README" in path.name]
    assert not (folder / "metrics.json").exists()
