r"""Differential attention: two softmax attentions, the second subtracted, which cancels what both read in common."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.biased_attention import BiasedAttentionCache, biased_attention_backward, biased_attention_forward
from numpy_vit.rms_norm import RmsNormCache, rms_norm_backward, rms_norm_forward
from vit_common.errors import check_shape
from vit_common.params import under
from vit_common.tape import Tape, note, scope

Array = np.ndarray
LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")
EPS = 1e-5  # of the norm of each head


class DiffAttentionCache(NamedTuple):
    first: BiasedAttentionCache
    second: BiasedAttentionCache
    o2: Array  # (B, NH, T, 2HD)
    lambdas: dict[str, Array]
    factors: tuple[float, float, float]  # exp(q1 k1), exp(q2 k2), lambda
    sub_norm: RmsNormCache
    keep: float


def lambda_start(layer: int) -> float:
    r"""$\lambda_\mathrm{init} = 0.8 - 0.6\, e^{-0.3 \ell}$ for block $\ell = 0, 1, \dots$"""
    return 0.8 - 0.6 * math.exp(-0.3 * layer)


def diff_attention_forward(
    params: Mapping[str, Array], q: Array, k: Array, v: Array, layer: int, bias: Array | None = None,
    drop_mask: Array | None = None, drop_rate: float = 0.0, tape: Tape = None,
) -> tuple[Array, DiffAttentionCache]:  # fmt: skip
    r"""q, k (B, 2NH, T, HD), v (B, NH, T, 2HD) -> (B, NH, T, 2HD).

    $$O = \operatorname{attn}(Q_1, K_1, V) - \lambda \operatorname{attn}(Q_2, K_2, V), \quad
      \lambda = e^{q_1 \cdot k_1} - e^{q_2 \cdot k_2} + \lambda_0, \quad y = (1 - \lambda_0) \operatorname{RMSNorm}(O)$$

    Ye et al. 2024, eq. 1 to 3, with $\lambda_0 = \lambda_\mathrm{init}$. Head $h$'s pair is heads $2h$ and $2h + 1$ of
    q and k, so HD is half of `head_dim`. Parameters: $q_1, k_1, q_2, k_2$ are `lambda_q1`, `lambda_k1`, `lambda_q2`,
    `lambda_k2` (HD,); `sub_norm.weight` (2HD,). drop_mask: (B, 2NH, T, T). **Backward**: $O_1$ gets $dO$, $O_2$ gets
    $-\lambda\, dO$, $\lambda$ gets $-\langle dO, O_2 \rangle$, $q_1$ gets $d\lambda\, e^{q_1 \cdot k_1} k_1$ and $q_2$
    gets $-d\lambda\, e^{q_2 \cdot k_2} k_2$; the keys likewise.
    """
    drops = (None, None) if drop_mask is None else (drop_mask[:, 0::2], drop_mask[:, 1::2])
    o1, first = biased_attention_forward(q[:, 0::2], k[:, 0::2], v, bias, drops[0], drop_rate, scope(tape, "first"))
    o2, second = biased_attention_forward(q[:, 1::2], k[:, 1::2], v, bias, drops[1], drop_rate, scope(tape, "second"))
    for name in LAMBDAS:
        check_shape(name, params[name], q.shape[3:])
    q1, k1, q2, k2 = (params[name] for name in LAMBDAS)
    e1, e2, start = np.exp((q1 * k1).sum()), np.exp((q2 * k2).sum()), lambda_start(layer)
    lam = e1 - e2 + start
    o = o1 - lam * o2
    normed, sub_norm = rms_norm_forward(o, params["sub_norm.weight"], EPS)
    note(tape, difference=o)
    cache = DiffAttentionCache(
        first, second, o2, {n: params[n] for n in LAMBDAS}, (e1, e2, lam), sub_norm, 1.0 - start
    )
    return normed * (1.0 - start), cache


def diff_attention_backward(
    dy: Array, cache: DiffAttentionCache, tape: Tape = None
) -> tuple[Array, Array, Array, Array | None, dict[str, Array]]:
    """(B, NH, T, 2HD) -> dq, dk (B, 2NH, T, HD), dv (B, NH, T, 2HD), dbias, gradients of the parameters."""
    e1, e2, lam = cache.factors
    do, g_norm = rms_norm_backward(dy * cache.keep, cache.sub_norm)  # y = normed * (1 - start)
    note(tape, difference=do)
    dq1, dk1, dv1, db1 = biased_attention_backward(do, cache.first, scope(tape, "first"))  # o = o1 - lam * o2
    dq2, dk2, dv2, db2 = biased_attention_backward(-lam * do, cache.second, scope(tape, "second"))
    dlam = -(do * cache.o2).sum()  # o = o1 - lam * o2
    q1, k1, q2, k2 = (cache.lambdas[name] for name in LAMBDAS)
    dots = (dlam * e1) * k1, (dlam * e1) * q1, (-dlam * e2) * k2, (-dlam * e2) * q2  # lam = exp(q1 k1) - exp(q2 k2)
    dq, dk = (np.stack(pair, axis=2).reshape(len(dy), -1, *dq1.shape[2:]) for pair in ((dq1, dq2), (dk1, dk2)))
    dbias = None if db1 is None or db2 is None else db1 + db2
    return dq, dk, dv1 + dv2, dbias, {**dict(zip(LAMBDAS, dots, strict=True)), **under("sub_norm", g_norm)}
