"""Questions about contexts, with answers that are slices of these."""

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
from bert_helpers.readers.source import Reading, keep_source, no_column, read_source, source_name
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tokenization import check_max_length, map_splits, stride_error

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_utils import PredictionOutput

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
# Letters and digits of Latin, Greek and Cyrillic. In other scripts, there are no blanks between words (Chinese, Thai),
# or words are joined to particles that belong to no answer (Korean, Hebrew).
WORD = re.compile(r"((?=[^\W_])[\0-\u052f\u1e00-\u1fff]|[\u0300-\u036f])+")
THRESHOLD = "null_score_diff_threshold"  # config field with SQuAD 2.0's name; None: every question has an answer
# Start logits and end logits (tokens,), offsets (tokens, 2), position of the token that stands for "no answer"
Window = tuple[np.ndarray, np.ndarray, np.ndarray, int]
Answer = dict[str, float | int | str]  # score, start, end, answer, null_score_difference


class QuestionAnswering(Task):
    """Questions about contexts, each answered by a slice of its context, or by none if some have no answer."""

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
        split: train, validation or dev, test), or a Hub id. Ids that are missing or repeated are made up, and answers'
        positions corrected (`squad.placed`; of several, the nearest with `nearest_answer`). Columns: `id`, `question`,
        `context`, `answers` (a dict of lists `text` and `answer_start`, in characters; both empty if the context does
        not answer the question), and `title` if there is one. The sizes are numbers of questions to draw (0 = all). A
        missing split is taken from the training rows by context, so that no context is in two splits. Raises DataError,
        naming the file and the question's id, when the data cannot be used.
        """
        how = Reading(squad.WANTED, labels=frozenset({"answers"}), **reading)
        splits = read_source(source, sample="qa", formats=squad.FORMATS, reading=how)
        for name, split in splits.items():
            splits[name] = keep_source(squad.from_dataset(split, source_name(split)), split)
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
        """Encode windows of question and context, with the token positions of the first reference in each.

        The result has one row per window, with the columns of `question_windows` (`input_ids`, `token_type_ids`,
        `attention_mask`, `offset_mapping`, `no_answer`, `example`: the row of the split), `start_positions` and
        `end_positions` (tokens of the window, both inclusive; `no_answer`, the position of [CLS], if the window does
        not contain the whole answer), `has_answer` (whether the question has one), `length` (tokens). Raises
        ParameterError if `max_length` or `stride` is out of range.
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

        return map_splits(dataset, encode_rows, with_indices=True)

    def examples(self, split: Dataset) -> Examples:
        """Return questions with their contexts, the starts of answers (-1: none), contexts, and their articles."""
        contexts = split["context"][:]
        titles = split["title"][:] if "title" in split.column_names else contexts
        return Examples(
            texts=[f"{question} {context}" for question, context in zip(split["question"][:], contexts, strict=True)],
            labels=[next(iter(answers["answer_start"]), -1) for answers in split["answers"][:]],
            passages=contexts,
            groups=[context if title is None else title for title, context in zip(titles, contexts, strict=True)],
        )

    def counts(self, split: Dataset) -> dict[str, int]:
        """Count the questions with and without an answer, and the contexts."""
        answered = sum(bool(answers["text"]) for answers in split["answers"][:])
        numbers = {"with an answer": answered, "without an answer": len(split) - answered}
        return {**numbers, "contexts": len({*split["context"]})}

    def model_fields(self, train: Dataset) -> dict[str, object]:
        """Return two outputs, an answer's start and end, and the threshold of "no answer" before one is fitted.

        The threshold is None if every question has an answer.
        """
        answered = all(answers["text"] for answers in train["answers"][:])
        return {"num_labels": 2, THRESHOLD: None if answered else 0.0}

    def fitted_fields(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, object]:
        """Return the threshold of "no answer" with the best F1, if some rows have an answer and some have none."""
        references = [answers["text"] for answers in rows["answers"]]
        if len({bool(texts) for texts in references}) < 2:
            return {}
        best = [answers[0] for answers in predicted_answers(output.predictions, encoded, list(rows["context"]))]
        return {THRESHOLD: fit_threshold(best, references)}

    def compute_metrics(self, config: PreTrainedConfig) -> None:
        """Return None: answers are only put together from windows after training."""

    def predictions_and_references(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> tuple[list[str], list[list[str]]]:
        """Return the best answer to each question ("": no answer), and the texts of all its references."""
        answers = predicted_answers(output.predictions, encoded, list(rows["context"]), **no_answer_options(config))
        return [best[0]["answer"] for best in answers], [row["text"] for row in rows["answers"]]

    def measure(self, predictions: Sequence[str], references: Sequence[Sequence[str]], rows: Dataset) -> Measure:
        """Measure answers; questions of one context are resampled together."""
        return AnswerMeasure(predictions, references, groups=list(rows["context"]))

    def placeholders(self, rows: Dataset, config: PreTrainedConfig) -> dict[str, list]:
        """Return the first character of each context as its answer."""
        return {"answers": [{"text": [text[:1]], "answer_start": [0]} for text in rows["context"]]}

    def table(
        self, output: PredictionOutput, encoded: Dataset, rows: Dataset, config: PreTrainedConfig
    ) -> dict[str, Sequence]:
        """Return `answer`, its `start` and `end` (characters of the context, `end` exclusive), and `score`.

        A model trained with unanswerable questions also has `null_score_difference`, and the answer "" for "no answer".
        """
        options = no_answer_options(config)
        answers = predicted_answers(output.predictions, encoded, list(rows["context"]), **options)
        names = ("answer", "start", "end", "score", *(["null_score_difference"] if options else []))
        return {name: [best[0][name] for best in answers] for name in names}

    def save_predictions(
        self, folder: Path, predictions: Sequence[str], rows: DatasetDict, outputs: Mapping[str, PredictionOutput]
    ) -> Path:
        """Write answers by question id as predictions.json, the format of SQuAD's evaluation."""
        return files.write_json(folder / "predictions.json", dict(zip(rows["test"]["id"], predictions, strict=True)))

    def chance_loss(self, encoded: Dataset, config: PreTrainedConfig) -> float:
        """Return the loss of guessing, in nats: "no answer" by its share of windows, or else any token at random."""
        has_answer = np.asarray(encoded["start_positions"]) != np.asarray(encoded["no_answer"])
        lost = has_answer * np.log(np.asarray(encoded["length"]))
        return float(lost.mean() + entr([has_answer.mean(), 1 - has_answer.mean()]).sum())

    def untrained_loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> float:
        """Return the log of the number of tokens in a row, including padding."""
        return math.log(batch["input_ids"].shape[1])


# --- read --------------------------------------------------------------------------------------------------


def check_questions(dataset: Dataset) -> None:
    """Raise DataError with the questions that cannot be learned from, or whose answer cannot be scored."""
    columns = dataset.with_format("arrow")[:]
    values = (columns[name].to_pylist() for name in ("id", "question", "context", "answers"))
    faults = [(name, *fault) for name, *question in zip(*values, strict=True) if (fault := _question_fault(*question))]
    if faults:
        _, first, problem, fix = faults[0]
        ids = list(dict.fromkeys(name for name, kind, *_ in faults if kind == first))
        raise DataError(problem, source=source_name(dataset), row=ids, unit="question", fix=fix)


def _question_fault(
    question: str | None, context: str | None, answers: dict[str, list] | None
) -> tuple[str, str, str] | None:
    """Return the kind of fault, the problem and the fix; None for a sound question."""
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

    Raises DataError if no context would be left.
    """
    context = pd.factorize(np.asarray(dataset["context"][:], dtype=object))[0]
    rows = np.bincount(context)
    order = np.random.default_rng(seed).permutation(len(rows))
    drawn = order[: np.searchsorted(rows[order].cumsum(), size) + 1]
    if len(drawn) == len(rows):
        problem = f"{len(dataset)} questions on {len(rows)} contexts are too few to hold out {size} of them"
        fix = "give more, or a file for each split"
        raise DataError(f"{problem} with contexts of their own", source=source_name(dataset), fix=fix)
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
    """Encode [CLS] question [SEP] part of the context [SEP], in windows of at most `max_length` tokens.

    Neighbouring windows share `stride` tokens of the context, so that an answer of up to `stride` tokens is whole in
    one of them. If question and context do not fit into one window, a question longer than half of the remaining tokens
    loses its last words. Columns: `input_ids`, `token_type_ids`, `attention_mask`, `offset_mapping` (tokens, 2: the
    start and end of each token in the context, (0, 0) for other tokens), `no_answer` (the position of the first special
    token, such as [CLS], which stands for "no answer") and `example`, the number of the question. Raises ParameterError
    if `stride` leaves no room.
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
    """Return tokens' offsets in the context (tokens, 2), (0, 0) for other tokens and for blanks."""
    of_context = np.equal(np.array(encoding.sequence_ids, dtype=float), 1)
    offsets = np.array(encoding.offsets) * of_context[:, None]
    for i in np.flatnonzero(offsets[:, 1]):  # DeBERTa's tokens include the blank before their word
        start, end = offsets[i]
        start += len(context[start:end]) - len(context[start:end].lstrip())
        offsets[i] = (start, end) if start < end else (0, 0)
    return offsets


def _cut_words(
    questions: Sequence[str], contexts: Sequence[str], tokenizer: PreTrainedTokenizerBase, room: int, whole: int
) -> list[str]:
    """Cut questions after the last word within `room` tokens, unless both texts fit into `whole` tokens."""
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
    """Return the first and last token of the context's characters `start` to `end` in each window.

    `windows` are offsets (tokens, 2). `places` are the positions of the token for "no answer", which is returned as
    both for a window that does not contain all the characters.
    """
    tokens = [np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start)) for offsets in windows]
    reach = [(w[t[0], 0], w[t[-1], 1]) if len(t) else None for w, t in zip(windows, tokens, strict=True)]
    seen = [span for span in reach if span]
    # A window contains the whole answer if its tokens reach as far to both sides as in any other window
    whole = (min(first for first, _ in seen), max(last for _, last in seen)) if seen else ()
    return [
        (int(t[0]), int(t[-1])) if span == whole else (place, place)
        for t, span, place in zip(tokens, reach, places, strict=True)
    ]


def lost_answers(encoded: Dataset) -> dict[str, float]:
    """Return the share of answers in one encoded split that no window contains, and that the first one does not.

    `windows` is what training on all windows loses, `truncation` what truncating contexts to `max_length` would lose.
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
    # Completing the tokenizer's words, mostly the same as `WORD`, changed 6 of 838 answers on SQuAD (F1 0.314 -> 0.315,
    # model of the sample) and 1 of 236 on the sample (0.668 -> 0.672); none was better before. `WORD` changed none of
    # the 838 with a model of 2,049 such questions (F1 0.542).
    align_to_words: bool = True,
) -> list[Answer]:
    """Return the `top_k` best spans of `context` in all of its windows, best first; `answer` is `context[start:end]`.

    A span's score is the probability of its first token as start times that of its last token as end, both by softmax
    over [CLS] and the window's context tokens; a span in several windows has the highest of its scores. Spans have 1 to
    `max_answer_length` tokens. With `align_to_words`, a span that starts or ends within a word (`WORD`) is completed.

    "No answer" is an empty answer at 0. With `handle_impossible_answer`, it comes first if the best span's
    `null_score_difference` is above the threshold, as in SQuAD 2.0's evaluation (Rajpurkar et al. 2018): the null score
    (the lowest sum, over windows, of the two logits of [CLS]) minus the sum of the span's logits. Its score is the
    lowest probability over windows, because one window with an answer is enough. If there is no span at all, it is the
    only answer, with score 0 unless `handle_impossible_answer`.

    Offsets are those of `question_windows`; logits may be padded to any length.
    """
    scores: dict[tuple[int, int], float] = {}
    borders = _word_borders(context if align_to_words else "")
    sums: dict[tuple[int, int], float] = {}  # of logits
    impossible, null_score = 0.0, np.inf
    for window in windows:
        no_answer, log_scores, scale, spans = _window_spans(*window, max_answer_length=max_answer_length)
        impossible, null_score = min(impossible, no_answer), min(null_score, no_answer + scale)
        # Several tokens of one character have the same offsets: continue until `top_k` spans differ.
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
    """Return the start and end of each character's word, by the character's position."""
    return {place: word.span() for word in WORD.finditer(text) for place in range(*word.span())}


def _answer(context: str, span: tuple[int, int], score: float, difference: float) -> Answer:
    start, end = span
    answer = {"score": float(score), "start": start, "end": end, "answer": context[start:end]}
    return {**answer, "null_score_difference": float(difference)}


def _window_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, offsets: np.ndarray, no_answer: int, max_answer_length: int
) -> tuple[float, np.ndarray, float, np.ndarray]:
    """Return log scores of [CLS] and all spans, their difference to sums of logits, and the spans' offsets."""
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
    """Return the options of `best_answers` for a model that was trained with unanswerable questions; else none."""
    threshold = getattr(config, THRESHOLD, None)
    return {} if threshold is None else {"handle_impossible_answer": True, THRESHOLD: threshold}


def fit_threshold(best: Sequence[Answer], references: Sequence[Sequence[str]]) -> float:
    """Return the threshold of the null score difference with the highest F1, halfway between two differences.

    `best` is the best span of each question, which is the answer if its difference is at most the threshold;
    `references` are the texts of its answers, if it has any.
    """
    return _best_threshold(*_gains(best, references))


def _gains(best: Sequence[Answer], references: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the null score difference of each question, and the F1 of its best span minus that of "no answer"."""
    differences = np.array([answer["null_score_difference"] for answer in best])
    gains = np.array([
        answer_scores(answer["answer"], texts, may_be_empty=True)[0] - answer_scores("", texts, may_be_empty=True)[0]
        for answer, texts in zip(best, references, strict=True)
    ])  # fmt: skip
    return differences, gains


def _best_threshold(differences: np.ndarray, gains: np.ndarray) -> float:
    values, place = np.unique(differences[np.isfinite(differences)], return_inverse=True)
    # Gains if the questions with the lowest 0, 1, 2, … differences are answered
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
    """Return `value`, `low`, `high` of the gain in F1 of a fitted threshold over `now`, by two-fold cross-validation.

    `best` and `references` are as in `fit_threshold`, `groups` as in `AnswerMeasure`.
    """
    number = pd.factorize(np.asarray(groups, dtype=object))[0]
    half = np.random.default_rng(seed).permutation(number.max() + 1)[number] % 2 == 0
    differences, gains = _gains(best, references)
    fitted = np.empty(len(best))
    for side in (half, ~half):
        fitted[side] = _best_threshold(differences[~side], gains[~side])
    after, before = (np.where(differences <= threshold, gains, 0) for threshold in (fitted, now))
    columns = sum_by_group(np.column_stack([after - before, np.ones(len(best))]), groups)

    def statistic(weights: Weights) -> Metrics:
        gain, questions = np.moveaxis(weights @ columns, -1, 0)
        return {"gain": gain / questions}

    return intervals(statistic, len(columns), seed=seed, difference=True).loc["gain"]


def predicted_answers(
    predictions: tuple[np.ndarray, np.ndarray], encoded: Dataset, contexts: Sequence[str], **options: object
) -> list[list[Answer]]:
    """Return `best_answers` of every question, from `Trainer.predict`'s start and end logits (windows, tokens).

    `encoded` is the encoded split and `contexts` the column of its contexts; `options` are those of `best_answers`.
    Raises DataError if the three do not match.
    """
    start_logits, end_logits = predictions
    examples = encoded["example"]
    if not len(start_logits) == len(end_logits) == len(encoded) or len(set(examples)) != len(contexts):
        raise DataError(
            f"{len(start_logits)} rows of predictions, {len(encoded)} windows of {len(set(examples))} questions and "
            f"{len(contexts)} contexts do not belong together"
        )
    offsets = (np.array(rows) for rows in encoded["offset_mapping"])
    windows = zip(examples, start_logits, end_logits, offsets, encoded["no_answer"], strict=True)
    return [
        best_answers(contexts[example], (window[1:] for window in group), **options)
        for example, group in groupby(windows, key=itemgetter(0))
    ]


# --- measure -----------------------------------------------------------------------------------------------


class AnswerMeasure(Measure):
    """One answer per question ("": no answer), and the question's references, empty if it has no answer.

    `f1` and `exact_match` are those of SQuAD's evaluation: version 1.1 (Rajpurkar et al. 2016) if every question has an
    answer, else version 2.0 (Rajpurkar et al. 2018), which also has both for the questions with an answer and for those
    without ("HasAns/f1"): see `answer_scores`. `groups`, such as each question's context, are resampled as a whole; the
    default is single questions. Raises DataError if lengths differ.
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
            raise DataError(f"{len(predictions)} answers, {len(references)} references and {len(groups)} groups")
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
    SQuAD's evaluation, references without words do not count, and if there are no others, an answer without words is
    right.
    """
    if may_be_empty:
        references = [text for text in references if normalize_answer(text)]
        if not references:
            right = not normalize_answer(answer)
            return float(right), right
    return max(word_f1(answer, text) for text in references), max(exact_match(answer, text) for text in references)


def normalize_answer(text: str) -> str:
    """Return the text in lower case, without ASCII punctuation, English articles and extra white space."""
    text = text.lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(answer: str, reference: str) -> bool:
    """Whether the two are equal once normalized."""
    return normalize_answer(answer) == normalize_answer(reference)


def word_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the answer's words, with repeated words counted each time."""
    answer_words, reference_words = normalize_answer(answer).split(), normalize_answer(reference).split()
    shared = (Counter(answer_words) & Counter(reference_words)).total()
    return 2 * shared / (len(answer_words) + len(reference_words)) if shared else 0.0


def sum_by_group(columns: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Add up the rows of `columns` (examples, columns) by group: (groups, columns)."""
    group = pd.factorize(np.asarray(groups, dtype=object))[0]
    sums = np.zeros((group.max() + 1, columns.shape[1]))
    np.add.at(sums, group, columns)
    return sums
