r"""Resizing along one axis as a matrix: each library's rule by its name, from torch's own interpolation."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vit_common.errors import ConfigError, nearest


class Rule(NamedTuple):
    mode: str
    corners: bool = False  # corners aligned
    antialias: bool = False
    offset: float | None = None  # resized by a factor, of a new size that is this much larger
    drops: bool = False  # a point that rounding puts past the last one gets zeros


RULES: dict[str, Rule] = {
    "timm_bicubic": Rule("bicubic", antialias=True),
    "timm_bicubic_no_antialias": Rule("bicubic"),
    "timm_bilinear": Rule("bilinear", antialias=True),
    "timm_bilinear_no_antialias": Rule("bilinear"),
    "huggingface_bicubic": Rule("bicubic"),
    "huggingface_bilinear": Rule("bilinear"),
    "torchvision_bicubic": Rule("bicubic", corners=True),
    "google_zoom": Rule("bilinear", corners=True, drops=True),  # scipy.ndimage.zoom of order 1, big_vision's too
    "open_clip_bicubic": Rule("bicubic", antialias=True),
    "mae_bicubic": Rule("bicubic"),
    "dino_bicubic": Rule("bicubic", offset=0.1),
    "dinov2_bicubic": Rule("bicubic", offset=0.1),
    "dinov2_bicubic_antialias": Rule("bicubic", antialias=True, offset=0.1),
    "dinov2_registers_bicubic": Rule("bicubic", antialias=True),
    "flexivit_bilinear": Rule("bilinear", antialias=True),
    "flexivit_patch_bilinear": Rule("bilinear"),
}


def resize_matrix(new: int, old: int, rule: str) -> Tensor:
    """(new, old) in float64: column u is what interpolation makes of a 1 at point u and zeros elsewhere.

    Raises:
        ConfigError: an unknown rule.
    """
    if rule not in RULES:
        raise ConfigError(f"resize rule {rule!r} is unknown; {nearest(rule, RULES)}")
    mode, corners, antialias, offset, drops = RULES[rule]
    # Two equal columns: torch 2.13 misreads an image of a single one, which looks channels-last to it.
    points = torch.eye(old, dtype=torch.float64)[:, None, :, None].repeat(1, 1, 1, 2)  # (old, 1, old, 2)
    how: dict[str, Any] = {"mode": mode, "antialias": antialias}
    if offset is None:
        resized = F.interpolate(points, (new, 2), align_corners=corners, **how)
    else:
        resized = F.interpolate(points, scale_factor=((new + offset) / old, 1.0), **how)
    matrix = resized[:, 0, :, 0].T
    if drops and new > 1:
        places = torch.arange(new, dtype=torch.float64) * ((old - 1) / (new - 1))
        matrix = torch.where(places[:, None] > old - 1, 0.0, matrix)
    return matrix
