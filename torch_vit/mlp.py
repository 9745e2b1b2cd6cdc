r"""MLP: two linear maps with GELU between, applied to each token alone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit import fast_cpu
from torch_vit.dropout import dropout_forward
from torch_vit.gelu import gelu_forward
from torch_vit.linear import Linear
from torch_vit.tape import Tap
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.part_names import MLP


class Mlp(nn.Module):
    """Parameters `fc1.{weight, bias}`, `fc2.{weight, bias}`; masks `drop1` (B, T, M), `drop2` (B, T, D)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.rate = config.proj_drop_rate
        self.fc1 = Linear(config.embed_dim, config.mlp_dim)
        self.act = Tap()
        self.fc2 = Linear(config.mlp_dim, config.embed_dim)

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        random, masks = self.training and masks is None, masks or {}
        if fast_cpu.fuses_gelu(self.fc1, x):
            act = self.act(fast_cpu.linear_gelu(x, self.fc1.weight, self.fc1.bias))
        else:
            act = self.act(gelu_forward(self.fc1(x)))
        out = self.fc2(dropout_forward(act, masks.get("drop1"), self.rate, random))
        return dropout_forward(out, masks.get("drop2"), self.rate, random)


def mlp_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, masks: Mapping[str, Tensor] | None = None
) -> Tensor:
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    check_names("mlp", params, MLP)
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = Mlp(config).eval()
    return functional_call(module, dict(params), (x, masks), strict=True)
