"""One example of every stage, in standard normal numbers and with sizes that all differ, as one would write it by hand.

For what needs a typical case rather than a strange one: showing what weak tests miss, and saying what went wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from parity_tests.strategies import Case, normal
from vit_common import ViTConfig, init_params, make_masks
from vit_common.params import sub

STREAM = {"multi_head": "blocks.0.attn", "mlp": "blocks.0.mlp", "encoder_block": "blocks.0", "encoder": "blocks",
          "head": "head", "vit": ""}  # fmt: skip


class Setting(NamedTuple):
    """What a test's author may leave at its most convenient."""

    batch: int = 3
    square: bool = False  # every size the same
    fresh: bool = False  # weights as a new model has them: ones in the norms, zeros in the biases
    options: bool = True  # dropout, stochastic depth, label smoothing, an eps of one's own
    depth: int = 3


def ordinary_case(stage: str, setting: Setting) -> Case:
    """One example of a stage: standard normal numbers, sizes that differ unless `square`."""
    b = 4 if setting.square and setting.batch > 1 else setting.batch
    tokens, width, out, heads, dim = (4, 4, 4, 4, 4) if setting.square else (5, 6, 7, 2, 3)
    on, x = setting.options, normal(0, (b, tokens, width))
    keep = np.random.default_rng(1).random
    spread = 0.0 if setting.fresh else 0.3
    match stage:
        case "linear":
            return Case({"x": x, "weight": normal(1, (out, width)), "bias": normal(2, (out,))}, {})
        case "patch_embed":
            patch, size = ((2, 2), (4, 4)) if setting.square else ((3, 2), (6, 8))
            weight, bias = normal(1, (width, 2, *patch)), normal(2, (width,))
            return Case({"x": normal(0, (b, 2, *size)), "weight": weight, "bias": bias}, {})
        case "class_token" | "pos_embed":
            name, shape = ("cls_token", (1, 1, width)) if stage == "class_token" else (stage, (1, tokens, width))
            return Case({"x": x, name: normal(1, shape)}, {})
        case "layer_norm":
            weight, bias = 1 + spread * normal(2, (width,)), spread * normal(3, (width,))
            return Case({"x": x, "weight": weight, "bias": bias}, {"eps": 1e-3 if on else 1e-6})
        case "gelu" | "softmax":
            return Case({"x": x}, {})
        case "dropout":
            return Case({"x": x}, {"mask": keep(x.shape) >= 0.3 if on else None, "rate": 0.3 if on else 0.0})
        case "attention":
            keys = tokens  # self-attention: as many keys as queries
            arrays = {n: normal(i, (b, heads, keys, dim)) for i, n in enumerate("qkv")}
            mask = keep((b, heads, tokens, keys)) >= 0.3 if on else None
            return Case(arrays, {"drop_mask": mask, "drop_rate": 0.3 if on else 0.0})
        case "pool":
            return Case({"x": x}, {"pool": "mean", "prefix": 1})
        case "cross_entropy":
            labels = np.arange(b) % out
            return Case({"x": normal(0, (b, out))}, {"labels": labels, "label_smoothing": 0.1 if on else 0.0})
    return model_case(stage, setting, b)


def model_case(stage: str, setting: Setting, batch: int) -> Case:
    rate = 0.3 if setting.options else 0.0
    common = {"depth": setting.depth, "attn_drop_rate": rate, "proj_drop_rate": rate, "drop_path_rate": rate,
              "norm_eps": 1e-3 if setting.options else 1e-6, "pos_drop_rate": rate}  # fmt: skip
    if setting.square:
        config = ViTConfig(image_size=4, patch_size=2, in_channels=4, num_classes=16, embed_dim=16, num_heads=4,
                           mlp_ratio=1.0, class_token=False, pool="mean", **common)  # fmt: skip
    else:
        config = ViTConfig(image_size=(6, 4), patch_size=(3, 2), in_channels=2, num_classes=5, embed_dim=6, num_heads=2,
                           mlp_ratio=2.0, **common)  # fmt: skip
    params = init_params(config, 0, np.float64)
    if not setting.fresh:
        params = {n: p + 0.3 * normal(i, p.shape) for i, (n, p) in enumerate(params.items())}
    prefix, masks = STREAM[stage], make_masks(config, batch, 0, 0)
    options: dict[str, Any] = {"config": config}
    if stage != "head":
        options["masks"] = (sub(masks, prefix) if prefix else masks) if setting.options else None
    if stage == "encoder_block":
        options["drop_path_rate"] = rate
    pixels, stream = (config.in_channels, *config.image_size), (config.num_tokens, config.embed_dim)
    shape = batch, *(pixels if stage == "vit" else stream)
    return Case({"x": normal(7, shape), **(sub(params, prefix) if prefix else params)}, options)
