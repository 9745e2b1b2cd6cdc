r"""MLP with any activation, and a norm of the hidden values."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.activation import activation_forward
from torch_vit.dropout import dropout_forward
from torch_vit.linear import Linear
from torch_vit.norm import make_norm
from torch_vit.tape import Tap
from vit_common.config import ViTConfig


class ActivatedMlp(nn.Module):
    """Parameters `fc1.*`, `fc2.*`, and `norm.*` if there is one; masks `drop1` (B, T, M), `drop2` (B, T, D)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        self.fc1 = Linear(config.embed_dim, config.mlp_dim, bias=config.mlp_bias)
        self.act = Tap()
        self.norm = make_norm(config.mlp_dim, config.norm, config.norm_eps) if config.mlp_norm else None
        self.fc2 = Linear(config.mlp_dim, config.embed_dim, bias=config.mlp_bias)

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        random, masks, rate = self.training and masks is None, masks or {}, self.config.proj_drop_rate
        inner = self.act(activation_forward(self.fc1(x), self.config.activation))
        inner = dropout_forward(inner, masks.get("drop1"), rate, random)
        out = self.fc2(inner if self.norm is None else self.norm(inner))
        return dropout_forward(out, masks.get("drop2"), rate, random)


def activated_mlp_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, masks: Mapping[str, Tensor] | None = None
) -> Tensor:
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = ActivatedMlp(config).eval()
    return functional_call(module, dict(params), (x, masks), strict=True)
