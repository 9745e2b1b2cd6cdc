"""Whether a layout's program computes what a configuration says, or only has a place for the tensors."""

from typing import Any

from vit_common.config import ViTConfig
from vit_common.config_source import vit_from_fields
from vit_common.errors import ConfigError, VitError
from vit_common.huggingface_settings import TRAINING, check_same
from vit_common.layouts.layout import Layout, Model, Tensors
from vit_common.mae_config import MaeConfig

# What every program is told, or reads off the tensors.
ASKED = ("num_heads", "image_size", "patch_size", "in_channels", "pos_grid")


def check_expressible(config: Model, layout: Layout, tensors: Tensors) -> None:
    """Raise unless the program, given its own arguments and these tensors (under plain names), is this model.

    timm's names are this project's own, with which a file may hold any model; what `config.json` says to Hugging Face
    is held against the configuration where it is written (`huggingface_settings`).

    Raises:
        ConfigError: it computes something else; the message names the fields.
    """
    if layout.name == "timm" or layout.name.startswith("huggingface_"):
        return
    if isinstance(config, MaeConfig):
        if int(config.decoder_dim * config.encoder.mlp_ratio) != config.decoder.mlp_dim:
            raise ConfigError(
                f"decoder_mlp_ratio={config.decoder_mlp_ratio}: facebookresearch/mae takes one mlp_ratio for encoder "
                f"and decoder, and the encoder's is {config.encoder.mlp_ratio}; choose layout='huggingface'"
            )
        config = config.encoder
    check_settled(config, layout, tensors)
    asked = [name for name in (*layout.needs, *layout.options) if _taken(layout, name, getattr(config, name))]
    given = {name: getattr(config, name) for name in (*ASKED, *asked)}
    try:
        told = vit_from_fields(given, layout, tensors)
    except VitError as error:
        raise ConfigError(f"the {layout.name} layout has no such model: {error}; choose e.g. 'timm'") from error
    check_same(config, told, f"the program of the {layout.name} layout")


def check_settled(config: ViTConfig, layout: Layout, tensors: Tensors) -> None:
    """Raise if the code of the program, or what it finds in the file, settles a field in another way."""
    settled = {**layout.fixed, **layout.facts(tensors)}
    wrong = [
        f"{name}={value!r} (there {settled[name]!r})"
        for name, value in _values(config, settled).items()
        if value != settled[name] and not _taken(layout, name, value)
    ]
    wrong += [
        f"{name}={value!r} (there {' or '.join(map(repr, layout.options.get(name) or ()))})"
        for name, value in _values(config, layout.needs).items()
        if name not in settled and not _taken(layout, name, value)
    ]
    if layout.variants is not None:
        untrained = [name for name in TRAINING if name != "layer_scale"]  # of which only the initial value is history
        known = (*layout.variants, *settled, *untrained)
        wrong += [f"{name}={value!r}" for name, value in config.variant_fields().items() if name not in known]
    if wrong:
        raise ConfigError(
            f"the program of the {layout.name} layout has no such model: {', '.join(wrong)}; "
            f"choose another layout, e.g. 'timm'"
        )


def departures(config: Model, layout: Layout) -> list[str]:
    """Where the program computes a little else than the model, which `options` let pass; in words."""
    vit = config.encoder if isinstance(config, MaeConfig) else config
    kind = layout.fixed.get("activation", vit.activation)
    if {kind, vit.activation} != {"gelu", "gelu_tanh"}:
        return []
    return [f"the program of this layout computes activation={kind!r}, this model {vit.activation!r}"]


def _values(config: ViTConfig, names: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _taken(layout: Layout, name: str, value: Any) -> bool:
    """Whether the program takes the value as an argument."""
    values = layout.options.get(name, None if name in layout.needs else ())
    return values is None or value in values
