"""What the tables of Hugging Face's models have in common."""

from typing import Any

import numpy as np

from vit_common.config import ViTConfig
from vit_common.layouts.rules import THIRDS

HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.", "visual_projection.")
NEEDS = ("num_heads", "norm_eps", "activation")
CLASSIFIER = ("head.*", "classifier.*")


def attention(start: str, query: str, key: str, value: str, out: str) -> tuple[tuple, ...]:
    """Query, key and value apart there, fused or apart here."""
    ours, names = "blocks.{i}.attn.", tuple(start + name for name in (query, key, value))
    return (
        (ours + "qkv.*", tuple(name + ".*" for name in names), THIRDS),
        (ours + "q_bias", names[0] + ".bias"),
        (ours + "v_bias", names[2] + ".bias"),
        *((f"{ours}{letter}_proj.*", name + ".*") for letter, name in zip("qkv", names, strict=True)),
        (ours + "proj.*", out + ".*"),
    )


def zeros(*axes: str) -> Any:
    """A tensor of zeros: an axis is the width D, three of it, the hidden width M, or a number."""
    def make(c: ViTConfig) -> np.ndarray:
        sizes = {"D": c.embed_dim, "3D": 3 * c.embed_dim, "M": c.mlp_dim}
        return np.zeros([sizes.get(axis) or int(axis) for axis in axes], np.float32)

    return make


def prefixed(word: str) -> Any:
    """A classifier holds the body under the model's name; the body alone stands bare."""
    return lambda config: word if config.num_classes else ""
