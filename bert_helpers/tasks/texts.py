"""What tasks have in common whose rows are a text, or two where PAIR_COLUMN names a second one, and a label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from datasets import Dataset

from bert_helpers.data import check_texts, read_columns
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tokenization import encode_texts


class TextTask(Task):
    """A text or a pair of texts, and what a head for whole sequences says of it."""

    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"
    fields: ClassVar = {"text": "TEXT_COLUMN", "text_pair": "PAIR_COLUMN"}
    sample_texts = ("A text.", "Another.")
    cuts_texts = True

    encode = staticmethod(encode_texts)


def read_texts(
    source: str | Path, text_column: str, pair_column: str, labels: Mapping[str, str], **options: object
) -> dict[str, Dataset]:
    """Read splits with columns `text`, `text_pair` if `pair_column` names one, and `labels` (the user's names by ours).

    `options` are those of `data.read_columns`. Raises DataError for a text that cannot be used.
    """
    texts = {"text": text_column} | ({"text_pair": pair_column} if pair_column else {})
    splits = read_columns(source, {**texts, **labels}, **options)
    for name, split in splits.items():
        for field, column in texts.items():
            check_texts(split, field, column)
        if not pair_column and "text_pair" in split.column_names:  # an unrelated column, which would be encoded
            splits[name] = split.remove_columns("text_pair")
    return splits


def text_examples(split: Dataset, labels: list, classes: Sequence[str] | None = None) -> Examples:
    """Return the rows as the checks of `diagnosis` read them, each pair as one text and as two."""
    texts, pairs = split["text"][:], None
    if "text_pair" in split.column_names:
        pairs = list(zip(texts, split["text_pair"][:], strict=True))
        texts = [" ".join(pair) for pair in pairs]
    return Examples(texts, labels, texts, texts, classes=classes and list(classes), pairs=pairs)
