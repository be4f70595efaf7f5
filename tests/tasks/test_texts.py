"""What tasks of texts and pairs of texts share: reading, encoding, and the loss of a stock Trainer."""

import helpers
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from datasets import Dataset, DatasetDict
from made_up import asked, names, splits
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy
from transformers import BertForSequenceClassification, DataCollatorWithPadding
from transformers.modeling_outputs import SequenceClassifierOutput

from bert_helpers import ParameterError, models, prediction, runs, tokenization, training
from bert_helpers.diagnosis import checks_data, checks_model, fixes
from bert_helpers.report import cards
from bert_helpers.tasks.base import Task
from bert_helpers.tasks.classification import weights_of
from bert_helpers.tasks.registry import TASKS

CLASSES, NUMBERS = TASKS["classification"], TASKS["regression"]


def write(folder, rows=40, **columns):
    table = {
        "first": [f"who wrote book {i} ?" for i in range(rows)],
        "second": [f"book {i} is by {'an author' if i % 2 else 'nobody, and has no title'}" for i in range(rows)],
        "label": ["yes" if i % 2 else "no" for i in range(rows)],
    }
    pd.DataFrame({**table, **columns}).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


# --- read and encode ---------------------------------------------------------------------------------------


def test_a_pair_has_a_class(tmp_path):
    dataset = CLASSES.load(write(tmp_path), text_column="first", pair_column="second")
    rows = [row for split in dataset.values() for row in split]
    assert len(rows) == 40
    for row in rows:
        assert row["text_pair"].startswith(f"book {row['text'].split()[3]} is by")
        assert dataset["train"].features["label"].int2str(row["label"]) == (
            "yes" if "author" in row["text_pair"] else "no"
        )
    examples = CLASSES.examples(dataset["train"])
    assert examples.texts[0] == " ".join(examples.pairs[0])


def test_without_a_second_column_another_of_that_name_is_not_read(tmp_path, tokenizer):
    path = write(tmp_path, text_pair=["unrelated"] * 40)
    dataset = CLASSES.load(path, text_column="first")
    assert "text_pair" not in dataset["train"].column_names
    assert CLASSES.examples(dataset["train"]).pairs is None
    encoded = CLASSES.encode(dataset, tokenizer, max_length=32)["train"]
    assert "unrelated" not in tokenizer.decode(encoded[0]["input_ids"])


def test_a_number_of_one_text_may_be_negative(tmp_path):
    scores = [round(0.5 * i - 30, 1) for i in range(40)]
    path = write(tmp_path, label=scores)
    dataset = NUMBERS.load(path, text_column="second", pair_column="", low=-30.0, high=20.0)
    assert sorted(value for split in dataset.values() for value in split["label"]) == sorted(scores)
    assert dataset["train"].column_names == ["first", "text", "label"]


def test_pairs_are_encoded_and_cut_as_the_tokenizer_does(tokenizer, rng):
    words = ["one", "two", "three", "four", "five", "six"]
    sides = {
        name: [" ".join(rng.choice(words, rng.integers(1, 15))) for _ in range(60)] for name in ("text", "text_pair")
    }
    rows = DatasetDict(train=Dataset.from_dict({**sides, "label": [0] * 60}))
    ours = tokenization.encode_texts(rows, tokenizer, max_length=14)["train"]
    theirs = tokenizer(*sides.values(), truncation="longest_first", max_length=14)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert list(ours[name]) == theirs[name]
    assert ours["whole_length"] == [len(ids) for ids in tokenizer(*sides.values())["input_ids"]]


@pytest.mark.parametrize(
    ("truncation", "first", "second"),
    [("head", "one two three four", "a b c"), ("tail", "four five six seven", "a b c"),
     ("head+tail", "one five six seven", "a b c")],
)  # fmt: skip
def test_of_a_pair_the_longer_text_is_cut_first_at_the_end_that_is_asked_for(truncation, first, second, tokenizer):
    rows = Dataset.from_dict({"text": ["one two three four five six seven"], "text_pair": ["a b c"], "label": [0]})
    encoded = tokenization.encode_texts(DatasetDict(train=rows), tokenizer, max_length=10, truncation=truncation)
    assert tokenizer.decode(encoded["train"][0]["input_ids"]) == f"[CLS] {first} [SEP] {second} [SEP]"


def test_the_finding_on_truncation_knows_which_text_is_cut(tokenizer):
    long, short = " ".join(["word"] * 40), "one two"
    for sides, said in (((long, short), "100% of them from the first"), ((short, long), "0% of them from the first")):
        rows = Dataset.from_dict({"text": [sides[0]] * 9, "text_pair": [sides[1]] * 9, "label": [0, 1] * 4 + [0]})
        dataset = splits(*[rows.cast_column("label", asked(np.random.default_rng(0)).features["label"])] * 2)
        encoded = CLASSES.encode(dataset, tokenizer, max_length=16)
        (found,) = checks_model.check_tokens(dataset, encoded, tokenizer, task="classification")
        assert found.name == "truncation"
        assert said in found.symptom
        assert found.evidence.value == pytest.approx(1 - (16 - 3) / 42)


def test_swapped_training_rows_are_found_and_swapped_back(rng):
    swapped, right = asked(rng, swapped=True), asked(rng)
    dataset = splits(swapped, right)
    (found,) = checks_data.check_pairs({name: CLASSES.examples(split) for name, split in dataset.items()})
    assert (found.name, found.fix) == ("swapped_pairs", {"swap_pairs": True})
    fixed = fixes.apply_fix(dataset, found.fix)
    assert fixed["train"].column_names == swapped.column_names
    assert fixed["train"]["text"][:] == swapped["text_pair"][:]
    assert not checks_data.check_pairs({name: CLASSES.examples(split) for name, split in fixed.items()})
    alike = splits(
        *(split.remove_columns("text").add_column("text", split["text_pair"][::-1]) for split in (right, right))
    )
    assert names(checks_data.check_pairs({name: CLASSES.examples(split) for name, split in alike.items()})) == []


# --- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pairs with a class", "a number from one text", "several labels"])
def test_the_loss_is_that_of_a_stock_trainer_over_20_steps(kind, tiny_bert, tokenizer, tmp_path):
    """Without dropout, whose random numbers inside attention are drawn differently, and with the same batches."""
    sizes = {"train_size": 40, "validation_size": 10, "test_size": 10}
    if kind == "several labels":
        task = TASKS["multilabel"]
        dataset = task.load("sample", **sizes)
    else:
        task = CLASSES if kind == "pairs with a class" else NUMBERS
        path = write(tmp_path, rows=60, **({} if task is CLASSES else {"label": np.linspace(-3, 4, 60)}))
        options = {"text_column": "first", "pair_column": "second" if task is CLASSES else ""}
        options |= {} if task is CLASSES else {"low": -3.0, "high": 4.0}
        dataset = task.load(path, **options, **sizes)
    encoded = task.encode(dataset, tokenizer, max_length=32)
    fields = {**task.model_fields(dataset["train"]), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def losses(make):
        model = models.load_model(str(tiny_bert), BertForSequenceClassification, seed=0, **fields)
        args = helpers.arguments(tmp_path / make.__module__, epochs=4, batch_size=8, learning_rate=1e-3,
                                 logging_steps=1, precision="fp32", train_sampling_strategy="random",
                                 eval_strategy="no")  # fmt: skip
        trainer = make(model=model, args=args, train_dataset=encoded["train"], processing_class=tokenizer,
                       data_collator=DataCollatorWithPadding(tokenizer))  # fmt: skip
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    theirs = losses(transformers.Trainer)
    assert len(theirs) == 20
    assert losses(training.Trainer) == pytest.approx(theirs, abs=2e-4)


# --- class weights -----------------------------------------------------------------------------------------


def test_balanced_weights_are_scikit_learns_and_given_ones_are_by_name():
    labels = [0] * 7 + [1] * 2 + [2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert weights_of("balanced", labels, ["a", "b", "c"]) == pytest.approx(expected)
    assert weights_of("none", labels, ["a", "b", "c"]) is None
    assert weights_of("balanced", [0, 0, 2, 2], ["a", "b", "c"]).tolist() == pytest.approx([2 / 3, 1, 2 / 3])
    for text in ("c: 5, a:0.5", "{'c': 5, 'a': 0.5}", '{"c": 5, "a": 0.5}'):
        assert weights_of(text, labels, ["a", "b", "c"]).tolist() == [0.5, 1, 5]
    for text in ("d: 2", "a: -1", "a: x", "a", "a: inf"):
        with pytest.raises(ParameterError) as caught:
            weights_of(text, labels, ["a", "b", "c"])
        assert caught.value.parameter == "CLASS_WEIGHTS"


@pytest.mark.parametrize("weights", ["balanced", "positive: 3"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weighted_run_has_the_weighted_loss(weights, smoothing, small_dataset, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thin = small_dataset["train"].select(
        [i for i, label in enumerate(small_dataset["train"]["label"]) if label or i < 9]
    )
    dataset = DatasetDict({**small_dataset, "train": thin})
    parameters = {"MODEL": str(tiny_bert), "DATA": "sample", "OUTPUT_DIR": "run", "EPOCHS": 1, "MAX_LENGTH": 32,
                  "PRECISION": "fp32", "SEED": 0, "CLASS_WEIGHTS": weights, "LABEL_SMOOTHING": smoothing}  # fmt: skip
    run = runs.prepare(dataset, parameters)
    labels = torch.tensor(thin["label"])
    logits = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0))
    each = weights_of(weights, labels.tolist(), ["negative", "positive"])
    true = np.eye(2)[labels] * (1 - smoothing) + smoothing / 2
    expected = -(each[labels] * (true * log_softmax(logits.numpy(), axis=1)).sum(axis=1)).mean()
    found = run.trainer.compute_loss_func(SequenceClassifierOutput(logits=logits), labels)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced", "b: 5"])
def test_guessing_and_perfect_predictions_have_the_losses_of_pytorch(weights, smoothing):
    labels = [0] * 9 + [1] * 3
    encoded = Dataset.from_dict({"labels": labels})
    config = transformers.BertConfig(num_labels=2, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    each = torch.tensor(weights_of(weights, labels, ["a", "b"]) if weights != "none" else [1.0, 1.0]).double()
    logits = torch.stack([torch.zeros(5001), torch.linspace(-9, 9, 5001)], dim=1).double()
    per_row = torch.stack([
        each[label] * cross_entropy(logits, torch.full((5001,), label), reduction="none", label_smoothing=smoothing)
        for label in labels
    ])  # fmt: skip  # (row, prediction)
    options = {"class_weights": weights, "label_smoothing": smoothing}
    chance, lowest = CLASSES.chance_loss(encoded, config, **options), CLASSES.lowest_loss(encoded, config, **options)
    assert chance == pytest.approx(float(per_row.mean(dim=0).min()), abs=1e-3)
    assert lowest == pytest.approx(float(per_row.min(dim=1).values.mean()), abs=1e-3)
    if weights == "none":  # as for tags
        assert Task.chance_loss(CLASSES, encoded, config, label_smoothing=smoothing) == pytest.approx(chance)
        assert Task.lowest_loss(CLASSES, encoded, config, label_smoothing=smoothing) == pytest.approx(lowest)


# --- a whole run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_run_says_what_it_reads_two_texts_or_one(task, tiny_bert, tmp_path, monkeypatch):
    """Runs with the other number of texts than the task's default: pairs with a class, one text with a number."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, **({} if task == "classification" else {"label": np.linspace(0, 5, 40)}))
    own = {"DATA": "rows.csv", "TEXT_COLUMN": "first", "PAIR_COLUMN": "second" if task == "classification" else ""}
    parameters = {"MODEL": str(tiny_bert), "OUTPUT_DIR": "run", "EPOCHS": 1, "MAX_LENGTH": 32, "PRECISION": "fp32",
                  "SEED": 0, "LABEL_COLUMN": "label", "LOW": 0.0, "HIGH": 5.0, **own}  # fmt: skip
    spec = TASKS[task]
    dataset = spec.load("rows.csv", text_column="first", pair_column=own["PAIR_COLUMN"])
    runs.save(runs.finish(runs.prepare(dataset, parameters, task=task)), tmp_path / "run", publish=cards.publish)
    expected = {"text": "first"} | ({"text_pair": "second"} if task == "classification" else {})
    predictor = prediction.load(tmp_path / "run")
    assert predictor.columns == expected
    again = runs.read(tmp_path / "run")
    assert ("text_pair" in again.dataset["test"].column_names) == (task == "classification")
    card = (tmp_path / "run/model/README.md").read_text(encoding="utf-8")
    example = '({"text": "A text.", "text_pair": "Another."}' if task == "classification" else '("A text."'
    assert example in card
    assert ('predict run "A text." "Another."' in card) == (task == "classification")
