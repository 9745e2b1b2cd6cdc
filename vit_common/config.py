"""ViTConfig: every number that defines a Vision Transformer, validated once, shared by both engines."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from vit_common.config_checks import check_fields, check_known, check_width, checks_of, choice, refusal
from vit_common.errors import ConfigError
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
        ConfigError: a value of another type than the field's or outside its range, an unknown choice, an image that
            the patch does not divide, heads that do not divide the width, fields that contradict each other.
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
        check_fields(self, CHECKS)
        (height, width), (patch_h, patch_w) = self.image_size, self.patch_size
        if (height % patch_h or width % patch_w) and not (self.patch_crop or self.patch_pad):
            raise ConfigError(
                f"image_size {height}x{width} is not divisible by patch_size {patch_h}x{patch_w}; "
                f"choose a patch that divides both sides, or resize the image to "
                f"{max(1, round(height / patch_h)) * patch_h}x{max(1, round(width / patch_w)) * patch_w}"
            )
        if self.attn_head_dim is None and self.embed_dim % self.num_heads:
            fits = [n for n in range(1, min(self.embed_dim, 4096) + 1) if self.embed_dim % n == 0]  # a file may lie
            raise ConfigError(
                f"num_heads={self.num_heads} does not divide embed_dim={self.embed_dim}; use one of {fits}"
            )
        if self.pool in ("cls", "cls_mean", "cls_dist") and not self.class_token:
            raise ConfigError(f"pool={self.pool!r} needs class_token=True; without a class token use pool='mean'")
        check_width("mlp_ratio", self.mlp_ratio, self.mlp_hidden or self.embed_dim * self.mlp_ratio)
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
        """A copy with some fields changed, validated again; a name that is no field is a ConfigError."""
        check_known(changes, type(self), "changes")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse. Of the variant's fields, those unlike the plain model's."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in Variant.__dataclass_fields__]
        values = {name: getattr(self, name) for name in names} | self.variant_fields()
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ViTConfig":
        """A configuration from plain JSON types.

        Raises:
            ConfigError: not a table of fields, a name that is no field, or a value that the field may not hold.
        """
        check_known(values, cls, "values")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "ViTConfig":
        """A named configuration, with any field overridden.

        Raises:
            ConfigError: an unknown name; the message says the nearest.
        """
        choice(tuple(PRESETS))("preset", name)
        return cls.from_dict({**PRESETS[name], **overrides})

    @classmethod
    def from_timm(cls, name: str, **model_args: Any) -> "ViTConfig":
        """The configuration of a timm architecture, with timm's own constructor arguments as overrides.

        Raises:
            ConfigError: an unknown name (the message says the nearest), or an argument that has no counterpart here.
        """
        from vit_common.timm_config import timm_fields

        if not isinstance(name, str):
            raise refusal("name", name, "the name of a timm architecture", "vit_tiny_patch16_224")
        return cls(**timm_fields(name, model_args))

    @classmethod
    def from_huggingface(cls, values: dict[str, Any]) -> "ViTConfig":
        """The configuration that a Hugging Face `config.json` describes.

        Raises:
            ConfigError: an unknown `model_type`, or an option that has no counterpart here.
        """
        from vit_common.huggingface_config import huggingface_fields

        if not isinstance(values, Mapping):
            raise refusal("values", values, "the dict that a config.json holds", {"model_type": "vit"})
        return cls(**huggingface_fields(values))


CHECKS = checks_of(ViTConfig)


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
