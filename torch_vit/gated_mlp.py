r"""Gated MLP (GLU, SwiGLU): one linear map of the token, activated, is multiplied into another."""

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


class GatedMlp(nn.Module):
    """Parameters `fc1_g.*` and `fc1_x.*`, or `fc1.*` of both stacked; `fc2.*`, and `norm.*` if there is one."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        width, hidden, bias = config.embed_dim, config.mlp_dim, config.mlp_bias
        if config.mlp == "glu_packed":
            self.fc1 = Linear(width, 2 * hidden, bias=bias)
        else:
            self.fc1_g = Linear(width, hidden, bias=bias)
            self.fc1_x = Linear(width, hidden, bias=bias)
        self.act = Tap()
        self.norm = make_norm(hidden, config.norm, config.norm_eps) if config.mlp_norm else None
        self.fc2 = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        random, masks, rate = self.training and masks is None, masks or {}, self.config.proj_drop_rate
        packed = self.config.mlp == "glu_packed"
        gate, value = self.fc1(x).chunk(2, dim=-1) if packed else (self.fc1_g(x), self.fc1_x(x))
        inner = self.act(activation_forward(gate, self.config.activation)) * value
        inner = dropout_forward(inner, masks.get("drop1"), rate, random)
        out = self.fc2(inner if self.norm is None else self.norm(inner))
        return dropout_forward(out, masks.get("drop2"), rate, random)


def gated_mlp_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, masks: Mapping[str, Tensor] | None = None
) -> Tensor:
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = GatedMlp(config).eval()
    return functional_call(module, dict(params), (x, masks), strict=True)
