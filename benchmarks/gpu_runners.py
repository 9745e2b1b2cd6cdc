"""The contestants of `gpu`: the torch engine as users get it, with our model in it or timm's, and the same options."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contestants import LR, Case
from benchmarks.parity import ROUNDOFF, Truth, within
from torch_vit.compiled import begin
from torch_vit.engine import TorchEngine
from torch_vit.numerics import mixed, numerics, product_precision
from torch_vit.options import TorchOptions
from vit_common.config import ViTConfig
from vit_common.recipe import Recipe

__all__ = ["Runner", "TimmEngine", "build", "host_waits", "mixed", "numerics", "options", "product_precision"]
WAITS = {"aten::_local_scalar_dense", "cudaStreamSynchronize", "cudaEventSynchronize"}


class TimmEngine(TorchEngine):
    """timm's model with our training step: the same precision, compilation, optimizer, clipping and guard."""

    name = "timm"

    def make_model(self, config: ViTConfig) -> Any:
        from benchmarks.peers import _mend_torchvision

        _mend_torchvision()
        from timm.models.vision_transformer import VisionTransformer

        class Model(VisionTransformer):
            def forward(self, images: Any, masks: Any = None) -> Any:
                return super().forward(images)

        names = {"img_size": "image_size", "in_chans": "in_channels"}
        same = ("patch_size", "num_classes", "embed_dim", "depth", "num_heads")
        fields = names | {name: name for name in same}
        return Model(**{theirs: getattr(config, mine) for theirs, mine in fields.items()})


@dataclass(frozen=True)
class Runner:
    """One contestant, ready: `call` runs a step (or prediction) on what is on the device."""

    name: str
    call: Callable[[], Any]
    peak_bytes: int  # its own, parameters and optimizer included
    waits: list[str]  # what in a step waits for the device: nothing, if all is well
    share: float  # of the bound, by its logits


def options(device: Any, mode: str, **more: Any) -> TorchOptions:
    """"eager", or a mode of torch.compile; bfloat16 products unless said otherwise."""
    compiled = {} if mode == "eager" else {"compile": True, "compile_mode": mode}
    return TorchOptions(device=str(device), **{"precision": "bf16", **compiled, **more})


def build(
    make: type[TorchEngine], name: str, case: Case, chosen: TorchOptions, train: bool, truth: Truth
) -> Runner | None:
    """The contestant, parity of its logits asserted; None if it is not installed or too large."""
    import torch

    engine = make(chosen)
    before = torch.cuda.memory_allocated(engine.device) if engine.device.type == "cuda" else 0
    try:
        if train:
            engine.start(case.config, case.params, Recipe(lr=LR))
        else:
            engine.load(case.config, case.params)
        images, labels = engine.upload(case.images), engine.upload(case.labels)

        def call(lr: float = LR) -> Any:
            return engine.step(images, labels, {}, lr) if train else engine.predictor(images)

        # Before anything else runs the model; with the learning rate 0 the weights stay those of the truth.
        peak = peak_memory(partial(call, 0.0), engine.device) - before
        share = check(name, engine, images, labels, train, truth)
        call()
        return Runner(name, call, peak, host_waits(call, engine.device), share)
    except ImportError as error:
        print(f"{name} does not take part: {error}; pip install 'vit-written-twice[bench-peers]'")
    except torch.OutOfMemoryError as error:
        print(f"{name} does not take part: out of memory ({str(error).splitlines()[0]}); try --batch 64")
    return None


def peak_memory(call: Callable[[], Any], device: Any) -> int:
    """Bytes at most allocated in calls after the first, which compiles; 0 where torch does not count them.

    Of CUDA graphs the second call is the one that counts: it records them, and a replay allocates nothing.
    """
    import torch

    call()
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        call()
    return torch.cuda.max_memory_allocated(device)


def check(name: str, engine: TorchEngine, images: Any, labels: Any, train: bool, truth: Truth) -> float:
    """Parity of what will be timed: predicted logits; of a step the forward's logits, and with them its loss."""
    import torch

    precision = engine.options.precision
    if not train:
        return truth.check(name, engine.predictor(images)[:1].cpu().numpy(), precision=precision)
    engine.model.train()
    begin(engine.options, engine.device)
    with numerics(engine.options), mixed(engine.options, engine.device):
        loss = engine.objective(images, labels, {})  # compiled as in a step, and once
        timed = float(loss.detach())
        with torch.no_grad():
            logits = engine.model(images, {}).float()
            plain = float(torch.nn.functional.cross_entropy(logits, labels))
        loss.backward()  # a forward that waits for its backward would keep CUDA graphs from being replayed
    bound = 2 * 2 * truth.logit_bound * ROUNDOFF[precision] / ROUNDOFF["float32"]  # the loss moves twice as far at most
    within(f"{name}: loss", timed, np.array(plain), np.array(bound))
    return truth.check(name, logits[:1].cpu().numpy(), precision=precision)


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """On a GPU: a RuntimeError where the host waits for the device. torch warns once that it does not see all of it."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def host_waits(call: Callable[[], Any], device: Any) -> list[str]:
    """What in a call makes the host wait for the device: seen by the profiler and by torch's own detector."""
    import torch

    cuda = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        torch.cuda.synchronize(device)
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    try:
        with torch.profiler.profile(activities=activities) as profile, waits_are_errors() if cuda else nullcontext():
            call()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return [str(error).splitlines()[0]]
    return sorted({e.name for e in profile.events() if e.name in WAITS and not _in_cpu_adamw(e)})


def _in_cpu_adamw(event: Any) -> bool:
    """The CPU's fused AdamW looks up its count of steps; on a GPU that stays on the device."""
    while event.cpu_parent is not None:
        event = event.cpu_parent
        if event.name == "aten::_fused_adamw_":
            return True
    return False
