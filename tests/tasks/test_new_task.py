"""A task that is not in the package: the class below and one row of parameters are all that it needs."""

from typing import ClassVar

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset
from transformers import BertForSequenceClassification

from bert_helpers import models, parameters, prediction, runs
from bert_helpers.cli import main as cli
from bert_helpers.data import check_texts, in_splits, read_columns, sample_by_label
from bert_helpers.diagnosis import diagnose
from bert_helpers.files import write_json
from bert_helpers.metrics import ClassificationMeasure
from bert_helpers.tasks import base
from bert_helpers.tasks.base import Examples, Task, class_fields
from bert_helpers.tasks.registry import TASKS
from bert_helpers.tokenization import encode_pairs

NAMES = ["no", "yes"]


class BertForParaphrases(BertForSequenceClassification):
    """A head of its own, so that a saved model says which task it is of."""


class Paraphrases(Task):
    """Pairs of texts; whether the second says the same as the first."""

    name = "paraphrase"
    model_class = BertForParaphrases
    pipeline = "text-classification"
    fields: ClassVar = {"text": "", "text_pair": "SECOND_COLUMN"}
    usage = 'print("{folder}", {length})'
    sample_texts = ("A text.", "Another.")
    has_classes = True
    cuts_texts = True

    encode = staticmethod(encode_pairs)

    def load(self, source, *, second_column="text_pair", train_size=0, validation_size=0, test_size=0, seed=0):
        splits = read_columns(
            source, {"text": "text", "text_pair": second_column, "label": "label"}, sample="similarity"
        )
        for split in splits.values():
            check_texts(split, "text_pair", second_column)
        splits = {name: split.cast_column("label", ClassLabel(names=NAMES)) for name, split in splits.items()}
        return in_splits(splits, (train_size, validation_size, test_size), seed=seed, hold_out=sample_by_label)

    def examples(self, split):
        texts = [f"{text} {other}" for text, other in zip(split["text"], split["text_pair"], strict=True)]
        return Examples(texts, [NAMES[label] for label in split["label"]], texts, texts, classes=NAMES)

    def model_fields(self, train):
        return class_fields(NAMES)

    def compute_metrics(self, config):
        return lambda prediction: ClassificationMeasure(prediction.predictions, prediction.label_ids).values(
            ["accuracy"]
        )

    def measure(self, predictions, references, rows):
        return ClassificationMeasure(predictions, references)

    def placeholders(self, rows):
        return {"label": [0] * len(rows)}

    def table(self, output, encoded, rows, names):
        return {"same": [names[i] for i in output.predictions.argmax(axis=1)]}

    def save_predictions(self, folder, predictions, rows, outputs):
        return write_json(folder / "predictions.json", predictions.argmax(axis=1).tolist())


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with pairs.csv, where the task and its parameter are known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "paraphrase", Paraphrases())
    row = parameters.Parameter("text_pair", "column of the second text", tasks=("paraphrase",))
    monkeypatch.setitem(parameters.PARAMETERS, "SECOND_COLUMN", row)
    pairs = [(f"the boat {i} leaves at noon", f"at noon boat {i} {'sails' if i % 2 else 'sinks'}") for i in range(60)]
    table = pd.DataFrame(pairs, columns=["text", "other"]).assign(label=[i % 2 for i in range(60)])
    table.to_csv("pairs.csv", index=False)
    return tmp_path


def test_a_task_needs_one_class_and_one_row_of_parameters(home, tiny_bert):
    given = {"DATA": "pairs.csv", "SECOND_COLUMN": "other", "MODEL": str(tiny_bert), "EPOCHS": 1, "BATCH_SIZE": 8,
             "MAX_LENGTH": 32, "PRECISION": "fp32", "OUTPUT_DIR": "results/mine"}  # fmt: skip
    p, task = parameters.training_parameters("paraphrase", given), TASKS["paraphrase"]
    run = runs.prepare(task.load(p["DATA"], **base.options(task.load, p)), p, task="paraphrase")
    assert "frozen_parameters" not in [finding.name for finding in diagnose.diagnose(run)]
    run = runs.finish(run)
    assert {"train_accuracy", "validation_accuracy"} <= set(run.history)
    assert "accuracy" in runs.scores(run).index
    assert isinstance(diagnose.diagnose(run), list)
    models.save_model(run.trainer.model, run.tokenizer, home / "results/mine/model")
    predictor = prediction.load(home / "results/mine/model")
    assert (predictor.task, predictor.names) == ("paraphrase", NAMES)
    rows = Dataset.from_dict({"text": ["one text", "two"], "text_pair": ["another text", "two"]})
    table = prediction.predict(predictor, rows, precision="fp32")
    assert table.columns.tolist() == ["text", "text_pair", "same"]
    assert table.text.tolist() == ["one text", "two"]


def test_help_of_the_command_line_knows_the_task(home, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "paraphrase", "--help"])
    assert "--second-column" in capsys.readouterr().out
