r"""ReLU: the positive part."""

import torch
from torch import Tensor


def relu_forward(x: Tensor) -> Tensor:
    r"""(...) -> (...), $y = \max(x, 0)$, with slope 0 at 0."""
    return torch.relu(x)
