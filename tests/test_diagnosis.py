"""Each finding: the smallest case that makes it, and one that just does not."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, concatenate_datasets
from scipy.special import log_softmax
from transformers import BertForSequenceClassification

from bert_helpers import TrainingError, data, models, tasks, tokenization, training
from bert_helpers.diagnosis import checks_data, checks_model, checks_run, learning_rates, repairs
from bert_helpers.diagnosis import findings as diagnosis
from bert_helpers.evaluation import plots
from bert_helpers.tasks import regression

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "marsh",
    "north",
    "ocean",
    "pearl",
]


def names(findings):
    return [finding.name for finding in findings]


def sentence(rng, words=12, of=WORDS):
    return " ".join(rng.choice(of, words))


def labelled(texts, labels, classes=2):
    return Dataset.from_dict(
        {"text": texts, "label": labels},
        features=Features({"text": Value("string"), "label": ClassLabel(names=[f"c{i}" for i in range(classes)])}),
    )


def reviews(rng, rows=200, *, noise=0.0, words=12, of=WORDS):
    """Texts whose label one word tells; `noise` of the labels are wrong."""
    labels = rng.permutation(np.arange(rows) % 2)
    texts = [f"{sentence(rng, words, of)} {('bad', 'good')[label]} {sentence(rng, words, of)}" for label in labels]
    wrong = rng.permutation(rows) < round(noise * rows)
    return labelled(texts, np.where(wrong, 1 - labels, labels).tolist())


def splits(train, validation, test=None):
    return DatasetDict(train=train, validation=validation, test=test if test is not None else validation)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def clean(rng):
    return DatasetDict(
        {name: reviews(rng, rows) for name, rows in (("train", 200), ("validation", 100), ("test", 100))}
    )


# --- the list ----------------------------------------------------------------------------------------------


def finding(name, **fix):
    return diagnosis.Finding(name, "seen", diagnosis.Evidence(2.0, 1.0, "by hand"), "because", fix)


def test_data_stands_before_training_and_each_name_once():
    found = [finding("overfitting"), finding("label_noise", remove_rows=[1]), finding("overfitting", EPOCHS=2)]
    assert names(diagnosis.ranked(found)) == ["label_noise", "overfitting"]
    assert diagnosis.ranked(found)[1].fix == {}
    assert len(set(diagnosis.ORDER)) == len(diagnosis.ORDER)
    with pytest.raises(ValueError, match="not in tuple"):
        diagnosis.ranked([finding("hunger")])


def test_a_table_shows_evidence_and_fix():
    table = diagnosis.table([finding("label_noise", LEARNING_RATE=1e-5, remove_rows=[1, 2, 3, 4], shuffle=True)])
    assert table.loc["label_noise"].tolist() == [
        "seen", 2.0, 1.0, "by hand", "because", "LEARNING_RATE = 1e-05, remove_rows (4), shuffle",
    ]  # fmt: skip
    assert diagnosis.table([]).empty


def test_a_table_of_sentences_is_cut_between_words():
    table = pd.DataFrame({"text": ["three short words", "one two three four"], "confidence": [0.98765, 0.00008]})
    shown = plots.prose(table, width=17).to_html()
    for cell in ("three short words", "one two three …", "0.988", "8e-05"):
        assert f">{cell}<" in shown
    assert plots.prose(table, width=17).to_html() == shown
    assert repr(plots.prose(table, width=17)).splitlines()[1].split() == ["0", "three", "short", "words", "0.988"]


def test_a_fix_changes_parameters_and_leaves_actions_alone():
    assert diagnosis.changed({"EPOCHS": 3, "SEED": 0}, {"EPOCHS": 1, "shuffle": True}) == {"EPOCHS": 1, "SEED": 0}
    assert diagnosis.changed({"EPOCHS": 3, "RATE": 0.1}, {"EPOCHS_FACTOR": 2, "RATE_FACTOR": 0.5}) == {
        "EPOCHS": 6,
        "RATE": 0.05,
    }


def test_rows_at_random_have_no_finding(clean):
    assert checks_data.check_dataset(clean, task="classification", difference=0.15, shuffled=False) == []


# --- labels ------------------------------------------------------------------------------------------------


def test_constant_labels(clean):
    one = clean["test"].filter(lambda row: row["label"] == 0, load_from_cache_file=False)
    (found,) = checks_data.check_labels(splits(clean["train"], clean["validation"], one), task="classification")
    assert (found.name, found.fix) == ("constant_labels", {"redraw_splits": True})
    assert checks_data.check_labels(clean, task="classification") == []


@pytest.mark.parametrize(("rare", "expected"), [(9, ["class_imbalance"]), (10, [])])
def test_class_imbalance(rare, expected, clean):
    train = labelled(["text"] * 100, [1] * rare + [0] * (100 - rare))
    found = checks_data.check_labels(splits(train, clean["test"]), task="classification")
    assert names(found) == expected


def tagged(rows, types=("PER", "LOC")):
    tags = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=tags))})
    words, labels = zip(*rows, strict=True)
    return Dataset.from_dict(
        {"tokens": list(words), "ner_tags": [[tags.index(t) for t in row] for row in labels]}, features=features
    )


def test_an_entity_type_that_is_rare(rng):
    def rows(places):
        return tagged([(["Ann", "ran"], ["B-PER", "O"])] * (100 - places) + [(["Rome"], ["B-LOC"])] * places)

    for places, expected in ((9, ["class_imbalance"]), (10, [])):
        assert names(checks_data.check_labels(splits(rows(places), rows(50)), task="ner")) == expected


def test_sorted_labels(rng, clean):
    labels = np.arange(40) // 20
    for order, shuffled, expected in ((labels, False, ["sorted_labels"]), (labels, True, []),
                                      (rng.permutation(labels), False, [])):  # fmt: skip
        dataset = splits(labelled(["text"] * 40, order.tolist()), clean["test"])
        assert names(checks_data.check_labels(dataset, task="classification", shuffled=shuffled)) == expected


def test_random_order_is_called_sorted_once_in_a_thousand(rng):
    labels = np.arange(200) % 2
    alarms = sum(bool(checks_data._sortedness(rng.permutation(labels).astype(float))) for _ in range(5000))
    assert alarms <= 14  # 5 expected; over 14 has a chance of 1 in 5,000


# --- twins -------------------------------------------------------------------------------------------------


def test_leakage_and_its_fix(rng, clean):
    for copies, expected in ((2, ["leakage"]), (1, [])):
        leaking = DatasetDict(
            {**clean, "train": concatenate_datasets([clean["train"], clean["test"].select(range(copies))])}
        )
        found = checks_data.check_duplicates(leaking, task="classification")
        assert names(found) == expected
    dataset = DatasetDict({**clean, "train": concatenate_datasets([clean["train"], clean["test"].select(range(5))])})
    (found,) = checks_data.check_duplicates(dataset, task="classification")
    assert found.fix == {"remove_rows": [200, 201, 202, 203, 204]}
    assert checks_data.check_duplicates(repairs.mend(dataset, found.fix), task="classification") == []


def test_duplicates(clean):
    for copies, expected in ((11, ["duplicates"]), (10, [])):
        train = concatenate_datasets([clean["train"], clean["train"].select(range(copies))])
        dataset = DatasetDict({**clean, "train": train})
        assert names(checks_data.check_duplicates(dataset, task="classification")) == expected


def test_leaks_into_both_splits_are_told_and_mended_together(clean):
    parts = [clean["train"], clean["test"].select(range(5)), clean["validation"].select(range(3))]
    dataset = DatasetDict({**clean, "train": concatenate_datasets(parts)})
    (found,) = checks_data.check_duplicates(dataset, task="classification")
    rows = {name: len(clean[name]) for name in ("validation", "test")}
    assert found.symptom == (
        f"3 of {rows['validation']} validation rows and 5 of {rows['test']} test rows stand among the training rows too"
    )
    assert found.fix == {"remove_rows": list(range(200, 208))}
    assert checks_data.check_duplicates(repairs.mend(dataset, found.fix), task="classification") == []


def test_one_text_with_two_labels(clean):
    train = clean["train"]
    for rows, expected in ((2, ["contradicting_labels"]), (1, [])):  # of 202 and 201, two rows to a text
        again = labelled(train["text"][:rows], [1 - label for label in train["label"][:rows]])
        dataset = DatasetDict({**clean, "train": concatenate_datasets([train, again])})
        found = checks_data.check_duplicates(dataset, task="classification")
        assert names(found) == expected
    dataset = DatasetDict(
        {
            **clean,
            "train": concatenate_datasets(
                [train, labelled(train["text"][:3], [1 - label for label in train["label"][:3]])]
            ),
        }
    )
    (found,) = checks_data.check_duplicates(dataset, task="classification")
    assert found.fix == {"remove_rows": [0, 1, 2, 200, 201, 202]}
    assert checks_data.check_duplicates(repairs.mend(dataset, found.fix), task="classification") == []


def test_twins_share_seven_tenths_of_their_word_triples():
    text = " ".join(f"w{i}" for i in range(40))
    near = text.replace("w10 ", "x ").replace("w30 ", "y ")  # 32 of 44 triples are shared
    far = near.replace("w20 ", "z ")  # 29 of 47
    assert checks_data.near_duplicates([near.upper() + "!", far], [text]) == {0: 0}
    assert checks_data.near_duplicates([text, "other words", near]) == {2: 0}
    assert checks_data.near_duplicates(["seven words are too few to count"] * 2) == {}
    assert checks_data.near_duplicates([near], [text], exact=True) == {}


# --- splits ------------------------------------------------------------------------------------------------


def test_small_evaluation(clean):
    assert checks_data.check_evaluation_size(clean, difference=None) == []
    assert checks_data.check_evaluation_size(clean, difference=0.125) == []
    (found,) = checks_data.check_evaluation_size(clean, difference=0.12)
    assert found.name == "small_evaluation"
    assert checks_data.smallest_difference(found.fix["TEST_SIZE"]) <= 0.12


def test_the_smallest_difference_is_found_four_times_in_five(rng):
    from bert_helpers.evaluation.comparison import mcnemar

    rows, difference = 240, checks_data.smallest_difference(240)
    shares = [(0.2 + difference) / 2, (0.2 - difference) / 2, 0.8]
    p = [mcnemar(*map(int, rng.multinomial(rows, shares)[:2])) for _ in range(1000)]
    assert 0.74 < np.mean(np.array(p) < 0.05) < 0.86


def test_evaluation_rows_of_another_kind(rng, clean):
    other = reviews(rng, 100, of=[*WORDS[:12], "quartz", "reef"])
    (found,) = checks_data.check_same_distribution(splits(clean["train"], other), task="classification")
    assert (found.name, found.fix) == ("different_evaluation", {"redraw_splits": True})
    assert found.evidence.value > found.evidence.threshold
    assert checks_data.check_same_distribution(clean, task="classification") == []
    mended = repairs.mend(splits(clean["train"], other), found.fix)
    assert checks_data.check_same_distribution(mended, task="classification") == []


def test_labels_that_are_distributed_otherwise(rng):
    texts = [sentence(rng) for _ in range(300)]
    for positives, expected in ((80, ["different_evaluation"]), (59, [])):
        dataset = splits(
            labelled(texts[:200], [0, 1] * 100), labelled(texts[200:], [1] * positives + [0] * (100 - positives))
        )
        assert names(checks_data.check_same_distribution(dataset, task="classification")) == expected


# --- label noise -------------------------------------------------------------------------------------------


def test_label_noise(rng, clean):
    noisy = DatasetDict({**clean, "train": reviews(rng, noise=0.2)})
    (found,) = checks_data.check_label_noise(noisy, task="classification")
    assert found.name == "label_noise"
    assert found.evidence.value < found.evidence.threshold
    wrong = [i for i, row in enumerate(noisy["train"]) if ("good" in row["text"]) != row["label"]]
    listed = found.fix["remove_rows"]
    assert len(set(listed) & set(wrong)) >= 0.8 * len(wrong) >= 30
    assert checks_data.check_label_noise(clean, task="classification") == []


def test_noise_in_all_splits_counts_as_difficulty(rng):
    noisy = DatasetDict(
        {name: reviews(rng, rows, noise=0.2) for name, rows in (("train", 200), ("validation", 100), ("test", 100))}
    )
    assert checks_data.check_label_noise(noisy, task="classification") == []


def travellers(rng, rows, noise=0.0):
    """Sentences about a person and a place, told apart by the word before; of `noise` entities the type is wrong."""
    made = []
    for _ in range(rows):
        words, tags = list(rng.choice(WORDS, 6)), ["O"] * 6
        for place, (cue, kinds) in zip((0, 3), (("Mr", "PER LOC"), ("in", "LOC PER")), strict=True):
            words[place : place + 2] = cue, rng.choice(["Ann", "Bob", "Lund", "Brask"])
            tags[place + 1] = "B-" + kinds.split()[int(rng.random() < noise)]
        made.append((words, tags))
    return tagged(made, types=("PER", "LOC"))


def test_wrong_types_of_entities(rng):
    held_out = travellers(rng, 100)
    assert checks_data.check_label_noise(splits(travellers(rng, 200), held_out), task="ner") == []
    noisy = travellers(rng, 200, noise=0.15)
    (found,) = checks_data.check_label_noise(splits(noisy, held_out), task="ner")
    wrong = [i for i, tags in enumerate(noisy["ner_tags"]) if tags != held_out[0]["ner_tags"]]
    listed = found.fix["remove_rows"]
    # As many sentences in a hundred as entities are wrong, and these are wrong ones
    assert 0.1 * 200 <= len(listed) <= 0.2 * 200
    assert len(set(listed) & set(wrong)) >= 0.9 * len(listed)


# --- tags --------------------------------------------------------------------------------------------------


def people(rng, rows=60):
    made = []
    for _ in range(rows):
        words, place = list(rng.choice(WORDS, 6)), rng.integers(0, 6)
        words[place] = rng.choice(["Ann", "Bob", "Eve"])
        made.append((words, ["B-PER" if i == place else "O" for i in range(6)]))
    return tagged(made, types=("PER",))


@pytest.mark.parametrize("places", [-1, 1])
def test_shifted_tags(places, rng):
    right = people(rng)
    dataset = splits(repairs.shift_tags(right, places), right)
    (found,) = checks_data.check_tags(dataset)
    assert found.name == "shifted_tags"
    assert found.fix == {"shift_tags": -places}
    assert checks_data.check_tags(splits(right, right)) == []
    assert checks_data.check_tags(repairs.mend(dataset, found.fix)) == []


def test_tags_that_fit_no_word_are_not_called_shifted(rng):
    rows = [(list(rng.choice(WORDS, 6)), list(rng.permutation(["B-PER", *"OOOOO"]))) for _ in range(60)]
    dataset = tagged(rows, types=("PER",))
    assert checks_data.check_tags(splits(dataset, dataset)) == []


# --- tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unknown", "expected"), [(2, ["unknown_tokens"]), (1, [])])
def test_unknown_tokens(unknown, expected, tokenizer):
    ids = (
        [tokenizer.cls_token_id]
        + [tokenizer.unk_token_id] * unknown
        + [2000] * (100 - unknown)
        + [tokenizer.sep_token_id]
    )
    assert names(checks_model.check_unknown(Dataset.from_dict({"input_ids": [ids]}), tokenizer)) == expected


def test_capitals_for_a_vocabulary_without_any(tiny_bert, clean):
    from transformers import BertTokenizerFast

    cased = BertTokenizerFast.from_pretrained(tiny_bert, do_lower_case=False)
    cased.model_max_length = 64
    shouted = clean.map(lambda row: {"text": row["text"].title()}, load_from_cache_file=False)
    encoded = tokenization.encode_texts(shouted, cased, max_length=64)
    assert "unknown_tokens" in names(checks_model.check_tokens(shouted, encoded, cased, task="classification"))


def test_truncation_of_more_than_half(clean, tokenizer):
    for max_length, expected in ((14, ["truncation"]), (64, [])):
        encoded = tokenization.encode_texts(clean, tokenizer, max_length=max_length)
        found = checks_model.check_tokens(clean, encoded, tokenizer, task="classification")
        assert names(found) == expected
    assert checks_model._longer(np.array([40, 50]), tokenizer) == {"MAX_LENGTH": 64}
    assert checks_model._longer(np.array([100, 200]), tokenizer) == {"MAX_LENGTH": 64, "TRUNCATION": "head+tail"}


def test_truncation_of_the_words_that_tell(rng, tokenizer):
    """A third of the text is cut off: harmful if the label is told there, harmless if before."""
    for where, expected in ((slice(None), ["truncation"]), (slice(None, None, -1), [])):
        texts = [" ".join([sentence(rng), ("bad", "good")[i % 2]][where]) for i in range(100)]
        dataset = splits(labelled(texts, [0, 1] * 50), labelled(texts, [0, 1] * 50))
        pieces = [len(tokenizer(text)["input_ids"]) for text in texts]
        encoded = tokenization.encode_texts(dataset, tokenizer, max_length=min(pieces) - 1)
        found = checks_model.check_truncation(dataset["train"], encoded["train"], tokenizer, task="classification")
        assert names(found) == expected


def questions(answer_words):
    context = " ".join(f"w{i}" for i in range(60))
    answer = " ".join(f"w{i}" for i in range(20, 20 + answer_words))
    row = {"id": "1", "question": "Which?", "context": context,
           "answers": {"text": [answer], "answer_start": [context.index(answer)]}}  # fmt: skip
    split = Dataset.from_list([row])
    return splits(split, split)


def test_lost_answers(tokenizer):
    for answer_words, expected in ((20, ["lost_answers"]), (2, [])):
        dataset = questions(answer_words)
        encoded = tokenization.encode_questions(dataset, tokenizer, max_length=32, stride=10)
        assert names(checks_model.check_tokens(dataset, encoded, tokenizer, task="qa")) == expected


def test_padding_waste(tokenizer):
    lengths = [10, 40] * 16

    def rows(pad_to=0):
        ids = [[5] * length + [0] * max(0, pad_to - length) for length in lengths]
        masks = [[1] * length + [0] * max(0, pad_to - length) for length in lengths]
        return Dataset.from_dict({"input_ids": ids, "attention_mask": masks})

    (found,) = checks_model.check_padding(rows(), batch_size=16, sampling="random")
    assert (found.name, found.fix) == ("padding_waste", {"group_by_length": True})
    (found,) = checks_model.check_padding(rows(40), batch_size=16, sampling="group_by_length")
    assert found.fix == {"pad_by_batch": True, "group_by_length": True}
    assert found.evidence.value == pytest.approx(32 * 40 / (16 * 10 + 16 * 40))
    assert checks_model.check_padding(rows(), batch_size=16, sampling="group_by_length") == []
    assert checks_model.check_padding(rows(), batch_size=1, sampling="random") == []


# --- the model on one batch --------------------------------------------------------------------------------


@pytest.fixture
def trainer(tiny_bert, clean, tokenizer, tmp_path):
    encoded = tokenization.encode_texts(clean, tokenizer, max_length=64)
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=2)
    args = training.training_arguments(tmp_path, precision="fp32", disable_tqdm=True, batch_size=8)
    return training.make_trainer(model, args, encoded, task="classification", tokenizer=tokenizer)


def check(trainer, check, **options):
    batch = checks_model.batch_of(trainer, np.arange(8))
    return names(check(trainer, batch, **options))


def test_a_sound_model_has_no_finding_and_is_left_as_it_was(trainer):
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    assert checks_model.check_model(trainer, task="classification") == []
    assert all(tensor.equal(before[name]) for name, tensor in trainer.model.state_dict().items())
    assert all(weights.grad is None for weights in trainer.model.parameters())
    assert torch.get_rng_state().equal(state)


def test_sound_models_of_the_other_tasks(tiny_bert, tokenizer, tmp_path):
    args = training.training_arguments(tmp_path, precision="fp32", disable_tqdm=True)
    loaded = {
        "regression": data.load_pairs("sample", train_size=40),
        "ner": data.load_entities("sample", train_size=40),
        "qa": data.load_questions("sample", train_size=40),
    }
    tags = loaded["ner"]["train"].features["ner_tags"].feature.names
    fields = {
        "regression": {"num_labels": 1, **regression.target_scale(loaded["regression"]["train"]["label"])},
        "ner": {"num_labels": len(tags), "id2label": dict(enumerate(tags))},
        "qa": {},
    }
    windows = {"qa": {"stride": 16}, "ner": {"stride": 16}}
    for task, dataset in loaded.items():
        spec = tasks.TASKS[task]
        encoded = spec.encode(dataset, tokenizer, max_length=64, **windows.get(task, {}))
        model = models.load_model(str(tiny_bert), spec.model_class, **fields[task])
        trainer = training.make_trainer(model, args, encoded, task=task, tokenizer=tokenizer)
        batch = checks_model.batch_of(trainer, np.arange(8))
        assert checks_model.check_initial_loss(trainer, batch, task=task) == []
        assert checks_model.check_gradients(trainer, batch) == []
        assert checks_model.check_memory(trainer) == []


@pytest.mark.parametrize(("scale", "expected"), [(100, ["initial_loss"]), (1, [])])
def test_initial_loss(scale, expected, trainer):
    with torch.no_grad():
        trainer.model.classifier.weight *= scale
    assert check(trainer, checks_model.check_initial_loss, task="classification") == expected


def test_a_head_that_is_too_large_is_found_also_where_the_loss_is_that_of_chance(trainer):
    with torch.no_grad():
        trainer.model.classifier.weight[:] = 100 * trainer.model.classifier.weight[0]  # all classes alike
    batch = checks_model.batch_of(trainer, np.arange(8))
    (found,) = checks_model.check_initial_loss(trainer, batch, task="classification")
    assert (found.cause, found.fix) == ("the head's weights are too large", {"new_head": True})
    assert trainer.model(**batch).loss.item() == pytest.approx(math.log(trainer.model.config.num_labels))


def test_a_loss_that_is_not_the_tasks_own(trainer):
    loss, batch = trainer.model.forward, checks_model.batch_of(trainer, np.arange(8))
    trainer.model.forward = lambda **inputs: SimpleNamespace(loss=3 * loss(**inputs).loss)
    (found,) = checks_model.check_initial_loss(trainer, batch, task="classification")
    assert found.cause.startswith("the loss is not the task's own")
    assert found.fix == {}


def test_a_head_that_has_learned_before_is_not_held_to_know_nothing(trainer):
    with torch.no_grad():
        trainer.model.classifier.weight *= 100
        trainer.model.classifier.bias += 1e-4
    assert check(trainer, checks_model.check_initial_loss, task="classification") == []


@pytest.mark.parametrize(("frozen", "expected"), [(["bert.embeddings"], ["frozen_parameters"]), ([], [])])
def test_frozen_parameters(frozen, expected, trainer):
    for name, weights in trainer.model.named_parameters():
        weights.requires_grad = not name.startswith(tuple(frozen))
    found = checks_model.check_gradients(trainer, checks_model.batch_of(trainer, np.arange(8)))
    assert names(found) == expected
    if found:
        assert "first bert.embeddings.word_embeddings.weight" in found[0].symptom
        assert found[0].evidence.value > 0.9  # most of this model's weights


def test_parameters_behind_a_detached_tensor_are_found(trainer):
    trainer.model.bert.pooler.register_forward_hook(lambda module, inputs, output: output.detach())
    assert check(trainer, checks_model.check_gradients) == ["frozen_parameters"]


def test_a_batch_that_cannot_be_learned_by_heart(trainer):
    assert check(trainer, checks_model.check_learning) == []
    batch = checks_model.batch_of(trainer, np.arange(8))
    alike = {name: tensor[:1].expand_as(tensor) if name != "labels" else tensor for name, tensor in batch.items()}
    (found,) = checks_model.check_learning(trainer, alike)
    assert (found.name, found.fix) == ("cannot_overfit_batch", {})


def test_dropout_taken_for_its_opposite(trainer):
    trainer.model.config.hidden_dropout_prob = 0.9
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    batch = checks_model.batch_of(trainer, np.arange(8))
    (found,) = checks_model.check_learning(trainer, batch)
    assert found.fix == {"DROPOUT": 0.1}
    assert found.cause == "dropout is 0.9"


def test_a_target_out_of_scale(tiny_bert, tokenizer, tmp_path):
    dataset = data.load_pairs("sample", train_size=40, validation_size=8, test_size=8)
    encoded = tokenization.encode_pairs(dataset, tokenizer, max_length=64)
    args = training.training_arguments(tmp_path, precision="fp32", disable_tqdm=True)
    for scale, expected in (({}, ["target_scale"]), (regression.target_scale(dataset["train"]["label"]), [])):
        model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1, **scale)
        trainer = training.make_trainer(model, args, encoded, task="regression", tokenizer=tokenizer)
        found = checks_model.check_target(trainer)
        assert names(found) == expected
    assert names(checks_model.check_model(trainer, task="regression", memory=1)) == ["memory_short"]


def test_memory_that_a_step_needs(trainer):
    weights, row = (checks_model.MARGIN * size for size in checks_model.step_memory(trainer))
    assert checks_model.check_memory(trainer, memory=weights + 8 * row) == []
    (found,) = checks_model.check_memory(trainer, memory=weights + 8 * row - 1)
    assert found.fix == {"BATCH_SIZE": 4, "GRADIENT_ACCUMULATION": 2}
    (found,) = checks_model.check_memory(trainer, memory=weights + 2 * row)
    assert found.fix == {"BATCH_SIZE": 2, "GRADIENT_ACCUMULATION": 4}


def test_the_loss_of_knowing_nothing():
    assert checks_model.chance_loss(Dataset.from_dict({"labels": [0, 1]}), task="classification") == pytest.approx(
        math.log(2)
    )
    tags = Dataset.from_dict({"labels": [[-100, 0, 1, -100], [0, 1]]})
    assert checks_model.chance_loss(tags, task="ner") == pytest.approx(math.log(2))
    assert checks_model.chance_loss(Dataset.from_dict({"length": [8, 2]}), task="qa") == pytest.approx(math.log(4))
    assert checks_model.chance_loss(Dataset.from_dict({}), task="regression") == 1


# --- learning curves ---------------------------------------------------------------------------------------


def log(train_loss, *, rate=1e-4, steps=100, **last):
    steps_logged = [{"step": step, "loss": 0.5, "learning_rate": rate} for step in (1, steps)]
    return [*steps_logged, {"step": steps, "epoch": 1.0, "eval_train_loss": train_loss, **last}]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (log(0.34), []),
        (log(0.36), ["underfitting"]),
        (log(0.7, rate=1e-2), ["learning_rate_too_high"]),
        (log(0.7, rate=5.1e-4), ["learning_rate_too_high"]),
        (log(0.7, rate=4.9e-4), ["underfitting"]),
        (log(0.34, rate=1e-2), []),
        (log(0.7, rate=0.9e-5), ["learning_rate_too_low"]),
        (log(0.7, rate=1.1e-5), ["underfitting"]),
        (log(0.7, rate=1e-4, steps=5), ["underfitting"]),  # a usual rate, but too few steps
        (log(math.nan), ["not_finite_loss"]),
        (log(0.3, eval_validation_loss=math.inf), ["not_finite_loss"]),
        (log(0.3, eval_validation_loss=None), ["not_finite_loss"]),  # as history.json has it
        ([], []),
        (log(0.7)[2:], ["underfitting"]),  # too short to have logged a learning rate
    ],
)
def test_history(entries, expected):
    rate = next((entry["learning_rate"] for entry in entries if "learning_rate" in entry), 1e-4)
    assert names(checks_run.check_history(entries, chance=0.7, learning_rate=rate, weight=0.05)) == expected


def test_a_learning_rate_is_mended_to_a_usual_one():
    for rate in (1e-2, 1e-7):
        (found,) = checks_run.check_history(log(0.7, rate=rate), chance=0.7, learning_rate=rate, weight=0.06)
        assert found.fix == {"LEARNING_RATE": pytest.approx(9e-5)}


@pytest.mark.parametrize(("steps", "times"), [(7, 15), (40, 3), (300, 3)])
def test_too_few_steps_become_a_hundred_at_least(steps, times):
    (found,) = checks_run.check_history(log(0.7, steps=steps), chance=0.7, learning_rate=1e-4, weight=0.05)
    assert found.fix == {"LEARNING_RATE": pytest.approx(1e-4), "EPOCHS_FACTOR": times}


def test_a_run_of_few_steps_is_not_told_to_lower_its_learning_rate():
    late = [{"step": 10, "learning_rate": 6e-5}, {"step": 12, "eval_train_loss": 0.7}]  # of 12 steps, at 2e-4
    (found,) = checks_run.check_history(late, chance=0.7, learning_rate=2e-4, weight=0.05)
    assert found.fix == {"LEARNING_RATE": pytest.approx(2e-4), "EPOCHS_FACTOR": 9}


def test_errors_that_end_a_run():
    parameters = {"BATCH_SIZE": 16, "GRADIENT_ACCUMULATION": 2, "LEARNING_RATE": 1e-2}
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ):
        (found,) = checks_run.check_failure(error, parameters=parameters)
        assert found.name == "out_of_memory"
        assert found.fix == {"BATCH_SIZE": 8, "GRADIENT_ACCUMULATION": 4}
    (found,) = checks_run.check_failure(TrainingError("loss is nan at step 3"), parameters=parameters)
    assert found.name == "not_finite_loss"
    assert found.fix["LEARNING_RATE"] < 1e-3
    assert checks_run.check_failure(RuntimeError("device-side assert"), parameters=parameters) == []


def test_the_typical_size_of_a_weight():
    model = models.load_model(models.DEFAULT_MODEL, BertForSequenceClassification)
    assert models.weight_size(model) == pytest.approx(0.061, abs=0.001)


# --- predictions -------------------------------------------------------------------------------------------


def history(validation, train=0.01):
    return pd.DataFrame(
        {"train_loss": [train] * len(validation), "validation_loss": validation}, index=range(1, len(validation) + 1)
    )


def test_overfitting():
    losses = np.tile([0.0, 1.0], 50)  # standard error 0.05
    for last, expected in ((0.61, ["overfitting"]), (0.59, [])):
        found = checks_run.check_fit(history([0.6, 0.5, last]), losses)
        assert names(found) == expected
    assert checks_run.check_fit(history([0.6, 0.5, 0.7], train=0.65), losses) == []  # training rows do no better
    (found,) = checks_run.check_fit(history([0.6, 0.5, 0.7]), losses)
    assert found.fix["EPOCHS"] == 2


def test_losses_of_rows_and_of_words():
    logits = np.array([[[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    expected = -log_softmax(logits[0, :2], axis=1)[[0, 1], [0, 0]]
    np.testing.assert_allclose(checks_run.row_losses(logits, np.array([[0, 0, -100]])), expected)
    np.testing.assert_allclose(checks_run.row_losses(logits[0, :2], np.array([0, 0])), expected)


def test_overconfidence(rng):
    chances = rng.uniform(0.5, 1, 400)
    labels = (rng.random(400) < chances).astype(int)
    logits = np.column_stack([np.zeros(400), np.log(chances / (1 - chances))])
    assert checks_run.check_confidence(logits, labels) == []
    (found,) = checks_run.check_confidence(4 * logits, labels)
    assert found.name == "overconfidence"
    assert found.fix["temperature"] == pytest.approx(4, rel=0.3)
    few = np.array([[0, 6.0], [0, 6.0], [0, 6.0], [0, -6.0]])  # one of four wrong at 99.8%
    assert checks_run.check_confidence(few[:2], np.array([1, 0])) == []


def test_calibrated_probabilities_are_called_overconfident_once_in_a_thousand(rng):
    chances = rng.uniform(0.5, 1, (2000, 100))
    labels = rng.random((2000, 100)) < chances
    logits = np.log(chances / (1 - chances))
    alarms = sum(
        bool(checks_run.check_confidence(np.column_stack([np.zeros(100), row]), label.astype(int)))
        for row, label in zip(logits, labels, strict=True)
        if not (label == 1).all()
    )
    assert alarms <= 8


def test_seeds_that_disagree(rng):
    labels = rng.integers(0, 2, 200)

    def run(right):
        return np.eye(2)[np.where(np.arange(200) < right, labels, 1 - labels)]

    (found,) = checks_run.check_seeds([run(180), run(176), run(104)], labels)
    assert found.name == "unstable_seeds"
    assert checks_run.check_seeds([run(180), run(176), run(172)], labels) == []
    assert checks_run.check_seeds([run(180), run(180)], labels) == []


# --- time --------------------------------------------------------------------------------------------------


def test_a_run_far_slower_than_the_machine():
    for seconds, expected in ((101, ["slow"]), (99, [])):
        entries = [{"total_flos": 1e12, "train_runtime": seconds}]
        assert names(checks_run.check_speed(entries, rate=1e11)) == expected
    assert checks_run.check_speed([], rate=1e11) == []
    assert checks_run.matrix_product_rate(precision="fp32", size=128, seconds=0.05) > 1e8


# --- fixes -------------------------------------------------------------------------------------------------


def test_rows_are_removed_relabelled_and_shuffled(clean):
    train = clean["train"]
    mended = repairs.mend(clean, {"relabel_rows": {1: 1 - train[1]["label"]}, "remove_rows": [0], "LEARNING_RATE": 1.0})
    assert len(mended["train"]) == len(train) - 1
    assert mended["train"][0] == {"text": train[1]["text"], "label": 1 - train[1]["label"]}
    assert mended["train"].features == train.features
    assert mended["test"].to_list() == clean["test"].to_list()
    shuffled = repairs.mend(clean, {"shuffle": True})["train"]
    assert sorted(shuffled["text"]) == sorted(train["text"])
    assert shuffled["text"] != train["text"]


def test_moved_tags_stay_legal():
    dataset = tagged([(["a", "b", "c", "d"], ["O", "B-PER", "I-PER", "O"]), (["e"], ["B-LOC"])])
    names_ = dataset.features["ner_tags"].feature.names
    left, right = (repairs.shift_tags(dataset, places)["ner_tags"] for places in (-2, 2))
    assert [[names_[i] for i in row] for row in left] == [["B-PER", "O", "O", "O"], ["O"]]
    assert [[names_[i] for i in row] for row in right] == [["O", "O", "O", "B-PER"], ["O"]]


def test_the_range_test_leaves_the_model_alone_and_rises(trainer):
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    table = learning_rates.learning_rate_range(trainer, lowest=1e-6, highest=10.0, steps=30)
    assert all(tensor.equal(before[name]) for name, tensor in trainer.model.state_dict().items())
    np.testing.assert_allclose(table.learning_rate.iloc[1] / table.learning_rate.iloc[0], (10 / 1e-6) ** (1 / 29))
    assert table.smoothed.iloc[0] == pytest.approx(table.loss.iloc[0])
    assert plots.learning_rate_range(table, chosen=1e-3).axes[0].get_xscale() == "log"


def test_a_suggested_learning_rate():
    rates = np.geomspace(1e-6, 1, 7)
    table = pd.DataFrame({"learning_rate": rates, "smoothed": [0.7, 0.69, 0.6, 0.4, 0.3, 0.9, np.nan]})
    assert learning_rates.suggested_learning_rate(table) == pytest.approx(1e-3)
    assert learning_rates.suggested_learning_rate(table.assign(smoothed=0.7)) is None


def test_what_is_kept_of_a_long_text(tokenizer):
    dataset = splits(
        labelled(["one two three four five six seven eight nine ten", "one"], [0, 1]), labelled(["two"], [0])
    )
    for keep, kept in (("head", "one two three four five six"), ("tail", "five six seven eight nine ten"),
                       ("head+tail", "one six seven eight nine ten")):  # fmt: skip
        rows = tokenization.encode_texts(dataset, tokenizer, max_length=8, truncation=keep)["train"]
        assert tokenization.row_to_text(rows, 0, tokenizer) == f"[CLS] {kept} [SEP]"
        assert tokenization.row_to_text(rows, 1, tokenizer) == "[CLS] one [SEP]"
        assert rows["whole_length"] == [12, 3]


def test_small_multiples_share_a_scale():
    figure = plots.small_multiples({name: history([0.6, 0.5]) for name in "abcd"})
    assert [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 2
    assert len({axis.get_ylim() for axis in figure.axes[:4]}) == 1
