r"""Attention in tiles, with an online softmax: the (T, S) scores are never stored, memory is linear in the tokens.

FlashAttention's algorithm (Dao et al. 2022, algorithms 1 and 4; the online sum is Milakov and Gimelshein's, 2018).
A row of scores arrives in pieces. Keep its maximum so far $m$, its sum $l = \sum_j e^{s_j - m}$ and the output not yet
divided, $a = \sum_j e^{s_j - m} v_j$. When a piece raises the maximum to $m'$, what was summed shrinks by $e^{m - m'}$:

$$l \leftarrow e^{m - m'} l + \sum_{j \in \mathrm{piece}} e^{s_j - m'}, \qquad
  a \leftarrow e^{m - m'} a + \sum_{j \in \mathrm{piece}} e^{s_j - m'} v_j, \qquad y = a / l$$

**Backward.** $\lambda = m + \log l$, one number a row, is all that is kept beside the output: any probability comes
back as $p_{ij} = e^{s_{ij} - \lambda_i}$. And the sum that softmax's backward needs over a whole row is one over the
head's width,

$$\sum_j p_{ij}\, dp_{ij} = \sum_j p_{ij}\, g_i \cdot v_j = g_i \cdot y_i .$$
"""

import math

import numpy as np

QUERIES, KEYS = 128, 128  # of a tile


def tiles(count, size):
    return [slice(start, start + size) for start in range(0, count, size)]


def attention_forward(q, k, v):
    """(B, NH, T, HD), (B, NH, S, HD), (B, NH, S, HD) -> (B, NH, T, HD)."""
    y, lse = np.empty(q.shape, q.dtype), np.empty((*q.shape[:3], 1), q.dtype)
    scale = 1.0 / math.sqrt(q.shape[3])
    for b in range(len(q)):
        for rows in tiles(q.shape[2], QUERIES):
            scaled = q[b, :, rows] * scale  # (NH, R, HD)
            m = np.full((*scaled.shape[:2], 1), -np.inf, q.dtype)  # (NH, R, 1)
            total, a = np.zeros_like(m), np.zeros_like(scaled)
            for keys in tiles(k.shape[2], KEYS):
                p = scaled @ k[b, :, keys].swapaxes(-1, -2)  # (NH, R, K), scores so far
                higher = np.maximum(m, p.max(axis=-1, keepdims=True))
                shrink = np.exp(m - higher)
                p -= higher
                np.exp(p, out=p)
                total = total * shrink + p @ np.ones((p.shape[-1], 1), q.dtype)
                a *= shrink
                a += p @ v[b, :, keys]
                m = higher
            np.divide(a, total, out=y[b, :, rows])
            lse[b, :, rows] = m + np.log(total)
    return y, (q, k, v, y.copy(), lse)


def attention_backward(dy, cache):
    """(B, NH, T, HD) -> dq, dk, dv."""
    q, k, v, y, lse = cache
    dq, dk, dv = (np.zeros(a.shape, dy.dtype) for a in (q, k, v))
    scale = 1.0 / math.sqrt(q.shape[3])
    dot = (dy * y).sum(axis=-1, keepdims=True)  # (B, NH, T, 1), the sum over j of p dp
    for b in range(len(q)):
        for rows in tiles(q.shape[2], QUERIES):
            scaled, g = q[b, :, rows] * scale, dy[b, :, rows]
            for keys in tiles(k.shape[2], KEYS):
                p = scaled @ k[b, :, keys].swapaxes(-1, -2)
                p -= lse[b, :, rows]
                np.exp(p, out=p)  # (NH, R, K), the probabilities again
                dv[b, :, keys] += p.swapaxes(-1, -2) @ g  # y = p @ v
                ds = g @ v[b, :, keys].swapaxes(-1, -2)
                ds -= dot[b, :, rows]
                ds *= p  # p = softmax(s)
                dq[b, :, rows] += ds @ k[b, :, keys]  # s = scaled @ k.T
                dk[b, :, keys] += ds.swapaxes(-1, -2) @ scaled
    dq *= scale
    return dq, dk, dv
