r"""Patch embedding of variants: pixels cropped or filled up to whole patches, norms around the projection."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from torch_vit.layer_norm import LayerNorm
from torch_vit.linear import linear_forward
from torch_vit.norm import make_norm
from torch_vit.patch_embed import patch_embed_forward, patchify
from vit_common.config import ViTConfig
from vit_common.errors import check_shape


class PatchStem(nn.Module):
    """Parameters `proj.weight` (D, C, P_h, P_w), `proj.bias` (D,), `norm_in.*` (C*P_h*P_w,), `norm.*` (D,)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        size, width = config.patch_size, config.embed_dim
        self.norm_in = LayerNorm(config.patch_dim, config.norm_eps) if config.patch_norm_in else None
        self.proj = nn.Conv2d(config.in_channels, width, size, stride=size, bias=config.patch_bias)
        eps = config.patch_norm_eps or config.norm_eps
        self.norm = None if config.patch_norm == "none" else make_norm(width, config.patch_norm, eps)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D)."""
        config, weight, bias = self.config.for_images(images.shape), self.proj.weight, self.proj.bias
        check_shape("images", images, ("B", config.in_channels, *config.image_size))
        height, width = (n * p for n, p in zip(config.grid_size, config.patch_size, strict=True))
        inside = images[:, :, :height, :width]
        inside = F.pad(inside, (0, width - inside.shape[3], 0, height - inside.shape[2]))
        if self.norm_in is None:
            x = patch_embed_forward(inside, weight, bias)
        else:
            patches = patchify(inside, (weight.shape[2], weight.shape[3]))
            x = linear_forward(self.norm_in(patches), weight.flatten(1), bias)
        return x if self.norm is None else self.norm(x)


def patch_stem_forward(params: Mapping[str, Tensor], images: Tensor, config: ViTConfig) -> Tensor:
    """(B, C, H, W) -> (B, N, D), with the parameters as an argument, as in the NumPy engine."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = PatchStem(config)
    return functional_call(module, dict(params), (images,), strict=True)
