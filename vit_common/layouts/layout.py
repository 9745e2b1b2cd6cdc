"""A layout: how one library names and shapes the tensors of a Vision Transformer, as a table."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError
from vit_common.layouts.rules import Row, stacked
from vit_common.mae_config import MaeConfig, mae_spec
from vit_common.params import ParamSpec, param_spec

Tensors = Mapping[str, np.ndarray]
Model = ViTConfig | MaeConfig
BIG = 1 << 26
# Configurations that between them bring out every row of the tables that depend on one.
PROBES = (
    ViTConfig(), ViTConfig(head_bias=False), ViTConfig(dist_token=True, dist_head=True),
    ViTConfig(fc_norm=True, final_norm=False), ViTConfig(mlp="glu_packed"),
)  # fmt: skip


class MissingFact(CheckpointError, AttributeError):
    """Something about a configuration that is not known yet."""


class Facts:
    """What is known of a configuration so far; asking for anything else says how to supply it."""

    def __init__(self, layout: str, **known: Any):
        self.__dict__.update(known, layout=layout)

    def __getattr__(self, name: str) -> Any:
        raise MissingFact(
            f"{name} cannot be told from the tensors of a {self.layout} checkpoint; "
            f"give it: load_checkpoint(path, config={{{name!r}: ...}}) or a whole ViTConfig"
        )


@dataclass(frozen=True)
class Layout:
    """One table, and what has to be known to read a file by it.

    table: the rows, or what makes them from what is known of the model. Where several rows make the same tensor, the
        first is written and any is read.
    marks, unmarks: names (`*`: beginnings) that must and must not be there for the layout to be recognised.
    prefixes: what publishers put before the names of the body. prefix: what is written there; not before names that
        start with one of `bare`. only: where names begin with it, the others belong to another tower.
    spellings: patterns of other spellings, and what they stand for.
    ignored: tensors that are no part of the model.
    fixed: fields that the library's code settles. facts: those that this layout's tensors tell beside the shapes.
        settle: those that follow from what is known so far. needs: those that remain to be given.
    flat: the projection of flattened patches, whose shape does not tell channels from pixels.
    crops: pixels past the last whole patch are left out, as a strided convolution does.
    arguments: from the library's own constructor arguments to fields of ViTConfig (see `arguments.py`).
    options: fields that the program takes as arguments, and the values it takes beside what `fixed` and `facts` say;
        None: any. variants: the fields of Variant that the program may have; None: whatever the table has tensors for.
    """

    name: str
    title: str
    table: tuple[Row, ...] | Callable[[Any], tuple[Row, ...]]
    marks: tuple[str, ...]
    unmarks: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    prefix: Callable[[Any], str] = lambda config: ""
    bare: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ("num_heads",)
    facts: Callable[[Tensors], dict[str, Any]] = lambda tensors: {}
    ignored: str = r"(?!)"
    spellings: tuple[tuple[str, str], ...] = ()
    flat: tuple[str, ...] = ()
    only: str = ""
    settle: Callable[[dict[str, Any], Tensors], dict[str, Any]] = lambda known, tensors: {}
    crops: bool = False
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    options: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    variants: tuple[str, ...] | None = None

    def rows(self, facts: Any) -> list[Row]:
        """The table for a model: a row for each block where `{i}` stands, or all blocks in one where only we count."""
        facts = facts_of(facts) if isinstance(facts, MaeConfig) else facts
        table = self.table if isinstance(self.table, tuple) else self.table(facts)
        out = []
        for row in table:
            if any("{j}" in name for name in row.ours):  # blocks of a decoder
                count = getattr(facts, "decoder_depth", 0)
                sides = [tuple(_numbered(side, j, "{j}") for side in row[:2]) for j in range(count)]
                out += [Row(ours, theirs, *row[2:]) for ours, theirs in sides]
            elif not any("{i}" in name for name in row.ours):
                out.append(row)
            elif any("{i}" in name for name in row.theirs):
                out += [Row(_numbered(row.ours, i), _numbered(row.theirs, i), *row[2:]) for i in range(facts.depth)]
            elif facts.depth:
                ours = tuple(name for i in range(facts.depth) for name in _numbered(row.ours, i))
                out.append(Row(ours, row.theirs, stacked(row.op), row.axes))
        return out

    def plain_names(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """The tensors under the names of the table: prefixes and other spellings taken away."""
        out: dict[str, np.ndarray] = {}
        towers = [name for name in tensors if self.only and name.startswith(self.only)]
        for name in towers or tensors:
            tensor = tensors[name]
            plain = self.plain_name(name)
            if plain in out:
                raise CheckpointError(f"two tensors mean {plain!r} in the {self.name} layout, one of them {name!r}")
            out[plain] = tensor
        return out

    def plain_name(self, name: str) -> str:
        name = re.sub(r"^(module\.|_orig_mod\.)+", "", name)
        for prefix in self.prefixes:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        for pattern, meaning in self.spellings:
            name = re.sub(pattern, meaning, name)
        return name

    def fits(self, names: Collection[str]) -> bool:
        plain = {self.plain_name(name) for name in names}

        def there(mark: str) -> bool:
            return any(name.startswith(mark[:-1]) for name in plain) if mark.endswith("*") else mark in plain

        return all(map(there, self.marks)) and not any(map(there, self.unmarks))

    def export(self, tensors: Tensors, config: Model) -> dict[str, np.ndarray]:
        """Our tensors under their names, in their shapes.

        Raises:
            CheckpointError: the layout has no place for one of them.
        """
        return {name: np.array(array, order="C") for name, array in self.views(tensors, config).items()}

    def views(self, tensors: Tensors, config: Model) -> dict[str, np.ndarray]:
        """What `export` returns, as views of the tensors where it can be done."""
        left, out, facts = set(spec_of(config)), dict[str, np.ndarray](), facts_of(config)
        for row in self.rows(facts):
            if set(row.ours) <= left:
                left -= set(row.ours)
                arrays = row.op.there([tensors[name] for name in row.ours], facts)
                out |= {
                    self._written(name, config): a for name, a in zip(row.theirs, arrays, strict=True) if a is not None
                }
        if left:
            names = ", ".join(sorted(left)[:6])
            raise CheckpointError(
                f"the {self.name} layout has no place for {len(left)} tensors of this model: {names}; "
                f"choose a layout that has, e.g. 'timm'"
            )
        return out

    def shapes(self, config: Model) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor that `export` writes, without making them."""
        spec = spec_of(config)
        return {name: a.shape for name, a in self.views({n: _ghost(s.shape) for n, s in spec.items()}, config).items()}

    def load(self, tensors: Tensors, config: Model, source: str = "the configuration") -> dict[str, np.ndarray]:
        """Their tensors (already under plain names) as ours, in the order of `param_spec`.

        Raises:
            CheckpointError: a tensor is missing, unknown or misshapen; the message names it and both shapes.
        """
        spec, facts = spec_of(config), facts_of(config)
        total, present = sum(math.prod(s.shape) for s in spec.values()), sum(t.size for t in tensors.values())
        if total > max(BIG, 4 * present):
            raise CheckpointError(f"{source} describes {total} parameters, but the checkpoint holds only {present}")
        left, used, missing = set(spec), set[str](), list[str]()
        chosen: list[Row] = []
        active = [row for row in self.rows(facts) if set(row.ours) <= left]
        for whole in (True, False):  # first the rows whose tensors are all there, then those that lack some
            for row in active:
                if set(row.ours) <= left and bool(row.ours) >= whole and (not whole or _present(row, tensors, used)):
                    left -= set(row.ours)
                    used |= set(row.theirs)
                    chosen.append(row)
                    missing += [name for name in row.theirs if row.ours and name not in tensors]
        if left:
            raise CheckpointError(
                f"{source} has parameters that the {self.name} layout does not: {', '.join(sorted(left)[:6])}"
            )
        expected: dict[str, tuple[int, ...]] = {}
        for row in chosen:
            if row.ours:
                expected |= _their_shapes(row, spec, facts, source)
        extra = [name for name in tensors if name not in used and not re.search(self.ignored, name)]
        if missing or extra:
            lists = (("missing", [f"{name} {expected[name]}" for name in missing]),
                     ("not part of the model", [f"{name} {tensors[name].shape}" for name in extra]))  # fmt: skip
            parts = "; ".join(f"{len(names)} {kind}: {_listing(names)}" for kind, names in lists if names)
            raise CheckpointError(f"the tensors do not fit {source} in the {self.name} layout; {parts}")
        for name, shape in expected.items():
            if tensors[name].shape != shape:
                raise CheckpointError(f"tensor {name} has shape {tensors[name].shape}, but {source} expects {shape}")
        out: dict[str, np.ndarray] = {}
        for row in chosen:
            if row.ours:
                out |= zip(row.ours, row.op.back([tensors[name] for name in row.theirs], facts), strict=True)
        return {name: out[name] for name in spec}

    def our_shapes(self, tensors: Tensors, facts: Any) -> dict[str, tuple[int, ...]]:
        """Name -> shape of those of our parameters whose tensors are there; no configuration is needed for it."""
        facts.__dict__["depth"], facts.__dict__["decoder_depth"] = self.depth(tensors), self.depth(tensors, "{j}")
        out: dict[str, tuple[int, ...]] = {}
        used: set[str] = set()
        for row in self.rows(facts):
            if row.theirs and not set(row.ours) & out.keys() and _present(row, tensors, used):
                used |= set(row.theirs)
                try:
                    arrays = row.op.back([_ghost(tensors[name].shape) for name in row.theirs], facts)
                except CheckpointError:
                    raise
                except (ValueError, IndexError) as error:
                    shapes = ", ".join(f"{name} {tensors[name].shape}" for name in row.theirs)
                    raise CheckpointError(
                        f"tensors of impossible shape for the {self.name} layout: {shapes}"
                    ) from error
                out |= zip(row.ours, (a.shape for a in arrays), strict=True)
        return out

    def depth(self, tensors: Tensors, number: str = "{i}") -> int:
        """Number of blocks ("{j}": of the decoder): the highest that any tensor names, or the length of the stack."""
        table = self.table if isinstance(self.table, tuple) else self.table(PROBES[0])
        counted = {name.split(number)[0] for row in table for name in row.theirs if number in name}
        pattern = (
            re.compile("(?:" + "|".join(map(re.escape, sorted(counted))) + r")(\d{1,6})(?!\d)") if counted else None
        )
        numbers = [int(m[1]) + 1 for name in tensors if pattern and (m := pattern.match(name))]
        stacks = [tensors[row.theirs[0]].shape[0] for row in table
                  if number in str(row.ours) and number not in str(row.theirs) and row.theirs[0] in tensors
                  and tensors[row.theirs[0]].ndim]  # fmt: skip
        depth = max([*numbers, *stacks], default=0)
        if depth > len(tensors) and not stacks:
            raise CheckpointError(
                f"block {depth - 1} is named, but there are only {len(tensors)} tensors: blocks are missing"
            )
        return depth

    def known_names(self) -> set[str]:
        """All names of the table, blocks numbered #, for recognising strays."""
        tables = [self.table] if isinstance(self.table, tuple) else [self.table(probe) for probe in PROBES]
        names = (name for table in tables for row in table for name in row.theirs)
        return {anonymous(re.sub(r"{[ij]}", "0", name)) for name in names}

    def _written(self, name: str, config: Model) -> str:
        return name if name.startswith(self.bare) and self.bare else self.prefix(config) + name


def anonymous(name: str) -> str:
    """A name with the numbers of its blocks replaced by #."""
    return re.sub(r"((?:^|\.|encoderblock_|encoder_layer_))\d+(?=[./]|$)", r"\1#", name)


def spec_of(config: Model) -> Mapping[str, ParamSpec]:
    return mae_spec(config) if isinstance(config, MaeConfig) else param_spec(config)


def facts_of(config: Model) -> Any:
    """What the tables ask: a masked autoencoder answers for its encoder, and counts its decoder's blocks."""
    if not isinstance(config, MaeConfig):
        return config
    names = [*ViTConfig.__dataclass_fields__, "num_prefix_tokens"]
    known = {name: getattr(config.encoder, name) for name in names}
    return Facts("mae", **known, decoder_depth=config.decoder_depth)


def _numbered(names: tuple[str, ...], number: int, where: str = "{i}") -> tuple[str, ...]:
    return tuple(name.replace(where, str(number)) for name in names)


def _present(row: Row, tensors: Tensors, used: set[str]) -> bool:
    """Whether all tensors of a row are there, with the right number of axes, and not taken by another."""
    names = set(row.theirs)
    return names <= tensors.keys() and not names & used and row.axes in (None, tensors[row.theirs[0]].ndim)


def _their_shapes(row: Row, spec: Mapping[str, ParamSpec], facts: Any, source: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a row's tensors, without making them."""
    try:
        ghosts = row.op.there([_ghost(spec[name].shape) for name in row.ours], facts)
    except ValueError as error:
        raise CheckpointError(f"{source} does not go with {', '.join(row.theirs)}: {error}") from error
    return {name: ghost.shape for name, ghost in zip(row.theirs, ghosts, strict=True)}


def _ghost(shape: tuple[int, ...]) -> np.ndarray:
    """An array of this shape that takes one byte."""
    return np.broadcast_to(np.zeros((), np.int8), shape)


def _listing(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
