r"""Encoder: the blocks, one after the other."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.encoder_block import EncoderBlock
from torch_vit.multi_head import AttentionPath
from vit_common.config import ViTConfig
from vit_common.errors import check_names, check_shape
from vit_common.masks import drop_path_rates
from vit_common.params import sub
from vit_common.part_names import encoder_names


class Encoder(nn.ModuleList):
    """Parameters and masks: `0.*` to `{L-1}.*`, those of `EncoderBlock` below the block's number."""

    def __init__(self, config: ViTConfig, attention: AttentionPath = "fused"):
        super().__init__(EncoderBlock(config, rate, attention) for rate in drop_path_rates(config))

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        for i, block in enumerate(self):
            x = block(x, None if masks is None else sub(masks, str(i)))
        return x


def encoder_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, masks: Mapping[str, Tensor] | None = None
) -> Tensor:
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    check_names("encoder", params, encoder_names(config.depth))
    check_shape("x of encoder", x, ("B", "T", config.embed_dim))
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = Encoder(config, "explicit").eval()
    return functional_call(module, dict(params), (x, masks), strict=True)
