r"""Cross-entropy of class labels, straight from the logits."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vit_common.errors import DtypeError, RangeError, ShapeError, check_shape


def cross_entropy_forward(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B, K), (B,) of int -> mean loss in nats, a scalar.

    Raises:
        ShapeError: logits not (B, K), none of them, or labels not (B,).
        DtypeError: labels that are not integers.
        RangeError: a label outside 0..K-1, or smoothing outside [0, 1]. Only on the CPU: looking at the values of a
            GPU tensor would make the step wait for it; there torch's own kernel asserts the range.
    """
    check_shape("logits", logits, ("B", "K"))
    if not all(logits.shape):
        raise ShapeError(f"logits have shape {tuple(logits.shape)}, and nothing has no mean; give an image and a class")
    check_shape("labels", labels, (logits.shape[0],))
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DtypeError(f"labels have dtype {labels.dtype}, expected integers; use labels.long()")
    if not 0.0 <= label_smoothing <= 1.0:
        raise RangeError(f"label_smoothing={label_smoothing} is outside [0, 1]")
    classes = logits.shape[1]
    if labels.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = labels[(labels < 0) | (labels >= classes)]
        if outside.numel():
            raise RangeError(f"label {int(outside[0])} is outside 0..{classes - 1} for logits of {classes} classes")
    return F.cross_entropy(logits, labels.long(), label_smoothing=label_smoothing)
