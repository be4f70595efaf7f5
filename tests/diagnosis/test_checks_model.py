"""The checks of tokens, the untrained model and memory, apart from whether each finding is made."""

import math
from functools import partial
from types import SimpleNamespace

import helpers
import numpy as np
import pytest
import torch
from datasets import Dataset
from made_up import labelled, names, questions, sentence, splits
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from bert_helpers import models, tokenization
from bert_helpers.diagnosis import checks_model
from bert_helpers.tasks import regression
from bert_helpers.tasks.registry import TASKS

CLASSIFICATION = TASKS["classification"]


def test_capitals_for_a_vocabulary_without_any(tiny_bert, clean):
    cased = BertTokenizerFast.from_pretrained(tiny_bert, do_lower_case=False)
    cased.model_max_length = 64
    shouted = clean.map(lambda row: {"text": row["text"].title()}, load_from_cache_file=False)
    encoded = tokenization.encode_texts(shouted, cased, max_length=64)
    assert "unknown_tokens" in names(checks_model.check_tokens(shouted, encoded, cased, task="classification"))


def test_the_length_that_a_cut_text_needs(clean, tokenizer):
    encoded = tokenization.encode_texts(clean, tokenizer, max_length=64)
    assert checks_model.check_tokens(clean, encoded, tokenizer, task=CLASSIFICATION) == []
    longer = partial(checks_model._longer, tokenizer=SimpleNamespace(model_max_length=600))
    lengths = np.array([40] * 19 + [70])  # 63 of 64 keep 99% of the tokens
    assert longer(lengths, present=30) == {"MAX_LENGTH": 64}
    for present in (64, 70):
        assert longer(lengths, present=present) == {"MAX_LENGTH": 128}
    assert longer(np.array([580]), present=64) == {"MAX_LENGTH": 600}
    both = {"MAX_LENGTH": 600, "TRUNCATION": "head+tail"}
    assert longer(np.array([580, 900]), present=64) == both


@pytest.mark.parametrize(("words", "length", "stride"), [(10, 64, 10), (20, 32, 10), (25, 64, 10)])
def test_windows_that_share_the_longest_answer(words, length, stride, tokenizer):
    """All but an answer of 50 tokens, which leaves no room in the model's 64 for a question and a step."""
    dataset = questions(words)
    encoded = TASKS["qa"].encode(dataset, tokenizer, max_length=length, stride=stride)
    (found,) = checks_model.check_tokens(dataset, encoded, tokenizer, task="qa")
    assert f"the longest has {2 * words} tokens" in found.symptom
    if words == 25:
        assert (found.fix, found.advice != "") == ({}, True)
        return
    assert (found.fix["MAX_LENGTH"], found.fix["STRIDE"] >= 2 * words > stride) == (64, True)
    encoded = TASKS["qa"].encode(dataset, tokenizer, max_length=64, stride=found.fix["STRIDE"])
    assert checks_model.check_tokens(dataset, encoded, tokenizer, task="qa") == []


def test_truncation_of_the_words_that_decide(rng, tokenizer):
    """A third of the text is cut off: harmful if the label depends on it, harmless if not."""
    for where, expected in ((slice(None), ["truncation"]), (slice(None, None, -1), [])):
        texts = [" ".join([sentence(rng), ("bad", "good")[i % 2]][where]) for i in range(100)]
        dataset = splits(labelled(texts, [0, 1] * 50), labelled(texts, [0, 1] * 50))
        pieces = [len(tokenizer(text)["input_ids"]) for text in texts]
        encoded = tokenization.encode_texts(dataset, tokenizer, max_length=min(pieces) - 1)
        assert names(checks_model.check_tokens(dataset, encoded, tokenizer, task="classification")) == expected


def test_what_is_cut_is_counted_on_pairs_too(tokenizer):
    dataset = TASKS["regression"].load("sample", train_size=40)
    train = dataset["train"]
    pieces = [len(tokenizer(*pair)["input_ids"]) - 3 for pair in zip(train["text"], train["text_pair"], strict=True)]
    encoded = tokenization.encode_texts(dataset, tokenizer, max_length=10)
    (found,) = checks_model.check_tokens(dataset, encoded, tokenizer, task="regression")
    assert found.evidence.value == pytest.approx(1 - sum(min(7, length) for length in pieces) / sum(pieces))


# --- the model on one batch --------------------------------------------------------------------------------


def test_a_model_without_a_fault_has_no_finding_and_is_left_as_it_was(trainer):
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    state = torch.get_rng_state()
    assert checks_model.check_model(trainer, task="classification") == []
    assert all(tensor.equal(before[name]) for name, tensor in trainer.model.state_dict().items())
    assert all(weights.grad is None for weights in trainer.model.parameters())
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("task", ["regression", "ner", "qa"])
def test_models_of_the_other_tasks_without_a_fault(task, tiny_bert, tokenizer, tmp_path):
    args = helpers.arguments(tmp_path, precision="fp32", disable_tqdm=True)
    spec = TASKS[task]
    dataset = spec.load("sample", train_size=40)
    encoded = spec.encode(dataset, tokenizer, max_length=64, **({} if spec.cuts_texts else {"stride": 16}))
    model = models.load_model(str(tiny_bert), spec.model_class, **spec.model_fields(dataset["train"]))
    trainer = helpers.make_trainer(model, args, encoded, task=task, tokenizer=tokenizer)
    batch = checks_model.batch_of(trainer, np.arange(8))
    assert not [*checks_model.check_initial_loss(trainer, batch, spec)]
    assert not [*checks_model.check_gradients(trainer, batch)]
    assert not [*checks_model.check_memory(trainer)]


def test_a_head_that_is_too_large_is_found_also_where_the_loss_is_that_of_chance(trainer):
    with torch.no_grad():
        trainer.model.classifier.weight[:] = 100 * trainer.model.classifier.weight[0]  # the same for all classes
    batch = checks_model.batch_of(trainer, np.arange(8))
    (found,) = checks_model.check_initial_loss(trainer, batch, CLASSIFICATION)
    assert (found.cause, found.fix) == ("the head's weights are too large", {})
    assert trainer.model(**batch).loss.item() == pytest.approx(math.log(trainer.model.config.num_labels))


def test_a_loss_that_is_not_the_tasks_own(trainer):
    loss, batch = trainer.model.forward, checks_model.batch_of(trainer, np.arange(8))
    trainer.model.forward = lambda **inputs: SimpleNamespace(loss=3 * loss(**inputs).loss)
    (found,) = checks_model.check_initial_loss(trainer, batch, CLASSIFICATION)
    assert found.cause.startswith("the loss is not the task's own")
    assert found.fix == {}


def test_a_head_that_was_trained_on_these_labels_may_know_better_than_guessing(trainer):
    batch, head = checks_model.batch_of(trainer, np.arange(8)), trainer.model.classifier
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(20):
        trainer.model.eval()(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not [*checks_model.check_initial_loss(trainer, batch, CLASSIFICATION)]
    head.weight.data.neg_()
    assert names(checks_model.check_initial_loss(trainer, batch, CLASSIFICATION)) == ["trained_head"]


@pytest.mark.parametrize("over", [True, False])
def test_a_learning_rate_for_the_size_of_the_model(over, trainer):
    trainer.args.learning_rate = 0.01
    (found,) = checks_model.check_learning_rate(trainer)
    assert found.fix == {"LEARNING_RATE": 3e-5}  # of weights drawn with 0.02, two layers
    trainer.args.learning_rate /= found.evidence.value * (0.99 if over else 1.01)
    assert names(checks_model.check_learning_rate(trainer)) == ["learning_rate_too_high"] * over


def test_a_tokenizer_of_fewer_tokens_than_the_model_knows(trainer):
    found = checks_model.check_token_ids(trainer)
    trainer.model.resize_token_embeddings(34_000)
    assert names(found) + names(checks_model.check_model(trainer, task=CLASSIFICATION)) == ["other_tokenizer"]


@pytest.mark.parametrize("part", ["LayerNorm", "embeddings"])
def test_frozen_norms_and_embeddings_are_found(part, trainer):
    for name, weights in trainer.model.named_parameters():
        weights.requires_grad = part not in name
    (found,) = checks_model.check_gradients(trainer, checks_model.batch_of(trainer, np.arange(8)))
    assert (found.name, part in found.symptom) == ("frozen_parameters", True)


def test_products_within_attention_count_too(trainer):
    trainer.model.bert.encoder.layer[0].attention.self.query.weight.data *= 1e9
    (found,) = checks_model.check_overflow(trainer.model, checks_model.batch_of(trainer, np.arange(8)))
    assert found.fix == {"PRECISION": "fp32"}


def test_the_words_of_a_text_in_many_scripts():
    texts = {"don't 3 times_over": 4, "我喜欢 这部电影": 7, "ภาษาไทย": 7, "Größe, Ελλάδα, Москва": 3}
    assert {text: len(checks_model.WORD.findall(text)) for text in texts} == texts


def test_frozen_parameters_are_counted_and_named(trainer):
    trainer.model.bert.embeddings.requires_grad_(False)
    (found,) = checks_model.check_gradients(trainer, checks_model.batch_of(trainer, np.arange(8)))
    assert "first bert.embeddings.word_embeddings.weight" in found.symptom
    assert found.evidence.value > 0.9  # most of this model's weights


def test_parameters_behind_a_detached_tensor_are_found(trainer):
    trainer.model.bert.pooler.register_forward_hook(lambda module, inputs, output: output.detach())
    assert names(checks_model.check_gradients(trainer, checks_model.batch_of(trainer, np.arange(8)))) == [
        "frozen_parameters"
    ]


def test_dropout_mistaken_for_its_opposite(trainer):
    trainer.model.config.hidden_dropout_prob = 0.9
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    (found,) = checks_model.check_learning(trainer, checks_model.batch_of(trainer, np.arange(8)))
    assert found.fix == {"DROPOUT": 0.1}
    assert found.cause == "dropout is 0.9"


def test_a_target_out_of_scale(tiny_bert, tokenizer, tmp_path):
    dataset = TASKS["regression"].load("sample", train_size=40, validation_size=8, test_size=8)
    encoded = tokenization.encode_texts(dataset, tokenizer, max_length=64)
    args = helpers.arguments(tmp_path, precision="fp32", disable_tqdm=True)
    for scale, expected in (({}, ["target_scale"]), (regression.target_scale(dataset["train"]["label"]), [])):
        model = models.load_model(str(tiny_bert), BertForSequenceClassification, num_labels=1, **scale)
        trainer = helpers.make_trainer(model, args, encoded, task="regression", tokenizer=tokenizer)
        assert names(checks_model.check_target(trainer)) == expected
    assert names(checks_model.check_model(trainer, task="regression", memory=1)) == ["memory_short"]


def test_the_batch_that_fits_into_memory(trainer):
    weights, row = (checks_model.MARGIN * size for size in checks_model.step_memory(trainer))
    (found,) = checks_model.check_memory(trainer, memory=weights + 8 * row - 1)
    assert found.fix == {"BATCH_SIZE": 4, "GRADIENT_ACCUMULATION": 2}
    (found,) = checks_model.check_memory(trainer, memory=weights + 2 * row)
    assert found.fix == {"BATCH_SIZE": 2, "GRADIENT_ACCUMULATION": 4}


def test_the_copies_of_weights_in_bf16_are_no_part_of_a_row(trainer):
    weights, row = checks_model.step_memory(trainer)
    trainer.args.bf16 = True
    weights_bf16, row_bf16 = checks_model.step_memory(trainer)
    matrices = sum(m.weight.numel() for m in trainer.model.modules() if isinstance(m, torch.nn.Linear))
    assert weights_bf16 - weights == pytest.approx(2 * matrices, rel=0.05)
    assert row / 2 < row_bf16 < row


def test_the_loss_of_guessing():
    def loss(task, **columns):
        return TASKS[task].chance_loss(Dataset.from_dict(columns), BertConfig(num_labels=2))

    assert loss("classification", labels=[0, 1]) == pytest.approx(math.log(2))
    assert loss("ner", labels=[[-100, 0, 1, -100], [0, 1]]) == pytest.approx(math.log(2))
    assert loss("qa", length=[8, 2], start_positions=[1, 1], no_answer=[0, 0]) == pytest.approx(math.log(4))
    half = loss("qa", length=[8, 8], start_positions=[1, 0], no_answer=[0, 0])  # which half, and then where
    assert half == pytest.approx(math.log(2) + math.log(8) / 2)
    assert loss("multilabel", labels=[[1.0, 0.0], [0.0, 0.0]]) == pytest.approx(math.log(2) / 2)
    assert loss("regression", labels=[0.0, 1.0]) == 1
