r"""Patch embedding: cut the image into patches, map each to a token."""

from torch import Tensor
from torch.nn import functional as F

from vit_common.errors import ShapeError, check_shape, check_sizes


def patchify(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, N, C*P_h*P_w): patches row by row, each flattened as (C, P_h, P_w).

    Raises:
        ShapeError: the images have not four axes, or the patch does not divide them.
        RangeError: the size of a patch is not two positive whole numbers.
    """
    check_sizes("patch_size", patch_size)
    check_divisible(images, patch_size)
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


def unpatchify(patches: Tensor, image_shape: tuple[int, int, int], patch_size: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, C*P_h*P_w) and (C, H, W) -> (B, C, H, W)."""
    check_sizes("patch_size", patch_size)
    channels, height, width = image_shape
    count = (height // patch_size[0]) * (width // patch_size[1])
    check_shape("patches", patches, ("B", count, channels * patch_size[0] * patch_size[1]))
    return F.fold(patches.transpose(1, 2), (height, width), patch_size, stride=patch_size)


def patch_embed_forward(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, C, H, W), (D, C, P_h, P_w), (D,) -> (B, N, D): a convolution whose stride is its kernel.

    Raises:
        ShapeError: channels differ, or the patch does not divide the image.
    """
    check_shape("images", images, ("B", "C", "H", "W"))
    check_shape("patch_embed weight", weight, ("D", images.shape[1], "P_h", "P_w"))
    check_divisible(images, weight.shape[2:])
    return F.conv2d(images, weight, bias, stride=weight.shape[2:]).flatten(2).transpose(1, 2)


def check_divisible(images: Tensor, patch_size: tuple[int, ...]) -> None:
    check_shape("images", images, ("B", "C", "H", "W"))
    height, width = images.shape[2:]
    patch_h, patch_w = patch_size
    if height % patch_h or width % patch_w:
        raise ShapeError(
            f"images of {height}x{width} pixels are not divisible into patches of {patch_h}x{patch_w}; "
            f"crop or resize them to multiples of the patch"
        )
