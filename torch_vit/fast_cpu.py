r"""Engine plumbing, without a twin in NumPy: the faster of torch's two float32 products on this CPU.

torch multiplies float32 matrices on the CPU with MKL, which uses no AVX-512 on processors that are not Intel's. oneDNN,
which is in every torch build for x86, does. Measured on an AVX-512 AMD EPYC, one thread, 1576 x 384 x 1536: MKL 104
GFLOP/s; oneDNN 221 for $y = x W^\top$, 198 for $dx$, 204 for $dW$ and $db$ together (`python -m benchmarks stages`
measures it anew). On an AMD EPYC that has AVX2 alone both use that, and oneDNN loses: a linear map forward and backward
takes 1.31 of MKL's time. Weights packed in advance for oneDNN are no lever either: 0.94 to 1.07 of its own time.

The rule, the same in every run so that a result can be repeated: an AMD processor with AVX-512, float32, and at least
`LEAST` multiplications, below which the call costs more than it saves. Everything else goes the usual way. The
environment variable `TORCH_VIT_ONEDNN=on` drops the question of the processor; `off`, or torch's own switch
`torch.backends.mkldnn.enabled = False`, drops the whole.
"""

import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LEAST = 2**22  # measured: 8x384x1000 (3 million) breaks even, 1088x48x144 (7.5 million) takes 0.8 of the time


def available(wish: str) -> bool:
    """Whether this torch has the products, and this processor needs them; "on" and "off" instead of "auto" decide."""
    has_ops = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    has_ops &= hasattr(torch.ops.aten, "mkldnn_linear_backward_weights")
    wanted = wish == "on" or (wish != "off" and _is_amd() and _has_avx512())
    return wanted and has_ops and torch.backends.mkldnn.is_available()


def _is_amd() -> bool:
    info = Path("/proc/cpuinfo")
    if info.exists():  # Linux: the first processor's paragraph is enough
        with info.open() as lines:
            return "AuthenticAMD" in lines.read(4096)
    return "AuthenticAMD" in platform.processor()  # Windows


def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for products of bfloat16 (AVX512_BF16, AMX); without, they are slow."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()) and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )


AVAILABLE = available(os.environ.get("TORCH_VIT_ONEDNN", "auto"))


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` is the faster way to the product of x (..., I) and weight (O, I)."""
    return bool(
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= LEAST
        and AVAILABLE
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


def fuses_gelu(linear: nn.Linear, x: Tensor) -> bool:
    """Whether nobody asks for the numbers between linear map and GELU: no gradient, and no hook (tape)."""
    return not torch.is_grad_enabled() and not linear._forward_hooks and serves(x, linear.weight)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., I), (O, I), (O,) -> (..., O), forward and backward by oneDNN."""
    return _Linear.apply(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., I), (O, I), (O,) -> (..., O), the exact GELU applied before the result goes to memory. Inference."""
    return _product(x, weight, bias, "gelu")


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, drows = x.flatten(0, -2), dy.flatten(0, -2)  # (R, I), (R, O)
        if torch.is_grad_enabled():  # a second derivative is wanted: only products that autograd knows
            return dy @ weight, drows.t() @ rows, drows.sum(0) if ctx.has_bias else None
        dx = _product(dy, weight.t(), None) if ctx.needs_input_grad[0] else None  # y = x @ weight.T
        dweight = dbias = None
        if any(ctx.needs_input_grad[1:]):
            dweight, dbias = _weight_gradient(drows, rows, weight)  # y = x @ weight.T + bias
        return dx, dweight, dbias if ctx.has_bias else None


# Operators of our own, their shapes declared, because torch.compile can look into neither of the two below.
@torch.library.custom_op("torch_vit::product", mutates_args=())
def _product(x: Tensor, weight: Tensor, bias: Tensor | None, post: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, post, [], "none" if post == "gelu" else "")


@torch.library.custom_op("torch_vit::weight_gradient", mutates_args=())
def _weight_gradient(drows: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten.mkldnn_linear_backward_weights(drows.to_mkldnn(), rows.to_mkldnn(), weight, True)


@_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, post: str = "none") -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@_weight_gradient.register_fake
def _(drows: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.shape), weight.new_empty(weight.shape[0])
