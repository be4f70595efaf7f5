"""Functions that measures replace, until the notebooks have the new names."""

from bert_helpers import tasks
from bert_helpers.metrics import ClassificationMeasure
from bert_helpers.readers.source import source_name as place  # noqa: F401
from bert_helpers.tasks.classification import load_transfer  # noqa: F401
from bert_helpers.tasks.entities import EntityMeasure
from bert_helpers.tasks.ner import (  # noqa: F401
    load_tagged_rows,
    predicted_tags,
    sentences_from_windows,
    word_windows,
)
from bert_helpers.tasks.qa import AnswerMeasure, exact_match, lost_answers, question_windows, word_f1  # noqa: F401
from bert_helpers.tasks.regression import RegressionMeasure

load_classification, load_pairs = tasks.TASKS["classification"].load, tasks.TASKS["regression"].load
load_entities, load_questions = tasks.TASKS["ner"].load, tasks.TASKS["qa"].load
encode_words, encode_questions = tasks.TASKS["ner"].encode, tasks.TASKS["qa"].encode
classification, regression, question_answering = ClassificationMeasure, RegressionMeasure, AnswerMeasure


def classification_metrics(logits, labels, **options):  # noqa: ANN001, ANN003, ANN201
    """Return the three that notebook 1 shows."""
    return ClassificationMeasure(logits, labels).intervals(ClassificationMeasure.headline, **options)


def full_classification_metrics(logits, labels, **options):  # noqa: ANN001, ANN003, ANN201
    """Return all."""
    return ClassificationMeasure(logits, labels).intervals(**options)


def class_metrics(logits, labels, *, names, **options):  # noqa: ANN001, ANN003, ANN201
    """Return those of each class."""
    return ClassificationMeasure(logits, labels).by_class(names, **options)


def regression_metrics(predictions, labels, **options):  # noqa: ANN001, ANN003, ANN201
    """Return those of scores."""
    return RegressionMeasure(predictions, labels).intervals(**options)


def qa_metrics(predictions, references, *, groups=None, **options):  # noqa: ANN001, ANN003, ANN201
    """Return those of answers."""
    return AnswerMeasure(predictions, references, groups=groups).intervals(**options)


def entity_metrics(gold, predicted, *, strict=False, **options):  # noqa: ANN001, ANN003, ANN201
    """Return those of tags."""
    return EntityMeasure(predicted, gold, strict=strict).intervals(**options)


def metrics_by_type(gold, predicted, **options):  # noqa: ANN001, ANN003, ANN201
    """Return those of each type."""
    return EntityMeasure(predicted, gold).by_type(**options)
