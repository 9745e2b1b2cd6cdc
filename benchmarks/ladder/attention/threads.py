r"""Attention on two cores: half the images each, in blocks, matrix products on the thread that asks for them."""

import numpy as np

from benchmarks.ladder.attention import blocked
from numpy_vit.data_parallel import run, split

WORKERS = 2


def attention_forward(q, k, v):
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD)."""
    shares = split(len(q), WORKERS)
    ys, caches = zip(*run(lambda s: blocked.attention_forward(q[s], k[s], v[s]), shares), strict=True)
    return np.concatenate(ys), (shares, caches)


def attention_backward(dy, cache):
    """(B, NH, T, HD) -> dq, dk, dv."""
    parts = run(lambda pair: blocked.attention_backward(dy[pair[0]], pair[1]), list(zip(*cache, strict=True)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
