"""Findings from tokens, from the untrained model on one batch, and from memory: seconds that may save hours.

The checks of the model take a `Trainer` that has not trained yet, and leave it unchanged.
"""

import copy
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import torch
from datasets import Dataset, DatasetDict
from scipy.stats import entropy
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from bert_helpers import models
from bert_helpers.diagnosis import checks_run
from bert_helpers.diagnosis.checks_data import SAMPLE, as_task
from bert_helpers.diagnosis.findings import FALSE_ALARM, Evidence, Finding, check
from bert_helpers.evaluation.comparison import mcnemar
from bert_helpers.tasks.base import Examples, Task
from bert_helpers.tasks.qa import lost_answers
from bert_helpers.tokenization import kept_lengths

UNKNOWN = 0.01  # the samples, IMDb, CoNLL-2003, SQuAD and STS-B have at most 0.001 with the uncased vocabulary
# English has 1.04 to 1.4 subwords per word with the packaged vocabulary, French 1.3, Spanish 1.6; German 2.1, Finnish
# 2.8, Russian 6.4
PIECES = 1.8
# Scripts without spaces between words (Thai, Lao, Burmese, Khmer, kana, Han): each character counts as a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(f"[{UNSPACED}]|[^\\W\\d_{UNSPACED}]+")
CAPITALS = 0.005  # of all letters; the samples, IMDb, CoNLL-2003, SQuAD, STS-B, GoEmotions, tweets have 0.02 to 0.11
CUT, LOST = 0.5, 0.01
SCALE = 2.0
FP16 = 65504.0
PRODUCTS = tuple(getattr(torch.ops.aten, name) for name in ("mm", "bmm", "addmm", "baddbmm"))
FEW = 8  # rows to memorise
MARGIN = 1.2  # measured peaks were 0.92 to 1.20 times the estimate: 5 runs on a CPU, 4 to 16 rows, 128 to 512 tokens
STEPS, RATES = 40, (3e-4, 3e-3)  # steps at each learning rate; the second is for small models with random weights


# --- tokens ------------------------------------------------------------------------------------------------


@check
def check_tokens(
    dataset: DatasetDict, encoded: DatasetDict, tokenizer: PreTrainedTokenizerBase, *, task: str | Task
) -> Iterator[Finding]:
    """Find `unknown_tokens`, `many_pieces`, `lower_cased_texts`, `truncation` and `lost_answers` in the training rows.

    `encoded` is `dataset` through the task's `encode`; `task` is a task or its name in `TASKS`.
    """
    rows, task = encoded["train"], as_task(task)
    examples = task.examples(dataset["train"])
    yield from check_unknown(rows, tokenizer)
    yield from check_language(examples.texts[:SAMPLE], tokenizer)
    if "start_positions" in rows.column_names:
        yield from check_answers(dataset["train"], rows, tokenizer)
    if task.cuts_texts:
        yield from check_truncation(examples, rows, tokenizer)


@check
def check_unknown(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """Find `unknown_tokens`: the tokenizer has no pieces for many words."""
    ids = np.concatenate([np.asarray(row) for row in rows["input_ids"]])
    ids = ids[~np.isin(ids, [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id])]
    share = float(np.mean(ids == tokenizer.unk_token_id)) if len(ids) else 1.0
    if share > UNKNOWN:
        yield Finding(
            "unknown_tokens",
            f"{share:.1%} of the training tokens are {tokenizer.unk_token}: the model cannot see these words",
            Evidence(share, UNKNOWN, "text that the vocabulary was made for has at most 1 unknown token in 1,000"),
            "the tokenizer of another model or language, or one that keeps capitals for a vocabulary without any",
            {},
            "take the model's own tokenizer; if it is that, a model (MODEL) whose vocabulary has these words",
        )


@check
def check_language(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """Find `many_pieces`: words are split into many subwords; and `lower_cased_texts`, if the tokenizer is cased."""
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    words = sum(len(WORD.findall(text)) for text in texts)
    pieces = sum(
        any(map(str.isalpha, text[start:end]))
        for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)
        for start, end in offsets
    )
    if words and pieces / words > PIECES:
        yield Finding(
            "many_pieces",
            f"a word of the training texts has {pieces / words:.2f} subwords on average: few words are seen whole",
            Evidence(pieces / words, PIECES, "texts in the vocabulary's language have 1.0 to 1.6 subwords per word"),
            "the texts are in another language, or from another field, than those the model was trained on",
            {},
            "take a model (MODEL) for this language, or a multilingual one: docs/models.md",
        )
    letters = [letter for text in texts for letter in text if letter.lower() != letter.upper()]
    share = sum(map(str.isupper, letters)) / max(1, len(letters))
    lower, upper = (tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("the", "The"))
    if letters and share < CAPITALS and lower != upper:
        yield Finding(
            "lower_cased_texts",
            f"only {share:.2%} of the letters are capitals, but this model distinguishes The from the",
            Evidence(share, CAPITALS, "texts as people write them have 2% to 11% capitals"),
            "the texts were lower-cased: names and the beginnings of sentences look to the model like rare words",
            {},
            "take the original texts, or a model (MODEL) for lower-cased text, such as bert-base-uncased",
        )


@check
def check_truncation(examples: Examples, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """Find `truncation`: over half of the text is cut off, or a word-count classifier shows that what is cut matters.

    `examples` are the training rows; `rows` are the same rows, encoded.
    """
    sides = list(zip(*examples.pairs, strict=True)) if examples.pairs else [examples.texts]

    def whole(rows: np.ndarray) -> list[list[list[int]]]:
        """Return the uncut token ids of the texts of these rows, and of the second texts of pairs."""
        chosen = [[side[i] for i in rows] for side in sides]
        return [tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] for texts in chosen]

    length, whole_length = np.asarray(rows["length"]), np.asarray(rows["whole_length"])
    cut = np.flatnonzero(length < whole_length)
    if not len(cut):
        return
    specials = tokenizer.num_special_tokens_to_add(pair=len(sides) > 1)
    lost = 1 - float((length - specials).sum() / (whole_length - specials).sum())
    symptom = f"{lost:.0%} of the training tokens are cut off"
    if examples.pairs:
        parts = [[len(ids) for ids in side] for side in whole(cut)]
        kept = np.array([kept_lengths(*row, room=length.max() - specials) for row in zip(*parts, strict=True)])
        first, second = (np.array(parts) - kept.T).sum(axis=1) / (whole_length - length).sum()
        symptom += f", {first:.0%} of them from the first of the two texts, {second:.0%} from the second"
    if lost > CUT:
        evidence = Evidence(lost, CUT, "more is cut off than read")
    elif examples.classes and not examples.several and len(cut) / len(rows) > 0.05:
        chosen = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
        uncut = [list(chain(*ids)) for ids in zip(*whole(chosen), strict=True)]
        readable = [[tokenizer.decode(ids) for ids in side] for side in (uncut, rows[chosen]["input_ids"])]
        p, gain = _reads_better(readable, np.array(examples.labels)[chosen])
        if p >= FALSE_ALARM or gain <= 0:
            return
        symptom += f"; with them, a classifier of word counts is right in {gain:.1%} more rows"
        reason = "how often a cut that loses nothing looks like this (McNemar's test of word-count classifiers)"
        evidence = Evidence(p, FALSE_ALARM, reason)
    else:
        return
    fix = _longer(whole_length, tokenizer, present=length.max())
    advice = "or take a model (MODEL) with more positions" if "TRUNCATION" in fix else ""
    yield Finding("truncation", symptom, evidence, "MAX_LENGTH is too short for these texts", fix, advice)


def _reads_better(sides: list[list[str]], labels: np.ndarray) -> tuple[float, float]:
    """Return the p-value and the gain in accuracy of whole texts over cut ones, by cross-validated word counts."""
    folds = min(5, np.unique(labels, return_counts=True)[1].min())
    if folds < 2:
        return 1.0, 0.0
    right = []
    for side in sides:
        words = TfidfVectorizer(sublinear_tf=True).fit_transform(side)
        split = StratifiedKFold(folds, shuffle=True, random_state=0)
        right.append(cross_val_predict(LogisticRegression(C=10, max_iter=300), words, labels, cv=split) == labels)
    only = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    return mcnemar(*only), (only[0] - only[1]) / len(labels)


def _longer(lengths: np.ndarray, tokenizer: PreTrainedTokenizerBase, *, present: int) -> dict[str, object]:
    """Return the lowest usual MAX_LENGTH above `present` that keeps 95% of the tokens, or the most, from both ends."""
    most = tokenizer.model_max_length
    for limit in (64, 128, 256, 512, most):
        if present < limit <= most and np.minimum(lengths, limit).sum() >= 0.95 * lengths.sum():
            return {"MAX_LENGTH": limit}
    return {"MAX_LENGTH": most, "TRUNCATION": "head+tail"}


@check
def check_answers(questions: Dataset, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    """Find `lost_answers`: no window of a question holds its whole answer. `rows` are the windows of `questions`."""
    share, most = lost_answers(rows)["windows"], tokenizer.model_max_length
    if share <= LOST:
        return
    names = ("example", "start_positions", "no_answer", "has_answer")
    example, start, place, answered = (np.asarray(rows[name]) for name in names)
    lost = questions.select(np.setdiff1d(example[answered], example[start != place]))
    spans = [(answers["answer_start"][0], len(answers["text"][0])) for answers in lost["answers"]]
    contexts = tokenizer(lost["context"][:], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = zip(contexts["offset_mapping"], spans, strict=True)
    sizes = [sum(s < begin + length and begin < e for s, e in offsets) for offsets, (begin, length) in tokens]
    # The rest of a window is for the question, and for the step to the next window.
    longest = max((size for size in sizes if size <= most * 2 // 3), default=0)
    length = min(most, max(max(rows["length"]), 384, 2 * longest))
    yield Finding(
        "lost_answers",
        f"{share:.1%} of the training answers are not complete in any window; the longest has {max(sizes)} tokens",
        Evidence(share, LOST, "such a question is trained to have no answer: exact match cannot exceed 1 - share"),
        "STRIDE is shorter than the answers",
        {"MAX_LENGTH": length, "STRIDE": max(longest, length // 3)} if longest else {},
        "" if longest == max(sizes) else "shorten the longest answers, or take a model (MODEL) with more positions",
    )


# --- the model on one batch --------------------------------------------------------------------------------


@check
def check_model(trainer: Trainer, *, task: str | Task, memory: float | None = None, seed: int = 0) -> Iterator[Finding]:
    """Run all checks below on a model before it trains.

    `trainer` has not trained yet. `memory` is what training may use in bytes; None: all that is free.
    """
    rng, task = np.random.default_rng(seed), as_task(task)
    foreign = check_token_ids(trainer)
    yield from foreign
    if foreign:  # a forward pass would fail or mean nothing
        return
    rows = rng.permutation(len(trainer.train_dataset))[: 4 * FEW]
    short = np.argsort(trainer.train_dataset["length"], kind="stable")[: max(FEW, len(trainer.train_dataset) // 2)]
    few = batch_of(trainer, rng.permutation(short)[:FEW])
    with torch.random.fork_rng():  # dropout draws random numbers
        yield from check_memory(trainer, memory=memory)
        if task.numeric:
            yield from check_target(trainer)
        yield from check_encoder(trainer.model)
        yield from check_learning_rate(trainer)
        if trainer.args.fp16:
            yield from check_overflow(trainer.model, few)
        yield from check_initial_loss(trainer, batch_of(trainer, rows), task)
        yield from check_gradients(trainer, few) or check_learning(trainer, few)


def batch_of(trainer: Trainer, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Return the training rows with these numbers as a batch for the model, on its device."""
    known = inspect.signature(trainer.model.forward).parameters
    columns = [name for name in trainer.train_dataset.column_names if name in known]
    batch = trainer.data_collator(trainer.train_dataset.select_columns(columns).select(rows).to_list())
    return {name: tensor.to(trainer.model.device) for name, tensor in batch.items()}


@check
def check_token_ids(trainer: Trainer) -> Iterator[Finding]:
    """Find `other_tokenizer`: token ids without an embedding, or far fewer tokens than embeddings."""
    rows, tokens = len(trainer.model.get_input_embeddings().weight), len(trainer.processing_class)
    highest = max(max(ids) for ids in trainer.train_dataset["input_ids"])
    if highest >= rows:
        symptom = f"token {highest} of the training rows has no embedding"
        evidence = Evidence(highest, rows - 1, "the highest id; any above it ends the first step with an IndexError")
    elif tokens < models.FEWEST_TOKENS * rows:
        symptom = f"the tokenizer has {tokens} tokens, the model {rows} embeddings"
        evidence = Evidence(tokens, models.FEWEST_TOKENS * rows, "vocabularies are padded by less than a tenth")
    else:
        return
    cause = "the tokenizer is another model's, or tokens were added"
    advice = "encode with the tokenizer of the model's folder; models.fit_embeddings makes room for added tokens"
    yield Finding("other_tokenizer", symptom, evidence, cause, {}, advice)


@check
def check_encoder(model: PreTrainedModel) -> Iterator[Finding]:
    """Find `untrained_encoder`: normalization layers whose weights are all exactly 1, as before any training."""
    norms = [
        module.weight
        for module in model.base_model.modules()
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None
    ]
    fresh = sum(bool((weight == 1).all()) for weight in norms)
    if fresh:
        yield Finding(
            "untrained_encoder",
            f"{fresh} of the encoder's {len(norms)} normalization layers have weights of exactly 1: they are untrained",
            Evidence(fresh / len(norms), 0, "training changes the weights of every normalization layer"),
            "weights of the encoder were not loaded: it was made from its config, or the file has other names for them",
            {},
            "use models.load_model, which accounts for every weight; never ignore a warning about new ones",
        )


def usual_rate(model: PreTrainedModel) -> float:
    """Return a learning rate to begin with, given the size of the model and of its weights."""
    config, weight = model.config, models.initial_weight_size(model)
    return checks_run.usual_rate(weight, depth=config.num_hidden_layers, width=config.hidden_size)


@check
def check_learning_rate(trainer: Trainer) -> Iterator[Finding]:
    """Find `learning_rate_too_high`: a step may change the output of all layers by as much as its own size."""
    model, rate = trainer.model, trainer.args.learning_rate
    depth, width = model.config.num_hidden_layers, model.config.hidden_size
    change = rate * depth * math.sqrt(width) / models.initial_weight_size(model)
    if change > checks_run.LARGE_CHANGE:
        yield Finding(
            "learning_rate_too_high",
            f"at {rate:.2g} a step can change the output of {depth} layers, {width} wide, by {change:.2g} of its size",
            Evidence(change, checks_run.LARGE_CHANGE, "all of it; usual rates give 0.1 to 0.6 in encoders of any size"),
            "the learning rate is too high for a model of this size",
            {"LEARNING_RATE": usual_rate(model)},
        )


class LargestProduct(TorchDispatchMode):
    """Keeps the largest absolute value of all matrix products, including those within attention."""

    largest = 0.0

    def __torch_dispatch__(
        self, function: Callable, types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        """Call the function unchanged and look at its result."""
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in PRODUCTS:
            self.largest = max(self.largest, float(result.abs().max()))
        return result


@check
@torch.no_grad()
def check_overflow(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> Iterator[Finding]:
    """Find `fp16_overflow`: weights, or matrix products of a batch in fp32, exceed the range of fp16."""
    with LargestProduct() as products:
        model.eval()(**batch)
    largest = max(products.largest, *(float(weights.abs().max()) for weights in model.parameters()))
    if largest > FP16:
        yield Finding(
            "fp16_overflow",
            f"values inside the model reach {largest:.3g} on a batch",
            Evidence(largest, FP16, "the largest fp16 number; any larger one is infinite, and the loss not a number"),
            "the model was trained in fp32 or bf16, whose range is larger (DeBERTa-v2 and v3 are known for it)",
            {"PRECISION": "fp32"},
            "or bf16, on a GPU that supports it",
        )


@check
def check_target(trainer: Trainer) -> Iterator[Finding]:
    """Find `target_scale`: the numbers to learn are far from mean 0 and standard deviation 1."""
    config, labels = trainer.model.config, np.asarray(trainer.train_dataset["labels"], dtype=float)
    mean, deviation = getattr(config, "target_mean", 0.0), getattr(config, "target_deviation", 1.0)
    size = float(np.sqrt(np.mean(((labels - mean) / deviation) ** 2)))
    if not 1 / SCALE <= size <= SCALE:
        yield Finding(
            "target_scale",
            f"the target's root mean square is {size:.3g} in the model's units",
            Evidence(size, SCALE if size > 1 else 1 / SCALE, "1 when standardized; at 2 the first loss is 4"),
            "the head starts near 0 and moves in small steps: it needs most of the run to get there, or overshoots",
            {},
            "standardize the target: give models.load_model the fields of tasks.regression.target_scale",
        )


@check
@torch.inference_mode()
def check_initial_loss(trainer: Trainer, batch: dict[str, torch.Tensor], task: Task) -> Iterator[Finding]:
    """Find `initial_loss`: a new head's logits, or its loss, are not those of guessing; or `trained_head`.

    The loss of guessing is the task's `untrained_loss`, such as ln(classes). A head that was trained before (its bias
    is not that of a new one) may do better than guessing, but not worse.
    """
    model, features = trainer.model.eval(), []
    head = models.output_layer(model)
    with head.register_forward_hook(lambda module, inputs, logits: features.extend((inputs[0], logits))):
        loss = float(model(**batch).loss)
    expected = task.untrained_loss(model, batch)
    bias = head.bias.new_tensor(getattr(model.config, "output_bias", None) or 0.0)  # of a new head
    if (head.bias != bias).any():
        if loss > expected:
            yield Finding(
                "trained_head",
                f"the head is not new, and does worse than guessing: its loss is {loss:.2f}",
                Evidence(loss, expected, "the loss of guessing, with which a new head begins"),
                "the files have a head with the same number of outputs, which was trained for something else",
                {},
                "start from the encoder that was fine-tuned, or from another",
            )
        return
    read, logits = (values.float() for values in features)
    # The initializer's standard deviation is the config's, or one that keeps sizes (ModernBERT's); `large` is three
    # standard deviations of the logits that it gives.
    spread = max(model.config.initializer_range, head.in_features**-0.5)
    large = 3 * spread * float(read.norm(dim=-1).square().mean().sqrt())
    size = float((logits - bias).square().mean().sqrt())
    reach = math.sqrt(2) * large
    if task.numeric:  # the loss is the mean square of target minus logit
        reach = reach**2 + 2 * reach * math.sqrt(expected)
    if size > large:
        symptom, value, threshold = f"logits have size {size:.2g}, where guessing gives 0, and the", size, large
        cause, advice = "the head's weights are too large", "load the model without them, so that the head is new"
    elif abs(loss - expected) > reach:
        symptom, value, threshold = "logits are small, as expected, but the", abs(loss - expected), reach
        cause = "the loss is not the task's own, or the labels are changed before they reach it"
        advice = "compare the loss with the task's own on one batch"
    else:
        return
    symptom = f"the untrained head's {symptom} loss is {loss:.2f}; guessing gives {expected:.2f}"
    reason = "the most that a head with the config's initializer gives (3 sigma)"
    yield Finding("initial_loss", symptom, Evidence(value, threshold, reason), cause, {}, advice)


@check
def check_gradients(trainer: Trainer, batch: dict[str, torch.Tensor]) -> Iterator[Finding]:
    """Find `frozen_parameters`: weights that no gradient reaches."""
    model = trainer.model.train()
    model(**batch).loss.backward()
    # Some biases change nothing, such as that of attention keys, or that of an answer's start, which is added to all
    # tokens alike: except for rounding, their gradient is 0.
    still = [
        (name, weights.numel())
        for name, weights in model.named_parameters()
        if weights.grad is None or (weights.ndim > 1 and not weights.grad.any())
    ]
    model.zero_grad()
    share = sum(count for _, count in still) / model.num_parameters()
    if still:
        yield Finding(
            "frozen_parameters",
            f"{len(still)} tensors, {share:.0%} of the weights, get no gradient; first {still[0][0]}",
            Evidence(share, 0, "fine-tuning changes every weight; one without a gradient stays as it is"),
            "requires_grad is off, or something in the forward pass is detached",
            {},
            "set requires_grad = True for all weights; look for detach() and no_grad() in the forward pass",
        )


@check
def check_learning(trainer: Trainer, batch: dict[str, torch.Tensor]) -> Iterator[Finding]:
    """Find `cannot_overfit_batch`: a copy of the model, with its dropout, does not memorise eight rows in 80 steps."""
    model = copy.deepcopy(trainer.model)
    optimizer = torch.optim.AdamW(model.parameters())

    def loss() -> torch.Tensor:
        with _autocast(trainer):
            return model(**batch).loss

    model.eval()
    with torch.no_grad():
        first = last = float(loss())
    goal = min(first, _label_entropy(batch) or first) / 2
    model.train()
    for step in range(1, 2 * STEPS + 1):
        optimizer.param_groups[0]["lr"] = RATES[step > STEPS]
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 0:
            with torch.no_grad():
                last = float(loss())
            if last < goal:
                return
    dropout = max((module.p for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)), default=0.0)
    yield Finding(
        "cannot_overfit_batch",
        f"{FEW} rows are not memorised: loss {first:.2f} before and {last:.2f} after {2 * STEPS} steps",
        Evidence(last, goal, "half of the loss of guessing; a model that learns gets near 0 with so few rows"),
        f"dropout is {dropout:g}" if dropout > 0.3 else "rows look alike to the model, or labels and loss do not match",
        {"DROPOUT": 0.1} if dropout > 0.3 else {},
    )


def _label_entropy(batch: dict[str, torch.Tensor]) -> float:
    """Return the loss of predicting the shares of the batch's classes; 0 if there is at most one class."""
    labels = batch.get("labels")
    if labels is None or labels.is_floating_point():
        return 0.0
    return float(entropy(torch.bincount(labels[labels >= 0]).numpy(force=True)))


def _autocast(trainer: Trainer) -> AbstractContextManager:
    return torch.autocast(trainer.model.device.type, torch.bfloat16, enabled=trainer.args.bf16)


# --- memory ------------------------------------------------------------------------------------------------


@check
def check_memory(trainer: Trainer, *, memory: float | None = None) -> Iterator[Finding]:
    """Find `memory_short`: a step on the longest rows needs more than `memory` bytes (None: all that is free)."""
    there = free_memory(trainer.model.device) if memory is None else memory
    weights, row = (MARGIN * size for size in step_memory(trainer))
    batch = trainer.args.per_device_train_batch_size
    needed, fitting = weights + batch * row, batch
    while fitting > 1 and weights + fitting * row > there:
        fitting //= 2
    if needed > there:
        steps = trainer.args.gradient_accumulation_steps * math.ceil(batch / fitting)
        yield Finding(
            "memory_short",
            f"a step needs {needed / 2**30:.2f} GiB, but {there / 2**30:.2f} GiB are free",
            Evidence(needed / 2**30, there / 2**30, "free memory in GiB"),
            "the batch, or its longest row, is too large for this machine; accumulating gradients costs only time",
            {"BATCH_SIZE": fitting, "GRADIENT_ACCUMULATION": steps},
        )


def step_memory(trainer: Trainer) -> tuple[int, int]:
    """Return the bytes that training adds for the weights, and for each row, if all are as long as the longest.

    For the weights: gradients, AdamW's two averages and, with bf16, copies. A row adds its activations, that is what
    the forward pass saves for the backward pass: two copies of the longest row need so much more than one.
    """
    model, longest = trainer.model.train(), int(np.argmax(trainer.train_dataset["length"]))
    own = {weights.untyped_storage().data_ptr() for weights in model.parameters()}

    def saved(rows: int) -> int:
        seen = {}

        def count(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), _autocast(trainer):
            loss = model(**batch_of(trainer, np.full(rows, longest))).loss
        del loss  # until here, no address is used twice
        return sum(size for address, size in seen.items() if address not in own)

    one, two = saved(1), saved(2)
    trained = sum(weights.nbytes for weights in model.parameters() if weights.requires_grad)
    return 3 * trained + 2 * one - two, two - one


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a GPU, or on the machine within its container's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return free
