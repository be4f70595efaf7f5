import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertForSequenceClassification, BertTokenizerFast
from transformers.trainer_utils import PredictionOutput

from bert_helpers import ParameterError, files, models, results, training

METRICS = pd.DataFrame({"value": [0.9], "low": [0.8], "high": [1.0]}, index=["accuracy"])


def test_a_saved_model_comes_back_with_its_logits_and_names(tiny_bert, tokenizer, tmp_path):
    names = {0: "bad", 1: "good"}
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=2, id2label=names).eval()
    folder = results.save_model(model, tokenizer, tmp_path / "run" / "model")
    again = models.load_model(str(folder), BertForSequenceClassification).eval()
    ids = torch.tensor([[101, 2023, 2003, 102]])
    with torch.no_grad():
        # Where the file's weights lie in memory decides the order in which products are summed: not to the last bit.
        torch.testing.assert_close(model(ids).logits, again(ids).logits, atol=1e-6, rtol=1e-5)
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert again.config.id2label == names
    assert models.load_tokenizer(str(folder))("Fine film")["input_ids"] == tokenizer("Fine film")["input_ids"]
    assert (folder / "model.safetensors").is_file()
    assert BertTokenizerFast.from_pretrained(folder).model_max_length == 64


def test_a_model_is_replaced_as_a_whole_or_not_at_all(tiny_bert, tokenizer, tmp_path, monkeypatch):
    model = models.load_model(str(tiny_bert), BertForSequenceClassification)
    folder = results.save_model(model, tokenizer, tmp_path / "model")
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.classifier.bias.add_(1)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BertTokenizerFast, "save_pretrained", full_disk)
    with pytest.raises(ParameterError, match=r"model: cannot be written \(No space left on device\).*another folder"):
        results.save_model(model, tokenizer, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    monkeypatch.undo()
    results.save_model(model, tokenizer, folder)
    assert (folder / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# What the child writes beyond 200 kB fails, as on a full disk.
LIMITED = """
import resource, sys
from pathlib import Path
from transformers import BertForSequenceClassification
from bert_helpers import ParameterError, models, results

folder, bert = Path(sys.argv[1]), sys.argv[2]
model, tokenizer = models.load_model(bert, BertForSequenceClassification), models.load_tokenizer(bert)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for write in (
    lambda: results.save_model(model, tokenizer, folder / "model"),
    lambda: results.write_json(folder / "metrics.json", {"x": "y" * 300_000}),
    lambda: results.write_text(folder / "predictions.csv", "y" * 300_000),
):
    try:
        write()
    except ParameterError as error:
        print(error)
"""


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_what_was_there_and_nothing_partial(before, tiny_bert, tokenizer, tmp_path):
    if before:
        results.save_model(
            models.load_model(str(tiny_bert), BertForSequenceClassification), tokenizer, tmp_path / "model"
        )
        results.write_json(tmp_path / "metrics.json", {"x": 1})
        results.write_text(tmp_path / "predictions.csv", "a,b")
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(tiny_bert)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [re.search(r"(\S+): cannot be written", line)[1].rsplit("/", 1)[-1] for line in lines] == [
        "model",
        "metrics.json",
        "predictions.csv",
    ]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == contents


@pytest.mark.parametrize("place", ["file", "file/below", "readonly/deep"])
def test_an_output_folder_that_cannot_be_written_is_refused_before_training(place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    if place.startswith("readonly"):  # root may write anywhere, so the refusal is put in

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ParameterError, match=f"{place}: cannot be written"):
        training.training_arguments(tmp_path / place)


def test_json_is_written_whole_with_plain_numbers(tmp_path):
    path = results.write_json(tmp_path / "a" / "b.json", {"x": np.float32(0.5), "y": [np.int64(2), float("nan")]})
    assert json.loads(path.read_text()) == {"x": 0.5, "y": [2, None]}
    with pytest.raises(TypeError):
        results.write_json(path, {"x": object()})
    assert json.loads(path.read_text())["x"] == 0.5
    assert os.listdir(path.parent) == ["b.json"]


def test_a_record_says_what_produced_it_and_no_absolute_path(small_dataset, tmp_path):
    path = results.write_record(
        tmp_path,
        metrics=METRICS,
        parameters={"DATA": "/home/somebody/data/reviews.csv", "EPOCHS": 3},
        data=results.describe_data("/home/somebody/data/reviews.csv", small_dataset),
        model="~/models/bert",
        precision="fp32",
        seed=0,
        seconds={"train": 1.234},
    )
    record = json.loads(path.read_text())
    assert set(record) == {
        *("metrics", "parameters", "data", "model", "versions", "device", "precision", "seed", "seconds"),
        "tasks",
    }
    assert record["metrics"] == {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}}
    assert record["data"]["rows"] == {"train": 48, "validation": 16, "test": 16}
    assert len(record["data"]["fingerprint"]) == 64
    assert record["seconds"] == {"train": 1.2}
    assert record["model"] == "bert"
    assert "somebody" not in path.read_text()


def test_predictions_of_every_split_stand_in_row_order(tmp_path):
    logits = np.array([[0.0, 1.0], [3.0, 0.0]])
    output = PredictionOutput(predictions=logits, label_ids=np.array([1, 1]), metrics={})
    path = results.save_predictions(tmp_path, {"validation": output, "test": output}, ["bad", "good"])
    table = pd.read_csv(path)
    assert table.split.tolist() == ["validation", "validation", "test", "test"]
    assert table.row.tolist() == [0, 1, 0, 1]
    assert table.predicted.tolist() == ["good", "bad"] * 2
    np.testing.assert_allclose(table[["logit_bad", "logit_good"]].to_numpy()[:2], logits)
    assert table.probability[0] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)


def test_relative_paths_are_taken_from_the_project_when_the_kernel_stands_in_notebooks(tmp_path, monkeypatch):
    (tmp_path / "bert_helpers").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "mine.csv").write_text("x")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert results.base_folder() == tmp_path
    assert results.resolve("mine.csv") == os.path.join("..", "mine.csv")
    monkeypatch.chdir(tmp_path)
    assert results.base_folder() == tmp_path
    assert results.resolve("mine.csv") == "mine.csv"
    assert results.resolve("stanfordnlp/imdb") == "stanfordnlp/imdb"
    assert results.resolve("sample") == "sample"
