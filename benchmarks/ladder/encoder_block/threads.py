"""The encoder block on two cores: half the images each, in blocks; the parameters' gradients are summed."""

import numpy as np

from benchmarks.ladder.encoder_block import blocked
from numpy_vit.data_parallel import run, split, sum_grads

WORKERS = 2


def encoder_block_forward(params, x, config):
    """(B, T, D) -> (B, T, D)."""
    shares = split(len(x), WORKERS)
    ys, caches = zip(*run(lambda s: blocked.encoder_block_forward(params, x[s], config), shares), strict=True)
    return np.concatenate(ys), (shares, caches)


def encoder_block_backward(dy, cache):
    """(B, T, D) -> dx (B, T, D), gradients of the block's parameters."""
    work = list(zip(*cache, strict=True))
    dxs, grads = zip(*run(lambda pair: blocked.encoder_block_backward(dy[pair[0]], pair[1]), work), strict=True)
    return np.concatenate(dxs), sum_grads(grads, WORKERS)
