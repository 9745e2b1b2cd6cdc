"""Other people's names for the same tensors: one table a library, recognised by name, exact in both directions."""

from collections.abc import Mapping

import numpy as np

from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError, nearest
from vit_common.layouts.layout import Layout, anonymous
from vit_common.layouts.timm import TIMM
from vit_common.params import check_params

__all__ = ["LAYOUTS", "Layout", "export_layout", "find_layout", "get_layout"]

# In the order in which they are tried.
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (TIMM,)}

# Other words for them. A family's name stands for the member that the configuration calls for.
ALIASES: dict[str, str] = {}
FAMILIES: dict[str, str] = {}


def get_layout(name: str, config: ViTConfig | None = None, names: Mapping | None = None) -> Layout:
    """The layout of that name; of a family, the member that fits the tensors' names or the configuration.

    Raises:
        CheckpointError: an unknown name; the message says the nearest.
    """
    key = name.lower().replace("-", "_").replace(" ", "_")
    key = ALIASES.get(key, key)
    if key in LAYOUTS:
        return LAYOUTS[key]
    raise CheckpointError(f"layout {name!r} is unknown; {nearest(key, [*LAYOUTS, *ALIASES])}")


def find_layout(tensors: Mapping[str, np.ndarray]) -> Layout:
    """The layout whose marks are among the tensors' names.

    Raises:
        CheckpointError: none is; the message says which comes nearest and which names do not fit it.
    """
    for layout in LAYOUTS.values():
        if layout.fits(tensors):
            return layout
    ranking = sorted((strangers(layout, tensors), layout.name) for layout in LAYOUTS.values())
    strange, name = ranking[0]
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
    return [name for name in names if anonymous(layout.plain_name(name)) not in known]


def check_unmixed(layout: Layout, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise if names that this layout does not know belong to another one."""
    strange = strangers(layout, tensors)
    for other in LAYOUTS.values() if strange else ():
        theirs = [name for name in strange if anonymous(other.plain_name(name)) in other.known_names()]
        if theirs and not layout.name.startswith(other.name) and len(theirs) > len(strange) // 2:
            raise CheckpointError(
                f"mixed layouts: most tensors are named as in {layout.name}, but {len(theirs)} as in {other.name}: "
                f"{', '.join(theirs[:4])}; remove those that do not belong to the model"
            )


def export_layout(tensors: Mapping[str, np.ndarray], config: ViTConfig, layout: str) -> dict[str, np.ndarray]:
    """Parameters, or their gradients, under the names and in the shapes of another library.

    Numbers are only moved, never changed; what only the other side has is zero.

    Raises:
        CheckpointError: an unknown layout, tensors that do not fit `config`, or one that the layout has no place for.
        ShapeError: a tensor of another shape than `config` says.
    """
    check_params(tensors, config)
    return get_layout(layout, config).export(tensors, config)
