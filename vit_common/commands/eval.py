"""`eval`: loss and accuracy of a checkpoint on a dataset's test split."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vit_common.cli import parse
from vit_common.commands.common import DataOptions, checkpoint_flag, load_data, load_engine, open_checkpoint
from vit_common.engine import EngineFactory
from vit_common.loop import check_fit, evaluate
from vit_common.run_folder import find_run


@dataclass(frozen=True, kw_only=True)
class EvalOptions(DataOptions):
    """What to evaluate, on what. A run's checkpoint brings its data, normalised as in training."""

    checkpoint: Path
    """folder of a run, or a file of weights"""
    batch_size: int = 256
    """pictures at a time"""
    dtype: Literal["float32", "float64"] = "float32"
    """precision of the arithmetic"""
    split: Literal["test", "train"] = "test"
    """which half of the data"""
    check_finite: bool = False
    """stop if a parameter is not a finite number"""


def run(factory: EngineFactory, argv: Sequence[str]) -> int:
    groups = {"eval": _defaults(argv), "engine": factory.Options()}
    options, engine_options = parse(factory, "eval", argv, **groups)
    config, params, run = open_checkpoint(options.checkpoint)
    dataset = load_data(options, config, run)
    if run is not None:
        run.check_classes(dataset.name, dataset.class_names)
    check_fit(dataset, config)
    engine = load_engine(factory, engine_options, config, params, options.dtype, options.check_finite)
    start = time.perf_counter()
    split = getattr(dataset, options.split)
    result = evaluate(engine, dataset, split, options.dtype, options.batch_size)
    print(
        f"{engine.name}: accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on the {result.pictures:,} "
        f"{options.split} pictures of {dataset.name}, {time.perf_counter() - start:.1f} s"
    )
    return 0


def _defaults(argv: Sequence[str]) -> EvalOptions | type[EvalOptions]:
    """The data of the run that the checkpoint belongs to."""
    given = checkpoint_flag(argv)
    run = find_run(given) if given else None
    if run is None or given is None:
        return EvalOptions
    return EvalOptions(data=run.data, data_dir=Path(run.data_dir) if run.data_dir else None, checkpoint=given)
