"""A library's own constructor arguments as fields of ViTConfig, for those who have these and no ViTConfig.

One table a library: its word, and what it means here. What the tensors tell anyway is not taken over but compared with
what they tell, under the name of a property of ViTConfig (`mlp_dim`, `head_dim`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, nearest

Fields = dict[str, Any]
Meaning = str | Callable[[Any, Mapping[str, Any]], Fields]  # another name, or a function of the value and of all values

OWN = ViTConfig.__dataclass_fields__
ACTIVATIONS = {
    "gelu": "gelu", "quickgelu": "quick_gelu", "gelutanh": "gelu_tanh", "gelupytorchtanh": "gelu_tanh", "relu": "relu",
    "silu": "silu", "swish": "silu",
}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """library: its name, for messages. words: its words. defaults: its own, of what no tensor tells.

    The words of ViTConfig are understood beside them; where all words are those, there are no defaults.
    """

    library: str
    words: Mapping[str, Meaning]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, values: Mapping[str, Any]) -> Fields:
        """Fields and properties of ViTConfig that the values stand for.

        Raises:
            ConfigError: an argument or a value that has no counterpart here.
        """
        out: Fields = dict(self.defaults) if values.keys() & (self.words.keys() - OWN.keys()) else {}
        for name, value in values.items():
            meaning = self.words.get(name, name)
            if name not in self.words and name not in OWN:
                hint = nearest(name, [*self.words, *OWN])
                raise ConfigError(f"{self.library}'s argument {name!r} has no counterpart here; {hint}")
            if value is None and name in self.words:
                continue  # the library's word for its default
            try:
                out |= {meaning: value} if isinstance(meaning, str) else meaning(value, values)
            except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                raise ConfigError(f"{self.library}'s argument {name}={value!r} is not understood ({error})") from error
        return out


def ignored(value: Any, values: Mapping[str, Any]) -> Fields:
    """It leaves the trained function as it is, or the tensors tell it."""
    return {}


def rates(*names: str) -> Meaning:
    """One rate of dropout there, several here."""
    return lambda value, values: dict.fromkeys(names, float(value))


def choice(name: str, choices: Mapping[Any, Fields]) -> Meaning:
    """Each value that has a counterpart here, as fields."""

    def meaning(value: Any, values: Mapping[str, Any]) -> Fields:
        if value not in choices:
            known = ", ".join(map(repr, choices))
            raise ConfigError(f"{name}={value!r} has no counterpart here; known: {known}")
        return choices[value]

    return meaning


def only(name: str, *fine: Any) -> Meaning:
    """Fine with one of these values, which leave the model as it is or are told by the tensors; none other is built."""
    return choice(name, {value: {} for value in fine})


def nested(words: Mapping[str, Meaning], library: str) -> Meaning:
    """A table of arguments within the arguments."""
    return lambda value, values: Arguments(library, words)(value)


def activation(value: Any, values: Mapping[str, Any]) -> Fields:
    """"QuickGELU", "gelu_tanh", a class of that name."""
    word = re.sub(r"[^a-z]", "", str(getattr(value, "__name__", value)).split(".")[-1].lower())
    if word not in ACTIVATIONS:
        raise ConfigError(f"the activation {value!r} is unknown; {nearest(word, ACTIVATIONS)}")
    return {"activation": ACTIVATIONS[word]}


def norm_eps(value: Any, values: Mapping[str, Any]) -> Fields:
    """The eps in "LayerNorm(eps=1e-05)" or in partial(LayerNorm, eps=1e-05)."""
    found = re.search(r"eps=([0-9.e+-]+)", repr(value))
    return {"norm_eps": float(found[1])} if found else {}


def image_size(value: Any, values: Mapping[str, Any]) -> Fields:
    """An int, a pair, or a list of one."""
    return {"image_size": pair(value)}


def pair(value: Any) -> tuple[int, int]:
    sides = (value,) if isinstance(value, int) else tuple(value)
    height, width = sides * 2 if len(sides) == 1 else sides
    return int(height), int(width)


def patch_size(value: Any, values: Mapping[str, Any]) -> Fields:
    return {"patch_size": pair(value)}


# timm's VisionTransformer, and what descends from it.
TIMM_WORDS: dict[str, Meaning] = {
    "img_size": image_size, "patch_size": patch_size, "in_chans": "in_channels", "init_values": ignored,
    "global_pool": choice("global_pool", {
        "token": {"pool": "cls"}, False: {"pool": "cls"}, "avg": {"pool": "mean"}, True: {"pool": "mean"},
        "map": {"pool": "map"}, "max": {"pool": "max"}, "avgmax": {"pool": "avg_max"},
    }),
    "qkv_bias": lambda value, values: {} if isinstance(value, bool) else {"qkv_bias": value},
    "proj_bias": "proj_bias", "ffn_bias": "mlp_bias", "norm_layer": norm_eps, "act_layer": activation,
    "qk_scale": only("qk_scale", None), "drop_rate": ignored, "weight_init": ignored, "representation_size": ignored,
    "no_embed_class": lambda value, values: {"pos_embed_prefix": not value},
}  # fmt: skip
TIMM_DEFAULTS = {"norm_eps": 1e-6, "activation": "gelu", "pool": "cls"}
