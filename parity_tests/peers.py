"""Other people's libraries as oracles: import them where they are hard to import, in float64, with random weights.

timm needs torchvision, whose wheel brings compiled operators that do not load beside a CPU build of torch. None of
them is called here, so declaring the two operators that its import looks up is enough (`import_timm`). Both timm and
transformers build rotary tables, and timm the lambda of differential attention, in float32 whatever the model's dtype;
`lift` rewrites those modules to float64 as they are imported, because an oracle must be exact.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

LIFTED = (
    "timm.layers.norm",
    "timm.layers.patch_embed",
    "timm.layers.pos_embed",
    "timm.layers.pos_embed_rel",
    "timm.layers.pos_embed_sincos",
    "timm.layers.diff_attention",
    "timm.models.vision_transformer",
    *(f"transformers.models.{m}.modeling_{m}" for m in ("beit", "dinov2", "dinov2_with_registers", "dinov3_vit")),
)
FLOOR = 1e-4  # of the largest gradient: where a gradient is zero by mathematics, rounding is measured against others


class _Lift(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        source = self.get_source(fullname) or ""
        source = source.replace("torch.float32", "torch.float64").replace(".float()", ".double()")
        return compile(source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in LIFTED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            return None
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=_Lift(fullname, spec.origin))


def lift() -> None:
    """From now on, import the modules of LIFTED in float64."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def import_timm() -> ModuleType:
    """timm in float64, and torchvision without its compiled operators.

    Raises:
        ImportError: timm or torchvision is not installed.
    """
    lift()
    _declare_torchvision_operators()
    return importlib.import_module("timm")


def import_transformers() -> ModuleType:
    """transformers, its rotary tables in float64; it imports torchvision too, where that is installed.

    Raises:
        ImportError: transformers is not installed.
    """
    lift()
    _declare_torchvision_operators()
    return importlib.import_module("transformers")


_LIBRARIES: list[Any] = []  # torch takes a declaration back when its library object is collected


def _declare_torchvision_operators() -> None:
    import torch

    if "torchvision" in sys.modules or _LIBRARIES:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARIES.append(library)


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """torch's default dtype is float64: tables that a library keeps in the default dtype are exact."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fill(module: Any, seed: int) -> None:
    """Random numbers in every parameter, those that start at zero or one included."""
    import torch

    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            draw = rng.normal(size=tuple(p.shape))
            draw *= 1.0 / np.sqrt(np.prod(p.shape[1:])) if p.ndim > 1 else 0.3
            if name.endswith("norm.weight") or (p.ndim == 1 and name.endswith("weight")):
                draw += 1.0
            p.copy_(torch.from_numpy(draw))


def relative_errors(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest of max|a - b| / max|b| over the names; a missing or extra name, or NaN, counts as infinity."""
    if set(ours) != set(theirs):
        return float("inf")
    scale = max(float(np.abs(b).max()) for b in theirs.values() if b.size)
    worst = 0.0
    for name, b in theirs.items():
        if ours[name].shape != b.shape or not np.isfinite(ours[name]).all():
            return float("inf")
        if not b.size:
            continue
        error = float(np.abs(ours[name] - b).max()) / max(float(np.abs(b).max()), FLOOR * scale)
        worst = max(worst, error)
    return worst


def engine_results(config: Any, params: dict[str, np.ndarray], x: np.ndarray, dlogits: np.ndarray) -> dict[str, dict]:
    """Logits, input gradient and parameter gradients of both engines: engine -> {"logits", "gx", "g/..."}."""
    import torch

    import numpy_vit
    import torch_vit

    logits, cache = numpy_vit.vit_forward(params, x, config)
    gx, grads = numpy_vit.vit_backward(dlogits, cache)
    by_numpy = {"logits": logits, "gx": gx, **{f"g/{n}": g for n, g in grads.items()}}
    model = torch_vit.VisionTransformer(config, seed=None).double().eval()
    model.load_state_dict(torch_vit.to_torch(params))
    images = torch.from_numpy(x.copy()).requires_grad_()
    out = model(images)
    out.backward(torch.from_numpy(dlogits))
    assert images.grad is not None
    by_torch = {"logits": out.detach().numpy(), "gx": images.grad.numpy()}
    by_torch |= {f"g/{n}": p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    return {"numpy": by_numpy, "torch": by_torch}
