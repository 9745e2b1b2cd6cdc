"""MaeConfig: a masked autoencoder, an encoder that sees some of the patches and a decoder that paints the others."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_common.assembled_spec import BLOCKS
from vit_common.config import ViTConfig
from vit_common.config_checks import POSITIVE, RATE, check_fields, check_known, flag, refusal, whole
from vit_common.errors import ConfigError
from vit_common.masks import keep_some, keyed_rng
from vit_common.params import ParamSpec, check_against, draw_params, linear_spec, norm_spec, param_spec, under

CHECKS = {
    **dict.fromkeys(("decoder_dim", "decoder_heads"), whole(1)), "decoder_depth": whole(0), "norm_pix": flag,
    "decoder_mlp_ratio": POSITIVE, "mask_ratio": RATE,
}  # fmt: skip


@dataclass(frozen=True)
class MaeConfig:
    """Masked autoencoder pre-training (He et al. 2022, https://arxiv.org/abs/2111.06377).

    Raises:
        ConfigError: a mask ratio outside [0, 1), an encoder with a head, or a decoder that cannot be built.
    """

    encoder: ViTConfig
    """the encoder; `num_classes` 0, with a class token"""
    decoder_dim: int = 512
    """width of the decoder"""
    decoder_depth: int = 8
    """blocks of the decoder"""
    decoder_heads: int = 16
    """attention heads of the decoder"""
    decoder_mlp_ratio: float = 4.0
    """hidden width of the decoder's MLPs as a multiple of its width"""
    mask_ratio: float = 0.75
    """share of the patches that the encoder does not see"""
    norm_pix: bool = True
    """each patch's pixels are normalised before they are compared"""

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, ViTConfig):
            raise refusal("encoder", self.encoder, "a ViTConfig", "ViTConfig(num_classes=0)")
        check_fields(self, CHECKS)
        if self.encoder.num_classes or not self.encoder.class_token or self.encoder.pool != "cls":
            raise ConfigError("the encoder of a masked autoencoder has a class token, pool='cls' and num_classes=0")
        self.decoder  # noqa: B018  (validated by being built)

    @property
    def decoder(self) -> ViTConfig:
        """The decoder's blocks as a configuration: the encoder's kind, one token a patch and the class token."""
        kind = {name: getattr(self.encoder, name) for name in ("norm_eps", "activation", "qkv_bias", "attn_head_dim")}
        return ViTConfig(
            image_size=self.encoder.image_size, patch_size=self.encoder.patch_size,
            in_channels=self.encoder.in_channels, num_classes=0, embed_dim=self.decoder_dim, depth=self.decoder_depth,
            num_heads=self.decoder_heads, mlp_ratio=self.decoder_mlp_ratio, pos_embed=self.encoder.pos_embed, **kind,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return values | {"encoder": self.encoder.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MaeConfig":
        check_known(values, cls, "values")
        if "encoder" not in values:
            raise ConfigError("the values of a MaeConfig lack 'encoder', the fields of its ViTConfig; give them")
        return cls(**{**values, "encoder": ViTConfig.from_dict(values["encoder"])})

    @classmethod
    def from_huggingface(cls, values: Mapping[str, Any]) -> "MaeConfig":
        """The configuration that a Hugging Face `config.json` of model type `vit_mae` describes.

        Raises:
            ConfigError: another model type.
        """
        if values.get("model_type") != "vit_mae":
            raise ConfigError(f"model_type={values.get('model_type')!r}, expected 'vit_mae'")
        width, hidden = values.get("decoder_hidden_size", 512), values.get("decoder_intermediate_size", 2048)
        exact = int(width * (hidden / width)) == hidden
        return cls(
            encoder=ViTConfig.from_huggingface({**values, "architectures": ["ViTMAEModel"]}), decoder_dim=width,
            decoder_depth=values.get("decoder_num_hidden_layers", 8),
            decoder_heads=values.get("decoder_num_attention_heads", 16),
            decoder_mlp_ratio=hidden / width if exact else (hidden + 0.5) / width,
            mask_ratio=values.get("mask_ratio", 0.75), norm_pix=values.get("norm_pix_loss", False),
        )  # fmt: skip


def mae_spec(config: MaeConfig) -> dict[str, ParamSpec]:
    """Name -> ParamSpec, the names of facebookresearch/mae: the encoder's, then those that start with `decoder_`."""
    encoder, decoder = config.encoder, config.decoder
    spec = dict(param_spec(encoder))
    spec |= under("decoder_embed", linear_spec(config.decoder_dim, encoder.embed_dim))
    spec["mask_token"] = ParamSpec((1, 1, config.decoder_dim), "normal_02")
    if encoder.pos_embed == "learned":
        spec["decoder_pos_embed"] = ParamSpec((1, decoder.num_tokens, config.decoder_dim), "normal_02")
    for i in range(config.decoder_depth):
        spec |= under(f"decoder_blocks.{i}", BLOCKS[decoder.block](decoder, i))
    spec |= under("decoder_norm", norm_spec(config.decoder_dim))
    return spec | under("decoder_pred", linear_spec(encoder.patch_dim, config.decoder_dim))


def check_mae_params(params: Mapping[str, Any], config: MaeConfig) -> None:
    """Raise unless `params` has exactly the names and shapes of `mae_spec(config)`.

    Raises:
        CheckpointError: a name is missing or not part of the model.
        ShapeError: a parameter has another shape.
    """
    check_against(mae_spec(config), params, "this masked autoencoder")


def init_mae_params(config: MaeConfig, seed: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Fresh parameters of encoder and decoder, as `init_params`."""
    return draw_params(mae_spec(config), seed, dtype)


def mae_mask(config: MaeConfig, batch: int, seed: int, step: int) -> np.ndarray:
    """Which patches the encoder sees in a training step: (B, N) of bool, True = seen, keyed by (seed, step)."""
    draw = keyed_rng(seed, "mae", step).random((batch, config.encoder.num_patches), dtype=np.float32)
    return keep_some(draw, config.mask_ratio)
