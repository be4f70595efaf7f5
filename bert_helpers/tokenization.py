"""Rows to token ids. Nothing is padded here: the collator pads each batch to its own longest row."""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import BertTokenizerFast

from bert_helpers.errors import ParameterError


def encode_texts(dataset: DatasetDict, tokenizer: BertTokenizerFast, *, max_length: int) -> DatasetDict:
    """Token ids of column `text`; `label` becomes `labels`, the name a model's forward takes.

    Rows of the result: `input_ids` and `attention_mask` (lists of `length` integers), `labels`, `length` (tokens,
    [CLS] and [SEP] counted), `truncated` (whether the text was longer than `max_length` tokens).
    Raises ParameterError when `max_length` is more than the model has positions for.
    """
    check_max_length(max_length, tokenizer)

    def encode(rows: dict[str, list]) -> dict[str, list]:
        encoded = tokenizer(rows["text"], truncation=True, max_length=max_length, return_token_type_ids=False)
        return {
            **encoded,
            "labels": rows["label"],
            "length": [len(ids) for ids in encoded["input_ids"]],
            "truncated": [bool(encoding.overflowing) for encoding in encoded.encodings],
        }

    return DatasetDict(
        {
            name: split.map(encode, batched=True, remove_columns=split.column_names, desc=f"tokenize {name}")
            for name, split in dataset.items()
        }
    )


def check_max_length(max_length: int, tokenizer: BertTokenizerFast) -> None:
    """Raise ParameterError unless the model has a position for each of `max_length` tokens."""
    if not 3 <= max_length <= tokenizer.model_max_length:
        raise ParameterError(
            f"MAX_LENGTH is {max_length}; this model takes 3 to {tokenizer.model_max_length} tokens a text."
        )


def padding_share(lengths: Sequence[int], *, batch_size: int, pad_to: int = 0) -> float:
    """Share of a run's token positions that are padding, the rows batched in the order given.

    Each batch is padded to its longest row, or every row to `pad_to` tokens if that is not 0.
    """
    lengths = np.asarray(lengths)
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    positions = sum(len(batch) * (pad_to or batch.max()) for batch in batches)
    return float(1 - lengths.sum() / positions)


def row_to_text(encoded: Dataset, row: int, tokenizer: BertTokenizerFast) -> str:
    """One encoded row as text again, special tokens shown."""
    return tokenizer.decode(encoded[row]["input_ids"])
