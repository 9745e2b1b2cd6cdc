r"""Multi-head self-attention three ways: autograd through written-out attention, fused, and a backward by hand."""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.attention import attention_forward, fused_attention_forward
from torch_vit.dropout import dropout_forward
from torch_vit.linear import Linear
from torch_vit.tape import Tap
from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, check_names, nearest
from vit_common.part_names import MULTI_HEAD

AttentionPath = Literal["fused", "explicit", "manual"]


def known_path(attention: str) -> AttentionPath:
    """The path itself.

    Raises:
        ConfigError: there is none of this name.
    """
    if attention not in get_args(AttentionPath):
        raise ConfigError(f"attention={attention!r} is unknown; {nearest(attention, get_args(AttentionPath))}")
    return cast(AttentionPath, attention)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, NH*HD) -> (B, NH, T, HD), a view: head h reads the columns h*HD to (h+1)*HD."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, NH, T, HD) -> (B, T, NH*HD), the inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


class ManualMultiHead(torch.autograd.Function):
    r"""Multi-head attention without dropout, its backward by hand in torch: derived in `numpy_vit.multi_head`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_qkv: Tensor, b_qkv: Tensor, w_proj: Tensor, b_proj: Tensor, num_heads: int
    ) -> Tensor:
        qkv = x @ w_qkv.T + b_qkv  # (B, T, 3D)
        q, k, v = (split_heads(part, num_heads) for part in qkv.chunk(3, dim=-1))
        scale = 1.0 / math.sqrt(q.shape[-1])
        probs = torch.softmax(q @ k.mT * scale, dim=-1)  # (B, NH, T, T)
        context = merge_heads(probs @ v)  # (B, T, D)
        ctx.save_for_backward(x, w_qkv, w_proj, q, k, v, probs, context)
        ctx.scale = scale
        return context @ w_proj.T + b_proj

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w_qkv, w_proj, q, k, v, probs, context = ctx.saved_tensors
        dcontext = dy @ w_proj  # y = context @ w_proj.T + b_proj
        dw_proj, db_proj = dy.flatten(0, 1).T @ context.flatten(0, 1), dy.sum((0, 1))
        dheads = split_heads(dcontext, q.shape[1])  # context = merge_heads(probs @ v)
        dprobs, dv = dheads @ v.mT, probs.mT @ dheads
        dscores = probs * (dprobs - (dprobs * probs).sum(-1, keepdim=True))  # probs = softmax(scores)
        dq, dk = dscores @ k * ctx.scale, dscores.mT @ q * ctx.scale  # scores = q @ k.T * scale
        dqkv = torch.cat([merge_heads(d) for d in (dq, dk, dv)], dim=-1)  # q, k, v = split(qkv)
        dw_qkv, db_qkv = dqkv.flatten(0, 1).T @ x.flatten(0, 1), dqkv.sum((0, 1))  # qkv = x @ w_qkv.T + b_qkv
        return dqkv @ w_qkv, dw_qkv, db_qkv, dw_proj, db_proj, None


class MultiHead(nn.Module):
    """Parameters `qkv.{weight, bias}`, `proj.{weight, bias}`; masks `attn_drop` (B, NH, T, T), `proj_drop` (B, T, D).

    `attention`: "fused" calls torch's `scaled_dot_product_attention`, "explicit" writes scores and probabilities out
    (and is what "fused" becomes when attention weights are dropped by a given mask), "manual" is `ManualMultiHead`.
    """

    def __init__(self, config: ViTConfig, attention: AttentionPath = "fused"):
        super().__init__()
        self.config, self.attention = config, known_path(attention)
        self.qkv = Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = Linear(config.embed_dim, config.embed_dim)
        self.q, self.k, self.v, self.scores, self.probs, self.context = (Tap() for _ in range(6))

    def tap(self, name: str, value: Tensor) -> Tensor:
        return getattr(self, name)(value)

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        config, random = self.config, self.training and masks is None
        masks = masks or {}
        attn_drop, proj_drop = masks.get("attn_drop"), masks.get("proj_drop")
        random_rate = config.attn_drop_rate if random else 0.0
        if self.attention == "manual" and attn_drop is None and not random_rate:
            weights = self.qkv.weight, self.qkv.bias, self.proj.weight, self.proj.bias
            out = ManualMultiHead.apply(x, *weights, config.num_heads)
            return dropout_forward(out, proj_drop, config.proj_drop_rate, random)
        q, k, v = (split_heads(part, config.num_heads) for part in self.qkv(x).chunk(3, dim=-1))
        q, k, v = self.q(q), self.k(k), self.v(v)
        if self.attention == "fused" and attn_drop is None and not random_rate:
            heads = fused_attention_forward(q, k, v)
        else:
            heads = attention_forward(q, k, v, attn_drop, config.attn_drop_rate, random, self.tap)
        out = self.proj(self.context(merge_heads(heads)))
        return dropout_forward(out, proj_drop, config.proj_drop_rate, random)


def multi_head_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, masks: Mapping[str, Tensor] | None = None
) -> Tensor:
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    check_names("multi_head", params, MULTI_HEAD)
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = MultiHead(config, "explicit").eval()
    return functional_call(module, dict(params), (x, masks), strict=True)
