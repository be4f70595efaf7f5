"""The checks of rows, apart from whether each finding is made: fixes, false alarms, all kinds of rows."""

import numpy as np
import pytest
from datasets import DatasetDict, concatenate_datasets
from made_up import WORDS, examples, labelled, names, people, reviews, splits, tagged

from bert_helpers.diagnosis import checks_data, fixes
from bert_helpers.evaluation.comparison import mcnemar
from bert_helpers.tasks.base import Examples
from bert_helpers.tasks.registry import TASKS


def test_rows_without_a_fault_have_no_finding(clean):
    assert checks_data.check_dataset(clean, task="classification", difference=0.15) == []
    assert checks_data.check_dataset(clean, task=TASKS["classification"]) == []


def test_constant_labels_of_an_evaluation_split_are_fixed_by_new_splits(clean):
    one = clean["test"].filter(lambda row: row["label"] == 0, load_from_cache_file=False)
    (found,) = checks_data.check_labels(examples(splits(clean["train"], clean["validation"], one)))
    assert (found.name, found.fix) == ("constant_labels", {"redraw_splits": True})
    alone = clean["test"].select([0])
    assert checks_data.check_labels(examples(splits(clean["train"], alone))) == []
    (found,) = checks_data.check_labels(examples(splits(alone, clean["test"])))
    assert (found.name, found.fix) == ("constant_labels", {})


def test_sentences_without_an_entity_have_constant_labels(rng):
    none = tagged([(["it", "ran"], ["O", "O"])] * 20)
    (found,) = checks_data.check_labels(examples(splits(none, people(rng)), "ner"))
    assert (found.name, found.fix) == ("constant_labels", {})


def test_an_entity_type_that_is_rare():
    def rows(places):
        return tagged([(["Ann", "ran"], ["B-PER", "O"])] * (100 - places) + [(["Rome"], ["B-LOC"])] * places)

    for places, expected in ((9, ["class_imbalance"]), (10, [])):
        assert names(checks_data.check_labels(examples(splits(rows(places), rows(50)), "ner"))) == expected


# --- repeated texts ----------------------------------------------------------------------------------------


def test_a_leak_is_fixed_by_removing_the_training_rows(clean):
    """All that repeat one: one of the texts is there three times, once with a word before it."""
    copies = clean["test"].select([0, 1, 2, 3, 4, 0, 0])
    near = [f"again {text}" if i == 6 else text for i, text in enumerate(copies["text"])]
    parts = [clean["train"], labelled(near, copies["label"]), clean["validation"].select(range(3))]
    dataset = DatasetDict({**clean, "train": concatenate_datasets(parts)})
    (found,) = checks_data.check_duplicates(examples(dataset))
    assert found.symptom == "3 of 100 validation rows and 5 of 100 test rows are among the training rows too"
    assert found.fix == {"remove_rows": list(range(200, 210))}
    assert not [*checks_data.check_duplicates(examples(fixes.apply_fix(dataset, found.fix)))]


def test_of_one_text_with_two_labels_both_rows_are_removed(clean):
    train = clean["train"]
    again = labelled(train["text"][:3], [1 - label for label in train["label"][:3]])
    dataset = DatasetDict({**clean, "train": concatenate_datasets([train, again])})
    (found,) = checks_data.check_duplicates(examples(dataset))
    assert found.fix == {"remove_rows": [0, 1, 2, 200, 201, 202]}
    assert not [*checks_data.check_duplicates(examples(fixes.apply_fix(dataset, found.fix)))]


def test_contexts_leak_and_questions_are_duplicates():
    dataset = TASKS["qa"].load("sample", train_size=30)
    assert not [*checks_data.check_duplicates(examples(dataset, "qa"))]
    train = dataset["train"]
    again = train.select(range(2)).map(lambda row: {"id": row["id"] + "-2"}, load_from_cache_file=False)
    repeated = DatasetDict({**dataset, "train": concatenate_datasets([train, again])})
    (found,) = checks_data.check_duplicates(examples(repeated, "qa"))
    assert (found.name, found.fix) == ("duplicates", {"remove_rows": [30, 31]})
    test = dataset["test"].select(range(4))
    leaking = DatasetDict({**dataset, "train": concatenate_datasets([train, test]), "test": test})
    assert len(set(test["context"])) < 4  # several questions on one context
    (found,) = checks_data.check_duplicates(examples(leaking, "qa"))
    assert (found.name, found.fix) == ("leakage", {"remove_rows": [30, 31, 32, 33]})


def test_repeated_texts_share_seven_tenths_of_their_word_triples():
    text = " ".join(f"w{i}" for i in range(40))
    near = text.replace("w10 ", "x ").replace("w30 ", "y ")  # 32 of 44 triples are shared
    far = near.replace("w20 ", "z ")  # 29 of 47
    assert checks_data.Texts([text]).similar([near.upper() + "!", far]) == {0: {0}}
    assert checks_data.Texts([text, "other words", near]).repeated() == [2]
    assert checks_data.Texts([text, near, text]).repeated(exact=True) == [2]
    short = ["seven words are too few to count"] * 2
    assert (checks_data.Texts(short).repeated(), checks_data.Texts(short).similar(short)) == ([], {})


# --- splits ------------------------------------------------------------------------------------------------


def test_as_many_test_rows_as_are_needed(clean):
    assert not [*checks_data.check_evaluation_size(clean, difference=None)]
    for difference in (0.001, 0.02, 0.12):  # 0.001 is the least that DIFFERENCE may be
        (found,) = checks_data.check_evaluation_size(clean, difference=difference)
        assert checks_data.smallest_difference(needed := found.fix["TEST_SIZE"]) <= difference
        assert checks_data.smallest_difference(needed - 1) > difference


def test_the_smallest_difference_is_found_four_times_in_five(rng):
    rows, difference = 240, checks_data.smallest_difference(240)
    shares = [(0.2 + difference) / 2, (0.2 - difference) / 2, 0.8]
    p = [mcnemar(*map(int, rng.multinomial(rows, shares)[:2])) for _ in range(1000)]
    assert 0.74 < np.mean(np.array(p) < 0.05) < 0.86


def test_evaluation_rows_of_another_kind(rng, clean):
    other = splits(clean["train"], reviews(rng, 100, of=[*WORDS[:12], "quartz", "reef"]))
    (found,) = checks_data.check_same_distribution(examples(other))
    assert (found.name, found.fix) == ("different_evaluation", {"redraw_splits": True})
    assert found.evidence.value > found.evidence.threshold
    assert not [*checks_data.check_same_distribution(examples(clean))]
    assert not [*checks_data.check_same_distribution(examples(fixes.apply_fix(other, found.fix)))]


def test_random_divisions_are_called_different_as_often_as_is_said(monkeypatch):
    """Here once in 20; the areas under the curve of 40 and 40 rows reach 0.7 by chance alone."""
    monkeypatch.setattr(checks_data, "SHUFFLES", 19)
    monkeypatch.setattr(checks_data, "SEPARABLE", 0)
    task = TASKS["regression"]
    texts = [text for split in task.load("sample").values() for text in task.examples(split).texts]
    alarms = 0
    for seed in range(80):
        drawn = np.random.default_rng(seed).choice(texts, (2, 40), replace=False).tolist()
        area, chance = checks_data._separability(*(Examples(part, part, part, part) for part in drawn), seed)
        alarms += area > chance
    assert 1 <= alarms <= 8


# --- label noise -------------------------------------------------------------------------------------------


def test_the_wrong_labels_are_among_the_rows_to_remove(rng, clean):
    noisy = DatasetDict({**clean, "train": reviews(rng, noise=0.2)})
    (found,) = checks_data.check_label_noise(examples(noisy))
    assert found.evidence.value < found.evidence.threshold
    wrong = [i for i, row in enumerate(noisy["train"]) if ("good" in row["text"]) != row["label"]]
    listed = found.fix["remove_rows"]
    assert len(set(listed) & set(wrong)) >= 0.8 * len(wrong) >= 30
    assert not [*checks_data.check_label_noise(examples(clean))]


def test_noise_in_all_splits_counts_as_difficulty(rng):
    noisy = DatasetDict(
        {name: reviews(rng, rows, noise=0.2) for name, rows in (("train", 200), ("validation", 100), ("test", 100))}
    )
    assert not [*checks_data.check_label_noise(examples(noisy))]


def travellers(rng, rows, noise=0.0):
    """Make sentences with a person and a place, identified by the word before; `noise` is the share of wrong types."""
    made = []
    for _ in range(rows):
        words, tags = list(rng.choice(WORDS, 6)), ["O"] * 6
        for place, (cue, kinds) in zip((0, 3), (("Mr", "PER LOC"), ("in", "LOC PER")), strict=True):
            words[place : place + 2] = cue, rng.choice(["Ann", "Bob", "Lund", "Brask"])
            tags[place + 1] = "B-" + kinds.split()[int(rng.random() < noise)]
        made.append((words, tags))
    return tagged(made, types=("PER", "LOC"))


def test_wrong_types_of_entities(rng):
    evaluation = travellers(rng, 100)
    assert not [*checks_data.check_label_noise(examples(splits(travellers(rng, 200), evaluation), "ner"))]
    noisy = travellers(rng, 200, noise=0.15)
    (found,) = checks_data.check_label_noise(examples(splits(noisy, evaluation), "ner"))
    wrong = [i for i, tags in enumerate(noisy["ner_tags"]) if tags != evaluation[0]["ner_tags"]]
    listed = found.fix["remove_rows"]
    # The share of sentences listed is that of wrong entities, and nearly all of them are wrong.
    assert 0.1 * 200 <= len(listed) <= 0.2 * 200
    assert len(set(listed) & set(wrong)) >= 0.9 * len(listed)


def test_numbers_answers_and_several_labels_have_no_noise_to_find():
    for task in ("regression", "qa", "multilabel"):
        dataset = TASKS[task].load("sample", train_size=20)
        assert not [*checks_data.check_label_noise(examples(dataset, task))]


# --- tags --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [-1, 1])
def test_shifted_tags_are_shifted_back(places, rng):
    right = people(rng)
    dataset = splits(fixes.shift_tags(right, places), right)
    (found,) = checks_data.check_tags(examples(dataset, "ner")["train"])
    assert found.fix == {"shift_tags": -places}
    assert not [*checks_data.check_tags(examples(fixes.apply_fix(dataset, found.fix), "ner")["train"])]


def test_tags_that_fit_no_word_are_not_called_shifted(rng):
    rows = [(list(rng.choice(WORDS, 6)), list(rng.permutation(["B-PER", *"OOOOO"]))) for _ in range(60)]
    dataset = tagged(rows, types=("PER",))
    assert not [*checks_data.check_tags(examples(splits(dataset, dataset), "ner")["train"])]
