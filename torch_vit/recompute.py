r"""Activation checkpointing: the backward computes the inside of each block again.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4. Of each block is kept what enters it, and
not the many times as much that is computed inside; the work grows by one forward pass, a third. Masks are given from
outside, so the second pass drops what the first dropped, and the gradients are the same to the bit.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(blocks: nn.ModuleList) -> None:
    """Change the blocks in place. Names and parameters stay as they are."""
    for block in blocks:
        block.__class__ = _recomputed(type(block))  # type: ignore[arg-type]


@cache
def _recomputed(kind: Any) -> type[nn.Module]:
    def forward(self: Any, x: Tensor, *rest: Any) -> Tensor:
        masks: Mapping[str, Tensor] | None = rest[-1] if rest else None
        # Only random dropout needs the generator's state, and to read that of a GPU would be to wait for it.
        return checkpoint(kind.forward, self, x, *rest, use_reentrant=False, preserve_rng_state=masks is None)

    return type(f"Recomputed{kind.__name__}", (kind,), {"forward": forward})
