"""The pipeline "extractive-qa", which Transformers 5 has no more; importing this module registers it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from bert_helpers.errors import DataError, ModelError, ParameterError
from bert_helpers.tasks.qa import Answer, best_answers, question_windows
from bert_helpers.tokenization import check_max_length


class ExtractiveQAPipeline(ChunkPipeline):
    """`pipeline("extractive-qa", model=…, tokenizer=…)`: answers as exact slices of a context.

    Call it with `question=` and `context=` (strings, or lists of equal length, or one of each kind), with a dict
    {"question", "context"}, or with a list of such dicts. Returns for each question a dict `score`, `start`, `end`,
    `answer`, or for `top_k` > 1 a list of them, best first. Options, at construction or call: `top_k`,
    `max_answer_length` and `handle_impossible_answer` of `best_answers`; `max_length` (384, or what the model takes)
    and `stride` (a third of it) of the windows; `batch_size` (windows at a time).
    Raises DataError for input of another form, ParameterError for an option out of range.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, model: PreTrainedModel, **kwargs: object) -> None:
        if not type(model).__name__.endswith("ForQuestionAnswering"):
            raise ModelError(f"a {type(model).__name__} has no start and end logits; load it for question answering.")
        super().__init__(model=model, **kwargs)
        self.model.eval()  # Trainer leaves its model in training mode, where dropout makes answers random
        limit = self.model.config.max_position_embeddings
        self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, limit)  # 10**30 in some folders

    def _sanitize_parameters(self, **options: object) -> tuple[dict, dict, dict]:
        options = {name: value for name, value in options.items() if value is not None}
        for name in ("top_k", "max_answer_length"):
            if options.get(name, 1) < 1:
                raise ParameterError(f"{name} is {options[name]}; it must be at least 1.")
        windows = {name: options.pop(name) for name in ("max_length", "stride") if name in options}
        return windows, {}, options

    def __call__(
        self,
        inputs: Mapping[str, str] | Iterable[Mapping[str, str]] | None = None,
        *,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        **options: object,
    ) -> Answer | list[Answer] | list[list[Answer]]:
        if inputs is None:
            inputs = _paired(question, context)
        examples = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        for example in examples:
            for name in ("question", "context"):
                if not isinstance(example, Mapping) or not isinstance(example.get(name), str):
                    form = "an example is {'question': text, 'context': text}"
                    raise DataError(f"{form}; this one has no text {name!r}.")
        return super().__call__(inputs if isinstance(inputs, Mapping) else examples, **options) if examples else []

    def preprocess(
        self, example: Mapping[str, str], max_length: int | None = None, stride: int | None = None
    ) -> Iterator[dict[str, object]]:
        max_length = min(384, self.tokenizer.model_max_length) if max_length is None else max_length
        stride = max_length // 3 if stride is None else stride
        check_max_length(max_length, self.tokenizer)
        windows = question_windows(
            [example["question"]], [example["context"]], self.tokenizer, max_length=max_length, stride=stride
        )
        for i in range(len(windows["input_ids"])):
            yield {
                **{name: torch.tensor([windows[name][i]]) for name in self.tokenizer.model_input_names},
                "offset_mapping": windows["offset_mapping"][i],  # an array: batched into a list, not padded
                "context": example["context"],
                "is_last": i == len(windows["input_ids"]) - 1,
            }

    def _forward(self, window: dict[str, object]) -> dict[str, object]:
        output = self.model(**{name: window[name] for name in self.tokenizer.model_input_names})
        # Unbatching reads the size of the batch from the first value.
        rest = {name: window[name] for name in ("offset_mapping", "context", "is_last")}
        return {"start_logits": output.start_logits.float(), "end_logits": output.end_logits.float(), **rest}

    def postprocess(
        self, windows: Sequence[dict[str, object]], top_k: int = 1, **options: object
    ) -> Answer | list[Answer]:
        answers = best_answers(
            windows[0]["context"],
            (
                (w["start_logits"][0].numpy(), w["end_logits"][0].numpy(), np.reshape(w["offset_mapping"], (-1, 2)))
                for w in windows
            ),
            top_k=top_k,
            **options,
        )
        return answers[0] if top_k == 1 else answers


def _paired(
    question: str | Sequence[str] | None, context: str | Sequence[str] | None
) -> Mapping[str, str] | list[Mapping[str, str]]:
    """Examples from the two keywords; one question goes with every context, one context with every question."""
    lengths = {len(given) for given in (question, context) if isinstance(given, (list, tuple))}
    if not lengths:
        return {"question": question, "context": context}
    if len(lengths) > 1:
        raise DataError(f"{len(question)} questions and {len(context)} contexts; give as many of one as of the other.")
    n = lengths.pop()
    question, context = (list(x) if isinstance(x, (list, tuple)) else [x] * n for x in (question, context))
    return [{"question": q, "context": c} for q, c in zip(question, context, strict=True)]


PIPELINE_REGISTRY.register_pipeline(
    "extractive-qa", pipeline_class=ExtractiveQAPipeline, pt_model=AutoModelForQuestionAnswering, type="text"
)
# With it, save_pretrained would name this class as remote code in the model's config, which then loads nowhere.
del ExtractiveQAPipeline._registered_impl
