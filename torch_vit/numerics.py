"""How products are computed while the engine is at work: precision and attention kernel, set for its calls alone."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_vit.options import TorchOptions

KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


@contextmanager
def numerics(options: TorchOptions) -> Iterator[None]:
    """The precision of float32 products, and which attention kernel comes first where several can serve."""
    first = KERNELS.get(options.attention_kernel)
    order = sorted(KERNELS.values(), key=lambda kernel: kernel != first)
    preferred = nullcontext() if first is None else sdpa_kernel(order, set_priority=True)
    with product_precision(options.precision), preferred:
        yield


def mixed(options: TorchOptions, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast, if the options ask for bf16: products in bf16, sums and what is sensitive in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")


@contextmanager
def product_precision(precision: str) -> Iterator[None]:
    """TF32 only where it is asked for: torch's own default lets convolutions use it, so also for "float32"."""
    tf32, cudnn = precision == "tf32", torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32  # by itself: cudnn.flags() would also switch cuDNN off
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
