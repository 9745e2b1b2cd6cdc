r"""Attention and MLP in parallel from one norm and one projection."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.activation import activation_forward
from torch_vit.assembled_attention import HeadNorms
from torch_vit.dropout import drop_path_forward, dropout_forward
from torch_vit.layer_scale import LayerScale
from torch_vit.linear import Linear
from torch_vit.multi_head import AttentionPath, known_path, merge_heads, split_heads
from torch_vit.norm import make_norm
from torch_vit.positions import Positions
from torch_vit.tape import Tap
from vit_common.assembled_spec import parallel_spec
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.part_names import names_of


class ParallelBlock(HeadNorms):
    """Parameters `in_norm.*`, `in_proj.*`, `mlp_bias` if that has no bias, those of `HeadNorms`, `ls.gamma`, and
    `attn_out_proj.*` with `mlp_out_proj.*`, or `out_proj.*` of both side by side (with differential attention).
    """

    def __init__(
        self, config: ViTConfig, layer: int = 0, drop_path_rate: float = 0.0, attention: AttentionPath = "fused"
    ):
        super().__init__()
        self.config, self.layer, self.rate, self.attention = config, layer, drop_path_rate, known_path(attention)
        width, inner, hidden, bias = config.embed_dim, config.attn_dim, config.mlp_dim, config.qkv_bias != "none"
        self.in_norm = make_norm(width, config.norm, config.norm_eps)
        self.in_proj = Linear(width, hidden + 3 * inner, bias=bias)
        self.mlp_bias = None if bias else nn.Parameter(torch.zeros(hidden))
        self.add_head_norms(config)
        self.q, self.k, self.v, self.context, self.mlp_act = (Tap() for _ in range(5))
        if config.uses_diff_attention:
            self.out_proj = Linear(inner + hidden, width, bias=config.proj_bias)
        else:
            self.attn_out_proj = Linear(inner, width, bias=config.proj_bias)
            self.mlp_out_proj = Linear(hidden, width, bias=config.proj_bias)
        self.ls = None if config.layer_scale is None else LayerScale(width, config.layer_scale)

    def forward(
        self, x: Tensor, positions: Positions = Positions(), masks: Mapping[str, Tensor] | None = None  # noqa: B008
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        config, random, masks = self.config, self.training and masks is None, masks or {}
        heads, inner, diff = config.num_heads, config.attn_dim, config.uses_diff_attention
        h, q, k, v = self.in_proj(self.in_norm(x)).split([config.mlp_dim, inner, inner, inner], dim=-1)
        h = h if self.mlp_bias is None else h + self.mlp_bias
        pairs = 2 * heads if diff else heads
        q, k = self.place(split_heads(q, pairs), split_heads(k, pairs), config, positions)
        q, k, v = self.q(q), self.k(k), self.v(split_heads(v, heads))
        y = self.attend(q, k, v, config, self.layer, positions.bias, masks, random, self.attention == "explicit")
        context = self.context(merge_heads(y))
        act = self.mlp_act(activation_forward(h, config.activation))
        m = dropout_forward(act, masks.get("mlp_drop"), config.proj_drop_rate, random)
        if diff:
            y = self.out_proj(torch.cat((context, m), dim=-1))
        else:
            y = self.attn_out_proj(context) + self.mlp_out_proj(m)
        y = y if self.ls is None else self.ls(y)
        return x + drop_path_forward(y, masks.get("drop_path"), self.rate, random)


def parallel_block_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, positions: Positions = Positions(),  # noqa: B008
    masks: Mapping[str, Tensor] | None = None, drop_path_rate: float = 0.0,
) -> Tensor:  # fmt: skip
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    check_names("parallel_block", params, names_of(parallel_spec, config, positions.layer))
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = ParallelBlock(config, positions.layer, drop_path_rate, "explicit").eval()
    return functional_call(module, dict(params), (x, positions, masks), strict=True)
