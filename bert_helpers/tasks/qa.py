"""Questions on contexts, with answers that stand in them."""

from __future__ import annotations

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from scipy.special import entr, log_softmax

from bert_helpers import files
from bert_helpers.data import DAMAGED, LONGEST, TOO_LONG, in_splits, sample_rows, without_unlabelled
from bert_helpers.errors import DataError, parameter
from bert_helpers.intervals import Metrics, Weights, intervals
from bert_helpers.metrics import Measure
from bert_helpers.readers import squad
from bert_helpers.readers.source import Reading, no_column, read_source, source_name
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tokenization import check_max_length, map_rows, stride_error

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_utils import PredictionOutput

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
# Letters and digits of Latin, Greek and Cyrillic. In other scripts words stand without blanks between them (Chinese,
# Thai), or joined to what no answer holds (Korean's and Hebrew's particles).
WORD = re.compile(r"((?=[^\W_])[\0-\u052f\u1e00-\u1fff]|[\u0300-\u036f])+")
THRESHOLD = "null_score_diff_threshold"  # SQuAD 2.0's name for it, as a field of a model's config; None: no such rows
# Start logits and end logits (tokens,), offsets (tokens, 2), place of the token that stands for "no answer"
Window = tuple[np.ndarray, np.ndarray, np.ndarray, int]
Answer = dict[str, float | int | str]  # score, start, end, answer, null_score_difference


class QuestionAnswering(Task):
    """Questions on contexts, each answered by a slice of its context, or by none where some have no answer."""

    name = "qa"
    prefix = "QA_"
    auto_class = "AutoModelForQuestionAnswering"
    pipeline = "question-answering"
    fields: ClassVar = {"question": "", "context": ""}
    subsets: ClassVar = ("HasAns", "NoAns")
    usage = """\
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForQuestionAnswering.from_pretrained("{folder}")
inputs = tokenizer("A question?", "A text with the answer.", truncation="only_second", max_length={length},
                   return_tensors="pt")
output = model(**inputs)
start, end = output.start_logits.argmax(), output.end_logits.argmax()
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1], skip_special_tokens=True))"""
    sample_texts = ("A question?", "A text with the answer.")

    def load(
        self,
        source: str | Path,
        *,
        train_size: int = 0,
        validation_size: int = 0,
        test_size: int = 0,
        seed: int = 0,
        nearest_answer: bool = False,
        **reading: str | bool,
    ) -> DatasetDict:
        """Read questions and contexts from `source`, as splits train, validation and test in SQuAD's columns.

        `source` is "sample", a .json file in SQuAD's format, a table with the columns, a folder of such files (one per
        split: train, validation or dev, test), or a Hub id. Ids that are missing or there twice are made, and answers
        taken where they stand in the context (`squad.placed`; of several places the nearest, if `nearest_answer`).
        Columns: `id`, `question`, `context`,
        `answers` (a dict of the lists `text` and `answer_start`, the latter in characters; empty lists where the
        context does not answer the question), and `title` where there is one. The sizes draw that many questions
        (0 = all). A missing split is taken from the training rows by context, so that no context lies in two splits.

        Raises DataError, naming the file and the question's id, when the data cannot be used.
        """
        how = Reading(squad.WANTED, labels=frozenset({"answers"}), **reading)
        splits = read_source(source, sample="qa", formats=squad.FORMATS, reading=how)
        splits = {name: _question_columns(split) for name, split in splits.items()}
        splits = without_unlabelled(splits, {"answers"})
        for name, split in splits.items():
            if "answers" not in split.column_names:
                raise no_column(source_name(split), {"answers": ""}, split.column_names)
            splits[name] = squad.placed(split, nearest=nearest_answer)
            check_questions(splits[name])
        sizes = (train_size, validation_size, test_size)
        return in_splits(splits, sizes, seed=seed, hold_out=sample_contexts, sample=sample_rows)

    def encode(
        self, dataset: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 384, stride: int = 128
    ) -> DatasetDict:
        """Encode windows of question and context, with the first reference's token positions in each.

        Rows of the result, one a window: those of `question_windows` (`input_ids`, `token_type_ids`, `attention_mask`,
        `offset_mapping`, `no_answer`, `example`: the row of the split it belongs to), `start_positions` and
        `end_positions` (tokens of the window, both inclusive; `no_answer`, the place of [CLS], where the answer is not
        whole in it), `has_answer` (whether the question has one), `length` (tokens). Raises ParameterError when
        `max_length` or `stride` does not fit.
        """
        check_max_length(max_length, tokenizer)

        def encode_rows(rows: dict[str, list], indices: list[int]) -> dict[str, list]:
            windows = question_windows(
                rows["question"], rows["context"], tokenizer, max_length=max_length, stride=stride
            )
            positions: list[tuple[int, int]] = []
            columns = (windows[name] for name in ("example", "offset_mapping", "no_answer"))
            for example, group in groupby(zip(*columns, strict=True), key=itemgetter(0)):
                answers = rows["answers"][example]
                spans = zip(answers["answer_start"], answers["text"], strict=True)
                start, end = next(((start, start + len(text)) for start, text in spans), (0, 0))
                _, offsets, places = zip(*group, strict=True)
                positions += _answer_positions(offsets, places, start, end)
            return {
                **windows,
                "example": [indices[example] for example in windows["example"]],
                "has_answer": [bool(rows["answers"][example]["text"]) for example in windows["example"]],
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
        """Return questions with their contexts, where answers begin (-1: none), contexts, and their articles."""
        contexts = split["context"][:]
        titles = split["title"][:] if "title" in split.column_names else contexts
        return Examples(
            texts=[f"{question} {context}" for question, context in zip(split["question"][:], contexts, strict=True)],
            labels=[next(iter(answers["answer_start"]), -1) for answers in split["answers"][:]],
            passages=contexts,
            groups=[context if title is None else title for title, context in zip(titles, contexts, strict=True)],
        )

    def counts(self, split: Dataset) -> dict[str, int]:
        """Return the questions with and without an answer, and the contexts."""
        answered = sum(bool(answers["text"]) for answers in split["answers"][:])
        numbers = {"with an answer": answered, "without an answer": len(split) - answered}
        return {**numbers, "contexts": len({*split["context"]})}

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return two outputs, an answer's start and end, and the threshold of "no answer" until one is fitted.

        It is None where every question has an answer.
        """
        return {
            "num_labels": 2,
            THRESHOLD: 0.0 if any(not answers["text"] for answers in train["answers"][:]) else None,
        }

    def fitted_fields(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, object]:
        """Return the threshold of "no answer" with the best F1, where some of the rows have an answer and some none."""
        references = [answers["text"] for answers in rows["answers"]]
        if len({bool(texts) for texts in references}) < 2:
            return {}
        best = [answers[0] for answers in predicted_answers(output.predictions, encoded, list(rows["context"]))]
        return {THRESHOLD: fit_threshold(best, references)}

    def compute_metrics(self, config: PreTrainedConfig) -> None:
        """Return None: answers are put together from windows after training only."""

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> tuple[list[str], list[list[str]]]:
        """Return the best answer to each question, "" for none, and the texts of all its references."""
        answers = predicted_answers(output.predictions, encoded, list(rows["context"]), **no_answer_options(config))
        return [best[0]["answer"] for best in answers], [row["text"] for row in rows["answers"]]

    def measure(self, predictions: Sequence[str], references: Sequence[Sequence[str]], rows: Dataset) -> Measure:
        """Measure answers; questions of one context are resampled together."""
        return AnswerMeasure(predictions, references, groups=list(rows["context"]))

    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return the first letter of each context as its answer."""
        return {"answers": [{"text": [text[:1]], "answer_start": [0]} for text in rows["context"]]}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return `answer`, its `start` and `end` (characters of the context, `end` exclusive), and `score`.

        Of a model that was trained on questions without an answer also `null_score_difference`; `answer` is "" for one.
        """
        options = no_answer_options(config)
        answers = predicted_answers(output.predictions, encoded, list(rows["context"]), **options)
        names = ("answer", "start", "end", "score", *(["null_score_difference"] if options else []))
        return {name: [best[0][name] for best in answers] for name in names}

    def save_predictions(
        self, folder: Path, predictions: Sequence[str], rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write answers by question id as predictions.json, as SQuAD's evaluation reads them."""
        return files.write_json(folder / "predictions.json", dict(zip(rows["test"]["id"], predictions, strict=True)))

    def chance_loss(self, encoded: Dataset, config: PreTrainedConfig) -> float:
        """Return the loss of guessing, in nats: windows without an answer by their share, else any token alike."""
        has_answer = np.asarray(encoded["start_positions"]) != np.asarray(encoded["no_answer"])
        lost = has_answer * np.log(np.asarray(encoded["length"]))
        return float(lost.mean() + entr([has_answer.mean(), 1 - has_answer.mean()]).sum())

    def untrained_loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the log of the tokens of a row, padding included."""
        return math.log(batch["input_ids"].shape[1])


# --- read --------------------------------------------------------------------------------------------------


def _question_columns(dataset: Dataset) -> Dataset:
    questions = squad.from_dataset(dataset, source_name(dataset))
    questions.info.description, questions.info.citation = dataset.info.description, dataset.info.citation
    return questions


def check_questions(dataset: Dataset) -> None:
    """Raise DataError with the questions that cannot be learned from, or whose answer cannot be scored."""
    columns = dataset.with_format("arrow")[:]
    ids, *values = (columns[name].to_pylist() for name in ("id", "question", "context", "answers"))
    faults: dict[str, list[str]] = {}  # ids of the questions by the kind of fault
    for name, *question in zip(ids, *values, strict=True):
        if not (fault := _question_fault(*question)):
            continue
        kind, problem, fix = fault
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
    texts, starts = ((answers or {}).get(name) for name in ("text", "answer_start"))
    if texts is None or starts is None:
        return "null", "the answers are null", "give empty lists where the context does not answer the question"
    if len(texts) != len(starts):
        problem = f"{len(texts)} answer texts and {len(starts)} values of answer_start"
        return "counts", problem, "give as many of one as of the other"
    for text, start in zip(texts, starts, strict=True):
        if not (text and text.strip()):
            return "answer empty", "an answer is empty", "fill it or delete it"
        if start is None or start < 0 or not context.startswith(text, start):
            found = context.count(text)
            where = f"holds it {found} times" if found else "does not hold it"
            place = "has no answer_start" if start is None else f"is not at answer_start {start}"
            problem = f"the answer {text[:60]!r} {place}, and the context {where}"
            fix = f", or take the nearest by {parameter('NEAREST_ANSWER')}" if found else ""
            return "offset", problem, f"correct answer_start (characters, counted from 0){fix}"
    return None


def sample_contexts(dataset: Dataset, size: int, *, seed: int) -> np.ndarray:
    """Return the row numbers of whole contexts, drawn one by one until they have at least `size` rows.

    Raises DataError when no context would be left.
    """
    context = pd.factorize(np.asarray(dataset["context"][:], dtype=object))[0]
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
    Where the two do not fit into one, a question longer than half of the remaining tokens loses its last words. Of each
    window: `input_ids`, `token_type_ids`, `attention_mask`, `offset_mapping` (tokens, 2: the characters of the context
    that a token stands for, (0, 0) for tokens that are not of the context), `no_answer` (the place of the first special
    token, such as [CLS], which stands for "no answer") and `example`, the number of its question.
    Raises ParameterError when `stride` leaves no room.
    """
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = (max_length - special - stride) // 2  # for the question, and at least as much for the step between windows
    if stride < 0 or room < 1:
        raise stride_error(stride, max_length, max_length - special - 2)
    encoded = tokenizer(
        _cut_words(questions, contexts, tokenizer, room, max_length - special),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
    )
    return {
        **{name: encoded[name] for name in tokenizer.model_input_names if name in encoded},
        "offset_mapping": [
            _offsets(e, contexts[example])
            for e, example in zip(encoded.encodings, encoded["overflow_to_sample_mapping"], strict=True)
        ],
        "no_answer": [e.sequence_ids.index(None) for e in encoded.encodings],
        "example": encoded["overflow_to_sample_mapping"],
    }


def _offsets(encoding: Encoding, context: str) -> np.ndarray:
    """Characters of the context (tokens, 2), (0, 0) for tokens that are not of it or of a blank only."""
    of_context = np.equal(np.array(encoding.sequence_ids, dtype=float), 1)
    offsets = np.array(encoding.offsets) * of_context[:, None]
    for i in np.flatnonzero(offsets[:, 1]):  # DeBERTa's tokens begin with the blank before their word
        start, end = offsets[i]
        start += len(context[start:end]) - len(context[start:end].lstrip())
        offsets[i] = (start, end) if start < end else (0, 0)
    return offsets


def _cut_words(
    questions: Sequence[str], contexts: Sequence[str], tokenizer: PreTrainedTokenizerBase, room: int, whole: int
) -> list[str]:
    """Each question up to the last word within `room` tokens; all of it where both texts fit into `whole` tokens."""
    encodings = tokenizer(list(questions), add_special_tokens=False, verbose=False).encodings
    cut = list(questions)
    for i, e in enumerate(encodings):
        if len(e.ids) > room:
            context = tokenizer(contexts[i], add_special_tokens=False, verbose=False)["input_ids"]
            if len(e.ids) + len(context) > whole:
                warnings.warn(f"questions of more than {room} tokens lose their last words", stacklevel=3)
                cut[i] = cut[i][: e.word_to_chars(e.word_ids[room])[0]]
    return cut


def _answer_positions(
    windows: Sequence[np.ndarray], places: Sequence[int], start: int, end: int
) -> list[tuple[int, int]]:
    """First and last token of the context's characters `start` to `end` in each window's offsets (tokens, 2).

    `places` are those of each window's token for "no answer", twice, where they are not all in it.
    """
    tokens = [np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start)) for offsets in windows]
    reach = [(w[t[0], 0], w[t[-1], 1]) if len(t) else None for w, t in zip(windows, tokens, strict=True)]
    seen = [span for span in reach if span]
    # Whole is the answer where its tokens reach as far to both sides as they do in any window.
    whole = (min(first for first, _ in seen), max(last for _, last in seen)) if seen else ()
    return [
        (int(t[0]), int(t[-1])) if span == whole else (place, place)
        for t, span, place in zip(tokens, reach, places, strict=True)
    ]


def lost_answers(encoded: Dataset) -> dict[str, float]:
    """Share of the answers of one encoded split that are whole in no window, and not in the first one.

    `windows` is what training with all windows loses, `truncation` what cutting contexts off at `max_length` would.
    """
    names = ("example", "start_positions", "no_answer", "has_answer")
    example, start, place, answered = (np.asarray(encoded[name]) for name in names)
    if not answered.any():
        return {"windows": 0.0, "truncation": 0.0}
    found = start != place
    first = np.append(True, example[1:] != example[:-1]) & answered
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
    null_score_diff_threshold: float = 0.0,
    # Completing the tokenizer's words, mostly the same, changed 6 of 838 answers on SQuAD (F1 0.314 -> 0.315, model of
    # the sample) and 1 of 236 on the sample (0.668 -> 0.672); none was better before. `WORD` changed none of the 838
    # with a model of 2,049 such questions (F1 0.542).
    align_to_words: bool = True,
) -> list[Answer]:
    """The `top_k` best spans of `context` over all of its windows, best first; `answer` is `context[start:end]`.

    A span's score is the probability of its first token as start times that of its last token as end, both by softmax
    over [CLS] and the window's context tokens; a span that stands in several windows has the best of its scores.
    Allowed are spans of 1 to `max_answer_length` tokens. With `align_to_words` a span that begins or ends within a word
    (`WORD`) is completed.

    "No answer" is an empty answer at 0. With `handle_impossible_answer` it is the first where `null_score_difference`
    of the best span is more than the threshold, as in SQuAD 2.0's evaluation (Rajpurkar et al. 2018): the null score,
    the sum of the two logits of [CLS] in the window where it is least, minus the sum of the span's. Its score is the
    least probability over windows: one that holds the answer is enough. Where there is no span at all it is the only
    answer, with score 0 if an answer was asked for.

    Logits and offsets are those of `question_windows`, the logits padded to any length.
    """
    scores: dict[tuple[int, int], float] = {}
    borders = _word_borders(context if align_to_words else "")
    sums: dict[tuple[int, int], float] = {}  # of logits
    impossible, null_score = 0.0, np.inf
    for window in windows:
        no_answer, log_scores, scale, spans = _window_spans(*window, max_answer_length=max_answer_length)
        impossible, null_score = min(impossible, no_answer), min(null_score, no_answer + scale)
        # Tokens of one character share their offsets: go on until `top_k` spans differ.
        taken: set[tuple[int, int]] = set()
        for i in np.argsort(-log_scores, kind="stable"):
            start, end = map(int, spans[i])
            span = (borders.get(start, (start,))[0], borders.get(end - 1, (end,))[-1])
            if span not in taken:
                if log_scores[i] > scores.get(span, -np.inf):
                    scores[span], sums[span] = log_scores[i], log_scores[i] + scale
                taken.add(span)
            if len(taken) == top_k:
                break
    best = sorted(scores, key=lambda span: (-scores[span], span))[:top_k]
    answers = [_answer(context, span, np.exp(scores[span]), null_score - sums[span]) for span in best]
    if handle_impossible_answer or not answers:
        difference = answers[0]["null_score_difference"] if answers else np.inf
        none = _answer(context, (0, 0), np.exp(impossible) if handle_impossible_answer else 0.0, difference)
        better = sum(answer["score"] >= none["score"] for answer in answers)
        answers.insert(0 if difference > null_score_diff_threshold else max(1, better), none)
    return answers[:top_k]


def _word_borders(text: str) -> dict[int, tuple[int, int]]:
    """Return where the word begins and ends that a character is of, by the character's place."""
    return {place: word.span() for word in WORD.finditer(text) for place in range(*word.span())}


def _answer(context: str, span: tuple[int, int], score: float, difference: float) -> Answer:
    start, end = span
    answer = {"score": float(score), "start": start, "end": end, "answer": context[start:end]}
    return {**answer, "null_score_difference": float(difference)}


def _window_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, offsets: np.ndarray, no_answer: int, max_answer_length: int
) -> tuple[float, np.ndarray, float, np.ndarray]:
    """Log score of [CLS], of every allowed span, what makes them sums of logits, the spans' characters (spans, 2)."""
    tokens = np.append(no_answer, np.flatnonzero(offsets[:, 1]))
    logits = [np.asarray(x, dtype=np.float64)[tokens] for x in (start_logits, end_logits)]
    start, end = (log_softmax(x) for x in logits)
    n = len(tokens)
    first = np.repeat(np.arange(1, n), max_answer_length)
    last = first + np.tile(np.arange(max_answer_length), n - 1)
    first, last = first[last < n], last[last < n]
    spans = np.column_stack([offsets[tokens[first], 0], offsets[tokens[last], 1]])
    none = start[0] + end[0]
    return none, start[first] + end[last], logits[0][0] + logits[1][0] - none, spans


def no_answer_options(config: PreTrainedConfig | None) -> dict[str, object]:
    """Return the options of `best_answers` by which a model that was trained to give no answer may do so."""
    threshold = getattr(config, THRESHOLD, None)
    return {} if threshold is None else {"handle_impossible_answer": True, THRESHOLD: threshold}


def fit_threshold(best: Sequence[Answer], references: Sequence[Sequence[str]]) -> float:
    """Return the threshold of the null score difference for which F1 is highest, halfway to the next difference.

    `best` is the best span of each question, whose difference up to the threshold makes it the answer; `references`
    are the texts of its answers, none where it has none.
    """
    differences = np.array([answer["null_score_difference"] for answer in best])
    gains = np.array([
        answer_scores(answer["answer"], texts, may_be_empty=True)[0] - answer_scores("", texts, may_be_empty=True)[0]
        for answer, texts in zip(best, references, strict=True)
    ])  # fmt: skip
    values, place = np.unique(differences[np.isfinite(differences)], return_inverse=True)
    # Of each number of values, from none, up to which there is an answer
    sums = np.append(0, np.bincount(place, weights=gains[np.isfinite(differences)], minlength=len(values)).cumsum())
    chosen = int(sums.argmax())
    around = [values[0] - 2, *values, values[-1] + 2]
    return float((around[chosen] + around[chosen + 1]) / 2)


def gain_of_fitting(
    best: Sequence[Answer],
    references: Sequence[Sequence[str]],
    groups: Sequence[Hashable],
    now: float,
    *,
    seed: int = 0,
) -> pd.Series:
    """Return `value`, `low`, `high` of what a fitted threshold gains in F1 over `now`, each half by the other's.

    `best` and `references` as in `fit_threshold`, `groups` as in `AnswerMeasure`.
    """
    number = pd.factorize(np.asarray(groups, dtype=object))[0]
    half = np.random.default_rng(seed).permutation(number.max() + 1)[number] % 2 == 0
    fitted = np.empty(len(best))
    for side in (half, ~half):
        other = np.flatnonzero(~side)
        fitted[side] = fit_threshold([best[i] for i in other], [references[i] for i in other])
    differences = np.array([answer["null_score_difference"] for answer in best])
    answered, refused = (
        np.array([answer_scores(text, of, may_be_empty=True)[0] for text, of in zip(texts, references, strict=True)])
        for texts in ([answer["answer"] for answer in best], [""] * len(best))
    )
    after, before = (np.where(differences <= cut, answered, refused) for cut in (fitted, now))
    columns = sum_by_group(np.column_stack([after - before, np.ones(len(best))]), groups)

    def statistic(weights: Weights) -> Metrics:
        gain, questions = np.moveaxis(weights @ columns, -1, 0)
        return {"gain": gain / questions}

    return intervals(statistic, len(columns), seed=seed, difference=True).loc["gain"]


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
    windows = zip(examples, start_logits, end_logits, offsets, encoded["no_answer"], strict=True)
    return [
        best_answers(contexts[example], (window[1:] for window in group), **options)
        for example, group in groupby(windows, key=itemgetter(0))
    ]


# --- measure -----------------------------------------------------------------------------------------------


class AnswerMeasure(Measure):
    """One answer per question, "" for none, with the question's references, no text where it has no answer.

    `f1` and `exact_match`, both as in SQuAD's evaluation: of version 1.1 (Rajpurkar et al. 2016) where every question
    has an answer, else of version 2.0 (Rajpurkar et al. 2018), which gives both also for the questions with an answer
    and those without ("HasAns/f1"): see `answer_scores`. `groups` names what is resampled, such as each question's
    context; questions without. Raises DataError when lengths differ.
    """

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
        answered = np.array([len(texts) > 0 for texts in references])
        self.parts = {"": np.ones(len(answered))}
        if not answered.all():
            self.parts |= {"HasAns/": answered, "NoAns/": ~answered}
        scores = np.array([
            (*answer_scores(answer, texts, may_be_empty=not answered.all()), 1)
            for answer, texts in zip(predictions, references, strict=True)
        ])  # fmt: skip
        self.columns = sum_by_group(np.hstack([scores * of[:, None] for of in self.parts.values()]), groups)
        self.units, self.examples = len(self.columns), len(predictions)
        self.shares = {f"{part}{name}": name != "f1" and not part for part in self.parts for name in self.headline}

    def statistic(self, weights: Weights) -> Metrics:
        """Return each metric (…) of weights (…, groups)."""
        values = {}
        for i, part in enumerate(self.parts):
            f1, exact, questions = np.moveaxis(weights @ self.columns[:, 3 * i : 3 * i + 3], -1, 0)
            questions = np.where(questions > 0, questions, np.nan)
            values |= {f"{part}f1": f1 / questions, f"{part}exact_match": exact / questions}
        return values


def answer_scores(answer: str, references: Sequence[str], *, may_be_empty: bool) -> tuple[float, bool]:
    """Return F1 and exact match of an answer, the best over its references, after `normalize_answer`.

    F1 is that of the two bags of words, and 0 for an answer without words. With `may_be_empty`, as in version 2.0 of
    SQuAD's evaluation, references without words do not count, and a question without any is answered right by an answer
    without words.
    """
    if may_be_empty:
        references = [text for text in references if normalize_answer(text)]
        if not references:
            right = not normalize_answer(answer)
            return float(right), right
    return max(word_f1(answer, text) for text in references), max(exact_match(answer, text) for text in references)


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
