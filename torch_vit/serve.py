"""Inference that computes of the last block only what the head reads: the class token (derived in numpy_vit.serve)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.attention import fused_attention_forward
from torch_vit.class_token import class_token_forward
from torch_vit.encoder_block import EncoderBlock
from torch_vit.linear import linear_forward
from torch_vit.model import VisionTransformer
from torch_vit.multi_head import merge_heads, split_heads
from torch_vit.numerics import check_dtypes
from torch_vit.pos_embed import pos_embed_forward
from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, check_shape
from vit_common.params import check_params


class Serving(nn.Module):
    """A model, to be served. Parameters: those of the model, below `model`.

    Raises:
        ConfigError: a variant, a model without blocks, or one whose head reads other tokens than the class token.
    """

    def __init__(self, model: VisionTransformer):
        super().__init__()
        config = model.config
        if not (config.is_plain and config.pool == "cls" and config.depth):
            raise ConfigError("serve needs a plain model with blocks and pool='cls'; for any other use vit_forward")
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K), the logits of `model.eval()`, up to rounding."""
        model, config = self.model, self.model.config
        check_shape("images", images, ("B", config.in_channels, *config.image_size))
        x = class_token_forward(model.patch_embed(images), model.cls_token)  # (B, T, D)
        if config.pos_embed != "none":
            learned = config.pos_embed == "learned"
            x = pos_embed_forward(x, model.pos_embed if learned else model.fixed_pos.to(x))
        *blocks, last = model.blocks
        for block in blocks:
            x = block(x, {})  # no masks: nothing is dropped, whatever the model's mode
        x = model.norm(_last_block(last, x))[:, 0]  # (B, D)
        return linear_forward(x, model.head.weight, model.head.bias) if config.num_classes else x


def _last_block(block: EncoderBlock, x: Tensor) -> Tensor:
    """(B, T, D) -> (B, 1, D): row 0 of what the block returns."""
    attn, n1 = block.attn, block.norm1(x)
    (w_q, w_kv), (b_q, b_kv) = (p.tensor_split((x.shape[-1],)) for p in (attn.qkv.weight, attn.qkv.bias))
    q = linear_forward(n1[:, :1], w_q, b_q)  # (B, 1, D)
    k, v = linear_forward(n1, w_kv, b_kv).chunk(2, dim=-1)  # (B, T, D) each
    heads = fused_attention_forward(*(split_heads(part, attn.config.num_heads) for part in (q, k, v)))
    z = x[:, :1] + attn.proj(merge_heads(heads))
    return z + block.mlp(block.norm2(z), {})


@torch.inference_mode()
def serve(params: Mapping[str, Tensor], images: Tensor, config: ViTConfig) -> Tensor:
    """images (B, C, H, W) -> logits (B, K), with the parameters as an argument, as in the NumPy engine."""
    check_dtypes(params, images)
    check_params(params, config)
    module = Serving(VisionTransformer(config, seed=None))
    return functional_call(module, {f"model.{name}": p for name, p in params.items()}, (images,))
