"""What an engine offers to the training loop and the commands: a protocol, so that neither knows the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, SupportsFloat

import numpy as np

from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError
from vit_common.raw_images import RawImages
from vit_common.recipe import Recipe

Arrays = Mapping[str, np.ndarray]


class StepResult:
    """What one training step says: the batch's loss in nats, and the norm of all gradients before clipping.

    Read when asked for: a device may still be at work on them, and only who looks has to wait for it.
    """

    def __init__(self, loss: SupportsFloat, grad_norm: SupportsFloat):
        self._loss, self._grad_norm = loss, grad_norm

    @property
    def loss(self) -> float:
        return float(self._loss)

    @property
    def grad_norm(self) -> float:
        return float(self._grad_norm)

    def __iter__(self) -> Iterator[float]:
        return iter((self.loss, self.grad_norm))


@dataclass(frozen=True)
class Trace:
    """One forward and backward pass, everything kept: intermediates, d loss / d each, d loss / d each parameter."""

    loss: float
    values: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]
    param_grads: dict[str, np.ndarray]


class Engine(Protocol):
    """A Vision Transformer with an optimizer. Arrays in and out are NumPy's, whatever is inside.

    A training state is one flat dict that any engine can load: `params/NAME`, for AdamW `optim/m/NAME`, `optim/v/NAME`
    and `optim/step`, for SGD `optim/momentum/NAME`.
    """

    name: str
    requires: tuple[str, ...]  # packages beyond NumPy, whose versions a run records

    def load(self, config: ViTConfig, params: Arrays, dtype: str = "float32") -> None:
        """Take a copy of the parameters, for `predict` and `trace` alone."""

    def start(self, config: ViTConfig, params: Arrays, recipe: Recipe) -> None:
        """Take a copy of the parameters, in `recipe.dtype`, and a fresh optimizer."""

    def images(self, raw: RawImages, dtype: str) -> Any:
        """What `train_step` and `predict` take as images: (B, C, H, W), made where the engine computes."""

    def train_step(self, images: Any, labels: np.ndarray, masks: Arrays | None, lr: float) -> StepResult:
        """Images float (B, C, H, W), an array or what `images` made; labels int (B,).

        If loss or gradient is not finite, nothing is updated, by this step or by any after it until a state is loaded:
        the results may be looked at late, and then the parameters are still those before the step that failed.
        """

    def predict(self, images: Any) -> np.ndarray:
        """Images as in `train_step` -> logits (B, K), nothing dropped."""

    def trace(self, images: np.ndarray, labels: np.ndarray, masks: Arrays | None, label_smoothing: float) -> Trace:
        """Forward and backward of one batch, without an update."""

    def params(self) -> dict[str, np.ndarray]:
        """The parameters, copied."""

    def state(self) -> dict[str, np.ndarray]:
        """The training state, copied."""

    def load_state(self, state: Arrays) -> None:
        """Go on from a state; `start` comes first."""


def check_state(own: Arrays, given: Arrays) -> None:
    """Raise CheckpointError unless a training state has the names, shapes and dtypes of the engine's own."""
    if own.keys() != given.keys():
        odd = sorted(own.keys() ^ given.keys())
        raise CheckpointError(f"this training state is of another model or optimizer: {', '.join(odd[:6])}")
    for name, array in own.items():
        if (array.shape, array.dtype) != (given[name].shape, given[name].dtype):
            raise CheckpointError(
                f"{name} in the training state is {given[name].dtype} {given[name].shape}, "
                f"expected {array.dtype} {array.shape}"
            )


class EngineFactory(Protocol):
    """What a command line needs of an engine: its name, its own options (a dataclass), and how to make one."""

    name: str

    @property
    def Options(self) -> type[Any]: ...

    def __call__(self, options: Any = None) -> Engine: ...
