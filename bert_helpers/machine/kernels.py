"""Faster ways to compute the same on a CPU: attention, the last layer, the masks of dropout.

Importing this module registers an attention function in Transformers' own interface under the name `BY_LENGTH`;
nothing else in Transformers changes. `quicken` sets it in a model in place of SDPA, Transformers' default; a model
that was loaded with another `attn_implementation` keeps that. On a GPU attention is SDPA, and dropout is PyTorch's.
"""

import ctypes
import platform

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, BertForSequenceClassification, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.bert.modeling_bert import BertLayer

BY_LENGTH = "by_length"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
# One step of 16 texts in ms, whole batch : text by text, bf16, 2 cores (AMD EPYC with avx512_bf16), 22.7M parameters:
# 32 tokens 164 : 198, 64 288 : 329, 128 531 : 595, 192 816 : 862, 256 1346 (SDPA) : 1126, 512 3296 (SDPA) : 2846.
TOGETHER_UP_TO = 192


def attention_by_length(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention on a CPU by plain matrix products: short texts together, longer ones singly without padding.

    The scores of one text stay in the processor's cache, those of a batch do not: with texts of 120 to 512 tokens a
    training step takes 0.85 times as long as with SDPA for the longer ones, whose backward pass is slow on a CPU.

    `query`, `key`, `value`: (batch, heads, tokens, head size); `attention_mask`: boolean (batch, 1, tokens, tokens),
    True = attend. Returns (batch, tokens, heads, head size). There is no attention dropout: see `quicken`. SDPA takes
    over in all other cases: GPUs (which keep dropout), masks that differ between queries (causal, local), padding
    before the text.
    """
    if query.device.type == "cpu":
        kwargs["dropout"] = 0.0
    seen = None if attention_mask is None else attention_mask[:, 0, 0]
    # The mask is read last, because on a GPU every layer would wait for it.
    if query.device.type != "cpu" or query.shape != key.shape or not _is_of_padding(attention_mask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    batch, heads, length, size = query.shape
    query = query * (kwargs.get("scaling") or size**-0.5)
    with torch.autocast("cpu", enabled=False):  # which would compute and keep the softmax in fp32
        if length <= TOGETHER_UP_TO:
            bias = None if seen is None else torch.zeros_like(seen, dtype=query.dtype)
            if bias is not None:
                bias = bias.masked_fill_(~seen, torch.finfo(query.dtype).min).repeat_interleave(heads, 0)[:, None]
            rows = (x.reshape(batch * heads, length, size) for x in (query, key, value))
            return _attend(*rows, bias).view(batch, heads, length, size).transpose(1, 2).contiguous(), None
        lengths = [length] * batch if seen is None else seen.sum(dim=1).tolist()
        texts = zip(query.unbind(), key.unbind(), value.unbind(), lengths, strict=True)
        return torch.stack([_text(*text) for text in texts]), None


def _is_of_padding(mask: torch.Tensor | None) -> bool:
    """Return whether a mask only hides padding at the end, the same for every query (the first and the last)."""
    if mask is None:
        return True
    if mask.dtype != torch.bool or mask.shape[1] != 1:
        return False
    first = mask[:, 0, 0]
    return torch.equal(first, mask[:, 0, -1]) and bool((first[:, 1:] <= first[:, :-1]).all())


def _text(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, length: int) -> torch.Tensor:
    rows = (x[:, :length].contiguous() for x in (query, key, value))
    out = _attend(*rows).transpose(0, 1)
    return nn.functional.pad(out, (0, 0, 0, 0, 0, query.shape[1] - length))


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    scores = torch.bmm(query, key.transpose(1, 2))
    return torch.bmm(torch.softmax(scores if bias is None else scores + bias, dim=-1), value)


class FirstTokenLayer(BertLayer):
    """The last layer of a classifier of whole texts, which uses the first token only: no other is computed.

    This is exact. Only keys and values are computed for all tokens, 2 of 12 parts of the layer's matrix products; a
    training step saves 14% of those of all six layers. Returns (batch, 1, hidden size); or all tokens, if the caller is
    not the classifier (`classifier.bert(…)`), or if hidden states or attentions are requested.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *args: object,
        first_token_only: bool = False,
        **kwargs: object,
    ) -> torch.Tensor:
        if not first_token_only:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        attention, first = self.attention.self, hidden_states[:, :1]
        seen = None if attention_mask is None else attention_mask[:, :, :1]
        shape = (len(hidden_states), -1, attention.num_attention_heads, attention.attention_head_size)
        rows = ((attention.query, first), (attention.key, hidden_states), (attention.value, hidden_states))
        heads = (project(tokens).view(shape).transpose(1, 2) for project, tokens in rows)
        out, _ = sdpa_attention_forward(attention, *heads, seen, dropout=0.0, scaling=attention.scaling)
        return self.feed_forward_chunk(self.attention.output(out.flatten(2), first))


def _ask_for_first_token(
    model: BertForSequenceClassification, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Set `first_token_only`, unless an argument or the config requests hidden states or attentions."""
    asked = ("output_hidden_states", "output_attentions")
    all_tokens = any(kwargs.get(name, getattr(model.config, name)) for name in asked)
    return args, kwargs if all_tokens else {**kwargs, "first_token_only": True}


class ByteDropout(nn.Dropout):
    """Dropout that needs one random byte per element: on a CPU 2 ms for 8,192 x 384, PyTorch's own 20.

    `p` is rounded to the nearest 1/256 (0.1 is 0.1016), and the remaining elements are scaled accordingly. Training
    steps take 0.94 to 0.95 times as long.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dropped = round(256 * self.p)
        if not self.training or not dropped or input.device.type != "cpu":
            return super().forward(input)
        count = input.numel()
        drawn = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
        mask = torch.empty(input.shape, dtype=input.dtype)
        torch.ge(drawn.view(torch.uint8)[:count].view(input.shape), dropped, out=mask)
        return input * mask.mul_(256 / (256 - dropped))


class ExactHead(nn.Linear):
    """The last layer of a regressor, which predicts in float32 also under autocast; for one output this costs nothing.

    In bfloat16, scores from 4 to 8 are 1/32 apart, and a model's scores would change when its scale is folded in.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return scores (batch, 1)."""
        if self.training:
            return super().forward(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return super().forward(hidden.float())


def quicken(model: PreTrainedModel) -> None:
    """Replace SDPA by attention by length, every `nn.Dropout` by `ByteDropout`, and a last layer by `FirstTokenLayer`.

    Freed memory is kept, and a regressor gets an `ExactHead`. Weights, their names and the config do not change: what
    is saved is Transformers' own model.

    Attention by length has no dropout: on a CPU the masks cost more than attention itself (at 512 tokens a step took
    3.3 s without, 12.7 s with; 2 cores, 22.7M parameters) and changed no metric here. A model that was loaded with
    `attn_implementation="eager"` keeps it.
    """
    keep_freed_memory()
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(BY_LENGTH)
        if isinstance(model, BertForSequenceClassification):
            model.base_model.encoder.layer[-1].__class__ = FirstTokenLayer
            model.register_forward_pre_hook(_ask_for_first_token, with_kwargs=True)
    for module in model.modules():
        if type(module) is nn.Linear and module.out_features == model.config.num_labels == 1:
            module.__class__ = ExactHead
        elif type(module) is nn.Dropout:
            module.__class__ = ByteDropout


def used(model: PreTrainedModel) -> list[str]:
    """Name the parts of this module that a model uses, for the record; on another device than a CPU there are none."""
    if model.device.type != "cpu":
        return []
    kinds = {type(module) for module in model.modules()}
    attention = ["attention by length"] if model.config._attn_implementation == BY_LENGTH else []
    names = {FirstTokenLayer: "last layer for the first token only", ByteDropout: "dropout by bytes"}
    return attention + [name for kind, name in names.items() if kind in kinds]


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks (gradients, activations) instead of returning them to the system.

    Training on CoNLL-2003 takes 0.82 to 0.86 times as long, on IMDb as long as before (2 interleaved pairs each). Only
    glibc has such a switch; on other systems this does nothing.
    """
    if not any(platform.libc_ver()):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


AttentionInterface.register(BY_LENGTH, attention_by_length)
AttentionMaskInterface.register(BY_LENGTH, sdpa_mask)
