"""What the packaged samples promise."""

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from conftest import ROOT
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bert_helpers import data
from bert_helpers.tasks.registry import TASKS

KINDS = {"", "mixed", "irony", "negation", "part", "plot"}


@pytest.fixture(scope="module")
def reviews():
    return TASKS["classification"].load("sample")


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
