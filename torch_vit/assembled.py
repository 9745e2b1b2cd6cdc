r"""The whole model of any configuration, assembled: patches, tokens, blocks, norm, head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.assembled_encoder import AssembledEncoder, encoder_positions
from torch_vit.assembled_head import AssembledHead
from torch_vit.multi_head import AttentionPath
from torch_vit.norm import make_norm
from torch_vit.patch_dropout import random_mask
from torch_vit.patch_stem import PatchStem
from torch_vit.prefix_tokens import ORDER
from torch_vit.rope_mixed import RopeMixed
from torch_vit.tape import Tap
from torch_vit.token_stem import token_stem_forward
from vit_common.config import ViTConfig
from vit_common.params import sub

TOP = (*ORDER, "pos_embed")


class Assembled(AssembledHead):
    """images (B, C, H, W) -> logits (B, K): what `VisionTransformer` is for a configuration that is not plain.

    Masks beyond the plain model's: `patch_drop` (B, N), `attn_mask`, `padding_mask` (B, N). On a plain configuration it
    computes what the plain model computes.
    """

    patch_embed: Any  # the plain model has other modules under these names
    blocks: Any
    norm: Any
    head: Any
    pos_embed: Any

    def __init__(self, config: ViTConfig, attention: AttentionPath = "fused"):
        super().__init__()
        self.config = config
        self.build(config, attention)

    def build(self, config: ViTConfig, attention: AttentionPath) -> None:
        width = config.embed_dim
        self.images, self.tokens, self.embedded, self.logits = (Tap() for _ in range(4))
        self.patch_embed = PatchStem(config)
        counts = int(config.class_token), int(config.dist_token), config.reg_tokens
        for name, count in zip(ORDER, counts, strict=True):
            if count:
                setattr(self, name, nn.Parameter(torch.empty(1, count, width)))
        if config.pos_embed == "learned":
            grid = config.stored_grid
            self.pos_embed = nn.Parameter(torch.empty(1, grid[0] * grid[1] + config.num_pos_prefix, width))
        self.rope = RopeMixed(config.depth, config.num_heads, config.head_dim) if config.rope == "mixed" else None
        self.rel_pos_bias = None
        if config.rel_pos_bias in ("shared", "both"):
            rows, columns = (2 * n - 1 for n in config.stored_grid)
            table = nn.Parameter(torch.empty(rows * columns + 3, config.num_heads))
            self.rel_pos_bias = nn.ParameterDict({"relative_position_bias_table": table})
        self.norm_pre = make_norm(width, config.norm, config.norm_eps) if config.pre_norm else None
        self.blocks = AssembledEncoder(config, attention)
        self.norm = make_norm(width, config.norm, config.norm_eps) if config.final_norm else None
        self.add_head(config, attention)

    def forward(self, images: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return self.logits(self.read(self.features(images, masks), self.config))

    def features(self, images: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, C, H, W) -> tokens (B, T, D) that the head reads."""
        config, random = self.config.for_images(images.shape), self.training and masks is None
        inner = dict(masks or {})
        if random and config.patch_drop_rate:
            rate = config.patch_drop_rate
            inner["patch_drop"] = random_mask(len(images), config.num_patches, rate, images.device)
        x = self.patch_embed(self.images(images))  # (B, N, D)
        top = {name: getattr(self, name) for name in TOP if hasattr(self, name)}
        x = self.embedded(token_stem_forward(top, x, config, inner, random))  # (B, T, D)
        x = self.tokens(x if self.norm_pre is None else self.norm_pre(x))
        table = None if self.rope is None else self.rope.table
        shared = None if self.rel_pos_bias is None else self.rel_pos_bias["relative_position_bias_table"]
        positions = encoder_positions(config, table, shared, inner, x)
        x = self.blocks(x, positions, None if masks is None else sub(masks, "blocks"))
        return x if self.norm is None else self.norm(x)


def assembled_forward(
    params: Mapping[str, Tensor], images: Tensor, config: ViTConfig, masks: Mapping[str, Tensor] | None = None
) -> Tensor:
    """images (B, C, H, W) -> logits (B, K), with the parameters as an argument, as in the NumPy engine."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = Assembled(config, "explicit").eval()
    return functional_call(module, dict(params), (images, masks), strict=True)


class _Features(Assembled):
    def forward(self, images: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        return self.features(images, masks)


def assembled_features_forward(
    params: Mapping[str, Tensor], images: Tensor, config: ViTConfig, masks: Mapping[str, Tensor]
) -> Tensor:
    """images (B, C, H, W) -> tokens (B, T, D) that the head reads, with the parameters as an argument."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = _Features(config.replace(num_classes=0, dist_head=False), "explicit").eval()
    return functional_call(module, dict(params), (images, masks))
