"""The command line end to end: every subcommand for every task, on a tiny BERT."""

import csv
import datetime
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from transformers import BertConfig, BertModel, pipeline

from bert_helpers import ParameterError, files, models, parameters, prediction, runs, training
from bert_helpers.cli import commands
from bert_helpers.cli import main as cli
from bert_helpers.diagnosis import diagnose
from bert_helpers.diagnosis.findings import Evidence, Finding
from bert_helpers.errors import Interrupted, TrainingError
from bert_helpers.tasks import qa, qa_pipeline
from bert_helpers.tasks.registry import TASKS

SETTINGS = {"train-size": 48, "validation-size": 16, "test-size": 16, "epochs": 2, "max-length": 48,
            "precision": "fp32", "learning-rate": 1e-3}  # fmt: skip
OWN = {"classification": {"data": "tickets.csv", "text-column": "message", "label-column": "team"},
       "ner": {"stride": 8, "learning-rate": 1e-7}, "qa": {"stride": 16}}  # fmt: skip
NOTEBOOKS = {"classification": ("01_fine_tune", ""), "regression": ("03_evaluate", "STS_"), "ner": ("04_ner", ""),
             "qa": ("03_evaluate", "QA_"), "multilabel": ("01_fine_tune", "")}  # fmt: skip
TEXTS = [
    "Bill.",
    "The parcel from Brask, sent on Monday, has not come; where is it now, and who pays for the second one?",
    'She said "no", twice.',
    "Crème brûlée & co — naïve?",
    "The app, again.",
]
PAIRS = [("A man is eating.", "Someone eats."), ("One.", "A dog runs over a field of wet grass, barking."), ("x", "y")]


def line(*words, **options):
    return [*map(str, words), *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


def write_tickets(path):
    words = {"bills": "the invoice is wrong", "parcels": "where is my parcel", "app": "the app does not start"}
    rows = [
        {"message": f"{words[team]}, number {7 * i}" + " again" * (i % 9), "team": team}
        for i, team in enumerate(sorted(words) * 32)
    ]
    pd.DataFrame(rows).to_csv(path, index=False, sep=";")


@pytest.fixture(scope="module")
def bert(tiny_bert, tmp_path_factory):
    """The tiny BERT with weights so large that its predictions differ between texts."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    BertModel(BertConfig.from_pretrained(tiny_bert, initializer_range=0.3)).save_pretrained(folder)
    models.load_tokenizer(str(tiny_bert)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(bert, tmp_path_factory):
    """A folder in which `train` has left a run of each task in results/."""
    folder = tmp_path_factory.mktemp("home")
    write_tickets(folder / "tickets.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for task in TASKS:
            settings = {"model": bert, **SETTINGS, **OWN.get(task, {})}
            assert cli.main(line("train", task, **settings)) == 0
    shutil.copytree(folder / "results", folder / "as-left")  # commands change records
    return folder


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def printed(capsys, *words, **options):
    """Run a command that must succeed; return its standard output."""
    capsys.readouterr()
    assert cli.main(line(*words, **options)) == 0
    return capsys.readouterr().out


def predicted(capsys, *words, **options):
    """Return the rows that `predict` prints as JSON Lines, in fp32."""
    out = printed(capsys, "predict", *words, "--format", "jsonl", "--precision", "fp32", **options)
    return [json.loads(row) for row in out.splitlines()]


# --- train, evaluate, diagnose, compare --------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_training_leaves_what_the_notebooks_leave_and_evaluate_finds_the_same_numbers(task, at_home, capsys):
    folder = at_home / "results" / task
    file = "predictions.csv" if TASKS[task].cuts_texts else "predictions.json"
    names = {path.name for path in folder.iterdir()}
    assert names == {"checkpoints", "history.json", "metrics.json", "model", file}
    record = json.loads((folder / "metrics.json").read_text())
    assert record["parameters"].keys() >= parameters.of_training(task).keys()
    assert record["parameters"]["MAX_LENGTH"] == 48
    assert record["seconds"]["train"] > 0
    assert f'href="{task}/metrics.json"' in (at_home / "results/index.html").read_text()
    shown = json.loads(printed(capsys, "evaluate", f"results/{task}", "--json"))
    assert (shown["task"], shown["rows"], shown["metrics"].keys()) == (task, 16, record["metrics"].keys())
    for name, value in record["metrics"].items():
        assert shown["metrics"][name]["value"] == pytest.approx(value["value"], abs=1e-4), name
        assert shown["metrics"][name]["low"] == pytest.approx(value["low"], abs=1e-3), name


def test_a_rank_without_other_processes_is_the_first(tiny_bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    settings = {**SETTINGS, "epochs": 1, "output-dir": "results/x"}
    assert "accuracy" in printed(capsys, "train", "classification", model=tiny_bert, **settings)
    assert {"metrics.json", "model"} <= set(os.listdir("results/x"))


def test_warnings_are_shown_whatever_is_imported():
    code = """
import warnings
import bert_helpers.cli.commands
assert ("ignore", None, Warning, None, 0) not in warnings.filters"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_status_says_which_signal_ended_the_training(number, status, at_home, bert, monkeypatch):
    def interrupted(run, **options):
        raise Interrupted("saved", number)

    monkeypatch.setattr(commands.runs, "finish", interrupted)
    assert cli.main(line("train", "classification", model=bert, **{**SETTINGS, "output-dir": "results/s"})) == status


def test_the_predictions_file_holds_what_the_metrics_are_of(at_home):
    rows = pd.read_csv("results/classification/predictions.csv")
    record = json.loads((at_home / "results/classification/metrics.json").read_text())["metrics"]
    test = rows[rows.split == "test"]
    assert record["accuracy"]["value"] == pytest.approx((test.label == test.predicted).mean())
    pairs = pd.read_csv("results/regression/predictions.csv")
    record = json.loads((at_home / "results/regression/metrics.json").read_text())["metrics"]
    assert record["mse"]["value"] == pytest.approx(((pairs.label - pairs.predicted) ** 2).mean())
    assert 1 < pairs.predicted.mean() < 4  # in the units of the data
    tagged = json.loads((at_home / "results/ner/predictions.json").read_text())
    assert [len(row["tokens"]) for row in tagged] == [len(row["predicted"]) for row in tagged]
    answers = json.loads((at_home / "results/qa/predictions.json").read_text())
    assert len(answers) == 16


def test_the_record_is_written_last_and_says_what_was_run(at_home, tmp_path, monkeypatch):
    run = runs.read(at_home / "results/classification")
    changed = {**run.parameters, "PRECISION": "auto", "SEED": 3}
    resumed = replace(run, parameters=changed, log_history=[*run.log_history, {"train_runtime": 0.2345}])
    there, written = [], []

    def publish(folder, record):
        there.extend(path.name for path in folder.iterdir())
        written.append(record)

    table = runs.save(resumed, tmp_path, publish=publish)
    (record,) = written
    assert sorted(there) == ["history.json", "model", "predictions.csv"]
    assert {name: score["value"] for name, score in record.metrics.items()} == table.value.to_dict()
    assert (record.seed, record.precision) == (3, training.resolve_precision())
    assert (record.data["source"], record.data["rows"]["test"]) == ("tickets.csv", 16)
    assert record.seconds == {"train": 0.2, "evaluate": round(resumed.test.metrics["test_runtime"], 1)}


def test_questions_of_one_context_are_drawn_together(at_home, monkeypatch):
    run = runs.read(at_home / "results/qa")
    references = [row["text"] for row in run.dataset["test"]["answers"]]
    contexts = sorted(set(run.dataset["test"]["context"]))
    asked = zip(run.dataset["test"]["context"], references, strict=True)
    answers = [texts[0] if contexts.index(context) % 2 else "" for context, texts in asked]  # all of a context or none
    monkeypatch.setattr(runs.Run, "predictions_and_references", lambda run: (answers, references))
    alone, together = (
        qa.AnswerMeasure(answers, references, groups=groups).intervals()
        for groups in (None, run.dataset["test"]["context"])
    )
    assert not together.equals(alone)
    pd.testing.assert_frame_equal(runs.scores(run), together, atol=1e-6)


def test_metrics_are_printed_as_a_table_with_intervals(at_home, capsys):
    table = printed(capsys, "evaluate", "results/regression")
    assert [row.split()[0] for row in table.splitlines()] == ["pearson", "mse", "spearman"]
    record = json.loads((at_home / "results/regression/metrics.json").read_text())["metrics"]["mse"]
    assert f"mse       {record['value']:.3f} ({record['low']:.3f} to {record['high']:.3f})" in table


def test_findings_come_before_training_on_standard_error_and_it_goes_on(tiny_bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "text": f"on day {i % 40} of this week the weather was {'good' if i % 5 else 'bad'}",
            "label": "ab"[i % 5 == 0],
        }
        for i in range(120)
    ]
    pd.DataFrame(rows).to_csv("mine.csv", index=False)
    settings = {**SETTINGS, "train-size": 0, "epochs": 1, "seed": 3, "learning-rate": 1e-7}
    settings["output-dir"] = "results/a/b"
    assert cli.main(line("train", "classification", model=tiny_bert, data="mine.csv", **settings)) == 0
    out, err = capsys.readouterr()
    shown = err.splitlines()
    assert shown[0].startswith("88 train, 16 validation, 16 test rows")
    (trained,) = (i for i, row in enumerate(shown) if row.startswith("epoch 1 of 1: train loss "))
    assert any(row.startswith(("leakage: ", "duplicates: ")) and "; fix: " in row for row in shown[:trained])
    assert not [row for row in shown[trained:] if row in shown[:trained]]
    (low,) = (row for row in shown[trained:] if row.startswith("learning_rate_too_low: "))
    assert re.search(r"; fix: --learning-rate \S+$", low)
    assert shown[-1] == f"gallery: {Path('results/index.html')}"
    assert out.startswith("accuracy ")
    assert "results/a/b: history.json metrics.json model predictions.csv" in out


def test_a_fix_is_written_as_options_with_the_numbers_to_give():
    run = SimpleNamespace(task="ner", parameters={"LEARNING_RATE": 2e-4, "EPOCHS": 3})

    def text(advice="", **fix):
        return commands._fix(Finding("slow", "seen", Evidence(2, 1, "by hand"), "because", fix, advice), run)

    fix = {"LEARNING_RATE_FACTOR": 0.5, "EPOCHS_FACTOR": 2, "remove_rows": [1, 2, 3, 4], "oversample": True}
    options = "--learning-rate 0.0001 --epochs 6, remove_rows (4), oversample"
    assert text(**fix) == f"{options} (notebook 2 tries that: -p RUN and its folder)"
    run.parameters["OUTPUT_DIR"] = "results/mine"
    assert text(**fix) == f"{options} (notebook 2 tries that: -p RUN results/mine)"
    assert text(LEARNING_RATE=0.0002, EPOCHS=9) == "--epochs 9"  # without what is already set
    assert text("or sleep", LABEL_SMOOTHING=0.1) == "--label-smoothing 0.1; or sleep"
    assert text("sleep") == "sleep"
    assert text() == ""


def test_a_run_is_diagnosed(at_home, capsys):
    found = diagnose.diagnose(runs.read(at_home / "results/ner"))
    shown = json.loads(printed(capsys, "diagnose", "results/ner", "--json"))
    assert "learning_rate_too_low" in [finding.name for finding in found]
    assert [row["finding"] for row in shown] == [finding.name for finding in found]
    assert shown[0]["evidence"]["threshold"] == found[0].evidence.threshold
    text = printed(capsys, "diagnose", "results/ner")
    assert text.startswith(f"{found[0].name}\n  symptom   {found[0].symptom}\n  evidence  ")
    assert [row.split()[0] for row in text.splitlines()[1:5]] == ["symptom", "evidence", "cause", "fix"]


@pytest.mark.parametrize("task", TASKS)
def test_the_record_and_the_card_of_a_training_hold_what_diagnose_says(task, at_home, tmp_path, capsys):
    again = tmp_path / "again"
    shutil.copytree(f"as-left/{task}", again)
    record, card = json.loads((again / "metrics.json").read_text()), (again / "model/README.md").read_text()
    del record["findings"]  # as notebooks 1, 3 and 4 leave it
    path = files.write_json(again / "metrics.json", record)
    os.utime(path, (10**9, 10**9))
    shown = json.loads(printed(capsys, "diagnose", again, "--json"))
    diagnosed = json.loads(path.read_text())["findings"]
    assert diagnosed == [{key: row[key] for key in ("finding", "symptom", "evidence")} for row in shown]
    assert path.stat().st_mtime == 10**9
    trained = json.loads((at_home / "as-left" / task / "metrics.json").read_text())["findings"]
    assert [row["finding"] for row in trained] == [row["finding"] for row in shown]
    for row, other in zip(trained, diagnosed, strict=True):
        rounding = 1e-6 if row["finding"].startswith("learning_rate") else 1e-3  # both know the weights before training
        assert row["evidence"]["value"] == pytest.approx(other["evidence"]["value"], rel=rounding)
        assert f"`{row['finding']}`, `" in card


def test_findings_that_cannot_be_recorded_are_said(at_home, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = (at_home / "results/ner/metrics.json").read_bytes()
    monkeypatch.setattr(files.os, "replace", full)
    assert cli.main(["diagnose", "results/ner"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("learning_rate_too_low\n")
    assert re.match(r"not recorded: .*cannot be written \(No space left on device\)", err.splitlines()[-1])
    assert (at_home / "results/ner/metrics.json").read_bytes() == before


def test_no_finding_is_said_and_status_0(at_home, capsys, monkeypatch):
    monkeypatch.setattr(commands.checks, "diagnose", lambda run: [])
    assert printed(capsys, "diagnose", "results/classification") == "no finding\n"
    assert json.loads(printed(capsys, "diagnose", "results/classification", "--json")) == []


def test_two_runs_are_compared_by_their_names(at_home, capsys):
    shutil.copytree("results/qa", "results/again", dirs_exist_ok=True)
    words = ("compare", "results/qa", "results/again")
    shown = json.loads(printed(capsys, *words, "--json"))
    assert "for results/qa and " in shown["sentence"]
    assert "may well be chance" in shown["sentence"]
    assert shown["metrics"]["f1"]["difference"] == 0
    assert shown["metrics"]["f1"]["results/qa"] == shown["metrics"]["f1"]["results/again"]
    text = printed(capsys, *words)
    assert text.startswith(shown["sentence"])
    assert "difference" in text


def test_a_run_is_trained_again_with_a_fix_as_in_notebook_2(at_home, bert):
    run = runs.read(at_home / "results/classification", model=str(bert))
    again = diagnose.retrain(run, {"EPOCHS": 1})
    assert again.log_history[-1]["epoch"] == 1
    assert "accuracy is" in runs.compare(run, again).sentence


def test_a_failure_names_other_options_if_it_is_known_and_is_not_hidden(at_home, bert, monkeypatch, capsys):
    errors = [torch.OutOfMemoryError("CUDA out of memory"), TrainingError("loss is nan at step 3", fix="lower it"),
              TrainingError("process 5 is training here", fix="wait"), RuntimeError("something else")]  # fmt: skip

    def fail(run, **options):
        raise errors.pop(0)

    monkeypatch.setattr(commands.runs, "finish", fail)
    monkeypatch.setattr(commands.checks, "diagnose", lambda run, rows: [])
    words = line("train", "regression", model=bert, **{**SETTINGS, "output-dir": "results/failed"})
    assert cli.main(words) == 2
    assert "out of memory; fix: --batch-size 8 --gradient-accumulation 2." in capsys.readouterr().err
    assert cli.main(words) == 2
    assert "loss is nan at step 3; fix: --learning-rate " in capsys.readouterr().err
    assert cli.main(words) == 2
    assert "process 5 is training here; wait." in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="something else"):
        cli.main(words)


def test_a_run_is_read_from_elsewhere_where_nothing_is_written(at_home, tmp_path, monkeypatch, capsys):
    shutil.copytree("results/classification", tmp_path / "copied")
    write_tickets(tmp_path / "moved.csv")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main(["evaluate", str(tmp_path / "copied")]) == 2
    assert "no file 'tickets.csv' here" in (error := capsys.readouterr().err)
    assert "ay where its data lies by" in error
    assert printed(capsys, "evaluate", tmp_path / "copied", data="../moved.csv").startswith("accuracy")
    assert printed(capsys, "diagnose", tmp_path / "copied", data="../moved.csv")
    shutil.copytree(tmp_path / "copied", tmp_path / "again")
    shown = printed(capsys, "compare", tmp_path / "copied", tmp_path / "again", data="../moved.csv")
    assert "may well be chance" in shown
    monkeypatch.chdir(tmp_path / "copied")
    assert printed(capsys, "evaluate", ".", data="../moved.csv").startswith("accuracy")
    assert not list((tmp_path / "here").iterdir())
    assert not (tmp_path / "copied/results").exists()


# --- predict -----------------------------------------------------------------------------------------------


def stock(folder, kind, **options):
    return pipeline(
        kind,
        model=TASKS[folder.name].model_class.from_pretrained(folder / "model"),
        tokenizer=models.load_tokenizer(str(folder / "model")),
        device="cpu",
        **options,
    )


def test_classes_are_those_of_the_stock_pipeline(at_home, capsys):
    rows = predicted(capsys, "results/classification", *TEXTS)
    classify = stock(at_home / "results/classification", "text-classification", top_k=None)
    expected = [{score["label"]: score["score"] for score in scores} for scores in classify(TEXTS)]
    assert [row["text"] for row in rows] == TEXTS
    for row, scores in zip(rows, expected, strict=True):
        assert {name: row[f"probability_{name}"] for name in scores} == pytest.approx(scores, abs=2e-6)
        assert row["label"] == max(scores, key=scores.get)
        assert row["probability"] == pytest.approx(scores[row["label"]], abs=2e-6)
    assert np.ptp([row["probability_app"] for row in rows]) > 0.1  # rows that change places would be seen


def test_scores_are_those_of_the_stock_pipeline_in_the_units_of_the_data(at_home, capsys):
    rows = predicted(capsys, "results/regression", *(text for pair in PAIRS for text in pair))
    score = stock(at_home / "results/regression", "text-classification", function_to_apply="none")
    expected = [score({"text": one, "text_pair": other})["score"] for one, other in PAIRS]
    assert [(row["text"], row["text_pair"]) for row in rows] == PAIRS
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert np.ptp(expected) > 0.1


def test_tags_are_those_of_the_stock_pipeline_a_word_each_where_those_are_legal(at_home, capsys):
    rows = predicted(capsys, "results/ner", *TEXTS)
    tag = stock(at_home / "results/ner", "token-classification", ignore_labels=[])
    for row, text, found in zip(rows, TEXTS, tag(TEXTS), strict=True):
        first = [token["entity"] for token in found if not token["word"].startswith("##")]
        legal = all(tag[0] != "I" or before[1:] == tag[1:] for before, tag in pairwise(["O", *first]))
        assert (row["tags"] == first) == legal
        assert "".join(row["tokens"]) == text.replace(" ", "")
        assert row["text"] == text
        assert [text[found["start"] : found["end"]] for found in row["entities"]] == [
            found["text"] for found in row["entities"]
        ]
        assert [found["type"] for found in row["entities"]] == [tag[2:] for tag in row["tags"] if tag[0] == "B"]
    assert len({tag for row in rows for tag in row["tags"]}) > 1
    assert rows[2]["tokens"] == ["She", "said", '"', "no", '"', ",", "twice", "."]


def test_answers_are_those_of_the_pipeline_of_this_project(at_home, capsys):
    questions = ["Which pier?", "Where does the ferry go?"]
    contexts = ["Pier 4.", "The ferry to Brask leaves at noon. " * 12 + "It carries 20 people."]
    rows = predicted(capsys, "results/qa", questions[0], contexts[0], questions[1], contexts[1])
    model = TASKS["qa"].model_class.from_pretrained(at_home / "results/qa/model")
    tokenizer = models.load_tokenizer(str(at_home / "results/qa/model"))
    ask = qa_pipeline.ExtractiveQAPipeline(model=model, tokenizer=tokenizer, device="cpu", max_length=48, stride=16)
    expected = ask(question=questions, context=contexts)
    for row, answer, context in zip(rows, expected, contexts, strict=True):
        assert (row["answer"], row["start"], row["end"]) == (answer["answer"], answer["start"], answer["end"])
        assert row["score"] == pytest.approx(answer["score"], rel=1e-3)
        assert row["answer"] == context[row["start"] : row["end"]]


def as_standard_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def sources(task, folder):
    """Write one task's rows in every form; yield the arguments and standard input of each."""
    columns = {"classification": ["message"], "regression": ["text", "text_pair"], "qa": ["question", "context"]}[task]
    rows = [[text] for text in TEXTS] if task == "classification" else [list(pair) for pair in PAIRS]
    table = pd.DataFrame(rows, columns=columns).assign(note=1)
    lines = "".join(json.dumps(row) + "\n" for row in table.to_dict(orient="records"))
    plain = "".join("\t".join(row) + "\n" for row in rows)
    table.to_csv(folder / "new.csv", index=False, sep=";", quoting=csv.QUOTE_ALL)
    table.to_csv(folder / "new.tsv", index=False, sep="\t")
    table.to_parquet(folder / "new.parquet")
    (folder / "new.jsonl").write_text(lines)
    (folder / "new.txt").write_bytes(plain.replace("\n", "\r\n").encode())
    yield [text for row in rows for text in row], b""
    for name in ("new.csv", "new.tsv", "new.parquet", "new.jsonl", "new.txt"):
        yield ["--file", folder / name], b""
    yield [], plain.encode()
    yield ["--file", "-"], lines.encode()


@pytest.mark.parametrize("task", ["classification", "regression", "qa"])
def test_rows_from_any_source_are_the_same_rows(task, at_home, tmp_path, monkeypatch, capsys):
    shown = []
    for words, content in sources(task, tmp_path):
        as_standard_input(monkeypatch, content)
        shown.append(predicted(capsys, f"results/{task}", *words))
    assert len(shown[0]) == len(TEXTS if task == "classification" else PAIRS)
    assert [rows == shown[0] for rows in shown] == [True] * 8


def test_rows_without_a_text_stay_in_place_and_other_columns_are_kept(at_home, capsys):
    content = "n;Body;label\n1;caf\xe9 closed;x\n2;;y\n3; ;z\n4;late again;\n"
    (at_home / "new.csv").write_bytes(content.encode("cp1252"))
    columns = ["--text-column", "Body", "--keep-columns"]
    assert cli.main(["predict", "results/classification", "--file", "new.csv", *columns]) == 0
    out, err = capsys.readouterr()
    table = pd.read_csv(io.StringIO(out), keep_default_na=False)
    assert table["n"].tolist() == [1, 2, 3, 4]
    assert table["text"].tolist() == ["caf\xe9 closed", "", " ", "late again"]
    assert table["label_given"].tolist() == ["x", "y", "z", ""]
    assert [bool(label) for label in table["label"]] == [True, False, False, True]
    assert "rows without a text, left blank: 2\n" in err
    (at_home / "new.csv").write_text("1\tlate again\n1\tlost\n2\tlate\n")
    columns = ["--text-column", "2", "--delimiter", "tab", "--header", "no"]
    assert cli.main(["predict", "results/classification", "--file", "new.csv", *columns]) == 0
    assert pd.read_csv(io.StringIO(capsys.readouterr().out))["text"].tolist() == ["late again", "lost", "late"]


def test_a_kept_column_is_as_in_the_file_whatever_it_holds_and_is_called(at_home, tmp_path, capsys):
    day, long = datetime.date(2026, 5, 1), list(range(1500))
    rows = [
        {"message": "late", "text": "own", "label": "x", "n": 1234567890123456789, "day": day, "long": long},
        {"message": None, "text": "", "label": None, "n": None, "day": None, "long": None, "raw": b"b\xff"},
    ]
    more = {"label_given": pa.array(["y", "z"]), "sum": pa.array([Decimal("1.50"), None])}
    table = pa.Table.from_pylist(rows, pa.schema([*pa.Table.from_pylist(rows[:1]).schema, ("raw", pa.binary())]))
    pq.write_table(table.from_arrays([*table, *more.values()], [*table.column_names, *more]), tmp_path / "a.parquet")
    words = ["predict", "results/classification", "--keep-columns"]
    printed(capsys, *words, "--out", tmp_path / "a.jsonl", file=tmp_path / "a.parquet")
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert (first["text"], first["text_given"], first["label_given"]) == ("late", "own", "y")
    assert (first["n"], first["day"], first["long"], first["sum"]) == (rows[0]["n"], "2026-05-01", long, "1.50")
    assert (first["label_given_given"], first["label"]) == ("x", first["label"])
    assert (second["n"], second["raw"], second["label"]) == (None, "b\\xff", None)
    printed(capsys, *words, "--out", tmp_path / "a.csv", file=tmp_path / "a.parquet")
    (cells, _) = csv.DictReader((tmp_path / "a.csv").open())
    assert (cells["n"], json.loads(cells["long"]), cells["day"]) == (str(rows[0]["n"]), long, "2026-05-01")
    again = [*words, "--text-column", "text", "--format", "jsonl"]  # its own output
    (first, _) = map(json.loads, printed(capsys, *again, file=tmp_path / "a.csv").splitlines())
    assert (first["label"], first["n"], first["text_given"]) == (cells["label"], cells["n"], "own")
    assert json.loads(first["long"]) == long
    (tmp_path / "a.csv").write_text("question,context\nWhere?,Here.\n,There.\n")
    assert [type(row["start"]) for row in predicted(capsys, "results/qa", file=tmp_path / "a.csv")] == [int, type(None)]
    (tmp_path / "a.jsonl").write_text('{"text": "in Brask", "row": 5, "entities": ["mine"], "tags": "t"}\n')
    kept = printed(capsys, "predict", "results/ner", "--keep-columns", format="csv", file=tmp_path / "a.jsonl")
    lines = [*csv.DictReader(io.StringIO(kept))]
    assert kept.startswith("row,row_given,entities_given,tags_given,text,tokens,tags\n")
    assert [[row[k] for k in ("row", "row_given", "entities_given", "tokens")] for row in lines] == [
        ["0", "5", '["mine"]', "in"],
        ["0", "5", '["mine"]', "Brask"],
    ]


def test_words_in_lists_are_tagged_as_they_are(at_home, tmp_path, monkeypatch, capsys):
    words = [["Bo's", "in", "Brask."], ["U.S.", ""]]
    lines = "".join(json.dumps({"tokens": row}) + "\n" for row in words)
    (tmp_path / "new.jsonl").write_text(lines)
    from_file = predicted(capsys, "results/ner", file=tmp_path / "new.jsonl")
    as_standard_input(monkeypatch, lines.encode())
    assert predicted(capsys, "results/ner") == from_file
    assert [row["tokens"] for row in from_file] == words
    assert [len(row["tags"]) for row in from_file] == [3, 2]
    table = printed(capsys, "predict", "results/ner", format="csv", file=tmp_path / "new.jsonl").splitlines()
    assert table[0] == "row,tokens,tags"
    assert [row.split(",")[0] for row in table[1:]] == ["0", "0", "0", "1", "1"]


def test_columns_are_those_of_the_run_unless_others_are_named(at_home, tmp_path, monkeypatch, capsys):
    (tmp_path / "new.csv").write_text("body,message\none,two\n")
    assert predicted(capsys, "results/classification", file=tmp_path / "new.csv")[0]["text"] == "two"
    options = {"file": tmp_path / "new.csv", "text-column": "body"}
    assert predicted(capsys, "results/classification", **options)[0]["text"] == "one"
    shutil.move(tmp_path / "new.csv", tmp_path / "new.txt")  # a table all the same
    options["file"] = tmp_path / "new.txt"
    assert [row["text"] for row in predicted(capsys, "results/classification", **options)] == ["one"]
    for content, named in (
        (b"1|a\n2|b\n", ["--text-column", "2", "--header", "no"]),
        (b"message,n\na,1\nb,2\n", ["--delimiter", ","]),
    ):
        as_standard_input(monkeypatch, content)
        assert [row["text"] for row in predicted(capsys, "results/classification", *named)] == ["a", "b"]
    (tmp_path / "new.jsonl").write_text('{"sentence": "in Brask", "tokens": ["x"]}\n')
    options = {"file": tmp_path / "new.jsonl", "text-column": "sentence"}
    assert predicted(capsys, "results/ner", **options)[0]["tokens"] == ["in", "Brask"]


def test_a_model_folder_predicts_as_its_run_does_and_one_without_a_record_too(at_home, tmp_path, capsys):
    long = "word " * 60
    run = predicted(capsys, "results/classification", long)
    assert predicted(capsys, "results/classification/model", long) == run
    shutil.copytree("results/classification/model", tmp_path / "bare")
    assert predicted(capsys, tmp_path / "bare", "short") == predicted(capsys, "results/classification", "short")
    assert predicted(capsys, tmp_path / "bare", long) != run  # 64 positions, of which the run used 48
    assert prediction.load(tmp_path / "bare").parameters == {"MAX_LENGTH": 64, "STRIDE": 16}


def test_labels_that_mean_nothing_change_nothing(at_home, capsys, monkeypatch):
    before = predicted(capsys, "results/classification", *TEXTS)
    task = TASKS["classification"]
    monkeypatch.setattr(type(task), "placeholders", lambda self, rows, config: {"label": [2] * len(rows)})
    assert predicted(capsys, "results/classification", *TEXTS) == before


def test_batch_size_and_precision_are_those_asked_for(at_home, capsys, monkeypatch):
    seen, real = [], prediction.TrainingArguments
    monkeypatch.setattr(prediction, "TrainingArguments", lambda *a, **given: seen.append(given) or real(*a, **given))
    for size, precision in ((3, "fp32"), (4, "bf16")):
        printed(capsys, "predict", "results/classification", "x", **{"batch-size": size, "precision": precision})
    assert [given["per_device_eval_batch_size"] for given in seen] == [6, 8]
    assert [given["bf16"] for given in seen] == [False, True]


def test_a_byte_order_mark_and_what_separates_json_rows_are_no_text(at_home, monkeypatch, capsys):
    rows = '{"message": "one"}', '{"message": "two"}'
    for content in ("one\ntwo\n", "{}\n\n{}\n".format(*rows), "[\n {}, {}]\n".format(*rows)):
        as_standard_input(monkeypatch, b"\xef\xbb\xbf" + content.encode())
        assert [row["text"] for row in predicted(capsys, "results/classification")] == ["one", "two"]


def test_options_may_stand_between_texts_and_texts_may_look_like_options(at_home, capsys):
    shown = printed(capsys, "predict", "results/classification", "--format", "csv", "one", "--", "-x", "--format")
    assert [row.split(",")[0] for row in shown.splitlines()] == ["text", "one", "-x", "--format"]


def test_a_file_is_written_whole_or_not_at_all(at_home, tmp_path, monkeypatch, capsys):
    words, out = ["predict", "results/classification", *TEXTS], tmp_path / "out" / "labelled.csv"
    expected = printed(capsys, *words)
    assert printed(capsys, *words, out=out) == ""
    assert out.read_text() == expected
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert cli.main(line(*words[:2], "other", out=out)) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_text() == expected
    assert os.listdir(out.parent) == ["labelled.csv"]


def test_the_name_of_the_file_tells_the_format(at_home, tmp_path, capsys):
    words = ["predict", "results/classification", *TEXTS]
    for form in ("jsonl", "csv"):
        printed(capsys, *words, out=tmp_path / f"a.{form.upper()}")
        printed(capsys, *words, out=tmp_path / "a.txt", format=form)
        shown = printed(capsys, *words, format=form)
        assert (tmp_path / f"a.{form.upper()}").read_text() == (tmp_path / "a.txt").read_text() == shown


def test_info_counts_what_is_packaged(capsys):
    shown = json.loads(printed(capsys, "info", "--json"))
    assert shown["precision"] == training.resolve_precision()
    assert shown["samples"]["classification"] == {"train": 480, "validation": 80, "test": 240}
    assert list(shown["model"]) == [models.DEFAULT_MODEL]


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_options_and_defaults_are_the_parameters_of_the_notebook(task):
    """Except for the recipe: a notebook's suits the sample's texts, the command line's suits texts of any kind."""
    recipe = {"EPOCHS", "BATCH_SIZE", "MAX_LENGTH", "TRUNCATION", "LABEL_SMOOTHING"}
    recipe |= {"LABEL_COLUMN"} if task == "multilabel" else set()  # its notebook has one label per text
    notebook, prefix = NOTEBOOKS[task]
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    namespace = {}
    exec(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), namespace)
    if prefix:  # the options are in one text
        given = parameters.training_options(task, namespace[f"{prefix}OPTIONS"])
        namespace |= {prefix + name: value for name, value in given.items()}
    ours = parameters.of_training(task)
    for name, value in ours.items():
        if name != "OUTPUT_DIR":  # a training must not replace the notebook's results
            theirs = namespace.get(prefix + name, namespace.get(name, parameters.PARAMETERS[name].default))
            assert type(value) is type(theirs), name
            assert value == theirs or name in recipe, name
    spec = TASKS[task]
    taken = {name.upper() for f in (spec.load, spec.encode) for name in inspect.signature(f).parameters}
    taken -= {"SOURCE", "DATASET", "TOKENIZER", "TYPES", "READING"}
    assert taken <= ours.keys()
    assert taken & {"TRUNCATION", "STRIDE"} == ours.keys() & {"TRUNCATION", "STRIDE"}


def test_the_examples_of_the_help_are_commands():
    examples = [(name, row) for name, text in cli.EXAMPLES.items() for row in text.splitlines() if row.strip()]
    assert {name.split()[0] for name, _ in examples} == set(cli.COMMANDS)
    for name, row in examples:
        words = shlex.split(row.format(p=name).split(" < ")[0])
        if words[-1] != "--help":
            assert cli._parse(words).command == words[0]


BAD = [
    ([], "usage: bert_helpers (--help says more): the following arguments are required: COMMAND"),
    (["train"], "required: TASK"),
    (["train", "parsing"], "invalid choice: 'parsing'"),
    (["train", "ner", "--epoch", "3"], "unknown argument --epoch; did you mean --epochs?"),
    (["train", "ner", "--truncation", "tail"], "unknown argument --truncation"),
    (["train", "ner", "--epochs"], "argument --epochs: expected one argument"),
    (["train", "ner", "--epochs", "three"], "--epochs is 'three'; it must be a whole number"),
    (["train", "ner", "--epochs", "0"], "--epochs is 0; it must lie between 1 and 1000"),
    (["train", "ner", "--learning-rate", "nan"], "--learning-rate is nan"),
    (["train", "ner", "--dropout", "1.5"], "--dropout is 1.5; it must lie between 0.0 and 0.9"),
    (["train", "ner", "--precision", "half"], "--precision is 'half'; it must be one of auto, bf16"),
    (["train", "classification", "--truncation", "middle"], "--truncation is 'middle'; it must be one of head, tail"),
    (["train", "ner", "--output-dir", "tickets.csv"], "tickets.csv: cannot be written (File exists)"),
    (["train", "ner", "--report-to", "tensorboard,x"], "it must be none, or some of tensorboard, mlflow, trackio, wan"),
    (["train", "ner", "--data", "none.conll"], "none.conll: no such file or folder"),
    (["train", "ner", "--data", ""], "--data is empty; leave it out for the default"),
    (["train", "classification", "--data", "tickets.csv"], "tickets.csv: no column 'text' in the header; it has"),
    (["train", "ner", "--model", "./none"], "./none: no model here"),
    (["train", "ner", "--max-length", "1000"], "--max-length is 1000; this model takes 3 to 512 tokens"),
    (["train", "ner", "--max-length", "16"], "--stride is 32; with --max-length 16 it must lie in 0 to 13"),
    (["evaluate"], "required: FOLDER"),
    (["evaluate", "results/none"], "results/none: no such folder; name that of a run"),
    (["evaluate", "results"], "results: no history.json; a run's folder has"),
    (["evaluate", "broken"], "broken/metrics.json: is not JSON, or only a part of it"),
    (["evaluate", "strange"], "strange/metrics.json: does not have the expected form (metrics is null)"),
    (["evaluate", "results/ner", "--data", "tickets.csv"], "ay where its data lies by"),
    (["evaluate", "results/classification", "--data", "sample"], "no column 'message'"),
    (["evaluate", "results/ner", "more"], "unknown argument more"),
    (["diagnose", "results/ner/model"], "model: no history.json"),
    (["compare", "results/ner", "results/qa"], "results/ner is a run of ner, results/qa of qa."),
    (["compare", "results/ner", "./results/ner"], "results/ner: is the folder ./results/ner too; name two runs"),
    (["predict"], "required: FOLDER\n"),
    (["predict", "none", "x"], "none: no such folder; name that of a run or of a fine-tuned model."),
    (["predict", "results", "x"], "no model here (a folder with config.json and model.safetensors is needed)"),
    (["predict", "TINY", "x"], "a BertModel is of none of the tasks"),
    (["predict", "results/qa", "x", "y", "z"], "3 texts given; a row needs two, question and context"),
    (["predict", "results/ner", "x", "--file", "lines.txt"], "give either texts or --file, not both"),
    (["predict", "results/ner", "x", "--formt", "csv"], "unknown argument --formt; did you mean --format?"),
    (["predict", "results/ner", "x", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
    (["predict", "results/ner", "x", "--batch-size", "0"], "--batch-size is 0; it must lie between 1"),
    (["predict", "results/ner", "x", "--precision", "int8"], "--precision is 'int8'; it must be one of"),
    (["predict", "results/ner", "x", "--pair-column", "b"], "--pair-column is not for a ner model; it reads text, to"),
    (["predict", "results/ner", "--file", "none.csv"], "none.csv: no such file"),
    (["predict", "results/ner", "tickets.csv"], "tickets.csv: is the name of a file, not a text; name it by --file."),
    (["predict", "results/ner", "x", "--out", "a.json"], "--out is a.json, whose ending says neither CSV nor JSON"),
    (["gallery", "nosuch"], "nosuch: no such folder; run this in the folder above it, or name the folder of the runs."),
    (["train", "regression", "--low", "1", "--high", "0"], "--low is 1; it must lie below --high, 0."),
    (["predict", "results/ner", "nosuch.csv"], "nosuch.csv: is the name of a file, not a text; name it by --file."),
    (["predict", "results/regression", "--file", "tickets.csv", "--text-column", "2", "--pair-column", "team"],
     "tickets.csv: one column for both texts of a row; name two columns"),
    (["predict", "results/ner", "--file", "tickets.csv"], "tickets.csv: no column 'text' in the header"),
    (["predict", "results/ner", "--file", "words.jsonl"], "words.jsonl, row 2, column 'tokens': not a list of words"),
    (["predict", "results/qa", "--file", "lines.txt"], "lines.txt, line 1 (also lines 2, 3): 1 text; write question"),
    (["predict", "results/ner", "--file", "mixed.txt"], "mixed.txt, line 2: byte 3 is not UTF-8; save the file as"),
    (["predict", "results/ner", "--file", "zipped.txt"], "zipped.txt: not a text file but gzip data; unpack it"),
    (["predict", "results/ner", "--file", "sheet.xlsx"], "sheet.xlsx: not a readable spreadsheet"),
    (["predict", "results/ner", "--file", "lines.txt", "--out", "lines.txt"], "is lines.txt, the file that is read"),
    (["predict", "results/ner", "half \udcff"], "arguments, row 1: half a character"),
    (["predict", "results/ner", "x", "--out", "lines.txt/out.csv"], "cannot be written"),
    (["predict", "results/ner", "STDIN", ""], "standard input: is empty; give one text per line"),
    (["predict", "results/ner", "STDIN", "{broken"], "standard input, line 1: not valid JSON"),
    (["predict", "results/ner", "STDIN", '{"text": "a"}\n[1]'], "standard input, line 2: not an object; write rows"),
    (["predict", "results/ner", "STDIN", '{"body": "a"}'], "standard input: no column 'text'; it has 'body'"),
    (["predict", "results/ner", "STDIN", '{"text": 5}'], "standard input, column 'text': holds int64, not text"),
    (["predict", "results/ner", "STDIN", '{"tokens": ["a\\u0000b"]}'], "row 1, column 'tokens': not a list of words"),
    (["predict", "results/regression", "STDIN", "a\tb\tc"], "standard input, line 1: 3 texts; write text and"),
]  # fmt: skip


@pytest.fixture(scope="module")
def bad_files(home):
    (home / "lines.txt").write_text("one\n\nthree\n")
    (home / "mixed.txt").write_bytes("one\nCrème\n".encode("latin-1") + "Crème".encode())
    (home / "zipped.txt").write_bytes(b"\x1f\x8b\x08\x00")
    (home / "sheet.xlsx").write_bytes(b"PK\x03\x04")
    (home / "words.jsonl").write_text('{"tokens": ["a"]}\n{"tokens": []}\n')
    for name, record in {"broken": "{", "strange": "{}"}.items():
        (home / name / "model").mkdir(parents=True)
        shutil.copy(home / "results/ner/model/config.json", home / name / "model")
        (home / name / "history.json").write_text('[{"epoch": 1, "step": 1}]')
        (home / name / "metrics.json").write_text(record)


@pytest.mark.parametrize(
    ("words", "message"), BAD, ids=[" ".join(words)[:60].replace("\udcff", "?") for words, _ in BAD]
)
def test_a_bad_command_line_is_one_line_and_status_2(
    words, message, at_home, bad_files, tiny_bert, monkeypatch, capsys
):
    if "STDIN" in words:
        as_standard_input(monkeypatch, words[-1].encode())
        words = words[:-2]
    capsys.readouterr()
    try:
        status = cli.main([str(tiny_bert) if word == "TINY" else word for word in words])
    except SystemExit as left:  # argparse
        status = left.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert "Traceback" not in err


NAMED = [
    ("classification", {"data": "tickets.csv"}, "name the right one by --text-column"),
    ("classification", {"data": "tickets.csv", "text-column": "message"}, "name the right one by --label-column"),
    ("regression", {"data": "tickets.csv", "text-column": "message"}, "name the right one by --pair-column"),
    ("ner", {"data": "words.jsonl"}, "name the right one by --tags-column"),
    ("ner", {"data": "LABEL_COLUMN.conll"}, "LABEL_COLUMN.conll: no such file or folder"),
    ("qa", {"data": "words.jsonl"}, "not a file in SQuAD's format ('data' is missing)"),
]


@pytest.mark.parametrize(("task", "options", "message"), NAMED)
def test_an_error_names_the_options_of_the_task(task, options, message, at_home, tmp_path, monkeypatch, capsys):
    shutil.copy("tickets.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.jsonl").write_text('{"text": "a", "tokens": ["a"]}\n')
    assert cli.main(line("train", task, **options)) == 2
    err = capsys.readouterr().err
    assert message.lower() in err.lower()
    assert not set(re.findall(r"[A-Z]+_[A-Z]+", err)) - {"LABEL_COLUMN"}


def test_debug_shows_where_an_error_comes_from(at_home):
    with pytest.raises(ParameterError, match="EPOCHS is 0"):
        cli.main(["train", "ner", "--epochs", "0", "--debug"])


# --- signals and pipes -------------------------------------------------------------------------------------


def test_ctrl_c_is_130_without_a_traceback(at_home, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.runs, "read", interrupt)
    assert cli.main(["evaluate", "results/ner"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_training_that_is_stopped_is_saved_and_goes_on(name, status, at_home, bert, monkeypatch, capsys):
    words = line("train", "regression", model=bert, **{**SETTINGS, "output-dir": f"results/{name}"})

    class Stop(commands.Progress):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                os.kill(os.getpid(), getattr(signal, name))

    with monkeypatch.context() as patch:
        patch.setattr(commands, "Progress", Stop)
        assert cli.main(words) == status
    assert f"stopped by {name} at step" in (shown := capsys.readouterr().err)
    assert "the same command goes on" in shown.splitlines()[-1]
    assert cli.main(words) == 0
    first, again = (
        json.loads((at_home / "results" / folder / "metrics.json").read_text())["metrics"]
        for folder in ("regression", name)
    )
    assert again == first


def shell(folder, command):
    return subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            command.replace("bert-helpers", f"{shlex.quote(sys.executable)} -m bert_helpers"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_reader_that_stops_reading_ends_it_quietly(home):
    done = shell(home, "seq 1 9000 | bert-helpers predict results/classification --precision fp32 | head -n 2")
    assert done.stdout.splitlines()[0] == "text,label,probability,probability_app,probability_bills,probability_parcels"
    assert done.stdout.count("\n") == 2
    assert done.returncode == 141
    assert done.stderr == "classification: 9000 rows, at most 48 tokens, fp32\n"


def test_standard_input_to_standard_output_in_a_shell(home):
    done = shell(
        home, "printf 'Crème brûlée\\nx' | bert-helpers predict results/classification && bert-helpers evaluate x"
    )
    assert [row.split(",")[0] for row in done.stdout.splitlines()] == ["text", "Crème brûlée", "x"]
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "DataError: x: no such folder; name that of a run, such as results/01_fine_tune."
    )


@pytest.mark.parametrize("words", ["--help", "train --help", "train qa --help", "predict --help", "run --help"])
def test_help_loads_no_library_and_ends_with_examples(words, tmp_path):
    code = "import sys; from bert_helpers.cli.main import main\ntry: main()\nfinally: assert 'numpy' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nexamples:\n  python -m bert_helpers " in done.stdout or words == "--help"
