r"""One branch of a residual block: norm, attention or MLP, LayerScale, stochastic depth - added to the stream."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from torch_vit.activated_mlp import ActivatedMlp, activated_mlp_forward
from torch_vit.assembled_attention import assembled_attention_forward
from torch_vit.dropout import drop_path_forward
from torch_vit.gated_mlp import GatedMlp, gated_mlp_forward
from torch_vit.layer_scale import layer_scale_forward
from torch_vit.norm import norm_forward
from torch_vit.positions import Positions
from vit_common.config import ViTConfig
from vit_common.params import sub


class BranchNames(NamedTuple):
    norm: str
    body: str  # "attn" or "mlp"
    scale: str
    path: str


def make_mlp(config: ViTConfig) -> nn.Module:
    """The configuration's MLP."""
    return ActivatedMlp(config) if config.mlp == "mlp" else GatedMlp(config)


def run_branch(
    norm: Callable[..., Tensor], body: Callable[..., Tensor], gamma: Tensor | None, x: Tensor, config: ViTConfig,
    names: BranchNames, positions: Positions, rate: float, masks: Mapping[str, Tensor] | None, random: bool,
) -> Tensor:  # fmt: skip
    """(B, T, D) -> (B, T, D), what is added to x: path(gamma * f(norm(x))) or, res-post, path(norm(f(x)))."""
    after = config.block == "res_post"
    body_masks = None if masks is None else sub(masks, names.body)
    y = x if after else norm(x)
    y = body(y, positions, body_masks) if names.body == "attn" else body(y, body_masks)
    if after:
        y = norm(y)
    if gamma is not None:
        y = layer_scale_forward(y, gamma)
    return drop_path_forward(y, None if masks is None else masks.get(names.path), rate, random)


def branch_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, names: BranchNames, positions: Positions,
    rate: float, masks: Mapping[str, Tensor],
) -> Tensor:  # fmt: skip
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    inside = sub(params, names.body)

    def norm(y: Tensor) -> Tensor:
        return norm_forward(sub(params, names.norm), y, config.norm, config.norm_eps)

    def body(y: Tensor, *rest: Any) -> Tensor:
        if names.body == "attn":
            return assembled_attention_forward(inside, y, config, *rest)
        return (activated_mlp_forward if config.mlp == "mlp" else gated_mlp_forward)(inside, y, config, *rest)

    return run_branch(norm, body, params.get(names.scale), x, config, names, positions, rate, masks, False)
