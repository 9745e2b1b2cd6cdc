r"""One branch of a residual block: norm, attention or MLP, LayerScale, stochastic depth - added to the stream."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from numpy_vit.activated_mlp import ActivatedMlpCache, activated_mlp_backward, activated_mlp_forward
from numpy_vit.assembled_attention import (
    AssembledAttentionCache,
    assembled_attention_backward,
    assembled_attention_forward,
)
from numpy_vit.dropout import DropoutCache, drop_path_backward, drop_path_forward
from numpy_vit.gated_mlp import gated_mlp_backward, gated_mlp_forward
from numpy_vit.layer_scale import LayerScaleCache, layer_scale_backward, layer_scale_forward
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from numpy_vit.positions import Positions, PositionsGrad
from vit_common.config import ViTConfig
from vit_common.params import sub, under
from vit_common.tape import Tape, note, scope

Array = np.ndarray


class BranchNames(NamedTuple):
    norm: str
    body: str  # "attn" or "mlp"
    scale: str
    path: str


class BranchCache(NamedTuple):
    names: BranchNames
    after: bool  # norm after the body
    norm: NormCache
    body: Any
    scale: LayerScaleCache | None
    path: DropoutCache


def branch_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, names: BranchNames, positions: Positions,
    rate: float, masks: Mapping[str, Array], tape: Tape = None,
) -> tuple[Array, BranchCache]:  # fmt: skip
    r"""(B, T, D) -> (B, T, D), what is added to x.

    $$y = \operatorname{path}(\gamma \odot f(\operatorname{norm}(x))) \qquad\text{or, res-post,}\qquad
      y = \operatorname{path}(\operatorname{norm}(f(x)))$$

    with $f$ attention or MLP, and path stochastic depth. The parameters are found under the names given; LayerScale
    applies if its gamma is among them.
    Res-post: Liu et al. 2022 (Swin v2), section 3.2. **Backward**: the stages in reverse order.
    """
    after = config.block == "res_post"
    if not after:
        x, c_norm = norm_forward(sub(params, names.norm), x, config.norm, config.norm_eps)
        note(tape, **{names.norm: x})
    inside = sub(params, names.body), x, config
    rest = sub(masks, names.body), scope(tape, names.body)
    if names.body == "attn":
        c_body: Any
        y, c_body = assembled_attention_forward(*inside, positions, *rest)
    else:
        y, c_body = (activated_mlp_forward if config.mlp == "mlp" else gated_mlp_forward)(*inside, *rest)
    note(tape, **{names.body: y})
    if after:
        y, c_norm = norm_forward(sub(params, names.norm), y, config.norm, config.norm_eps)
        note(tape, **{names.norm: y})
    c_scale = None
    if names.scale in params:
        y, c_scale = layer_scale_forward(y, params[names.scale])
    y, c_path = drop_path_forward(y, masks.get(names.path), rate)
    return y, BranchCache(names, after, c_norm, c_body, c_scale, c_path)


def branch_backward(dy: Array, cache: BranchCache, tape: Tape = None) -> tuple[Array, PositionsGrad, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D) through the branch alone, gradients of the positions and of the parameters."""
    names, grads, dpositions = cache.names, {}, PositionsGrad(None, None, None)
    dy = drop_path_backward(dy, cache.path)
    if cache.scale is not None:
        dy, g_scale = layer_scale_backward(dy, cache.scale)
        grads[names.scale] = g_scale["gamma"]
    if cache.after:
        note(tape, **{names.norm: dy})
        dy, g_norm = norm_backward(dy, cache.norm)  # y = norm(f(x))
        grads |= under(names.norm, g_norm)
    note(tape, **{names.body: dy})
    inside = scope(tape, names.body)
    if isinstance(cache.body, AssembledAttentionCache):
        dx, dpositions, g_body = assembled_attention_backward(dy, cache.body, inside)
    else:
        plain = isinstance(cache.body, ActivatedMlpCache)
        dx, g_body = (activated_mlp_backward if plain else gated_mlp_backward)(dy, cache.body, inside)
    grads |= under(names.body, g_body)
    if not cache.after:
        note(tape, **{names.norm: dx})
        dx, g_norm = norm_backward(dx, cache.norm)  # y = f(norm(x))
        grads |= under(names.norm, g_norm)
    return dx, dpositions, grads
