"""Sentences of words, with a tag for each word that says which entity it is part of."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertTokenizerFast,
    DataCollatorForTokenClassification,
    EvalPrediction,
)
from transformers.trainer_utils import PredictionOutput

from bert_helpers import data, files
from bert_helpers.tasks import entities
from bert_helpers.tasks.base import Examples, Task, class_fields
from bert_helpers.tokenization import encode_words


class EntityRecognition(Task):
    """Sentences of words, with the IOB2 tags of the entities in them."""

    name = "ner"
    model_class = BertForTokenClassification
    pipeline = "token-classification"
    fields: ClassVar = {"text": "", "tokens": "TOKENS_COLUMN"}  # one of both: a text is split into words
    usage = """\
from transformers import pipeline

tag = pipeline("token-classification", "{folder}", aggregation_strategy="first")
print(tag("A text with names."))"""
    sample_texts = ("A text with names.",)
    has_classes = True

    load = staticmethod(data.load_entities)
    encode = staticmethod(encode_words)

    def examples(self, split: Dataset) -> Examples:
        """Return sentences as texts and as words, with their tags."""
        words, texts = list(split["tokens"]), [" ".join(words) for words in split["tokens"]]
        tags = entities.named(split["ner_tags"], split.features["ner_tags"].feature.names)
        types = sorted({tag[2:] for row in tags for tag in row} - {""})
        return Examples(texts, tags, texts, texts, classes=types, words=words)

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return number and names of the tags."""
        return class_fields(train.features["ner_tags"].feature.names)

    def collator(self, tokenizer: BertTokenizerFast, **options: object) -> Callable[[list], dict]:
        """Return the collator that pads labels too."""
        return DataCollatorForTokenClassification(tokenizer, **options)

    def compute_metrics(self, config: BertConfig) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return entity F1, precision, recall and token accuracy, by window; `measure` is by sentence."""
        names = list(config.id2label.values())

        def scores(prediction: EvalPrediction) -> dict[str, float]:
            labels, predicted = prediction.label_ids, prediction.predictions.argmax(axis=-1)
            gold, guess = (
                entities.named([row[kept] for row, kept in zip(side, labels != -100, strict=True)], names)
                for side in (labels, predicted)
            )
            measure = entities.EntityMeasure(guess, gold)
            return measure.values(measure.headline)

        return scores

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Return the tags of every sentence's words, predicted and given."""
        names = rows.features["ner_tags"].feature.names
        return entities.predicted_tags(output, encoded, names), entities.named(rows["ner_tags"], names)

    def measure(self, predictions: entities.Tags, references: entities.Tags, rows: Dataset) -> entities.EntityMeasure:
        """Measure tags by entity."""
        return entities.EntityMeasure(predictions, references)

    def parts(self, predictions: entities.Tags, references: entities.Tags, seed: int) -> pd.DataFrame:
        """Return F1 of every type of entity ("PER/f1")."""
        by_type = entities.EntityMeasure(predictions, references).by_type(seed=seed)
        return by_type[["value", "low", "high"]].add_suffix("/f1", axis=0)

    def with_fields(self, rows: Dataset, tokenizer: BertTokenizerFast) -> Dataset:
        """Return rows of words; texts are split at blanks, and around every punctuation mark."""
        return rows if "tokens" in rows.column_names else Dataset.from_dict({"tokens": words(rows["text"], tokenizer)})

    def placeholders(self, rows: Dataset) -> dict[str, list]:
        """Return the first tag for every word."""
        return {"ner_tags": [[0] * len(words) for words in rows["tokens"]]}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, names: Sequence[str]
    ) -> dict[str, Sequence]:
        """Return the lists `tags`, one of a word."""
        return {"tags": entities.predicted_tags(output, encoded, names)}

    def save_predictions(
        self, folder: Path, predictions: entities.Tags, rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write the test rows' words and tags as predictions.json."""
        tagged = [{"tokens": t, "predicted": p} for t, p in zip(rows["test"]["tokens"], predictions, strict=True)]
        return files.write_json(folder / "predictions.json", tagged)


def words(texts: list[str], tokenizer: BertTokenizerFast) -> list[list[str]]:
    """Each text's words as the tokenizer splits them, in the text's own letters; one word for a text without any.

    >>> words(["Bo's in Brask."], models.load_tokenizer(models.DEFAULT_MODEL))
    [['Bo', "'", 's', 'in', 'Brask', '.']]
    """
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    rows = []
    for i, text in enumerate(texts):
        spans = [encoded.word_to_chars(i, word) for word in dict.fromkeys(encoded.word_ids(i))]
        rows.append([text[start:end] for start, end in spans] or [text])
    return rows
