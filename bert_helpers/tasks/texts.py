"""What tasks have in common whose rows are a text, or two if PAIR_COLUMN names a second one, and a label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset

from bert_helpers import files
from bert_helpers.data import check_texts, read_columns
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tokenization import encode_texts

if TYPE_CHECKING:
    from transformers.trainer_utils import PredictionOutput


class TextTask(Task):
    """A text or a pair of texts with a label for the whole sequence."""

    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"
    fields: ClassVar = {"text": "TEXT_COLUMN", "text_pair": "PAIR_COLUMN"}
    sample_texts = ("A text.", "Another.")
    cuts_texts = True

    encode = staticmethod(encode_texts)


def read_texts(
    source: str | Path, text_column: str, pair_column: str, labels: Mapping[str, str], **options: object
) -> dict[str, Dataset]:
    """Read splits with columns `text`, `text_pair` if `pair_column` names one, and `labels` (user's names by ours).

    `options` are those of `data.read_columns`. Raises DataError for a text that cannot be used.
    """
    texts = {"text": text_column} | ({"text_pair": pair_column} if pair_column else {})
    splits = read_columns(source, {**texts, **labels}, **options)
    for name, split in splits.items():
        for field, column in texts.items():
            check_texts(split, field, column)
        if not pair_column and "text_pair" in split.column_names:  # an unrelated column that would be encoded
            splits[name] = split.remove_columns("text_pair")
    return splits


def text_examples(split: Dataset, labels: list, classes: Sequence[str] | None = None) -> Examples:
    """Return rows for the checks of `diagnosis`, each pair both as one text and as two."""
    texts, pairs = split["text"][:], None
    if "text_pair" in split.column_names:
        pairs = list(zip(texts, split["text_pair"][:], strict=True))
        texts = [" ".join(pair) for pair in pairs]
    return Examples(texts, labels, texts, texts, classes=classes and list(classes), pairs=pairs)


def save_logits(
    folder: Path,
    outputs: Mapping[str, PredictionOutput],
    names: Sequence[str],
    columns: Callable[[np.ndarray, np.ndarray], Mapping[str, Sequence]],
) -> Path:
    """Write predictions.csv, with a line for every row of every split in `outputs`, in the data's order.

    Columns: `split`, `row` (from 0), those that `columns` makes of logits and label ids, and `logit_…` of each class.
    """
    tables = []
    for split, output in outputs.items():
        logits = np.asarray(output.predictions, dtype=np.float64)
        table = pd.DataFrame({"split": split, "row": range(len(logits)), **columns(logits, output.label_ids)})
        tables.append(table.join(pd.DataFrame(logits.round(6), columns=[f"logit_{name}" for name in names])))
    return files.write_text(folder / "predictions.csv", pd.concat(tables).to_csv(index=False))
