"""Where a checkpoint's configuration comes from: an argument, config.json, the published name, and the shapes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError, ConfigError
from vit_common.layouts.inference import decoder_from_shapes, fields_from_shapes
from vit_common.layouts.layout import Facts, Layout, Model
from vit_common.mae_config import MaeConfig

PROPERTIES = ("mlp_dim", "head_dim")  # what libraries take as arguments and ViTConfig derives from its fields
DECODER = tuple(name for name in MaeConfig.__dataclass_fields__ if name != "encoder")
TOLD = ("embed_dim", "depth", "in_channels", "patch_size", "num_classes")  # by shapes, whatever the layout


class Source(NamedTuple):
    config: Model
    name: str  # in words, for messages


def find_config(
    given: Model | Mapping[str, Any] | None, settings: Mapping[str, Any] | None, name: str, layout: Layout,
    tensors: Mapping[str, np.ndarray],
) -> Source:  # fmt: skip
    """The configuration of these tensors (under the layout's plain names).

    In this order: the argument (whole, or some fields), config.json or what is embedded in the file, the file's
    published name if it begins with the name of a timm architecture. Shapes fill what is left open; what they cannot
    tell is an error.

    Raises:
        CheckpointError: something stays unknown (the message says how to give it), or contradicts the tensors.
    """
    try:
        if isinstance(given, (ViTConfig, MaeConfig)):
            return Source(given, "the given configuration")
        if given and given.keys() & {"architecture", "model_type", "vision_config", "vit_config", "model_cfg"}:
            return Source(from_settings(given, layout, tensors), "the given configuration")
        if given:
            return Source(from_fields(given, layout, tensors), "the given configuration")
        if settings is not None and "ViTMAEForPreTraining" in (settings.get("architectures") or ()):
            return Source(_guarded(lambda: MaeConfig.from_huggingface(settings)), "config.json")
        if settings is not None:
            return Source(from_settings(settings, layout, tensors), "config.json")
        architecture = published_name(name) if layout.name == "timm" else None
        if architecture:
            source = f"the architecture {architecture}, after which the file is named,"
            config = ViTConfig.from_timm(architecture, **_head(tensors, layout))
            return Source(config, source)
        return Source(from_fields({}, layout, tensors), "the configuration")
    except ConfigError as error:
        raise CheckpointError(f"{name} has no usable configuration: {error}") from error


def from_fields(given: Mapping[str, Any], layout: Layout, tensors: Mapping[str, np.ndarray]) -> Model:
    """Fields, or the library's own arguments, given by hand; what its code settles; and what the shapes tell."""
    translated = layout.arguments(given)
    decoder = {name: translated.pop(name) for name in DECODER if name in translated}
    if not decoder:
        return vit_from_fields(translated, layout, tensors)
    encoder = vit_from_fields({"pool": "cls", **translated, "num_classes": 0}, layout, tensors)
    shapes = layout.our_shapes(tensors, known_facts(encoder, layout))
    told = decoder_from_shapes(shapes, layout.name)
    if "decoder_heads" not in decoder:
        raise CheckpointError(
            f"decoder_heads cannot be told from the shapes of a {layout.name} checkpoint; "
            f"give it: config={{'num_heads': ..., 'decoder_heads': ...}} or a whole MaeConfig"
        )
    return MaeConfig(encoder, **{**told, **decoder})


def vit_from_fields(given: Mapping[str, Any], layout: Layout, tensors: Mapping[str, np.ndarray]) -> ViTConfig:
    """The same, the arguments translated. What is no field but a property of ViTConfig must be what the shapes tell."""
    claims = {name: given[name] for name in PROPERTIES if name in given}
    known = {**layout.fixed, **layout.facts(tensors), **{n: value for n, value in given.items() if n not in claims}}
    unknown_names = sorted(set(known) - set(ViTConfig.__dataclass_fields__))
    if unknown_names:
        ViTConfig.from_dict({name: known[name] for name in unknown_names})  # raises, with the nearest names
    for key in ("patch_size", "image_size"):
        if isinstance(known.get(key), int):
            known[key] = (known[key], known[key])
    known = {**layout.settle(known, tensors), **known}
    flat = [tensors[name] for name in layout.flat if name in tensors and tensors[name].ndim == 2]
    if flat and "patch_size" not in known and isinstance(known.get("in_channels"), int):
        side = math.isqrt(flat[0].shape[1] // max(known["in_channels"], 1))
        known["patch_size"] = (side, side)
    facts = Facts(layout.name, **known)
    shapes = layout.our_shapes(tensors, facts)
    fields = fields_from_shapes(shapes, {"depth": facts.depth, **known}, layout.name)
    missing = [name for name in (*layout.needs, "image_size") if name not in fields]
    if missing:
        example = ", ".join(f"{name!r}: ..." for name in missing)
        hint = " or config=ViTConfig.from_timm('<architecture>')" if layout.name == "timm" else ""
        raise CheckpointError(
            f"{', '.join(missing)} cannot be told from the shapes of a {layout.name} checkpoint, and there is no "
            f"config.json; give config={{{example}}}, a whole ViTConfig{hint}"
        )
    if layout.crops and any(image % patch for image, patch in _sides(fields)):
        fields.setdefault("patch_crop", True)
    config = ViTConfig.from_dict(fields)
    for name, value in claims.items():
        if getattr(config, name) != value:
            raise CheckpointError(
                f"{name}={value!r} contradicts the tensors, which have {getattr(config, name)}; "
                f"one of the two belongs to another model"
            )
    return config


def _sides(fields: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Image and patch along each axis, where they are whole numbers."""
    sizes = [(size, size) if isinstance(size, int) else size for size in (fields["image_size"], fields["patch_size"])]
    return [pair for pair in zip(*sizes, strict=False) if all(isinstance(n, int) and n > 0 for n in pair)]


def from_settings(settings: Mapping[str, Any], layout: Layout, tensors: Mapping[str, np.ndarray]) -> Model:
    """A config.json: this project's, timm's or Hugging Face's."""
    if "vit_config" in settings:
        if not isinstance(settings["vit_config"], dict):
            raise CheckpointError("config.json: vit_config is no table of fields")
        kind = MaeConfig if "encoder" in settings["vit_config"] else ViTConfig
        return _guarded(lambda: kind.from_dict(settings["vit_config"]))
    if "architecture" in settings:
        config = _guarded(lambda: from_timm_settings(settings))
    elif isinstance(settings.get("model_cfg"), dict):  # open_clip's
        vision = settings["model_cfg"].get("vision_cfg")
        given = {**(vision or {}), "quick_gelu": settings["model_cfg"].get("quick_gelu", False)}
        return _guarded(lambda: from_fields(given, layout, tensors))
    elif "model_type" in settings or "vision_config" in settings:
        named = settings.get("architectures") or [_architecture(tensors)]
        config = _guarded(lambda: ViTConfig.from_huggingface({**settings, "architectures": named}))
        stated = settings.get("id2label") is not None or settings.get("num_labels") or "projection_dim" in settings
        if not stated or not config.num_classes:
            config = _with_classes(config, layout, tensors)
        config = _guarded(lambda: _with_pooler(config, layout, tensors, settings.get("pooler_act", "tanh")))
    else:
        raise CheckpointError(
            "config.json is neither timm's (architecture), Hugging Face's (model_type) nor this project's (vit_config)"
            "; give config="
        )
    check_told(config, layout, tensors)
    return config


def from_timm_settings(settings: Mapping[str, Any]) -> ViTConfig:
    """timm's config.json, read as timm reads it: `model_args` win over `pretrained_cfg`."""
    pretrained = settings.get("pretrained_cfg", settings)
    args: dict[str, Any] = {}
    for key in ("num_classes", "global_pool"):
        value = (
            settings.get(key, pretrained.get(key)) if key == "num_classes" else pretrained.get(key, settings.get(key))
        )
        if value is not None:
            args[key] = value
    size = pretrained.get("input_size")
    given = settings.get("model_args") or {}
    if size:
        args["in_chans"] = size[0]
        if pretrained.get("fixed_input_size") and not given.get("dynamic_img_size"):
            args["img_size"] = tuple(size[1:])
    args |= given
    return ViTConfig.from_timm(
        settings["architecture"], **{k: tuple(v) if isinstance(v, list) else v for k, v in args.items()}
    )


def check_told(config: ViTConfig, layout: Layout, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise if config.json says something else than the tensors' shapes."""
    facts = known_facts(config, layout)
    told = fields_from_shapes(layout.our_shapes(tensors, facts), {"depth": facts.depth}, layout.name)
    for name in TOLD:
        if name == "num_classes" and not told[name]:
            continue  # a head may be absent; then it is missing, or there is none
        if told[name] != getattr(config, name):
            raise CheckpointError(
                f"config.json contradicts the tensors: {name} is {getattr(config, name)} there, but the tensors have "
                f"{told[name]}; one of the two belongs to another model"
            )


def known_facts(config: ViTConfig, layout: Layout) -> Facts:
    """All that a configuration says, except the depth, which the tensors are asked for."""
    names = [*ViTConfig.__dataclass_fields__, "num_prefix_tokens"]
    return Facts(layout.name, **{name: getattr(config, name) for name in names})


def published_name(name: str) -> str | None:
    """The timm architecture that a file's name begins with, if any: `vit_tiny_patch16_224.augreg_in21k.safetensors`.

    The longest that ends where a word of the file's name ends.
    """
    from vit_common.timm_names import timm_names

    fitting = [
        known for known in timm_names() if name.startswith(known) and not name[len(known) : len(known) + 1].isalnum()
    ]
    return max(fitting, key=len, default=None)


def _head(tensors: Mapping[str, np.ndarray], layout: Layout) -> dict[str, Any]:
    """The number of classes is the user's to choose: it comes from the head."""
    head = tensors.get("head.weight")
    return {"num_classes": 0 if head is None or head.ndim != 2 else head.shape[0]}


def _with_classes(config: ViTConfig, layout: Layout, tensors: Mapping[str, np.ndarray]) -> ViTConfig:
    facts = known_facts(config, layout)
    head = layout.our_shapes(tensors, facts).get("head.weight")
    return config.replace(num_classes=head[0]) if head and config.num_classes else config


def _architecture(tensors: Mapping[str, np.ndarray]) -> str:
    """The Hugging Face class with such a head, where config.json does not name it."""
    heads = {"distillation_classifier.weight": "DeiTForImageClassificationWithTeacher",
             "visual_projection.weight": "CLIPVisionModelWithProjection",
             "classifier.weight": "ForImageClassification"}  # fmt: skip
    return next((architecture for name, architecture in heads.items() if name in tensors), "")


def _with_pooler(
    config: ViTConfig, layout: Layout, tensors: Mapping[str, np.ndarray], activation: str
) -> ViTConfig:
    """Whether a Hugging Face model has a pooler, only its tensors tell."""
    pooler = layout.our_shapes(tensors, known_facts(config, layout)).get("pre_logits.fc.weight")
    if not pooler:
        return config
    if activation != "tanh":
        raise ConfigError(f"pooler_act={activation!r}: here the pooler's activation is tanh")
    return config.replace(pre_logits=pooler[0])


def _guarded(make: Any) -> Any:
    """Settings written by anyone: whatever is wrong with them is one kind of error."""
    try:
        return make()
    except (ConfigError, CheckpointError):
        raise
    except (
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        OverflowError,
        ZeroDivisionError,
        ArithmeticError,
        IndexError,
    ) as error:
        raise CheckpointError(
            f"config.json does not describe a Vision Transformer ({type(error).__name__}: {error})"
        ) from error
