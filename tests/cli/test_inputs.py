"""Faults of a command line or its files are reported before PyTorch, Transformers and scikit-learn are imported."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

HEAVY = "{'torch', 'transformers', 'sklearn', 'matplotlib', 'bert_helpers.cli.commands'}"
CODE = f"""
import sys
from bert_helpers.cli.main import main
status = main()
assert not {HEAVY} & sys.modules.keys(), {HEAVY} & sys.modules.keys()
sys.exit(status)"""

REFUSED = [
    ("train classification --data missing.csv", "missing.csv: no such file or folder"),
    ("train regression --data missing.csv", "missing.csv: no such file or folder"),
    ("train ner --data missing.conll", "missing.conll: no such file or folder"),
    ("train qa --data missing.json", "missing.json: no such file or folder"),
    ("train classification --data empty.csv", "empty.csv: the file is empty"),
    ("train classification --data two.csv --text-column body", "two.csv: no column 'body'"),
    ("train classification --data two.csv --epochs 0", "--epochs is 0; it must lie between 1"),
    ("train classification --data bad.csv", "bad.csv, row 2, column 'text': the text is empty"),
    ("train classification --data two.csv", "two.csv: 2 rows are too few to hold out"),
    ("evaluate nosuch", "nosuch: no such folder"),
    ("diagnose unfinished", "unfinished: no history.json"),
    ("evaluate broken", "metrics.json: is not JSON"),
    (
        "evaluate moved",
        "moved: no file 'tickets.csv' here, nor where it was, nor next to the run; say where its data lies by",
    ),
    ("compare moved moved", "moved: no file 'tickets.csv' here"),
    ("predict nosuch text", "nosuch: no such folder"),
    ("predict moved --file missing.csv", "missing.csv: no such file"),
    ("predict moved two.csv", "two.csv: is the name of a file, not a text; name it by --file"),
    ("train classification --data forty.csv --model empty", "empty: no model here"),
    ("train classification --data forty.csv --model adapter", "adapter: an adapter for the model 'bert-base-uncased'"),
    ("train ner --data forty.conll --model pickled", "pickled: no model.safetensors here, and pickled weights"),
    ("train ner --data forty.conll --model onnx", "onnx: no model.safetensors here, only model.onnx for ONNX"),
    ("predict moved text", "moved: no model here"),
    ("predict moved text --out x.json", "--out is x.json, whose ending says neither"),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "two.csv").write_text("text,label\na b,x\nc d,y\n")
    (tmp_path / "bad.csv").write_text("text,label\na b,x\n,y\n")
    (tmp_path / "forty.csv").write_text("text,label\n" + "a b,x\nc d,y\n" * 20)
    (tmp_path / "forty.conll").write_text("Ann B-PER\nsings O\n\n" * 20)
    for name in ("unfinished", "empty", "adapter", "pickled", "onnx"):
        (tmp_path / name).mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text('{"base_model_name_or_path": "bert-base-uncased"}')
    for name, weights in {"pickled": "pytorch_model.bin", "onnx": "model.onnx"}.items():
        (tmp_path / name / "config.json").write_text('{"model_type": "bert"}')
        (tmp_path / name / weights).write_text("")
    parameters = {"MODEL": "m", "DATA": "tickets.csv", "OUTPUT_DIR": "results/moved"}
    record = {"metrics": {}, "parameters": parameters, "data": {"source": "tickets.csv"}, "tasks": ["classification"]}
    for name, text in {"broken": "{", "moved": json.dumps(record)}.items():
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "history.json").write_text("[]")
        (tmp_path / name / "metrics.json").write_text(text)
    return tmp_path


def light(words, folder):
    """Run a command line that must load none of HEAVY."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE, *words.split()]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_a_refusal_waits_for_no_library_of_models(words, message, folder):
    done = light(words, folder)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("words", ["info two.csv", "info sample --task qa", "info moved"])
def test_nor_does_what_info_says(words, folder):
    done = light(words, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
