import os
import subprocess
import sys

import pytest
import torch

from bert_helpers.machine import precision


@pytest.mark.parametrize(
    ("processor", "counted_as_support", "times", "expected"),
    [
        ({"avx512_bf16": True}, True, (1.0, 2.0), True),
        ({"amx_bf16": True}, True, (1.0, 2.0), True),
        ({"avx512_bf16": True}, True, (2.0, 1.0), False),  # emulated
        ({"avx512_bf16": True}, False, (1.0, 2.0), False),
        ({}, True, (1.0, 2.0), False),
    ],
)
def test_bf16_needs_a_processor_a_library_and_the_shorter_time(
    monkeypatch, processor, counted_as_support, times, expected
):
    seconds = dict(zip((torch.bfloat16, torch.float32), times, strict=True))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: counted_as_support)
    monkeypatch.setattr(precision, "_seconds_of_product", seconds.get)
    assert precision.multiplies_bf16.__wrapped__() is expected


@pytest.mark.parametrize(("capability", "isa"), [("avx2", "AVX2"), ("avx512", "AVX512_CORE")])
def test_a_limited_pytorch_does_not_multiply_bf16_whatever_the_processor_has(capability, isa):
    limits = {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": isa}
    chosen = "from bert_helpers.machine.precision import multiplies_bf16; print(multiplies_bf16())"
    output = subprocess.check_output([sys.executable, "-c", chosen], text=True, env={**os.environ, **limits})
    assert output == "False\n"
