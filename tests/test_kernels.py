"""Attention and dropout on a CPU, compared with those of PyTorch and Transformers."""

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, BertForTokenClassification

from bert_helpers import models
from bert_helpers.machine import kernels
from bert_helpers.machine.kernels import TOGETHER_UP_TO, ByteDropout, FirstTokenLayer

LENGTHS = (1, 7, TOGETHER_UP_TO, TOGETHER_UP_TO + 9)


def load(name, model_class=BertForTokenClassification, *, quick=True, **config):
    model = models.load_model(str(name), model_class, num_labels=3, **config)
    if quick:
        kernels.quicken(model)
    return model


def batch(length, *, left=False):
    ids = torch.randint(1000, 20000, (3, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row, kept in enumerate((length, max(1, length // 2), 1)):
        mask[row, kept:] = 0
    return {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask}


def logits_and_gradients(model, rows):
    model.zero_grad()
    logits = model(**rows).logits
    if logits.ndim == 3:  # for every token
        logits = logits[rows["attention_mask"].bool()]
    (logits.square().sum() / logits.numel()).backward()
    return logits.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("model_class", [BertForTokenClassification, BertForSequenceClassification])
def test_logits_and_gradients_equal_those_of_transformers_own(model_class, length, left):
    ours, sdpa = (load(models.DEFAULT_MODEL, model_class, quick=quick).eval() for quick in (True, False))
    assert isinstance(ours.bert.encoder.layer[-1], FirstTokenLayer) == (model_class is BertForSequenceClassification)
    assert not isinstance(sdpa.bert.encoder.layer[-1], FirstTokenLayer)
    rows = batch(length, left=left)
    (one, grads), (other, expected) = (logits_and_gradients(model, rows) for model in (ours, sdpa))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-3, msg=lambda text, name=name: name + text)


def test_all_tokens_are_there_for_who_asks_for_them():
    ours, sdpa = (
        load(models.DEFAULT_MODEL, BertForSequenceClassification, quick=quick).eval() for quick in (True, False)
    )
    rows = batch(9)
    seen = rows["attention_mask"].bool()
    with torch.no_grad():
        for asked in (lambda model: model.bert(**rows), lambda model: model.base_model(**rows)):
            one, other = (asked(model).last_hidden_state[seen] for model in (ours, sdpa))
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        for asked in ({"output_hidden_states": True}, {}):  # by an argument, by the config
            one, other = (model(**rows, **asked).hidden_states for model in (ours, sdpa))
            assert len(one) == len(other)
            for state, expected in zip(one, other, strict=True):
                torch.testing.assert_close(state[seen], expected[seen], atol=1e-5, rtol=1e-4)
            for model in (ours, sdpa):
                model.config.output_hidden_states = True


def test_the_first_token_alone_goes_through_the_rest_of_the_last_layer():
    model, rows = load(models.DEFAULT_MODEL, BertForSequenceClassification).eval(), batch(9)
    shapes = []
    for layer in model.bert.encoder.layer:
        layer.output.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    model(**rows)
    assert shapes == [(3, 9, 384)] * 5 + [(3, 1, 384)]


@pytest.mark.parametrize("length", LENGTHS)
def test_without_a_mask_every_token_is_seen(length):
    ours, sdpa = (load(models.DEFAULT_MODEL, quick=quick).eval() for quick in (True, False))
    ids = batch(length)["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=ids).logits, sdpa(input_ids=ids).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [40, TOGETHER_UP_TO + 9])
def test_bf16_is_as_near_to_fp32_as_sdpa_is(length):
    ours, sdpa = (load(models.DEFAULT_MODEL, quick=quick).eval() for quick in (True, False))
    rows = batch(length)
    seen = rows["attention_mask"].bool()
    with torch.no_grad():
        exact = sdpa(**rows).logits[seen]
        with torch.autocast("cpu", torch.bfloat16):
            off = [(model(**rows).logits[seen].float() - exact).abs().mean() for model in (ours, sdpa)]
    assert off[0] < 1.5 * off[1]


def test_attention_by_length_is_without_dropout_and_eager_attention_keeps_it(tiny_bert):
    for attention, same in (("sdpa", True), ("eager", False)):
        model = BertForTokenClassification.from_pretrained(
            tiny_bert, attn_implementation=attention, attention_probs_dropout_prob=0.25, hidden_dropout_prob=0.0
        )
        kernels.quicken(model)
        for rows in (batch(7), batch(7, left=True)):  # SDPA computes the second
            one, other = (model.train()(**rows).logits for _ in range(2))
            assert torch.equal(one, other) == same


def test_another_device_keeps_its_dropout(monkeypatch):
    monkeypatch.setattr(kernels, "sdpa_attention_forward", lambda *_, dropout, **more: (dropout, None))
    for device, dropout in (("meta", 0.1), ("cpu", 0.0)):
        query, longer = torch.rand(1, 4, 9, 8, device=device), torch.rand(1, 4, 12, 8, device=device)
        assert kernels.attention_by_length(None, query, longer, longer, None, dropout=0.1)[0] == dropout


def test_masks_that_differ_between_queries_are_left_to_sdpa(tiny_bert):
    model = load(tiny_bert).eval()
    query = torch.rand(1, 4, 9, 8)
    causal = torch.ones(9, 9).tril().bool()[None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=causal).transpose(1, 2)
    layer = model.bert.encoder.layer[0].attention.self
    found, _ = kernels.attention_by_length(layer, query, query, query, causal)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(p, kind):
    torch.manual_seed(0)
    x = torch.ones(1000, 301, dtype=kind, requires_grad=True)
    out = ByteDropout(p)(x)
    share = round(256 * p) / 256
    n = x.numel()
    dropped = (out == 0).float().mean().item()
    assert abs(dropped - share) < 5 * (share * (1 - share) / n) ** 0.5
    kept = out[out != 0]
    assert kept.unique().numel() == 1
    assert abs(kept[0].item() * (1 - share) - 1) < (0.004 if kind is torch.bfloat16 else 1e-6)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())  # gradients pass where values did, scaled alike


def test_dropout_of_neighbours_is_independent():
    torch.manual_seed(0)
    kept = (ByteDropout(0.5)(torch.ones(400_000)) != 0).float() - 0.5
    for step in (1, 2, 7, 8, 64):
        assert abs((kept[step:] * kept[:-step]).mean()) < 5 * 0.25 / 400_000**0.5


def test_dropout_follows_the_seed_and_is_off_in_evaluation():
    layer, x = ByteDropout(0.1), torch.rand(5, 13)
    drawn = [torch.manual_seed(seed) and layer(x) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(ByteDropout(0.0)(x), x)


def test_every_dropout_of_a_model_is_replaced_and_no_weight_renamed(tiny_bert):
    model = load(tiny_bert, hidden_dropout_prob=0.3)
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert {type(layer) for layer in layers} == {ByteDropout}
    assert {layer.p for layer in layers} == {0.3, 0.1}  # hidden, attention
    plain = BertForTokenClassification(model.config)
    assert plain.state_dict().keys() == model.state_dict().keys()


def test_the_record_says_what_a_model_computes_with(tiny_bert):
    model = load(tiny_bert, BertForSequenceClassification, quick=False)
    assert kernels.used(model) == []
    kernels.quicken(model)
    assert kernels.used(model) == ["attention by length", "last layer for the first token only", "dropout by bytes"]
    eager = BertForTokenClassification.from_pretrained(tiny_bert, attn_implementation="eager")
    kernels.quicken(eager)
    assert kernels.used(eager) == ["dropout by bytes"]
    assert kernels.used(model.to("meta")) == []
