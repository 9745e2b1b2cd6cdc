"""ViTConfig: every number that defines a Vision Transformer, validated once, shared by both engines."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from vit_common.errors import ConfigError, nearest
from vit_common.variant import Variant

Pair = int | tuple[int, int]

if TYPE_CHECKING:

    class PairField:
        """What a type checker is told of a field that takes a `Pair`: read back, it is always a pair."""

        def __get__(self, config: object, owner: object = None) -> tuple[int, int]: ...
        def __set__(self, config: object, value: Pair) -> None: ...

else:
    PairField = Pair


@dataclass(frozen=True)
class ViTConfig(Variant):
    r"""A plain pre-norm Vision Transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

    What other Vision Transformers have beyond it are the fields of `Variant`; by default there is none of it.

    Sizes are in pixels; `image_size` and `patch_size` may be an int or a (height, width) pair and are stored as pairs.

    Raises:
        ConfigError: a size that is not positive, an image that the patch does not divide, heads that do not
            divide the width, an unknown choice, a rate outside [0, 1).
    """

    image_size: PairField = cast(Any, 224)
    """height and width of the image in pixels"""
    patch_size: PairField = cast(Any, 16)
    """height and width of one patch in pixels"""
    in_channels: int = 3
    """colour channels C of the image"""
    num_classes: int = 1000
    """number of classes K; 0 means no head: the model returns the pooled features"""
    embed_dim: int = 192
    """width D of a token"""
    depth: int = 12
    """number of encoder blocks"""
    num_heads: int = 3
    """attention heads NH; the head width is HD = D / NH"""
    mlp_ratio: float = 4.0
    """hidden width of the MLP as a multiple of D"""
    pos_embed: Literal["learned", "sincos_1d", "sincos_2d", "sincos_2d_inclusive", "none"] = "learned"
    """positional encoding added to the tokens"""
    class_token: bool = True
    """prepend a learned class token to the patches"""
    pool: Literal["cls", "mean", "max", "avg_max", "cls_mean", "cls_dist", "map", "refined", "none"] = "cls"
    """what the head reads: the class token, or the mean of the patch tokens (the class token left out); in variants
    also their maximum, the mean of both, the class token beside the mean, the mean of class and distillation token,
    what attention pooling or refined pooling reads, or every token by itself"""
    norm_eps: float = 1e-6
    """epsilon inside the square root of LayerNorm"""
    pos_drop_rate: float = 0.0
    """dropout after the positions are added"""
    attn_drop_rate: float = 0.0
    """dropout on the attention probabilities"""
    proj_drop_rate: float = 0.0
    """dropout after the attention projection and after both MLP layers"""
    drop_path_rate: float = 0.0
    """stochastic depth: rate of the last block; the blocks before it rise linearly from 0"""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            object.__setattr__(self, name, _pair(name, getattr(self, name)))
        for name in ("in_channels", "embed_dim", "num_heads"):
            _check_int(name, getattr(self, name), 1)
        for name in ("depth", "num_classes"):
            _check_int(name, getattr(self, name), 0)
        for name in ("pos_drop_rate", "attn_drop_rate", "proj_drop_rate", "drop_path_rate"):
            rate = getattr(self, name)
            if not 0.0 <= rate < 1.0:
                raise ConfigError(f"{name}={rate} is not a rate; expected 0 <= {name} < 1")
        for name in ("pos_embed", "pool"):
            choices = get_args(self.__dataclass_fields__[name].type)  # the strings of the Literal
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown; {nearest(getattr(self, name), choices)}")
        (height, width), (patch_h, patch_w) = self.image_size, self.patch_size
        if (height % patch_h or width % patch_w) and not (self.patch_crop or self.patch_pad):
            raise ConfigError(
                f"image_size {height}x{width} is not divisible by patch_size {patch_h}x{patch_w}; "
                f"choose a patch that divides both sides, or resize the image to "
                f"{max(1, round(height / patch_h)) * patch_h}x{max(1, round(width / patch_w)) * patch_w}"
            )
        if self.attn_head_dim is None and self.embed_dim % self.num_heads:
            fits = [n for n in range(1, self.embed_dim + 1) if self.embed_dim % n == 0]
            raise ConfigError(
                f"num_heads={self.num_heads} does not divide embed_dim={self.embed_dim}; use one of {fits}"
            )
        if self.pool in ("cls", "cls_mean", "cls_dist") and not self.class_token:
            raise ConfigError(f"pool={self.pool!r} needs class_token=True; without a class token use pool='mean'")
        if not self.mlp_ratio > 0 or self.mlp_dim < 1:
            raise ConfigError(f"mlp_ratio={self.mlp_ratio} gives a hidden width of {self.mlp_dim}; expected at least 1")
        if not self.norm_eps > 0:
            raise ConfigError(f"norm_eps={self.norm_eps} must be positive, e.g. 1e-6")
        if self.pos_embed.startswith("sincos_2d") and self.embed_dim % 4:
            raise ConfigError(f"pos_embed={self.pos_embed!r} needs embed_dim divisible by 4, got {self.embed_dim}")
        self.check_variant()

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches along height and width: whole ones, or with `patch_pad` as many as hold every pixel."""
        (height, width), (patch_h, patch_w) = self.image_size, self.patch_size
        if self.patch_pad:
            return -(-height // patch_h), -(-width // patch_w)
        return height // patch_h, width // patch_w

    @property
    def stored_grid(self) -> tuple[int, int]:
        """Grid of patches for which learned positions and relative position tables are stored."""
        return self.pos_grid or self.grid_size

    @property
    def num_patches(self) -> int:
        r"""$N = HW / (P_h P_w)$: the channels do not enter, a patch holds all of them."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_tokens(self) -> int:
        """Sequence length T: the patches, and the class token (in variants, also others) before them."""
        return self.num_patches + self.num_prefix_tokens

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch, C * P_h * P_w."""
        return self.in_channels * self.patch_size[0] * self.patch_size[1]

    @property
    def head_dim(self) -> int:
        return self.attn_head_dim or self.embed_dim // self.num_heads

    @property
    def attn_dim(self) -> int:
        """Inner width of attention, NH * HD: the width D unless `attn_head_dim` says otherwise."""
        return self.num_heads * self.head_dim

    @property
    def mlp_dim(self) -> int:
        """Hidden width M of the MLP, truncated as in timm."""
        return self.mlp_hidden or int(self.embed_dim * self.mlp_ratio)

    def at_image_size(self, image_size: Pair) -> "ViTConfig":
        """The same parameters on images of another size: positions are resized from their own grid."""
        stored = self.pos_embed == "learned" or self.rel_pos_bias != "none"
        return self.replace(image_size=image_size, pos_grid=self.stored_grid if stored else None)

    def for_images(self, shape: Sequence[int]) -> "ViTConfig":
        """What `dynamic_image_size` makes of images (B, C, H, W) of another size; else the same configuration."""
        if not self.dynamic_image_size or len(shape) != 4 or tuple(shape[2:]) == self.image_size:
            return self
        return self.at_image_size((shape[2], shape[3]))

    def replace(self, **changes: Any) -> "ViTConfig":
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse. Of the variant's fields, those unlike the plain model's."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in Variant.__dataclass_fields__]
        values = {name: getattr(self, name) for name in names} | self.variant_fields()
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ViTConfig":
        known = cls.__dataclass_fields__
        for name in values:
            if name not in known:
                raise ConfigError(f"ViTConfig has no field {name!r}; {nearest(name, known)}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "ViTConfig":
        """A named configuration, with any field overridden.

        Raises:
            ConfigError: an unknown name; the message says the nearest.
        """
        if name not in PRESETS:
            raise ConfigError(f"preset {name!r} is unknown; {nearest(name, PRESETS)}")
        return cls.from_dict({**PRESETS[name], **overrides})

    @classmethod
    def from_timm(cls, name: str, **model_args: Any) -> "ViTConfig":
        """The configuration of a timm architecture, with timm's own constructor arguments as overrides.

        Raises:
            ConfigError: an unknown name (the message says the nearest), or an argument that has no counterpart here.
        """
        from vit_common.timm_config import timm_fields

        return cls(**timm_fields(name, model_args))

    @classmethod
    def from_huggingface(cls, values: dict[str, Any]) -> "ViTConfig":
        """The configuration that a Hugging Face `config.json` describes.

        Raises:
            ConfigError: an unknown `model_type`, or an option that has no counterpart here.
        """
        from vit_common.huggingface_config import huggingface_fields

        return cls(**huggingface_fields(values))


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2:
        raise ConfigError(f"{name}={value!r} must be an int or a (height, width) pair")
    for side in pair:
        _check_int(name, side, 1)
    return pair


def _check_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}={value!r} must be an integer of at least {least}")


def _vit(width: int, depth: int, heads: int, patch: int) -> dict[str, Any]:
    return {"image_size": 224, "patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads}


# Sizes: Dosovitskiy et al. 2021, table 1 (Base, Large, Huge); Touvron et al. 2021, table 1 (Tiny, Small).
PRESETS: dict[str, dict[str, Any]] = {
    "digits": {"image_size": 8, "patch_size": 2, "in_channels": 1, "num_classes": 10, "embed_dim": 48, "depth": 4,
               "num_heads": 4, "mlp_ratio": 2.0},
    "mnist": {"image_size": 28, "patch_size": 7, "in_channels": 1, "num_classes": 10, "embed_dim": 64, "depth": 6,
              "num_heads": 4},
    "cifar10": {"image_size": 32, "patch_size": 4, "num_classes": 10, "embed_dim": 192, "depth": 9, "num_heads": 3,
                "mlp_ratio": 2.0},
    "vit_tiny_patch16_224": _vit(192, 12, 3, 16),
    "vit_small_patch16_224": _vit(384, 12, 6, 16),
    "vit_small_patch32_224": _vit(384, 12, 6, 32),
    "vit_base_patch16_224": _vit(768, 12, 12, 16),
    "vit_base_patch32_224": _vit(768, 12, 12, 32),
    "vit_large_patch16_224": _vit(1024, 24, 16, 16),
    "vit_huge_patch14_224": _vit(1280, 32, 16, 14),
}
