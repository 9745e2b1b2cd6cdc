r"""The whole Vision Transformer: from pixels to logits, and back."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.assembled import AssembledCache, assembled_backward, assembled_forward
from numpy_vit.class_token import ClassTokenCache, class_token_backward, class_token_forward
from numpy_vit.dropout import DropoutCache, dropout_backward, dropout_forward
from numpy_vit.encoder import EncoderCache, encoder_backward, encoder_forward
from numpy_vit.head import HeadCache, head_backward, head_forward
from numpy_vit.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from numpy_vit.patch_embed import PatchEmbedCache, patch_embed_backward, patch_embed_forward
from numpy_vit.pos_embed import PosEmbedCache, pos_embed_backward, pos_embed_forward, sincos_1d, sincos_2d
from vit_common.config import ViTConfig
from vit_common.errors import DtypeError, check_float, check_shape
from vit_common.masks import BEYOND, check_masks
from vit_common.params import check_params, sub, under
from vit_common.tape import Tape, note, scope

Array = np.ndarray


class VitCache(NamedTuple):
    patch_embed: PatchEmbedCache
    class_token: ClassTokenCache | None
    pos_embed: PosEmbedCache | None
    learned_pos: bool
    pos_drop: DropoutCache
    encoder: EncoderCache
    norm: LayerNormCache
    head: HeadCache


def fixed_pos_embed(config: ViTConfig, dtype: np.dtype) -> Array:
    """The sin/cos positions of the configuration, (1, T, D). In 2-D the class token has no place: zeros."""
    if config.pos_embed == "sincos_1d":
        return sincos_1d(config.num_tokens, config.embed_dim)[None].astype(dtype)
    patches = sincos_2d(config.grid_size, config.embed_dim)
    return np.pad(patches, ((int(config.class_token), 0), (0, 0)))[None].astype(dtype)


def vit_forward(
    params: Mapping[str, Array],
    images: Array,
    config: ViTConfig,
    masks: Mapping[str, Array] | None = None,
    tape: Tape = None,
) -> tuple[Array, VitCache | AssembledCache]:
    r"""images (B, C, H, W) -> logits (B, K).

    $$z_0 = [c;\, E(\mathrm{patches})] + p, \qquad z_{\ell+1} = \operatorname{block}_\ell(z_\ell), \qquad
      \mathrm{logits} = \operatorname{head}(\operatorname{pool}(\operatorname{LN}(z_L)))$$

    Dosovitskiy et al. 2021, eq. 1 to 4. `params` has the names of `param_spec(config)`. `masks` come from `make_masks`;
    without them nothing is dropped. `tape`, a dict, receives every intermediate under its dotted name
    (`patch_embed`, `tokens`, `blocks.0.attn.q`, ..., `logits`); give `vit_backward` another for the gradients.

    Raises:
        CheckpointError: a parameter is missing or unknown.
        ConfigError: a mask that no stage reads.
        ShapeError: images, a parameter or a mask have the wrong shape.
        DtypeError: images not of float32 or float64, or of another dtype than the parameters; a mask that is not bool.
        RangeError: a mask that leaves a query no key, or keeps another number of patches in each image.
    """
    check_dtypes(params, images)
    check_params(params, config)
    check_masks(masks or (), config)
    if not config.is_plain or any(name in BEYOND for name in masks or ()):
        return assembled_forward(params, images, config, masks, tape)
    check_shape("images", images, ("B", config.in_channels, *config.image_size))
    masks = masks or {}
    x, c_patch = patch_embed_forward(images, params["patch_embed.proj.weight"], params["patch_embed.proj.bias"])
    note(tape, images=images, patch_embed=x)  # (B, N, D)
    c_class = c_pos = None
    if config.class_token:
        x, c_class = class_token_forward(x, params["cls_token"])  # (B, T, D)
        note(tape, class_token=x)
    if config.pos_embed != "none":
        learned = config.pos_embed == "learned"
        x, c_pos = pos_embed_forward(x, params["pos_embed"] if learned else fixed_pos_embed(config, x.dtype))
    x, c_drop = dropout_forward(x, masks.get("pos_drop"), config.pos_drop_rate)
    note(tape, tokens=x)
    x, c_encoder = encoder_forward(sub(params, "blocks"), x, config, sub(masks, "blocks"), scope(tape, "blocks"))
    x, c_norm = layer_norm_forward(x, params["norm.weight"], params["norm.bias"], config.norm_eps)
    note(tape, norm=x)
    logits, c_head = head_forward(sub(params, "head"), x, config, tape)
    note(tape, logits=logits)
    learned_pos = config.pos_embed == "learned"
    return logits, VitCache(c_patch, c_class, c_pos, learned_pos, c_drop, c_encoder, c_norm, c_head)


def vit_backward(dlogits: Array, cache: VitCache | AssembledCache, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """(B, K) -> dimages (B, C, H, W), gradients with exactly the names of the parameters."""
    if isinstance(cache, AssembledCache):
        return assembled_backward(dlogits, cache, tape)
    note(tape, logits=dlogits)
    dx, g_head = head_backward(dlogits, cache.head, tape)
    note(tape, norm=dx)
    dx, g_norm = layer_norm_backward(dx, cache.norm)
    dx, g_blocks = encoder_backward(dx, cache.encoder, scope(tape, "blocks"))
    note(tape, tokens=dx)
    dx = dropout_backward(dx, cache.pos_drop)
    grads: dict[str, Array] = {}
    if cache.pos_embed is not None:
        dx, g_pos = pos_embed_backward(dx, cache.pos_embed)
        if cache.learned_pos:
            grads |= g_pos
    if cache.class_token is not None:
        note(tape, class_token=dx)
        dx, g_class = class_token_backward(dx, cache.class_token)
        grads |= g_class
    note(tape, patch_embed=dx)
    dimages, g_patch = patch_embed_backward(dx, cache.patch_embed)
    note(tape, images=dimages)
    grads |= {**under("patch_embed.proj", g_patch), **under("blocks", g_blocks)}
    return dimages, {**grads, **under("norm", g_norm), **under("head", g_head)}


def check_dtypes(params: Mapping[str, Array], images: Array) -> None:
    """Raise unless images and parameters share one floating (or, for complex-step derivatives, complex) dtype."""
    check_float("images", images, "scale and normalise them, then use .astype(np.float32)")
    if not isinstance(params, Mapping):
        raise DtypeError(f"params is a {type(params).__name__}, expected a dict of arrays by name, as of init_params")
    for name, p in params.items():
        if getattr(p, "dtype", "") != images.dtype:
            check_float(f"parameter {name}", p)
            raise DtypeError(
                f"parameter {name} has dtype {p.dtype} but the images have {images.dtype}; "
                f"cast one of them, e.g. images.astype(np.{p.dtype})"
            )
