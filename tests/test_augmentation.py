import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertConfig, BertForMaskedLM

from bert_helpers import DataError, ModelError, data, models
from bert_helpers.diagnosis import augmentation

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["rare", "common", "never"])})


@pytest.fixture
def train():
    texts = [f"a quick brown fox number {i} jumps over the lazy dog" for i in range(20)]
    return Dataset.from_dict({"text": texts, "label": [0] * 3 + [1] * 17}, features=FEATURES)


def test_oversampling_evens_the_classes_and_keeps_every_row(train):
    more = augmentation.oversample(train)
    assert more.to_list()[:20] == train.to_list()
    assert np.bincount(more["label"]).tolist() == [17, 17]
    assert {row["text"] for row in more.to_list()[20:]} <= set(train["text"][:3])
    assert more.features == train.features
    assert augmentation.oversample(train).to_list() == more.to_list()
    assert augmentation.oversample(train, seed=1).to_list() != more.to_list()


def test_oversampling_evens_entity_types():
    tags = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=tags))})
    rows = {"tokens": [["Ann"]] * 10 + [["Rome"]] + [["it"]], "ner_tags": [[3]] * 10 + [[1]] + [[0]]}
    more = augmentation.oversample(Dataset.from_dict(rows, features=features))
    counts = np.bincount([tag for row in more["ner_tags"] for tag in row])
    assert counts[1] == counts[3] == 10


def test_types_that_only_occur_together_end_the_drawing():
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-A", "B-B"]))})
    both = Dataset.from_dict({"tokens": [["x", "y", "z"]], "ner_tags": [[1, 2, 2]]}, features=features)
    assert len(augmentation.oversample(both)) <= 23


def test_versions_lose_or_swap_a_tenth_of_their_words(train):
    more = augmentation.augment(train, share=0.2, copies=2)
    assert len(more) == 60
    assert more.to_list()[:20] == train.to_list()
    assert more["label"] == list(train["label"]) * 3
    for row in range(20):
        words = train[row]["text"].split()
        versions = [more[20 + row]["text"].split(), more[40 + row]["text"].split()]
        swapped, shorter = versions if row % 2 == 0 else versions[::-1]
        assert sorted(swapped) == sorted(words)
        assert swapped != words
        assert shorter == [word for word in words if word in shorter]
    lengths = [
        len(text.split())
        for text in augmentation.augment(train, share=0.2, change=augmentation.delete_words)["text"][20:]
    ]
    assert np.mean(lengths) == pytest.approx(11 * 0.8, abs=0.8)  # 11 words; 20 texts
    assert augmentation.augment(train).to_list() == augmentation.augment(train).to_list()


def test_a_text_never_loses_its_last_word():
    rng = np.random.default_rng(0)
    assert all(augmentation.delete_words(["one"], rng, share=0.99) == ["one"] for _ in range(50))
    assert augmentation.swap_words(["one"], rng) == ["one"]


def test_both_texts_of_a_pair_change():
    pairs = data.load_pairs("sample", train_size=4)["train"]
    more = augmentation.augment(pairs, share=0.3, change=augmentation.swap_words)
    assert more["label"] == list(pairs["label"]) * 2
    for old, new in zip(pairs, more.select(range(4, 8)), strict=True):
        assert new["text"] != old["text"]
        assert sorted(new["text"].split()) == sorted(old["text"].split())
        assert new["text_pair"] != old["text_pair"]


def test_what_has_no_text_or_class_is_refused(train):
    numbers = Dataset.from_dict({"question": ["Who?"], "context": ["Ann."]})
    with pytest.raises(DataError, match="needs a column of texts"):
        augmentation.augment(numbers)
    with pytest.raises(DataError, match="needs a column of classes"):
        augmentation.oversample(numbers)


def test_words_are_replaced_by_the_masked_language_model(train, tokenizer):
    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = BertForMaskedLM(config)
    wanted = tokenizer.convert_tokens_to_ids("cat")
    with torch.no_grad():
        model.cls.predictions.decoder.bias.zero_()
        model.cls.predictions.bias.zero_()
        model.cls.predictions.bias[wanted] = 100.0
    more = augmentation.replace_words(train, model, tokenizer, share=0.3, batch_size=8)
    assert len(more) == 40
    assert more["label"] == list(train["label"]) * 2
    assert more.to_list()[:20] == train.to_list()
    changed = [
        (old, new)
        for before, after in zip(train["text"], more["text"][20:], strict=True)
        for old, new in zip(before.split(), after.split(), strict=True)
        if old != new
    ]
    assert {new for _, new in changed} == {"cat"}
    assert 0.2 < len(changed) / (20 * 11) < 0.4
    again = augmentation.replace_words(train, model, tokenizer, share=0.3, batch_size=8)
    assert again.to_list() == more.to_list()


def test_a_model_without_that_head_is_refused():
    with pytest.raises(ModelError, match="weights are missing"):
        models.load_model(models.DEFAULT_MODEL, BertForMaskedLM)
