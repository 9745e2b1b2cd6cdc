r"""Query, key and value of the tokens: one fused linear map, or three; biases for all, for none, or not for the key."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from torch_vit.linear import Linear, linear_forward
from torch_vit.multi_head import split_heads
from vit_common.config import ViTConfig

NAMES = ("q_proj", "k_proj", "v_proj")


class QkvProject(nn.Module):
    """Parameters `qkv.*` with `qkv.bias` or `q_bias` and `v_bias`; or `q_proj.*`, `k_proj.*`, `v_proj.*`.

    Attention inherits from it, so that the names stand directly below `attn`.
    """

    def __init__(self, config: ViTConfig, layer: int):
        super().__init__()
        width, inner = config.embed_dim, config.attn_dim
        if config.qkv == "fused":
            self.qkv = Linear(width, 3 * inner, bias=config.qkv_bias == "all")
            if config.qkv_bias == "qv":
                self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(inner)) for _ in range(2))
        else:
            keys = config.kv_heads[layer] * config.head_dim
            self.q_proj = Linear(width, inner, bias=config.has_bias("q"))
            self.k_proj = Linear(width, keys, bias=config.has_bias("k"))
            self.v_proj = Linear(width, keys, bias=config.has_bias("v"))

    def project(self, x: Tensor, heads: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D), heads of q, k and v -> q, k, v (B, heads, T, width) each."""
        if hasattr(self, "q_proj"):
            parts = [self.q_proj(x), self.k_proj(x), self.v_proj(x)]
        elif hasattr(self, "q_bias"):
            bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
            parts = list(linear_forward(x, self.qkv.weight, bias).chunk(3, dim=-1))
        else:
            parts = list(self.qkv(x).chunk(3, dim=-1))
        q, k, v = (split_heads(part, n) for part, n in zip(parts, heads, strict=True))
        return q, k, v


def qkv_project_forward(
    params: Mapping[str, Tensor], x: Tensor, heads: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, D), heads of q, k and v -> q, k, v (B, heads, T, width) each, with the parameters as an argument."""
    if "qkv.weight" in params:
        bias = params.get("qkv.bias")
        if "q_bias" in params:
            bias = torch.cat((params["q_bias"], torch.zeros_like(params["q_bias"]), params["v_bias"]))
        parts = linear_forward(x, params["qkv.weight"], bias).chunk(3, dim=-1)
    else:
        parts = tuple(linear_forward(x, params[f"{n}.weight"], params.get(f"{n}.bias")) for n in NAMES)
    q, k, v = (split_heads(part, n) for part, n in zip(parts, heads, strict=True))
    return q, k, v
