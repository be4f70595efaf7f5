import json
import math
from itertools import pairwise

import helpers
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import BertForQuestionAnswering, BertForSequenceClassification, pipeline

from bert_helpers import (
    DataError,
    ModelError,
    ParameterError,
    data,
    models,
    training,
)
from bert_helpers.readers import squad as squad_reader
from bert_helpers.tasks import qa, qa_pipeline  # noqa: F401  # the pipeline is registered
from bert_helpers.tasks.registry import TASKS

MAX_LENGTH, STRIDE = 64, 16  # the tiny model has 64 positions
WORDS = [
    *("the", "Norman", "kings,", "of", "1,066", "(Café)", "naïve—well-known", "don't", "U.S.", "e.g.", "a"),
    *("北京", "한국", "Zürich's", "electroencephalogram", "💡"),
]
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model(tiny_bert):
    model = models.load_model(str(tiny_bert), BertForQuestionAnswering)
    with torch.no_grad():  # random logits that differ enough for an order
        model.qa_outputs.weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    options = {"max_length": MAX_LENGTH, "align_to_words": False}
    return pipeline("extractive-qa", model=model, tokenizer=tokenizer, device="cpu", **options)


def row(question="Who?", context="Ada did.", text="Ada", start=0, name="q1"):
    answers = {"text": [text], "answer_start": [start]}
    return {"id": name, "title": "t", "question": question, "context": context, "answers": answers}


def squad(rows):
    """Return rows as a file in SQuAD's format with one paragraph each."""

    def answers(row):
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        return [{"text": text, "answer_start": start} for text, start in pairs]

    paragraphs = [
        {"context": r["context"], "qas": [{"id": r["id"], "question": r["question"], "answers": answers(r)}]}
        for r in rows
    ]
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}


def many(n=40, per_context=4):
    """Return questions about n / per_context contexts."""
    return [
        row(
            f"Who is number {i}?",
            f"Context {i // per_context} is about Ada.",
            "Ada",
            19 + (i // per_context > 9),
            f"q{i}",
        )
        for i in range(n)
    ]


def encode(rows, tokenizer, **options):
    options = {"max_length": MAX_LENGTH, "stride": STRIDE, **options}
    return TASKS["qa"].encode(DatasetDict({"test": Dataset.from_list(rows)}), tokenizer, **options)["test"]


def words(n, seed):
    return [WORDS[i] for i in np.random.default_rng(seed).integers(0, len(WORDS), n)]


# --- loading -----------------------------------------------------------------------------------------------


WRITERS = {
    "questions.json": lambda path, rows: path.write_text(json.dumps(squad(rows)), encoding="utf-8"),
    "bom.json": lambda path, rows: path.write_text(json.dumps(squad(rows)), encoding="utf-8-sig"),
    "questions.jsonl": lambda path, rows: path.write_text("".join(json.dumps(r) + "\n" for r in rows)),
    "questions.parquet": lambda path, rows: Dataset.from_list(rows).to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path, many())
    dataset = TASKS["qa"].load(path)
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 32, "validation": 4, "test": 4}
    assert sorted((r for split in dataset.values() for r in split), key=lambda r: int(r["id"][1:])) == many()
    assert dataset["train"].features == squad_reader.QUESTIONS


def test_a_folder_of_squad_files_and_the_sizes(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(squad(many())))
    dataset = TASKS["qa"].load(tmp_path, train_size=7, test_size=3)
    assert [len(split) for split in dataset.values()] == [7, 40, 3]


@given(contexts=st.integers(1, 15), per_context=st.integers(1, 9), seed=st.integers(0, 9))
@FEW
def test_held_out_rows_are_whole_contexts(contexts, per_context, seed):
    n = contexts * per_context
    rows = Dataset.from_list(many(n, per_context))
    sizes = {"train": 0, "validation": 0, "test": 0}
    if contexts < 3:
        with pytest.raises(DataError, match="too few to hold out"):
            data.split_missing({"train": rows}, sizes, seed=seed, sample=qa.sample_contexts)
        return
    splits = data.split_missing({"train": rows}, sizes, seed=seed, sample=qa.sample_contexts)
    held = [set(split["context"]) for split in splits.values()]
    assert sum(map(len, held)) == len(set.union(*held)) == contexts
    assert sum(map(len, splits.values())) == n
    for name in ("validation", "test"):  # enough rows, but no more contexts than needed
        assert round(0.1 * n) <= len(splits[name]) < max(1, round(0.1 * n)) + per_context


BAD = {
    "not at answer_start 1, and the context holds it 2 times": row(context="Ada, Ada did.", start=1),
    "'Eve' is not at answer_start 0, and the context does not hold it": row(text="Eve"),
    "not at answer_start -8": row(context="Ada, Ada did.", start=-8),
    "the question is empty": row(question=" "),
    "the context is empty": row(context=""),
    "an answer is empty": row(text=" "),
}


@pytest.mark.parametrize("name", ["bad.json", "bad.jsonl", "bad.parquet"])
@pytest.mark.parametrize("message", BAD)
def test_a_bad_question_is_named(message, name, tmp_path):
    path = tmp_path / name
    WRITERS[name.replace("bad", "questions")](path, [row(name="q0"), BAD[message]])
    with pytest.raises(DataError, match=f"^{name}, question '{BAD[message]['id']}': .*{message}"):
        TASKS["qa"].load(path)


# --- windows -----------------------------------------------------------------------------------------------


def decoded(encoded, rows):
    """Return, for each window with the answer, the number of the question and the characters of the positions."""
    for window in encoded:
        if window["start_positions"]:
            offsets = window["offset_mapping"]
            span = offsets[window["start_positions"]][0], offsets[window["end_positions"]][1]
            yield window["example"], span, rows[window["example"]]["context"][slice(*span)]


@given(n=st.integers(1, 5000), seed=st.integers(0, 99), places=st.lists(st.floats(0, 1), min_size=1, max_size=4))
@example(n=5000, seed=0, places=[0.0, 0.5, 1.0])
@FEW
def test_an_answer_anywhere_in_a_context_is_reachable_and_decodes_to_itself(n, seed, places, tokenizer):
    text = words(n, seed)
    rows = []
    for place in places:
        first = min(int(place * n), n - 1)
        before, answer = " ".join(text[:first]), " ".join(text[first : first + 2])
        rows.append(row("Which king?", " ".join(text), answer, len(before) + (first > 0), str(len(rows))))
    encoded = encode(rows, tokenizer)
    assert max(encoded["length"]) <= MAX_LENGTH
    assert qa.lost_answers(encoded)["windows"] == 0
    assert all(answer == rows[i]["answers"]["text"][0] for i, _, answer in decoded(encoded, rows))

    def sure(positions):  # the logits of a model that knows the answer and finds none in the other windows
        logits = np.full((len(encoded), MAX_LENGTH), -100.0)
        for window, length in enumerate(encoded["length"]):
            logits[window, :length] = 0
        logits[np.arange(len(encoded)), positions] = 20
        return logits

    logits = sure(encoded["start_positions"]), sure(encoded["end_positions"])
    answers = qa.predicted_answers(logits, encoded, [r["context"] for r in rows])
    assert [a[0]["answer"] for a in answers] == [r["answers"]["text"][0] for r in rows]
    assert [a[0]["start"] for a in answers] == [r["answers"]["answer_start"][0] for r in rows]
    assert all(a[0]["score"] > 0.99 for a in answers)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=300), st.text(max_size=300), st.floats(0, 1), st.floats(0, 1))))
@example([("e\u0301 \u200b한국 ǅ İ ﷺ" * 20, "É" * 200, place, 0.1) for place in (0, 0.3, 0.6, 1)])
@FEW
def test_gold_positions_in_any_unicode(tokenizer, drawn):
    rows = []
    for context, question, place, share in drawn:
        start = int(place * (len(context) - 1))
        end = start + 1 + int(share * (len(context) - start - 1))
        rows.append(row(question, context, context[start:end], start, str(len(rows))))
    if not rows:
        return
    found = list(decoded(encode(rows, tokenizer), rows))
    for number, r in enumerate(rows):
        start = r["answers"]["answer_start"][0]
        whole = tokenizer(r["context"], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        touched = [(a, b) for a, b in whole if a < start + len(r["answers"]["text"][0]) and b > start]
        spans = {span for example_, span, _ in found if example_ == number}
        assert spans <= {(touched[0][0], touched[-1][1])} if touched else not spans
        assert spans or len(touched) > STRIDE or not touched


@given(n=st.integers(1, 300), question=st.integers(0, 60), seed=st.integers(0, 99), stride=st.integers(0, 40))
@FEW
def test_windows_cover_the_context_in_order_and_share_stride_tokens(n, question, seed, stride, tokenizer):
    context = " ".join(words(n, seed))
    windows = qa.question_windows(
        [" ".join(words(question, seed + 1))], [context], tokenizer, max_length=MAX_LENGTH, stride=stride
    )
    pieces = [
        np.array(ids)[offsets[:, 1] > 0].tolist()
        for ids, offsets in zip(windows["input_ids"], windows["offset_mapping"], strict=True)
    ]
    joined = pieces[0] + [token for piece in pieces[1:] for token in piece[stride:]]
    assert joined == tokenizer(context, add_special_tokens=False)["input_ids"]
    assert all(a[len(a) - stride :] == b[:stride] for a, b in pairwise(pieces))
    for ids, types in zip(windows["input_ids"], windows["token_type_ids"], strict=True):
        question_ids = np.array(ids)[np.array(types) == 0][1:-1]
        asked = tokenizer(" ".join(words(question, seed + 1)), add_special_tokens=False)["input_ids"]
        assert asked[: len(question_ids)] == question_ids.tolist()
        assert len(question_ids) == len(asked) or len(question_ids) <= (MAX_LENGTH - 3 - stride) // 2


def test_lost_answers_by_hand():
    columns = {"example": [0, 1, 1, 2, 2, 3, 4, 4], "start_positions": [5, 0, 9, 0, 0, 7, 0, 0], "no_answer": [0] * 8}
    encoded = Dataset.from_dict({**columns, "has_answer": [True] * 6 + [False] * 2})
    assert qa.lost_answers(encoded) == {"windows": 0.25, "truncation": 0.5}
    assert qa.lost_answers(encoded.select([6, 7])) == {"windows": 0.0, "truncation": 0.0}


def test_an_answer_longer_than_the_overlap_can_be_lost_and_is_counted(tokenizer):
    context = " ".join(["one"] * 100)
    rows = [row("?", context, context[4 * i : 4 * i + 160].strip(), 4 * i, str(i)) for i in (0, 25)]
    assert qa.lost_answers(encode(rows, tokenizer)) == {"windows": 0.5, "truncation": 0.5}


@pytest.mark.parametrize("stride", [-1, 60, 64])
def test_a_stride_that_leaves_no_room_is_refused(stride, tokenizer):
    with pytest.raises(ParameterError, match=f"STRIDE is {stride}.*0 to 59"):
        encode([row()], tokenizer, stride=stride)


# --- answers -----------------------------------------------------------------------------------------------


def reference(model, tokenizer, question, context, *, stride, max_answer_length):
    """Return the score of every span and of "no answer": window by window, pair by pair."""
    asked = tokenizer(question, add_special_tokens=False)["input_ids"]
    text = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = text["input_ids"], text["offset_mapping"]
    room = MAX_LENGTH - 3 - len(asked)
    scores, no_answer, at = {}, 1.0, 0
    while True:
        piece = ids[at : at + room]
        window = [tokenizer.cls_token_id, *asked, tokenizer.sep_token_id, *piece, tokenizer.sep_token_id]
        types = [0] * (len(asked) + 2) + [1] * (len(piece) + 1)
        with torch.no_grad():
            output = model(input_ids=torch.tensor([window]), token_type_ids=torch.tensor([types]))
        places = [0, *range(len(asked) + 2, len(window) - 1)]
        start, end = ([math.exp(logits[0, i]) for i in places] for logits in (output.start_logits, output.end_logits))
        total = sum(start) * sum(end)
        no_answer = min(no_answer, start[0] * end[0] / total)
        for i in range(len(piece)):
            for j in range(i, min(i + max_answer_length, len(piece))):
                span = offsets[at + i][0], offsets[at + j][1]
                scores[span] = max(scores.get(span, 0), start[i + 1] * end[j + 1] / total)
        if at + room >= len(ids):
            return scores, no_answer
        at += room - stride


@pytest.mark.parametrize("stride", [0, 16, 30])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_pipeline_gives_the_answers_of_the_plain_reference(batch_size, stride, pipe, model, tokenizer):
    examples = [
        {"question": " ".join(words(i % 4, i)), "context": " ".join(words(n, i))}
        for i, n in enumerate([1, 2, 20, 35, 36, 37, 80, 200])
    ]
    options = {"batch_size": batch_size, "stride": stride, "max_answer_length": 9}
    for given_, answers, best in zip(
        examples, pipe(examples, top_k=4, **options), pipe(examples, top_k=1, **options), strict=True
    ):
        scores, _ = reference(model, tokenizer, **given_, stride=stride, max_answer_length=9)
        expected = sorted(scores.values(), reverse=True)[:4]
        assert [a["score"] for a in answers] == pytest.approx(expected, rel=1e-4)
        assert [scores[a["start"], a["end"]] for a in answers] == pytest.approx(expected, rel=1e-4)
        assert best["answer"] == answers[0]["answer"]


def test_no_answer_competes_when_asked_to(pipe, model, tokenizer):
    given_ = {"question": "Who?", "context": " ".join(words(50, 0))}
    scores, no_answer = reference(model, tokenizer, **given_, stride=16, max_answer_length=30)
    answers = pipe(given_, stride=16, top_k=10**6, handle_impossible_answer=True)
    assert {(a["start"], a["end"]) for a in answers} == {*scores, (0, 0)}
    impossible = next(a for a in answers if a["end"] == 0)
    assert impossible["answer"] == ""
    assert impossible["score"] == pytest.approx(no_answer, rel=1e-4)
    assert all(a["answer"] for a in pipe(given_, stride=16, top_k=10**6))


@given(question=st.text(max_size=200), context=st.text(max_size=400), top_k=st.integers(1, 9), no_answer=st.booleans())
@example(question="", context="Ada did.", top_k=1, no_answer=False)
@example(question="", context="", top_k=3, no_answer=False)
@example(question="Who?", context="\u200b \x00", top_k=1, no_answer=True)
@example(question="누구?", context="대한민국 " * 60, top_k=3, no_answer=False)
@example(question="É" * 200, context="e\u0301te\u0301 ﷺ ǅ İ " * 30, top_k=9, no_answer=False)
@FEW
def test_every_answer_is_a_slice_of_its_context(question, context, top_k, no_answer, pipe):
    answers = pipe(question=question, context=context, top_k=top_k, handle_impossible_answer=no_answer, batch_size=4)
    answers = [answers] if top_k == 1 else answers
    assert 1 <= len(answers) <= top_k
    assert len({(a["start"], a["end"]) for a in answers}) == len(answers)
    for a in answers:
        assert list(a) == ["score", "start", "end", "answer"]
        assert a["answer"] == context[a["start"] : a["end"]]
        assert 0 <= a["score"] <= 1 + 1e-6
        assert a["answer"] or no_answer or len(answers) == 1
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)


def test_the_forms_of_a_call_agree(pipe):
    context = " ".join(words(80, 3))
    one, two = pipe(question="Who?", context=context), pipe(question="Where?", context="In Zürich.")
    assert pipe({"question": "Who?", "context": context}) == one
    assert pipe([{"question": "Who?", "context": context}]) == [one]
    assert pipe(question=["Who?", "Where?"], context=[context, "In Zürich."]) == [one, two]
    assert pipe(question=["Who?", "Who?"], context=context) == [one, one]
    assert pipe(question="Who?", context=[context]) == [one]
    assert pipe(Dataset.from_list([{"id": "a", "question": "Where?", "context": "In Zürich."}])) == [two]
    assert pipe([]) == pipe(question=[], context=context) == []


def test_the_pipeline_answers_as_the_trainer_predicts(pipe, model, tokenizer, tmp_path):
    rows = [
        row(" ".join(words(3, i)), " ".join(words(n, i)), "x", 0, str(i)) for i, n in enumerate([5, 90, 30, 1, 200, 60])
    ]
    encoded = encode(rows, tokenizer)
    args = helpers.arguments(tmp_path, precision="fp32", batch_size=2, disable_tqdm=True)
    splits = DatasetDict({"train": encoded, "validation": encoded})
    trainer = helpers.make_trainer(model, args, splits, task="qa", tokenizer=tokenizer)
    logits = trainer.predict(encoded).predictions
    answers = qa.predicted_answers(logits, encoded, [r["context"] for r in rows], top_k=3, align_to_words=False)
    for one, other in zip(answers, pipe(rows, stride=STRIDE, top_k=3, batch_size=4), strict=True):
        assert [a["answer"] for a in one] == [a["answer"] for a in other]
        assert [a["score"] for a in one] == pytest.approx([a["score"] for a in other], rel=1e-4)
    with pytest.raises(DataError, match=r"do not belong together"):
        qa.predicted_answers((logits[0][:-1], logits[1][:-1]), encoded, [r["context"] for r in rows])
    with pytest.raises(DataError, match=r"6 questions and 5 contexts"):
        qa.predicted_answers(logits, encoded, [r["context"] for r in rows][:5])


def test_a_model_in_training_mode_answers_without_dropout(model, tokenizer):
    model.train()
    pipe = pipeline("extractive-qa", model=model, tokenizer=tokenizer, device="cpu")
    answers = [pipe(question="Who?", context=" ".join(words(30, 0))) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]


def test_a_saved_pipeline_loads_again_without_remote_code(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    options = {"max_length": MAX_LENGTH, "align_to_words": False}
    again = pipeline("extractive-qa", model=str(tmp_path), device="cpu", **options)
    asked = {"question": "Who?", "context": " ".join(words(80, 3))}
    assert again(asked)["answer"] == pipe(asked)["answer"]
    assert again(asked)["score"] == pytest.approx(pipe(asked)["score"])
    assert not list(tmp_path.glob("*.py"))


def test_calls_that_cannot_be_answered(pipe, tokenizer, tiny_bert):
    for wrong in ({"question": "Who?"}, {"question": "Who?", "context": None}, ["Who?"], [{"context": "Ada"}]):
        with pytest.raises(DataError, match=r"this one (has no text|is 'Who)"):
            pipe(wrong)
    with pytest.raises(DataError, match="this one has no text 'context'"):
        pipe(question="Who?")
    with pytest.raises(DataError, match="2 questions and 1 contexts"):
        pipe(question=["Who?", "Where?"], context=["Ada"])
    for option in ("top_k", "max_answer_length"):
        with pytest.raises(ParameterError, match=f"{option} is 0; it must be at least 1"):
            pipe(question="Who?", context="Ada", **{option: 0})
    with pytest.raises(ParameterError, match="MAX_LENGTH is 65"):
        pipe(question="Who?", context="Ada", max_length=65)
    with pytest.raises(ParameterError, match="STRIDE is 62"):
        pipe(question="Who?", context="Ada", stride=62)
    classifier = models.load_model(str(tiny_bert), BertForSequenceClassification)
    with pytest.raises(ModelError, match="BertForSequenceClassification has no start and end logits"):
        pipeline("extractive-qa", model=classifier, tokenizer=tokenizer)


# --- training ----------------------------------------------------------------------------------------------


def test_a_tiny_model_learns_where_the_answers_stand(tiny_bert, tokenizer, tmp_path):
    names = ["Ada", "Eve", "Ben", "Tom", "Ann", "Max", "Kim", "Leo"]
    rows = [
        row(
            "Who came?", f"{' '.join(words(i % 5, i))} then {name} came", name, len(" ".join(words(i % 5, i))) + 6, name
        )
        for i, name in enumerate(names)
    ]
    encoded = encode(rows, tokenizer)
    model = models.load_model(str(tiny_bert), TASKS["qa"].model_class)
    args = helpers.arguments(tmp_path, epochs=40, batch_size=4, learning_rate=5e-3, precision="fp32", disable_tqdm=True)
    splits = DatasetDict({"train": encoded, "validation": encoded})
    trainer = helpers.make_trainer(model, args, splits, task="qa", tokenizer=tokenizer)
    trainer.train()
    losses = training.history(trainer)["validation_loss"]
    assert losses.iloc[-1] < 0.3 * losses.iloc[0]
    logits = trainer.predict(encoded).predictions
    answers = [a[0]["answer"] for a in qa.predicted_answers(logits, encoded, [r["context"] for r in rows])]
    assert answers == names


# --- exact match and F1 ------------------------------------------------------------------------------------

# prediction, references, F1 and exact match by SQuAD 1.1's rules, worked out by hand
GOLDEN = [
    ("The Eiffel Tower!", ["Eiffel tower"], 1, 1),
    ("in the city of Paris", ["Paris", "city of Paris"], 6 / 7, 0),  # 3 of 4 words, all 3 of the reference
    ("", ["four"], 0, 0),
    ("1,859", ["1859", "the year 1859"], 1, 1),
    ("a dog, a dog", ["dog cat dog"], 4 / 5, 0),  # a repeated word counts twice
    ("dog", ["dog cat dog"], 1 / 2, 0),  # but no more often than it was predicted
    ("U.S.", ["us"], 1, 1),
    ("the", ["an"], 0, 1),  # both are empty once normalized: equal, but without a shared word
    ("well-known man", ["well known man"], 2 / 5, 0),  # "wellknown" is one word
    ("42 km", ["about 42 kilometres", "42 km away"], 4 / 5, 0),
    ("Café", ["cafe"], 0, 0),
    ("“yes”", ["yes"], 0, 0),  # only ASCII punctuation is removed
    ("the–end", ["–end"], 1, 1),  # an article ends at any character that is not a letter
    ("another theory", ["other theory"], 1 / 2, 0),  # articles are words, not parts of words
    ("  Ada \n Lovelace ", ["Lovelace", "ada lovelace"], 1, 1),
]


def test_f1_and_exact_match_on_the_golden_set():
    for answer, references, f1, exact in GOLDEN:
        table = qa.AnswerMeasure([answer], [references]).intervals()
        assert table["value"].to_dict() == pytest.approx({"f1": f1, "exact_match": exact}), answer
    table = qa.AnswerMeasure([g[0] for g in GOLDEN], [g[1] for g in GOLDEN]).intervals()
    assert list(table.index) == ["f1", "exact_match"]
    assert table.loc["f1", "value"] == pytest.approx(np.mean([g[2] for g in GOLDEN]))
    assert table.loc["exact_match", "value"] == pytest.approx(np.mean([g[3] for g in GOLDEN]))
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_intervals_resample_the_groups():
    right = np.repeat(np.arange(100) % 2 == 0, 10)  # all ten questions of a context right, or all wrong
    predictions, references = np.where(right, "x", "y").tolist(), [["x"]] * 1000
    groups = [f"context {i // 10}" for i in range(1000)]
    alone = qa.AnswerMeasure(predictions, references).intervals().loc["exact_match"]
    grouped = qa.AnswerMeasure(predictions, references, groups=groups).intervals().loc["exact_match"]
    assert alone["value"] == grouped["value"] == 0.5
    wider = (grouped["high"] - grouped["low"]) / (alone["high"] - alone["low"])
    assert wider == pytest.approx(math.sqrt(10), rel=0.15)


def test_groups_of_different_size_by_hand():
    sums = qa.sum_by_group(np.array([[1.0, 1], [2, 1], [4, 1]]), ["b", "a", "b"])
    assert sums.tolist() == [[5, 2], [2, 1]]


def test_answers_and_references_that_do_not_fit():
    with pytest.raises(DataError, match="2 answers, 1 references and 2 groups"):
        qa.AnswerMeasure(["a", "b"], [["a"]])
    with pytest.raises(DataError, match="1 answers, 1 references and 2 groups"):
        qa.AnswerMeasure(["a"], [["a"]], groups=["c", "d"])
    with pytest.raises(DataError, match="0 answers"):
        qa.AnswerMeasure([], [])
