"""Entity predictions to numbers: scores by type, kinds of error, baselines.

An entity counts as found if its first word, last word and type are right (Tjong Kim Sang and De Meulder 2003). seqeval
decides what an entity is, and nervaluate what kind of error a wrong one is.
"""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
from nervaluate import Evaluator
from seqeval.scheme import IOB2, Entities

from bert_helpers.errors import DataError
from bert_helpers.intervals import RESAMPLES, Metrics, Weights, intervals
from bert_helpers.metrics import Measure
from bert_helpers.readers import schemes
from bert_helpers.readers.spans import find_words

Tags = Sequence[Sequence[str]]  # one sequence of IOB2 tags per sentence


def named(rows: Sequence[Sequence[int]], names: Sequence[str]) -> list[list[str]]:
    """Return the names of tag ids, one sequence per sentence."""
    return [[names[i] for i in row] for row in rows]


def keep_types(tags: Tags, types: Sequence[str]) -> list[list[str]]:
    """Return tags with O in place of types that are not in `types`."""
    return [[tag if tag[2:] in types else "O" for tag in row] for row in tags]


def legal_tags(scores: Sequence[np.ndarray], names: Sequence[str]) -> list[list[str]]:
    """Return the legal IOB2 tags with the highest sum of scores: an array (words, tags) for each sentence.

    An I- may only follow a tag of its type, unless `names` has no B- for it (Viterbi 1967). Sentences whose best tags
    are legal anyway do not change.
    """
    rows = named([row.argmax(axis=-1) for row in scores], names)
    inside = {f"I-{name[2:]}" for name in names if name.startswith("B-")}
    # legal[i, j]: whether tag j may follow tag i; the last i is the start of a sentence
    legal = np.array([[b not in inside or a[2:] == b[2:] for b in names] for a in (*names, "O")])
    for number in np.flatnonzero([schemes.slips([row]) for row in rows]):
        best, back = np.where(legal[-1], scores[number][0].astype(float), -np.inf), []
        for row in scores[number][1:]:
            paths = np.where(legal[:-1], best[:, None], -np.inf)
            back.append(paths.argmax(axis=0))
            best = paths.max(axis=0) + row
        path = [int(best.argmax())]
        for before in reversed(back):
            path.append(int(before[path[-1]]))
        rows[number] = [names[i] for i in reversed(path)]
    return rows


def character_spans(text: str, words: Sequence[str], tags: Sequence[str]) -> list[tuple[int, int, str, str]]:
    """Return start, end (exclusive), type and text of each entity; the words are slices of the text, in its order.

    >>> character_spans("Ann Lee, who sings", ["Ann", "Lee", ",", "who", "sings"], ["B-PER", "I-PER", "O", "O", "O"])
    [(0, 7, 'PER', 'Ann Lee')]
    """
    places = find_words(text, words)
    (found,) = _spans([list(tags)], strict=False)
    characters = [(places[first][0], places[last][1], kind) for kind, first, last in found]
    return [(start, end, kind, text[start:end]) for start, end, kind in sorted(characters)]


class EntityMeasure(Measure):
    """Predicted and gold tags of sentences; sentences are resampled.

    F1, precision and recall of entities, micro-averaged over types, the accuracy of tokens, and that of tagging
    nothing. Tags are read as by the conlleval script, where an entity may begin with I-; with `strict`, as IOB2, where
    such words are no entity. Precision (recall, F1) without any predicted (gold) entity is 0, as in seqeval.
    `characters`, sets of (start, end, type) of each text, predicted and gold, are measured as `span_f1`,
    `span_precision` and `span_recall`. Raises DataError when the two sides do not match, or for values that are not
    tags.
    """

    shares: ClassVar = {
        **dict.fromkeys(("f1", "precision", "recall", "span_f1", "span_precision", "span_recall"), False),
        **dict.fromkeys(("token_accuracy", "all_o_accuracy"), True),
    }
    headline = ("f1", "precision", "recall", "token_accuracy")

    def __init__(
        self,
        predictions: Tags,
        references: Tags,
        *,
        strict: bool = False,
        characters: tuple[Sequence[set], Sequence[set]] | None = None,
    ) -> None:
        check_tags(predictions, references)
        self.table = _counts(references, predictions, strict=strict)
        words = [
            (len(gold), sum(a == b for a, b in zip(gold, guess, strict=True)), list(gold).count("O"))
            for gold, guess in zip(references, predictions, strict=True)
        ]
        entities = self.table.to_numpy().reshape(len(references), -1, 3).sum(axis=1)
        pairs = zip(*characters, strict=True) if characters else ()
        spans = [(len(gold), len(guess), len(gold & guess)) for guess, gold in pairs]
        self.columns = np.column_stack([entities, words, *([spans] if spans else [])]).astype(float)
        self.units = self.examples = len(references)

    def statistic(self, weights: Weights) -> Metrics:
        """Return each metric (…) of weights (…, sentences)."""
        sums = weights @ self.columns
        tokens, right, outside = (sums[..., i] for i in (3, 4, 5))
        accuracy = {"token_accuracy": right / tokens, "all_o_accuracy": outside / tokens}
        spans = _precision_recall_f1(sums[..., 6:]) if sums.shape[-1] > 6 else {}
        return {**_precision_recall_f1(sums), **accuracy, **{f"span_{name}": value for name, value in spans.items()}}

    def by_type(self, *, seed: int = 0, n_resamples: int = RESAMPLES) -> pd.DataFrame:
        """Return F1 with its 95% interval (`value`, `low`, `high`), precision, recall and support of every type."""
        rows = {}
        for kind in self.table.columns.levels[0]:
            columns = self.table[kind].to_numpy(dtype=float)

            def statistic(weights: Weights, columns: np.ndarray = columns) -> Metrics:
                return _precision_recall_f1(weights @ columns)

            scores = intervals(statistic, self.units, shares=self.shares, n_resamples=n_resamples, seed=seed)
            exact = {name: scores.value[name] for name in ("precision", "recall")}
            rows[kind] = {**scores.loc["f1"], **exact, "support": int(columns[:, 0].sum())}
        return pd.DataFrame.from_dict(rows, orient="index")


def check_tags(predictions: Tags, references: Tags) -> None:
    """Raise DataError unless every word of every sentence has a predicted and a gold tag."""
    if len(references) != len(predictions) or not len(references):
        problem = f"{len(predictions)} predicted sentences for {len(references)}"
        raise DataError(f"{problem}; both must be the same, at least one")
    for number, (gold, guess) in enumerate(zip(references, predictions, strict=True), 1):
        if len(gold) != len(guess):
            raise DataError(f"{len(guess)} predicted tags for {len(gold)} words", row=number, unit="sentence")
        # seqeval takes 'MISC' for an entity of the type 'ISC'
        bad = next((tag for tag in (*gold, *guess) if not schemes.TAG.fullmatch(tag)), None)
        if bad is not None:
            raise DataError(f"{bad!r} is not a tag; tags are O, B-TYPE and I-TYPE", row=number, unit="sentence")


def _precision_recall_f1(sums: np.ndarray) -> dict[str, np.ndarray]:
    gold, predicted, hits = (sums[..., i] for i in range(3))
    return {
        "f1": 2 * hits / np.maximum(gold + predicted, 1),
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(gold, 1),
    }


def _counts(gold: Tags, predicted: Tags, *, strict: bool) -> pd.DataFrame:
    """Count the entities (gold, predicted, hits) of each type (columns of two levels) in each sentence (rows)."""
    spans = [_spans([list(tags) for tags in side], strict=strict) for side in (gold, predicted)]
    kinds = sorted({kind for side in spans for sentence in side for kind, _, _ in sentence}) or ["-"]
    counts = np.zeros((len(gold), len(kinds), 3), dtype=int)
    for row, (g, p) in enumerate(zip(*spans, strict=True)):
        for column, group in enumerate((g, p, g & p)):
            for kind, _, _ in group:
                counts[row, kinds.index(kind), column] += 1
    columns = pd.MultiIndex.from_product([kinds, ["gold", "predicted", "hits"]])
    return pd.DataFrame(counts.reshape(len(gold), -1), columns=columns)


def _spans(sequences: list[list[str]], *, strict: bool) -> list[set[tuple[str, int, int]]]:
    """Return (type, first word, last word) of each sentence's entities."""
    if strict:
        return [{(e.tag, e.start, e.end - 1) for e in row} for row in Entities(sequences, IOB2).entities]
    from seqeval.metrics.sequence_labeling import get_entities  # takes half a second: it imports scikit-learn

    return [set(get_entities(tags)) for tags in sequences]


def error_kinds(gold: Tags, predicted: Tags) -> pd.Series:
    """Count entities by kind of error, after nervaluate (the categories of MUC and SemEval 2013).

    correct; wrong type (right boundaries); wrong boundary (right type, overlapping); both wrong; missed; spurious.
    """
    check_tags(predicted, gold)
    sides = [[list(tags) for tags in side] for side in (gold, predicted)]
    kinds = sorted({tag[2:] for side in sides for tags in side for tag in tags if tag != "O"})
    overall = Evaluator(*sides, tags=kinds, loader="list").evaluate()["overall"]
    correct = overall["strict"].correct
    kind, boundary = overall["exact"].correct - correct, overall["ent_type"].correct - correct
    return pd.Series(
        {
            "correct": correct,
            "wrong type": kind,
            "wrong boundary": boundary,
            "both wrong": overall["strict"].incorrect - kind - boundary,
            "missed": overall["strict"].missed,
            "spurious": overall["strict"].spurious,
        }
    )


def most_frequent_tags(words: Sequence[Sequence[str]], tags: Tags) -> dict[str, str]:
    """Return the most frequent tag of every lower-cased word in the training sentences, for a baseline."""
    pairs = (zip(sentence, labels, strict=True) for sentence, labels in zip(words, tags, strict=True))
    counts = Counter((word.lower(), tag) for pair in pairs for word, tag in pair)
    return dict(pair for pair, _ in reversed(counts.most_common()))  # a word's last pair, the most frequent, stays


def worst_sentences(gold: Tags, predicted: Tags, n: int = 10) -> list[int]:
    """Return the row numbers of the `n` sentences with the most missed and spurious entities, worst first."""
    table = _counts(gold, predicted, strict=False).to_numpy().reshape(len(gold), -1, 3).sum(axis=1)
    errors = table[:, 0] + table[:, 1] - 2 * table[:, 2]
    order = np.argsort(-errors, kind="stable")
    return [int(row) for row in order[:n] if errors[row]]
