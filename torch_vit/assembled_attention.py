r"""Multi-head attention with everything that variants put into it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.biased_attention import biased_attention_forward
from torch_vit.diff_attention import LAMBDAS, diff_attention_forward
from torch_vit.dropout import dropout_forward
from torch_vit.grouped_query import grouped_query_forward
from torch_vit.linear import Linear
from torch_vit.multi_head import AttentionPath, known_path, merge_heads
from torch_vit.norm import make_norm
from torch_vit.positions import Positions, block_bias_forward, turn
from torch_vit.qkv_project import QkvProject
from torch_vit.rms_norm import RmsNorm
from torch_vit.tape import Tap
from vit_common.config import ViTConfig


class HeadNorms(nn.Module):
    """What acts on each head alone: `q_norm.*`, `k_norm.*`; of differential attention `lambda_*`, `sub_norm.weight`.

    A mixin of two blocks whose parameter names stand directly below their own.
    """

    def add_head_norms(self, config: ViTConfig) -> None:
        width = config.head_dim // 2 if config.uses_diff_attention else config.head_dim
        self.q_norm = make_norm(width, config.norm, config.norm_eps) if config.qk_norm else None
        self.k_norm = make_norm(width, config.norm, config.norm_eps) if config.qk_norm else None
        if config.uses_diff_attention:
            for name in LAMBDAS:
                setattr(self, name, nn.Parameter(torch.zeros(width)))
            self.sub_norm = RmsNorm(2 * width, 1e-5)
            self.first, self.second = (nn.ModuleDict({"scores": Tap(), "probs": Tap()}) for _ in range(2))
            self.difference = Tap()
        else:
            self.scores, self.probs = Tap(), Tap()

    def tap(self, name: str, value: Tensor) -> Tensor:
        return self.get_submodule(name)(value)

    def place(self, q: Tensor, k: Tensor, config: ViTConfig, positions: Positions) -> tuple[Tensor, Tensor]:
        """Query and key, normalised over the head and turned."""
        q = q if self.q_norm is None else self.q_norm(q)
        k = k if self.k_norm is None else self.k_norm(k)
        return turn(q, config, positions), turn(k, config, positions)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, config: ViTConfig, layer: int, bias: Tensor | None,
        masks: Mapping[str, Tensor], random: bool, explicit: bool,
    ) -> Tensor:  # fmt: skip
        """Softmax or differential attention, (B, NH, T, HD)."""
        inside = bias, masks.get("attn_drop"), config.attn_drop_rate, random, self.tap if explicit else None
        if not config.uses_diff_attention:
            return biased_attention_forward(q, k, v, *inside)
        params = {name: getattr(self, name) for name in LAMBDAS} | {"sub_norm.weight": self.sub_norm.weight}
        return diff_attention_forward(params, q, k, v, layer, *inside)


class AssembledAttention(QkvProject, HeadNorms):
    """Parameters of `QkvProject` and `HeadNorms`, `relative_position_bias_table`, `norm.*`, `proj.*`."""

    def __init__(self, config: ViTConfig, layer: int = 0, attention: AttentionPath = "fused"):
        super().__init__(config, layer)
        self.config, self.layer, self.attention = config, layer, known_path(attention)
        self.add_head_norms(config)
        self.q, self.k, self.v, self.context = (Tap() for _ in range(4))
        self.relative_position_bias_table = None
        if config.rel_pos_bias in ("block", "both"):
            height, width = config.stored_grid
            table = torch.zeros((2 * height - 1) * (2 * width - 1) + 3, config.num_heads)
            self.relative_position_bias_table = nn.Parameter(table)
        self.norm = make_norm(config.attn_dim, config.norm, config.norm_eps) if config.attn_norm else None
        self.proj = Linear(config.attn_dim, config.embed_dim, bias=config.proj_bias) if config.attn_proj else None

    def forward(
        self, x: Tensor, positions: Positions = Positions(), masks: Mapping[str, Tensor] | None = None  # noqa: B008
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        config, random, masks = self.config, self.training and masks is None, masks or {}
        heads, kv, diff = config.num_heads, config.kv_heads[self.layer], config.attention == "diff"
        q, k, v = self.project(x, (2 * heads, 2 * heads, heads) if diff else (heads, kv, kv))
        q, k = self.place(q, k, config, positions)
        k = k if diff else grouped_query_forward(k, heads)
        q, k, v = self.q(q), self.k(k), self.v(grouped_query_forward(v, heads))
        bias = block_bias_forward(self.relative_position_bias_table, config, positions)
        y = self.attend(q, k, v, config, self.layer, bias, masks, random, self.attention == "explicit")
        y = self.context(merge_heads(y))
        y = y if self.norm is None else self.norm(y)
        y = y if self.proj is None else self.proj(y)
        return dropout_forward(y, masks.get("proj_drop"), config.proj_drop_rate, random)


def assembled_attention_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, positions: Positions,
    masks: Mapping[str, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = AssembledAttention(config, positions.layer, "explicit").eval()
    return functional_call(module, dict(params), (x, positions, masks), strict=True)
