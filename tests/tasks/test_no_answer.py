"""Questions that their context does not answer: targets, the null score, its threshold, and the metrics."""

import collections
import json
import math
import re
import string
from pathlib import Path

import helpers
import numpy as np
import pytest
import transformers
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import DataCollatorWithPadding, pipeline

from bert_helpers import models, prediction, runs
from bert_helpers.report import cards
from bert_helpers.tasks import qa, qa_pipeline  # noqa: F401  # the pipeline is registered
from bert_helpers.tasks.registry import TASKS

PLACES = ("Brask", "Delm", "Oster", "Varn", "Holm", "Lunde")
NAMES = ("Ada", "Ben", "Eve", "Kim", "Leo", "Ann", "Tom", "Max")


def row(number, answered):
    """Return rows about who lives where: the context names one place, and the question asks about that or another."""
    place, name = PLACES[number % len(PLACES)], NAMES[number % len(NAMES)]
    asked = place if answered else PLACES[(number + 1) % len(PLACES)]
    answers = {"text": [name], "answer_start": [0]} if answered else {"text": [], "answer_start": []}
    context = f"{name} lives in {place}, number {number // 2}."
    return {"id": str(number), "question": f"Who lives in {asked}?", "context": context, "answers": answers}


def rows(n):
    """Return questions with a context each; every second question has no answer."""
    return Dataset.from_list([row(i, i % 2 == 0) for i in range(n)])


def encode(split, tokenizer, **options):
    return TASKS["qa"].encode(DatasetDict(rows=split), tokenizer, **{"max_length": 64, "stride": 16, **options})["rows"]


# --- targets -----------------------------------------------------------------------------------------------


def test_the_target_of_no_answer_is_cls_in_every_window(tokenizer):
    long = row(1, False) | {"context": "Nobody. " * 100}
    encoded = encode(Dataset.from_list([row(0, True), long]), tokenizer)
    windows, encoded = len(encoded), encoded[:]
    assert encoded["has_answer"] == [True] + [False] * (windows - 1)
    assert windows > 3
    assert encoded["start_positions"][1:] == encoded["end_positions"][1:] == [0] * (windows - 1)
    assert all(ids[0] == tokenizer.cls_token_id for ids in encoded["input_ids"])
    assert encoded["start_positions"][0] > 0


def test_the_place_of_no_answer_is_asked_of_the_tokenizer(tiny_bert):
    """A tokenizer such as T5's, whose only special token ends each text, has it after the question."""
    other = models.load_tokenizer(str(tiny_bert))
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", other.sep_token_id)]
    )
    encoded = encode(Dataset.from_list([row(1, False)]), other)[0]
    asked = other(row(1, False)["question"], add_special_tokens=False)["input_ids"]
    assert encoded["start_positions"] == encoded["end_positions"] == encoded["no_answer"] == len(asked)
    assert encoded["input_ids"][len(asked)] == other.sep_token_id


def test_splits_with_an_answer_for_every_question_have_no_threshold(tiny_bert, tokenizer):
    answered = Dataset.from_list([row(i, True) for i in range(8)])
    assert TASKS["qa"].model_fields(answered)["null_score_diff_threshold"] is None
    assert TASKS["qa"].model_fields(rows(8))["null_score_diff_threshold"] == 0.0
    assert TASKS["qa"].fitted_fields(None, None, answered, None) == {}
    assert qa.no_answer_options(models.load_model(str(tiny_bert), TASKS["qa"].model_class).config) == {}


# --- the null score ----------------------------------------------------------------------------------------


def window(none, *spans):
    """Return a window of [CLS] and one token of 4 characters for each of `spans`: (first character, logit)."""
    logits = np.array([none, *(logit for _, logit in spans)], dtype=float) / 2
    return logits, logits, np.array([(0, 0), *((at, at + 4) for at, _ in spans)]), 0


def best(*windows, **options):
    options = {"max_answer_length": 1, "handle_impossible_answer": True, "align_to_words": False, **options}
    return qa.best_answers("abcdefghijklmnopqrstuvwx", windows, **options)


def test_the_null_score_is_the_least_over_windows():
    windows = window(9, (0, 1)), window(2, (4, 6)), window(8, (8, 0))
    (answer,) = best(*windows)
    assert (answer["answer"], answer["null_score_difference"]) == ("efgh", pytest.approx(2 - 6))
    assert answer["score"] == pytest.approx((math.exp(3) / (math.exp(3) + math.exp(1))) ** 2)
    # Each further window says "not here": a product would fall, but the answer and its difference stay.
    assert best(*windows, *[window(9, (12, 1))] * 50) == [answer]
    (none,) = best(window(9, (0, 1)), window(8, (4, 6)))
    assert (none["answer"], none["start"], none["end"]) == ("", 0, 0)
    assert none["null_score_difference"] == pytest.approx(8 - 6)
    assert none["score"] == pytest.approx((math.exp(4) / (math.exp(4) + math.exp(3))) ** 2)


def test_the_threshold_decides_between_the_best_span_and_none():
    given_ = window(5, (0, 3), (4, 2))
    for threshold, found in ((1.9, ["", "abcd", "efgh"]), (2.1, ["abcd", "", "efgh"])):
        answers = best(given_, top_k=3, null_score_diff_threshold=threshold)
        assert [a["answer"] for a in answers] == found
        assert [a["null_score_difference"] for a in answers if a["answer"]] == pytest.approx([2, 3])
    assert [a["answer"] for a in best(given_, top_k=3, handle_impossible_answer=False)] == ["abcd", "efgh"]


def test_a_context_without_words_gives_an_empty_answer_that_is_sure_only_where_none_may_be():
    assert best(window(3))[0]["score"] == 1
    (answer,) = best(window(3), handle_impossible_answer=False)
    assert (answer["answer"], answer["score"]) == ("", 0)


# --- the official evaluation -------------------------------------------------------------------------------


def words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def official_scores(question, prediction):
    """Return F1 and exact match of one question as described by SQuAD 2.0's evaluation."""

    def f1(gold, predicted):
        if not gold or not predicted:
            return float(gold == predicted)
        same = sum((collections.Counter(gold) & collections.Counter(predicted)).values())
        return 0.0 if not same else 2 * same / (len(gold) + len(predicted))

    golds = [gold for gold in map(words, question["answers"]["text"]) if gold] or [[]]
    predicted = words(prediction)
    return max(f1(g, predicted) for g in golds), max(float(g == predicted) for g in golds)


def official_threshold(questions, predictions, null_odds):
    """Return the best F1 over thresholds, by one pass over the questions in the order of their null odds."""
    total = best = sum(not question["answers"]["text"] for question in questions)
    for question in sorted(questions, key=lambda question: null_odds[question["id"]]):
        prediction = predictions[question["id"]]
        answered = bool(question["answers"]["text"])
        total += official_scores(question, prediction)[0] if answered else -1 if prediction else 0
        best = max(best, total)
    return best / len(questions)


GOLDEN = json.loads((Path(__file__).parent / "golden_squad2.json").read_text(encoding="utf-8"))


def test_f1_and_exact_match_are_those_of_version_2(tmp_path):
    """The scores in the file are those of `evaluate`'s "squad_v2", the official script (2026-11-30)."""
    questions, predictions = GOLDEN["questions"], GOLDEN["predictions"]
    references = [question["answers"]["text"] for question in questions]
    answers = [predictions[question["id"]] for question in questions]
    measured = qa.AnswerMeasure(answers, references, groups=[q["context"] for q in questions])
    assert measured.values() == pytest.approx(GOLDEN["scores"], abs=1e-9)
    for answer, question in zip(answers, questions, strict=True):
        found = qa.answer_scores(answer, question["answers"]["text"], may_be_empty=True)
        assert found == pytest.approx(official_scores(question, answer)), question["id"]
    table = measured.intervals(n_resamples=200)
    assert list(table.index) == [f"{part}{n}" for part in ("", "HasAns/", "NoAns/") for n in ("f1", "exact_match")]
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()


def test_where_every_question_has_an_answer_version_1_is_measured():
    """Both differ if a text has no words: "the" and "an" are equal, but share no word."""
    assert qa.AnswerMeasure(["the"], [["an"]]).values() == {"f1": 0, "exact_match": 1}
    assert qa.AnswerMeasure(["the", ""], [["an"], []]).values(["f1"]) == {"f1": 1}
    assert qa.AnswerMeasure(["the"], [["an", "Ada"]]).values() == {"f1": 0, "exact_match": 1}
    assert qa.AnswerMeasure(["the", ""], [["an", "Ada"], []]).values(["f1"]) == {"f1": 0.5}


def test_questions_of_one_kind_only():
    values = qa.AnswerMeasure(["", "x"], [[], []]).values()
    assert (values["f1"], values["NoAns/f1"]) == (0.5, 0.5)
    assert np.isnan(values["HasAns/f1"])


TEXTS = st.sampled_from(["Ada", "Ada Lovelace", "the", "Ben", "in Brask", "a dog"])


@given(
    st.lists(
        st.tuples(TEXTS, st.lists(TEXTS, max_size=2), st.floats(-20, 20).map(lambda value: round(value, 1))),
        min_size=2,
        max_size=12,
    )
)
@settings(max_examples=200, deadline=None)
def test_the_fitted_threshold_has_the_f1_of_the_official_search(drawn):
    dataset = [{"id": str(i), "answers": {"text": texts}} for i, (_, texts, _) in enumerate(drawn)]
    differences = [difference + i * 1e-6 for i, (*_, difference) in enumerate(drawn)]  # theirs is wrong for equal ones
    found = [
        {"answer": answer, "null_score_difference": difference}
        for (answer, _, _), difference in zip(drawn, differences, strict=True)
    ]
    references = [texts for _, texts, _ in drawn]
    threshold = qa.fit_threshold(found, references)

    def f1(threshold):
        answers = [a["answer"] if a["null_score_difference"] <= threshold else "" for a in found]
        scores = [qa.answer_scores(a, t, may_be_empty=True)[0] for a, t in zip(answers, references, strict=True)]
        return np.mean(scores)

    assert f1(threshold) == pytest.approx(max(map(f1, [-math.inf, *differences])))
    if all(words(text) for answer, texts, _ in drawn for text in (answer, *texts)):  # the search relies on that
        predictions, null_odds = ({str(i): a[name] for i, a in enumerate(found)} for name in found[0])
        assert f1(threshold) == pytest.approx(official_threshold(dataset, predictions, null_odds))


# --- a run -------------------------------------------------------------------------------------------------

PARAMETERS = {"EPOCHS": 12, "BATCH_SIZE": 8, "LEARNING_RATE": 5e-3, "MAX_LENGTH": 48, "STRIDE": 8, "DROPOUT": 0.0,
              "PRECISION": "fp32", "SEED": 0, "DATA": "questions.json", "OUTPUT_DIR": "run"}  # fmt: skip


@pytest.fixture(scope="module")
def home(tiny_bert, tmp_path_factory):
    """Return a folder with the run of a tiny model that was trained on such questions."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        dataset = DatasetDict(train=rows(96), validation=rows(24), test=rows(32))
        run = runs.finish(runs.prepare(dataset, {**PARAMETERS, "MODEL": str(tiny_bert)}, task="qa"))
        table = runs.save(run, home / "run", publish=cards.publish)
    return home, run, table


def test_a_run_fits_the_threshold_on_validation_rows_and_saves_it(home):
    folder, run, table = home
    config = json.loads((folder / "run/model/config.json").read_text())
    threshold = run.trainer.model.config.null_score_diff_threshold
    assert config["null_score_diff_threshold"] == threshold != 0
    spec, rows_ = TASKS["qa"], run.dataset["validation"]
    found = qa.predicted_answers(run.validation.predictions, run.encoded["validation"], list(rows_["context"]))
    assert threshold == qa.fit_threshold([a[0] for a in found], [a["text"] for a in rows_["answers"]])
    shown = (folder / "run/model/README.md").read_text()
    assert [name for name in table.index if f"| {name} |" in shown] == list(table.index)
    assert {"f1", "HasAns/f1", "NoAns/exact_match"} <= set(table.index)
    answers, _ = spec.predictions_and_references(
        run.test, run.encoded["test"], run.dataset["test"], run.trainer.model.config
    )
    assert "" in answers
    assert json.loads((folder / "run/predictions.json").read_text()) == dict(
        zip(run.dataset["test"]["id"], answers, strict=True)
    )


def test_predict_and_the_pipeline_use_it(home, monkeypatch):
    folder, run, _ = home
    predictor = prediction.load(folder / "run")
    asked = run.dataset["test"].select_columns(["question", "context"])
    table = prediction.predict(predictor, asked, precision="fp32")
    assert list(table) == ["question", "context", "answer", "start", "end", "score", "null_score_difference"]
    threshold = predictor.model.config.null_score_diff_threshold
    assert ((table["answer"] == "") == (table["null_score_difference"] > threshold)).all()
    assert 0 < (table["answer"] == "").sum() < len(table)
    ask = pipeline("extractive-qa", model=predictor.model, tokenizer=predictor.tokenizer, device="cpu")
    found = ask(question=asked["question"], context=asked["context"], handle_impossible_answer=True)
    assert [a["answer"] for a in found] == list(table["answer"])
    assert all(a["answer"] for a in ask(question=asked["question"], context=asked["context"]))
    always = ask(question=asked["question"], context=asked["context"], handle_impossible_answer=True,
                 null_score_diff_threshold=-99.0)  # fmt: skip
    assert not any(a["answer"] for a in always)


def test_the_next_training_on_answered_questions_forgets_it(home, monkeypatch):
    folder, _, _ = home
    monkeypatch.chdir(folder)
    answered = Dataset.from_list([row(2 * i, True) for i in range(8)])
    p = {**PARAMETERS, "EPOCHS": 1, "MODEL": "run/model", "OUTPUT_DIR": "next"}
    run = runs.finish(runs.prepare(DatasetDict(train=answered, validation=answered, test=answered), p, task="qa"))
    assert run.trainer.model.config.null_score_diff_threshold is None
    assert all(run.predictions_and_references()[0])


def test_the_loss_is_that_of_a_stock_trainer(tiny_bert, tokenizer, tmp_path):
    encoded = encode(rows(80), tokenizer)
    losses = []
    for kind in (helpers.training.Trainer, transformers.Trainer):
        model = models.load_model(
            str(tiny_bert), TASKS["qa"].model_class, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0
        )
        args = helpers.arguments(
            tmp_path / kind.__module__, batch_size=8, learning_rate=1e-3, epochs=2, precision="fp32", logging_steps=1,
            disable_tqdm=True, train_sampling_strategy="random", eval_strategy="no", metric_for_best_model=None,
        )  # fmt: skip
        trainer = kind(model, args, DataCollatorWithPadding(tokenizer), encoded, processing_class=tokenizer)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 20
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
