"""The pipeline "extractive-qa", which Transformers 5 lacks; importing this module registers it."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from bert_helpers import models
from bert_helpers.errors import DataError, ModelError, ParameterError
from bert_helpers.tasks.qa import THRESHOLD, Answer, best_answers, no_answer_options, question_windows
from bert_helpers.tokenization import check_max_length

# Names of options in Transformers' former "question-answering" pipeline
FORMER_NAMES = {
    "topk": "top_k",
    "max_answer_len": "max_answer_length",
    "max_seq_len": "max_length",
    "doc_stride": "stride",
}
WINDOW_OPTIONS = ("max_length", "stride")
ANSWER_OPTIONS = ("top_k", "max_answer_length", "align_to_words", "handle_impossible_answer", THRESHOLD)
FORM = "an example is {'question': text, 'context': text}"
Results = Answer | list[Answer]


class ExtractiveQAPipeline(ChunkPipeline):
    """`pipeline("extractive-qa", model=…, tokenizer=…)`: answers as exact slices of a context.

    Call it with question and context, in this order or by name: strings, columns of equal length (lists, arrays, a
    column of `datasets` or pandas), or one string and one column; with a dict {"question", "context"} of these; or with
    several such dicts of strings. The result for a question is a dict of `score`, `start`, `end` and `answer` or, for
    `top_k` > 1, a list of these, best first. Several examples return a list of results, and an iterator (a generator)
    returns an iterator, which reads lazily.

    Options, at construction or call: `top_k`, `max_answer_length`, `align_to_words`, `handle_impossible_answer` ("no
    answer" is an empty answer) and `null_score_diff_threshold` of `qa.best_answers`, the last with the value fitted on
    the model's validation rows, else 0; `max_length` (384, or the model's maximum) and `stride` (a third of it) of the
    windows; `batch_size` (windows at a time). The names in Transformers' former "question-answering" work, too: `topk`,
    `max_answer_len`, `max_seq_len`, `doc_stride`. Deliberate differences from it: a list of examples returns a list,
    even for one element; answers have up to 30 tokens, not 15; the fitted threshold decides on "no answer"; a context
    without words gets an empty answer with score 0. Raises DataError for input of another form, and ParameterError for
    an option that is unknown or out of range.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, model: PreTrainedModel, **kwargs: object) -> None:
        if not type(model).__name__.endswith("ForQuestionAnswering"):
            raise ModelError(
                f"a {type(model).__name__} has no start and end logits", fix="load it for question answering"
            )
        super().__init__(model=model, **kwargs)
        self.model.eval()  # Trainer leaves its model in training mode, where dropout makes answers random
        limit = models.positions(self.model.config)
        self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, limit)  # 10**30 in some folders
        # Some tokenizers return token types for a model without these
        known = inspect.signature(self.model.forward).parameters
        self.inputs = [name for name in self.tokenizer.model_input_names if name in known]

    def _sanitize_parameters(self, **options: object) -> tuple[dict, dict, dict]:
        options = {FORMER_NAMES.get(name, name): value for name, value in options.items() if value is not None}
        known = (*WINDOW_OPTIONS, *ANSWER_OPTIONS)
        if unknown := [name for name in options if name not in known]:
            raise ParameterError(f"{unknown[0]} is not an option; options are {', '.join(known)}")
        for name in ("top_k", "max_answer_length"):
            if options.get(name, 1) < 1:
                raise ParameterError(f"{name} is {options[name]}; it must be at least 1")
        windows = {name: options.pop(name) for name in WINDOW_OPTIONS if name in options}
        return windows, {}, options

    def __call__(
        self,
        *inputs: object,
        question: str | Iterable[str] | None = None,
        context: str | Iterable[str] | None = None,
        **options: object,
    ) -> Results | list[Results] | Iterator[Results]:
        if len(inputs) == 1 and question is None and context is None:
            examples = inputs[0]
        elif len(inputs) in (0, 2) and (not inputs or (question is None and context is None)):
            examples = _paired(*(inputs or (question, context)))
        else:
            raise DataError("give question and context, or examples")
        if isinstance(examples, Mapping) and {"question", "context"} <= examples.keys():
            examples = _paired(examples["question"], examples["context"])  # both may be columns
        if isinstance(examples, Mapping):
            return super().__call__(_checked(examples), **options)
        if isinstance(examples, str) or not isinstance(examples, Iterable):
            raise DataError(f"{FORM}; this one is {examples!r:.40}")
        if not isinstance(examples, Sized):
            return super().__call__((_checked(example) for example in examples), **options)
        examples = [_checked(example) for example in examples]
        return super().__call__(examples, **options) if examples else []

    def preprocess(
        self, example: Mapping[str, str], max_length: int | None = None, stride: int | None = None
    ) -> Iterator[dict[str, object]]:
        max_length = min(384, self.tokenizer.model_max_length) if max_length is None else max_length
        stride = max_length // 3 if stride is None else stride
        check_max_length(max_length, self.tokenizer)
        texts = [example["question"]], [example["context"]]
        windows = question_windows(*texts, self.tokenizer, max_length=max_length, stride=stride)
        for i in range(len(windows["input_ids"])):
            yield {
                **{name: torch.tensor([windows[name][i]]) for name in self.inputs},
                "offset_mapping": windows["offset_mapping"][i],  # an array: batched into a list, not padded
                "no_answer": windows["no_answer"][i],
                "context": example["context"],
                "is_last": i == len(windows["input_ids"]) - 1,
            }

    def _forward(self, window: dict[str, object]) -> dict[str, object]:
        # Padding moves from the left to the right, because positions count from the first token
        order = window["attention_mask"].argsort(dim=1, descending=True, stable=True)
        output = self.model(**{name: window[name].gather(1, order) for name in self.inputs})
        # Unbatching takes the batch size from the first value
        rest = {name: window[name] for name in ("offset_mapping", "no_answer", "context", "is_last")}
        return {"start_logits": output.start_logits.float(), "end_logits": output.end_logits.float(), **rest}

    def postprocess(self, windows: Sequence[dict[str, object]], top_k: int = 1, **options: object) -> Results:
        if fitted := no_answer_options(self.model.config):
            options = {THRESHOLD: fitted[THRESHOLD], **options}
        inputs = []
        for w in windows:
            logits = (w[name][0].numpy() for name in ("start_logits", "end_logits"))
            inputs.append((*logits, np.reshape(w["offset_mapping"], (-1, 2)), w["no_answer"]))
        answers = best_answers(windows[0]["context"], inputs, top_k=top_k, **options)
        answers = [{name: answer[name] for name in ("score", "start", "end", "answer")} for answer in answers]
        return answers[0] if top_k == 1 else answers


def _paired(question: str | Iterable[str] | None, context: str | Iterable[str] | None) -> Mapping | list[Mapping]:
    """Return examples of questions and contexts, where a single one of either is paired with all of the other."""
    columns = {
        name: list(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else given
        for name, given in (("question", question), ("context", context))
    }
    lengths = {len(given) for given in columns.values() if isinstance(given, list)}
    if not lengths:
        return columns
    if len(lengths) > 1:
        numbers = f"{len(columns['question'])} questions and {len(columns['context'])} contexts"
        raise DataError(numbers, fix="give as many of one as of the other")
    n = lengths.pop()
    rows = zip(*(given if isinstance(given, list) else [given] * n for given in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _checked(example: object) -> dict[str, str]:
    if not isinstance(example, Mapping):
        raise DataError(f"{FORM}; this one is {example!r:.40}")
    for name in ("question", "context"):
        if not isinstance(example.get(name), str):
            raise DataError(f"{FORM}; this one has no text {name!r}")
    return {"question": example["question"], "context": example["context"]}


PIPELINE_REGISTRY.register_pipeline(
    "extractive-qa", pipeline_class=ExtractiveQAPipeline, pt_model=AutoModelForQuestionAnswering, type="text"
)
# With it, save_pretrained would name this class as remote code in the model's config, which then loads nowhere.
del ExtractiveQAPipeline._registered_impl
