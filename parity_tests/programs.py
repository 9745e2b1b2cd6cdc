"""Other people's programs beside ours: one run of a model with random weights, and what both engines make of its file.

A program that no package index has is looked for in the folder that VIT_PEERS names: checkouts of
google-research/vision_transformer, google-research/big_vision, facebookresearch/mae, facebookresearch/dino,
facebookresearch/dinov2, openai/CLIP and BrianPulfer/PapersReimplementations, each under its own name.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np

import numpy_vit
from parity_tests.peers import relative_errors
from vit_common import load_checkpoint
from vit_common.layouts import export_layout, find_layout, get_layout
from vit_common.mae_config import MaeConfig

Array = np.ndarray


class Run(NamedTuple):
    """What a program computed in float64, and the file that it would publish."""

    tensors: dict[str, Array]
    suffix: str  # of the file: .npz, .safetensors, .pth
    given: dict[str, Any] | None  # what its user knows beside the file: the program's own arguments
    images: Array
    upstream: Array
    out: Array
    gx: Array
    grads: dict[str, Array]  # under the program's names
    seen: Mapping[str, Array] = MappingProxyType({})  # intermediates, under the names of our tapes
    layout: str | None = None  # where the names alone cannot tell
    mask: Array | None = None  # of a masked autoencoder: the patches that were seen


def checkout(program: str) -> Path:
    """Where the program is.

    Raises:
        ImportError: there is no checkout of it.
    """
    folder = Path(os.environ.get("VIT_PEERS", "")) / program
    if not os.environ.get("VIT_PEERS") or not folder.is_dir():
        raise ImportError(f"no checkout of {program} in the folder VIT_PEERS={os.environ.get('VIT_PEERS', '')!r}")
    return folder


def source(program: str, file: str, changes: Mapping[str, str] | None = None, **stand_ins: Any) -> ModuleType:
    """A file of a checkout as a module, some of its text replaced, and modules it imports stood in for.

    Raises:
        ImportError: there is no checkout, or another version.
    """
    path = checkout(program) / file
    text = path.read_text()
    for old, new in (changes or {}).items():
        if old not in text:
            raise ImportError(f"{path} is another version: it does not hold {old!r}")
        text = text.replace(old, new)
    module = ModuleType(f"peer_{program}_{path.stem}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    with standing_in(stand_ins):
        exec(compile(text, str(path), "exec"), vars(module))
    return module


@contextmanager
def standing_in(modules: Mapping[str, Any]) -> Iterator[None]:
    """These modules can be imported for a while; `_` in a name stands for a dot."""
    names = {name.replace("__", "."): module for name, module in modules.items()}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def blank(**members: Any) -> ModuleType:
    module = ModuleType("blank")
    vars(module).update(members)
    return module


def save(run: Run, folder: Path) -> Path:
    path = folder / f"weights{run.suffix}"
    if run.suffix == ".npz":
        np.savez(path, **run.tensors)
    elif run.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({name: np.array(tensor, order="C") for name, tensor in run.tensors.items()}, path)
    else:
        import torch

        torch.save({"model": {name: torch.from_numpy(t.copy()) for name, t in run.tensors.items()}}, path)
    return path


def errors(run: Run) -> dict[str, float]:
    """The largest relative error of each engine: output, input gradient, every parameter's gradient, intermediates."""
    with tempfile.TemporaryDirectory() as folder:
        config, params = load_checkpoint(save(run, Path(folder)), layout=run.layout, config=run.given)
    layout = get_layout(run.layout) if run.layout else find_layout(run.tensors)
    grads = {layout.plain_name(name): gradient for name, gradient in run.grads.items()}
    worst = {}
    engines = ENGINES["mae" if isinstance(config, MaeConfig) else "vit"]
    for name, engine in engines.items():
        out, gx, own, tape = engine(config, params, run)
        exported = export_layout(own, config, layout.name)
        exported = {layout.plain_name(name): gradient for name, gradient in exported.items()}
        ours = {"out": out, "gx": gx} | {f"g/{n}": exported.get(n, np.nan) for n in grads}
        ours |= {f"act/{n}": tape.get(n, np.nan) for n in run.seen}
        theirs = {"out": run.out, "gx": run.gx} | {f"g/{n}": g for n, g in grads.items()}
        theirs |= {f"act/{n}": a for n, a in run.seen.items()}
        worst[name] = relative_errors({n: np.asarray(a) for n, a in ours.items()}, theirs)
    return worst


def by_numpy(config: Any, params: dict, run: Run) -> tuple:
    tape: dict = {}
    out, cache = numpy_vit.vit_forward(params, run.images, config, tape=tape)
    return out, *numpy_vit.vit_backward(run.upstream, cache), tape


def by_torch(config: Any, params: dict, run: Run) -> tuple:
    import torch

    import torch_vit

    model = torch_vit.VisionTransformer(config, seed=None).double().eval()
    model.load_state_dict(torch_vit.to_torch(params))
    images = torch.from_numpy(run.images.copy()).requires_grad_()
    with torch_vit.Tape(model) as tape:
        out = model(images)
        out.backward(torch.from_numpy(run.upstream))
    grads = {n: p.grad.numpy() for n, p in model.named_parameters()}
    return out.detach().numpy(), images.grad.numpy(), grads, {n: t.detach().numpy() for n, t in tape.values.items()}


def mae_by_numpy(config: MaeConfig, params: dict, run: Run) -> tuple:
    (loss, _), cache = numpy_vit.mae_forward(params, run.images, config, run.mask)
    return loss, *numpy_vit.mae_backward(cache, float(run.upstream)), {}


def mae_by_torch(config: MaeConfig, params: dict, run: Run) -> tuple:
    import torch

    import torch_vit

    ours = {n: p.requires_grad_() for n, p in torch_vit.to_torch(params).items()}
    images = torch.from_numpy(run.images.copy()).requires_grad_()
    loss, _ = torch_vit.mae_forward(ours, images, config, torch.from_numpy(run.mask))
    loss.backward(torch.tensor(float(run.upstream), dtype=loss.dtype))
    return loss.item(), images.grad.numpy(), {n: p.grad.numpy() for n, p in ours.items()}, {}


ENGINES: dict[str, dict[str, Callable]] = {
    "vit": {"numpy": by_numpy, "torch": by_torch},
    "mae": {"numpy": mae_by_numpy, "torch": mae_by_torch},
}
