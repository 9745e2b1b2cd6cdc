r"""Quick GELU: a sigmoid in place of the normal distribution's integral (OpenAI CLIP)."""

import torch
from torch import Tensor

SLOPE = 1.702


def quick_gelu_forward(x: Tensor) -> Tensor:
    r"""(...) -> (...), $y = x\, \sigma(1.702\, x)$."""
    return x * torch.sigmoid(SLOPE * x)
