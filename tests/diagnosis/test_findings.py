"""For every declared finding, a case that causes it, and another that just does not."""

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets
from made_up import (
    asked,
    examples,
    history,
    labelled,
    log,
    multilabelled,
    names,
    people,
    questions,
    reviews,
    sentence,
    splits,
    tagged,
)
from transformers import BertTokenizerFast

from bert_helpers import tokenization
from bert_helpers.diagnosis import checks_data, checks_model, checks_run, findings, fixes
from bert_helpers.tasks.registry import TASKS
from bert_helpers.tasks.regression import target_scale

CASES = {}


def case(function):
    """Register a function that causes the finding of its name (`over` is True) or just does not (False).

    `get` returns a fixture by its name.
    """
    CASES[function.__name__] = function
    return function


@pytest.mark.parametrize("name", [kind.name for kind in findings.KINDS])
def test_each_finding_is_made(name, request):
    assert name in names(CASES[name](True, request.getfixturevalue))


@pytest.mark.parametrize("name", [kind.name for kind in findings.KINDS])
def test_each_finding_is_just_not_made(name, request):
    assert name not in names(CASES[name](False, request.getfixturevalue))


# --- rows --------------------------------------------------------------------------------------------------


@case
def constant_labels(over, get):
    rows = labelled(["text"] * 50, [0] * 49 + [1 - over])
    return checks_data.check_labels(examples(splits(get("clean")["train"], rows)))


@case
def label_variants(over, get):
    train = labelled(["text"] * 60, [0, 1, 2] * 20, classes=3)
    names = ["Good ", "bad", "good" if over else "goods"]
    return checks_data.check_label_names(
        TASKS["classification"].examples(train.cast_column("label", ClassLabel(names=names)))
    )


@case
def class_imbalance(over, get):
    rare = 9 if over else 10
    train = labelled(["text"] * 100, [1] * rare + [0] * (100 - rare))
    return checks_data.check_labels(examples(splits(train, get("clean")["test"])))


@case
def leakage(over, get):
    clean = get("clean")
    copies = clean["test"].select(range(2 if over else 1))
    return checks_data.check_duplicates(
        examples(DatasetDict({**clean, "train": concatenate_datasets([clean["train"], copies])}))
    )


@case
def duplicates(over, get):
    clean = get("clean")
    copies = clean["train"].select(range(11 if over else 10))
    return checks_data.check_duplicates(
        examples(DatasetDict({**clean, "train": concatenate_datasets([clean["train"], copies])}))
    )


@case
def contradicting_labels(over, get):
    train, rows = get("clean")["train"], 2 if over else 1  # of 202 and 201, two rows for each text
    again = labelled(train["text"][:rows], [1 - label for label in train["label"][:rows]])
    return checks_data.check_duplicates(
        examples(DatasetDict({**get("clean"), "train": concatenate_datasets([train, again])}))
    )


@case
def small_evaluation(over, get):
    return checks_data.check_evaluation_size(get("clean"), difference=0.12 if over else 0.125)


@case
def different_evaluation(over, get):
    texts, positives = [sentence(get("rng")) for _ in range(300)], 80 if over else 59
    evaluation = labelled(texts[200:], [1] * positives + [0] * (100 - positives))
    return checks_data.check_same_distribution(examples(splits(labelled(texts[:200], [0, 1] * 100), evaluation)))


@case
def label_noise(over, get):
    noisy = DatasetDict({**get("clean"), "train": reviews(get("rng"), noise=0.1 if over else 0.02)})
    return checks_data.check_label_noise(examples(noisy))


@case
def shifted_tags(over, get):
    right = people(get("rng"))
    return checks_data.check_tags(
        examples(splits(fixes.shift_tags(right, 1) if over else right, right), "ner")["train"]
    )


@case
def cut_spans(over, get):
    found = [{"start": 0, "end": 3 - (i < 2 + over), "label": "PER"} for i in range(40)]  # 3 and 2 of 40
    words = tagged([(["Ann", "sings"], ["B-PER", "O"])] * 40, types=("PER",))
    rows = words.add_column("text", ["Ann sings"] * 40).add_column("spans", [[span] for span in found])
    return checks_data.check_spans(examples(splits(rows, rows), "ner"))


@case
def label_without_rows(over, get):
    train = multilabelled(["text"] * 6, [[0], [1], [0, 1], [], [0], [1]])
    validation = multilabelled(["text"] * 3, [[0], [], [] if over else [1]])
    return checks_data.check_labels(examples(splits(train, validation, train), "multilabel"))


@case
def constant_text(over, get):
    rows = asked(get("rng"))
    texts = ["the same"] * 59 + ["the same" if over else "another"]
    constant = rows.remove_columns("text_pair").add_column("text_pair", texts)
    return checks_data.check_pairs(examples(splits(rows, rows, constant)))


@case
def swapped_pairs(over, get):
    train, same, other = (asked(get("rng"), swapped=swapped) for swapped in (False, False, over))
    return checks_data.check_pairs(examples(splits(train, other, same)))


# --- tokens, model and memory ------------------------------------------------------------------------------


@case
def unknown_tokens(over, get):
    tokenizer, unknown = get("tokenizer"), 2 if over else 1
    words = [tokenizer.unk_token_id] * unknown + [2000] * (100 - unknown)
    ids = [tokenizer.cls_token_id, *words, tokenizer.sep_token_id]
    return checks_model.check_unknown(Dataset.from_dict({"input_ids": [ids]}), tokenizer)


@case
def other_tokenizer(over, get):
    trainer = get("trainer")
    trainer.model.resize_token_embeddings(max(map(max, trainer.train_dataset["input_ids"])) + 1 - over)
    return checks_model.check_token_ids(trainer)


@case
def many_pieces(over, get):  # "larchy" has two pieces
    return checks_model.check_language([f"The {'North' if not over else 'larchy'} {'larchy ' * 8}"], get("tokenizer"))


@case
def lower_cased_texts(over, get):
    keeps_capitals = BertTokenizerFast.from_pretrained(get("tiny_bert"), do_lower_case=False)
    return checks_model.check_language(["North " * 1 + "a" * (195 + over)], keeps_capitals)  # one of 200 letters


@case
def truncation(over, get):
    rows = labelled([sentence(get("rng"), 20, of=["in", "on", "of"]) for _ in range(40)], [0, 1] * 20)
    dataset, tokenizer = splits(rows, rows), get("tokenizer")
    encoded = tokenization.encode_texts(dataset, tokenizer, max_length=11 if over else 12)  # 9 or 10 of 20 words
    return checks_model.check_tokens(dataset, encoded, tokenizer, task="classification")


@case
def lost_answers(over, get):
    dataset, tokenizer = questions(11 if over else 2), get("tokenizer")
    encoded = TASKS["qa"].encode(dataset, tokenizer, max_length=32, stride=10)
    return checks_model.check_tokens(dataset, encoded, tokenizer, task="qa")


def test_questions_without_an_answer_lose_none(tokenizer):
    whole, none = questions(2), questions(2)
    none = none.map(lambda row: {"answers": {"text": [], "answer_start": []}}, features=none["train"].features)
    dataset = DatasetDict({name: concatenate_datasets([whole[name], none[name]]) for name in whole})
    encoded = TASKS["qa"].encode(dataset, tokenizer, max_length=32, stride=10)
    assert names(checks_model.check_tokens(dataset, encoded, tokenizer, task="qa")) == []


@case
def memory_short(over, get):
    trainer = get("trainer")
    weights, row = (checks_model.MARGIN * size for size in checks_model.step_memory(trainer))
    return checks_model.check_memory(trainer, memory=weights + 8 * row - over)


@case
def target_scale_(over, get):
    numbers = [2.1, -2.1] if over else [1.9, -1.9]
    config = SimpleNamespace(**target_scale([1.0, -1.0]))
    return checks_model.check_target(
        SimpleNamespace(model=SimpleNamespace(config=config), train_dataset={"labels": numbers})
    )


CASES["target_scale"] = CASES.pop("target_scale_")


def near(over, scale, measure):
    """Return what `measure` finds after `scale` has moved its value just above the threshold, or just below it."""
    (found,) = measure()
    scale((1.01 if over else 0.99) * found.evidence.threshold / found.evidence.value)
    return measure()


@case
def initial_loss(over, get):
    trainer, task = get("trainer"), TASKS["classification"]
    batch = checks_model.batch_of(trainer, np.arange(8))
    head = trainer.model.classifier.weight.data
    head *= 100
    return near(over, head.mul_, lambda: checks_model.check_initial_loss(trainer, batch, task))


@case
def fp16_overflow(over, get):
    model, batch = get("trainer").model, checks_model.batch_of(get("trainer"), np.arange(8))
    model.classifier.weight.data *= 1e7
    return near(over, model.classifier.weight.data.mul_, lambda: checks_model.check_overflow(model, batch))


@case
def untrained_encoder(over, get):
    model = get("trainer").model
    model.bert.embeddings.LayerNorm.weight.data.fill_(1)
    model.bert.embeddings.LayerNorm.weight.data[0] += 0.001 * (not over)
    return checks_model.check_encoder(model)


@case
def trained_head(over, get):
    trainer, task = get("trainer"), TASKS["classification"]
    rows = np.argsort(trainer.train_dataset["labels"], kind="stable")[98:105]  # two of class 0, five of class 1
    trainer.model.classifier.weight.data.zero_()
    trainer.model.classifier.bias.data = torch.tensor([0.01, 0.0] if over else [0.0, 0.01])
    return checks_model.check_initial_loss(trainer, checks_model.batch_of(trainer, rows), task)


@case
def frozen_parameters(over, get):
    trainer = get("trainer")
    trainer.model.bert.pooler.dense.bias.requires_grad = not over
    return checks_model.check_gradients(trainer, checks_model.batch_of(trainer, np.arange(8)))


@case
def cannot_overfit_batch(over, get):
    batch = checks_model.batch_of(get("trainer"), np.arange(8))
    if over:  # eight times the same text, with labels of both kinds
        batch = {name: tensor[:1].expand_as(tensor) if name != "labels" else tensor for name, tensor in batch.items()}
    return checks_model.check_learning(get("trainer"), batch)


# --- the run -----------------------------------------------------------------------------------------------


def of_history(entries, rate=1e-4):
    return checks_run.check_history(entries, chance=0.7, learning_rate=rate, weight=0.05)


@case
def out_of_memory(over, get):
    parameters = {"BATCH_SIZE": 16, "GRADIENT_ACCUMULATION": 2}
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory" if over else "device-side assert")
    return checks_run.check_failure(error, parameters=parameters)


@case
def not_finite_loss(over, get):
    return of_history(log(0.3, eval_validation_loss=math.inf if over else 1e9))


@case
def learning_rate_too_high(over, get):
    rate = 5.1e-4 if over else 4.9e-4
    return of_history(log(0.7, rate=rate), rate)


@case
def learning_rate_too_low(over, get):
    rate = 0.9e-5 if over else 1.1e-5
    return of_history(log(0.7, rate=rate), rate)


@case
def underfitting(over, get):
    return of_history(log(0.36 if over else 0.34))


@case
def overfitting(over, get):
    losses = np.tile([0.0, 1.0], 50)  # standard error 0.05
    return checks_run.check_fit(history([0.6, 0.5, 0.61 if over else 0.59]), losses)


@case
def overconfidence(over, get):
    chances = get("rng").uniform(0.5, 1, 4000)
    labels = (get("rng").random(4000) < chances).astype(int)
    logits = np.column_stack([np.zeros(4000), np.log(chances / (1 - chances))])
    return checks_run.check_confidence((1.7 if over else 1.3) * logits, labels)


@case
def unfitted_thresholds(over, get):
    """The logits rank the labels well; at 0.5 they miss nearly all of them, or none."""
    rng = get("rng")
    labels = (rng.random((200, 3)) < 0.2).astype(float)
    logits = 2.0 * labels - 1 + rng.normal(0, 0.3, labels.shape) - 2.0 * over
    return checks_run.check_thresholds(logits, labels, [0.5] * 3)


@case
def never_answers(over, get):
    """The answer found is the right one, or, in every context, the word after it."""
    output, encoded, rows = undecided(get("tokenizer"), 0.0)
    for logits in output.predictions:
        logits[:, 1:] = np.roll(logits[:, 1:], over, axis=1)
    return checks_run.check_no_answer(output, encoded, rows, 1.0)


@case
def unfitted_no_answer(over, get):
    return checks_run.check_no_answer(*undecided(get("tokenizer"), 1.5 if over else 0.0), 0.0)


def undecided(tokenizer, shift, kinds=(True, False)):
    """Make output for 60 questions that ranks those without an answer last, with null scores `shift` too high."""
    answers = [{"text": ["Ada"], "answer_start": [0]}, {"text": [], "answer_start": []}]
    rows = [
        {"id": str(i), "question": "Who?", "context": f"Ada {i}", "answers": answers[not kinds[i % len(kinds)]]}
        for i in range(60)
    ]
    split = Dataset.from_list(rows)
    encoded = TASKS["qa"].encode(DatasetDict(rows=split), tokenizer, max_length=32, stride=8)["rows"]
    logits = np.full((60, max(encoded["length"])), -9.0)
    for i, row in enumerate(encoded):
        logits[i, int(np.argmax([end > 0 for _, end in row["offset_mapping"]]))] = 1.0 if row["has_answer"] else -1.0
        logits[i, 0] = shift
    return SimpleNamespace(predictions=(logits, logits.copy())), encoded, split


def test_a_threshold_that_was_never_fitted_and_those_that_were(tokenizer):
    """Any value but 0 is fitted; with None, every question gets an answer; with one kind there is nothing to fit."""
    both = undecided(tokenizer, 1.5)
    assert names(checks_run.check_no_answer(*both, 1.0)) == []
    assert names(checks_run.check_no_answer(*both, None)) == ["unfitted_no_answer"]
    answered = undecided(tokenizer, 1.5, kinds=(True,))
    assert names(checks_run.check_no_answer(*answered, None)) == []
    assert names(checks_run.check_no_answer(*answered, 0.0)) == ["unfitted_no_answer"]


@case
def slow(over, get):
    return checks_run.check_speed([{"total_flos": 1e12, "train_runtime": 101 if over else 99}], rate=1e11)


# --- the list ----------------------------------------------------------------------------------------------


def finding(name, **fix):
    return findings.Finding(name, "seen", findings.Evidence(2.0, 1.0, "by hand"), "because", fix)


def test_data_comes_before_training_and_each_name_once():
    found = [finding("overfitting"), finding("label_noise", remove_rows=[1]), finding("overfitting", EPOCHS=2)]
    assert names(findings.sort_by_priority(found)) == ["label_noise", "overfitting"]
    assert findings.sort_by_priority(found)[1].fix == {}


def test_a_finding_that_is_not_declared_is_refused():
    with pytest.raises(ValueError, match="'hunger' is not a finding; declare it in"):
        finding("hunger")


@pytest.mark.parametrize("error", [ValueError("shape"), MemoryError(), RecursionError(), torch.OutOfMemoryError("GPU")])
def test_a_check_that_raises_is_a_warning_and_the_others_are_made(error, clean, monkeypatch):
    """A diagnosis comes after a training, which it must not lose."""

    def fails(*args, **kwargs):
        yield finding("small_evaluation")
        raise error

    one = DatasetDict(
        {**clean, "test": clean["test"].filter(lambda row: row["label"] == 0, load_from_cache_file=False)}
    )
    monkeypatch.setattr(checks_data, "check_duplicates", findings.check(fails))
    with pytest.warns(UserWarning, match=f"fails of the diagnosis could not be done .{type(error).__name__}"):
        found = checks_data.check_dataset(one, task="classification", difference=None)
    assert names(found)[0] == "constant_labels"
    assert "small_evaluation" in names(found)


def test_no_row_that_breaks_a_check_ends_a_diagnosis(get_broken):
    for make in get_broken:
        with pytest.warns(UserWarning, match="of the diagnosis could not be done"):
            assert make() == []


@pytest.fixture
def get_broken(clean, tokenizer):
    """Calls of each collecting check with unexpected input."""
    nothing = SimpleNamespace(train_dataset=[], args=None, model=None)
    return [
        lambda: checks_data.check_dataset(DatasetDict(), task="classification"),
        lambda: checks_model.check_tokens(clean, clean, tokenizer, task="classification"),
        lambda: checks_model.check_model(nothing, task="classification"),
        lambda: checks_run.check_run([{"loss": "high"}], None, chance=1.0, learning_rate=1e-4),
    ]


def test_every_finding_is_declared_once_with_its_module():
    assert len(findings.PRIORITY) == len(findings.KINDS)
    for kind in findings.KINDS:
        source = ROOT / "bert_helpers" / "diagnosis" / f"{kind.module}.py"
        assert f'"{kind.name}"' in source.read_text(encoding="utf-8")


def test_the_page_of_findings_is_current():
    spec = importlib.util.spec_from_file_location("findings_page", ROOT / "docs" / "findings.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert (ROOT / "docs" / "findings.md").read_text(encoding="utf-8") == page.page()


def test_a_table_shows_evidence_and_fix():
    table = findings.table([finding("label_noise", LEARNING_RATE=1e-5, remove_rows=[1, 2, 3, 4], oversample=True)])
    assert table.loc["label_noise"].tolist() == [
        "seen", 2.0, 1.0, "by hand", "because", "LEARNING_RATE = 1e-05, remove_rows (4), oversample",
    ]  # fmt: skip
    assert findings.table([]).empty


def test_advice_is_shown_after_the_fix():
    advised = findings.Finding("slow", "seen", findings.Evidence(2.0, 1.0, "by hand"), "because", {"A": 1}, "rest")
    assert findings.table([advised]).fix.tolist() == ["A = 1; rest"]


def test_a_fix_changes_parameters_and_leaves_actions_alone():
    assert findings.with_fix({"EPOCHS": 3, "SEED": 0}, {"EPOCHS": 1, "augment": True}) == {"EPOCHS": 1, "SEED": 0}
    assert findings.with_fix({"EPOCHS": 3, "RATE": 0.1}, {"EPOCHS_FACTOR": 2, "RATE_FACTOR": 0.5}) == {
        "EPOCHS": 6,
        "RATE": 0.05,
    }
