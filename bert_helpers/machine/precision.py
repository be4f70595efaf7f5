"""Whether the processor is faster in bf16."""

import time
from functools import lru_cache

import torch


@lru_cache
def multiplies_bf16() -> bool:
    """Measure whether PyTorch multiplies bf16 matrices on this CPU faster than fp32 ones (15 ms).

    The processor's features (AVX512-BF16 or AMX) are not enough: PyTorch and oneDNN may be limited to less, by
    ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA or when they are built, and then emulate bf16. Measured on one core of an
    AMD EPYC with AVX512-BF16, 256 x 256, bf16 : fp32 in GFLOPS: 205 : 103; limited to AVX512 without BF16, which oneDNN
    still counts as support of bf16, 37 : 103; limited to AVX2, 2 : 104.
    """
    processor = torch.cpu.get_capabilities()
    if not (processor.get("avx512_bf16") or processor.get("amx_bf16")) or not torch.backends.mkldnn.is_available():
        return False
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with several, so small a product mostly waits for a busy core
    try:
        bf16, fp32 = (_seconds_of_product(dtype) for dtype in (torch.bfloat16, torch.float32))
    finally:
        torch.set_num_threads(threads)
    return bf16 < fp32


def _seconds_of_product(dtype: torch.dtype, size: int = 256) -> float:
    matrix, times = torch.ones(size, size, dtype=dtype), []
    for _ in range(10):  # the first is slow, and so are those during which the core is taken away
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return min(times)
