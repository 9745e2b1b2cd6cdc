r"""Images of any sizes in one row, without padding: "Patch n' Pack" (Dehghani et al. 2023, NaViT, section 2.1)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from torch_vit.head import head_forward
from torch_vit.layer_norm import layer_norm_forward
from torch_vit.numerics import check_dtypes
from torch_vit.packed_block import packed_block_forward
from torch_vit.packed_tokens import packed_lengths, packed_tokens_forward
from vit_common.config import ViTConfig
from vit_common.params import check_packable, check_params, sub


def packed_forward(
    params: Mapping[str, Tensor], images: Sequence[Tensor], config: ViTConfig
) -> Tensor:
    """B images (C, H_i, W_i) -> logits (B, K), with the parameters as an argument: of a module, its named_parameters.

    Raises:
        ConfigError: a variant of the model, or no image.
        CheckpointError: a parameter is missing or unknown.
        ShapeError: an image has other channels, or the patch does not divide it.
        DtypeError: an image that is not floating point, or of another dtype than the parameters.
    """
    check_packable(config, len(images))
    check_params(params, config)
    for image in images:
        check_dtypes(params, image)
    lengths = packed_lengths(images, config)
    x = packed_tokens_forward(params, images, config)  # (1, T, D)
    for i in range(config.depth):
        x = packed_block_forward(sub(params, f"blocks.{i}"), x, lengths, config)
    x = layer_norm_forward(x, params["norm.weight"], params["norm.bias"], config.norm_eps)
    head = sub(params, "head")
    return torch.cat([head_forward(head, part, config) for part in x.split(list(lengths), dim=1)])
