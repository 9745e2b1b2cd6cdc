"""Of `gpu`, what is not model against model: attention kernels, packed rows, recomputed blocks, pictures from bytes."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import gpu_runners
from benchmarks.contestants import LR, Case
from benchmarks.measure import Timing, interleave
from torch_vit.engine import TorchEngine
from torch_vit.multi_head import split_heads
from torch_vit.numerics import KERNELS
from vit_common.masks import keyed_rng
from vit_common.raw_images import RawImages
from vit_common.recipe import Recipe

Calls = dict[str, Callable[[], Any]]


def attention_kernels(case: Case, device: Any, synchronise: Callable[[], None]) -> dict[str, float | None]:
    """Milliseconds of attention, forward and backward, in one layer of the model; None where a kernel cannot serve."""
    import torch
    from torch.nn.attention import sdpa_kernel

    c = case.config
    rows, kind = (len(case.images), c.num_tokens), {"device": device, "dtype": torch.bfloat16}
    qkv, dcontext = torch.randn(*rows, 3 * c.embed_dim, **kind), torch.randn(*rows, c.embed_dim, **kind)
    q, k, v = (split_heads(part, c.num_heads).requires_grad_() for part in qkv.chunk(3, dim=-1))
    dy = split_heads(dcontext, c.num_heads)  # views, all four, as in the model
    found: dict[str, float | None] = {}

    def attend(kernel: Any) -> Any:
        with sdpa_kernel(kernel), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # why a kernel cannot serve: None says that it cannot
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return torch.autograd.grad(y, (q, k, v), dy)

    for name, kernel in KERNELS.items():
        try:
            times = interleave({name: partial(attend, kernel)}, repeats=5, synchronise=synchronise, pause=0.0)
            found[name] = 1e3 * times[name].median
        except RuntimeError:  # "No available kernel"
            found[name] = None
    return found


def levers(case: Case, device: Any, mode: str) -> tuple[Calls, dict[str, float]]:
    """A training step as it is, with recomputed blocks, and from bytes; and the memory of the first two in MiB."""
    import torch

    calls: Calls = {}
    memory: dict[str, float] = {}
    for name, recompute in (("kept", False), ("recomputed", True)):
        engine = TorchEngine(gpu_runners.options(device, mode, activation_checkpointing=recompute))
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        engine.start(case.config, case.params, Recipe(lr=LR))
        images, labels = engine.upload(case.images), engine.upload(case.labels)
        calls[name] = partial(engine.step, images, labels, {}, LR)
        calls[name]()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            calls[name]()
            memory[name] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        if not recompute:
            calls["from bytes"] = partial(from_bytes, engine, case)
    return calls, memory


def from_bytes(engine: TorchEngine, case: Case) -> Any:
    """What a training loop does: bytes uploaded, shifted, mirrored and normalised on the device, then the step."""
    shape, channels = case.images.shape, case.config.in_channels
    pixels = np.broadcast_to(np.uint8(127), shape)
    middle = np.full(channels, 0.5)
    raw = RawImages(pixels, np.arange(len(pixels)), "shift+flip", 0, 0, middle, middle)
    return engine.train_step(engine.images(raw, "float32"), case.labels, None, LR)


def packed(case: Case, device: Any) -> tuple[Calls, dict[str, float]]:
    """Images of several sizes, forward and backward: each padded to the largest, or all packed into one row."""
    import torch

    from torch_vit import packed_forward
    from torch_vit.packed_tokens import packed_lengths

    engine = TorchEngine(gpu_runners.options(device, "eager"))
    engine.start(case.config, case.params, Recipe(lr=LR))
    rng, patch, grid = keyed_rng(0, "packed"), case.config.patch_size, case.config.grid_size
    grids = [[int(rng.integers(max(n // 3, 1), n + 1)) for n in grid] for _ in case.images]
    sizes = [[n * p for n, p in zip(own, patch, strict=True)] for own in grids]
    images = [torch.randn(case.config.in_channels, *size, device=device) for size in sizes]
    whole, labels = engine.upload(case.images), engine.upload(case.labels)
    params = dict(engine.model.named_parameters())

    def backward(logits: Callable[[], Any]) -> None:
        with gpu_runners.numerics(engine.options), gpu_runners.mixed(engine.options, engine.device):
            loss = torch.nn.functional.cross_entropy(logits(), labels)
        torch.autograd.grad(loss, list(params.values()))

    calls: Calls = {
        "padded": partial(backward, partial(engine.model, whole, {})),  # at its best: as if no mask were needed
        "packed": partial(backward, partial(packed_forward, params, images, case.config)),
    }
    tokens = sum(packed_lengths(images, case.config))
    return calls, {"tokens": tokens, "share_of_padded": tokens / (len(images) * case.config.num_tokens)}


def medians(times: dict[str, Timing]) -> dict[str, float]:
    return {name: 1e3 * t.median for name, t in times.items()}
