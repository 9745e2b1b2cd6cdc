"""TorchEngine: the model and torch's optimizers behind the interface that training and the commands use."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torch_vit.loss import cross_entropy_forward
from torch_vit.model import VisionTransformer, to_numpy, to_torch
from torch_vit.optimizer import parameter_groups
from torch_vit.tape import Tape
from vit_common.config import ViTConfig
from vit_common.engine import StepResult, Trace, check_state
from vit_common.errors import ConfigError
from vit_common.params import check_params, param_spec
from vit_common.recipe import Recipe

Array = np.ndarray
# The names of the optimizer's state: the project's -> torch's.
ADAMW_STATE = {"m": "exp_avg", "v": "exp_avg_sq"}
SGD_STATE = {"momentum": "momentum_buffer"}


@dataclass(frozen=True)
class TorchOptions:
    """Where and how torch runs."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps ...; auto takes a GPU if there is one"""
    compile: bool = False
    """compile the model (torch.compile): slow first step, faster ones after"""


class TorchEngine:
    """See `vit_common.engine.Engine`."""

    name = "torch"
    requires: tuple[str, ...] = ("torch",)
    Options = TorchOptions

    def __init__(self, options: TorchOptions | None = None):
        self.options = options or TorchOptions()
        self.device = _device(self.options.device)

    def load(self, config: ViTConfig, params: Mapping[str, Array], dtype: str = "float32") -> None:
        check_params(params, config)
        self.config, self.dtype = config, getattr(torch, dtype)
        self.model = VisionTransformer(config, seed=None)
        self.model.to(self.dtype)
        self.model.load_state_dict(to_torch({name: np.asarray(p, dtype) for name, p in params.items()}))
        self.model.to(self.device)
        self._named = {name: dict(self.model.named_parameters())[name] for name in param_spec(config)}
        self.forward = torch.compile(self.model) if self.options.compile else self.model

    def start(self, config: ViTConfig, params: Mapping[str, Array], recipe: Recipe) -> None:
        self.load(config, params, recipe.dtype)
        self.recipe = recipe
        decay = {name: spec.decay for name, spec in param_spec(config).items()}
        groups = parameter_groups(self._named.items(), recipe.weight_decay, decay)
        if recipe.optimizer == "adamw":
            self._state_names = ADAMW_STATE
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                groups, recipe.lr, (recipe.beta1, recipe.beta2), fused=self.device.type in ("cpu", "cuda")
            )
        else:
            self._state_names = SGD_STATE
            self.optimizer = torch.optim.SGD(groups, recipe.lr, recipe.momentum)

    def train_step(self, images: Array, labels: Array, masks: Mapping[str, Array] | None, lr: float) -> StepResult:
        self.model.train()
        logits = self.forward(self._tensor(images), to_torch(masks or {}, self.device))
        loss = cross_entropy_forward(logits, self._tensor(labels), self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._named.values(), self.recipe.clip_norm or math.inf)
        result = StepResult(loss.item(), norm.item())
        if math.isfinite(result.loss) and math.isfinite(result.grad_norm):
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        return result

    @torch.inference_mode()
    def predict(self, images: Array) -> Array:
        self.model.eval()
        return self.forward(self._tensor(images)).cpu().numpy()

    def trace(
        self, images: Array, labels: Array, masks: Mapping[str, Array] | None = None, label_smoothing: float = 0.0
    ) -> Trace:
        model = VisionTransformer(self.config, "explicit", seed=None).to(self.dtype)  # scores and probs in sight
        model.load_state_dict({name: p.detach() for name, p in self._named.items()})
        model.to(self.device)
        pixels = self._tensor(images).requires_grad_()
        with Tape(model) as tape:
            logits = model(pixels, to_torch(masks or {}, self.device))
            loss = cross_entropy_forward(logits, self._tensor(labels), label_smoothing)
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
            kept = {name: self.optimizer.state[p].get(theirs) for name, p in self._named.items()}
            known = {name: torch.zeros_like(self._named[name]) if t is None else t for name, t in kept.items()}
            flat |= {f"optim/{kind}/{name}": array for name, array in to_numpy(known).items()}
        if self._state_names is ADAMW_STATE:
            first = self.optimizer.state[next(iter(self._named.values()))]
            flat["optim/step"] = np.array(int(first["step"]) if first else 0)
        return flat

    def load_state(self, state: Mapping[str, Array]) -> None:
        check_state(self.state(), state)
        with torch.no_grad():
            for name, p in self._named.items():
                p.copy_(self._tensor(state[f"params/{name}"]))
        for name, p in self._named.items():
            slots = {theirs: self._tensor(state[f"optim/{kind}/{name}"]) for kind, theirs in self._state_names.items()}
            if "optim/step" in state:
                slots["step"] = torch.tensor(float(state["optim/step"]), device=self.device)
            self.optimizer.state[p] = slots

    def _tensor(self, array: Array) -> Tensor:
        return torch.tensor(array, device=self.device)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError ...
        raise ConfigError(f"device {name!r} cannot be used: {error}; try --device cpu") from error
