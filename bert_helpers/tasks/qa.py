"""Questions on contexts, with answers that stand in them."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features
from scipy.special import log_softmax

from bert_helpers import files
from bert_helpers.data import DAMAGED, LONGEST, TOO_LONG, bad_rows, in_splits, sample_rows
from bert_helpers.errors import DataError
from bert_helpers.intervals import Metrics, Weights
from bert_helpers.metrics import Measure
from bert_helpers.readers import squad
from bert_helpers.readers.hub import innermost_reason
from bert_helpers.readers.source import Reading, no_column, read_source, source_name
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tokenization import check_max_length, map_rows, stride_error

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_utils import PredictionOutput

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
Window = tuple[np.ndarray, np.ndarray, np.ndarray]  # start logits and end logits (tokens,), offsets (tokens, 2)
Answer = dict[str, float | int | str]  # score, start, end, answer


class QuestionAnswering(Task):
    """Questions on contexts, each answered by a slice of its context."""

    name = "qa"
    prefix = "QA_"
    auto_class = "AutoModelForQuestionAnswering"
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

    def load(
        self,
        source: str | Path,
        *,
        train_size: int = 0,
        validation_size: int = 0,
        test_size: int = 0,
        seed: int = 0,
        **reading: str | bool,
    ) -> DatasetDict:
        """Read questions and contexts from `source`, as splits train, validation and test in SQuAD's columns.

        `source` is "sample", a .json file in SQuAD's format, JSON Lines or Parquet with the columns, a folder of such
        files (one per split: train, validation or dev, test), or a Hub id. Columns: `id`, `question`, `context`,
        `answers` (a dict of the lists `text` and `answer_start`, the latter in characters), and `title` where there is
        one. The sizes draw that many questions (0 = all). A missing split is taken from the training rows by context,
        so that no context lies in two splits.

        Raises DataError, naming the file and the question's id, when the data cannot be used.
        """
        splits = read_source(source, sample="qa", formats=squad.FORMATS, reading=Reading(**reading))
        splits = {name: _question_columns(split) for name, split in splits.items()}
        for split in splits.values():
            check_questions(split)
        sizes = (train_size, validation_size, test_size)
        return in_splits(splits, sizes, seed=seed, hold_out=sample_contexts, sample=sample_rows)

    def encode(
        self, dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 384, stride: int = 128
    ) -> DatasetDict:
        """Encode windows of question and context, with the first reference's token positions in each.

        Rows of the result, one a window: those of `question_windows` (`input_ids`, `token_type_ids`, `attention_mask`,
        `offset_mapping`, `example`: the row of the split it belongs to), `start_positions` and `end_positions` (tokens
        of the window, both inclusive; 0, the position of [CLS], where the answer is not whole in it), `length`
        (tokens). Raises ParameterError when `max_length` or `stride` does not fit.
        """
        check_max_length(max_length, tokenizer)

        def encode_rows(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
            windows = question_windows(
                rows["question"], rows["context"], tokenizer, max_length=max_length, stride=stride
            )
            positions: list[tuple[int, int]] = []
            by_example = groupby(zip(windows["example"], windows["offset_mapping"], strict=True), key=itemgetter(0))
            for example, group in by_example:
                answers = rows["answers"][example]
                start, text = answers["answer_start"][0], answers["text"][0]
                positions += _answer_positions([offsets for _, offsets in group], start, start + len(text))
            return {
                **windows,
                "example": [indices[example] for example in windows["example"]],
                "start_positions": [start for start, _ in positions],
                "end_positions": [end for _, end in positions],
                "length": [len(ids) for ids in windows["input_ids"]],
            }

        return DatasetDict(
            {
                name: map_rows(split, encode_rows, with_indices=True, desc=f"tokenize {name}")
                for name, split in dataset.items()
            }
        )

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

    def compute_metrics(self, config: PreTrainedConfig) -> None:
        """Return None: answers are put together from windows after training only."""

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
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
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
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

    def untrained_loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the log of the tokens of a row, padding included."""
        return math.log(batch["input_ids"].shape[1])


# --- read --------------------------------------------------------------------------------------------------


def _question_columns(dataset: Dataset) -> Dataset:
    needed = {name: "" for name in squad.QUESTIONS if name != "title"}
    if not needed.keys() <= set(dataset.column_names):
        raise no_column(source_name(dataset), needed, dataset.column_names)
    kept = Features({name: feature for name, feature in squad.QUESTIONS.items() if name in dataset.column_names})
    try:
        return dataset.select_columns(list(kept)).cast(kept)
    except (TypeError, ValueError, pa.ArrowNotImplementedError) as error:  # ValueError: also Arrow's, of a bad cast
        raise DataError(
            f"a column of another type than SQuAD's ({innermost_reason(error)})",
            source=source_name(dataset),
            fix='write id, question and context as strings, answers as {"text": [strings], "answer_start": [integers]}',
        ) from error


def check_questions(dataset: Dataset) -> None:
    """Raise DataError with the questions that cannot be learned from, or whose answer cannot be scored."""
    columns = dataset.with_format("arrow")[:]
    ids, *values = (columns[name].to_pylist() for name in ("id", "question", "context", "answers"))
    if rows := [i for i, name in enumerate(ids) if not name]:
        raise bad_rows(dataset, rows, "id", "the question has no id", "give it one")
    counts = Counter(ids)
    faults: dict[str, list[str]] = {}  # ids of the questions by the kind of fault
    for name, *question in zip(ids, *values, strict=True):
        if counts[name] > 1:
            kind, problem, fix = "id", f"{counts[name]} questions have this id", "give each its own"
        elif fault := _question_fault(*question):
            kind, problem, fix = fault
        else:
            continue
        if not faults:
            first = kind, problem, fix
        faults.setdefault(kind, []).append(name)
    if faults:
        kind, problem, fix = first
        ids = list(dict.fromkeys(faults[kind]))
        raise DataError(problem, source=source_name(dataset), row=ids, unit="question", fix=fix)


def _question_fault(
    question: str | None, context: str | None, answers: dict[str, list] | None
) -> tuple[str, str, str] | None:
    """The kind of fault, the problem and the fix."""
    for name, text in (("question", question), ("context", context)):
        if not (text and any(letter.isprintable() and not letter.isspace() for letter in text)):
            return f"{name} empty", f"the {name} is empty", "fill it or delete the question"
        if "\0" in text:
            return "damaged", f"{DAMAGED} ({name})", "correct or delete the question"
        if len(text) >= LONGEST:
            return "long", f"{TOO_LONG} ({name})", "split it, or correct the file"
    texts, starts = ((answers or {}).get(name) or [] for name in ("text", "answer_start"))
    if not texts or len(texts) != len(starts):
        problem = f"{len(texts)} answer texts and {len(starts)} values of answer_start; at least one of both is needed"
        return "counts", problem, "delete the questions without an answer (SQuAD 2.0 has them)"
    for text, start in zip(texts, starts, strict=True):
        if not (text and text.strip()):
            return "answer empty", "an answer is empty", "fill it or delete it"
        if start is None or start < 0 or not context.startswith(text, start):
            found = context.find(text)
            where = "the context does not hold it" if found < 0 else f"the context first holds it at {found}"
            problem = f"the answer {text!r} is not at answer_start {start}; {where} (characters, counted from 0)"
            return "offset", problem, "correct answer_start"
    return None


def sample_contexts(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """Return the row numbers of whole contexts, drawn one by one until they have at least `size` rows.

    Raises DataError when no context would be left.
    """
    context = pd.factorize(np.asarray(dataset["context"], dtype=object))[0]
    rows = np.bincount(context)
    order = np.random.default_rng(seed).permutation(len(rows))
    drawn = order[: np.searchsorted(rows[order].cumsum(), size) + 1]
    if len(drawn) == len(rows):
        raise DataError(
            f"{len(dataset)} questions on {len(rows)} contexts are too few to hold out {size} of them with contexts of "
            "their own",
            source=source_name(dataset),
            fix="give more, or a file for each split",
        )
    return np.flatnonzero(np.isin(context, drawn))


# --- windows -----------------------------------------------------------------------------------------------


def question_windows(
    questions: Sequence[str],
    contexts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    stride: int,
) -> dict[str, list]:
    """[CLS] question [SEP] piece of the context [SEP], in windows of at most `max_length` tokens.

    Neighbouring windows share `stride` tokens of the context, so that an answer of up to so many stands whole in one.
    A question longer than half of the remaining tokens loses its last words. Of each window: `input_ids`,
    `token_type_ids`, `attention_mask`, `offset_mapping` (tokens, 2: the characters of the context that a token stands
    for, (0, 0) for tokens that are not of the context) and `example`, the number of its question.
    Raises ParameterError when `stride` leaves no room.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = (max_length - special - stride) // 2  # for the question, and at least as much for the step between windows
    if stride < 0 or room < 1:
        raise stride_error(stride, max_length, max_length - special - 2)
    encoded = tokenizer(
        _cut_words(questions, tokenizer, room),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
    )
    return {
        **{name: encoded[name] for name in tokenizer.model_input_names if name in encoded},
        "offset_mapping": [
            np.array(e.offsets) * np.equal(np.array(e.sequence_ids, dtype=float), 1)[:, None] for e in encoded.encodings
        ],
        "example": encoded["overflow_to_sample_mapping"],
    }


def _cut_words(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[str]:
    """Each text up to the last word that ends within `limit` tokens."""
    encodings = tokenizer(list(texts), add_special_tokens=False).encodings
    return [
        text if len(e.ids) <= limit else text[: e.word_to_chars(e.word_ids[limit])[0]]
        for text, e in zip(texts, encodings, strict=True)
    ]


def _answer_positions(windows: Sequence[np.ndarray], start: int, end: int) -> list[tuple[int, int]]:
    """First and last token of the context's characters `start` to `end` in each window's offsets (tokens, 2)."""
    tokens = [np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start)) for offsets in windows]
    reach = [(w[t[0], 0], w[t[-1], 1]) if len(t) else None for w, t in zip(windows, tokens, strict=True)]
    seen = [span for span in reach if span]
    # Whole is the answer where its tokens reach as far to both sides as they do in any window.
    whole = (min(first for first, _ in seen), max(last for _, last in seen)) if seen else ()
    return [(int(t[0]), int(t[-1])) if span == whole else (0, 0) for t, span in zip(tokens, reach, strict=True)]


def lost_answers(encoded: Dataset) -> dict[str, float]:
    """Share of the questions of one encoded split whose answer is whole in no window, and not in the first one.

    `windows` is what training with all windows loses, `truncation` what cutting contexts off at `max_length` would.
    """
    example = np.asarray(encoded["example"])
    found = np.asarray(encoded["start_positions"]) > 0
    first = np.append(True, example[1:] != example[:-1])
    return {
        "windows": 1 - len(np.unique(example[found])) / int(first.sum()),
        "truncation": float(1 - found[first].mean()),
    }


# --- answers -----------------------------------------------------------------------------------------------


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
    """`best_answers` of every question, from `Trainer.predict`'s start and end logits (windows, tokens).

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
