import collections
import json
import re
import socket
import string

import evaluate
import numpy as np
import pytest
from datasets import Features, Value
from seqeval import metrics as seqeval

from bert_helpers import DataError, files
from bert_helpers.evaluation.evaluate_metrics import Seqeval, Squad
from bert_helpers.tasks.qa import AnswerMeasure

QUICK = {"keep_in_memory": True}  # after an error, a metric on disk keeps its lock and the next waits a second for it


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """No metric may reach for the Hub: every connection fails."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a connection was attempted: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# --- SQuAD -------------------------------------------------------------------------------------------------

# prediction, references
GOLDEN = [
    ("The Eiffel Tower!", ["Eiffel tower"]),
    ("in the city of Paris", ["Paris", "city of Paris"]),
    ("", ["four"]),
    ("the", ["an"]),
    ("1,859", ["1859", "the year 1859"]),
    ("a dog, a dog", ["dog cat dog"]),
    ("dog dog dog", ["dog cat dog", "dog"]),
    ("U.S.", ["us", "the United States"]),
    ("well-known man", ["well known man"]),
    ("Café Zürich", ["cafe zürich", "CAFÉ ZÜRICH"]),
    ("“yes” – ja", ["yes ja", "“yes”"]),
    ("the–end", ["–end"]),
    ("another theory", ["other theory", "a theory"]),
    ("北京 市", ["北京市", "北京 市"]),
    ("e\u0301te\u0301", ["été"]),
    (" Ada\t\nLovelace ", ["Lovelace", "ada lovelace", "Countess of Lovelace"]),
    ("It's $5.00 (about)", ["its 500", "5"]),
    ("İstanbul", ["i̇stanbul"]),
]


def official(dataset, predictions):
    """SQuAD 1.1's evaluation, written from its description, with loops and a regular expression for punctuation."""

    def clean(text):
        text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    def f1(answer, truth):
        answer, truth = clean(answer).split(), clean(truth).split()
        same = sum((collections.Counter(answer) & collections.Counter(truth)).values())
        if same == 0:
            return 0
        precision, recall = same / len(answer), same / len(truth)
        return 2 * precision * recall / (precision + recall)

    exact = total = words = 0
    for question in dataset:
        answer = predictions[question["id"]]
        total += 1
        exact += max(clean(answer) == clean(truth) for truth in question["answers"]["text"])
        words += max(f1(answer, truth) for truth in question["answers"]["text"])
    return {"exact_match": 100.0 * exact / total, "f1": 100.0 * words / total}


def squad(pairs):
    """Predictions and references in the metric's form."""
    predictions = [{"id": f"q{i}", "prediction_text": answer} for i, (answer, _) in enumerate(pairs)]
    references = [
        {"id": f"q{i}", "answers": {"text": texts, "answer_start": [0] * len(texts)}}
        for i, (_, texts) in enumerate(pairs)
    ]
    return {"predictions": predictions, "references": references}


@pytest.mark.parametrize("pairs", [GOLDEN, *([pair] for pair in GOLDEN)], ids=lambda pairs: repr(pairs[0][0]))
def test_squad_agrees_with_the_official_evaluation(pairs):
    given = squad(pairs)
    expected = official(given["references"], {p["id"]: p["prediction_text"] for p in given["predictions"]})
    assert Squad().compute(**given) == pytest.approx(expected)


def test_the_golden_list_has_right_half_right_and_wrong_answers():
    scores = [Squad().compute(**squad([pair])) for pair in GOLDEN]
    assert {0.0, 100.0} < {score["f1"] for score in scores}
    assert {score["exact_match"] for score in scores} == {0.0, 100.0}


def test_squad_is_the_answers_measure_in_percent():
    values = AnswerMeasure([p for p, _ in GOLDEN], [r for _, r in GOLDEN]).values()
    assert Squad().compute(**squad(GOLDEN)) == pytest.approx({name: 100 * value for name, value in values.items()})


def test_predictions_are_matched_by_id_not_by_position():
    given = squad([("Ada", ["Ada"]), ("Eve", ["Eve"]), ("Ben", ["Tom"])])
    given["predictions"].reverse()
    assert Squad().compute(**given)["exact_match"] == pytest.approx(200 / 3)


def test_a_metric_can_be_used_again_after_an_error():
    metric = Squad(**QUICK)
    with pytest.raises(DataError):
        metric.compute(**squad([("Ada", ["Ada"]), ("Eve", [])]))
    assert metric.compute(**squad([("Ada", ["Ada"])]))["f1"] == 100


def test_batches_add_up():
    given, metric = squad(GOLDEN), Squad()
    for start in range(0, len(GOLDEN), 5):
        metric.add_batch(**{name: rows[start : start + 5] for name, rows in given.items()})
    assert metric.compute() == pytest.approx(Squad().compute(**given))


def test_a_question_without_a_prediction_is_named():
    given = squad([("Ada", ["Ada"]), ("Eve", ["Eve"])])
    given["predictions"][1]["id"] = "elsewhere"
    with pytest.raises(DataError, match="question 'q1' has no prediction; give one, empty if need be"):
        Squad(**QUICK).compute(**given)


def test_a_question_without_a_reference_is_named():
    with pytest.raises(DataError, match="question 'q1' has no reference answer"):
        Squad(**QUICK).compute(**squad([("Ada", ["Ada"]), ("Eve", [])]))
    with pytest.raises(DataError, match="no questions to score"):
        Squad(**QUICK).compute(predictions=[], references=[])


# --- seqeval -----------------------------------------------------------------------------------------------

TRUE = [
    ["B-PER", "I-PER", "O", "B-LOC", "O"],
    ["O", "B-ORG", "I-ORG", "I-ORG"],
    ["B-LOC", "B-LOC", "O"],
    ["O"],
    ["B-PER", "O", "B-MISC"],
]
PREDICTED = [
    ["B-PER", "I-PER", "O", "B-ORG", "O"],
    ["O", "B-ORG", "I-ORG", "O"],
    ["B-LOC", "I-LOC", "O"],
    ["O"],
    ["B-PER", "B-LOC", "B-MISC"],
]


def test_seqeval_agrees_with_the_library():
    ours = Seqeval().compute(predictions=PREDICTED, references=TRUE)
    for name in ("precision", "recall", "f1", "accuracy"):
        assert ours[f"overall_{name}"] == pytest.approx(getattr(seqeval, f"{name}_score")(TRUE, PREDICTED)), name
    assert ours["overall_precision"] == pytest.approx(3 / 7)  # 7 entities predicted, 7 there, 3 hits
    report = seqeval.classification_report(TRUE, PREDICTED, output_dict=True)
    kinds = {"PER", "LOC", "ORG", "MISC"}
    assert set(ours) == kinds | {f"overall_{name}" for name in ("precision", "recall", "f1", "accuracy")}
    for kind in kinds:
        assert ours[kind]["f1"] == pytest.approx(report[kind]["f1-score"])
        assert ours[kind]["precision"] == pytest.approx(report[kind]["precision"])
        assert ours[kind]["recall"] == pytest.approx(report[kind]["recall"])
        assert ours[kind]["number"] == report[kind]["support"]


def test_seqevals_results_are_plain_numbers():
    ours = Seqeval().compute(predictions=PREDICTED, references=TRUE)
    assert {type(value) for value in ours.values()} == {float, dict}
    assert {type(value) for value in ours["PER"].values()} == {float, int}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([["O"], ["B-PER", "LOC"]], [["O"], ["O", "O"]], "sentence 2: 'LOC' is not a tag"),
        ([["O"]], [["PER"]], "sentence 1: 'PER' is not a tag"),
        ([["O"], ["O"]], [["O"], ["O", "O"]], "sentence 2: 1 predicted tags for 2 words"),
        ([], [], "0 predicted sentences for 0"),
    ],
)
def test_tags_that_seqeval_would_misread_are_refused(predictions, references, message):
    with pytest.raises(DataError, match=message):
        Seqeval(**QUICK).compute(predictions=predictions, references=references)


# --- evaluate's own functions ------------------------------------------------------------------------------


class AnswerLength(evaluate.Metric):
    """A user's own metric with the same inputs as SQuAD's."""

    def _info(self):
        features = Squad().info.features
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"words": float(np.mean([len(p["prediction_text"].split()) for p in predictions]))}


class TagShare(evaluate.Metric):
    """A metric of single tags, with other inputs than either."""

    def _info(self):
        features = Features({"predictions": Value("string"), "references": Value("string")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"share": float(np.mean([p == r for p, r in zip(predictions, references, strict=True)]))}


def test_metrics_of_the_same_inputs_combine():
    given = squad([("Ada Lovelace", ["Ada"]), ("Eve", ["Eve"])])
    together = evaluate.combine([Squad(), AnswerLength()]).compute(**given)
    assert together == pytest.approx({"exact_match": 50.0, "f1": 100 * (2 / 3 + 1) / 2, "words": 1.5})
    named = evaluate.combine({"answers": Squad(), "length": AnswerLength()}, force_prefix=True).compute(**given)
    assert named == pytest.approx({f"{'length' if n == 'words' else 'answers'}_{n}": v for n, v in together.items()})


def test_metrics_of_other_inputs_are_computed_one_by_one_and_joined():
    # `combine` gives every metric the same inputs; if their form is wrong, it says so and gives no numbers.
    tags, answers = {"predictions": PREDICTED, "references": TRUE}, squad([("Ada", ["Ada"])])
    with pytest.raises(DataError, match="'id' is not a tag"):
        evaluate.combine([Squad(**QUICK), Seqeval(**QUICK)]).compute(**answers)
    with pytest.raises(ValueError, match="don't match the expected format"):
        evaluate.combine([Seqeval(**QUICK), Squad(**QUICK)]).compute(**tags)
    joined = {**Seqeval().compute(**tags), **Squad().compute(**answers)}
    assert joined["overall_precision"] == pytest.approx(3 / 7)
    assert joined["exact_match"] == 100
    flat = {name: [tag for row in rows for tag in row] for name, rows in tags.items()}
    assert TagShare().compute(**flat)["share"] == pytest.approx(joined["overall_accuracy"]) == pytest.approx(12 / 16)


def test_a_result_is_saved_by_evaluate(tmp_path):
    scores = Squad().compute(**squad([("Ada Lovelace", ["Ada"]), ("Eve", ["Eve"])]))
    evaluate.save(tmp_path / "squad.json", **scores, model="tiny")
    saved = json.loads((tmp_path / "squad.json").read_text())
    assert saved["exact_match"] == 50.0
    assert saved["f1"] == pytest.approx(scores["f1"])
    assert saved["model"] == "tiny"
    tags = Seqeval().compute(predictions=PREDICTED, references=TRUE)
    evaluate.save(tmp_path / "seqeval.json", **tags)
    assert json.loads((tmp_path / "seqeval.json").read_text())["PER"] == tags["PER"]


def test_numpys_numbers_are_written_as_plain_ones(tmp_path):
    content = {
        "float32": np.float32(0.5),
        "float64": np.float64(1 / 3),
        "int": np.int64(7),
        "bool": np.bool_(True),
        "nan": np.float64("nan"),
        "row": np.array([1.5, np.inf]),
        "inner": [{"deep": np.int32(2)}, (np.float16(0.25),)],
    }
    path = files.write_json(tmp_path / "new" / "a.json", content)
    assert json.loads(path.read_text()) == {
        "float32": 0.5,
        "float64": 1 / 3,
        "int": 7,
        "bool": True,
        "nan": None,
        "row": [1.5, None],
        "inner": [{"deep": 2}, [0.25]],
    }
    scores = Squad().compute(**squad(GOLDEN))
    assert json.loads(files.write_json(tmp_path / "squad.json", scores).read_text()) == scores
