r"""Cross-entropy of class labels, straight from the logits."""

from typing import NamedTuple

import numpy as np

from vit_common.errors import DtypeError, RangeError, ShapeError, check_shape

Array = np.ndarray


class CrossEntropyCache(NamedTuple):
    log_probs: Array  # (B, K)
    labels: Array  # (B,)
    label_smoothing: float


def cross_entropy_forward(
    logits: Array, labels: Array, label_smoothing: float = 0.0
) -> tuple[np.floating, CrossEntropyCache]:
    r"""(B, K), (B,) of int -> mean loss in nats, a scalar of the logits' dtype.

    $$\log p = z - \log \sum_j e^{z_j}, \qquad t_k = (1-s)\,\mathbb 1[k = y] + \tfrac sK, \qquad
      L = -\frac1B \sum_b \sum_k t_{bk} \log p_{bk}$$

    Label smoothing $s$: Szegedy et al. 2016, section 7. The log-sum-exp is shifted by the row's maximum; taking the
    softmax first and its logarithm after would lose the small probabilities.

    **Backward.** $\partial \log p_k/\partial z_j = \delta_{kj} - p_j$ and $\sum_k t_k = 1$ give
    $\partial L/\partial z = (p - t)/B$.

    Raises:
        ShapeError: logits not (B, K), none of them, or labels not (B,).
        DtypeError: labels that are not integers.
        RangeError: a label outside 0..K-1, or smoothing outside [0, 1].
    """
    check_shape("logits", logits, ("B", "K"))
    if not all(logits.shape):
        raise ShapeError(f"logits have shape {tuple(logits.shape)}, and nothing has no mean; give an image and a class")
    check_labels(labels, *logits.shape)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RangeError(f"label_smoothing={label_smoothing} is outside [0, 1]")
    row_max = (logits.real if np.iscomplexobj(logits) else logits).max(axis=1, keepdims=True)
    log_probs = logits - row_max
    log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
    losses = log_probs[np.arange(len(labels)), labels]  # (B,)
    if label_smoothing:
        losses = (1.0 - label_smoothing) * losses + label_smoothing * log_probs.mean(axis=1)
    return -losses.mean(), CrossEntropyCache(log_probs, labels, label_smoothing)


def cross_entropy_backward(cache: CrossEntropyCache, dloss: float = 1.0) -> Array:
    """() -> dlogits (B, K)."""
    log_probs, labels, label_smoothing = cache
    check_shape("dloss of cross_entropy", dloss, ())
    batch, classes = log_probs.shape
    dlogits = np.exp(log_probs)  # p
    dlogits -= label_smoothing / classes  # t_k = s / K ...
    dlogits[np.arange(batch), labels] -= 1.0 - label_smoothing  # ... + (1 - s) at the label
    dlogits *= dloss / batch  # losses.mean()
    return dlogits


def check_labels(labels: Array, batch: int, classes: int) -> None:
    """Raise unless labels are integers (batch,) in 0..classes-1."""
    check_shape("labels", labels, (batch,))
    if not np.issubdtype(labels.dtype, np.integer):
        raise DtypeError(f"labels have dtype {labels.dtype}, expected integers; use labels.astype(np.int64)")
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        bad = labels[(labels < 0) | (labels >= classes)][0]
        raise RangeError(f"label {bad} is outside 0..{classes - 1} for logits of {classes} classes")
