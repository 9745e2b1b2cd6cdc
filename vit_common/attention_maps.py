r"""Where a Vision Transformer looks: attention of the class token, and attention rollout."""

from collections.abc import Mapping, Sequence

import numpy as np

from vit_common.errors import ConfigError

Array = np.ndarray


def attention_probs(values: Mapping[str, Array], depth: int) -> list[Array]:
    """The probabilities of every block, (B, NH, T, T) each, from a tape.

    Raises:
        ConfigError: a block has no single matrix of probabilities (differential or parallel attention).
    """
    names = [f"blocks.{i}.attn.probs" for i in range(depth)]
    missing = [name for name in names if name not in values]
    if missing or not names:
        listing = ", ".join(missing) or "no blocks"
        raise ConfigError(f"this model keeps no attention probabilities to look at: {listing}")
    return [values[name] for name in names]


def class_attention(probs: Array, prefix: int) -> Array:
    """(B, NH, T, T) -> (B, NH, N): how much the first token reads from each patch, head by head."""
    return probs[:, :, 0, prefix:]


def rollout(probs: Sequence[Array], prefix: int) -> Array:
    r"""L arrays of (B, NH, T, T) -> (B, N): attention followed through all blocks, to the first token.

    $$\bar A_\ell = \tfrac12 \Bigl(I + \tfrac{1}{NH} \sum_h A_\ell^h\Bigr), \qquad
      R = \bar A_L \bar A_{L-1} \cdots \bar A_1$$

    and the map is $R_{0, n}$ over the patches: half of each token stays in the residual stream, half is read by
    attention. Abnar and Zuidema 2020, *Quantifying Attention Flow in Transformers*, section 3.
    """
    total: Array | None = None
    for block in probs:
        mixed = 0.5 * (np.eye(block.shape[-1], dtype=block.dtype) + block.mean(axis=1))  # (B, T, T)
        total = mixed if total is None else mixed @ total
    assert total is not None
    return total[:, 0, prefix:]
