r"""Residual block of two branches, attention then MLP, whatever stands in each."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.assembled_attention import AssembledAttention
from torch_vit.branch import BranchNames, make_mlp, run_branch
from torch_vit.layer_scale import LayerScale
from torch_vit.multi_head import AttentionPath
from torch_vit.norm import make_norm
from torch_vit.positions import Positions
from torch_vit.tape import Tap
from vit_common.assembled_spec import residual_spec
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.part_names import names_of

ATTN = BranchNames("norm1", "attn", "ls1.gamma", "drop_path1")
MLP = BranchNames("norm2", "mlp", "ls2.gamma", "drop_path2")


class AssembledBlock(nn.Module):
    """Parameters `norm1.*`, `attn.*`, `norm2.*`, `mlp.*`, and `ls1.gamma`, `ls2.gamma` or `gamma_1`, `gamma_2`."""

    def __init__(
        self, config: ViTConfig, layer: int = 0, drop_path_rate: float = 0.0, attention: AttentionPath = "fused"
    ):
        super().__init__()
        self.config, self.rate = config, drop_path_rate
        self.norm1 = make_norm(config.embed_dim, config.norm, config.norm_eps)
        self.attn = AssembledAttention(config, layer, attention)
        self.residual = Tap()
        self.norm2 = make_norm(config.embed_dim, config.norm, config.norm_eps)
        self.mlp = make_mlp(config)
        if config.layer_scale is not None and config.block == "pre_norm":
            for i in (1, 2) if config.layer_scale_mlp else (1,):
                if config.layer_scale_names == "gamma":
                    setattr(self, f"gamma_{i}", nn.Parameter(torch.full((config.embed_dim,), config.layer_scale)))
                else:
                    setattr(self, f"ls{i}", LayerScale(config.embed_dim, config.layer_scale))

    def gamma(self, i: int) -> Tensor | None:
        named = getattr(self, f"gamma_{i}", None)
        return named if named is not None else getattr(getattr(self, f"ls{i}", None), "gamma", None)

    def forward(
        self, x: Tensor, positions: Positions = Positions(), masks: Mapping[str, Tensor] | None = None  # noqa: B008
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        rest = positions, self.rate, masks, self.training and masks is None
        z = self.residual(x + run_branch(self.norm1, self.attn, self.gamma(1), x, self.config, ATTN, *rest))
        return z + run_branch(self.norm2, self.mlp, self.gamma(2), z, self.config, MLP, *rest)


def assembled_block_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, positions: Positions = Positions(),  # noqa: B008
    masks: Mapping[str, Tensor] | None = None, drop_path_rate: float = 0.0,
) -> Tensor:  # fmt: skip
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    check_names("assembled_block", params, names_of(residual_spec, config, positions.layer))
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = AssembledBlock(config, positions.layer, drop_path_rate, "explicit").eval()
    return functional_call(module, dict(params), (x, positions, masks), strict=True)
