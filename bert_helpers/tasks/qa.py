"""Questions on contexts, with answers that stand in them."""

import math
import re
import string
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from scipy.special import log_softmax
from transformers import BertForQuestionAnswering, BertPreTrainedModel
from transformers.trainer_utils import PredictionOutput

from bert_helpers import data, files
from bert_helpers.errors import DataError
from bert_helpers.intervals import Metrics, Weights
from bert_helpers.metrics import Measure
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tokenization import encode_questions

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
Window = tuple[np.ndarray, np.ndarray, np.ndarray]  # start logits and end logits (tokens,), offsets (tokens, 2)
Answer = dict[str, float | int | str]  # score, start, end, answer


class QuestionAnswering(Task):
    """Questions on contexts, each answered by a slice of its context."""

    name = "qa"
    prefix = "QA_"
    model_class = BertForQuestionAnswering
    pipeline = "question-answering"
    fields: ClassVar = {"question": "", "context": ""}
    usage = """\
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForQuestionAnswering.from_pretrained("{folder}")
inputs = tokenizer("A question?", "A text with the answer.", truncation="only_second", max_length={length},
                   return_tensors="pt")
output = model(**inputs)
start, end = output.start_logits.argmax(), output.end_logits.argmax()
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))"""
    sample_texts = ("A question?", "A text with the answer.")
    head = "qa_outputs"

    load = staticmethod(data.load_questions)
    encode = staticmethod(encode_questions)

    def examples(self, split: Dataset) -> Examples:
        """Return questions with their contexts, where answers begin, the contexts, and the articles they are from."""
        contexts = list(split["context"])
        titles = split["title"] if "title" in split.column_names else contexts
        return Examples(
            texts=[f"{question} {context}" for question, context in zip(split["question"], contexts, strict=True)],
            labels=[answers["answer_start"][0] for answers in split["answers"]],
            passages=contexts,
            groups=[context if title is None else title for title, context in zip(titles, contexts, strict=True)],
        )

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset
    ) -> tuple[list[str], list[list[str]]]:
        """Return the best answer to each question, and the texts of all its references."""
        answers = predicted_answers(output.predictions, encoded, list(rows["context"]))
        return [best[0]["answer"] for best in answers], [row["text"] for row in rows["answers"]]

    def measure(self, predictions: Sequence[str], references: Sequence[Sequence[str]], rows: Dataset) -> Measure:
        """Measure answers; questions of one context are resampled together."""
        return AnswerMeasure(predictions, references, groups=list(rows["context"]))

    def placeholders(self, rows: Dataset) -> dict[str, list]:
        """Return the first letter of each context as its answer."""
        return {"answers": [{"text": [text[:1]], "answer_start": [0]} for text in rows["context"]]}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, names: Sequence[str]
    ) -> dict[str, Sequence]:
        """Return `answer`, its `start` and `end` (characters of the context, `end` exclusive), and `score`."""
        best = [answers[0] for answers in predicted_answers(output.predictions, encoded, list(rows["context"]))]
        return {name: [answer[name] for answer in best] for name in ("answer", "start", "end", "score")}

    def save_predictions(
        self, folder: Path, predictions: Sequence[str], rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write answers by question id as predictions.json, as SQuAD's evaluation reads them."""
        return files.write_json(folder / "predictions.json", dict(zip(rows["test"]["id"], predictions, strict=True)))

    def chance_loss(self, encoded: Dataset) -> float:
        """Return the loss of any token being as likely as any other, in nats."""
        return float(np.log(np.asarray(encoded["length"])).mean())

    def untrained_loss(self, model: BertPreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the log of the tokens of a row, padding included."""
        return math.log(batch["input_ids"].shape[1])


def best_answers(
    context: str,
    windows: Iterable[Window],
    *,
    top_k: int = 1,
    max_answer_length: int = 30,
    handle_impossible_answer: bool = False,
) -> list[Answer]:
    """The `top_k` best spans of `context` over all of its windows, best first; `answer` is `context[start:end]`.

    A span's score is the probability of its first token as start times that of its last token as end, both by softmax
    over [CLS] and the window's context tokens; a span that stands in several windows has the best of its scores.
    Allowed are spans of 1 to `max_answer_length` tokens. "No answer" scores the product over windows of what [CLS]
    gets; it competes, as an empty answer at 0, if `handle_impossible_answer`, or where there is no span at all.
    Logits and offsets are those of `question_windows`, the logits padded to any length.
    """
    scores: dict[tuple[int, int], float] = {}
    impossible = 0.0
    for start_logits, end_logits, offsets in windows:
        no_answer, log_scores, spans = _window_spans(start_logits, end_logits, offsets, max_answer_length)
        impossible += no_answer
        # Tokens of one character share their offsets: go on until `top_k` spans differ.
        taken: set[tuple[int, int]] = set()
        for i in np.argsort(-log_scores, kind="stable"):
            span = (int(spans[i, 0]), int(spans[i, 1]))
            if span not in taken:
                scores[span] = max(log_scores[i], scores.get(span, -np.inf))
                taken.add(span)
            if len(taken) == top_k:
                break
    if handle_impossible_answer or not scores:
        scores[0, 0] = impossible
    best = sorted(scores, key=lambda span: (-scores[span], span))[:top_k]
    return [{"score": float(np.exp(scores[i, j])), "start": i, "end": j, "answer": context[i:j]} for i, j in best]


def _window_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, offsets: np.ndarray, max_answer_length: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log score of [CLS], and of every allowed span, with the spans' characters (spans, 2)."""
    tokens = np.append(0, np.flatnonzero(offsets[:, 1]))
    start, end = (log_softmax(np.asarray(x, dtype=np.float64)[tokens]) for x in (start_logits, end_logits))
    n = len(tokens)
    first = np.repeat(np.arange(1, n), max_answer_length)
    last = first + np.tile(np.arange(max_answer_length), n - 1)
    first, last = first[last < n], last[last < n]
    spans = np.column_stack([offsets[tokens[first], 0], offsets[tokens[last], 1]])
    return start[0] + end[0], start[first] + end[last], spans


def predicted_answers(
    predictions: tuple[np.ndarray, np.ndarray], encoded: Dataset, contexts: Sequence[str], **options: object
) -> list[list[Answer]]:
    """`best_answers` of every question, from `training.predict`'s start and end logits (windows, tokens).

    `encoded` is the split predicted on and `contexts` the column its questions came with; `options` are those of
    `best_answers`. Raises DataError when the three do not belong together.
    """
    start_logits, end_logits = predictions
    examples = encoded["example"]
    if not len(start_logits) == len(end_logits) == len(encoded) or len(set(examples)) != len(contexts):
        raise DataError(
            f"{len(start_logits)} rows of predictions, {len(encoded)} windows of {len(set(examples))} questions and "
            f"{len(contexts)} contexts do not belong together."
        )
    offsets = (np.array(rows) for rows in encoded["offset_mapping"])
    windows = zip(examples, start_logits, end_logits, offsets, strict=True)
    return [
        best_answers(contexts[example], (window[1:] for window in group), **options)
        for example, group in groupby(windows, key=itemgetter(0))
    ]


# --- measure -----------------------------------------------------------------------------------------------


class AnswerMeasure(Measure):
    """One answer per question, with the question's references.

    `f1` and `exact_match`, both as in SQuAD's evaluation, version 1.1 (Rajpurkar et al. 2016): the best over a
    question's references, after `normalize_answer`; F1 is that of the two bags of words, and 0 for an answer without
    words. `groups` names what is resampled, such as each question's context; questions without. Raises DataError when
    lengths differ or a question has no reference.
    """

    shares: ClassVar = {"f1": False, "exact_match": True}
    headline = ("f1", "exact_match")

    def __init__(
        self,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        groups = range(len(predictions)) if groups is None else groups
        if not len(predictions) == len(references) == len(groups) > 0:
            raise DataError(f"{len(predictions)} answers, {len(references)} references and {len(groups)} groups.")
        bare = next((i for i, texts in enumerate(references) if not len(texts)), None)
        if bare is not None:
            raise DataError(f"question {bare + 1} has no reference answer.")
        scores = [
            (max(word_f1(answer, text) for text in texts), max(exact_match(answer, text) for text in texts), 1)
            for answer, texts in zip(predictions, references, strict=True)
        ]
        self.columns = sum_by_group(np.array(scores), groups)
        self.units, self.examples = len(self.columns), len(predictions)

    def statistic(self, weights: Weights) -> Metrics:
        """Return each metric (…) of weights (…, groups)."""
        f1, exact, questions = np.moveaxis(weights @ self.columns, -1, 0)
        return {"f1": f1 / questions, "exact_match": exact / questions}


def normalize_answer(text: str) -> str:
    """Return the text in lower case, without ASCII punctuation, English articles and surplus blanks."""
    text = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(answer: str, reference: str) -> bool:
    """Whether the two are equal once normalized."""
    return normalize_answer(answer) == normalize_answer(reference)


def word_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, repeated words counted as often as they occur."""
    answer_words, reference_words = normalize_answer(answer).split(), normalize_answer(reference).split()
    shared = (Counter(answer_words) & Counter(reference_words)).total()
    return 2 * shared / (len(answer_words) + len(reference_words)) if shared else 0.0


def sum_by_group(columns: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Add up the rows of `columns` (examples, columns) by group: (groups, columns)."""
    group = pd.factorize(np.asarray(groups, dtype=object))[0]
    sums = np.zeros((group.max() + 1, columns.shape[1]))
    np.add.at(sums, group, columns)
    return sums
