"""Who competes: each engine, and torch also in the ways its users know, behind the same three calls."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from numpy_vit.data_parallel import parallel_loss_and_grads
from numpy_vit.engine import NumpyEngine
from numpy_vit.serve import serve
from vit_common.config import ViTConfig
from vit_common.masks import keyed_rng
from vit_common.params import init_params
from vit_common.recipe import Recipe

Array = np.ndarray
LR = 1e-5  # small: the parameters stay near those whose parity was asserted


@dataclass(frozen=True)
class Contestant:
    """`forward(images)` -> logits, `gradients(images, labels)` -> {name: gradient}, `step` -> loss."""

    name: str
    ceiling: str  # whose matrix product it uses, a name of `machine.ceilings`
    forward: Callable[[Array], Array]
    gradients: Callable[[Array, Array], Mapping[str, Array]] | None = None
    step: Callable[[Array, Array], float] | None = None


@dataclass(frozen=True)
class Case:
    """A model with parameters and a batch, the same for all."""

    name: str
    config: ViTConfig
    params: dict[str, Array]
    images: Array
    labels: Array


# Beside the presets: the small model that overheads dominate, not the products.
SMALL = {"mnist_patch4": ViTConfig.preset("mnist", patch_size=4)}


def make_case(preset: str, batch: int) -> Case:
    """Random images, labels and parameters; biases and the class token too, which start at zero."""
    config = SMALL.get(preset) or ViTConfig.preset(preset)
    rng = keyed_rng(0, "benchmark", preset)
    params = init_params(config, seed=0, dtype=np.float32)
    for name, p in params.items():
        if p.ndim == 1 or name == "cls_token":
            params[name] = p + rng.normal(0, 0.02, p.shape).astype(np.float32)
    images = rng.standard_normal((batch, config.in_channels, *config.image_size), np.float32)
    return Case(
        f"{preset}, batch {batch}", config, params, images, rng.integers(0, config.num_classes, batch)
    )


def numpy_contestant(case: Case) -> Contestant:
    engine = NumpyEngine()
    engine.start(case.config, case.params, Recipe(lr=LR))

    def gradients(images: Array, labels: Array) -> Mapping[str, Array]:
        return parallel_loss_and_grads(case.params, images, labels, case.config)[1]

    def step(images: Array, labels: Array) -> float:
        return engine.train_step(images, labels, None, LR).loss

    return Contestant("numpy", "numpy", engine.predict, gradients, step)


def torch_contestant(case: Case) -> Contestant:
    """Our engine in torch, as `train` and `eval` run it."""
    from torch_vit import fast_cpu
    from torch_vit.engine import TorchEngine
    from torch_vit.options import TorchOptions

    engine, stepped = (TorchEngine(TorchOptions(device="cpu")) for _ in range(2))  # one moves its parameters
    for e in (engine, stepped):
        e.start(case.config, case.params, Recipe(lr=LR))

    def gradients(images: Array, labels: Array) -> Mapping[str, Array]:
        engine.model.zero_grad()
        engine.backward(engine.upload(images), engine.upload(labels), {})
        return {name: p.grad.numpy() for name, p in engine.model.named_parameters()}

    def step(images: Array, labels: Array) -> float:
        return float(stepped.train_step(images, labels, None, LR).loss)

    ceiling = "torch oneDNN" if fast_cpu.AVAILABLE else "torch F.linear"
    return Contestant("torch", ceiling, engine.predict, gradients, step)


def stock_contestant(case: Case, name: str = "torch stock", attention: str = "fused") -> Contestant:
    """Our model in torch, run as other programs run theirs: linear layers by F.linear, the batch as one."""
    import torch

    from torch_vit import VisionTransformer, to_torch
    from torch_vit.loss import cross_entropy_forward

    model, step_model = (VisionTransformer(case.config, attention, seed=None) for _ in range(2))
    model.load_state_dict(to_torch(case.params))
    step_model.load_state_dict(to_torch(case.params))
    optimizer = torch.optim.AdamW(step_model.parameters(), LR, fused=True)

    def loss_and_backward(model: Any, images: Array, labels: Array) -> float:
        loss = cross_entropy_forward(model(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        return loss.item()

    @stock_linear_layers()
    @torch.inference_mode()
    def forward(images: Array) -> Array:
        return model(torch.from_numpy(images)).numpy()

    @stock_linear_layers()
    def gradients(images: Array, labels: Array) -> Mapping[str, Array]:
        model.zero_grad()
        loss_and_backward(model, images, labels)
        return {name: p.grad.numpy() for name, p in model.named_parameters()}

    @stock_linear_layers()
    def step(images: Array, labels: Array) -> float:
        optimizer.zero_grad()
        loss = loss_and_backward(step_model, images, labels)
        torch.nn.utils.clip_grad_norm_(step_model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Contestant(name, "torch F.linear", forward, gradients, step)


def serving(case: Case) -> list[Contestant]:
    """Inference that computes of the last block only the class token: a shortcut, exact, given to both engines."""
    import torch

    from numpy_vit import data_parallel
    from torch_vit import Serving, VisionTransformer, fast_cpu, to_torch
    from torch_vit import data_parallel as torch_parallel

    if case.config.pool != "cls":
        return []
    served = Serving(VisionTransformer(case.config, seed=None))
    served.model.load_state_dict(to_torch(case.params))

    def by_numpy(images: Array) -> Array:
        shares = data_parallel.batch_shares(images, case.config)
        return np.concatenate(
            data_parallel.run(lambda share: serve(case.params, images[share], case.config), shares)
        )

    def by_torch(images: Array) -> Array:
        tensor = torch.from_numpy(images)
        work = torch.inference_mode()(lambda share: served(tensor[share]))
        shares = torch_parallel.batch_shares(tensor, case.config)
        return torch.cat(torch_parallel.run(work, shares)).numpy()

    ceiling = "torch oneDNN" if fast_cpu.AVAILABLE else "torch F.linear"
    return [
        Contestant("numpy, class token alone", "numpy", by_numpy),
        Contestant("torch, class token alone", ceiling, by_torch),
    ]


@contextmanager
def stock_linear_layers() -> Iterator[None]:
    """Torch's linear layers all by F.linear, whatever the engine's rule."""
    from torch_vit import fast_cpu

    before, fast_cpu.AVAILABLE = fast_cpu.AVAILABLE, False
    try:
        yield
    finally:
        fast_cpu.AVAILABLE = before


def engines(case: Case) -> list[Contestant]:
    """NumPy, our torch as it is, and stock: the model as other programs run theirs, with both attentions."""
    return [
        numpy_contestant(case),
        torch_contestant(case),
        stock_contestant(case),
        stock_contestant(case, "torch stock, explicit", "explicit"),
    ]
