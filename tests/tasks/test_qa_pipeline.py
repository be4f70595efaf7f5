"""The pipeline for answers: every form of a call gives the same answers, whatever the batch and its padding."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from encoders import FAMILIES, make_encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline

from bert_helpers import DataError, ParameterError, models
from bert_helpers.tasks import qa_pipeline  # noqa: F401  # registers it

MAX_LENGTH = 64
WORDS = ["the", "Norman", "kings,", "of", "(Café)", "naïve—well-known", "don't", "U.S.", "北京", "Zürich's", "a",
         "electroencephalogram"]  # fmt: skip
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def text(n, seed):
    return " ".join(np.random.default_rng(seed).choice(WORDS, n))


@pytest.fixture(scope="module")
def model(tiny_bert):
    model = models.load_model(str(tiny_bert), AutoModelForQuestionAnswering)
    with torch.no_grad():  # random logits that differ enough for an order
        model.qa_outputs.weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def pipes(model, tiny_bert):
    """Return two pipelines that differ in the side on which their tokenizer pads."""
    made = {}
    for side in ("right", "left"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_bert, padding_side=side)
        made[side] = pipeline("extractive-qa", model=model, tokenizer=tokenizer, device="cpu", max_length=MAX_LENGTH)
    assert made["left"].tokenizer.padding_side == "left"
    return made


@pytest.fixture(scope="module")
def pipe(pipes):
    return pipes["right"]


def same(one, other, rel=1e-4):
    assert [(a["answer"], a["start"], a["end"]) for a in one] == [(a["answer"], a["start"], a["end"]) for a in other]
    assert [a["score"] for a in one] == pytest.approx([a["score"] for a in other], rel=rel)


@given(
    sizes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 90)), min_size=1, max_size=6),
    batch_size=st.integers(1, 7),
    side=st.sampled_from(["right", "left"]),
    align=st.booleans(),
    order=st.randoms(use_true_random=False),
)
@FEW
def test_batch_padding_and_order_do_not_change_answers(sizes, batch_size, side, align, order, pipes):
    examples = [{"question": text(q, i), "context": text(c, i + 9)} for i, (q, c) in enumerate(sizes)]
    options = {"stride": 16, "align_to_words": align, "handle_impossible_answer": bool(batch_size % 2)}
    alone = [pipes["right"](example, **options) for example in examples]
    rows = order.sample(range(len(examples)), len(examples))
    same(pipes[side]([examples[i] for i in rows], batch_size=batch_size, **options), [alone[i] for i in rows])
    assert all(a["answer"] == e["context"][a["start"] : a["end"]] for a, e in zip(alone, examples, strict=True))


def test_columns_of_every_kind(pipe):
    table = pd.DataFrame({"question": ["Who?", "Where?"], "context": [text(30, 3), "In Zürich."]}, index=[7, 9])
    questions, contexts = table["question"].tolist(), table["context"].tolist()
    expected = pipe(question=questions, context=contexts)
    rows = Dataset.from_pandas(table, preserve_index=False)
    for column in (tuple, np.array, pd.Series, lambda values: rows["question" if values is questions else "context"]):
        assert pipe(question=column(questions), context=column(contexts)) == expected
        assert pipe(column(questions), column(contexts)) == expected
    assert pipe(rows) == pipe(table.to_dict(orient="records")) == pipe(rows[:]) == expected
    assert pipe(question=table["question"], context=contexts[0])[0] == expected[0]
    assert pipe(questions[0], contexts[0]) == expected[0]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_iterator_is_read_as_far_as_it_is_asked(batch_size, pipe):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield {"question": "Who?", "context": text(20, len(read))}

    answers = list(islice(pipe(endless(), batch_size=batch_size), 4))
    assert len(read) <= 4 + batch_size
    same(answers, [pipe(question="Who?", context=text(20, i + 1)) for i in range(4)])
    assert list(pipe(iter([]))) == []
    with pytest.raises(DataError, match="this one has no text 'context'"):
        list(pipe({"question": "Who?"} for _ in range(2)))


def test_a_question_is_whole_where_all_fits_and_else_cut(pipe, monkeypatch):
    seen, forward = [], pipe._forward
    monkeypatch.setattr(pipe, "_forward", lambda window: seen.append(window["input_ids"]) or forward(window))
    question = " ".join(["who"] * 50)
    pipe(question, "Ada did.")
    assert pipe.tokenizer.decode(seen.pop()[0]) == f"[CLS] {question} [SEP] ada did. [SEP]"
    with pytest.warns(UserWarning, match="of more than 20 tokens lose their last words"):
        pipe(question, text(60, 0))
    assert {(ids == pipe.tokenizer.encode("who")[1]).sum().item() for ids in seen} == {(MAX_LENGTH - 3 - 21) // 2}


def test_a_context_of_blanks_scores_nothing_unless_none_may_be_the_answer(pipe):
    assert pipe("Who?", " \n ") == {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    assert pipe("Who?", " \n ", handle_impossible_answer=True)["score"] == 1


def test_former_names_of_options(pipe, tokenizer, model):
    asked = {"question": "Who?", "context": text(90, 5)}
    former = {"topk": 3, "max_answer_len": 4, "max_seq_len": 40, "doc_stride": 10}
    today = {"top_k": 3, "max_answer_length": 4, "max_length": 40, "stride": 10}
    assert pipe(asked, **former) == pipe(asked, **today) != pipe(asked, top_k=3)
    assert pipeline("extractive-qa", model=model, tokenizer=tokenizer, device="cpu", **former)(asked) == pipe(
        asked, **today
    )
    with pytest.raises(ParameterError, match="max_question_len is not an option; options are max_length, stride"):
        pipe(asked, max_question_len=9)


@pytest.mark.parametrize("wrong", [1, None, "Who?", [1], ["Who?"], 1.5, object(), {"question": "Who?", "context": 1.5}])
def test_what_is_no_example(wrong, pipe):
    with pytest.raises(DataError, match=r"an example is|this one has no text"):
        pipe(wrong)


def test_more_or_fewer_texts_than_two(pipe):
    with pytest.raises(DataError, match="give question and context, or examples"):
        pipe("a", "b", "c")
    with pytest.raises(DataError, match="give question and context, or examples"):
        pipe("Who?", context="Ada.")
    with pytest.raises(DataError, match="no text 'question'"):
        pipe()


def test_words_are_completed_unless_told_otherwise(pipe):
    """The whole of "electroencephalogram", of "Zürich's" what precedes the apostrophe, and any part of 北京."""
    asked = {"question": "Who?", "context": "electroencephalogram Zürich's 北京 electroencephalogram"}
    pieces, aligned = pipe(asked, top_k=10**6, align_to_words=False), pipe(asked, top_k=10**6)
    borders = {0, 20, 21, 27, 28, 29, 30, 31, 32, 33, 53}
    assert {a[name] for a in aligned for name in ("start", "end")} <= borders
    assert len(pieces) > len(aligned)
    assert not {a[name] for a in pieces for name in ("start", "end")} <= borders


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_encoders(family, tmp_path):
    """Texts of different lengths in a batch padded on the left get the same answers as each alone."""
    folder = make_encoder(family, tmp_path, [text(20, i) for i in range(60)])
    model = models.load_model(str(folder), AutoModelForQuestionAnswering)
    with torch.no_grad():
        models.output_layer(model).weight.mul_(20)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    pipe = pipeline("extractive-qa", model=model, tokenizer=tokenizer, device="cpu", max_length=40, stride=8)
    examples = [{"question": "Who?", "context": text(n, n)} for n in (3, 40, 12)]
    alone = [pipe(example) for example in examples]
    for answer, example in zip(alone, examples, strict=True):
        assert answer["answer"] == example["context"][answer["start"] : answer["end"]].strip() != ""
    same(pipe(examples, batch_size=8), alone, rel=0.5 if family == "convbert" else 1e-3)  # its convolution sees padding
