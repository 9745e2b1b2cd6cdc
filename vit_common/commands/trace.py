"""`trace`: every intermediate and gradient of one batch, to a file; or the comparison with such a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_common.cli import parse, peek
from vit_common.commands.common import (
    DataOptions,
    checkpoint_flag,
    data_name,
    default_model,
    load_data,
    make_engine,
    on_host,
    open_checkpoint,
)
from vit_common.engine import EngineFactory
from vit_common.errors import ConfigError
from vit_common.info import table
from vit_common.loop import check_fit, make_batch
from vit_common.outputs import check_ending, check_outputs
from vit_common.params import init_params
from vit_common.recipe import Recipe
from vit_common.room import TRACED, check_room
from vit_common.trace import compare_traces, read_trace, write_trace


@dataclass(frozen=True)
class TraceOptions(DataOptions):
    """Which batch, and where to. The model starts fresh from --seed, or is a checkpoint's."""

    out: Path | None = None
    """file to write, .safetensors; its manifest also goes to FILE.json"""
    against: Path | None = None
    """compare with this trace, stage by stage; alone, or after writing --out"""
    mine: Path | None = None
    """a trace that was written before, by a port for example, to compare with --against"""
    preset: str = ""
    """named model whose fields are the defaults below (default: the dataset's own)"""
    checkpoint: Path | None = None
    """folder of a run, or a file of weights, to trace instead of a fresh model"""
    overwrite: bool = False
    """replace a file that is already in --out"""
    step: int = 0
    """the batch of this training step"""
    tolerance: float = 0.0
    """largest relative difference that passes (default: 1e-4 in float32, 1e-9 in float64)"""


def run(factory: EngineFactory, argv: Sequence[str]) -> int:
    checkpoint = checkpoint_flag(argv)
    config, params, info = open_checkpoint(checkpoint) if checkpoint is not None else (None, None, None)
    data = peek(argv, "--data", info.data if info else "digits")
    model = config or default_model(data, peek(argv, "--preset"))
    where = Path(info.data_dir) if info and info.data_dir else None
    recipe = info.recipe if info else Recipe.for_data(data_name(data), batch_size=4)
    defaults = TraceOptions(data=data, data_dir=where)
    groups = {"trace": defaults, "model": model, "recipe": recipe, "engine": factory.Options()}
    options, model, recipe, engine_options = parse(factory, "trace", argv, **groups)
    if options.out is None and (options.mine is None or options.against is None):
        raise ConfigError("nothing to do: write a trace with --out FILE, or compare two: --mine FILE --against FILE")
    mine = options.mine
    if options.out is not None:
        check_ending("--out", options.out, ".safetensors")
        read = [path for path in (checkpoint, options.mine, options.against) if path is not None]
        check_outputs([options.out, Path(f"{options.out}.json")], read, options.overwrite)
    if options.out is not None:
        dataset = load_data(options, model, info)
        check_fit(dataset, model)
        engine = make_engine(factory, engine_options)
        check_room(model, recipe.dtype, min(recipe.batch_size, len(dataset.train)), TRACED, on_host(engine))
        engine.load(model, params or init_params(model, recipe.seed, recipe.dtype), recipe.dtype)
        batch = make_batch(dataset, model, recipe, options.step)
        manifest = write_trace(options.out, engine, model, recipe, batch, options.step)
        size = options.out.stat().st_size / 2**20
        print(f"{options.out}: {len(manifest['arrays'])} arrays, {size:.1f} MiB; manifest in {options.out}.json")
        mine = mine or options.out
    return _compare(mine, options.against, options.tolerance) if options.against else 0


def _compare(mine: Path, against: Path, tolerance: float) -> int:
    (ours, _), (theirs, manifest) = read_trace(mine), read_trace(against)
    bound = tolerance or (1e-9 if manifest["dtype"] == "float64" else 1e-4)
    differences = compare_traces(ours, theirs, manifest["order"])
    wrong = [d for d in differences if not d.relative <= bound]
    rows = [(d.name, f"{d.relative:.1e}" if math.isfinite(d.relative) else d.note or "inf") for d in differences]
    shown = [row for row, d in zip(rows, differences, strict=True) if not d.name.startswith("param")]
    print(table(("entry", "largest difference"), shown))
    if wrong:
        print(f"\nfirst beyond {bound:g}: {wrong[0].name}; {len(wrong)} of {len(differences)} entries differ")
        return 1
    largest = max(differences, key=lambda d: d.relative, default=None)
    print(f"\nall {len(differences)} entries agree to {bound:g}; the largest difference is "
          f"{np.format_float_scientific(largest.relative, 1) if largest else 0}")  # fmt: skip
    return 0
