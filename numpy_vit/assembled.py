r"""The whole model of any configuration, assembled: patches, tokens, blocks, norm, head."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.assembled_encoder import AssembledEncoderCache, assembled_encoder_backward, assembled_encoder_forward
from numpy_vit.assembled_head import AssembledHeadCache, assembled_head_backward, assembled_head_forward
from numpy_vit.norm import NormCache, norm_backward, norm_forward
from numpy_vit.patch_stem import PatchStemCache, patch_stem_backward, patch_stem_forward
from numpy_vit.token_stem import TokenStemCache, token_stem_backward, token_stem_forward
from vit_common.config import ViTConfig
from vit_common.params import sub, under
from vit_common.tape import Tape, note, scope

Array = np.ndarray


class AssembledFeaturesCache(NamedTuple):
    patch: PatchStemCache
    tokens: TokenStemCache
    norm_pre: NormCache | None
    encoder: AssembledEncoderCache
    norm: NormCache | None


class AssembledCache(NamedTuple):
    features: AssembledFeaturesCache
    head: AssembledHeadCache


def assembled_features_forward(
    params: Mapping[str, Array], images: Array, config: ViTConfig, masks: Mapping[str, Array], tape: Tape = None
) -> tuple[Array, AssembledFeaturesCache]:
    r"""images (B, C, H, W) -> tokens (B, T, D) that the head reads.

    $$x = \operatorname{norm}(\operatorname{blocks}(\operatorname{norm_{pre}}(\operatorname{tokens}(
      \operatorname{patches}(\mathrm{images})))))$$
    """
    config = config.for_images(images.shape)
    x, c_patch = patch_stem_forward(sub(params, "patch_embed"), images, config, scope(tape, "patch_embed"))
    note(tape, images=images, patch_embed=x)  # (B, N, D)
    x, c_tokens = token_stem_forward(params, x, config, masks)
    note(tape, embedded=x)  # (B, T, D)
    c_pre = c_norm = None
    if config.pre_norm:
        x, c_pre = norm_forward(sub(params, "norm_pre"), x, config.norm, config.norm_eps)
        note(tape, norm_pre=x)
    note(tape, tokens=x)
    x, c_encoder = assembled_encoder_forward(params, x, config, masks, tape)
    if config.final_norm:
        x, c_norm = norm_forward(sub(params, "norm"), x, config.norm, config.norm_eps)
        note(tape, norm=x)
    return x, AssembledFeaturesCache(c_patch, c_tokens, c_pre, c_encoder, c_norm)


def assembled_features_backward(
    dx: Array, cache: AssembledFeaturesCache, tape: Tape = None
) -> tuple[Array, dict[str, Array]]:
    """(B, T, D) -> dimages (B, C, H, W), gradients of the parameters."""
    grads: dict[str, Array] = {}
    if cache.norm is not None:
        note(tape, norm=dx)
        dx, g = norm_backward(dx, cache.norm)
        grads |= under("norm", g)
    dx, g_encoder = assembled_encoder_backward(dx, cache.encoder, tape)
    note(tape, tokens=dx)
    if cache.norm_pre is not None:
        note(tape, norm_pre=dx)
        dx, g = norm_backward(dx, cache.norm_pre)
        grads |= under("norm_pre", g)
    note(tape, embedded=dx)
    dx, g_tokens = token_stem_backward(dx, cache.tokens)
    note(tape, patch_embed=dx)
    dimages, g_patch = patch_stem_backward(dx, cache.patch, scope(tape, "patch_embed"))
    note(tape, images=dimages)
    return dimages, {**g_tokens, **under("patch_embed", g_patch), **g_encoder, **grads}


def assembled_forward(
    params: Mapping[str, Array], images: Array, config: ViTConfig,
    masks: Mapping[str, Array] | None = None, tape: Tape = None,
) -> tuple[Array, AssembledCache]:  # fmt: skip
    r"""images (B, C, H, W) -> logits (B, K): what `vit_forward` does with a configuration that is not plain.

    $$\mathrm{logits} = \operatorname{head}(\operatorname{features}(\mathrm{images}))$$

    Masks beyond the plain model's: `patch_drop` (B, N), `attn_mask`, `padding_mask` (B, N). On a plain configuration it
    computes what the plain model computes.

    Raises:
        ShapeError, DtypeError, RangeError: as of `vit_forward`.
    """
    x, c_features = assembled_features_forward(params, images, config, masks or {}, tape)
    logits, c_head = assembled_head_forward(params, x, config, tape)
    note(tape, logits=logits)
    return logits, AssembledCache(c_features, c_head)


def assembled_backward(dlogits: Array, cache: AssembledCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, K) -> dimages (B, C, H, W), gradients with exactly the names of the parameters."""
    note(tape, logits=dlogits)
    dx, g_head = assembled_head_backward(dlogits, cache.head, tape)
    dimages, grads = assembled_features_backward(dx, cache.features, tape)
    return dimages, {**grads, **g_head}
