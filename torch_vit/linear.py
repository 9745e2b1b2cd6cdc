r"""Linear map of the last axis: $y = x W^\top + b$."""

from torch import Tensor, nn
from torch.nn import functional as F

from torch_vit import fast_cpu
from vit_common.errors import check_shape


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., I), (O, I), (O,) -> (..., O). See `numpy_vit.linear`; the backward is autograd's.

    Raises:
        ShapeError: the last axis of x is not I, or the bias is not (O,).
    """
    check_shape("linear weight", weight, ("O", x.shape[-1] if x.ndim else -1))
    if bias is not None:
        check_shape("linear bias", bias, (weight.shape[0],))
    return fast_cpu.linear(x, weight, bias) if fast_cpu.serves(x, weight) else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """Parameters `weight` (O, I), `bias` (O,)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear_forward(x, self.weight, self.bias)
