"""How products are computed while the engine is at work: precision and attention kernel, set for its calls alone."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_vit.options import TorchOptions
from vit_common.errors import DtypeError

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
    """TF32 only where it is asked for: torch's own default lets convolutions use it, so also for "float32".

    torch 2.9 has a switch for each kind of operation beside the two old settings. Both are set, and agree: torch's
    compiler reads the old ones, which raises while they do not.
    """
    tf32, cudnn, switches = precision == "tf32", torch.backends.cudnn, precision_switches()
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:  # now the old settings can be read, whatever the switches were
        switch.fp32_precision = "ieee"
    old = torch.get_float32_matmul_precision(), cudnn_allows_tf32()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32  # by itself: cudnn.flags() would also switch cuDNN off
    for switch in switches:
        switch.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(old[0])
        cudnn.allow_tf32 = old[1]
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = "none"  # as its parent has it: torch.backends.fp32_precision, mostly
            if switch.fp32_precision != value:
                switch.fp32_precision = value


@cache
def precision_switches() -> tuple[Any, ...]:
    """torch 2.9 and newer: those that go with the old settings. Before there were none."""
    kinds = (("cuda", "matmul"), ("cudnn", "conv"), ("cudnn", "rnn"), ("mkldnn", "matmul"))
    found = [getattr(getattr(torch.backends, backend), kind, None) for backend, kind in kinds]
    return tuple(switch for switch in found if hasattr(switch, "fp32_precision"))


def cudnn_allows_tf32() -> bool:
    """The old setting, where the switches say no: that they contradict it means that it says yes."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return True


def check_dtypes(params: Mapping[str, Tensor], images: Tensor) -> None:
    """Raise unless images and parameters share one floating dtype."""
    if not isinstance(params, Mapping):
        raise DtypeError(f"params is a {type(params).__name__}, expected a dict of tensors by name, as of to_torch")
    for name, tensor in {"images": images, **params}.items():
        if not isinstance(tensor, Tensor):
            raise DtypeError(f"{name} is a {type(tensor).__name__}, expected a tensor; use torch.from_numpy")
    if not images.is_floating_point():
        raise DtypeError(f"images have dtype {images.dtype}, expected floating point; scale and normalise them first")
    for name, p in params.items():
        if p.dtype != images.dtype:
            raise DtypeError(
                f"parameter {name} has dtype {p.dtype} but the images have {images.dtype}; "
                f"cast one of them, e.g. images.to({p.dtype})"
            )
