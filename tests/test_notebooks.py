"""The notebooks through papermill, from another folder, with parameters and data of one's own."""

import json
import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from transformers import AutoConfig

from bert_helpers import models
from bert_helpers.cli.notebooks import run_notebooks, summary

FIRST, DEBUG, EVALUATE, NER = "01_fine_tune.ipynb", "02_debug.ipynb", "03_evaluate.ipynb", "04_ner.ipynb"


@pytest.fixture(scope="module")
def tiny(tiny_bert, tmp_path_factory):
    """The tiny BERT without dropout, so that the way a batch is cut up changes no number."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = AutoConfig.from_pretrained(tiny_bert, hidden_dropout_prob=0.0)
    torch.manual_seed(0)
    from transformers import BertModel

    BertModel(config).save_pretrained(folder)
    models.load_tokenizer(str(tiny_bert)).save_pretrained(folder)
    return folder


def papermill(notebook, folder, **parameters):
    """Run as a user would, standing in `folder`; returns the finished process."""
    (folder / "parameters.yaml").write_text(yaml.safe_dump(parameters))
    return subprocess.run(
        [
            *(sys.executable, "-m", "papermill", str(ROOT / "notebooks" / notebook), "out.ipynb"),
            *("-f", "parameters.yaml", "-k", "python3", "--no-progress-bar"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def run(notebook, folder, model, **parameters):
    settings = {"MODEL": str(model), "EPOCHS": 1, "MAX_LENGTH": 32, "PRECISION": "fp32", "OUTPUT_DIR": "results/mine"}
    done = papermill(notebook, folder, **{**settings, **parameters})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / parameters.get("OUTPUT_DIR", "results/mine") / "metrics.json").read_text())


def test_a_csv_with_three_string_labels_and_columns_of_its_own(tiny, tmp_path):
    rows = [{"review": f"text {i} of kind {i % 3}", "verdict": ["low", "mid", "top"][i % 3]} for i in range(90)]
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False, sep=";")
    columns = {"TEXT_COLUMN": "review", "LABEL_COLUMN": "verdict"}
    record = run(FIRST, tmp_path, tiny, DATA="mine.csv", **columns, VALIDATION_SIZE=12, EARLY_STOPPING=1)
    rows = {"train": 69, "validation": 12, "test": 9}
    assert record["data"] == {**record["data"], "source": "mine.csv", "rows": rows}
    assert record["parameters"]["LABEL_COLUMN"] == "verdict"
    for value in record["metrics"].values():
        assert value["low"] is value["high"] is None or value["low"] <= value["value"] <= value["high"]
    config = json.loads((tmp_path / "results/mine/model/config.json").read_text())
    assert config["id2label"] == {"0": "low", "1": "mid", "2": "top"}
    predictions = pd.read_csv(tmp_path / "results/mine/predictions.csv")
    assert predictions.groupby("split").size().to_dict() == {"test": 9, "validation": 12}
    assert predictions.columns[-3:].tolist() == ["logit_low", "logit_mid", "logit_top"]


def test_a_tagger_on_a_file_and_a_transfer_set_of_ones_own(tiny, tmp_path):
    block = "Anna\tI-person\nLee\tI-person\nsings\tO\n\nin\tO\nBrask\tI-place\n\n"
    (tmp_path / "mine.conll").write_text(block * 30)
    (tmp_path / "other.conll").write_text("Brask\tB-town\nis\tO\nwet\tO\n\nAnna\tB-human\n")
    record = run(
        *(NER, tmp_path, tiny),
        DATA="mine.conll",
        TRANSFER_DATA="other.conll",
        TRANSFER_TYPES="town:place, human:person",
        STRIDE=8,
    )
    assert record["data"]["rows"] == {"train": 48, "validation": 6, "test": 6}
    assert {"f1", "transfer/f1", "place/f1", "person/f1"} <= set(record["metrics"])


@pytest.mark.slow
def test_a_run_of_ones_own_is_diagnosed_and_fixed(tiny, tmp_path):
    rows = [
        {"body": f"it was {'grand' if i % 2 else 'grim'} on day {i} of {97 * i % 1000}", "mood": "ab"[i % 2]}
        for i in range(240)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    columns = {"TEXT_COLUMN": "body", "LABEL_COLUMN": "mood", "LEARNING_RATE": 1e-6}
    run(FIRST, tmp_path, tiny, DATA="mine.csv", **columns)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine.csv").rename(tmp_path / "elsewhere/mine.csv")
    own = {
        "RUN": "results/mine",
        "RUN_DATA": "elsewhere/mine.csv",
        "RUN_MODEL": str(tiny),
        "DATA": "elsewhere/mine.csv",
    }
    record = run(DEBUG, tmp_path, tiny, **own, **{**columns, "LEARNING_RATE": 1e-3}, OUTPUT_DIR="results/debug")
    assert record["data"]["rows"] == {"train": 192, "validation": 24, "test": 24}
    assert {"healthy/accuracy", "sick/learning rate x 100/accuracy"} <= set(record["metrics"])
    text = (tmp_path / "out.ipynb").read_text()
    assert "learning_rate_too_low" in text
    assert re.search(r"LEARNING_RATE = [^:]*: [^\n]* for before and ", text)  # its fix, before and after


def write_evaluation_data(folder):
    rows = [
        {"body": f"it was {'grand' if i % 2 else 'grim'} {i}", "mood": "up" if i % 2 else "down"} for i in range(90)
    ]
    pd.DataFrame(rows).assign(shop=["north", "south", "south"] * 30).to_csv(folder / "texts.csv", index=False)
    pd.DataFrame(rows[:20]).to_csv(folder / "elsewhere.csv", index=False)
    pairs = [{"a": f"{i} boats", "b": f"{i % 7} boats", "score": (i % 11) / 10} for i in range(60)]
    pd.DataFrame(pairs).to_csv(folder / "pairs.csv", index=False)
    contexts = [f"The ferry to Brask leaves pier {i} at noon. It carries {i + 20} people." for i in range(20)]
    qas = [
        [
            {"id": f"{i}a", "question": "Which pier?", "answers": [{"text": str(i), "answer_start": 31}]},
            {"id": f"{i}b", "question": "Where to?", "answers": [{"text": "Brask", "answer_start": 13}]},
        ]
        for i in range(20)
    ]
    paragraphs = [{"context": context, "qas": qa} for context, qa in zip(contexts, qas, strict=True)]
    (folder / "questions.json").write_text(json.dumps({"data": [{"title": "ferries", "paragraphs": paragraphs}]}))
    return {
        **{"DATA": "texts.csv", "TEXT_COLUMN": "body", "LABEL_COLUMN": "mood", "SLICE_COLUMN": "shop"},
        **{"TRANSFER_DATA": "elsewhere.csv", "IMBALANCE": 3, "QA_DATA": "questions.json", "STS_DATA": "pairs.csv"},
        "STS_OPTIONS": "text_column a, pair_column b, label_column score, high 1, max_length 32, epochs 1",
        "QA_OPTIONS": "max_length 32, stride 8, epochs 1",
    }


@pytest.mark.slow
def test_three_tasks_are_evaluated_on_data_of_ones_own_then_again_from_the_saved_models(tiny, tmp_path):
    settings = write_evaluation_data(tmp_path)
    record = run(EVALUATE, tmp_path, tiny, **settings)
    assert record["data"]["qa"]["rows"] == {"train": 32, "validation": 4, "test": 4}
    assert {"classification/accuracy", "classification/transfer/accuracy", "qa/f1", "regression/mse"} <= set(
        record["metrics"]
    )
    for name in ("classification/log_loss", "qa/f1", "regression/mse"):
        value = record["metrics"][name]
        assert value["low"] is value["high"] is None or value["low"] <= value["value"] <= value["high"], name
    trained = {
        f"{prefix}TRAINED": f"results/mine/{task}/model"
        for prefix, task in (("", "classification"), ("QA_", "qa"), ("STS_", "regression"))
    }
    again = run(EVALUATE, tmp_path, tiny, **settings, **trained)
    for name in ("classification/accuracy", "qa/f1", "regression/mse"):
        assert again["metrics"][name]["value"] == pytest.approx(record["metrics"][name]["value"], abs=1e-4), name


def test_a_bad_parameter_stops_the_run_and_leaves_nothing(tmp_path):
    """Kinds of bad parameters: tests/test_parameters.py."""
    done = papermill(FIRST, tmp_path, EPOCH=3)
    assert done.returncode != 0
    assert "EPOCH is no parameter of this notebook; did you mean EPOCHS" in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_summary_shows_headlines_and_failures(tmp_path):
    record = tmp_path / "metrics.json"
    metrics = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in ("qa/f1", "qa/exact_match", "regression/mse")}
    record.write_text(json.dumps({"metrics": metrics, "parameters": {}, "data": {}}))
    good = {"notebook": "03.ipynb", "seconds": 61.2, "error": None, "record": record}
    text = summary([good, {**good, "notebook": "04.ipynb", "error": "DataError: no such file"}])
    assert re.search(r"03.ipynb +qa/f1 +0\.500 \(0\.400 to 0\.600\) +61 ", text)
    assert "regression/mse" in text
    assert "exact_match" not in text
    assert re.search(r"04.ipynb +FAILED +see below", text)
    assert text.endswith("\n\n04.ipynb: DataError: no such file")  # whole: it names the cure


def test_a_notebook_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, line in {FIRST: "raise ValueError('no such thing')", NER: "pass"}.items():
        cells = [nbformat.v4.new_code_cell('OUTPUT_DIR: str = "results/a"', metadata={"tags": ["parameters"]})]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_code_cell(line)], metadata=kernel), name)
    rows = run_notebooks([tmp_path / FIRST, tmp_path / NER])
    assert [row["error"] for row in rows] == ["ValueError: no such thing", None]
    assert f"{FIRST}: failed after" in (told := capsys.readouterr().err)
    assert f"{NER}: done in" in told


@pytest.mark.slow
def test_a_tagger_of_other_types_says_so_before_it_trains_or_leaves_the_transfer_out(tiny, tmp_path):
    (tmp_path / "mine.conll").write_text("Anna\tB-person\nsings\tO\n\nin\tO\nBrask\tB-place\n\n" * 30)
    settings = {"MODEL": str(tiny), "DATA": "mine.conll", "EPOCHS": 1, "STRIDE": 8, "MAX_LENGTH": 32}
    settings["OUTPUT_DIR"] = "results/mine"
    done = papermill(NER, tmp_path, **settings)  # TRANSFER_DATA is the sample
    assert done.returncode == 1
    assert 'map its type by TRANSFER_TYPES, or leave this text out (TRANSFER_DATA "")' in done.stderr
    assert not (tmp_path / "results").exists()
    record = run(NER, tmp_path, tiny, **settings, TRANSFER_DATA="", REPORT_TO="tensorboard")
    assert {"f1", "place/f1"} <= set(record["metrics"])
    assert not [name for name in record["metrics"] if name.startswith("transfer/")]
    assert list((tmp_path / "results/mine/checkpoints/runs").glob("*/events*"))
