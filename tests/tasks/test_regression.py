import json
import warnings

import helpers
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_squared_error
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    EvalPrediction,
)

from bert_helpers import DataError, ModelError, models, tokenization
from bert_helpers.tasks import classification, regression
from bert_helpers.tasks.registry import TASKS

SENTENCES = [
    "A man plays.",
    "Two dogs run over a wide green field while it rains.",
    "Tea",
    "The bus is late again, and nobody at the stop knows why.",
    "A woman reads a long letter from her brother in Norway.",
    "Stop!",
    "Someone cooks soup.",
]


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1)


def drawn(seed, rows, *, tied=False):
    rng = np.random.default_rng(seed)
    labels = rng.uniform(0, 5, rows)
    predictions = labels + rng.normal(size=rows)
    return (np.round(predictions), np.round(labels)) if tied else (predictions, labels)


# --- metrics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [5, 40, 300])
def test_values_equal_scipys_and_scikit_learns(rows, tied):
    predictions, labels = drawn(rows, rows, tied=tied)
    expected = {
        "pearson": pearsonr(predictions, labels).statistic,
        "mse": mean_squared_error(labels, predictions),
        "spearman": spearmanr(predictions, labels).statistic,
    }
    table = regression.RegressionMeasure(predictions, labels).intervals(n_resamples=50)
    assert table["value"].to_dict() == pytest.approx(expected)
    assert regression.RegressionMeasure(predictions[:, None], labels).intervals(n_resamples=50).equals(table)
    scores = TASKS["regression"].compute_metrics(None)
    assert scores(EvalPrediction(predictions[:, None], labels)) == pytest.approx(expected)


def test_a_weighted_metric_is_that_of_the_repeated_rows():
    predictions, labels = drawn(0, 60, tied=True)
    weights = np.random.default_rng(1).integers(0, 3, (4, 60))
    together = regression.RegressionMeasure(predictions, labels).statistic(weights.astype(float))
    for i, row in enumerate(weights):
        p, y = np.repeat(predictions, row), np.repeat(labels, row)
        expected = {
            "pearson": pearsonr(p, y).statistic,
            "mse": mean_squared_error(y, p),
            "spearman": spearmanr(p, y).statistic,
        }
        assert {name: values[i] for name, values in together.items()} == pytest.approx(expected)


@pytest.mark.parametrize("constant", [0.0, 2.5, 1e6, np.resize([0.3, 0.1 + 0.2], 50)])  # the last but for rounding
def test_a_constant_prediction_has_no_correlation_and_warns_of_nothing(constant):
    labels = drawn(0, 50)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = regression.RegressionMeasure(np.full(50, constant), labels).intervals(n_resamples=100)
        other = regression.RegressionMeasure(labels, np.full(50, constant)).intervals(n_resamples=100)
    for part in (table, other):
        assert part.loc[["pearson", "spearman"]].isna().all(axis=None)
        assert part.loc["mse"].notna().all()
    assert table.loc["mse", "value"] == pytest.approx(((labels - constant) ** 2).mean())


def test_a_large_offset_costs_the_correlation_no_digits():
    predictions, labels = drawn(1, 100)
    moved = regression.RegressionMeasure(predictions + 1e8, labels).values()["pearson"]
    assert moved == pytest.approx(pearsonr(predictions, labels).statistic, abs=1e-6)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (np.zeros(3), np.zeros(4), "do not fit"),
        (np.zeros((3, 2)), np.zeros(3), "do not fit"),
        (np.zeros(0), np.zeros(0), "do not fit"),
        (np.array([1, np.nan]), np.zeros(2), "prediction 2 is not finite"),
        (np.zeros(3), np.array([0, 1, np.inf]), "label 3 is not finite"),
        (np.array([1, -1e200]), np.zeros(2), "prediction 2 is too large to be squared"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(predictions, labels, message):
    with pytest.raises(DataError, match=message):
        regression.RegressionMeasure(predictions, labels)


@pytest.mark.parametrize("size", [1e-120, 1e51, 1e139])
def test_intervals_do_not_depend_on_the_unit(size):
    predictions, labels = drawn(1, 40)
    table, scaled = (
        regression.RegressionMeasure(factor * predictions, factor * labels).intervals(n_resamples=200)
        for factor in (1.0, size)
    )
    assert (scaled.loc["mse"] / size**2).tolist() == pytest.approx(table.loc["mse"].tolist())
    assert scaled.loc["pearson"].tolist() == pytest.approx(table.loc["pearson"].tolist())


# --- scale -------------------------------------------------------------------------------------------------


def test_the_scale_standardizes_the_training_labels():
    labels = drawn(2, 200)[1].tolist()
    scale = regression.target_scale(labels)
    assert scale == pytest.approx({"target_mean": np.mean(labels), "target_deviation": np.std(labels)})
    with pytest.raises(DataError, match="every one of the 3 training scores is 2"):
        regression.target_scale([2.0, 2.0, 2.0])


def test_a_models_loss_is_of_standardized_labels_and_its_scores_are_in_the_users_units(tiny_bert, tokenizer):
    labels = torch.tensor([1.0, 4.0, 2.5])
    plain = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1).eval()
    batch = tokenizer(SENTENCES[:3], padding=True, return_tensors="pt")
    with torch.inference_mode():
        raw = plain(**batch).logits
        assert torch.equal(plain(**batch, labels=labels).logits, raw)
        scale = regression.target_scale(labels.tolist())
        model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1, **scale).eval()
        output = model(**batch, labels=labels)
    assert output.logits.numpy() == pytest.approx(raw.numpy() * labels.std(correction=0).item() + 2.5, abs=1e-6)
    standardized = (labels - 2.5) / labels.std(correction=0)
    assert output.loss.item() == pytest.approx((raw[:, 0] - standardized).square().mean().item())


def test_evaluation_and_prediction_are_in_the_users_units(tiny_bert, tokenizer, tmp_path):
    labels = np.linspace(0, 5, 40)
    trainer, encoded = trainer_of(labels, tiny_bert, tokenizer, tmp_path)
    output, scores = trainer.predict(encoded["validation"]), trainer.evaluate()
    predicted = output.predictions[:, 0]
    assert output.label_ids == pytest.approx(labels)
    assert scores["eval_validation_mse"] == pytest.approx(mean_squared_error(labels, predicted), rel=1e-4)
    assert scores["eval_validation_pearson"] == pytest.approx(pearsonr(labels, predicted).statistic, rel=1e-4)
    assert scores["eval_validation_loss"] == pytest.approx(scores["eval_validation_mse"] / labels.var(), rel=1e-4)


def test_a_scale_for_several_outputs_is_refused(tiny_bert):
    with pytest.raises(ModelError, match="2 outputs, not one; load it with num_labels=1"):
        models.load_model(str(tiny_bert), BertForSequenceClassification, target_mean=3.0, target_deviation=2.0)


def test_a_folded_model_says_the_users_units_and_says_them_once_loaded(tiny_bert, tokenizer, tmp_path):
    scale = {"target_mean": 3.2, "target_deviation": 1.4}
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1, **scale).eval()
    with torch.no_grad():
        model.classifier.bias.fill_(0.7)  # a bias of zero would hide that it is not multiplied
        model.classifier.weight.mul_(1000)  # so that outputs differ
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")

    def outputs(model):
        with torch.inference_mode():
            return model(**batch).logits[:, 0].numpy()

    expected = outputs(model)
    assert np.ptp(expected) > 0.1
    regression.fold_scale(model)
    assert outputs(model) == pytest.approx(expected, abs=1e-5)
    regression.fold_scale(model)  # a second time changes nothing
    assert outputs(model) == pytest.approx(expected, abs=1e-5)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load_trained(str(tmp_path), BertForSequenceClassification, num_labels=1).eval()
    assert outputs(loaded) == pytest.approx(expected, abs=1e-5)


def test_a_trained_models_scale_is_kept_in_its_folder(tiny_bert, tmp_path, tokenizer):
    scale = {"target_mean": 3.2, "target_deviation": 1.4}
    models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1, **scale).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load_trained(str(tmp_path), BertForSequenceClassification, num_labels=1)
    assert (loaded.config.target_mean, loaded.config.target_deviation) == (3.2, 1.4)


# --- without fine-tuning -----------------------------------------------------------------------------------


def test_embeddings_are_the_mean_of_the_tokens_states(encoder, tokenizer):
    ours = regression.embeddings(SENTENCES, encoder, tokenizer)
    assert ours.shape == (len(SENTENCES), 32)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(np.ones(len(SENTENCES)))
    for text, row in zip(SENTENCES, ours, strict=True):
        with torch.inference_mode():
            states = encoder.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = states.mean(dim=0).numpy()
        assert row == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_embeddings_depend_neither_on_the_batch_nor_on_the_order(batch_size, encoder, tokenizer):
    encoder.train()  # as left by a Trainer; dropout would make them random
    whole = regression.embeddings(SENTENCES, encoder, tokenizer)
    assert regression.embeddings(SENTENCES, encoder, tokenizer, batch_size=batch_size) == pytest.approx(whole, abs=1e-5)
    order = np.random.default_rng(0).permutation(len(SENTENCES))
    turned = regression.embeddings([SENTENCES[i] for i in order], encoder, tokenizer, batch_size=batch_size)
    assert turned == pytest.approx(whole[order], abs=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 0.01  # even random weights tell the texts apart


def test_texts_longer_than_the_model_are_cut(encoder, tokenizer):
    texts = ["word " * 500, "word " * 400]
    both = regression.embeddings(texts, encoder, tokenizer)
    assert both[0] == pytest.approx(both[1], abs=1e-5)


def test_cosines_lie_between_minus_one_and_one_and_a_text_is_its_own_likeness(encoder, tokenizer):
    turned = SENTENCES[::-1]
    values = regression.cosines(SENTENCES, turned, encoder, tokenizer)
    assert values.shape == (len(SENTENCES),)
    assert (np.abs(values) <= 1 + 1e-6).all()
    assert values == pytest.approx(values[::-1], abs=1e-5)  # the cosine is symmetric
    assert values[3] == pytest.approx(1, abs=1e-5)  # the middle sentence against itself
    assert values[0] < 0.999
    vectors = regression.embeddings(SENTENCES, encoder, tokenizer)
    assert values == pytest.approx((vectors * vectors[::-1]).sum(axis=1), abs=1e-5)


def test_the_baselines_are_fitted_to_the_training_rows_alone(encoder, tokenizer):
    def rows(labels, shift):
        pairs = SENTENCES[shift:] + SENTENCES[:shift]
        return Dataset.from_dict({"text": SENTENCES, "text_pair": pairs, "label": labels})

    train, test = [0.0, 1.5, 2.0, 5.0, 4.0, 0.5, 3.0], [5.0] * 7
    dataset = DatasetDict({"train": rows(train, 1), "test": rows(test, 2)})
    table = regression.baselines(dataset, encoder, tokenizer)
    assert table.columns.tolist() == ["mean", "cosine"]
    assert table["mean"].tolist() == pytest.approx([np.mean(train)] * 7)
    x, new = (
        regression.cosines(part["text"], part["text_pair"], encoder, tokenizer)
        for part in (dataset["train"], dataset["test"])
    )
    slope = np.cov(x, train, ddof=0)[0, 1] / x.var()  # textbook least squares
    assert table["cosine"].to_numpy() == pytest.approx(np.mean(train) + slope * (new - x.mean()), abs=1e-6)
    on_train = regression.baselines(dataset, encoder, tokenizer, split="train")["cosine"]
    assert on_train.mean() == pytest.approx(np.mean(train))


# --- pairs -------------------------------------------------------------------------------------------------


def pairs(n=20):
    return [(f"A man {i} sits.", f"A person {i}, too, is sitting.", i % 6 * 0.9) for i in range(n)]


def lines(rows, sep):
    return "".join(sep.join(map(str, row)) + "\n" for row in rows)


def load(path, content, **options):
    path.write_text(content, encoding="utf-8")
    return TASKS["regression"].load(path, **options)


def back(dataset):
    """Return all rows of all splits, sorted."""
    return sorted((r["text"], r["text_pair"], r["label"]) for split in dataset.values() for r in split)


def trainer_of(labels, tiny_bert, tokenizer, folder, **arguments):
    """Return a trainer for pairs with these labels, and its encoded splits, both with the same rows."""
    rows = Dataset.from_dict(
        {"text": [f"text {i}" for i in range(len(labels))], "text_pair": ["other"] * len(labels), "label": labels}
    )
    encoded = tokenization.encode_texts(DatasetDict(train=rows, validation=rows), tokenizer, max_length=16)
    scale = regression.target_scale(labels)
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1, **scale)
    args = helpers.arguments(folder, disable_tqdm=True, **{"precision": "fp32", **arguments})
    return helpers.make_trainer(model, args, encoded, task="regression", tokenizer=tokenizer), encoded


def test_scores_are_not_rounded_and_stay_what_they_are_when_the_scale_moves(tiny_bert, tokenizer, tmp_path):
    trainer, encoded = trainer_of(np.linspace(0, 5, 40), tiny_bert, tokenizer, tmp_path, precision="bf16")
    with torch.no_grad():
        trainer.model.classifier.weight *= 50  # as after training
    before = trainer.predict(encoded["validation"]).predictions[:, 0]
    assert not np.array_equal(before, torch.tensor(before).bfloat16().float().numpy())
    regression.fold_scale(trainer.model)
    after = trainer.predict(encoded["validation"]).predictions[:, 0]
    assert np.allclose(before, after, atol=1e-5)


def test_the_sample_is_whole():
    dataset = TASKS["regression"].load("sample")
    assert {name: len(split) for name, split in dataset.items()} == {"train": 280, "validation": 40, "test": 100}
    for split in dataset.values():
        scores = np.array(split["label"])
        assert split.features["label"].dtype == "float64"
        assert scores.min() == 0
        assert scores.max() == 5
        assert 1 < scores.std() < 2.5
    seen = [
        {tuple(sorted(pair)) for pair in zip(split["text"], split["text_pair"], strict=True)}
        for split in dataset.values()
    ]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 420  # no pair twice, none in two splits


def test_a_file_without_a_header_as_sts_b_is_published(tmp_path):
    dataset = load(tmp_path / "stsb.tsv", lines(pairs(), "\t"))
    assert {name: len(split) for name, split in dataset.items()} == {"train": 16, "validation": 2, "test": 2}
    assert back(dataset) == sorted(pairs())
    rows = [(a.replace(",", ""), b.replace(",", ""), y) for a, b, y in pairs()]
    assert back(load(tmp_path / "stsb.csv", lines(rows, ","))) == sorted(rows)


def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(tmp_path):
    # STS-B's tab-separated files do not quote, and their texts contain quotation marks.
    rows = [
        ('"Go on', "He says go on.", 4.0),
        *pairs(),
        ('"Stop", he said.', 'He said "stop".', 3.5),
        *pairs(40)[20:],
        ('"No', '"Yes" and "no', 1.0),
    ]
    assert back(load(tmp_path / "stsb.tsv", lines(rows, "\t"))) == sorted(rows)
    header = "text\ttext_pair\tlabel\n"
    assert back(load(tmp_path / "headed.tsv", header + lines(rows, "\t"))) == sorted(rows)


def test_a_file_quoted_by_the_rules_is_read_by_them(tmp_path):
    rows = [('He said "go\ton"', 'Two\nlines, "quoted"', 4.0), *pairs()]
    for name, sep in (("quoted.tsv", "\t"), ("quoted.csv", ",")):
        frame = pd.DataFrame(rows, columns=["text", "text_pair", "label"])
        frame.to_csv(tmp_path / name, sep=sep, index=False)
        assert back(TASKS["regression"].load(tmp_path / name)) == sorted(rows)


def test_columns_of_other_names_and_a_scale_of_ones_own(tmp_path):
    content = "number,left,right,stars\n" + "".join(f"{i},one {i},two {i},{i % 11 * 10}\n" for i in range(22))
    columns = {"text_column": "left", "pair_column": "right", "label_column": "stars"}
    dataset = load(tmp_path / "a.csv", content, **columns, high=100, test_size=5)
    assert len(dataset["test"]) == 5
    assert max(dataset["train"]["label"]) == 100
    assert set(dataset["train"].column_names) == {"number", "text", "text_pair", "label"}
    with pytest.raises(DataError, match=r"a\.csv, row 2 .also rows .*, column 'stars': 10 lies outside the scale"):
        load(tmp_path / "a.csv", content, **columns)


def test_encoded_pairs_keep_the_score_in_the_users_units(tmp_path, tokenizer):
    dataset = load(tmp_path / "a.tsv", lines(pairs(), "\t"))
    encoded = tokenization.encode_texts(dataset, tokenizer, max_length=32)
    assert encoded["train"]["labels"] == dataset["train"]["label"]


HEAD = "text,text_pair,label\n" + "a,b,1\nc,d,2.5\n" * 10
JSON_ROW = {"text": "a", "text_pair": "b", "label": 1.0}


def jsonl(*changes):
    return "".join(json.dumps({**JSON_ROW, **change}) + "\n" for change in ({}, *changes) for _ in range(10))


BAD = {
    "score above the scale": ("bad.csv", HEAD + "a,b,5.1\n", "row 21, column 'label': 5.1 lies outside .* 0 to 5"),
    "score below the scale": ("bad.csv", HEAD + "a,b,-0.1\n", "row 21, column 'label': -0.1 lies outside"),
    "several": ("bad.csv", HEAD + "a,b,7\na,b,\na,b,1\na,b,x\n", r"row 21 \(also rows 22, 24\), column 'label': 7"),
    "NaN": ("bad.csv", HEAD + "a,b,nan\n", "row 21, column 'label': 'nan' is not a finite number"),
    "NaN in JSON": (
        "bad.jsonl",
        jsonl({"label": float("nan")}),
        "row 11 .*, column 'label': nan is not a finite number",
    ),
    "infinity": ("bad.csv", HEAD + "a,b,inf\n", "row 21, column 'label': 'inf' is not a finite number"),
    "no number": ("bad.csv", HEAD + "a,b,high\n", "row 21, column 'label': 'high' is not a finite number"),
    "two commas": (
        "bad.tsv",
        HEAD.replace(",", "\t") + "a\tb\t2,5,1\n",
        "row 21, column 'label': '2,5,1' is not a finite",
    ),
    "boolean": ("bad.jsonl", jsonl().replace("1.0", "true"), "row 1 .*, column 'label': True is not a finite number"),
    "no score": ("bad.csv", HEAD + "a,b,\n", "row 21, column 'label': the score is missing"),
    "null score": ("bad.jsonl", jsonl({"label": None}), "row 11 .*, column 'label': the score is missing"),
    "no text": ("bad.csv", HEAD + ",b,1\n", "row 21, column 'text': the text is empty"),
    "no second text": ("bad.csv", HEAD + "a,  ,1\n", "row 21, column 'text_pair': the text is empty"),
    "no text, no header": ("bad.tsv", lines(pairs(), "\t") + "\tb\t1\n", "row 21, column 'text': the text is empty"),
    "null text": ("bad.jsonl", jsonl({"text_pair": None}), "row 11 .*, column 'text_pair': the text is null"),
    "no column": ("bad.jsonl", '{"text": "a", "label": 1}\n' * 9, "no column 'text_pair'; it has 'text', 'label'"),
    "no column in CSV": ("bad.csv", "text,label\na,1\n", "no column 'text_pair' in the header; it has 'text', 'label'"),
    "too many fields": ("bad.csv", HEAD + "a,b,1,2\n", "22"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pairs_are_named_with_their_place(case, tmp_path):
    name, content, message = BAD[case]
    with pytest.raises(DataError, match=rf"^{name}.*{message}"):
        load(tmp_path / name, content)


def test_a_test_split_without_labels_is_left_out_with_a_warning(tmp_path, caplog):
    (tmp_path / "train.tsv").write_text(lines(pairs(), "\t"))
    (tmp_path / "test.tsv").write_text(lines([(a, b, -1.0) for a, b, _ in pairs()], "\t"))  # withheld, as in GLUE
    dataset = TASKS["regression"].load(tmp_path)
    assert "test.tsv: left out no labels; use it with predict" in caplog.text
    assert back(dataset) == sorted(pairs())
    (tmp_path / "test.tsv").write_text(lines([("a", "b", -1.0), ("c", "d", 2.0)], "\t"))
    with pytest.raises(DataError, match=r"test\.tsv, row 1, column 'label': -1 lies outside"):
        TASKS["regression"].load(tmp_path)


# --- transfer ----------------------------------------------------------------------------------------------


def test_rows_of_another_domain_have_the_classifiers_classes(tmp_path):
    dataset = classification.load_transfer("sample", names=["negative", "positive"])
    assert len(dataset) == 80
    assert dataset.features["label"].names == ["negative", "positive"]
    assert set(dataset["label"]) == {0, 1}
    turned = classification.load_transfer(
        "sample", names=["positive", "negative"]
    )  # the classifier's order, not the alphabet's
    assert turned["label"] == [1 - label for label in dataset["label"]]
    assert len(classification.load_transfer("sample", names=["negative", "positive"], test_size=20)) == 20


def test_a_label_that_the_classifier_does_not_know_is_named(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("text,label\na,good\nb,bad\nc,so-so\n")
    message = r"^other\.csv, row 3, column 'label': 'so-so' is not a class of the model, which has 'bad', 'good'"
    with pytest.raises(DataError, match=message):
        classification.load_transfer(path, names=["bad", "good"])
    assert classification.load_transfer(path, names=["bad", "good", "so-so"])["label"] == [1, 0, 2]


# --- trained models ----------------------------------------------------------------------------------------


def test_a_trained_model_comes_back_with_its_head(tiny_bert, tmp_path, tokenizer):
    model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=3, seed=5)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load_trained(str(tmp_path), BertForSequenceClassification, num_labels=3)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)


def test_a_model_of_another_task_is_refused(tiny_bert, tmp_path):
    models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has 3 outputs where 1 are needed; it is of another task"):
        models.load_trained(str(tmp_path), BertForSequenceClassification, num_labels=1)
    with pytest.raises(ModelError, match="a BertForSequenceClassification, not one BertForQuestionAnswering"):
        models.load_trained(str(tmp_path), BertForQuestionAnswering)
    with pytest.raises(ModelError, match="a BertModel, not one BertForSequenceClassification"):
        models.load_trained(str(tiny_bert), BertForSequenceClassification)
    with pytest.raises(
        ModelError, match=r"its classes are \['LABEL_0', 'LABEL_1', 'LABEL_2'\], those of the data \['a'"
    ):
        models.load_trained(str(tmp_path), BertForSequenceClassification, labels=["a", "b", "c"])
    with pytest.raises(ModelError, match="no model here"):
        models.load_trained(str(tmp_path / "nowhere"), BertForSequenceClassification)
