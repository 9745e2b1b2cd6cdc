r"""Patch dropout: part of the patches is left out of a training pass, which makes it cheaper."""

import torch
from torch import Tensor

from vit_common.errors import DtypeError, RangeError, check_shape


def kept_places(mask: Tensor) -> Tensor:
    """mask (B, N) of bool, True = keep, as many in each row -> their places (B, N'), ascending.

    Raises:
        DtypeError: the mask is not bool.
        RangeError: rows that keep different numbers of patches, or none.
    """
    check_shape("patch_drop mask", mask, ("B", "N"))
    if mask.dtype != torch.bool:
        raise DtypeError(f"patch_drop mask has dtype {mask.dtype}, expected torch.bool with True = keep")
    counts = mask.sum(dim=1)
    if counts.min() != counts.max() or counts.min() < 1:
        raise RangeError(f"patch_drop keeps {counts.min()} to {counts.max()} patches; keep as many in each, not 0")
    return mask.nonzero()[:, 1].reshape(len(mask), -1)


def random_mask(batch: int, patches: int, rate: float, device: torch.device) -> Tensor:
    """A mask (B, N) that keeps max(1, N * (1 - rate)) patches of each image, from torch's generator."""
    keep = max(1, int(patches * (1.0 - rate)))
    return torch.rand(batch, patches, device=device).argsort(dim=1) < keep


def patch_dropout_forward(x: Tensor, mask: Tensor, prefix: int = 0) -> Tensor:
    """x (B, P + N, D), mask (B, N) of bool, True = keep -> (B, P + N', D): the P prefix tokens and the patches kept.

    Raises:
        ShapeError, DtypeError, RangeError: a mask that does not fit.
    """
    check_shape("x of patch_dropout", x, ("B", "T", "D"))
    check_shape("patch_drop mask", mask, (x.shape[0], x.shape[1] - prefix))
    keep = kept_places(mask)
    patches = x[:, prefix:].gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    return torch.cat((x[:, :prefix], patches), dim=1)
