r"""Recipe: every number that defines how a model is trained, beside `ViTConfig`, which defines the model itself."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, nearest


@dataclass(frozen=True)
class Recipe:
    """How to train. The same recipe and seed give both engines the same weights, batches, masks and augmentation.

    Raises:
        ConfigError: a number outside its legal range, or an unknown choice.
    """

    epochs: int = 10
    """passes over the training images"""
    batch_size: int = 64
    """images in one step; what does not fill a batch is left out, another part in each epoch"""
    lr: float = 1e-3
    """peak learning rate, reached at the end of the warm-up"""
    min_lr: float = 0.0
    """learning rate at the end of the cosine"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up"""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """update rule"""
    momentum: float = 0.9
    """momentum of SGD"""
    beta1: float = 0.9
    """AdamW: decay of the running mean of the gradient"""
    beta2: float = 0.999
    """AdamW: decay of the running mean of its square"""
    weight_decay: float = 0.05
    """weight decay of matrices; norms, biases, class token and positions have none"""
    clip_norm: float = 1.0
    """largest norm of all gradients together; 0 switches clipping off"""
    label_smoothing: float = 0.0
    """share of the label that is spread over all classes"""
    augment: Literal["none", "shift", "flip", "shift+flip"] = "none"
    """random change of each training image"""
    seed: int = 0
    """key of all randomness: initial weights, order, masks, augmentation"""
    dtype: Literal["float32", "float64"] = "float32"
    """precision of parameters and arithmetic"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            _check(self, name, isinstance(getattr(self, name), int) and getattr(self, name) >= 1, "an integer above 0")
        _check(self, "lr", self.lr > 0 and math.isfinite(self.lr), "positive, e.g. 0.001")
        _check(self, "min_lr", 0 <= self.min_lr <= self.lr, f"between 0 and lr={self.lr}")
        _check(self, "warmup_epochs", 0 <= self.warmup_epochs < math.inf, "0 or more, e.g. 1")
        for name in ("momentum", "beta1", "beta2"):
            _check(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        for name in ("weight_decay", "clip_norm"):
            _check(self, name, getattr(self, name) >= 0, "0 or more")
        _check(self, "label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)")
        for name in ("optimizer", "augment", "dtype"):
            choices = get_args(self.__dataclass_fields__[name].type)  # the strings of the Literal
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown; {nearest(getattr(self, name), choices)}")

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        known = cls.__dataclass_fields__
        for name in values:
            if name not in known:
                raise ConfigError(f"Recipe has no field {name!r}; {nearest(name, known)}")
        return cls(**values)

    @classmethod
    def for_data(cls, data: str, **overrides: Any) -> "Recipe":
        """The recipe of a dataset by name; anything else (a folder) gets a general one."""
        return cls.from_dict({**RECIPES.get(data, FOLDER_RECIPE), **overrides})


def config_for_data(data: str, preset: str = "", **overrides: Any) -> ViTConfig:
    """The model that fits a dataset: a preset (by default the dataset's own) with as many classes as the dataset."""
    own_preset, fields = MODELS.get(data, FOLDER_MODEL)
    if preset and preset != own_preset:
        fields = {name: value for name, value in fields.items() if name == "num_classes"}
    return ViTConfig.preset(preset or own_preset, **{**fields, **overrides})


def _check(recipe: Recipe, name: str, fine: bool, expected: str) -> None:
    if not fine:
        raise ConfigError(f"{name}={getattr(recipe, name)!r} is not legal; expected {expected}")


RECIPES: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 30, "batch_size": 32, "lr": 3e-3, "weight_decay": 0.5, "label_smoothing": 0.1},
    "mnist": {"epochs": 10, "batch_size": 100, "lr": 2e-3, "augment": "shift"},
    "fashion-mnist": {"epochs": 20, "batch_size": 100, "lr": 3e-3, "augment": "shift+flip", "label_smoothing": 0.1},
    "cifar10": {"epochs": 100, "batch_size": 128, "warmup_epochs": 5, "augment": "shift+flip", "label_smoothing": 0.1},
}
FOLDER_RECIPE: dict[str, Any] = {"epochs": 50, "warmup_epochs": 3, "augment": "shift+flip", "label_smoothing": 0.1}

# Dataset -> (preset, fields that differ from it).
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("digits", {"num_classes": 10}),
    "mnist": ("mnist", {"num_classes": 10}),
    "fashion-mnist": ("mnist", {"num_classes": 10}),
    "cifar10": ("cifar10", {"num_classes": 10, "drop_path_rate": 0.1}),
}
FOLDER_MODEL = "cifar10", {"image_size": 64, "patch_size": 8, "drop_path_rate": 0.1}
