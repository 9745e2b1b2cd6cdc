r"""The activation that a configuration names: a table of stages."""

from torch import Tensor

from torch_vit.gelu import gelu_forward
from torch_vit.gelu_tanh import gelu_tanh_forward
from torch_vit.quick_gelu import quick_gelu_forward
from torch_vit.relu import relu_forward
from torch_vit.silu import silu_forward
from vit_common.errors import ConfigError, nearest

ACTIVATIONS = {
    "gelu": gelu_forward,
    "gelu_tanh": gelu_tanh_forward,
    "quick_gelu": quick_gelu_forward,
    "relu": relu_forward,
    "silu": silu_forward,
}


def activation_forward(x: Tensor, name: str) -> Tensor:
    """(...) -> (...).

    Raises:
        ConfigError: the name is not in the table.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r} is unknown; {nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name](x)
