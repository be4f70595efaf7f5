"""A run in which memory runs out ends like one with enough memory."""

import os
import sys
import textwrap
from functools import wraps
from subprocess import run
from unittest.mock import Mock

import helpers
import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, BertForTokenClassification

from bert_helpers import TrainingError, models, tokenization
from bert_helpers.diagnosis import checks_run
from bert_helpers.machine import checkpoints
from bert_helpers.tasks.registry import TASKS


@pytest.fixture(scope="module")
def encoded(small_dataset, tokenizer):
    return tokenization.encode_texts(small_dataset, tokenizer, max_length=64)


@pytest.fixture(scope="module")
def tagged(tokenizer):
    entities = TASKS["ner"].load("sample", train_size=48, validation_size=8, test_size=8)
    return entities["train"].features["ner_tags"].feature.names, TASKS["ner"].encode(entities, tokenizer, max_length=64)


def make(
    tiny_bert, encoded, tokenizer, folder, *, task="classification", names=("-", "+"), accumulation=1, batch_size=16
):
    args = helpers.arguments(
        folder,
        epochs=2,
        learning_rate=1e-3,
        precision="fp32",
        disable_tqdm=True,
        logging_steps=1,
        batch_size=batch_size,
        gradient_accumulation=accumulation,
    )
    model_class = BertForTokenClassification if task == "ner" else BertForSequenceClassification
    options = {"num_labels": len(names), "id2label": dict(enumerate(names)), "hidden_dropout_prob": 0.0}
    model = models.load_model(str(tiny_bert), model_class, seed=0, **options)
    return helpers.make_trainer(model, args, encoded, task=task, tokenizer=tokenizer)


def fails_over(trainer, rows, *, from_step=0, late=False, spared=0):
    """Make a forward pass over more than `rows` rows fail, from an optimizer step on; `late`: in its backward pass.

    `spared` passes of that step go well before the first one fails.
    """
    forward = trainer.model.forward
    failures, left = [], spared

    @wraps(forward)  # its signature tells the Trainer which columns to keep
    def limited(*args, **kwargs):
        nonlocal left
        output = forward(*args, **kwargs)
        if trainer.model.training and len(kwargs["input_ids"]) > rows and trainer.state.global_step >= from_step:
            if left:
                left -= 1
                return output
            failures.append(trainer.state.global_step)
            if not late:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            output.loss = Fails.apply(output.loss)
        return output

    trainer.model.forward = limited
    return failures


class Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss * 1

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def curve(trainer):
    trainer.train()
    checkpoints.discard(trainer)  # the next one is the same training
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [entry["loss"] for entry in log], [entry["grad_norm"] for entry in log]


@pytest.mark.parametrize(
    ("rows", "from_step", "late", "accumulation", "spared"),
    # last case: the second of two accumulated batches fails, so the first has to be repeated as well
    [(8, 2, False, 1, 0), (5, 0, True, 1, 0), (4, 1, False, 2, 0), (4, 1, False, 2, 1)],
)
def test_losses_and_gradients_are_those_of_the_untroubled_run(
    rows, from_step, late, accumulation, spared, tiny_bert, encoded, tokenizer, tmp_path
):
    options = {"accumulation": accumulation, "batch_size": 16 // accumulation}
    untroubled = make(tiny_bert, encoded, tokenizer, tmp_path, **options)
    losses, norms = curve(untroubled)
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, **options)
    failures = fails_over(trainer, rows, from_step=from_step, late=late, spared=spared)
    trainer.halve_batches = True
    troubled, troubled_norms = curve(trainer)
    assert failures
    assert set(failures) == {from_step}  # remembered: later steps do not fail again
    assert trainer.state.global_step == len(losses) == 6  # 48 rows, 16 per step, 2 epochs: the effective batch is kept
    np.testing.assert_allclose(troubled, losses, atol=1e-3)
    np.testing.assert_allclose(troubled_norms, norms, rtol=1e-2)
    for ours, theirs in zip(trainer.model.parameters(), untroubled.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_words_with_a_label_weigh_alike_in_unequal_parts(tiny_bert, tagged, tokenizer, tmp_path):
    names, encoded = tagged
    losses, _ = curve(make(tiny_bert, encoded, tokenizer, tmp_path, task="ner", names=names))
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path, task="ner", names=names)
    fails_over(trainer, 5)
    trainer.halve_batches = True
    troubled, _ = curve(trainer)
    np.testing.assert_allclose(troubled, losses, atol=1e-3)


def test_the_history_says_what_happened_and_the_diagnosis_names_it(tiny_bert, encoded, tokenizer, tmp_path):
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path)
    fails_over(trainer, 4, from_step=1)
    trainer.halve_batches = True
    curve(trainer)
    halvings = [entry for entry in trainer.state.log_history if "micro_batch_size" in entry]
    assert [(e["micro_batch_size"], e["parts"], e["step"]) for e in halvings] == [(8, 2, 1), (4, 4, 1)]
    (finding,) = checks_run.check_history(trainer.state.log_history, chance=9.0, learning_rate=1e-3)[:1]
    assert finding.name == "out_of_memory"
    assert finding.fix == {"BATCH_SIZE": 4, "GRADIENT_ACCUMULATION": 4}


def test_without_a_failure_nothing_changes(tiny_bert, encoded, tokenizer, tmp_path):
    plain = curve(make(tiny_bert, encoded, tokenizer, tmp_path))
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path)
    trainer.halve_batches = True
    assert curve(trainer) == plain


def test_a_single_row_that_does_not_fit_ends_the_run(tiny_bert, encoded, tokenizer, tmp_path):
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path)
    fails_over(trainer, 0)
    trainer.halve_batches = True
    with pytest.raises(TrainingError, match="a single row; lower MAX_LENGTH"):
        trainer.train()


def test_other_errors_pass_through(tiny_bert, encoded, tokenizer, tmp_path):
    trainer = make(tiny_bert, encoded, tokenizer, tmp_path)
    trainer.halve_batches = True
    trainer.compute_loss = Mock(side_effect=RuntimeError("device-side assert"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        trainer.train()


LIMITED = """
    import resource, sys
    import psutil, torch
    from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
    from bert_helpers.training import Trainer

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    model = BertForSequenceClassification(BertConfig(vocab_size=99, attn_implementation="eager", **sizes))
    rows = [{"input_ids": torch.randint(0, 99, (256,)), "labels": torch.tensor(i % 2)} for i in range(64)]
    args = TrainingArguments(sys.argv[1], per_device_train_batch_size=32, max_steps=2, use_cpu=True, report_to="none",
                             disable_tqdm=True, save_strategy="no")
    trainer = Trainer(model, args, train_dataset=rows, halve_batches=True)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
    trainer.train()
    halved = [entry["micro_batch_size"] for entry in trainer.state.log_history if "micro_batch_size" in entry]
    print("steps", trainer.state.global_step, "halved", bool(halved))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on a process's memory")
def test_an_allocation_that_really_fails(tmp_path):
    """A child process with 300 MiB left, and a batch of 32 whose attention alone takes more."""
    child = run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.strip().endswith("steps 2 halved True"), child.stdout
