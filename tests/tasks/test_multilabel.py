"""Several labels per text: how they are read, split, decided, measured, trained and used."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import multilabelled
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score, log_loss
from transformers import BertForSequenceClassification, pipeline

from bert_helpers import DataError, models, prediction, runs
from bert_helpers.readers.source import assumed
from bert_helpers.tasks import multilabel, thresholds
from bert_helpers.tasks.registry import TASKS

TASK = TASKS["multilabel"]
NAMES = ["obscene", "spam", "toxic"]
LABELS = [["toxic"], [], ["spam", "toxic"], ["obscene"], ["spam"]] * 6


def drawn(seed, rows=120, labels=4):
    rng = np.random.default_rng(seed)
    true = (rng.random((rows, labels)) < np.linspace(0.05, 0.5, labels)).astype(float)
    return 2 * true - 2 + rng.normal(size=true.shape), true


# --- read --------------------------------------------------------------------------------------------------


WRITTEN = {
    "written lists": str,
    "written tuples": lambda row: str(tuple(row)),
    "written sets": lambda row: str(set(row)),
    "written choices": lambda row: row[0] if len(row) == 1 else json.dumps({"choices": row}),  # Label Studio's CSV
}


def write(folder, form):
    """Return the same 30 rows in the ways in which people write several labels."""
    texts = [f"text {i}" for i in range(30)]
    path, rows = folder / "rows.csv", {"text": texts}
    if form == "columns":
        rows |= {name: [int(name in row) for row in LABELS] for name in NAMES}
    elif form in ("|", ";", ",", " / "):
        rows["labels"] = [form.join(row) for row in LABELS]
    elif form in WRITTEN:
        rows["labels"] = [WRITTEN[form](row) for row in LABELS]
    elif form in ("lists", "choices"):
        path = folder / "rows.jsonl"
        made = [(row[0] if len(row) == 1 else {"choices": row}) if form == "choices" else row for row in LABELS]
        path.write_text("".join(json.dumps({"text": t, "labels": r}) + "\n" for t, r in zip(texts, made, strict=True)))
        return path
    else:  # class numbers with names, as the Hub's GoEmotions
        path = folder / "rows.parquet"
        features = Features({"text": Value("string"), "labels": List(ClassLabel(names=NAMES))})
        numbers = [[NAMES.index(name) for name in row] for row in LABELS]
        Dataset.from_dict({"text": texts, "labels": numbers}, features=features).to_parquet(path)
        return path
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("form", ["columns", "|", ";", ",", " / ", *WRITTEN, "lists", "choices", "numbers"])
def test_labels_are_read_however_they_are_written(form, tmp_path):
    options = {"label_column": "obscene,spam, toxic"} if form == "columns" else {}
    options |= {"label_delimiter": "/"} if form == " / " else {}
    dataset = TASK.load(write(tmp_path, form), **options)
    assert dataset["train"].features["labels"].feature.names == NAMES
    found = {row["text"]: sorted(NAMES[i] for i in row["labels"]) for split in dataset.values() for row in split}
    assert found == {f"text {i}": row for i, row in enumerate(LABELS)}


def test_lists_of_0_and_1_have_a_label_a_place_and_a_single_column_is_one_label(tmp_path):
    lists, column = tmp_path / "lists.jsonl", tmp_path / "column.csv"
    hot = [[int(name in row) for name in NAMES] for row in LABELS]
    lists.write_text("".join(json.dumps({"text": f"text {i}", "labels": row}) + "\n" for i, row in enumerate(hot)))
    pd.DataFrame({"text": [f"text {i}" for i in range(30)], "spam": [bool(row[1]) for row in hot]}).to_csv(
        column, index=False
    )
    dataset = TASK.load(lists)
    assert dataset["train"].features["labels"].feature.names == ["0", "1", "2"]
    found = {row["text"]: sorted(row["labels"]) for split in dataset.values() for row in split}
    assert found == {f"text {i}": [j for j, yes in enumerate(row) if yes] for i, row in enumerate(hot)}
    dataset = TASK.load(column, label_column="spam")
    assert dataset["train"].features["labels"].feature.names == ["spam"]
    assert sum(len(row) for split in dataset.values() for row in split["labels"]) == sum(row[1] for row in hot)


def test_brackets_in_the_name_of_a_label_make_no_list(tmp_path):
    (tmp_path / "rows.csv").write_text("text,labels\n" + "a,\"['x (1, 2)', 'y']\"\nb,\"['(z, 3)']\"\n" * 9)
    names = TASK.load(tmp_path / "rows.csv")["train"].features["labels"].feature.names
    assert names == ["(z, 3)", "x (1, 2)", "y"]


def test_the_delimiter_that_was_assumed_is_noted_and_one_that_is_in_doubt_is_asked_for(tmp_path):
    assert assumed(TASK.load(write(tmp_path, ";"))) == {"rows.csv": {"between labels": ";"}}
    assert assumed(TASK.load(write(tmp_path, ";"), label_delimiter=";")) == {}
    (tmp_path / "rows.csv").write_text('text,labels\na,"x, y|z"\n' + "b,x\n" * 9)
    with pytest.raises(DataError) as caught:
        TASK.load(tmp_path / "rows.csv")
    assert caught.value.parameter == "LABEL_DELIMITER"
    names = TASK.load(tmp_path / "rows.csv", label_delimiter="|")["train"].features["labels"].feature.names
    assert set(names) <= {"x", "x, y", "z"}


@pytest.mark.parametrize(
    ("columns", "options", "column", "row", "problem"),
    [
        ({"a": ["0", "2"], "b": ["1", "0"]}, {"label_column": "a,b"}, "a", 2, "neither 0 nor 1"),
        ({"labels": ["[1, ", "x"]}, {}, "labels", 1, "not a list of labels"),
        ({"labels": ["x", '{"x": 1}']}, {}, "labels", 2, "not a list of labels"),
        ({"labels": ["", ""]}, {}, "labels", None, "no training row has a label"),
    ],
)
def test_labels_that_cannot_be_used_are_named(columns, options, column, row, problem, tmp_path):
    pd.DataFrame({"text": ["c", "d"], **columns}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError) as caught:
        TASK.load(tmp_path / "a.csv", **options)
    assert (caught.value.column, caught.value.row) == (column, row)
    assert problem in caught.value.problem


def test_a_missing_column_of_a_label_is_named_with_the_option(tmp_path):
    pd.DataFrame({"text": ["c"], "a": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'd'; it has 'text', 'a'; name the right one by LABEL_COLUMN"):
        TASK.load(tmp_path / "a.parquet", label_column="a,d")


def test_a_label_that_training_rows_lack_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("text,labels\n" + "a,x|y\n" * 20)
    (tmp_path / "test.csv").write_text("text,labels\nb,x\nc,x|z\n")
    with pytest.raises(DataError, match="'z' does not occur in the training rows, whose labels are x, y") as caught:
        TASK.load(tmp_path)
    assert (caught.value.source, caught.value.row) == ("test.csv", 2)


# --- splits ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(40, 120), st.integers(1, 6))
def test_every_label_of_two_rows_or_more_is_on_both_sides_of_a_split(seed, rows, labels):
    rng = np.random.default_rng(seed)
    hot = (rng.random((rows, labels)) < rng.uniform(0.02, 0.5, labels)).astype(float)
    size = max(2 * labels + 2, rows // 5)
    chosen = multilabel.stratified_rows(hot, size, seed=seed)
    assert len(np.unique(chosen)) == size
    assert (np.diff(chosen) > 0).all()
    left = np.setdiff1d(np.arange(rows), chosen)
    rare = np.flatnonzero(hot.sum(axis=0) > 1)
    assert hot[left][:, rare].any(axis=0).all()
    assert hot[chosen][:, rare].any(axis=0).mean() >= 0.8 if len(rare) else True
    assert list(chosen) == list(multilabel.stratified_rows(hot, size, seed=seed))


def test_a_rare_label_is_kept_in_every_part_where_a_random_draw_loses_it():
    labels = [[0] if i % 2 else [] for i in range(300)]
    for row in (10, 50, 90):
        labels[row] = [1]
    whole = multilabelled([f"t{i}" for i in range(300)], labels)
    kept = 0
    for seed in range(5):
        test = multilabel.sample_by_labels(whole, 30, seed=seed)
        rest = whole.select(np.setdiff1d(np.arange(300), test))
        validation = rest.select(multilabel.sample_by_labels(rest, 30, seed=seed))
        shares = [multilabel.one_hot(part).sum(axis=0)[1] for part in (whole.select(test), validation)]
        kept += shares == [1, 1]
        assert abs(multilabel.one_hot(whole.select(test)).sum(axis=0)[0] - 15) <= 1
    assert kept == 5


# --- decisions and numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_scikit_learns(seed):
    logits, true = drawn(seed)
    limits = np.array([0.2, 0.4, 0.5, 0.7])
    said = expit(logits) >= limits
    values = thresholds.MultilabelMeasure(logits, true, limits).values()
    expected = {
        "f1_micro": f1_score(true, said, average="micro"),
        "f1_macro": f1_score(true, said, average="macro", zero_division=0),
        "average_precision": average_precision_score(true, expit(logits)),
        "subset_accuracy": (said == true).all(axis=1).mean(),
        "log_loss": np.mean([log_loss(t, p) for t, p in zip(true.T, expit(logits).T, strict=True)]),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    at_half = f1_score(true, expit(logits) >= 0.5, average="macro", zero_division=0)
    assert values["threshold_gain"] == pytest.approx(expected["f1_macro"] - at_half)
    table = thresholds.MultilabelMeasure(logits, true, limits).by_label("abcd", n_resamples=50)
    assert table.xs("f1", level="metric").value.tolist() == pytest.approx(f1_score(true, said, average=None))


def test_ties_and_rows_without_labels_are_measured_as_by_scikit_learn():
    logits, true = np.round(drawn(5)[0]), drawn(5)[1]
    true[:60] = 0
    values = thresholds.MultilabelMeasure(logits, true).values()
    assert values["average_precision"] == pytest.approx(average_precision_score(true, logits))


def test_a_weighted_metric_is_that_of_the_repeated_rows():
    logits, true = drawn(1, rows=60)
    weights = np.random.default_rng(1).integers(0, 3, (4, 60))
    limits = np.array([0.3, 0.4, 0.5, 0.6])
    together = thresholds.MultilabelMeasure(logits, true, limits).statistic(weights.astype(float))
    for i, row in enumerate(weights):
        alone = thresholds.MultilabelMeasure(np.repeat(logits, row, axis=0), np.repeat(true, row, axis=0), limits)
        assert {name: values[i] for name, values in together.items()} == pytest.approx(alone.values(), nan_ok=True)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.permutations(range(4)))
def test_thresholds_and_decisions_follow_the_order_of_labels_and_not_that_of_rows(seed, order):
    logits, true = drawn(seed)
    order, rows = list(order), np.random.default_rng(seed).permutation(len(logits))
    fitted = thresholds.fit_thresholds(logits, true)
    turned = thresholds.fit_thresholds(logits[rows][:, order], true[rows][:, order])
    assert turned == pytest.approx(fitted[order])
    said = thresholds.decide(logits, fitted)
    assert (thresholds.decide(logits[rows][:, order], fitted[order]) == said[rows][:, order]).all()
    assert ((fitted > 0) & (fitted < 1)).all()


def test_fitted_thresholds_are_better_than_a_half_and_few_rows_draw_them_to_the_common_one():
    logits, true = drawn(0, rows=2000)
    for each in (True, False):
        fitted = thresholds.fit_thresholds(logits, true, each=each, prior=0)
        assert thresholds.MultilabelMeasure(logits, true, fitted).values()["threshold_gain"] > 0.02
    common = thresholds.fit_thresholds(logits, true, each=False)
    assert np.ptp(common) == 0
    own, drawn_in = (thresholds.fit_thresholds(logits, true, prior=prior) for prior in (0, 1e9))
    assert drawn_in == pytest.approx(common)
    assert np.ptp(own) > 0.05
    true[:, 0] = 0  # a label without rows takes the common threshold
    common = thresholds.fit_thresholds(logits, true, each=False)
    assert thresholds.fit_thresholds(logits, true, prior=0)[0] == pytest.approx(common[0])


# --- training ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    return TASK.load("sample", train_size=40, validation_size=12, test_size=12)


def test_positive_rows_weigh_as_much_as_negative_ones(rows, tokenizer):
    encoded = TASK.encode(rows, tokenizer, max_length=32)["train"]
    hot = np.array(encoded["labels"])
    loss = TASK.loss(encoded, None, positive_weights="balanced")
    logits = torch.randn(len(hot), hot.shape[1], generator=torch.Generator().manual_seed(0))
    weights = torch.tensor((1 - hot.mean(axis=0)) / hot.mean(axis=0))
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(logits.double(), torch.tensor(hot))
    output = transformers.modeling_outputs.SequenceClassifierOutput(logits=logits)
    assert float(loss(output, torch.tensor(hot))) == pytest.approx(float(expected), rel=1e-5)
    parts = [loss(transformers.modeling_outputs.SequenceClassifierOutput(logits=logits[half]), torch.tensor(hot[half]),
                  torch.tensor(hot.size)) for half in (slice(10), slice(10, None))]  # fmt: skip
    assert float(sum(parts)) == pytest.approx(float(expected), rel=1e-5)  # accumulated batches
    config = transformers.BertConfig(num_labels=hot.shape[1])
    guessing = transformers.modeling_outputs.SequenceClassifierOutput(logits=torch.zeros_like(logits))
    chance = TASK.chance_loss(encoded, config, positive_weights="balanced")
    assert float(loss(guessing, torch.tensor(hot))) == pytest.approx(chance, rel=1e-5)
    lacking = Dataset.from_dict({"labels": [[*row, 0.0] for row in hot.tolist()]})  # one more, that no row has
    found = TASK.chance_loss(lacking, config, positive_weights="balanced")
    assert found == pytest.approx(chance * hot.shape[1] / (hot.shape[1] + 1))


def test_a_new_head_begins_with_the_labels_shares(rows, tiny_bert, tmp_path):
    fields, hot = TASK.model_fields(rows["train"]), multilabel.one_hot(rows["train"])
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, **fields)
    assert torch.sigmoid(model.classifier.bias).tolist() == pytest.approx((hot.sum(axis=0) + 0.5) / (len(hot) + 1))
    assert "output_bias" not in TASK.model_fields(rows["train"], positive_weights="balanced")
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="the head is new"):
        classifier = models.load_model(str(tmp_path), BertForSequenceClassification, num_labels=2)
    assert classifier.config.output_bias is None


def test_a_run_fits_thresholds_keeps_them_and_predicts_by_them(rows, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parameters = {"MODEL": str(tiny_bert), "DATA": "sample", "OUTPUT_DIR": "run", "EPOCHS": 2, "LEARNING_RATE": 1e-3,
                  "MAX_LENGTH": 32, "PRECISION": "fp32", "SEED": 0}  # fmt: skip
    run = runs.finish(runs.prepare(rows, parameters, task="multilabel"))
    fitted = run.trainer.model.config.thresholds
    assert fitted == thresholds.fit_thresholds(*run.validation[:2]).tolist()
    runs.save(run, tmp_path / "run")
    predictor = prediction.load(tmp_path / "run")
    assert predictor.task == "multilabel"
    assert predictor.model.config.thresholds == fitted
    new = Dataset.from_dict({"text": list(rows["test"]["text"])})
    table = prediction.predict(predictor, new, precision="fp32")
    names = list(predictor.model.config.id2label.values())
    chances = table[[f"probability_{name}" for name in names]].to_numpy()
    decided = [{*row.split("|")} - {""} for row in table.labels]
    assert decided == [{n for n, c, t in zip(names, row, fitted, strict=True) if c >= t} for row in chances]
    tag = pipeline("text-classification", str(tmp_path / "run/model"), top_k=None)
    for row, scores in zip(chances, tag(list(new["text"]), truncation=True, max_length=32), strict=True):
        by_name = {score["label"]: score["score"] for score in scores}
        assert [by_name[name] for name in names] == pytest.approx(row, abs=1e-4)
    written = pd.read_csv(tmp_path / "run/predictions.csv", keep_default_na=False)
    assert list(written[written.split == "test"].predicted) == list(table.labels)


def test_a_model_without_thresholds_decides_at_a_half(rows, tiny_bert, tokenizer, tmp_path):
    fields = {name: value for name, value in TASK.model_fields(rows["train"]).items() if name != "thresholds"}
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, seed=0, **fields)
    models.save_model(model, tokenizer, tmp_path / "theirs")
    table = prediction.predict(
        prediction.load(tmp_path / "theirs"), Dataset.from_dict({"text": ["The tap drips."]}), precision="fp32"
    )
    chances = table.filter(like="probability_").iloc[0]
    expected = [name.removeprefix("probability_") for name, chance in chances.items() if chance >= 0.5]
    assert table.labels[0] == "|".join(expected)


def test_a_pair_may_have_several_labels(tokenizer):
    rows = multilabelled(["a", "b"], [[0], []]).add_column("text_pair", ["c d", "e"])
    encoded = TASK.encode(DatasetDict(train=rows), tokenizer, max_length=16)["train"]
    assert tokenizer.decode(encoded[0]["input_ids"]) == "[CLS] a [SEP] c d [SEP]"
    assert encoded[0]["labels"] == [1.0, 0.0]
