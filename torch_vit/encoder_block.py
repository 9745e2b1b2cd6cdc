r"""Pre-norm encoder block: attention and MLP, each on a normalised copy, each added back to the stream."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.dropout import drop_path_forward
from torch_vit.layer_norm import LayerNorm
from torch_vit.mlp import Mlp
from torch_vit.multi_head import AttentionPath, MultiHead
from torch_vit.tape import Tap
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import sub
from vit_common.part_names import ENCODER_BLOCK


class EncoderBlock(nn.Module):
    """Parameters `norm1.*`, `attn.*`, `norm2.*`, `mlp.*`; masks of those, `drop_path1` and `drop_path2` (B,)."""

    def __init__(self, config: ViTConfig, drop_path_rate: float = 0.0, attention: AttentionPath = "fused"):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = LayerNorm(config.embed_dim, config.norm_eps)
        self.attn = MultiHead(config, attention)
        self.residual = Tap()
        self.norm2 = LayerNorm(config.embed_dim, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        random = self.training and masks is None
        attn_masks, mlp_masks = (None if masks is None else sub(masks, name) for name in ("attn", "mlp"))
        path1, path2 = (None if masks is None else masks.get(name) for name in ("drop_path1", "drop_path2"))
        a = self.attn(self.norm1(x), attn_masks)
        z = self.residual(x + drop_path_forward(a, path1, self.drop_path_rate, random))
        m = self.mlp(self.norm2(z), mlp_masks)
        return z + drop_path_forward(m, path2, self.drop_path_rate, random)


def encoder_block_forward(
    params: Mapping[str, Tensor],
    x: Tensor,
    config: ViTConfig,
    masks: Mapping[str, Tensor] | None = None,
    drop_path_rate: float = 0.0,
) -> Tensor:
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    check_names("encoder_block", params, ENCODER_BLOCK)
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = EncoderBlock(config, drop_path_rate, "explicit").eval()
    return functional_call(module, dict(params), (x, masks), strict=True)
