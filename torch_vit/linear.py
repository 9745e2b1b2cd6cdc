r"""Linear map of the last axis: $y = x W^\top + b$."""

from torch import Tensor
from torch.nn import functional as F

from vit_common.errors import check_shape


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., I), (O, I), (O,) -> (..., O). See `numpy_vit.linear`; the backward is autograd's.

    Raises:
        ShapeError: the last axis of x is not I, or the bias is not (O,).
    """
    check_shape("linear weight", weight, ("O", x.shape[-1] if x.ndim else "I"))
    if bias is not None:
        check_shape("linear bias", bias, (weight.shape[0],))
    return F.linear(x, weight, bias)
