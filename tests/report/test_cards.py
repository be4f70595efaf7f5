"""The card of a saved model: facts from its record, read back by the Hub's library; foreign text in it stays text."""

import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import mistune
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from test_security import PLANTS, live

from bert_helpers import ParameterError, files, models, records
from bert_helpers.cli import main as cli
from bert_helpers.records import Record
from bert_helpers.report import cards
from bert_helpers.report.gallery import write_gallery
from bert_helpers.report.templates import one_line
from bert_helpers.tasks.registry import TASKS

GOLDEN = Path(__file__).with_name("card.md")
SCORE = {"value": 0.5, "low": 0.4, "high": 0.6}
RECORD = Record(
    metrics={"accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}, "f1": {"value": None, "low": None, "high": None},
             "log_loss": {"value": 0.3, "low": 0.2, "high": None}},
    parameters={"MODEL": "bert-base-uncased", "DATA": "mine.csv", "EPOCHS": 3, "LEARNING_RATE": 1e-4,
                "MAX_LENGTH": 32, "STRIDE": 8, "SEED": 7, "PRECISION": "fp32", "OUTPUT_DIR": "results/mine"},
    data={"source": "mine.csv", "fingerprint": "f" * 64, "rows": {"train": 480, "validation": 80, "test": 240}},
    tasks=["classification"], model="bert-base-uncased", versions={"python": "3.12.1", "transformers": "5.24.0"},
    device="CPU, 2 threads", precision="fp32", seed=7, seconds={"train": 61.6, "evaluate": 3.0},
)  # fmt: skip
CALIBRATION = {"ece": SCORE, "by_chance": 0.05, "temperature": 1.5, "scaled": {**SCORE, "value": 0.1}, "rows": 80}
LIMITS = {"calibration": CALIBRATION, "worst": {"name": "bad", "metric": "accuracy", **SCORE, "rows": 40}}
FINDINGS = [{"finding": "leakage", "symptom": "3 rows"}, {"finding": "overfitting", "symptom": "it climbs to 0.9"}]
MARKDOWN = ["a\n\n---\n# b", "x\r\n---\r\nlicense: mit", "`` ` ```", "| a | b |", "![x](http://x.y/z.png)", "[a](b)",
            "{{ 7 * 7 }}{% for %}", "'\": [&*!", "a\u202eb\x00\x1b\u2028c", "\ud800", "", "~~~", "*_#>"]  # fmt: skip


def save(folder, names=("bad", "good")):
    """Write what a card reads from a model's folder; return the run's folder."""
    files.write_json(folder / "model" / "config.json", {"id2label": dict(enumerate(names))})
    return folder


def write(folder, **changes):
    """Return the card of the record with these changes."""
    (text,) = cards.cards(folder, replace(RECORD, **changes)).values()
    return ModelCard(text)


def line(card, title):
    return re.search(f"^- {title}: (.*)$", card.text, re.MULTILINE)[1]


# --- what it says ---------------------------------------------------------------------------------------------


def test_a_whole_card(tmp_path):
    """To change it on purpose: write the new card over tests/report/card.md, and read the difference."""
    folder = save(tmp_path / "mine")
    record = replace(RECORD, limits={"classification": LIMITS}, findings=FINDINGS)
    record.parameters["TRANSFER_DATA"] = "abroad.csv"
    cards.publish(folder, replace(record, metrics={**record.metrics, "transfer/accuracy": SCORE}))
    path = folder / "model" / "README.md"
    assert path.read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8")
    assert records.read(folder).findings == FINDINGS
    card = ModelCard.load(path)
    assert str(card) == path.read_text(encoding="utf-8")
    assert (card.data.base_model, card.data.pipeline_tag) == ("bert-base-uncased", "text-classification")
    assert (card.data.library_name, card.data.model_name, card.data.license) == ("transformers", "mine", None)
    found = {(r.dataset_name, r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    assert found == {("mine.csv", "test", "accuracy"): 0.9, ("mine.csv", "test", "log_loss"): 0.3}


def test_limits_say_what_looks_odd(tmp_path):
    folder = save(tmp_path / "mine")
    above = {**CALIBRATION, "ece": {"value": 0.09, "low": 0.0, "high": 0.08}}
    worst = {"name": "LOC", "metric": "f1", **SCORE}
    card = write(folder, limits={"classification": {"calibration": above, "worst": worst}}, findings=[])
    text = line(card, "Calibration")
    assert text.startswith("expected calibration error 0.090 (0.000 to 0.080) (above its interval: on few rows chance")
    assert text.endswith("fitted on 80 validation rows, which does not help here")
    assert line(card, "Worst part") == "`LOC`, `f1` 0.500 (0.400 to 0.600)"
    assert line(card, "Diagnosis") == "no finding"


def test_a_record_of_several_tasks_gives_each_model_its_own_part(tmp_path):
    folder, tasks = tmp_path / "all", ["classification", "qa", "regression"]
    for task in tasks:
        save(folder / task)
    save(folder)  # another run's: no model of this record
    metrics = ["classification/accuracy", "classification/transfer/accuracy", "qa/f1", "regression/pearson"]
    parameters = {**RECORD.parameters, "OUTPUT_DIR": "results/all", "QA_EPOCHS": 9, "QA_TRAINED": "",
                  "TRANSFER_DATA": "abroad.csv", "STS_TRAINED": "results/before/model",
                  "STS_MAX_LENGTH": 16}  # fmt: skip
    record = replace(
        RECORD,
        metrics=dict.fromkeys([*metrics, "regression/cosine/pearson"], SCORE),
        data={task: {"source": f"my {task}"} for task in tasks},
        tasks=tasks,
        parameters=parameters,
        findings={"qa": FINDINGS},
        limits={"classification": LIMITS},
    )
    texts = cards.cards(folder, record)
    assert list(texts) == [f"{task}/model/README.md" for task in TASKS if task in tasks]
    read = {task: ModelCard(texts[f"{task}/model/README.md"]) for task in tasks}
    found = {task: [r.metric_type for r in card.data.eval_results] for task, card in read.items()}
    assert found == {"classification": ["accuracy"], "regression": ["pearson"], "qa": ["f1"]}
    assert [line(card, "Data") for card in read.values()] == [f"`my {task}`" for task in tasks]
    assert [line(card, "Another domain") != "not measured" for card in read.values()] == [True, False, False]
    assert [line(card, "Worst part") != "not measured" for card in read.values()] == [True, False, False]
    assert ["leakage" in line(card, "Diagnosis") for card in read.values()] == [False, True, False]
    assert '"EPOCHS": 9' in read["qa"].text
    assert "predict results/all/qa" in read["qa"].text
    assert line(read["regression"], "Base model").startswith("`results/before/model`; not trained by this run")
    assert '"EPOCHS"' not in read["regression"].text
    assert read["regression"].data.base_model is None
    assert "max_length=16" in read["regression"].text


def test_findings_reach_the_card_and_the_record_of_one_task_of_several(tmp_path):
    folder, tasks = tmp_path / "all", ["classification", "qa"]
    for task in tasks:
        save(folder / task)
    data = {task: {"source": task} for task in tasks}
    cards.publish(folder, replace(RECORD, metrics={"qa/f1": SCORE}, data=data, tasks=tasks))
    cards.publish_findings(folder / "qa", "qa", FINDINGS)
    cards.publish_findings(folder / "classification", "classification", [])
    shown = [line(ModelCard.load(folder / task / "model/README.md"), "Diagnosis") for task in tasks]
    assert shown == ["no finding", "`leakage`, `3 rows`; `overfitting`, `it climbs to 0.9`"]
    assert records.read(folder).findings == {"qa": FINDINGS, "classification": []}


@pytest.mark.parametrize("edited", ["", "another text", "the card", None])
def test_findings_do_not_replace_a_card_that_was_edited(edited, tmp_path):
    folder = save(tmp_path / "mine")
    cards.publish(folder, RECORD)
    card = folder / "model/README.md"
    if edited is None:
        card.unlink()
    elif edited != "the card":
        card.write_text(edited)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cards.publish_findings(folder, "classification", FINDINGS)
    assert records.read(folder).findings == FINDINGS
    assert (card.read_text() == edited) == bool(caught) == (edited in ("", "another text"))
    assert ("leakage" in card.read_text()) != bool(caught)


@pytest.mark.parametrize("data", ["", "other.conll"])
def test_entity_types_named_like_parts_of_a_record_are_not_taken_for_them(data, tmp_path):
    folder, other = save(tmp_path / "mine"), {"value": 0.25, "low": 0.2, "high": 0.3}
    parts = {"f1": SCORE, **({"transfer/f1": other} if data else {})}
    types = pd.DataFrame({"value": 0.99, "low": 0.9, "high": 1.0}, ["ner/f1", "transfer/f1", "classification/f1"])
    metrics = pd.concat([pd.DataFrame(parts).T, types])
    given = {"parameters": {**RECORD.parameters, "TRANSFER_DATA": data}, "data": RECORD.data, "seconds": {}}
    cards.publish(folder, records.make(tasks=["ner"], metrics=metrics, model="m", precision="fp32", seed=0, **given))
    card = ModelCard.load(folder / "model/README.md")
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [("f1", 0.5)]
    assert line(card, "Another domain") == ("`other.conll`: f1 0.250 (0.200 to 0.300)" if data else "not measured")
    assert records.read(folder).headline() == {"f1": SCORE}
    assert sum(score["value"] == 0.99 for score in records.read(folder).metrics.values()) == 3


def test_a_record_of_other_models_writes_no_card(tmp_path):
    assert cards.cards(save(tmp_path), replace(RECORD, metrics={"before/accuracy": SCORE})) == {}
    assert cards.cards(tmp_path / "no model", RECORD) == {}


def test_a_card_that_was_changed_by_hand_stays(tmp_path):
    folder = save(tmp_path / "mine")
    cards.publish(folder, RECORD)
    card = folder / "model/README.md"
    os.utime(folder / "metrics.json", (1, 1))
    cards.publish_findings(folder, "classification", FINDINGS)
    assert "leakage" in card.read_text()
    assert (folder / "metrics.json").stat().st_mtime == 1  # the gallery shows it as the date of the run
    card.write_text("my own words")
    with pytest.warns(UserWarning, match="mine/model/README.md was changed by hand"):
        cards.publish_findings(folder, "classification", [])
    assert card.read_text() == "my own words"
    assert records.read(folder).findings == []


@pytest.mark.parametrize("task", TASKS)
def test_what_a_record_lacks_is_said_to_be_unknown(task, tmp_path):
    (text,) = cards.cards(save(tmp_path), Record(metrics={}, parameters={}, data={}, tasks=[task])).values()
    card = ModelCard(text)
    assert card.data.eval_results is None
    assert "Not measured." in card.text
    for title in ("Base model", "Data", "Fingerprint of the data", "Seed", "Versions"):
        assert line(card, title) == "not recorded"
    for title in ("Calibration", "Worst part", "Another domain"):
        assert line(card, title) == "not measured"
    assert "predict FOLDER" in card.text
    assert "None" not in card.text.replace("top_k=None", "")


@pytest.mark.parametrize("task", TASKS)
def test_the_lines_of_a_card_run_as_they_stand(task, tiny_bert, tmp_path, monkeypatch, capsys):
    classes = {"id2label": {0: "O", 1: "B-PER"}, "label2id": {"O": 0, "B-PER": 1}} if TASKS[task].has_classes else {}
    fields = {"num_labels": 1} if TASKS[task].numeric else classes
    several = {"problem_type": "multi_label_classification", "thresholds": [0.5, 0.5]}
    fields |= several if task == "multilabel" else {}
    model = models.load_model(str(tiny_bert), TASKS[task].model_class, seed=0, **fields)
    folder = tmp_path / "results" / "mine"
    models.save_model(model, models.load_tokenizer(str(tiny_bert)), folder / "model")
    cards.publish(folder, replace(RECORD, metrics={"f1": SCORE}, tasks=[task]))
    monkeypatch.chdir(tmp_path)
    text = (folder / "model" / "README.md").read_text(encoding="utf-8")
    code, command = re.search("```python\n(.*?)```.*?```\npython -m bert_helpers (.*?)\n```", text, re.DOTALL).groups()
    exec(code, {})
    assert cli.main([word.strip('"') for word in re.findall('"[^"]*"|[^ ]+', command)]) == 0
    out = capsys.readouterr().out
    assert out.strip(), out


@pytest.mark.parametrize("changes", [
    {"metrics": {"f1": {}, "accuracy": {"value": 0.5}}},
    {"findings": {"qa": FINDINGS}},
    {"limits": {"classification": {"worst": {"name": "x", "metric": "f1"}}}},
    {"data": {"source": "x"}, "tasks": ["classification", "qa"], "findings": {}},
])  # fmt: skip
def test_a_record_whose_fields_are_missing_or_of_another_kind_still_has_its_card(changes, tmp_path):
    folder = tmp_path / "results/mine"
    files.write_json(folder / "model/config.json", {})
    files.write_json(folder / "metrics.json", {"metrics": {}, "parameters": {}, "data": {}, "tasks": ["classification"],
                                               **changes})  # fmt: skip
    (text,) = cards.cards(folder, records.read(folder)).values()
    assert "# `mine`" in text
    assert "unreadable" not in write_gallery(tmp_path / "results").read_text(encoding="utf-8")


# --- somebody else's text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [*PLANTS.values(), *MARKDOWN])
def test_what_is_planted_is_text(plant, tmp_path):
    parameters = ("MODEL", "DATA", "TEXT_COLUMN", "LABEL_COLUMN", "OUTPUT_DIR", "SEED", "MAX_LENGTH", "TRANSFER_DATA")
    card = write(
        save(tmp_path / "mine", [plant, "other"]),
        metrics={"accuracy": SCORE, "transfer/accuracy": SCORE, plant: SCORE},
        parameters=dict.fromkeys([*parameters, plant], plant),
        data={"source": plant, "fingerprint": plant, "rows": {plant: 3}},
        model=plant,
        device=plant,
        precision=plant,
        versions={plant: plant},
        limits={"classification": {"worst": {**LIMITS["worst"], "name": plant, "metric": plant}}},
        findings=[{"finding": plant, "symptom": plant}],
    )
    shown = one_line(plant)
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
    for title in ("Data", "Device and precision", "Classes", "Worst part", "Diagnosis"):
        text = re.search(f"<li>{title}: (.*?)</li>", page)[1]
        empty = "(empty)" if title in ("Classes", "Worst part") else "not recorded"
        assert mistune.escape(shown or empty) in text


def test_a_card_that_cannot_be_written_leaves_no_half_and_the_run_without_a_record(tmp_path, monkeypatch):
    folder = save(tmp_path / "mine")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(ParameterError, match=r"README.md: cannot be written \(No space left on device\)"):
        cards.publish(folder, RECORD)
    assert [path.name for path in (folder / "model").iterdir()] == ["config.json"]
    assert not (folder / "metrics.json").exists()
