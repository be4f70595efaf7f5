"""What differs between the four tasks; everything else is shared."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertPreTrainedModel,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)
from transformers.trainer_utils import PredictionOutput

from bert_helpers import data, metrics, results
from bert_helpers.tasks import entities, qa, regression
from bert_helpers.tokenization import encode_pairs, encode_questions, encode_texts, encode_words


@dataclass(frozen=True)
class Task:
    """The keywords of `load` and `encode` are notebook parameters in lower case: see `options`."""

    model_class: type[BertPreTrainedModel]
    load: Callable[..., DatasetDict]
    encode: Callable[..., DatasetDict]
    collator: Callable[..., object]
    model_fields: Callable[[Dataset], dict[str, object]]  # of training rows: fields of the model's config
    scores: Callable[..., dict[str, float]] | None  # None: logits become answers first, after training
    measure: Callable[..., metrics.Measure]  # of predictions and truth as `judged` gives them
    judged: Callable[[PredictionOutput, Dataset, Dataset], tuple[Sequence, Sequence]]  # of output, encoded rows, rows
    # Of a folder, the test rows' predictions as `judged` gives them, rows by split, output by split: their file
    save: Callable[[Path, Sequence, DatasetDict, Mapping[str, PredictionOutput]], Path]
    parts: Callable[[Sequence, Sequence, int], pd.DataFrame] | None = None  # of predictions, truth, seed: more metrics
    prefix: str = ""  # of its parameters in notebook 3
    scores_need_names: bool = False  # whether they take the names of the classes
    has_classes: bool = False  # whether logits are of classes, of rows or of words
    numeric: bool = False  # whether labels are numbers with a unit; the model learns them standardized


def options(function: Callable, parameters: Mapping[str, object]) -> dict[str, object]:
    """Those keywords of a function that notebook parameters give: TRAIN_SIZE for `train_size`."""
    names = inspect.signature(function).parameters
    return {name: parameters[name.upper()] for name in names if name.upper() in parameters}


def _classes(names: Sequence[str]) -> dict[str, object]:
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _logits(output: PredictionOutput, encoded: Dataset, rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
    return output.predictions, np.asarray(rows["label"])


def _tags(output: PredictionOutput, encoded: Dataset, rows: Dataset) -> tuple[list[list[str]], list[list[str]]]:
    names = rows.features["ner_tags"].feature.names
    return entities.predicted_tags(output, encoded, names), entities.named(rows["ner_tags"], names)


def _answers(output: PredictionOutput, encoded: Dataset, rows: Dataset) -> tuple[list[str], list[list[str]]]:
    answers = qa.predicted_answers(output.predictions, encoded, list(rows["context"]))
    return [best[0]["answer"] for best in answers], [row["text"] for row in rows["answers"]]


Outputs = Mapping[str, PredictionOutput]


def _save_logits(folder: Path, predicted: np.ndarray, rows: DatasetDict, outputs: Outputs) -> Path:
    return results.save_predictions(folder, dict(outputs), rows["test"].features["label"].names)


def _save_scores(folder: Path, predicted: np.ndarray, rows: DatasetDict, outputs: Outputs) -> Path:
    table = pd.DataFrame({"label": rows["test"]["label"], "predicted": np.ravel(predicted)})
    return results.write_text(folder / "predictions.csv", table.to_csv(index_label="row"))


def _save_tags(folder: Path, predicted: Sequence[list[str]], rows: DatasetDict, outputs: Outputs) -> Path:
    tagged = [{"tokens": t, "predicted": p} for t, p in zip(rows["test"]["tokens"], predicted, strict=True)]
    return results.write_json(folder / "predictions.json", tagged)


def _save_answers(folder: Path, predicted: Sequence[str], rows: DatasetDict, outputs: Outputs) -> Path:
    return results.write_json(folder / "predictions.json", dict(zip(rows["test"]["id"], predicted, strict=True)))


def _f1_by_type(predicted: Sequence[list[str]], truth: Sequence[list[str]], seed: int) -> pd.DataFrame:
    return entities.metrics_by_type(truth, predicted, seed=seed)[["value", "low", "high"]].add_suffix("/f1", axis=0)


TASKS = {
    "classification": Task(
        model_class=BertForSequenceClassification,
        load=data.load_classification,
        encode=encode_texts,
        collator=DataCollatorWithPadding,
        model_fields=lambda train: _classes(train.features["label"].names),
        scores=metrics.classification_scores,
        measure=metrics.classification,
        judged=_logits,
        save=_save_logits,
        has_classes=True,
    ),
    "regression": Task(
        model_class=BertForSequenceClassification,
        load=data.load_pairs,
        encode=encode_pairs,
        collator=DataCollatorWithPadding,
        model_fields=lambda train: {"num_labels": 1, **regression.target_scale(train["label"])},
        scores=metrics.regression_scores,
        measure=metrics.regression,
        judged=_logits,
        save=_save_scores,
        prefix="STS_",
        numeric=True,
    ),
    "ner": Task(
        model_class=BertForTokenClassification,
        load=data.load_entities,
        encode=encode_words,
        collator=DataCollatorForTokenClassification,
        model_fields=lambda train: _classes(train.features["ner_tags"].feature.names),
        scores=entities.entity_scores,
        scores_need_names=True,
        measure=entities.recognition,
        judged=_tags,
        save=_save_tags,
        parts=_f1_by_type,
        has_classes=True,
    ),
    "qa": Task(
        model_class=BertForQuestionAnswering,
        load=data.load_questions,
        encode=encode_questions,
        collator=DataCollatorWithPadding,
        model_fields=lambda train: {},
        scores=None,
        measure=metrics.question_answering,
        judged=_answers,
        save=_save_answers,
        prefix="QA_",
    ),
}
