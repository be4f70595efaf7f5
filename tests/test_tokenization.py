import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from bert_helpers import ParameterError, models, tokenization


def test_rows_are_those_of_the_tokenizer_and_nothing_is_padded(small_dataset, tokenizer):
    encoded = tokenization.encode_texts(small_dataset, tokenizer, max_length=32)
    for row, source in zip(encoded["train"], small_dataset["train"], strict=True):
        whole = tokenizer(source["text"])["input_ids"]
        assert row["input_ids"] == tokenizer(source["text"], truncation=True, max_length=32)["input_ids"]
        assert row["labels"] == source["label"]
        assert row["length"] == len(row["input_ids"]) == sum(row["attention_mask"]) <= 32
        assert row["whole_length"] == len(whole)


def test_a_decoded_row_is_the_text(small_dataset):
    tokenizer = models.load_tokenizer(models.DEFAULT_MODEL)
    encoded = tokenization.encode_texts(small_dataset, tokenizer, max_length=512)
    text = tokenizer.decode(encoded["test"][0]["input_ids"])
    assert text.startswith("[CLS] ")
    assert text.endswith(" [SEP]")
    assert small_dataset["test"]["text"][0].split()[0].lower().strip(".,;:'’") in text


@pytest.mark.parametrize("max_length", [0, 2, 65, 10_000])
def test_a_length_the_model_cannot_take_is_refused(max_length, small_dataset, tokenizer):
    with pytest.raises(ParameterError, match=f"MAX_LENGTH is {max_length}.*3 to 64"):
        tokenization.encode_texts(small_dataset, tokenizer, max_length=max_length)


def test_padding_share_by_hand():
    assert tokenization.padding_share([2, 4, 6], batch_size=2) == pytest.approx(2 / 14)
    assert tokenization.padding_share([2, 4, 6], batch_size=2, pad_to=8) == pytest.approx(12 / 24)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=200), st.integers(1, 32))
def test_sorting_never_adds_padding_and_a_fixed_length_never_saves_any(lengths, batch_size):
    lengths = lengths[: len(lengths) // batch_size * batch_size] or lengths[:1]  # a short last batch may gain by chance
    as_given = tokenization.padding_share(lengths, batch_size=batch_size)
    assert tokenization.padding_share(np.sort(lengths)[::-1], batch_size=batch_size) <= as_given + 1e-12
    assert as_given <= tokenization.padding_share(lengths, batch_size=batch_size, pad_to=512) + 1e-12


def test_what_is_kept_of_a_long_text(tokenizer):
    texts = ["one two three four five six seven eight nine ten", "one"]
    dataset = DatasetDict(train=Dataset.from_dict({"text": texts, "label": [0, 1]}))
    for keep, kept in (("head", "one two three four five six"), ("tail", "five six seven eight nine ten"),
                       ("head+tail", "one six seven eight nine ten")):  # fmt: skip
        rows = tokenization.encode_texts(dataset, tokenizer, max_length=8, truncation=keep)["train"]
        assert tokenizer.decode(rows[0]["input_ids"]) == f"[CLS] {kept} [SEP]"
        assert tokenizer.decode(rows[1]["input_ids"]) == "[CLS] one [SEP]"
        assert rows["whole_length"] == [12, 3]
