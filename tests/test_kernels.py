"""Attention, packing and dropout on a CPU against PyTorch's and Transformers' own."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from bert_helpers import models
from bert_helpers.errors import ModelError
from bert_helpers.machine import kernels
from bert_helpers.machine.kernels import BY_LENGTH, PACKED, TOGETHER_UP_TO, ByteDropout, FirstTokenLayer, Packed

LENGTHS = (1, 7, TOGETHER_UP_TO, TOGETHER_UP_TO + 9)


def load(name, model_class=BertForTokenClassification, **config):
    return models.load_model(str(name), model_class, num_labels=3, **config)


def batch(length, *, left=False):
    ids = torch.randint(1000, 20000, (3, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row, kept in enumerate((length, max(1, length // 2), 1)):
        mask[row, kept:] = 0
    return {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask}


def logits_and_gradients(model, rows):
    model.zero_grad()
    logits = model(**rows).logits
    if logits.ndim == 3:  # of every token
        logits = logits[rows["attention_mask"].bool()]
    (logits.square().sum() / logits.numel()).backward()
    return logits.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("model_class", [BertForTokenClassification, BertForSequenceClassification])
def test_logits_and_gradients_equal_those_of_transformers_own(model_class, length, left):
    ours, sdpa = (load(models.DEFAULT_MODEL, model_class, attention=name).eval() for name in (BY_LENGTH, "sdpa"))
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
        load(models.DEFAULT_MODEL, BertForSequenceClassification, attention=a).eval() for a in (BY_LENGTH, "sdpa")
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
    ours, sdpa = (load(models.DEFAULT_MODEL, attention=name).eval() for name in (BY_LENGTH, "sdpa"))
    ids = batch(length)["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=ids).logits, sdpa(input_ids=ids).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [40, TOGETHER_UP_TO + 9])
def test_bf16_is_as_near_to_fp32_as_sdpa_is(length):
    ours, sdpa = (load(models.DEFAULT_MODEL, attention=name).eval() for name in (BY_LENGTH, "sdpa"))
    rows = batch(length)
    seen = rows["attention_mask"].bool()
    with torch.no_grad():
        exact = sdpa(**rows).logits[seen]
        with torch.autocast("cpu", torch.bfloat16):
            off = [(model(**rows).logits[seen].float() - exact).abs().mean() for model in (ours, sdpa)]
    assert off[0] < 1.5 * off[1]


def test_attention_dropout_is_left_to_sdpa(tiny_bert, monkeypatch):
    calls = []
    monkeypatch.setattr(kernels, "sdpa_attention_forward", lambda *a, **k: calls.append(k["dropout"]) or SDPA(*a, **k))
    model = load(tiny_bert, attention_probs_dropout_prob=0.25).train()
    model(**batch(7))
    assert set(calls) == {0.25}
    calls.clear()
    model.eval()(**batch(7))
    assert calls == []


SDPA = kernels.sdpa_attention_forward


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
    assert {layer.p for layer in layers} == {0.3, 0.0}  # hidden, attention
    plain = BertForTokenClassification(model.config)
    assert plain.state_dict().keys() == model.state_dict().keys()


HEADS = [BertForSequenceClassification, BertForTokenClassification, BertForQuestionAnswering]


@pytest.fixture
def pair(tiny_bert):
    """The same tiny model with packed attention and with Transformers' SDPA."""

    def load_both(model_class, **config):
        config = config if model_class is BertForQuestionAnswering else {"num_labels": 3, **config}
        return [models.load_model(str(tiny_bert), model_class, attention=name, **config) for name in (PACKED, "sdpa")]

    return load_both


@pytest.fixture
def packed(monkeypatch):
    """What `pack` returned, a call an element; None where the batch was computed padded."""
    returned = []
    monkeypatch.setattr(kernels, "pack", lambda *a, **k: returned.append(PACK(*a, **k)) or returned[-1])
    return returned


PACK = kernels.pack


def outputs_and_gradients(model, rows):
    """Logits of tokens that are there (of a text where there is one each), and gradients of all weights."""
    model.zero_grad()
    output = model(**rows)
    logits = torch.stack([output.start_logits, output.end_logits], -1) if "start_logits" in output else output.logits
    if logits.ndim == 3:
        logits = logits[rows["attention_mask"].bool() if "attention_mask" in rows else ...]
    logits.square().mean().backward()
    return logits.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def assert_equal(ours, expected):
    (one, grads), (other, expected_grads) = ours, expected
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], atol=1e-6, rtol=1e-3, msg=lambda t, name=name: name + t)


@pytest.mark.parametrize("padding", ["right", "left", "none"])
@pytest.mark.parametrize("model_class", HEADS)
def test_packed_logits_and_gradients_equal_those_of_transformers_own(pair, packed, model_class, padding):
    rows = batch(9, left=padding == "left")
    rows["token_type_ids"] = torch.arange(9).expand(3, 9) % 2
    if padding == "none":
        del rows["attention_mask"]
    ours, sdpa = (model.eval() for model in pair(model_class))
    assert_equal(outputs_and_gradients(ours, rows), outputs_and_gradients(sdpa, rows))
    of_padding = padding == "left" and model_class is BertForSequenceClassification  # the pooler reads a padding token
    assert [p is None for p in packed] == [of_padding]


def test_the_loss_and_its_gradients_are_those_of_transformers_own(pair):
    rows = {**batch(9), "labels": torch.tensor([0, 2, 1])}
    weights = []
    for model in pair(BertForSequenceClassification, hidden_dropout_prob=0.0):
        model.train()(**rows).loss.backward()
        weights.append([w.grad for w in model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("model_class", [BertForTokenClassification, BertModel])
def test_only_real_tokens_go_through_the_layers_and_padding_comes_back_as_zero(tiny_bert, model_class):
    model, rows, shapes = models.load_model(str(tiny_bert), model_class, attention=PACKED).eval(), batch(9), []
    for layer in model.base_model.encoder.layer:
        layer.output.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    states = model.base_model(**rows).last_hidden_state
    assert shapes == [(1, 9 + 4 + 1, 32)] * 2
    assert states.shape == (3, 9, 32)
    assert torch.equal(states.abs().sum(-1) > 0, rows["attention_mask"].bool())


def test_of_a_packed_classifiers_last_layer_there_is_one_token_a_text(pair):
    (model, _), shapes = pair(BertForSequenceClassification), []
    for layer in model.bert.encoder.layer:
        layer.output.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    model(**batch(9))
    assert shapes == [(1, 14, 32), (1, 3, 32)]


def test_what_stands_in_the_padding_changes_nothing(pair):
    (model, _), rows = pair(BertForTokenClassification), batch(9)
    seen = rows["attention_mask"].bool()
    others = {**rows, "input_ids": rows["input_ids"].masked_fill(~seen, 2000)}
    longer = {name: nn.functional.pad(tensor, (0, 5)) for name, tensor in rows.items()}
    with torch.no_grad():
        logits = model.eval()(**rows).logits
        assert torch.equal(model(**others).logits, logits)
        assert torch.equal(model(**longer).logits[:, :9], logits)


def test_a_text_is_the_same_whatever_lies_beside_it(pair):
    (model, _), rows = pair(BertForTokenClassification), batch(9)
    with torch.no_grad():
        together = model.eval()(**rows).logits
        for row, length in enumerate((9, 4, 1)):
            alone = model(input_ids=rows["input_ids"][row : row + 1, :length]).logits[0]
            torch.testing.assert_close(together[row, :length], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("model_class", [BertForSequenceClassification, BertForTokenClassification])
def test_in_half_precision_flash_attention_gets_all_texts_in_one_call_a_layer(pair, monkeypatch, model_class):
    calls = []

    def flash(query, key, value, *spans, scale):
        calls.append((query, key, value, *spans, scale))
        return REFERENCE(query, key, value, *spans, scale=scale)

    monkeypatch.setattr(kernels, "_has_flash", lambda query: query.dtype is torch.bfloat16)
    monkeypatch.setattr(kernels, "varlen_attn", flash)
    model, _ = pair(model_class)
    rows = {name: nn.functional.pad(tensor, (0, 3)) for name, tensor in batch(9).items()}  # longer than any text
    model(**rows)
    assert calls == []  # fp32
    with torch.autocast("cpu", torch.bfloat16):
        model(**rows).logits.float().sum().backward()
    texts, tokens = ([0, 1, 2, 3], 1), ([0, 9, 13, 14], 9)
    last = texts if model_class is BertForSequenceClassification else tokens
    assert len(calls) == 2
    for call, (expected, longest) in zip(calls, (tokens, last), strict=True):
        query, key, value, query_starts, starts, longest_query, longest_key, scale = call
        assert {x.dtype for x in (query, key, value)} == {torch.bfloat16}
        assert query.shape == (expected[-1], 4, 8)
        assert key.shape == value.shape == (14, 4, 8)
        assert query_starts.tolist() == expected
        assert starts.tolist() == tokens[0]
        assert query_starts.dtype == starts.dtype == torch.int32
        assert query_starts.is_contiguous()
        assert starts.is_contiguous()
        assert (longest_query, longest_key, scale) == (longest, 9, 8**-0.5)
        assert {type(longest_query), type(longest_key)} == {int}
        assert {x.stride(-1) for x in (query, key, value)} == {1}


REFERENCE = kernels._text_by_text


def test_the_call_of_flash_attention_fits_its_signature(monkeypatch):
    """PyTorch's own `varlen_attn`, forward and backward, on tensors that have shapes and no values."""
    monkeypatch.setattr(kernels, "_has_flash", lambda query: True)
    with torch.device("meta"):
        heads = [torch.empty(1, 4, n, 8, dtype=torch.bfloat16, requires_grad=True) for n in (3, 14, 14)]
        bounds = [torch.empty(4, dtype=torch.int32) for _ in range(2)]
    module, packed = SimpleNamespace(is_causal=False), Packed(*bounds, longest_query=1, longest=9, places=None)
    out, _ = kernels.attention_without_padding(module, *heads, packed, dropout=0.0, scaling=0.5)
    assert out.shape == (1, 3, 4, 8)
    out.sum().backward()
    assert [x.grad.shape for x in heads] == [x.shape for x in heads]


@pytest.mark.parametrize(
    ("change", "possible"),
    [
        ({}, True),
        ({"dtype": torch.float16}, True),
        ({"dtype": torch.float32}, False),
        ({"is_cuda": False}, False),
        ({"shape": (1, 4, 14, 12)}, False),  # head size: a multiple of 8, at most 256
        ({"shape": (1, 4, 14, 264)}, False),
        ({"capability": (7, 5)}, False),  # Turing
        ({"built": False}, False),
    ],
)
def test_flash_attention_is_asked_for_what_it_can_only(monkeypatch, change, possible):
    gpu = {"is_cuda": True, "dtype": torch.bfloat16, "shape": (1, 4, 14, 64), "device": "cuda", "capability": (8, 0),
           "built": True} | change  # fmt: skip
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: gpu["built"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu["capability"])
    assert kernels._has_flash(SimpleNamespace(**gpu)) is possible


@pytest.mark.parametrize("model_class", [BertForSequenceClassification, BertForTokenClassification])
def test_what_cannot_be_packed_is_computed_as_transformers_does(pair, packed, model_class):
    ours, sdpa = (model.eval() for model in pair(model_class))
    rows = batch(9)
    empty = {**rows, "attention_mask": rows["attention_mask"].clone().index_fill_(0, torch.tensor(1), 0)}
    matrix = {**rows, "attention_mask": torch.ones(3, 1, 9, 9, dtype=torch.bool).tril()}
    for asked in (empty, matrix, {**rows, "output_hidden_states": True}):
        with torch.no_grad():
            one, other = (model(**asked) for model in (ours, sdpa))
        torch.testing.assert_close(one.logits, other.logits, atol=1e-6, rtol=1e-4)
        for state, expected in zip(one.hidden_states or (), other.hidden_states or (), strict=True):
            torch.testing.assert_close(state, expected, atol=1e-6, rtol=1e-4)
    assert packed == [None, None]
    assert len(one.hidden_states) == 3


def test_attention_can_be_changed_afterwards(pair):
    ours, sdpa = (model.eval() for model in pair(BertForTokenClassification))
    ours.set_attn_implementation("sdpa")
    for rows in (batch(9), {"input_ids": batch(9)["input_ids"]}):
        torch.testing.assert_close(ours(**rows).logits, sdpa(**rows).logits)


def test_packed_layers_can_be_recomputed_in_the_backward_pass(pair):
    ours, sdpa = (model.train() for model in pair(BertForSequenceClassification, hidden_dropout_prob=0.0))
    expected = outputs_and_gradients(sdpa, batch(9))
    for reentrant in (False, True):
        ours.activation_checkpointing_enable({"use_reentrant": reentrant})
        assert_equal(outputs_and_gradients(ours, batch(9)), expected)


@pytest.mark.parametrize("config", [{"attention_probs_dropout_prob": 0.1}, {"is_decoder": True}])
def test_what_packed_attention_lacks_is_refused(tiny_bert, config):
    with pytest.raises(ModelError, match="'packed' is for encoders without attention dropout"):
        load(tiny_bert, attention=PACKED, **config)


def test_packed_attention_without_its_encoder_is_sdpa_and_never_causal(tiny_bert, pair):
    """As when the registered name is given to Transformers itself."""
    plain = BertModel.from_pretrained(tiny_bert, attn_implementation=PACKED).eval()
    _, sdpa = (model.eval() for model in pair(BertModel))
    for rows in (batch(9), {"input_ids": batch(9)["input_ids"]}):
        torch.testing.assert_close(plain(**rows).last_hidden_state, sdpa(**rows).last_hidden_state)
    causal = BertModel.from_pretrained(tiny_bert, attn_implementation=PACKED, is_decoder=True)
    with pytest.raises(ModelError, match="is for encoders"):
        causal(**batch(9))


def test_dropout_that_is_switched_on_later_is_refused(pair):
    model, _ = pair(BertForTokenClassification)
    model.bert.encoder.layer[0].attention.self.dropout.p = 0.1
    with pytest.raises(ModelError, match="attention dropout"):
        model.train()(**batch(9))
    model.eval()(**batch(9))


@pytest.mark.parametrize("model_class", HEADS)
def test_a_packed_model_is_saved_as_a_plain_one(pair, tmp_path, model_class):
    for model, name in zip(pair(model_class), (PACKED, "sdpa"), strict=True):
        model.save_pretrained(tmp_path / name)
    ours, plain = (json.loads((tmp_path / name / "config.json").read_text()) for name in (PACKED, "sdpa"))
    assert ours == plain
    assert PACKED not in (tmp_path / PACKED / "config.json").read_text().casefold()
    loaded, info = model_class.from_pretrained(tmp_path / PACKED, output_loading_info=True)
    assert not any(info.values())
    assert type(loaded.bert.encoder).__module__.startswith("transformers.")
    rows = batch(9)
    expected = outputs_and_gradients(loaded.eval(), rows)
    assert_equal(outputs_and_gradients(pair(model_class)[0].eval(), rows), expected)


def distances(ours, expected):
    """Of logits and of all gradients together, relative to the length of the expected."""
    sides = [(logits.float(), torch.cat([g.flatten() for g in grads.values()])) for logits, grads in (ours, expected)]
    return [((one - other).norm() / other.norm()).item() for one, other in zip(*sides, strict=True)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention needs a GPU")
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_class", HEADS)
def test_flash_attention_is_as_near_to_fp32_as_sdpa_is(monkeypatch, model_class, kind):
    calls = []
    monkeypatch.setattr(kernels, "varlen_attn", lambda *a, **k: calls.append(a) or FLASH(*a, **k))
    both = [models.load_model(models.DEFAULT_MODEL, model_class, attention=name) for name in (PACKED, "sdpa")]
    ours, sdpa = (model.eval().to(DEVICE) for model in both)
    rows = {name: tensor.to(DEVICE) for name, tensor in batch(209).items()}
    exact = outputs_and_gradients(sdpa, rows)
    assert max(distances(outputs_and_gradients(ours, rows), exact)) < 1e-4
    assert calls == []  # fp32: text by text
    with torch.autocast(DEVICE, kind):
        near = [distances(outputs_and_gradients(model, rows), exact) for model in (ours, sdpa)]
    assert len(calls) == 6
    for one, other in zip(*near, strict=True):
        assert one < 1.5 * other


DEVICE, FLASH = "cuda", kernels.varlen_attn
