"""How pictures are to be prepared for a model, as the folder that it was published in says."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vit_common.errors import CheckpointError
from vit_common.read_tensors import WEIGHT_FILES, read_settings

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
BY_SHORT_SIDE = ("CLIP", "Bit")  # Hugging Face's classes to which one number is the short side


class Preparation(NamedTuple):
    """Of pixels in 0..1: resized by the short side to `resize` pixels, or to the model's size over `crop_pct`; or both
    sides to `squash` (height, width), whatever the proportions. Then the centre is cut out."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    crop_pct: float = 1.0
    squash: tuple[int, int] | None = None
    interpolation: str = "bicubic"


def stated_preparation(checkpoint: Path, image_size: tuple[int, int]) -> Preparation | None:
    """What Hugging Face's preprocessor_config.json or timm's config.json says beside the weights, or None.

    Raises:
        CheckpointError: it says something that is not done here, or nothing that can be understood.
    """
    if not checkpoint.is_dir() and checkpoint.name not in WEIGHT_FILES:  # what lies beside it may be of another model
        return None
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    for name, read in (("preprocessor_config.json", _huggingface), ("config.json", _timm)):
        path = folder / name
        if path.is_file():
            try:
                found = read(read_settings(path), image_size)
            except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as error:
                if isinstance(error, CheckpointError):
                    raise CheckpointError(f"{path}: {error}") from error
                raise CheckpointError(
                    f"{path} does not say how pictures are prepared ({type(error).__name__}: {error}); mend it"
                ) from error
            if found is not None:
                return found
    return None


def _timm(settings: Mapping[str, Any], image_size: tuple[int, int]) -> Preparation | None:
    cfg = settings.get("pretrained_cfg", settings)
    if "architecture" not in settings or cfg.get("mean") is None or cfg.get("std") is None:
        return None
    crop, mode = float(cfg.get("crop_pct") or 0.875), cfg.get("crop_mode") or "center"  # timm's defaults
    if mode not in ("center", "squash"):
        raise CheckpointError(f"crop_mode={mode!r} is not done here; known: 'center', 'squash'")
    if not 0 < crop <= 1:
        raise CheckpointError(f"crop_pct={crop} is no share of a side; expected 0 < crop_pct <= 1")
    height, width = image_size
    return Preparation(
        tuple(map(float, cfg["mean"])), tuple(map(float, cfg["std"])), crop_pct=crop,
        squash=(math.floor(height / crop), math.floor(width / crop)) if mode == "squash" else None,
        interpolation=_interpolation(cfg.get("interpolation") or "bicubic"),
    )  # fmt: skip


def _huggingface(settings: Mapping[str, Any], image_size: tuple[int, int]) -> Preparation | None:
    if "image_mean" not in settings and settings.get("do_normalize", True):
        return None
    if settings.get("rescale_offset"):
        raise CheckpointError("rescale_offset=True is not done here")
    normal = settings.get("do_normalize", True)
    mean = tuple(map(float, settings["image_mean"])) if normal else (0.0,)
    std = tuple(map(float, settings["image_std"])) if normal else (1.0,)
    factor = float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1.0
    scale = 255 * factor  # (x factor - mean) / std of bytes x is (x / 255 - mean / scale) / (std / scale)
    mean, std = tuple(m / scale for m in mean), tuple(s / scale for s in std)
    resample = settings.get("resample", 3)
    interpolation = _interpolation(RESAMPLE.get(resample, resample))
    plain = Preparation(mean, std, interpolation=interpolation)
    size, cut = settings.get("size"), settings.get("crop_size")
    if not settings.get("do_resize", True) or size is None:
        return plain
    crop = cut if settings.get("do_center_crop", cut is not None) else None
    crop = int(crop["height"] if isinstance(crop, Mapping) else crop) if crop else None
    grow = min(image_size) / crop if crop else 1.0  # the model may take another size than the file crops to
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")
    if isinstance(size, int):  # of older files: the short side to some, both sides to the others
        size = {"shortest_edge": size} if kind.startswith(BY_SHORT_SIDE) else {"height": size, "width": size}
    if "shortest_edge" in size:
        return plain._replace(resize=max(round(int(size["shortest_edge"]) * grow), *image_size))
    height, width = int(size["height"]), int(size["width"])
    return plain._replace(squash=image_size if crop is None else (round(height * grow), round(width * grow)))


def _interpolation(name: Any) -> str:
    if name not in RESAMPLE.values():
        raise CheckpointError(f"interpolation={name!r} is not done here; known: {', '.join(RESAMPLE.values())}")
    return str(name)
