r"""Residual block of two branches, attention then MLP, whatever stands in each."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.branch import BranchCache, BranchNames, branch_backward, branch_forward
from numpy_vit.positions import Positions, PositionsGrad
from vit_common.assembled_spec import residual_spec
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.part_names import names_of
from vit_common.tape import Tape, note

Array = np.ndarray


class AssembledBlockCache(NamedTuple):
    attn: BranchCache
    mlp: BranchCache


def branch_names(config: ViTConfig) -> tuple[BranchNames, BranchNames]:
    """Parameter and mask names of the two branches."""
    gammas = ("gamma_1", "gamma_2") if config.layer_scale_names == "gamma" else ("ls1.gamma", "ls2.gamma")
    return BranchNames("norm1", "attn", gammas[0], "drop_path1"), BranchNames("norm2", "mlp", gammas[1], "drop_path2")


def assembled_block_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, positions: Positions = Positions(),  # noqa: B008
    masks: Mapping[str, Array] | None = None, drop_path_rate: float = 0.0, tape: Tape = None,
) -> tuple[Array, AssembledBlockCache]:  # fmt: skip
    r"""(B, T, D) -> (B, T, D): $z = x + \operatorname{branch}_1(x)$, $y = z + \operatorname{branch}_2(z)$.

    **Backward**: the stream forks before each branch, so the gradients of the stream and of the branch add up.
    """
    check_names("assembled_block", params, names_of(residual_spec, config, positions.layer))
    attn, mlp = branch_names(config)
    rest = positions, drop_path_rate, masks or {}, tape
    a, c_attn = branch_forward(params, x, config, attn, *rest)
    z = x + a
    note(tape, residual=z)
    m, c_mlp = branch_forward(params, z, config, mlp, *rest)
    return z + m, AssembledBlockCache(c_attn, c_mlp)


def assembled_block_backward(
    dy: Array, cache: AssembledBlockCache, tape: Tape = None
) -> tuple[Array, PositionsGrad, dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the positions and of the parameters."""
    dz, _, g_mlp = branch_backward(dy, cache.mlp, tape)
    dz = dz + dy  # y = z + branch(z): z forks
    note(tape, residual=dz)
    dx, dpositions, g_attn = branch_backward(dz, cache.attn, tape)
    return dx + dz, dpositions, {**g_attn, **g_mlp}  # z = x + branch(x): x forks
