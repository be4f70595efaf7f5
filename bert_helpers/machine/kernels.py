"""What is computed quicker another way, to the same result: attention, the last layer, the masks of dropout.

Importing this module registers attention functions of Transformers' own interface under the names `BY_LENGTH`, which
is for CPUs and the default, and `PACKED`, which is for GPUs and is chosen by `models.load_model(…, attention=PACKED)`;
nothing else in Transformers changes. On a GPU attention is PyTorch's own unless `PACKED` is chosen, and so is dropout.
"""

import ctypes
import platform
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BertConfig,
    BertForSequenceClassification,
    BertPreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.bert.modeling_bert import BertEncoder, BertLayer

from bert_helpers.errors import ModelError

BY_LENGTH = "by_length"
PACKED = "packed"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
# Step of 16 texts in ms, batch at once : text by text, bf16, 2 cores (AMD EPYC with avx512_bf16), 22.7M parameters:
# 32 tokens 164 : 198, 64 288 : 329, 128 531 : 595, 192 816 : 862, 256 1346 (SDPA) : 1126, 512 3296 (SDPA) : 2846.
TOGETHER_UP_TO = 192
NOT_PACKED = (
    f"attention {PACKED!r} is for encoders without attention dropout: take 'sdpa' for a model with is_decoder or "
    "attention_probs_dropout_prob."
)


def attention_by_length(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Plain matrix products on a CPU: of short texts all at once, of longer ones text by text, padding left out.

    The scores of one text stay in the processor's cache, those of a batch do not: with texts of 120 to 512 tokens a
    training step takes 0.85 times as long as with SDPA for the longer ones, whose backward pass is slow on a CPU.

    `query`, `key`, `value`: (batch, heads, tokens, head size); `attention_mask`: boolean (batch, 1, tokens, tokens),
    True = attend. Returns (batch, tokens, heads, head size). SDPA does what this does not: GPUs, causal models,
    attention dropout, padding that is not at the end.
    """
    seen = None if attention_mask is None else attention_mask[:, 0, 0]  # the same for every query, but in causal models
    # The mask is read last: on a GPU that would be a wait in every layer.
    if query.device.type != "cpu" or module.is_causal or kwargs.get("dropout") or not _padded_at_end(seen):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    batch, heads, length, size = query.shape
    with torch.autocast("cpu", enabled=False):  # or the softmax would be computed and kept in fp32
        if length <= TOGETHER_UP_TO:
            bias = None if seen is None else torch.zeros_like(seen, dtype=query.dtype)
            if bias is not None:
                bias = bias.masked_fill_(~seen, torch.finfo(query.dtype).min).repeat_interleave(heads, 0)[:, None]
            rows = (x.reshape(batch * heads, length, size) for x in (query, key, value))
            return _attend(*rows, bias).view(batch, heads, length, size).transpose(1, 2).contiguous(), None
        lengths = [length] * batch if seen is None else seen.sum(dim=1).tolist()
        texts = zip(query.unbind(), key.unbind(), value.unbind(), lengths, strict=True)
        return torch.stack([_text(*text) for text in texts]), None


def _padded_at_end(seen: torch.Tensor | None) -> bool:
    return seen is None or bool((seen[:, 1:] <= seen[:, :-1]).all())


def _text(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, length: int) -> torch.Tensor:
    rows = (x[:, :length].contiguous() for x in (query, key, value))
    out = _attend(*rows).transpose(0, 1)
    return nn.functional.pad(out, (0, 0, 0, 0, 0, query.shape[1] - length))


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    scores = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2))
    return torch.bmm(torch.softmax(scores if bias is None else scores + bias, dim=-1), value)


class Packed(NamedTuple):
    """Which of the tokens that lie in one row, without padding, are a text's, and where they stood in the batch.

    The queries are the texts themselves or, in a `FirstTokenLayer`, one token of each.
    """

    query_starts: torch.Tensor  # int32 (texts + 1): where each text begins, and the last one ends
    starts: torch.Tensor  # the same of keys and values
    longest_query: int  # tokens of the longest text
    longest: int
    places: torch.Tensor | None  # int64 (tokens): their places in the flattened batch; None if nothing is padding

    def of_first_tokens(self) -> "Packed":
        """One query a text."""
        each = torch.arange(len(self.starts), dtype=torch.int32, device=self.starts.device)
        return self._replace(query_starts=each, longest_query=1)


def pack(hidden_states: torch.Tensor, mask: torch.Tensor | None, *, first_token_needed: bool) -> Packed | None:
    """Where the tokens of a padded batch (batch, tokens, hidden size) lie when packed.

    `mask`: boolean (batch, 1, 1, tokens), True = a token; None if all are. Returns None for what cannot be packed:
    other masks, a text without any token, or a first position that is padding where `first_token_needed`.
    """
    batch, length, _ = hidden_states.shape
    if mask is None:
        ends = torch.arange(batch + 1, dtype=torch.int32, device=hidden_states.device) * length
        return Packed(ends, ends, length, length, None)
    if mask.shape != (batch, 1, 1, length) or mask.dtype != torch.bool:
        return None
    seen = mask[:, 0, 0]
    lengths = seen.sum(dim=1)
    facts = (lengths.sum(), lengths.max(), lengths.min(), seen[:, 0].all())
    # The one wait for the GPU in a forward pass: the shapes of all that follows depend on the number of tokens.
    total, longest, shortest, at_start = torch.stack([fact.to(lengths.dtype) for fact in facts]).tolist()
    if not shortest or (first_token_needed and not at_start):
        return None
    starts = nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return Packed(starts, starts, longest, longest, torch.nonzero_static(seen.flatten(), size=total).flatten())


class PackedEncoder(BertEncoder):
    """The layers over one row of all texts' tokens, without padding: flash attention on a GPU. Exact.

    Takes and returns the padded shape (batch, tokens, hidden size), zero where there is padding; of a `FirstTokenLayer`
    (batch, 1, hidden size). Only padding itself differs from Transformers' own, which computes it: the start and end
    logits that `BertForQuestionAnswering` has there, and counts in its loss, are the head's bias. What cannot be packed
    is computed padded, by SDPA: see `pack`, and hidden states, attentions or a cache.

    Not yet measured: no GPU was at hand.
    """

    has_pooler = False  # which reads the first position of each row

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *args: object,
        past_key_values: object = None,
        first_token_only: bool = False,
        **kwargs: object,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        kwargs["first_token_only"] = first_token_only
        packed, chosen = None, self.config._attn_implementation == PACKED
        if chosen and past_key_values is None and not _asks_for_layers(self.config, kwargs):
            packed = pack(hidden_states, attention_mask, first_token_needed=self.has_pooler)
        if packed is None:
            return super().forward(hidden_states, attention_mask, *args, past_key_values=past_key_values, **kwargs)
        rows = hidden_states.flatten(0, 1)
        rows = rows if packed.places is None else rows.index_select(0, packed.places)
        output = super().forward(rows[None], packed, **kwargs)
        rows = output.last_hidden_state[0]
        if first_token_only:
            rows = rows[:, None]
        elif packed.places is not None:
            rows = rows.new_zeros(hidden_states.shape[:2].numel(), rows.shape[1]).index_copy(0, packed.places, rows)
        output.last_hidden_state = rows.view(len(hidden_states), -1, rows.shape[-1])
        return output


def attention_without_padding(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Packed | torch.Tensor | None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Attention within each of the texts that lie one behind another in one row; SDPA for a padded batch.

    `query`, `key`, `value`: (1, heads, tokens, head size). Returns (1, tokens, heads, head size). Flash attention where
    there is any: fp16 and bf16 on a GPU from Ampere on; elsewhere SDPA text by text, which is exact but slow.

    Raises ModelError for causal models and for attention dropout, which flash attention over packed texts lacks.
    """
    if module.is_causal or (isinstance(attention_mask, Packed) and kwargs.get("dropout")):
        raise ModelError(NOT_PACKED)
    if not isinstance(attention_mask, Packed):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows = (x[0].transpose(0, 1) for x in (query, key, value))  # (tokens, heads, head size)
    attend = varlen_attn if _has_flash(query) else _text_by_text
    query_starts, starts, longest_query, longest, _ = attention_mask
    return attend(*rows, query_starts, starts, longest_query, longest, scale=kwargs.get("scaling"))[None], None


def _has_flash(query: torch.Tensor) -> bool:
    """Whether PyTorch's flash attention takes this, by the checks that it makes itself."""
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    if not torch.backends.cuda.is_flash_attention_available() or query.shape[-1] % 8 or query.shape[-1] > 256:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _text_by_text(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_starts: torch.Tensor,
    starts: torch.Tensor,
    longest_query: int,
    longest: int,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    """What `varlen_attn` computes, on any device and in any precision: (tokens, heads, head size)."""
    queries, keys = (bounds.diff().tolist() for bounds in (query_starts, starts))
    texts = zip(query.split(queries), key.split(keys), value.split(keys), strict=True)
    heads_first = ((x.transpose(0, 1)[None] for x in text) for text in texts)
    outs = [nn.functional.scaled_dot_product_attention(*text, scale=scale) for text in heads_first]
    return torch.cat([out[0].transpose(0, 1) for out in outs])


def _mask_of_keys(*, attention_mask: torch.Tensor | None = None, **kwargs: object) -> torch.Tensor | None:
    """Transformers' mask of an encoder, but not repeated for every query, and not looked at: a GPU would be waited for.

    `attention_mask`: boolean (batch, tokens). Returns (batch, 1, 1, tokens).
    """
    return None if attention_mask is None else attention_mask[:, None, None]


class FirstTokenLayer(BertLayer):
    """The last layer of a classifier of whole texts, which looks at the first token only: no other is computed.

    Exact. Of the layer stay the keys and values of all tokens, 2 of 12 parts of its matrix products; of all six layers
    a training step leaves out 14% of them. Returns (batch, 1, hidden size), of packed texts (1, texts, hidden size);
    or all tokens, if it is not the classifier that asks (`classifier.bert(…)`), or hidden states or attentions are
    asked for.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Packed | torch.Tensor | None = None,
        *args: object,
        first_token_only: bool = False,
        **kwargs: object,
    ) -> torch.Tensor:
        if not first_token_only:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        attention, attend = self.attention.self, sdpa_attention_forward
        if isinstance(attention_mask, Packed):
            attend, seen = attention_without_padding, attention_mask.of_first_tokens()
            first = hidden_states.index_select(1, attention_mask.starts[:-1])
        else:
            seen = None if attention_mask is None else attention_mask[:, :, :1]
            first = hidden_states[:, :1]
        shape = (len(hidden_states), -1, attention.num_attention_heads, attention.attention_head_size)
        rows = ((attention.query, first), (attention.key, hidden_states), (attention.value, hidden_states))
        heads = (project(tokens).view(shape).transpose(1, 2) for project, tokens in rows)
        dropout = attention.dropout.p if self.training else 0.0
        out, _ = attend(attention, *heads, seen, dropout=dropout, scaling=attention.scaling)
        return self.feed_forward_chunk(self.attention.output(out.flatten(2), first))


def _ask_for_first_token(
    model: BertForSequenceClassification, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    return args, kwargs if _asks_for_layers(model.config, kwargs) else {**kwargs, "first_token_only": True}


def _asks_for_layers(config: BertConfig, kwargs: dict[str, object]) -> bool:
    """Whether hidden states or attentions are to be returned, by an argument or else by the config."""
    return any(kwargs.get(name, getattr(config, name)) for name in ("output_hidden_states", "output_attentions"))


class ByteDropout(nn.Dropout):
    """Dropout whose mask costs a byte of random numbers an element: on a CPU 2 ms for 8,192 x 384, PyTorch's own 20.

    `p` is taken to the nearest 1/256 (0.1 is 0.1016), and what stays is scaled by just that. Training steps take
    0.94 to 0.95 times as long.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dropped = round(256 * self.p)
        if not self.training or not dropped or input.device.type != "cpu" or self.inplace:
            return super().forward(input)
        count = input.numel()
        drawn = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
        mask = torch.empty(input.shape, dtype=input.dtype)
        torch.ge(drawn.view(torch.uint8)[:count].view(input.shape), dropped, out=mask)
        return input * mask.mul_(256 / (256 - dropped))


class ExactHead(nn.Linear):
    """The last layer of a regressor, in float32 once it is trained, also under autocast; a layer of one number is free.

    In bfloat16 scores from 4 to 8 lie 1/32 apart, and the same model says others before its scale is folded in.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores (batch, 1)."""
        if self.training:
            return super().forward(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.float())


def quicken(model: BertPreTrainedModel) -> None:
    """Have a `ByteDropout` for every `nn.Dropout`, a `FirstTokenLayer` where it will do, and freed memory kept.

    And an `ExactHead` for a regressor, a `PackedEncoder` if attention is `PACKED`. Weights, their names and the config
    stay as they are: what is saved is Transformers' own model. Raises ModelError for what cannot be packed: a decoder,
    attention dropout.
    """
    keep_freed_memory()
    attention, base = model.config._attn_implementation, model.base_model
    if attention == PACKED:
        if model.config.is_decoder or model.config.attention_probs_dropout_prob:
            raise ModelError(NOT_PACKED)
        base.encoder.__class__ = PackedEncoder
        base.encoder.has_pooler = base.pooler is not None
    if isinstance(model, BertForSequenceClassification) and model.config.num_labels == 1:
        model.classifier.__class__ = ExactHead
    if isinstance(model, BertForSequenceClassification) and attention in (BY_LENGTH, PACKED):
        base.encoder.layer[-1].__class__ = FirstTokenLayer
        model.register_forward_pre_hook(_ask_for_first_token, with_kwargs=True)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ByteDropout(child.p))


def keep_freed_memory() -> None:
    """Have the C library reuse large blocks (gradients, activations), not return each to the system and clear it anew.

    Training on CoNLL-2003 takes 0.82 to 0.86 times as long, on IMDb as long as before (2 interleaved pairs each). Only
    glibc can be told so; on other systems nothing is done.
    """
    if not any(platform.libc_ver()):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


AttentionInterface.register(BY_LENGTH, attention_by_length)
AttentionMaskInterface.register(BY_LENGTH, sdpa_mask)
AttentionInterface.register(PACKED, attention_without_padding)
AttentionMaskInterface.register(PACKED, _mask_of_keys)
