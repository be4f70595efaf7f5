"""A task that is not in the package: the class below and one row of parameters are all that it needs."""

import json
import os
import shutil
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
from datasets import ClassLabel
from transformers import BertForSequenceClassification

from bert_helpers import parameters, records
from bert_helpers.cli import main as cli
from bert_helpers.data import check_texts, in_splits, read_columns, sample_by_label
from bert_helpers.files import write_json
from bert_helpers.metrics import ClassificationMeasure
from bert_helpers.tasks.base import Examples, Task, class_fields
from bert_helpers.tasks.registry import TASKS
from bert_helpers.tokenization import encode_texts

NAMES = ["no", "yes"]


class BertForParaphrases(BertForSequenceClassification):
    """A class of its own, so that a saved model shows its task."""


class Paraphrases(Task):
    """Pairs of texts, and whether both say the same."""

    name = "paraphrase"
    model_class = BertForParaphrases
    pipeline = "text-classification"
    fields: ClassVar = {"text": "", "second": "SECOND_COLUMN"}
    usage = 'print("{folder}", {length})'
    sample_texts = ("A text.", "Another.")
    has_classes = True
    cuts_texts = True

    def load(self, source, *, second_column="second", train_size=0, validation_size=0, test_size=0, seed=0, **reading):
        columns = {"text": "text", "second": second_column, "label": "label"}
        splits = read_columns(source, columns, sample="similarity", **reading)
        for split in splits.values():
            check_texts(split, "second", second_column)
        feature = ClassLabel(names=NAMES)
        splits = {name: split.cast_column("label", feature) for name, split in splits.items()}
        return in_splits(splits, (train_size, validation_size, test_size), seed=seed, hold_out=sample_by_label)

    def encode(self, dataset, tokenizer, *, max_length=64):
        return encode_texts(dataset.rename_column("second", "text_pair"), tokenizer, max_length=max_length)

    def examples(self, split):
        texts = [f"{text} {other}" for text, other in zip(split["text"], split["second"], strict=True)]
        return Examples(texts, [NAMES[label] for label in split["label"]], texts, texts, classes=NAMES)

    def model_fields(self, train):
        return class_fields(NAMES)

    def measure(self, predictions, references, rows):
        return ClassificationMeasure(predictions, references)

    def placeholders(self, rows, config):
        return {"label": [0] * len(rows)}

    def table(self, output, encoded, rows, config):
        return {"same": [config.id2label[i] for i in output.predictions.argmax(axis=1)]}

    def save_predictions(self, folder, predictions, rows, outputs):
        return write_json(folder / "predictions.json", predictions.argmax(axis=1).tolist())


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a folder with pairs.csv, with the task and its parameter registered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "paraphrase", Paraphrases())
    row = parameters.Parameter("second", "column of the second text", tasks=("paraphrase",), predicts=True)
    monkeypatch.setitem(parameters.PARAMETERS, "SECOND_COLUMN", row)
    pairs = [(f"the boat {i} leaves at noon", f"at noon boat {i} {'sails' if i % 2 else 'sinks'}") for i in range(60)]
    table = pd.DataFrame(pairs, columns=["text", "other"]).assign(label=[i % 2 for i in range(60)])
    table.to_csv("pairs.csv", index=False, sep="~")  # a delimiter that has to be given
    return tmp_path


def test_a_task_needs_one_class_and_one_row_of_parameters(home, tiny_bert, capsys):
    def printed(*words):
        capsys.readouterr()
        assert cli.main([*map(str, words)]) == 0
        return capsys.readouterr().out

    data = ["--second-column", "other", "--delimiter", "~"]
    seen = json.loads(printed("info", "pairs.csv", "--task", "paraphrase", *data, "--json"))
    assert seen["splits"]["train"]["rows"] == 60
    settings = ["--data", "pairs.csv", *data, "--model", tiny_bert, "--epochs", 1,
                "--max-length", 32, "--precision", "fp32", "--output-dir", "results/mine"]  # fmt: skip
    assert printed("train", "paraphrase", *settings).startswith("accuracy ")
    names = ["checkpoints", "history.json", "metrics.json", "model", "predictions.json"]
    assert sorted(os.listdir("results/mine")) == names
    record = records.read(Path("results/mine"))
    assert (record.tasks, record.parameters["SECOND_COLUMN"]) == (["paraphrase"], "other")
    measured = json.loads(printed("evaluate", "results/mine", "--json"))
    assert measured["task"] == "paraphrase"
    assert measured["metrics"]["accuracy"]["value"] == pytest.approx(record.metrics["accuracy"]["value"])
    shown = json.loads(printed("diagnose", "results/mine", "--json"))
    assert "frozen_parameters" not in [row["finding"] for row in shown]
    assert "may well be chance" in printed("compare", "results/mine", shutil.copytree("results/mine", "results/again"))
    predicted = printed("predict", "results/mine", "one text", "another text", "two", "two").splitlines()
    assert predicted[0] == "text,second,same"
    assert [row.rpartition(",")[0] for row in predicted[1:]] == ["one text,another text", "two,two"]
    pd.DataFrame({"text": ["a", "b"], "other": ["c", "d"]}).to_csv("new.csv", index=False)
    assert len(printed("predict", "results/mine", "--file", "new.csv").splitlines()) == 3
    assert cli.main(["predict", "results/mine", "--file", "new.csv", "--second-column", "none"]) == 2
    assert "--second-column" in capsys.readouterr().err
    card = (home / "results/mine/model/README.md").read_text()
    assert 'print("' in card
    assert "accuracy" in card
    printed("gallery")
    assert "paraphrase" in (home / "results/index.html").read_text()


def test_help_of_the_command_line_knows_the_task(home, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "paraphrase", "--help"])
    assert "--second-column" in capsys.readouterr().out
