"""NumpyEngine: the stages and the optimizer behind the interface that training and the commands use."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from numpy_vit.data_parallel import parallel_loss_and_grads, parallel_predict, parallel_update
from numpy_vit.loss import cross_entropy_backward, cross_entropy_forward
from numpy_vit.model import vit_backward, vit_forward
from numpy_vit.optimizer import AdamWState, SgdState, adamw_init, adamw_step, clip_grad_norm, sgd_init, sgd_step
from vit_common.config import ViTConfig
from vit_common.engine import StepResult, Trace, check_state
from vit_common.memory import keep_freed_memory
from vit_common.params import check_params, param_spec
from vit_common.raw_images import RawImages
from vit_common.recipe import Recipe

Array = np.ndarray


@dataclass(frozen=True)
class NumpyOptions:
    """NumPy needs no options: it runs on the CPU."""


class NumpyEngine:
    """See `vit_common.engine.Engine`."""

    name = "numpy"
    requires: tuple[str, ...] = ()
    Options = NumpyOptions

    def __init__(self, options: NumpyOptions | None = None):
        self.options = options or NumpyOptions()

    def load(self, config: ViTConfig, params: Mapping[str, Array], dtype: str = "float32") -> None:
        check_params(params, config)
        keep_freed_memory()
        self.config = config
        self._params = {name: np.array(params[name], dtype) for name in param_spec(config)}

    def start(self, config: ViTConfig, params: Mapping[str, Array], recipe: Recipe) -> None:
        self.load(config, params, recipe.dtype)
        self.recipe = recipe
        self.decay = {name: spec.decay for name, spec in param_spec(config).items()}
        adamw = recipe.optimizer == "adamw"
        self._optim: AdamWState | SgdState = adamw_init(self._params) if adamw else sgd_init(self._params)
        self._halted = False

    def images(self, raw: RawImages, dtype: str) -> Array:
        return raw.to_numpy(dtype)

    def train_step(self, images: Array, labels: Array, masks: Mapping[str, Array] | None, lr: float) -> StepResult:
        smoothing = self.recipe.label_smoothing
        loss, grads = parallel_loss_and_grads(self._params, images, labels, self.config, masks, smoothing)
        grads, norm = clip_grad_norm(grads, self.recipe.clip_norm or math.inf)
        self._halted |= not (math.isfinite(loss) and math.isfinite(norm))
        if not self._halted:
            self._update(grads, lr)
        return StepResult(loss, norm)

    def _update(self, grads: Mapping[str, Array], lr: float) -> None:
        recipe, state = self.recipe, self._optim
        options: dict[str, Any] = {"lr": lr, "weight_decay": recipe.weight_decay, "decay": self.decay}
        if isinstance(state, AdamWState):
            options |= {"beta1": recipe.beta1, "beta2": recipe.beta2}
            self._optim = parallel_update(adamw_step, self._params, grads, state, **options)
        else:
            self._optim = parallel_update(sgd_step, self._params, grads, state, momentum=recipe.momentum, **options)

    def predict(self, images: Array) -> Array:
        return parallel_predict(self._params, images, self.config)

    def trace(
        self, images: Array, labels: Array, masks: Mapping[str, Array] | None = None, label_smoothing: float = 0.0
    ) -> Trace:
        values: dict[str, Array] = {}
        grads: dict[str, Array] = {}
        logits, cache = vit_forward(self._params, images, self.config, masks, values)
        loss, loss_cache = cross_entropy_forward(logits, labels, label_smoothing)
        _, param_grads = vit_backward(cross_entropy_backward(loss_cache), cache, grads)
        return Trace(float(loss), values, grads, {name: param_grads[name] for name in self._params})

    def params(self) -> dict[str, Array]:
        return {name: p.copy() for name, p in self._params.items()}

    def state(self) -> dict[str, Array]:
        flat = {f"params/{name}": p.copy() for name, p in self._params.items()}
        for kind, value in self._optim._asdict().items():
            if isinstance(value, dict):
                flat |= {f"optim/{kind}/{name}": array.copy() for name, array in value.items()}
            else:
                flat[f"optim/{kind}"] = np.array(value)
        return flat

    def load_state(self, state: Mapping[str, Array]) -> None:
        check_state(self.state(), state)
        self.load(self.config, {name: state[f"params/{name}"] for name in self._params}, self.recipe.dtype)
        fields: dict[str, Any] = {}
        for kind, value in self._optim._asdict().items():
            if isinstance(value, dict):
                fields[kind] = {name: state[f"optim/{kind}/{name}"].copy() for name in value}
            else:
                fields[kind] = int(state[f"optim/{kind}"])
        self._optim = type(self._optim)(**fields)
        self._halted = False
