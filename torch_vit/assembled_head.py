r"""Head of variants: pool, norm, pre-logits, one or two classifiers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.attention_pool import AttentionPool
from torch_vit.linear import Linear
from torch_vit.multi_head import AttentionPath
from torch_vit.norm import make_norm
from torch_vit.refined_pool import RefinedPool
from torch_vit.tape import Tap
from torch_vit.token_pool import token_pool_forward
from vit_common.config import ViTConfig


class AssembledHead(nn.Module):
    """Parameters `attn_pool.*`, `fc_norm.*`, `pre_logits.fc.*`, `head.*`, `head_dist.*`, as the configuration has them.

    The model inherits from it, so that the names stand at the top.
    """

    head: Any

    def add_head(self, config: ViTConfig, attention: AttentionPath) -> None:
        width = config.embed_dim
        features = 2 * width if config.pool == "cls_mean" else width
        self.pooled = Tap()
        self.attn_pool = AttentionPool(config, attention) if config.pool == "map" else None
        self.refined = None
        if config.pool == "refined":
            self.refined = RefinedPool(config.num_heads, config.class_token, attention)
        self.fc_norm = make_norm(features, config.norm, config.norm_eps) if config.fc_norm else None
        self.pre_logits = None
        if config.pre_logits:
            self.pre_logits = nn.Sequential()
            self.pre_logits.add_module("fc", Linear(features, config.pre_logits))
            self.pre_logits.add_module("act", nn.Tanh())
        last = config.pre_logits or features
        self.head = Linear(last, config.num_classes, bias=config.head_bias) if config.num_classes else None
        self.head_dist = Linear(width, config.num_classes, bias=config.head_bias) if config.dist_head else None

    def read(self, x: Tensor, config: ViTConfig) -> Tensor:
        """(B, T, D) -> logits (B, K); with `num_classes=0` the features (B, D)."""
        prefix, everything = config.num_prefix_tokens, config.pool_include_prefix
        if self.attn_pool is not None:
            y = self.attn_pool(x if everything else x[:, prefix:])
        elif self.refined is not None:
            y = self.refined(x)
        else:
            y = token_pool_forward(x, config.pool, prefix, everything)
        y = self.pooled(y)
        for stage in (self.fc_norm, self.pre_logits, self.head):
            y = y if stage is None else stage(y)
        if self.head_dist is not None:
            y = 0.5 * (y + self.head_dist(x[:, 1]))
        return torch.softmax(y, dim=-1) if config.head_softmax else y


class _HeadAlone(AssembledHead):
    def forward(self, x: Tensor, config: ViTConfig) -> Tensor:
        return self.read(x, config)


def assembled_head_forward(params: Mapping[str, Tensor], x: Tensor, config: ViTConfig) -> Tensor:
    """(B, T, D) -> logits (B, K), with the parameters as an argument, as in the NumPy engine."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = _HeadAlone()
        module.add_head(config, "explicit")
    return functional_call(module.eval(), dict(params), (x, config), strict=True)
