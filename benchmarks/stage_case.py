r"""One stage at one size, ready to be timed in both engines; its parity, its bytes.

Bytes moved are the compulsory ones: each input, parameter and output once, cache and gradients included in
the backward.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

import numpy_vit
from benchmarks.contestants import stock_linear_layers
from benchmarks.parity import within
from parity_tests.tolerances import LAMBDA, Probable
from vit_common.masks import keyed_rng

Array = np.ndarray
# The stages that are modules in torch: as functions they would be made anew at every call, and write out attention.
MODULES = {
    name: "".join(word.capitalize() for word in name.split("_"))
    for name in (
        "multi_head", "mlp", "encoder_block", "assembled_attention", "activated_mlp", "gated_mlp", "patch_stem",
        "attention_pool", "assembled_block", "parallel_block", "parallel_things_block",
    )
}  # fmt: skip


class StageCase:
    """One stage at one size: its arrays (float32), options, operations (None: as torch counts them); `x` first."""

    def __init__(
        self, name: str, arrays: dict[str, Array], options: dict[str, Any] | None = None, flops: int | None = 0
    ):
        from parity_tests.stage_checks import known

        self.stage, self.name, self.arrays = known()[name], name, arrays
        self.options = options or {}
        self.flops = self.counted() if flops is None else flops
        y, self.cache = self.stage.forward(numpy_vit, arrays, self.options)
        dy = keyed_rng(1, name).standard_normal(np.shape(y), np.float32)  # random, never ones
        self.dy = self.stage.upstream(dy)
        self.y = np.asarray(y)

    def counted(self) -> int:
        """Operations of the matrix products in a forward, attention written out: of a fused kernel none are counted."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        leaves = {n: torch.from_numpy(a) for n, a in self.arrays.items()}
        counter = FlopCounterMode(display=False)
        with stock_linear_layers(), sdpa_kernel(SDPBackend.MATH), counter:
            _torch_function(self)(leaves)
        return counter.get_total_flops()

    @property
    def bytes_forward(self) -> int:
        return sum(a.nbytes for a in self.arrays.values()) + self.y.nbytes

    @property
    def bytes_backward(self) -> int:
        return 2 * sum(a.nbytes for a in self.arrays.values()) + self.y.nbytes

    def numpy_calls(self) -> tuple[Callable, Callable]:
        return (
            lambda: self.stage.forward(numpy_vit, self.arrays, self.options)[0],
            lambda: self.stage.backward(numpy_vit, self.dy, self.cache, self.arrays),
        )

    def torch_calls(self) -> tuple[Callable, Callable]:
        """The forward without a graph, and the backward alone of a graph that is kept."""
        import torch

        leaves = {n: torch.from_numpy(a).requires_grad_() for n, a in self.arrays.items()}
        function = _torch_function(self)
        y = function(leaves)
        dy = torch.as_tensor(self.dy, dtype=y.dtype).reshape(y.shape)

        def forward() -> Any:
            with torch.no_grad():
                return function(leaves)

        def backward() -> dict[str, Any]:
            inputs = list(leaves.values())
            grads = torch.autograd.grad(y, inputs, dy, retain_graph=True, allow_unused=True)
            return {
                n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(leaves, grads, strict=True)
            }

        return forward, backward

    def assert_parity(self) -> dict[str, float]:
        """Both engines against the derived bound; see `benchmarks.parity`."""
        inputs = {n: Probable(a, 0.0, np.float32) for n, a in self.arrays.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            y, pullback = self.stage.bounded(inputs, self.options)
            wanted = pullback(Probable(self.dy, 0.0, np.float32))
        if "x" in wanted and "x" not in self.arrays:
            wanted[next(iter(self.arrays))] = wanted.pop("x")
        shares = {}
        for engine, (forward, backward) in {"numpy": self.numpy_calls(), "torch": self.torch_calls()}.items():
            worst = within(f"{engine}: {self.name}", forward(), y.v, LAMBDA * y.e)
            for name, g in backward().items():
                bound = np.broadcast_to(LAMBDA * wanted[name].e, np.shape(wanted[name].v))
                worst = max(
                    worst, within(f"{engine}: gradient of {name} of {self.name}", g, wanted[name].v, bound)
                )
            shares[engine] = worst
        return shares


def _torch_function(case: StageCase) -> Callable[[dict[str, Any]], Any]:
    """The stage as the torch model runs it: the modules, and the fused attention."""
    import torch

    import torch_vit
    from parity_tests.stage import as_tensors

    options = as_tensors(case.options, torch.float32)  # once: masks are not copied while the clock runs
    if case.name in MODULES:
        kind = getattr(importlib.import_module(f"torch_vit.{case.name}"), MODULES[case.name])
        with torch.device("meta"):
            module = kind(options.pop("config")).eval()
        return lambda leaves: torch.func.functional_call(
            module, {n: t for n, t in leaves.items() if n != "x"}, (leaves["x"], *options.values())
        )
    if case.name == "attention":
        return lambda leaves: torch_vit.fused_attention_forward(*leaves.values())
    return lambda leaves: case.stage.torch(leaves, options)
