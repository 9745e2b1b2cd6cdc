"""What each field of a configuration may hold: one check for each kind of field, and which field is of which kind.

A check returns the value as a plain Python one. Sizes and rates read off arrays are NumPy's scalars, and lists come
from JSON: both are taken, and what is stored compares, hashes and is written as JSON like any other.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

import numpy as np

from vit_common.errors import ConfigError, nearest

Check = Callable[[str, Any], Any]

LARGEST = 2**63 - 1  # of any size: no axis of an array is longer, and a float still holds it


def refusal(name: str, value: Any, expected: str, example: Any) -> ConfigError:
    return ConfigError(f"{name}={shown(value)} must be {expected}, e.g. {name}={example!r}")


def shown(value: Any) -> str:
    """A value for a message, cut short: it may be anything."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."


def flag(name: str, value: Any) -> bool:
    """True or False; not 1, "no" or whatever else has a truth value by accident."""
    if not isinstance(value, (bool, np.bool_)):
        raise refusal(name, value, "True or False", True)
    return bool(value)


def whole(least: int) -> Check:
    """An integer, Python's or NumPy's; no bool, which is one only to Python, and no float, however round."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= LARGEST:
            raise refusal(name, value, f"an integer of at least {least} (and below 2**63)", max(least, 1))
        return int(value)

    return check


def real(expected: str, example: float, fits: Callable[[float], bool]) -> Check:
    """A finite number, Python's or NumPy's, that `fits`."""

    def check(name: str, value: Any) -> float:
        number = math.nan
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:  # an integer beyond the largest float
                number = math.inf
        if not (math.isfinite(number) and fits(number)):
            raise refusal(name, value, expected, example)
        return number

    return check


def pair(least: int) -> Check:
    """A (height, width) pair of integers; one integer is both."""
    one = whole(least)

    def check(name: str, value: Any) -> tuple[int, int]:
        if isinstance(value, (tuple, list)) and len(value) == 2:
            return one(name, value[0]), one(name, value[1])
        if isinstance(value, (tuple, list)):
            raise refusal(name, value, "an int or a (height, width) pair", (16, 16))
        side = one(name, value)
        return side, side

    return check


def section(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise refusal(name, value, "three numbers that are not negative", (8, 12, 12))
    return tuple(whole(0)(name, entry) for entry in value)


def one_or_each(name: str, value: Any) -> int | tuple[int, ...]:
    """One number for all blocks, or a list of one for each."""
    return tuple(whole(1)(name, n) for n in value) if isinstance(value, (tuple, list)) else whole(1)(name, value)


def choice(choices: tuple[str, ...]) -> Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ConfigError(f"{name}={shown(value)} is unknown; {_nearest(value, choices)}")
        return str(value)

    return check


def optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


RATE = real("a rate, 0 <= rate < 1", 0.1, lambda number: 0.0 <= number < 1.0)
POSITIVE = real("a finite number above 0", 1.0, lambda number: number > 0.0)
EPSILON = real("positive and finite", 1e-6, lambda number: number > 0.0)
FINITE = real("a finite number", 1.0, lambda number: True)

# The fields whose range their type does not say; those of bool and of choices need no entry.
RANGES: dict[str, Check] = {
    **dict.fromkeys(("image_size", "patch_size"), pair(1)),
    **dict.fromkeys(("in_channels", "embed_dim", "num_heads", "rope_max_res"), whole(1)),
    **dict.fromkeys(("depth", "num_classes", "reg_tokens", "pre_logits"), whole(0)),
    **dict.fromkeys(("attn_head_dim", "mlp_hidden", "attn_pool_heads"), optional(whole(1))),
    **dict.fromkeys(("pos_drop_rate", "attn_drop_rate", "proj_drop_rate", "drop_path_rate", "patch_drop_rate"), RATE),
    **dict.fromkeys(("mlp_ratio", "rope_temperature"), POSITIVE),
    **dict.fromkeys(("pos_grid", "rope_ref_grid"), optional(pair(1))),
    "norm_eps": EPSILON,
    "patch_norm_eps": optional(EPSILON),
    "attn_pool_mlp_ratio": optional(POSITIVE),
    "layer_scale": optional(FINITE),
    "rope_grid_offset": FINITE,
    "rope_section": section,
    "num_kv_heads": optional(one_or_each),
}


def checks_of(kind: Any) -> dict[str, Check]:
    """The check of each field of a configuration class: of `RANGES`, or what the type says.

    Raises:
        KeyError: a field whose range nobody has said.
    """
    checks: dict[str, Check] = {}
    for field in fields(kind):
        one: Any = field.type
        arguments = get_args(one)
        if field.name in RANGES:
            checks[field.name] = RANGES[field.name]
        elif one is bool:
            checks[field.name] = flag
        elif type(None) in arguments and get_args(arguments[0]):  # a Literal, or None
            checks[field.name] = optional(choice(get_args(arguments[0])))
        elif arguments and all(isinstance(argument, str) for argument in arguments):  # a Literal
            checks[field.name] = choice(arguments)
        else:
            raise KeyError(f"{field.name} has no range; add it to RANGES")
    return checks


def check_fields(config: Any, checks: Mapping[str, Check]) -> None:
    """Raise ConfigError unless every field holds what it may; a frozen dataclass's are then plain Python values."""
    for name, check in checks.items():
        object.__setattr__(config, name, check(name, getattr(config, name)))


def check_known(values: Any, kind: Any, what: str) -> None:
    """Raise ConfigError unless `values` is a table whose names are fields of the configuration class `kind`."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what}={shown(values)} must be a dict of fields, e.g. {what}={{'depth': 12}}")
    known = kind.__dataclass_fields__
    for name in values:
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"{kind.__name__} has no field {shown(name)}; {_nearest(name, known)}")


def _nearest(value: Any, choices: Iterable[str]) -> str:
    return nearest(value if isinstance(value, str) else shown(value), choices)


def check_width(name: str, ratio: float, width: float) -> None:
    """Raise ConfigError unless the hidden width that a ratio gives is a size."""
    if not 1 <= width <= LARGEST:
        raise ConfigError(f"{name}={ratio} gives a hidden width of {width:g}; expected at least 1 and below 2**63")
