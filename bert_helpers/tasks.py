"""What differs between the four tasks; everything else is shared."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
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

from bert_helpers import data, entities, metrics, qa, regression
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
    prefix: str = ""  # of its parameters in notebook 3
    scores_need_names: bool = False  # whether they take the names of the classes
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
        prefix="QA_",
    ),
}
