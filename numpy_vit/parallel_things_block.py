r"""Two attentions in parallel, then two MLPs in parallel: half as deep, twice as wide."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.branch import BranchCache, BranchNames, branch_backward, branch_forward
from numpy_vit.positions import Positions, PositionsGrad
from vit_common.assembled_spec import things_spec
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import sub, under
from vit_common.part_names import names_of
from vit_common.tape import Tape, note, scope

Array = np.ndarray
GROUPS = (("attns", BranchNames("norm", "attn", "ls.gamma", "drop_path")),
          ("ffns", BranchNames("norm", "mlp", "ls.gamma", "drop_path")))  # fmt: skip
PARALLEL = 2


class ParallelThingsBlockCache(NamedTuple):
    groups: list[list[BranchCache]]


def parallel_things_block_forward(
    params: Mapping[str, Array], x: Array, config: ViTConfig, positions: Positions = Positions(),  # noqa: B008
    masks: Mapping[str, Array] | None = None, drop_path_rate: float = 0.0, tape: Tape = None,
) -> tuple[Array, ParallelThingsBlockCache]:  # fmt: skip
    r"""(B, T, D) -> (B, T, D).

    $$z = x + \sum_j \operatorname{attn}_j(x), \qquad y = z + \sum_j \operatorname{mlp}_j(z)$$

    Touvron et al. 2022 ("Three things everyone should know about Vision Transformers"), section 3. Parameters:
    `attns.0.*`, `attns.1.*`, `ffns.0.*`, `ffns.1.*`. **Backward**: the stream and every branch read the same value,
    so their gradients add up.
    """
    check_names("parallel_things_block", params, names_of(things_spec, config, positions.layer))
    groups = []
    for group, names in GROUPS:
        caches, total = [], x
        for at in (f"{group}.{j}" for j in range(PARALLEL)):
            branch = sub(params, at), x, config, names, positions, drop_path_rate, sub(masks or {}, at), scope(tape, at)
            y, cache = branch_forward(*branch)
            note(tape, **{at: y})
            total = total + y
            caches.append(cache)
        x = total
        groups.append(caches)
    return x, ParallelThingsBlockCache(groups)


def parallel_things_block_backward(
    dy: Array, cache: ParallelThingsBlockCache, tape: Tape = None
) -> tuple[Array, list[PositionsGrad], dict[str, Array]]:
    """(B, T, D) -> dx (B, T, D), gradients of the positions (one a branch, the MLPs' None) and of the parameters."""
    grads: dict[str, Array] = {}
    positions = []
    for (group, _), caches in reversed(list(zip(GROUPS, cache.groups, strict=True))):
        total = dy  # x + ...: x forks
        for j, branch in enumerate(caches):
            note(tape, **{f"{group}.{j}": dy})
            dx, dpositions, g = branch_backward(dy, branch, scope(tape, f"{group}.{j}"))
            total = total + dx
            positions.append(dpositions)
            grads |= under(f"{group}.{j}", g)
        dy = total
    return dy, positions, grads
