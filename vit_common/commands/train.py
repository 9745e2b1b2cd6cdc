"""`train`: from data to a run folder."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_common.cli import parse, peek
from vit_common.commands.common import DataOptions, data_name, default_model, load_data, make_engine, on_host
from vit_common.config import ViTConfig
from vit_common.data import Dataset
from vit_common.engine import Engine, EngineFactory
from vit_common.errors import ConfigError, check_finite
from vit_common.loop import check_ready, train
from vit_common.params import init_params
from vit_common.recipe import Recipe
from vit_common.room import COPIES, check_room
from vit_common.run_folder import RunFolder, RunInfo, versions
from vit_common.stop_signal import Interrupted


@dataclass(frozen=True)
class TrainOptions(DataOptions):
    """What to train on, and where to put it."""

    preset: str = ""
    """named model whose fields are the defaults below (default: the dataset's own)"""
    out: Path | None = None
    """folder of the run (default: runs/DATA-ENGINE-TIME)"""
    resume: Path | None = None
    """go on with the run in this folder, from its last checkpoint; its settings are the defaults"""
    overwrite: bool = False
    """replace a run, or files of the same names, that are already in --out"""
    check_finite: bool = False
    """stop if a normalised picture or an initial weight is not a finite number"""


def run(factory: EngineFactory, argv: Sequence[str]) -> int:
    defaults, config, recipe = _defaults(argv)
    groups = {"run": defaults, "model": config, "recipe": recipe, "engine": factory.Options()}
    options, config, recipe, engine_options = parse(factory, "train", argv, **groups)
    engine = make_engine(factory, engine_options)
    dataset = load_data(options, config)
    folder, first_step = _prepare(engine, options, config, recipe, dataset)
    print(f"{engine.name}: {len(dataset.train):,} training and {len(dataset.test):,} test pictures of {dataset.name}, "
          f"{len(dataset.class_names)} classes; run folder {folder.path}", flush=True)  # fmt: skip
    start = time.perf_counter()
    try:
        result = train(engine, config, recipe, dataset, folder, first_step)
    except Interrupted as stop:
        folder.draw()
        print(f"stopped after step {stop.step}; go on with: python -m {engine.name}_vit train --resume {folder.path}")
        return 130
    folder.draw()
    print(f"test accuracy {result.accuracy:.2%}, test loss {result.loss:.4f}, {time.perf_counter() - start:.0f} s; "
          f"checkpoint and curves in {folder.path}")  # fmt: skip
    return 0


def _defaults(argv: Sequence[str]) -> tuple[TrainOptions, ViTConfig, Recipe]:
    """From the run to resume, or from --data and --preset."""
    if resume := peek(argv, "--resume"):
        info = RunFolder(resume).info()
        where = Path(info.data_dir) if info.data_dir else None
        return TrainOptions(data=info.data, data_dir=where, resume=Path(resume)), info.config, info.recipe
    data, preset = peek(argv, "--data", "digits"), peek(argv, "--preset")
    return TrainOptions(data=data, preset=preset), default_model(data, preset), Recipe.for_data(data_name(data))


def _prepare(
    engine: Engine, options: TrainOptions, config: ViTConfig, recipe: Recipe, dataset: Dataset
) -> tuple[RunFolder, int]:
    """The run folder and the step to start from, the engine loaded."""
    pictures = min(recipe.batch_size, len(dataset.train))
    check_room(config, recipe.dtype, pictures, COPIES[recipe.optimizer], on_host(engine))
    where = str(options.data_dir) if options.data_dir else None
    mean, std = tuple(dataset.mean.tolist()), tuple(dataset.std.tolist())
    named = engine.name, config, recipe, data_name(options.data), where, dataset.class_names, mean, std
    info = RunInfo(*named, versions("numpy", *engine.requires), len(dataset.train))
    if options.resume:
        if options.out and options.out.resolve() != options.resume.resolve():
            raise ConfigError(f"--resume {options.resume} writes into that same folder; leave --out {options.out} out")
        folder = RunFolder(options.resume)
        before = folder.info()
        info.check_continues(before)
        state, first_step = folder.state()
        check_ready(dataset, config, recipe, first_step)
        params = {name.removeprefix("params/"): array for name, array in state.items() if name.startswith("params/")}
        engine.start(config, params, recipe)
        engine.load_state(state)
        _check_numbers(engine, options, dataset)
        folder.go_on(dataclasses.replace(info, engine=before.engine))
        return folder, first_step
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = options.out or Path("runs") / f"{Path(info.data).name}-{engine.name}-{stamp}"
    check_ready(dataset, config, recipe)  # before anything is replaced
    engine.start(config, init_params(config, recipe.seed, recipe.dtype), recipe)
    _check_numbers(engine, options, dataset)
    return RunFolder.create(out, info, options.overwrite), 0


def _check_numbers(engine: Engine, options: TrainOptions, dataset: Dataset) -> None:
    if options.check_finite:
        check_finite(**engine.params(), mean=dataset.mean, std=dataset.std)
