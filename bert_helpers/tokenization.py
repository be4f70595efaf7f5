"""Rows to token ids. Nothing is padded here: the collator pads each batch to its own longest row."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset, DatasetDict

from bert_helpers.errors import ParameterError, parameter

if TYPE_CHECKING:  # see tasks/base.py
    from transformers import PreTrainedTokenizerBase


def encode_texts(
    dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, max_length: int, truncation: str = "head"
) -> DatasetDict:
    """Token ids of column `text`; `label` becomes `labels`, the name a model's forward takes.

    Rows of the result: `input_ids` and `attention_mask` (lists of `length` integers), `labels`, `length` (tokens,
    [CLS] and [SEP] counted), `whole_length` (what that would be without a cut). `truncation` says what is left of a
    text longer than `max_length` tokens: "head", "tail", or "head+tail", a quarter from its beginning and the rest
    from its end, which was best for film reviews (Sun et al. 2019).
    Raises ParameterError when `max_length` is more than the model has positions for, or `truncation` is something else.
    """
    check_max_length(max_length, tokenizer)
    before, after = special_ids(tokenizer)
    room = max_length - len(before) - len(after)
    heads = {"head": room, "tail": 0, "head+tail": room // 4}
    if truncation not in heads:
        raise ParameterError(f"is {truncation!r}", fix=f"it must be one of {', '.join(heads)}", parameter="TRUNCATION")
    head, tail = heads[truncation], room - heads[truncation]

    def encode(rows: dict[str, list]) -> dict[str, list]:
        whole = tokenizer(rows["text"], add_special_tokens=False, verbose=False)["input_ids"]
        kept = [ids if len(ids) <= room else ids[:head] + ids[len(ids) - tail :] for ids in whole]
        encoded = [[*before, *ids, *after] for ids in kept]
        return {
            "input_ids": encoded,
            "attention_mask": [[1] * len(ids) for ids in encoded],
            "labels": rows["label"],
            "length": [len(ids) for ids in encoded],
            "whole_length": [len(ids) + max_length - room for ids in whole],
        }

    return _map(dataset, encode)


def encode_pairs(dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> DatasetDict:
    """Token ids of `text` and `text_pair` with the tokenizer's own signs around them; `label` becomes `labels`.

    As `encode_texts`, with `token_type_ids` (0 for the first text, 1 for the second) where the model has them, and
    without `whole_length`. Of a pair that is longer than `max_length` tokens the longer text is cut first.
    """
    check_max_length(max_length, tokenizer)

    def encode(rows: dict[str, list]) -> dict[str, list]:
        encoded = tokenizer(rows["text"], rows["text_pair"], truncation="longest_first", max_length=max_length)
        return {
            **encoded,
            "labels": rows["label"],
            "length": [len(ids) for ids in encoded["input_ids"]],
        }

    return _map(dataset, encode)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the tokens that the tokenizer puts before a text and after it, such as [CLS] and [SEP]."""
    text, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next(i for i in range(len(whole)) if whole[i : i + len(text)] == text)
    return whole[:start], whole[start + len(text) :]


def _map(dataset: DatasetDict, encode: Callable[..., dict[str, list]]) -> DatasetDict:
    return DatasetDict({name: map_rows(split, encode, desc=f"tokenize {name}") for name, split in dataset.items()})


def map_rows(split: Dataset, encode: Callable[..., dict[str, list]], **options: object) -> Dataset:
    """Map rows as `split.map`, which hashes `encode` and its tokenizer to find the result on disk: some 0.12 s.

    Of rows in memory nothing is cached, so they are spared that; 960 short sentences are predicted in 2 s.
    """
    drawn = None if split.cache_files else uuid.uuid4().hex
    return split.map(encode, batched=True, remove_columns=split.column_names, new_fingerprint=drawn, **options)


def check_max_length(max_length: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ParameterError unless the model has a position for each of `max_length` tokens."""
    if not 3 <= max_length <= tokenizer.model_max_length:
        fix = f"this model takes 3 to {tokenizer.model_max_length} tokens a text"
        raise ParameterError(f"is {max_length}", fix=fix, parameter="MAX_LENGTH")


def padding_share(lengths: Sequence[int], *, batch_size: int, pad_to: int = 0) -> float:
    """Share of a run's token positions that are padding, the rows batched in the order given.

    Each batch is padded to its longest row, or every row to `pad_to` tokens if that is not 0.
    """
    lengths = np.asarray(lengths)
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    positions = sum(len(batch) * (pad_to or batch.max()) for batch in batches)
    return float(1 - lengths.sum() / positions)


def row_to_text(encoded: Dataset, row: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """One encoded row as text again, special tokens shown."""
    return tokenizer.decode(encoded[row]["input_ids"])


def stride_error(stride: int, max_length: int, highest: int) -> ParameterError:
    """Return the error for windows that would share more tokens than leave room for progress."""
    at_most = f"with {parameter('MAX_LENGTH')} {max_length} it must lie in 0 to {highest}, such as {highest // 3}"
    return ParameterError(f"is {stride}", fix=at_most, parameter="STRIDE")
