r"""Resizing along one axis as a matrix: each library's rule by its name, from torch's own interpolation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vit_common.errors import ConfigError, nearest

# rule: mode, corners aligned, antialias
RULES = {
    "timm_bicubic": ("bicubic", False, True),
    "timm_bicubic_no_antialias": ("bicubic", False, False),
    "timm_bilinear": ("bilinear", False, True),
    "timm_bilinear_no_antialias": ("bilinear", False, False),
    "huggingface_bicubic": ("bicubic", False, False),
    "torchvision_bicubic": ("bicubic", True, False),
    "google_zoom": ("bilinear", True, False),
}


def resize_matrix(new: int, old: int, rule: str) -> Tensor:
    """(new, old) in float64: column u is what interpolation makes of a 1 at point u and zeros elsewhere.

    Raises:
        ConfigError: an unknown rule.
    """
    if rule not in RULES:
        raise ConfigError(f"resize rule {rule!r} is unknown; {nearest(rule, RULES)}")
    mode, corners, antialias = RULES[rule]
    # Two equal columns: torch 2.13 misreads an image of a single one, which looks channels-last to it.
    points = torch.eye(old, dtype=torch.float64)[:, None, :, None].repeat(1, 1, 1, 2)  # (old, 1, old, 2)
    resized = F.interpolate(points, (new, 2), mode=mode, align_corners=corners, antialias=antialias)
    return resized[:, 0, :, 0].T
