"""TorchEngine: the model and torch's optimizers behind the interface that training and the commands use."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torch_vit.augment import images_on_device
from torch_vit.compiled import begin, check_compilable, compiled
from torch_vit.data_parallel import batch_shares, run, share_of, sum_shares
from torch_vit.loss import cross_entropy_forward
from torch_vit.model import VisionTransformer, to_numpy, to_torch
from torch_vit.numerics import mixed, numerics, product_precision
from torch_vit.options import TorchOptions
from torch_vit.predictor import Predictor
from torch_vit.recompute import recompute_blocks
from torch_vit.tape import Tape
from torch_vit.transfer import Late, Upload
from torch_vit.update import Update
from vit_common.config import ViTConfig
from vit_common.engine import StepResult, Trace, check_state
from vit_common.memory import keep_freed_memory
from vit_common.params import check_params, param_spec
from vit_common.raw_images import RawImages
from vit_common.recipe import Recipe

Array = np.ndarray
# The names of the optimizer's state: the project's -> torch's.
ADAMW_STATE = {"m": "exp_avg", "v": "exp_avg_sq"}
SGD_STATE = {"momentum": "momentum_buffer"}


class Objective(nn.Module):
    """Model and loss in one, so that a compiler sees both."""

    def __init__(self, model: nn.Module, label_smoothing: float):
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def forward(self, images: Tensor, labels: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """(B, C, H, W), (B,) -> mean loss in nats, a scalar."""
        return cross_entropy_forward(self.model(images, masks), labels, self.label_smoothing)


class TorchEngine:
    """See `vit_common.engine.Engine`."""

    name = "torch"
    requires: tuple[str, ...] = ("torch",)
    Options = TorchOptions

    def __init__(self, options: TorchOptions | None = None):
        self.options = options or TorchOptions()
        self.device = self.options.find_device()
        self.upload = Upload(self.device)

    def load(self, config: ViTConfig, params: Mapping[str, Array], dtype: str = "float32") -> None:
        check_params(params, config)
        self.options.check_dtype(dtype)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.config, self.dtype = config, getattr(torch, dtype)
        self.model = self.make_model(config)
        self.model.to(self.dtype)
        self.model.load_state_dict(to_torch({name: np.asarray(p, dtype) for name, p in params.items()}))
        self.model.to(self.device)
        if self.options.activation_checkpointing:
            recompute_blocks(self.model.blocks)
        self._named = {name: dict(self.model.named_parameters())[name] for name in param_spec(config)}
        self.predictor = Predictor(self.model, self.options, self.device, config)

    def make_model(self, config: ViTConfig) -> Any:
        """Any module with these parameters' names that maps (images, masks) to logits: benchmarks put others here."""
        return VisionTransformer(config, seed=None)

    def start(self, config: ViTConfig, params: Mapping[str, Array], recipe: Recipe) -> None:
        check_compilable(self.options, config)
        self.load(config, params, recipe.dtype)
        decay = {name: spec.decay for name, spec in param_spec(config).items()}
        self.update = Update(self._named, recipe, decay, self.device)
        self._state_names = ADAMW_STATE if recipe.optimizer == "adamw" else SGD_STATE
        self.objective = compiled(Objective(self.model, recipe.label_smoothing), self.options)

    def images(self, raw: RawImages, dtype: str) -> Tensor:
        if self.device.type == "cpu":  # the same images, measured in 0.4 of the time of torch's gather there
            return torch.from_numpy(raw.to_numpy(dtype))
        return images_on_device(raw, getattr(torch, dtype), self.upload)

    def train_step(
        self, images: Array | Tensor, labels: Array, masks: Mapping[str, Array] | None, lr: float
    ) -> StepResult:
        batch = self.upload(images), self.upload(labels), {name: self.upload(m) for name, m in (masks or {}).items()}
        return self.step(*batch, lr)

    def step(self, images: Tensor, labels: Tensor, masks: Mapping[str, Tensor], lr: float) -> StepResult:
        """`train_step` of what is on the device already.

        Of a plain model the host waits for nothing here: it only queues the work. A variant may make it wait for the
        device: where tables are made on the host and copied in every step (sines and cosines beside registers, rotary
        ones, relative position biases, positions resized) and where a mask is looked at (patch dropout, attention and
        padding masks).
        """
        if not self.model.training:
            self.model.train()
        self.update.optimizer.zero_grad()
        begin(self.options, self.device)
        with numerics(self.options):
            loss = self.backward(images, labels, masks)
        norm = self.update.step(loss, lr)
        self.predictor.stale = True
        return StepResult(Late(loss), Late(norm))

    def backward(self, images: Tensor, labels: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """Mean loss, a scalar; the gradients are left at the parameters. On a CPU by threads, each with a share."""
        shares = [] if self.options.compile else batch_shares(images, self.config)

        def loss_of(images: Tensor, labels: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
            with mixed(self.options, self.device):
                return self.objective(images, labels, masks)

        def work(share: slice) -> tuple[Tensor, list[Tensor | None]]:
            loss = loss_of(images[share], labels[share], share_of(masks, share)) * (len(labels[share]) / len(labels))
            return loss.detach(), list(torch.autograd.grad(loss, self.update.params, allow_unused=True))

        if len(shares) < 2:
            loss = loss_of(images, labels, masks)
            loss.backward()
            return loss.detach()
        loss, grads = sum_shares(run(work, shares))
        for p, g in zip(self.update.params, grads, strict=True):
            p.grad = g
        return loss

    def predict(self, images: Array | Tensor) -> Array:
        return self.predictor(self.upload(images)).cpu().numpy()

    def trace(
        self, images: Array, labels: Array, masks: Mapping[str, Array] | None = None, label_smoothing: float = 0.0
    ) -> Trace:
        model = VisionTransformer(self.config, "explicit", seed=None).to(self.dtype)  # scores and probs in sight
        model.load_state_dict({name: p.detach() for name, p in self._named.items()})
        model.to(self.device)
        pixels = self.upload(images).requires_grad_()
        with product_precision("float32"), Tape(model) as tape:
            logits = model(pixels, to_torch(masks or {}, self.device))
            loss = cross_entropy_forward(logits, self.upload(labels), label_smoothing)
            loss.backward()
        param_grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return Trace(
            loss.item(), to_numpy(tape.values), to_numpy(tape.grads),
            to_numpy({name: param_grads[name] for name in self._named}),
        )  # fmt: skip

    def params(self) -> dict[str, Array]:
        return to_numpy(self._named)

    def state(self) -> dict[str, Array]:
        flat = {f"params/{name}": array for name, array in self.params().items()}
        for kind, theirs in self._state_names.items():
            kept = {name: self.update.optimizer.state[p].get(theirs) for name, p in self._named.items()}
            known = {name: torch.zeros_like(self._named[name]) if t is None else t for name, t in kept.items()}
            flat |= {f"optim/{kind}/{name}": array for name, array in to_numpy(known).items()}
        if self._state_names is ADAMW_STATE:
            first = self.update.optimizer.state[next(iter(self._named.values()))]
            flat["optim/step"] = np.array(int(first["step"]) if first else 0)
        return flat

    def load_state(self, state: Mapping[str, Array]) -> None:
        check_state(self.state(), state)
        with torch.no_grad():
            for name, p in self._named.items():
                p.copy_(self.upload(state[f"params/{name}"]))
        for name, p in self._named.items():
            slots = {theirs: self.upload(state[f"optim/{kind}/{name}"]) for kind, theirs in self._state_names.items()}
            if "optim/step" in state:
                slots["step"] = torch.tensor(float(state["optim/step"]), device=self.device)
            self.update.optimizer.state[p] = slots
        self.update.reset()
        self.predictor.stale = True
