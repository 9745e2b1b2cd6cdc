r"""Keyed randomness: dropout and stochastic-depth masks that both engines share to the bit.

No global generator anywhere. Every draw comes from Philox (Salmon et al. 2011), a counter-based generator, keyed by a
hash of (seed, purpose, step, site): any mask of any step can be drawn again on its own, in any order, on any machine.
"""

import hashlib
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from vit_common.config import ViTConfig
from vit_common.config_checks import shown, whole
from vit_common.errors import ConfigError, RangeError, nearest

BEYOND = "attn_mask", "padding_mask", "patch_drop"  # masks that the plain model's own stages do not know


def keyed_rng(seed: int, *key: int | str) -> "np.random.Generator":
    """A generator that depends on `seed` and `key` alone.

    >>> keyed_rng(0, "a", 1).integers(1000) == keyed_rng(0, "a", 1).integers(1000)
    np.True_

    Integers may be NumPy's: a step counted in an array draws what the same step counted in Python does.

    Raises:
        RangeError: a seed that is no integer, or a key that is neither an integer nor a string.
    """
    parts = (_integer("seed", seed), *(str(k) if isinstance(k, str) else _integer("key", k) for k in key))
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _integer(name: str, value: Any) -> int:
    try:  # neither 1.7 cut to 1, nor a bool, nor NumPy's integers as they are: their repr is not that of Python's
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)
    except TypeError:
        pass
    expected = "an integer" if name == "seed" else "an integer or a string"
    raise RangeError(f"{name}={shown(value)} of a random generator must be {expected}, e.g. {name}=0")


def drop_path_rates(config: ViTConfig) -> list[float]:
    """Stochastic-depth rate of each block: linear from 0 to `drop_path_rate` (Huang et al. 2016, section 3)."""
    last = max(config.depth - 1, 1)
    return [config.drop_path_rate * i / last for i in range(config.depth)]


def mask_sites(config: ViTConfig, batch: int) -> Iterator[tuple[str, float, tuple[int, ...]]]:
    """(site, rate, shape) of every place where the model drops something, in the order of the forward pass."""
    if not config.is_plain:
        from vit_common.assembled_masks import assembled_mask_sites

        yield from assembled_mask_sites(config, batch)
        return
    tokens, width = config.num_tokens, config.embed_dim
    yield "pos_drop", config.pos_drop_rate, (batch, tokens, width)
    for i, path_rate in enumerate(drop_path_rates(config)):
        block = f"blocks.{i}"
        yield f"{block}.attn.attn_drop", config.attn_drop_rate, (batch, config.num_heads, tokens, tokens)
        yield f"{block}.attn.proj_drop", config.proj_drop_rate, (batch, tokens, width)
        yield f"{block}.drop_path1", path_rate, (batch,)
        yield f"{block}.mlp.drop1", config.proj_drop_rate, (batch, tokens, config.mlp_dim)
        yield f"{block}.mlp.drop2", config.proj_drop_rate, (batch, tokens, width)
        yield f"{block}.drop_path2", path_rate, (batch,)


def check_masks(names: Iterable[str], config: ViTConfig) -> None:
    """Raise unless every mask has a place in the model.

    Raises:
        ConfigError: a name that no stage reads; a site whose rate is 0, where the mask would drop without the rescaling
            by 1 / (1 - rate) that makes up for it; patches to drop where relative positions need all of them.
            `patch_drop` needs no rate: a masked autoencoder drops patches by its own, and nothing is rescaled.
    """
    names = set(names)
    rates = {site: rate for site, rate, _ in mask_sites(config, 1)}
    known = {*BEYOND, *rates}
    if unknown := sorted(names - known):
        raise ConfigError(f"no stage of this model reads a mask {unknown[0]!r}; {nearest(unknown[0], known)}")
    if never := sorted(name for name in names if rates.get(name) == 0.0):
        raise ConfigError(
            f"a mask is given at {never[0]!r}, whose rate is 0 in this configuration: what it keeps would not be "
            f"rescaled; leave the mask out, or give the configuration that site's rate"
        )
    if "patch_drop" in names and config.rel_pos_bias != "none":
        raise ConfigError(f"rel_pos_bias={config.rel_pos_bias!r} is a table over the whole grid; leave out patch_drop")


def make_masks(config: ViTConfig, batch: int, seed: int, step: int) -> dict[str, np.ndarray]:
    """Keep-masks (True = keep) of one training step; sites whose rate is 0 are left out.

    `patch_drop` keeps the same number of patches in every image, max(1, N (1 - rate)); all other sites draw freely.
    """
    batch = whole(0)("batch", batch)
    masks = {}
    for site, rate, shape in mask_sites(config, batch):
        if rate > 0:
            draw = keyed_rng(seed, "mask", step, site).random(shape, dtype=np.float32)
            masks[site] = keep_some(draw, rate) if site == "patch_drop" else draw >= np.float32(rate)
    return masks


def keep_some(draw: np.ndarray, rate: float) -> np.ndarray:
    """draw (B, N) of random numbers -> bool (B, N), True for the max(1, N (1 - rate)) smallest of each row."""
    keep = max(1, int(draw.shape[1] * (1.0 - rate)))
    rank = draw.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return rank < keep
