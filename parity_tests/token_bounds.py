r"""The bounds of variants that choose among tokens: pooling, dropping, masking, and the loss of what was masked."""

import numpy as np

from parity_tests.bounds import Grads, Pullback, attention, merge_heads, split_heads
from parity_tests.naive import patchify_loops, unpatchify_loops
from parity_tests.tolerances import Bounded, concatenate


def token_pool(x: Bounded, pool: str, prefix: int, include_prefix: bool) -> tuple[Bounded, Pullback]:
    r"""A copy is exact; a mean $\gamma_N \operatorname{mean}|x|$; a maximum, as equal parts of what is largest, the
    same of $|x|$ there. Inputs are exact, so which is largest is known."""
    start = 0 if include_prefix else prefix
    part, tokens, count = x[:, start:], x.v.shape[1], x.v.shape[1] - start
    top = part.v == part.v.max(1, keepdims=True)
    share = part.new(top / top.sum(1, keepdims=True), part.u * top)
    most, mean = (part * share).sum(1, False), part.mean(1, keepdims=False)
    first = x[:, 0]
    y = {"cls": first, "mean": mean, "max": most, "avg_max": (most + mean) * 0.5, "none": x,
         "cls_dist": x[:, :2].mean(1, keepdims=False)}.get(pool)  # fmt: skip

    def padded(a: Bounded, before: int) -> Bounded:
        return a.map(lambda b: np.pad(b, ((0, 0), (before, tokens - before - b.shape[1]), (0, 0))))

    def of_mean(d: Bounded) -> Bounded:
        return padded((d / float(count)).map(lambda a: np.repeat(a[:, None], count, 1)), start)

    def pullback(dy: Bounded) -> Grads:
        if pool == "none":
            return {"x": dy}
        if pool == "cls_dist":
            return {"x": padded((dy * 0.5).map(lambda a: np.repeat(a[:, None], 2, 1)), 0)}
        if pool == "cls":
            return {"x": padded(dy[:, None], 0)}
        if pool == "mean":
            return {"x": of_mean(dy)}
        if pool == "max":
            return {"x": padded(dy[:, None] * share, start)}
        if pool == "avg_max":
            return {"x": of_mean(dy * 0.5) + padded(dy[:, None] * 0.5 * share, start)}
        width = first.v.shape[1]
        return {"x": padded(dy[:, None, :width], 0) + of_mean(dy[:, width:])}

    return concatenate([first, mean], 1) if y is None else y, pullback


def refined_pool(x: Bounded, heads: int, first: bool) -> tuple[Bounded, Pullback]:
    r"""Attention's, of a value that is query, key and value; then a copy, or a mean over the tokens."""
    each = split_heads(x, heads)
    y, attend = attention(each, each, each)
    refined, tokens = merge_heads(y), x.v.shape[1]

    def pullback(dy: Bounded) -> Grads:
        if first:
            spread = dy.map(lambda a: np.pad(a[:, None], ((0, 0), (0, tokens - 1), (0, 0))))
        else:
            spread = (dy / float(tokens)).map(lambda a: np.repeat(a[:, None], tokens, 1))
        grads = attend(split_heads(spread, heads))
        return {"x": merge_heads(grads["q"] + grads["k"] + grads["v"])}

    return (refined[:, 0] if first else refined.mean(1, keepdims=False)), pullback


def patch_dropout(x: Bounded, mask: np.ndarray, prefix: int) -> tuple[Bounded, Pullback]:
    r"""Only moves numbers: exact."""
    places = [np.flatnonzero(row) + prefix for row in mask]
    kept = np.array([[*range(prefix), *row] for row in places])
    batch = np.arange(len(mask))[:, None]

    def put(a: np.ndarray) -> np.ndarray:
        out = np.zeros((*x.v.shape[:2], a.shape[2]))
        out[batch, kept] = a
        return out

    return x[batch, kept], lambda dy: {"x": dy.map(put)}


def mask_tokens(x: Bounded, mask_token: Bounded, mask: np.ndarray, prefix: int) -> tuple[Bounded, Pullback]:
    r"""Only moves numbers; back, $\gamma_M \sum |g|$ over the $M$ places where the mask token stands."""
    seen = np.pad(mask, ((0, 0), (prefix, 0)), constant_values=True)

    def put(tokens: np.ndarray, fill: np.ndarray) -> np.ndarray:
        out = np.repeat(np.repeat(fill, seen.shape[1], 1), len(seen), 0)
        out[seen] = tokens.reshape(-1, tokens.shape[2])
        return out

    def pullback(dy: Bounded) -> Grads:
        return {"x": dy.map(lambda a: a[seen].reshape(x.v.shape)), "mask_token": dy[~seen].sum(0)[None]}

    return x.new(put(x.v, mask_token.v), put(x.e, mask_token.e)), pullback


def mae_loss(
    prediction: Bounded, images: Bounded, mask: np.ndarray, patch_size: tuple[int, int], norm_pix: bool
) -> tuple[Bounded, Pullback]:
    r"""The target's bound is LayerNorm's with $Q - 1$; the loss one sum over the $|M|Q$ pixels not seen."""
    channels, (batch, count, size) = images.v.shape[1], prediction.v.shape

    def last(a: np.ndarray) -> np.ndarray:
        patches = patchify_loops(a, patch_size).reshape(batch, count, channels, -1)
        return patches.swapaxes(2, 3).reshape(batch, count, size)

    def first(a: np.ndarray) -> np.ndarray:
        patches = a.reshape(batch, count, -1, channels).swapaxes(2, 3).reshape(batch, count, size)
        return unpatchify_loops(patches, images.v.shape[1:], patch_size)

    target = images.map(last)
    if norm_pix:
        centred = target - target.mean(-1)
        scale = ((centred * centred).sum(-1) / float(size - 1) + target.constant(1e-6)).rsqrt()
        target = centred * scale
    error, hidden = prediction - target, ~mask[:, :, None]
    loss = (error * error)[~mask].mean((0, 1), keepdims=False)

    def pullback(dy: Bounded) -> Grads:
        weight = hidden * 2.0 / (hidden.sum() * size)
        dprediction = (error * (dy * dy.constant(weight))).evaluated(2)
        dtarget = -dprediction
        if norm_pix:
            along = (dtarget * target).sum(-1) / float(size - 1)
            dtarget = (dtarget - dtarget.mean(-1) - target * along) * scale
        return {"prediction": dprediction, "images": dtarget.map(first)}

    return loss, pullback
