r"""Learned rotary frequencies, mixed over both axes, for each block and head."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import check_shape

Array = np.ndarray


class RopeMixedCache(NamedTuple):
    points: Array  # (N, 2)
    sin: Array  # (L, NH, N, HD/2)
    cos: Array


def rope_mixed_forward(freqs: Array, points: Array) -> tuple[tuple[Array, Array], RopeMixedCache]:
    r"""freqs (2, L, NH, HD/2), points (N, 2) -> sin and cos of the angles, (L, NH, N, HD/2) each.

    $$\theta_{\ell h n j} = t_{n1}\, \omega^{(1)}_{\ell h j} + t_{n2}\, \omega^{(2)}_{\ell h j}$$

    Heo et al. 2024, eq. 9: a plane wave in any direction, not along one axis. **Backward**:
    $d\theta = d\sin \odot \cos\theta - d\cos \odot \sin\theta$, and the angles are linear in the frequencies:
    $d\omega^{(a)}_{\ell h j} = \sum_n t_{na}\, d\theta_{\ell h n j}$.

    Raises:
        ShapeError: frequencies for other than two axes.
    """
    check_shape("rope freqs", freqs, (2, "L", "NH", "HD/2"))
    check_shape("rope points", points, ("N", 2))
    first, second = (t[:, None] for t in points.T)  # (N, 1) each
    angles = first * freqs[0, :, :, None] + second * freqs[1, :, :, None]
    sin, cos = np.sin(angles), np.cos(angles)
    return (sin, cos), RopeMixedCache(points, sin, cos)


def rope_mixed_backward(dsin: Array, dcos: Array, cache: RopeMixedCache) -> Array:
    """(L, NH, N, HD/2) twice -> dfreqs (2, L, NH, HD/2)."""
    check_shape("dsin of rope_mixed", dsin, cache.sin.shape)
    check_shape("dcos of rope_mixed", dcos, cache.cos.shape)
    dangles = dsin * cache.cos - dcos * cache.sin  # sin(angles), cos(angles)
    return np.stack([(dangles * t[:, None]).sum(axis=2) for t in cache.points.T])  # angles = t1 freqs1 + t2 freqs2
