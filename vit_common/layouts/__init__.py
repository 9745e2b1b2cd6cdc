"""Other people's names for the same tensors: one table a library, recognised by name, exact in both directions."""

import re
from collections.abc import Mapping

import numpy as np

from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError, nearest
from vit_common.layouts.facebook import DINO, DINOV2, MAE
from vit_common.layouts.google import BIG_VISION, BIG_VISION_SCAN, GOOGLE, GOOGLE_LINEN
from vit_common.layouts.huggingface import HUGGINGFACE, member
from vit_common.layouts.layout import Layout, anonymous
from vit_common.layouts.lucidrains import LUCIDRAINS, SIMPLE_VIT
from vit_common.layouts.open_clip import OPEN_CLIP
from vit_common.layouts.timm import TIMM
from vit_common.layouts.torchvision import TORCHVISION
from vit_common.layouts.tutorial import TUTORIAL
from vit_common.mae_config import MaeConfig, check_mae_params
from vit_common.params import check_params

__all__ = ["LAYOUTS", "Layout", "export_layout", "find_layout", "get_layout"]

# In the order in which they are tried.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        TIMM, MAE, DINO, DINOV2, *HUGGINGFACE, GOOGLE, GOOGLE_LINEN, BIG_VISION, BIG_VISION_SCAN, TORCHVISION,
        OPEN_CLIP, SIMPLE_VIT, LUCIDRAINS, TUTORIAL,
    )
}  # fmt: skip

# Other words for them.
ALIASES = {
    "hf": "huggingface", "hugging_face": "huggingface", "transformers": "huggingface", "native": "timm", "deit": "timm",
    "huggingface_vit_mae": "huggingface_mae", "vit_mae": "huggingface_mae",
    "huggingface_clip_vision": "huggingface_clip", "huggingface_siglip_vision": "huggingface_siglip",
    "huggingface_dinov3_vit": "huggingface_dinov3", "vision_transformer": "google", "google_research": "google",
    "flax": "google", "jax": "google", "bigvision": "big_vision", "clip": "open_clip", "openai": "open_clip",
    "openai_clip": "open_clip", "openclip": "open_clip", "vit_pytorch": "lucidrains", "simplevit": "simple_vit",
    "facebook_mae": "mae", "facebookresearch_mae": "mae", "facebook_dino": "dino", "facebookresearch_dino": "dino",
    "facebook_dinov2": "dinov2", "facebookresearch_dinov2": "dinov2",    "myvit": "tutorial", "seed": "tutorial",
}  # fmt: skip
# One word for several layouts of one house: whichever fits the tensors' names, or the configuration.
FAMILIES = {
    "huggingface": HUGGINGFACE, "google": (GOOGLE, GOOGLE_LINEN), "big_vision": (BIG_VISION, BIG_VISION_SCAN),
    "lucidrains": (LUCIDRAINS, SIMPLE_VIT),
}  # fmt: skip


def get_layout(name: str, config: ViTConfig | MaeConfig | None = None, names: Mapping | None = None) -> Layout:
    """The layout of that name; of a family, the member that fits the tensors' names or the configuration.

    Raises:
        CheckpointError: an unknown name; the message says the nearest.
    """
    key = name.lower().replace("-", "_").replace(" ", "_")
    key = ALIASES.get(key, key)
    for layout in FAMILIES.get(key, ()):
        if names and layout.fits(names):
            return layout
    if key == "huggingface" and config is not None:
        return LAYOUTS["huggingface_mae" if isinstance(config, MaeConfig) else member(config)]
    if key == "lucidrains" and isinstance(config, ViTConfig) and config.pos_embed == "sincos_2d_inclusive":
        return SIMPLE_VIT
    if key in LAYOUTS:
        return LAYOUTS[key]
    if key in FAMILIES:
        raise CheckpointError(f"no {key} layout has names like {', '.join(list(names or ())[:4])}; say which one it is")
    raise CheckpointError(f"layout {name!r} is unknown; {nearest(key, [*LAYOUTS, *FAMILIES, *ALIASES])}")


def find_layout(tensors: Mapping[str, np.ndarray]) -> Layout:
    """The layout whose marks are among the tensors' names.

    Raises:
        CheckpointError: none is; the message says which comes nearest and which names do not fit it.
    """
    for layout in LAYOUTS.values():
        if layout.fits(tensors):
            return layout
    name = min(LAYOUTS, key=lambda name: len(strangers(LAYOUTS[name], tensors)))
    strange = strangers(LAYOUTS[name], tensors)
    if len(strange) == len(tensors):
        raise CheckpointError(
            f"no known layout has names like {', '.join(list(tensors)[:4])}; known: {', '.join(LAYOUTS)}; "
            f"is it a Vision Transformer?"
        )
    raise CheckpointError(
        f"the tensors' names fit no known layout; nearest is {name!r}, where {len(strange)} of {len(tensors)} names do "
        f"not fit: {', '.join(strange[:6])}; known: {', '.join(LAYOUTS)}"
    )


def strangers(layout: Layout, names: Mapping[str, np.ndarray]) -> list[str]:
    """The names that the layout does not know."""
    known = layout.known_names()
    plain = {name: layout.plain_name(name) for name in names}
    return [name for name, own in plain.items() if anonymous(own) not in known and not re.search(layout.ignored, own)]


def check_unmixed(layout: Layout, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise if names that this layout does not know belong to another one."""
    strange = strangers(layout, tensors)
    others = {name: other.known_names() for name, other in LAYOUTS.items() if strange and other is not layout}
    known = {other: [name for name in strange if anonymous(LAYOUTS[other].plain_name(name)) in names]
             for other, names in others.items()}  # fmt: skip
    nearest_other = max(known, key=lambda other: len(known[other]), default="")
    theirs = known.get(nearest_other, [])
    if len(theirs) > len(strange) // 2 and not layout.fits(tensors):
        raise CheckpointError(
            f"the tensors are named as in {nearest_other}, not as in {layout.name}: {len(theirs)} of {len(tensors)}, "
            f"e.g. {', '.join(theirs[:2])}; leave layout= away, or give layout={nearest_other!r}"
        )
    if len(theirs) > len(strange) // 2:
        raise CheckpointError(
            f"mixed layouts: most tensors are named as in {layout.name}, but {len(theirs)} as in {nearest_other}: "
            f"{', '.join(theirs[:4])}; remove those that do not belong to the model"
        )


def export_layout(
    tensors: Mapping[str, np.ndarray], config: ViTConfig | MaeConfig, layout: str
) -> dict[str, np.ndarray]:
    """Parameters, or their gradients, under the names and in the shapes of another library.

    Numbers are only moved, never changed; what only the other side has is zero.

    Raises:
        CheckpointError: an unknown layout, tensors that do not fit `config`, or one that the layout has no place for.
        ShapeError: a tensor of another shape than `config` says.
    """
    check_fit(tensors, config)
    return get_layout(layout, config).export(tensors, config)


def check_fit(tensors: Mapping[str, np.ndarray], config: ViTConfig | MaeConfig) -> None:
    """Raise unless the tensors have the names and shapes of the configuration."""
    if isinstance(config, ViTConfig):
        check_params(tensors, config)
        return
    check_mae_params(tensors, config)
