import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from made_up import tagged

from bert_helpers import DataError, ParameterError
from bert_helpers.diagnosis import fixes
from bert_helpers.tasks.registry import TASKS

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["rare", "common", "never"])})


@pytest.fixture
def train():
    texts = [f"a quick brown fox number {i} jumps over the lazy dog" for i in range(20)]
    return Dataset.from_dict({"text": texts, "label": [0] * 3 + [1] * 17}, features=FEATURES)


def test_rows_are_removed_and_relabelled(clean):
    train = clean["train"]
    fixed = fixes.apply_fix(
        clean, {"relabel_rows": {1: 1 - train[1]["label"]}, "remove_rows": [0], "LEARNING_RATE": 1.0}
    )
    assert len(fixed["train"]) == len(train) - 1
    assert fixed["train"][0] == {"text": train[1]["text"], "label": 1 - train[1]["label"]}
    assert fixed["train"].features == train.features
    assert fixed["test"].to_list() == clean["test"].to_list()
    with pytest.raises(ParameterError, match="would leave no training row"):
        fixes.apply_fix(clean, {"remove_rows": range(200)})


def test_moved_tags_stay_legal():
    dataset = tagged([(["a", "b", "c", "d"], ["O", "B-PER", "I-PER", "O"]), (["e"], ["B-LOC"])])
    names = dataset.features["ner_tags"].feature.names
    left, right = (fixes.shift_tags(dataset, places)["ner_tags"] for places in (-2, 2))
    assert [[names[i] for i in row] for row in left] == [["B-PER", "O", "O", "O"], ["O"]]
    assert [[names[i] for i in row] for row in right] == [["O", "O", "O", "B-PER"], ["O"]]


def test_new_splits_have_the_old_sizes_and_all_rows(clean):
    fixed = fixes.apply_fix(clean, {"redraw_splits": True})
    assert {name: len(split) for name, split in fixed.items()} == {"train": 200, "validation": 100, "test": 100}
    before, after = (sorted(text for split in rows.values() for text in split["text"]) for rows in (clean, fixed))
    assert after == before
    assert fixed["test"]["text"] != clean["test"]["text"]


def test_oversampling_balances_the_classes_and_loses_no_row(train):
    more = fixes.oversample(train)
    assert more.to_list()[:20] == train.to_list()
    assert np.bincount(more["label"]).tolist() == [17, 17]
    assert {row["text"] for row in more.to_list()[20:]} <= set(train["text"][:3])
    assert more.features == train.features
    assert fixes.oversample(train).to_list() == more.to_list()
    assert fixes.oversample(train, seed=1).to_list() != more.to_list()


def test_oversampling_balances_entity_types():
    tags = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=tags))})
    rows = {"tokens": [["Ann"]] * 10 + [["Rome"]] + [["it"]], "ner_tags": [[3]] * 10 + [[1]] + [[0]]}
    more = fixes.oversample(Dataset.from_dict(rows, features=features))
    counts = np.bincount([tag for row in more["ner_tags"] for tag in row])
    assert counts[1] == counts[3] == 10


def test_types_that_only_occur_together_end_the_oversampling():
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-A", "B-B"]))})
    both = Dataset.from_dict({"tokens": [["x", "y", "z"]], "ner_tags": [[1, 2, 2]]}, features=features)
    assert len(fixes.oversample(both)) <= 23


def test_versions_lose_or_swap_a_share_of_their_words(train):
    more = fixes.augment(train, share=0.2)
    assert len(more) == 40
    assert more.to_list()[:20] == train.to_list()
    assert more["label"] == list(train["label"]) * 2
    for row in range(20):
        words, version = train[row]["text"].split(), more[20 + row]["text"].split()
        if row % 2:
            assert version == [word for word in words if word in version]
        else:
            assert sorted(version) == sorted(words)
            assert version != words
    assert np.mean([len(text.split()) for text in more["text"][21::2]]) == pytest.approx(11 * 0.8, abs=1)
    assert fixes.augment(train).to_list() == fixes.augment(train).to_list()


def test_a_text_never_loses_its_last_word():
    rng = np.random.default_rng(0)
    assert all(fixes.delete_words(["one"], rng, share=0.99) == ["one"] for _ in range(50))
    assert fixes.swap_words(["one"], rng) == ["one"]


def test_both_texts_of_a_pair_change():
    pairs = TASKS["regression"].load("sample", train_size=4)["train"]
    more = fixes.augment(pairs, share=0.3)
    assert more["label"] == list(pairs["label"]) * 2
    for old, new in list(zip(pairs, more.select(range(4, 8)), strict=True))[::2]:  # the other half loses words
        assert new["text"] != old["text"]
        assert sorted(new["text"].split()) == sorted(old["text"].split())
        assert new["text_pair"] != old["text_pair"]


def test_what_has_no_text_or_class_is_refused():
    numbers = Dataset.from_dict({"question": ["Who?"], "context": ["Ann."]})
    with pytest.raises(DataError, match="needs a column of texts"):
        fixes.augment(numbers)
    with pytest.raises(DataError, match="needs a column of classes"):
        fixes.oversample(numbers)
