r"""Encoder block on a packed row: all of it acts on each token alone, but for attention, which keeps to a segment."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from torch_vit.gelu import gelu_forward
from torch_vit.layer_norm import layer_norm_forward
from torch_vit.linear import linear_forward
from torch_vit.multi_head import merge_heads, split_heads
from torch_vit.packed_attention import packed_attention_forward
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.part_names import ENCODER_BLOCK


def packed_block_forward(
    params: Mapping[str, Tensor], x: Tensor, lengths: Sequence[int], config: ViTConfig
) -> Tensor:
    """(1, T, D), T tokens of segments of these lengths -> (1, T, D): the block of `encoder_block`, nothing dropped.

    Raises:
        CheckpointError: a parameter is missing or unknown.
        ShapeError: a parameter does not fit x, or the lengths do not.
    """
    check_names("packed_block", params, ENCODER_BLOCK)

    def linear(name: str, y: Tensor) -> Tensor:
        return linear_forward(y, params[f"{name}.weight"], params[f"{name}.bias"])

    n1 = layer_norm_forward(x, params["norm1.weight"], params["norm1.bias"], config.norm_eps)
    q, k, v = (split_heads(part, config.num_heads) for part in linear("attn.qkv", n1).chunk(3, dim=-1))
    z = x + linear("attn.proj", merge_heads(packed_attention_forward(q, k, v, lengths)))
    n2 = layer_norm_forward(z, params["norm2.weight"], params["norm2.bias"], config.norm_eps)
    return z + linear("mlp.fc2", gelu_forward(linear("mlp.fc1", n2)))
