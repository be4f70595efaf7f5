"""From rows to token ids. Nothing is padded here: the collator pads each batch to its longest row."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from datasets import DatasetDict

from bert_helpers.errors import ParameterError, parameter

if TYPE_CHECKING:  # see tasks/base.py
    from transformers import PreTrainedTokenizerBase


def encode_texts(
    dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, max_length: int, truncation: str = "head"
) -> DatasetDict:
    """Return the token ids of `text`, and of `text_pair` if there is such a column; `label` is renamed to `labels`.

    Rows of the result: `input_ids` and `attention_mask` (lists of `length` integers), `labels`, `length` (tokens
    including [CLS] and [SEP]), `whole_length` (the same before truncation); for pairs also `token_type_ids` (0 for the
    first text, 1 for the second) if the model has them. In a pair of more than `max_length` tokens, the longer text is
    cut first. `truncation` is the part of a text that is kept: "head", "tail", or "head+tail", a quarter from its
    beginning and the rest from its end, which was best for film reviews (Sun et al. 2019).
    Raises ParameterError if `max_length` exceeds the model's positions, or for another `truncation`.
    """
    check_max_length(max_length, tokenizer)
    columns = next(iter(dataset.values())).column_names
    fields = [name for name in ("text", "text_pair") if name in columns]
    around = special_ids(tokenizer, texts=len(fields))
    room = max_length - sum(map(len, around))
    heads = {"head": lambda size: size, "tail": lambda size: 0, "head+tail": lambda size: size // 4}
    if truncation not in heads:
        raise ParameterError(f"is {truncation!r}", fix=f"it must be one of {', '.join(heads)}", parameter="TRUNCATION")

    def cut(ids: list[int], size: int) -> list[int]:
        head = heads[truncation](size)
        return ids if len(ids) <= size else ids[:head] + ids[len(ids) - (size - head) :]

    def encode(rows: dict[str, list]) -> dict[str, list]:
        sides = [tokenizer(rows[name], add_special_tokens=False, verbose=False)["input_ids"] for name in fields]
        whole = list(zip(*sides, strict=True))
        kept = [list(map(cut, ids, kept_lengths(*map(len, ids), room=room))) for ids in whole]
        encoded = [[*around[0], *chain(*(chain(*part) for part in zip(ids, around[1:], strict=True)))] for ids in kept]
        types = {}
        if len(fields) > 1 and "token_type_ids" in tokenizer.model_input_names:
            seconds = [len(ids[1]) + len(around[2]) for ids in kept]
            types = {"token_type_ids": [[0] * (len(e) - n) + [1] * n for e, n in zip(encoded, seconds, strict=True)]}
        return {
            "input_ids": encoded,
            **types,
            "attention_mask": [[1] * len(ids) for ids in encoded],
            "labels": rows["label"],
            "length": [len(ids) for ids in encoded],
            "whole_length": [sum(map(len, ids)) + max_length - room for ids in whole],
        }

    return map_splits(dataset, encode)


def kept_lengths(first: int, second: int | None = None, *, room: int) -> tuple[int, ...]:
    """Return how many tokens of a text are kept, or of two that share the room, the longer of which is cut first.

    The tokenizers library does the same with truncation="longest_first".

    >>> kept_lengths(90, 10, room=40), kept_lengths(90, 30, room=40)
    ((30, 10), (20, 20))
    """
    if second is None:
        return (min(first, room),)
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (short, room - short) if first <= second else (room - short, short)


def special_ids(tokenizer: PreTrainedTokenizerBase, *, texts: int = 1) -> list[list[int]]:
    """Return the tokens, such as [CLS] and [SEP], that the tokenizer puts before, between and after the texts."""
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    rest, around = tokenizer(*["a"] * texts)["input_ids"], []
    for _ in range(texts):
        start = next(i for i in range(len(rest)) if rest[i : i + len(text)] == text)
        around.append(rest[:start])
        rest = rest[start + len(text) :]
    return [*around, rest]


def map_splits(dataset: DatasetDict, encode: Callable[..., dict[str, list]], **options: object) -> DatasetDict:
    """Replace the rows of all splits by encoded ones, with `options` of `Dataset.map`.

    To find a cached result, `map` hashes `encode` and its tokenizer, in some 0.12 s. Results for rows in memory are not
    cached, so they get a random fingerprint instead; 960 short sentences are predicted in 2 s.
    """
    encoded = {}
    for name, split in dataset.items():
        how = {"batched": True, "remove_columns": split.column_names, "desc": f"tokenize {name}", **options}
        encoded[name] = split.map(encode, new_fingerprint=None if split.cache_files else uuid.uuid4().hex, **how)
    return DatasetDict(encoded)


def check_max_length(max_length: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ParameterError unless the model has a position for each of `max_length` tokens."""
    if not 3 <= max_length <= tokenizer.model_max_length:
        fix = f"this model takes 3 to {tokenizer.model_max_length} tokens a text"
        raise ParameterError(f"is {max_length}", fix=fix, parameter="MAX_LENGTH")


def padding_share(lengths: Sequence[int], *, batch_size: int, pad_to: int = 0) -> float:
    """Return the share of token positions that are padding if the rows are batched in the given order.

    Each batch is padded to its longest row, or every row to `pad_to` tokens if that is not 0.
    """
    lengths = np.asarray(lengths)
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    positions = sum(len(batch) * (pad_to or batch.max()) for batch in batches)
    return float(1 - lengths.sum() / positions)


def stride_error(stride: int, max_length: int, highest: int) -> ParameterError:
    """Return the error for windows that share so many tokens that they would not advance."""
    at_most = f"with {parameter('MAX_LENGTH')} {max_length} it must lie in 0 to {highest}, such as {highest // 3}"
    return ParameterError(f"is {stride}", fix=at_most, parameter="STRIDE")
