r"""Dropout and stochastic depth, with the mask as an explicit input.

Given a mask, both drop exactly what the NumPy engine drops. Without one, and with `training=True`, they draw from
torch's own generator, as torch users expect; otherwise they are the identity.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vit_common.errors import DtypeError, RangeError, check_shape


def dropout_forward(x: Tensor, mask: Tensor | None, rate: float, training: bool = False) -> Tensor:
    """x (...), mask (...) of bool, True = keep -> (...): x * mask / (1 - rate).

    Raises:
        ShapeError, DtypeError, RangeError: a mask of another shape or dtype, a rate outside [0, 1).
    """
    if mask is not None:
        check_shape("dropout mask", mask, x.shape)
    _check_rate(rate)
    if mask is None:
        return F.dropout(x, rate) if training and rate else x
    return _drop(x, mask, rate)


def drop_path_forward(x: Tensor, mask: Tensor | None, rate: float, training: bool = False) -> Tensor:
    """x (B, ...), mask (B,) of bool, True = keep -> (B, ...): dropout of a whole branch, image by image.

    Raises:
        ShapeError, DtypeError, RangeError: as for dropout.
    """
    _check_rate(rate)
    if mask is None:
        if not (training and rate):
            return x
        mask = torch.rand(x.shape[0], device=x.device) >= rate
    check_shape("drop_path mask", mask, x.shape[:1])
    return _drop(x, mask.reshape(-1, *(1,) * (x.ndim - 1)), rate)


def _drop(x: Tensor, mask: Tensor, rate: float) -> Tensor:
    if mask.dtype != torch.bool:
        raise DtypeError(f"drop mask has dtype {mask.dtype}, expected torch.bool with True = keep")
    return x * mask * (1.0 / (1.0 - rate))


def _check_rate(rate: float) -> None:
    if not (math.isfinite(rate) and 0.0 <= rate < 1.0):
        raise RangeError(f"drop rate {rate} is outside [0, 1)")
