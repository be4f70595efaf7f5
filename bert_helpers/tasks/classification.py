"""Texts and one class for each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction
from transformers.trainer_utils import PredictionOutput

from bert_helpers import data, files
from bert_helpers.metrics import ClassificationMeasure, probabilities
from bert_helpers.tasks.base import Examples, Task, class_fields
from bert_helpers.tokenization import encode_texts


class Classification(Task):
    """Texts, each of one class."""

    name = "classification"
    model_class = BertForSequenceClassification
    pipeline = "text-classification"
    fields: ClassVar = {"text": "TEXT_COLUMN"}
    usage = """\
from transformers import pipeline

classify = pipeline("text-classification", "{folder}")
print(classify("A text.", truncation=True, max_length={length}))"""
    sample_texts = ("A text.",)
    has_classes = True
    cuts_texts = True

    load = staticmethod(data.load_classification)
    encode = staticmethod(encode_texts)

    def examples(self, split: Dataset) -> Examples:
        """Return the texts and the names of their classes."""
        names, texts = split.features["label"].names, list(split["text"])
        return Examples(texts, [names[label] for label in split["label"]], texts, texts, classes=names)

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return number and names of the classes."""
        return class_fields(train.features["label"].names)

    def compute_metrics(self, config: BertConfig) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return accuracy, F1 and log loss."""

        def scores(prediction: EvalPrediction) -> dict[str, float]:
            measure = ClassificationMeasure(prediction.predictions, prediction.label_ids)
            return measure.values(measure.headline)

        return scores

    def measure(self, predictions: np.ndarray, references: np.ndarray, rows: Dataset) -> ClassificationMeasure:
        """Measure logits (rows, classes) with the labels' numbers."""
        return ClassificationMeasure(predictions, references)

    def placeholders(self, rows: Dataset) -> dict[str, list]:
        """Return the first class for every row."""
        return {"label": [0] * len(rows)}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, names: Sequence[str]
    ) -> dict[str, Sequence]:
        """Return `label`, its `probability`, and `probability_…` of each class, by softmax."""
        chances = probabilities(output.predictions).round(6)
        each = {f"probability_{name}": chances[:, i] for i, name in enumerate(names)}
        labels = [names[i] for i in output.predictions.argmax(axis=1)]
        return {"label": labels, "probability": chances.max(axis=1), **each}

    def save_predictions(
        self, folder: Path, predictions: np.ndarray, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write the logits of every split in `outputs` as predictions.csv."""
        return save_predictions(folder, outputs, rows["test"].features["label"].names)

    def fits(self, config: BertConfig) -> bool:
        """Whether a model is a sequence classifier of several outputs."""
        return super().fits(config) and config.num_labels > 1


def save_predictions(folder: Path, outputs: Mapping[str, PredictionOutput], names: Sequence[str]) -> Path:
    """Write predictions.csv, with a line for every row of every split given, in the data's order.

    Columns: `split`, `row` (from 0), `label`, `predicted`, `probability` (of the predicted class), and a `logit_…`
    for each class.
    """
    tables = []
    for split, output in outputs.items():
        logits = np.asarray(output.predictions, dtype=np.float64)
        first = {
            "split": split,
            "row": range(len(logits)),
            "label": [names[i] for i in output.label_ids],
            "predicted": [names[i] for i in logits.argmax(axis=1)],
            "probability": probabilities(logits).max(axis=1).round(6),
        }
        columns = [f"logit_{name}" for name in names]
        tables.append(pd.concat([pd.DataFrame(first), pd.DataFrame(logits, columns=columns).round(6)], axis=1))
    return files.write_text(folder / "predictions.csv", pd.concat(tables).to_csv(index=False))
