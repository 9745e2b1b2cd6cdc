r"""Masked autoencoder: the encoder sees some patches, a light decoder paints the pixels of the others."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from numpy_vit.assembled import (
    AssembledFeaturesCache,
    assembled_features_backward,
    assembled_features_forward,
)
from numpy_vit.assembled_encoder import AssembledEncoderCache, assembled_encoder_backward, assembled_encoder_forward
from numpy_vit.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from numpy_vit.linear import LinearCache, linear_backward, linear_forward
from numpy_vit.mae_loss import MaeLossCache, mae_loss_backward, mae_loss_forward
from numpy_vit.mask_tokens import MaskTokensCache, mask_tokens_backward, mask_tokens_forward
from numpy_vit.model import check_dtypes
from numpy_vit.pos_embed import PosEmbedCache, pos_embed_backward, pos_embed_forward
from numpy_vit.token_stem import fixed_positions
from vit_common.mae_config import MaeConfig, check_mae_params
from vit_common.params import sub, under
from vit_common.tape import Tape, note

Array = np.ndarray


class MaeCache(NamedTuple):
    features: AssembledFeaturesCache
    embed: LinearCache
    mask_tokens: MaskTokensCache
    pos: PosEmbedCache | None  # None: positions are not learned
    blocks: AssembledEncoderCache
    norm: LayerNormCache
    pred: LinearCache
    prefix: int
    loss: MaeLossCache


def mae_forward(
    params: Mapping[str, Array], images: Array, config: MaeConfig, mask: Array, tape: Tape = None
) -> tuple[tuple[np.floating, Array], MaeCache]:
    r"""images (B, C, H, W), mask (B, N) of bool, True = seen -> (loss (), prediction (B, N, Q)), $Q = P_h P_w C$.

    $$\hat t = W_p \operatorname{LN}\bigl(\operatorname{blocks}(\operatorname{fill}(W_e\, z) + p)\bigr) + b_p, \qquad
      z = \operatorname{encoder}(\text{patches seen})$$

    He et al. 2022, section 3. Parameters: `mae_spec(config)`; the mask comes from `mae_mask`. **Backward**: from the
    loss, through the decoder and the encoder; the images' gradient is the sum of what comes through the encoder and
    through the target.

    Raises:
        CheckpointError, ShapeError, DtypeError, RangeError: as of `vit_forward` and `mae_loss_forward`.
    """
    check_mae_params(params, config)
    check_dtypes(params, images)
    decoder = config.decoder
    z, c_features = assembled_features_forward(params, images, config.encoder, {"patch_drop": mask}, tape)  # (B, S, D)
    x, c_embed = linear_forward(z, params["decoder_embed.weight"], params["decoder_embed.bias"])
    note(tape, decoder_embed=x)
    prefix = config.encoder.num_prefix_tokens
    x, c_tokens = mask_tokens_forward(x, params["mask_token"], mask, prefix)  # (B, T, DD)
    learned = "decoder_pos_embed" in params
    pos = params["decoder_pos_embed"] if learned else fixed_positions(decoder, x.dtype)
    x, c_pos = pos_embed_forward(x, pos)
    note(tape, decoder_tokens=x)
    blocks, seen = under("blocks", sub(params, "decoder_blocks")), dict[str, Array]()
    x, c_blocks = assembled_encoder_forward(blocks, x, decoder, {}, None if tape is None else seen)
    note(tape, **{f"decoder_{name}": value for name, value in seen.items()})
    x, c_norm = layer_norm_forward(x, params["decoder_norm.weight"], params["decoder_norm.bias"], decoder.norm_eps)
    note(tape, decoder_norm=x)
    out, c_pred = linear_forward(x, params["decoder_pred.weight"], params["decoder_pred.bias"])  # (B, T, Q)
    note(tape, decoder_pred=out)
    prediction = out[:, prefix:]
    loss, c_loss = mae_loss_forward(prediction, images, mask, config.encoder.patch_size, config.norm_pix)
    inside = c_features, c_embed, c_tokens, c_pos if learned else None, c_blocks, c_norm, c_pred
    return (loss, prediction), MaeCache(*inside, prefix, c_loss)


def mae_backward(cache: MaeCache, dloss: float = 1.0, tape: Tape = None) -> tuple[Array, dict[str, Array]]:
    """() -> dimages (B, C, H, W), gradients with exactly the names of the parameters."""
    dprediction, dtarget = mae_loss_backward(cache.loss, dloss)
    dout = np.pad(dprediction, ((0, 0), (cache.prefix, 0), (0, 0)))  # prediction = out[:, prefix:]
    note(tape, decoder_pred=dout)
    dx, g_pred = linear_backward(dout, cache.pred)
    note(tape, decoder_norm=dx)
    dx, g_norm = layer_norm_backward(dx, cache.norm)
    seen: dict[str, Array] = {}
    dx, g_blocks = assembled_encoder_backward(dx, cache.blocks, None if tape is None else seen)
    note(tape, **{f"decoder_{name}": value for name, value in seen.items()})
    note(tape, decoder_tokens=dx)
    grads = {**under("decoder_pred", g_pred), **under("decoder_norm", g_norm)}
    grads |= {f"decoder_{name}": g for name, g in g_blocks.items()}
    if cache.pos is not None:
        dx, g_pos = pos_embed_backward(dx, cache.pos)
        grads["decoder_pos_embed"] = g_pos["pos_embed"]
    dx, g_token = mask_tokens_backward(dx, cache.mask_tokens)
    note(tape, decoder_embed=dx)
    dz, g_embed = linear_backward(dx, cache.embed)
    dimages, g_encoder = assembled_features_backward(dz, cache.features, tape)
    dimages = dimages + dtarget  # the images are what the encoder sees and what the decoder shall paint
    return dimages, {**g_encoder, **under("decoder_embed", g_embed), **g_token, **grads}
