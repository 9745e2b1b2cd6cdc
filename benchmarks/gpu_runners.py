"""The contestants of `gpu`: a model on the device, to train or predict, eager, compiled or a CUDA graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import LR, Case
from benchmarks.parity import Truth


@contextmanager
def product_precision(precision: str) -> Iterator[None]:
    """TF32 is allowed only where it is asked for."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    with torch.backends.cudnn.flags(allow_tf32=precision == "tf32"):
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def autocast(device: Any, enabled: bool = True) -> Any:
    import torch

    return torch.autocast(device.type, torch.bfloat16) if enabled else nullcontext()


@dataclass(frozen=True)
class Runner:
    """One contestant, ready: `call` runs a step (or prediction) on tensors that are on the device."""

    name: str
    call: Callable[[], Any]
    peak_bytes: int  # its own, parameters and optimizer included
    sync_free: bool | None  # a step that never waits for the device
    share: float  # of the bound, by its logits


def ours(case: Case) -> Any:
    from torch_vit import VisionTransformer, to_torch

    model = VisionTransformer(case.config, seed=None)
    model.load_state_dict(to_torch(case.params))
    return model


def timms(case: Case) -> Any:
    from benchmarks.peers import _mend_torchvision
    from torch_vit import to_torch

    _mend_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    c = case.config
    model = VisionTransformer(
        img_size=c.image_size,
        patch_size=c.patch_size,
        in_chans=c.in_channels,
        num_classes=c.num_classes,
        embed_dim=c.embed_dim,
        depth=c.depth,
        num_heads=c.num_heads,
    )
    model.load_state_dict(to_torch(case.params))
    return model


def build(
    maker: Callable[[Case], Any], case: Case, device: Any, mode: str, train: bool, truth: Truth
) -> list[Runner]:
    """The contestant, parity of its logits asserted; none if it is not installed or too large."""
    import torch

    if mode == "graph" and device.type != "cuda":
        return []
    name = f"{'torch' if maker is ours else 'timm'}, {mode}"
    cuda = torch.cuda if device.type == "cuda" else None
    before = cuda.memory_allocated(device) if cuda else 0
    try:
        model = maker(case).to(device)
        images, labels = torch.from_numpy(case.images).to(device), torch.from_numpy(case.labels).to(device)
        if not train:
            model = model.to(torch.bfloat16).eval()
            images = images.to(torch.bfloat16)
        run_model = (
            model
            if mode == "eager"
            else torch.compile(model, mode="default" if mode == "graph" else mode, fullgraph=True)
        )
        with torch.no_grad(), autocast(device, train):
            logits = run_model(images)[:1].float().cpu().numpy()
        share = truth.check(name, logits, precision="bf16")
        call = (
            training_step(run_model, model, images, labels, device, mode)
            if train
            else inference(run_model, images)
        )
        for _ in range(3):
            call()
        if cuda:
            cuda.synchronize(device)
            cuda.reset_peak_memory_stats(device)
        sync_free = waits_for_nothing(call) if cuda else None
        if mode == "graph":
            call = captured(call)
        call()
        peak = cuda.max_memory_allocated(device) - before if cuda else 0
        return [Runner(name, call, peak, sync_free, share)]
    except ImportError as error:
        print(f"{name} does not take part: {error}; pip install 'vit-written-twice[bench-peers]'")
    except torch.OutOfMemoryError as error:
        print(
            f"{name} does not take part: out of memory ({str(error).splitlines()[0]}); try a smaller --batch"
        )
    return []


def training_step(
    run_model: Any, model: Any, images: Any, labels: Any, device: Any, mode: str
) -> Callable[[], Any]:
    """Forward and loss under autocast, backward, fused AdamW; no number goes back to the host."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), LR, fused=True, capturable=device.type == "cuda")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device):
            loss = torch.nn.functional.cross_entropy(run_model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def inference(run_model: Any, images: Any) -> Callable[[], Any]:
    import torch

    def predict() -> Any:
        with torch.inference_mode():
            return run_model(images)

    return predict


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as one CUDA graph: its kernels are launched together, and the host has nothing left to do."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def waits_for_nothing(call: Callable[[], Any]) -> bool:
    """Whether a step runs without the host waiting for the device, by torch's own detector."""
    import torch

    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True
