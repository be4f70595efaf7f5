"""Damaged and made-up input: no exception but the package's own, and what is read obeys its invariants.

100 examples a test, always the same ones; `make fuzz` tries thousands of new ones.
"""

import json
import os

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_helpers import BertHelpersError, metrics
from bert_helpers.evaluation import calibration
from bert_helpers.parameters import check_parameters
from bert_helpers.readers import schemes
from bert_helpers.tasks import qa
from bert_helpers.tasks.registry import TASKS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ROWS = [{"text": f"text {i}, with a comma", "label": "ab"[i % 2]} for i in range(30)]
PAIRS = [{"text": f"a{i}", "text_pair": f"b{i}", "label": i % 6} for i in range(30)]
SENTENCE = {"tokens": ["Ann", "sings", "in", "Brask"], "ner_tags": ["B-PER", "O", "O", "B-LOC"]}
QUESTIONS = {
    "data": [
        {"title": "t", "paragraphs": [{"context": f"Ann {i} sings.", "qas": [
            {"id": f"{i}", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]}]}]}
        for i in range(20)
    ]
}  # fmt: skip


def csv(rows):
    lines = [",".join(f'"{value}"' for value in row.values()) for row in rows]
    return "\n".join([",".join(rows[0]), *lines, ""])


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


SOUND = {
    "reviews.csv": ("classification", csv(ROWS)),
    "reviews.jsonl": ("classification", json_lines(ROWS)),
    "reviews.json": ("classification", json.dumps(ROWS)),
    "pairs.csv": ("regression", csv(PAIRS)),
    "words.conll": ("ner", "Ann B-PER\nsings O\nin O\nBrask B-LOC\n\n" * 20),
    "words.jsonl": ("ner", json_lines([SENTENCE] * 20)),
    "squad.json": ("qa", json.dumps(QUESTIONS)),
}
LOAD = {
    "classification": TASKS["classification"].load,
    "regression": TASKS["regression"].load,
    "ner": TASKS["ner"].load,
    "qa": TASKS["qa"].load,
}
# What files break on, besides random bytes
PIECES = [b"\0", b"\n", b"\r", b'"', b",", b"\t", b"{", b"]", b"null", b"NaN", b"1e999", b"-1", b"\xff", b"\\ud800"]
PIECES += ["é".encode(), "\u200b".encode(), b"\xed\xa0\x80", b"\xef\xbb\xbf", b"I-PER", b"X-", b"", b"label", b"text"]


@st.composite
def damaged(draw, content):
    """Return the content with one to four places cut out, repeated or overwritten."""
    for _ in range(draw(st.integers(1, 4))):
        start, size = draw(st.integers(0, len(content))), draw(st.integers(0, 60))
        piece = draw(
            st.one_of(st.sampled_from(PIECES), st.binary(max_size=8), st.just(content[start : start + size] * 2))
        )
        content = content[:start] + piece + content[start + size :]
    return content


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own: every example is another file to the readers."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", SOUND)
@fuzz
@given(drawn=st.data())
def test_a_damaged_file_is_read_or_refused(name, cache, drawn):
    task, content = SOUND[name]
    path = cache / name
    path.write_bytes(drawn.draw(damaged(content.encode())))
    dataset, message = outcome(LOAD[task], path)
    if message:
        assert name in message
        assert len(message) < 2000
        return
    assert list(dataset) == ["train", "validation", "test"]
    for split in dataset.values():
        assert len(split)
        CHECKS[task](split)


def outcome(function, *arguments):
    """Return the result of a call, or its error."""
    try:
        return function(*arguments), None
    except BertHelpersError as error:
        return None, str(error)


def is_text(value):
    return isinstance(value, str) and value.strip() and "\0" not in value and value.encode()


def check_labels(split):
    assert all(map(is_text, split["text"]))
    assert set(split["label"]) <= set(range(split.features["label"].num_classes))


def check_scores(split):
    assert all(map(is_text, split["text"])) and all(map(is_text, split["text_pair"]))  # noqa: PT018
    assert np.isfinite(split["label"]).all() and 0 <= min(split["label"]) <= max(split["label"]) <= 5  # noqa: PT018


def check_tagged(split):
    names = split.features["ner_tags"].feature.names
    for words, labels in zip(split["tokens"], split["ner_tags"], strict=True):
        assert len(words) == len(labels) > 0
        check_iob2([names[label] for label in labels])


def check_iob2(row):
    for before, tag in zip(["O", *row], row, strict=False):
        assert tag[0] in "BIO"
        assert not tag.startswith("I-") or before[1:] == tag[1:], row


def check_answers(split):
    for context, answers in zip(split["context"], split["answers"], strict=True):
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            assert context[start : start + len(text)] == text


CHECKS = {"classification": check_labels, "regression": check_scores, "ner": check_tagged, "qa": check_answers}


@fuzz
@given(st.lists(st.lists(st.sampled_from(["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B"]), max_size=8)))
def test_any_tags_become_iob2_or_are_refused(rows):
    try:
        scheme = schemes.find_scheme(rows)
    except schemes.SequenceError as error:
        for sequence, position in error.places:
            rows[sequence][position]  # the place exists
        return
    for row in rows:
        converted = schemes.to_iob2(row, scheme)
        check_iob2(converted)
        assert [tag == "O" for tag in converted] == [tag == "O" for tag in row]
        assert [tag[1:] for tag in converted] == [tag[1:] for tag in row]


@fuzz
@given(
    st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(8, 40),
    st.integers(0, 40),
)
def test_every_word_of_any_sentence_gets_one_label(tokenizer, sentences, max_length, stride):
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "B-A", "I-A"]))})
    rows = Dataset.from_dict({"tokens": sentences, "ner_tags": [[1] * len(s) for s in sentences]}, features=features)
    try:
        encoded = TASKS["ner"].encode(DatasetDict(train=rows), tokenizer, max_length=max_length, stride=stride)
    except BertHelpersError:
        return
    labelled = sum(label >= 0 for row in encoded["train"]["labels"] for label in row)
    assert labelled <= sum(map(len, sentences))
    for row in encoded["train"]:
        assert len(row["input_ids"]) == len(row["labels"]) <= max_length
        assert max(row["labels"]) >= 0


@fuzz
@given(
    st.text(min_size=1, max_size=400),
    st.text(max_size=80),
    st.integers(8, 64),
    st.integers(0, 40),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_spans_of_any_context_are_slices_of_it(tokenizer, context, question, length, stride, top_k, longest, seed):
    try:
        windows = qa.question_windows([question], [context], tokenizer, max_length=length, stride=stride)
    except BertHelpersError:
        return
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 8, (2, len(windows["input_ids"]), length + 3))
    offsets = [np.array(rows) for rows in windows["offset_mapping"]]
    parts = zip(*logits, offsets, windows["no_answer"], strict=True)
    answers = qa.best_answers(context, parts, top_k=top_k, max_answer_length=longest)
    assert 1 <= len(answers) <= top_k
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
    for answer in answers:
        assert context[answer["start"] : answer["end"]] == answer["answer"]
        assert 0 <= answer["score"] <= 1 + 1e-9
        assert len(tokenizer(answer["answer"], add_special_tokens=False)["input_ids"]) <= longest + 2
    assert max(map(len, windows["input_ids"])) <= length


@fuzz
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 99), st.sampled_from([1e-9, 1, 50, 1e6]))
def test_metrics_of_any_logits_lie_in_their_range_and_interval(rows, classes, seed, size):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(rows, classes)) * size, rng.integers(0, classes, rows)
    table = metrics.ClassificationMeasure(logits, labels).intervals(n_resamples=50)
    for name in table.index.difference(["log_loss"]):
        most = 2 if name == "brier" and classes > 2 else 1
        assert not table.value[name] < 0 and not table.value[name] > most  # noqa: PT018  (NaN where there is one class)
    bounded = table.dropna()
    assert (bounded.low <= bounded.value + 1e-9).all()
    assert (bounded.value <= bounded.high + 1e-9).all()
    temperature = calibration.fit_temperature(logits, labels)
    assert np.isfinite(temperature)
    assert temperature > 0


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.integers()))
KINDS = {"EPOCHS": int, "QA_EPOCHS": int, "BATCH_SIZE": int, "SEED": int, "LEARNING_RATE": float, "DIFFERENCE": float,
         "PRECISION": str, "TRUNCATION": str, "DATA": str, "MODEL": str, "ANY": bool}  # fmt: skip


@fuzz
@given(st.sampled_from(list(KINDS)), VALUES)
def test_any_parameter_is_accepted_with_its_type_or_refused(name, value):
    checked, message = outcome(check_parameters, {"__annotations__": {name: KINDS[name]}, name: value})
    assert name in message if message else isinstance(checked[name], KINDS[name])
