"""Rows to token ids. Nothing is padded here: the collator pads each batch to its own longest row."""

import uuid
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import BatchEncoding, BertTokenizerFast

from bert_helpers.errors import ParameterError, parameter


def encode_texts(
    dataset: DatasetDict, tokenizer: BertTokenizerFast, *, max_length: int, truncation: str = "head"
) -> DatasetDict:
    """Token ids of column `text`; `label` becomes `labels`, the name a model's forward takes.

    Rows of the result: `input_ids` and `attention_mask` (lists of `length` integers), `labels`, `length` (tokens,
    [CLS] and [SEP] counted), `whole_length` (what that would be without a cut). `truncation` says what is left of a
    text longer than `max_length` tokens: "head", "tail", or "head+tail", a quarter from its beginning and the rest
    from its end, which was best for film reviews (Sun et al. 2019).
    Raises ParameterError when `max_length` is more than the model has positions for, or `truncation` is something else.
    """
    check_max_length(max_length, tokenizer)
    room = max_length - 2
    heads = {"head": room, "tail": 0, "head+tail": room // 4}
    if truncation not in heads:
        raise ParameterError(f"TRUNCATION is {truncation!r}; it must be one of {', '.join(heads)}.")
    head, tail = heads[truncation], room - heads[truncation]

    def encode(rows: dict[str, list]) -> dict[str, list]:
        whole = tokenizer(rows["text"], add_special_tokens=False, verbose=False)["input_ids"]
        kept = [ids if len(ids) <= room else ids[:head] + ids[len(ids) - tail :] for ids in whole]
        encoded = [[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id] for ids in kept]
        return {
            "input_ids": encoded,
            "attention_mask": [[1] * len(ids) for ids in encoded],
            "labels": rows["label"],
            "length": [len(ids) for ids in encoded],
            "whole_length": [len(ids) + 2 for ids in whole],
        }

    return _map(dataset, encode)


def encode_pairs(dataset: DatasetDict, tokenizer: BertTokenizerFast, *, max_length: int) -> DatasetDict:
    """Token ids of [CLS] `text` [SEP] `text_pair` [SEP]; `label` becomes `labels`.

    As `encode_texts`, with `token_type_ids` (0 for the first text, 1 for the second) and without `whole_length`. Of a
    pair that is longer than `max_length` tokens the longer text is cut first.
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


def _map(dataset: DatasetDict, encode: Callable[..., dict[str, list]]) -> DatasetDict:
    return DatasetDict({name: _encoded(split, encode, desc=f"tokenize {name}") for name, split in dataset.items()})


def _encoded(split: Dataset, encode: Callable[..., dict[str, list]], **options: object) -> Dataset:
    """`split.map`, which hashes `encode` and its tokenizer to find the result in its cache on disk: some 0.12 s.

    Of rows in memory nothing is cached, so they are spared that; 960 short sentences are predicted in 2 s.
    """
    drawn = None if split.cache_files else uuid.uuid4().hex
    return split.map(encode, batched=True, remove_columns=split.column_names, new_fingerprint=drawn, **options)


def encode_questions(
    dataset: DatasetDict, tokenizer: BertTokenizerFast, *, max_length: int = 384, stride: int = 128
) -> DatasetDict:
    """Windows of question and context, with the first reference's token positions in each.

    Rows of the result, one a window: those of `question_windows` (`input_ids`, `token_type_ids`, `attention_mask`,
    `offset_mapping`, `example`: the row of the split it belongs to), `start_positions` and `end_positions` (tokens of
    the window, both inclusive; 0, the position of [CLS], where the answer is not whole in it), `length` (tokens).
    Raises ParameterError when `max_length` or `stride` does not fit.
    """
    check_max_length(max_length, tokenizer)

    def encode(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
        windows = question_windows(rows["question"], rows["context"], tokenizer, max_length=max_length, stride=stride)
        positions: list[tuple[int, int]] = []
        by_example = groupby(zip(windows["example"], windows["offset_mapping"], strict=True), key=itemgetter(0))
        for example, group in by_example:
            answers = rows["answers"][example]
            start, text = answers["answer_start"][0], answers["text"][0]
            positions += _answer_positions([offsets for _, offsets in group], start, start + len(text))
        return {
            **windows,
            "example": [indices[example] for example in windows["example"]],
            "start_positions": [start for start, _ in positions],
            "end_positions": [end for _, end in positions],
            "length": [len(ids) for ids in windows["input_ids"]],
        }

    return DatasetDict(
        {name: _encoded(split, encode, with_indices=True, desc=f"tokenize {name}") for name, split in dataset.items()}
    )


def _stride_error(stride: int, max_length: int, highest: int) -> ParameterError:
    fix = f"with {parameter('MAX_LENGTH')} {max_length} it must lie in 0 to {highest}, such as {highest // 3}"
    return ParameterError(f"is {stride}", parameter="STRIDE", fix=fix)


def encode_words(
    dataset: DatasetDict, tokenizer: BertTokenizerFast, *, max_length: int = 128, stride: int = 32
) -> DatasetDict:
    """Windows of a sentence's word pieces; every word has its label in exactly one of them.

    The first piece of a word carries the label, all others and the special tokens −100. A sentence longer than
    `max_length` tokens becomes several windows that share `stride` pieces, the middle of what is shared dividing
    their labels, so that each word is labelled where it has context on both sides. Rows: `input_ids`,
    `attention_mask`, `labels`, `sentence` (row of the split), `length`. See `sentences_from_windows` for the way back.
    Raises ParameterError when `max_length` or `stride` does not fit.
    """
    check_max_length(max_length, tokenizer)
    if not 0 <= stride < max_length - 2:
        raise _stride_error(stride, max_length, max_length - 3)
    return DatasetDict({name: _encode_words(split, tokenizer, max_length, stride) for name, split in dataset.items()})


def _encode_words(split: Dataset, tokenizer: BertTokenizerFast, max_length: int, stride: int) -> Dataset:
    def encode(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
        encoded = _pieces(rows["tokens"], tokenizer)
        windows: dict[str, list] = {"input_ids": [], "labels": [], "sentence": []}
        for i, sentence in enumerate(indices):
            pieces = word_windows(encoded["input_ids"][i], encoded.word_ids(i), rows["ner_tags"][i], max_length, stride)
            for ids, labels in pieces:
                windows["input_ids"].append([tokenizer.cls_token_id, *ids, tokenizer.sep_token_id])
                windows["labels"].append([-100, *labels, -100])
                windows["sentence"].append(sentence)
        windows["length"] = [len(ids) for ids in windows["input_ids"]]
        windows["attention_mask"] = [[1] * length for length in windows["length"]]
        return windows

    return _encoded(split, encode, with_indices=True, desc="tokenize")


def _pieces(sentences: Sequence[Sequence[str]], tokenizer: BertTokenizerFast) -> BatchEncoding:
    """The sentences' word pieces, [UNK] for words of which there are none: empty ones, blanks, control characters."""
    options = {"is_split_into_words": True, "add_special_tokens": False, "verbose": False}
    encoded = tokenizer(list(sentences), **options)
    seen = [set(encoded.word_ids(i)) for i in range(len(sentences))]
    if all(len(words) == len(sentence) for words, sentence in zip(seen, sentences, strict=True)):
        return encoded
    pairs = zip(sentences, seen, strict=True)
    readable = [[w if i in words else tokenizer.unk_token for i, w in enumerate(sentence)] for sentence, words in pairs]
    return tokenizer(readable, **options)


def word_windows(
    ids: Sequence[int], word_ids: Sequence[int], tags: Sequence[int], max_length: int, stride: int
) -> list[tuple[list[int], list[int]]]:
    """Pieces and labels of each window of one sentence that labels a word, without special tokens.

    `ids` and `word_ids` stand for the pieces of the whole sentence; `tags` for its words.
    """
    first = [i == 0 or word != word_ids[i - 1] for i, word in enumerate(word_ids)]
    labels = [tags[word] if begins else -100 for word, begins in zip(word_ids, first, strict=True)]
    room = max_length - 2
    starts = list(range(0, max(1, len(ids) - stride), room - stride))
    cuts = [0, *(start + stride // 2 for start in starts[1:]), len(ids)]
    windows = []
    for start, low, high in zip(starts, cuts, cuts[1:], strict=False):
        end = min(start + room, len(ids))
        own = [label if low <= i < high else -100 for i, label in enumerate(labels[start:end], start)]
        if set(own) != {-100}:  # amid one long word: nothing to learn, and the mean loss of nothing is NaN
            windows.append((list(ids[start:end]), own))
    return windows


def sentences_from_windows(
    predictions: np.ndarray, labels: np.ndarray, sentence: Sequence[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Predictions and labels of each sentence's words, from those of its windows in the order of the encoded rows.

    `predictions`: (windows, tokens) or (windows, tokens, classes); `labels`: (windows, tokens), −100 where there is no
    word; `sentence`: the encoded column. Both results hold one array a sentence, words first.
    """
    sentence, labels = np.asarray(sentence), np.asarray(labels)
    keep = labels != -100
    words = np.bincount(sentence, weights=keep.sum(axis=1)).astype(int)
    borders = np.cumsum(words)[:-1]
    return np.split(np.asarray(predictions)[keep], borders), np.split(labels[keep], borders)


def question_windows(
    questions: Sequence[str], contexts: Sequence[str], tokenizer: BertTokenizerFast, *, max_length: int, stride: int
) -> dict[str, list]:
    """[CLS] question [SEP] piece of the context [SEP], in windows of at most `max_length` tokens.

    Neighbouring windows share `stride` tokens of the context, so that an answer of up to so many stands whole in one.
    A question longer than half of the remaining tokens loses its last words. Of each window: `input_ids`,
    `token_type_ids`, `attention_mask`, `offset_mapping` (tokens, 2: the characters of the context that a token stands
    for, (0, 0) for tokens that are not of the context) and `example`, the number of its question.
    Raises ParameterError when `stride` leaves no room.
    """
    room = (max_length - 3 - stride) // 2  # for the question, and at least as much for the step between windows
    if stride < 0 or room < 1:
        raise _stride_error(stride, max_length, max_length - 5)
    encoded = tokenizer(
        _cut_words(questions, tokenizer, room),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
    )
    return {
        **{name: encoded[name] for name in ("input_ids", "token_type_ids", "attention_mask")},
        "offset_mapping": [np.array(e.offsets) * np.array(e.type_ids)[:, None] for e in encoded.encodings],
        "example": encoded["overflow_to_sample_mapping"],
    }


def _cut_words(texts: Sequence[str], tokenizer: BertTokenizerFast, limit: int) -> list[str]:
    """Each text up to the last word that ends within `limit` tokens."""
    encodings = tokenizer(list(texts), add_special_tokens=False).encodings
    return [
        text if len(e.ids) <= limit else text[: e.word_to_chars(e.word_ids[limit])[0]]
        for text, e in zip(texts, encodings, strict=True)
    ]


def _answer_positions(windows: Sequence[np.ndarray], start: int, end: int) -> list[tuple[int, int]]:
    """First and last token of the context's characters `start` to `end` in each window's offsets (tokens, 2)."""
    tokens = [np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start)) for offsets in windows]
    reach = [(w[t[0], 0], w[t[-1], 1]) if len(t) else None for w, t in zip(windows, tokens, strict=True)]
    seen = [span for span in reach if span]
    # Whole is the answer where its tokens reach as far to both sides as they do in any window.
    whole = (min(first for first, _ in seen), max(last for _, last in seen)) if seen else ()
    return [(int(t[0]), int(t[-1])) if span == whole else (0, 0) for t, span in zip(tokens, reach, strict=True)]


def lost_answers(encoded: Dataset) -> dict[str, float]:
    """Share of the questions of one encoded split whose answer is whole in no window, and not in the first one.

    `windows` is what training with all windows loses, `truncation` what cutting contexts off at `max_length` would.
    """
    example = np.asarray(encoded["example"])
    found = np.asarray(encoded["start_positions"]) > 0
    first = np.append(True, example[1:] != example[:-1])
    return {
        "windows": 1 - len(np.unique(example[found])) / int(first.sum()),
        "truncation": float(1 - found[first].mean()),
    }


def check_max_length(max_length: int, tokenizer: BertTokenizerFast) -> None:
    """Raise ParameterError unless the model has a position for each of `max_length` tokens."""
    if not 3 <= max_length <= tokenizer.model_max_length:
        fix = f"this model takes 3 to {tokenizer.model_max_length} tokens a text"
        raise ParameterError(f"is {max_length}", parameter="MAX_LENGTH", fix=fix)


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
