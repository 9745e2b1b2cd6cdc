r"""Loss of a masked autoencoder: squared error of the pixels of the patches that were not seen."""

import torch
from torch import Tensor

from torch_vit.patch_embed import patchify
from vit_common.errors import DtypeError, RangeError, check_shape

EPS = 1e-6  # added to the variance of a patch


def mae_loss_forward(
    prediction: Tensor, images: Tensor, mask: Tensor, patch_size: tuple[int, int], norm_pix: bool = True
) -> Tensor:
    """prediction (B, N, Q), images (B, C, H, W), mask (B, N) of bool, True = seen -> loss (), Q = P_h P_w C.

    Raises:
        ShapeError: prediction or mask do not fit the images.
        DtypeError: a mask that is not bool.
        RangeError: no patch is hidden, so there is nothing to compare.
    """
    check_shape("images", images, ("B", "C", "H", "W"))
    target = patchify(images, patch_size).unflatten(-1, (images.shape[1], -1)).transpose(2, 3).flatten(2)
    check_shape("prediction", prediction, tuple(target.shape))
    check_shape("mask", mask, tuple(target.shape[:2]))
    if mask.dtype != torch.bool:
        raise DtypeError(f"mask has dtype {mask.dtype}, expected bool with True = a patch that is seen")
    if mask.all():
        raise RangeError("every patch is seen: a masked autoencoder needs hidden ones; raise mask_ratio")
    if norm_pix:
        variance, mean = target.var(dim=-1, keepdim=True), target.mean(dim=-1, keepdim=True)
        target = (target - mean) / (variance + EPS).sqrt()
    error = (prediction - target).square().mean(dim=-1)  # (B, N)
    return (error * ~mask).sum() / (~mask).sum()
