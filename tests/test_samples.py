"""What the packaged samples promise."""

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bert_helpers import data
from bert_helpers.tasks.qa import AnswerMeasure
from bert_helpers.tasks.registry import TASKS

KINDS = {"", "mixed", "irony", "negation", "part", "plot"}


@pytest.fixture(scope="module")
def reviews():
    return TASKS["classification"].load("sample")


@pytest.fixture(scope="module")
def questions():
    return TASKS["qa"].load("sample")


def is_short(context):
    return len(context.split()) <= 65


def five_grams(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def test_reviews_sizes_classes_and_lengths(reviews):
    assert {name: len(split) for name, split in reviews.items()} == {"train": 480, "validation": 80, "test": 240}
    for counts in data.label_counts(reviews).to_numpy().T:
        assert counts[0] == counts[1]
    lengths = [len(text.split()) for split in reviews.values() for text in split["text"]]
    assert min(lengths) >= 25
    assert max(lengths) <= 110
    assert 57 <= np.mean(lengths) <= 65


def test_reviews_hold_hard_ones_of_every_kind(reviews):
    kinds = Counter(kind for split in reviews.values() for kind in split["hard"])
    assert set(kinds) == KINDS
    assert sum(kinds.values()) - kinds[""] >= 150
    assert set(reviews["test"]["hard"]) == KINDS


def test_no_two_reviews_share_a_quarter_of_their_five_grams(reviews):
    grams = [five_grams(text) for split in reviews.values() for text in split["text"]]
    holders = defaultdict(list)
    for row, own in enumerate(grams):
        for gram in own:
            holders[gram].append(row)
    shared = Counter((a, b) for rows in holders.values() for i, a in enumerate(rows) for b in rows[i + 1 :])
    worst = max(count / min(len(grams[a]), len(grams[b])) for (a, b), count in shared.items())
    assert worst < 0.25


@pytest.mark.parametrize(("ngrams", "strength"), [((1, 1), 1), ((1, 2), 10)])
def test_counting_words_does_not_solve_the_reviews(reviews, ngrams, strength):
    model = make_pipeline(
        TfidfVectorizer(ngram_range=ngrams, sublinear_tf=True), LogisticRegression(C=strength, max_iter=1000)
    )
    model.fit(reviews["train"]["text"], reviews["train"]["label"])
    assert 0.6 < model.score(reviews["test"]["text"], reviews["test"]["label"]) < 0.82


def test_sample_files_are_plain_utf8_lines():
    for path in (ROOT / "bert_helpers/samples/reviews").iterdir():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert row["text"] == row["text"].strip()
            assert "\n" not in row["text"]


def test_questions_sizes_and_contexts_of_one_split_each(questions):
    assert {name: len(split) for name, split in questions.items()} == {"train": 593, "validation": 130, "test": 236}
    contexts = {name: set(split["context"]) for name, split in questions.items()}
    assert {name: len(split) for name, split in contexts.items()} == {"train": 100, "validation": 25, "test": 43}
    assert len(set.union(*contexts.values())) == 168
    short = {name: sum(map(is_short, split["context"])) for name, split in questions.items()}
    assert short == {"train": 493, "validation": 80, "test": 136}
    titles = [set(split["title"]) for split in questions.values()]
    assert len(set.union(*titles)) == 168
    for split in questions.values():
        for context in split["context"]:
            assert 30 <= len(context.split()) <= 160


def test_no_two_contexts_share_a_tenth_of_their_five_grams(questions):
    contexts = {context for split in questions.values() for context in split["context"]}
    grams = [five_grams(context) for context in contexts]
    assert all(len(a & b) < 0.1 * len(a) for i, a in enumerate(grams) for b in grams[:i])


def test_answers_are_whole_words_and_those_on_short_contexts_are_short(questions):
    for split in questions.values():
        for row in split:
            for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
                around = row["context"][max(start - 1, 0) : start + len(text) + 1]
                assert re.fullmatch(r"(^|\W)?" + re.escape(text) + r"(\W|$)?", around), (row["id"], text)
            if is_short(row["context"]):
                assert len(row["answers"]["text"][0].split()) <= 7, row["id"]


def test_a_questions_words_are_needed_for_its_answer(questions):
    """The context's first span of the answer's own kind is the answer to few of the questions only."""
    number, name = r"\W?\d[\d.,]*(?: [a-z]+)?", r"[A-Z]\w+(?: [A-Z]\w+)*"
    test = questions["test"]
    firsts = [
        re.search(number if re.search(r"\d", row["answers"]["text"][0]) else name, row["context"])[0] for row in test
    ]
    measure = AnswerMeasure(firsts, [row["text"] for row in test["answers"]])
    assert measure.statistic(np.ones(len(test)))["f1"] < 0.25


def test_messages_with_tags_are_all_different_and_each_tag_is_in_every_split():
    splits = TASKS["multilabel"].load("sample")
    rows = [row for split in splits.values() for row in split]
    assert len({row["text"] for row in rows}) == len(rows) == 96
    names = splits["train"].features["labels"].feature.names
    assert names == ["access", "heating", "noise", "power", "urgent", "water"]
    counts = Counter(len(row["labels"]) for row in rows)
    assert counts[0] == 11
    assert sum(counts[n] for n in (2, 3)) >= 30
    assert all({i for row in split["labels"] for i in row} == set(range(6)) for split in splits.values())


def test_examples_of_pairs_tags_and_stars_are_what_their_page_says():
    page = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    duplicates = pd.read_csv(ROOT / "examples/duplicates.csv")
    assert not duplicates.duplicated().any()
    assert f"yes {sum(duplicates.duplicate == 'yes')}, no {sum(duplicates.duplicate == 'no')}" in page
    requests = pd.read_csv(ROOT / "examples/requests.csv", sep=";", keep_default_na=False)
    assert not requests.message.duplicated().any()
    for tag, count in Counter(tag for row in requests.tags for tag in row.split("|") if tag).items():
        assert re.search(rf"{tag}( \([^)]*\))? {count}\b", page), tag
    walks = pd.read_csv(ROOT / "examples/walks.tsv", sep="\t")
    assert not walks.review.duplicated().any()
    assert all(f"{stars:g}: {count}" in page for stars, count in Counter(walks.stars).items())
