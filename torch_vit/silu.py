r"""SiLU (Swish): each number times its own sigmoid."""

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid(x: Tensor) -> Tensor:
    r"""$\sigma(x) = 1/(1 + e^{-x})$."""
    return torch.sigmoid(x)


def silu_forward(x: Tensor) -> Tensor:
    r"""(...) -> (...), $y = x\, \sigma(x)$."""
    return F.silu(x)
