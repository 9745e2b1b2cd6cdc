r"""`python -m demo [--dtype float64] [--epochs N] [--seed S] [--out FOLDER]`.

Trains the same small Vision Transformer three times on scikit-learn's handwritten digits, from the same initial
weights and on the same batches: by NumPy, by torch, and, as a control, by torch from weights one unit in the last place
away. Prints a table and a verdict (`demo.verdict`), saves a picture. Exit status 1 if the engines do not agree.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from demo.picture import DIGITS, class_attention, draw
from demo.train_together import Log, one_ulp_up, train_together
from demo.verdict import judge
from vit_common.data import Dataset, load_dataset
from vit_common.engine import Engine
from vit_common.errors import VitError, require
from vit_common.files import check_writable, write_json
from vit_common.info import table
from vit_common.params import init_params
from vit_common.recipe import Recipe, config_for_data


@dataclass(frozen=True)
class DemoOptions:
    """One model, two engines, the same numbers."""

    dtype: Literal["float32", "float64"] = "float32"
    """precision; in float64 the losses of the first 100 steps must agree to 1e-9"""
    epochs: int | None = None
    """passes over the 1437 training digits (default: the recipe's)"""
    seed: int = 0
    """key of weights, order and masks"""
    out: Path = Path("runs/demo")
    """folder for the picture and the numbers"""


def main(argv: Sequence[str], engines: dict[str, Engine] | None = None) -> int:
    """Run the demo; `engines` may bring others under the names "numpy", "torch" and "control"."""
    tyro = require("tyro", extra="cli")
    about = (__doc__ or "").split("\n\n", 1)[1]
    options = tyro.cli(DemoOptions, args=list(argv), prog="python -m demo", description=about)
    try:
        return run(options, engines or _engines())
    except VitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(options: DemoOptions, engines: dict[str, Engine]) -> int:
    check_writable(options.out)  # now, not after the three trainings
    dataset, config = load_dataset("digits"), config_for_data("digits")
    changes = {"epochs": options.epochs} if options.epochs else {}
    recipe = Recipe.for_data("digits", seed=options.seed, dtype=options.dtype, **changes)
    params = init_params(config, recipe.seed, recipe.dtype)
    for name, engine in engines.items():
        engine.start(config, one_ulp_up(params) if name == "control" else params, recipe)
    size = sum(p.size for p in params.values())
    print(
        f"{len(dataset.train)} training and {len(dataset.test)} test digits, {size:,} parameters, {recipe.dtype}; "
        f"the engines take turns step by step",
        flush=True,
    )
    logs = train_together(engines, config, recipe, dataset)
    verdict = judge(logs["numpy"].losses, logs["torch"].losses, logs["control"].losses, recipe.dtype)
    print("\n" + summary(engines, logs) + "\n")
    for reason in verdict.reasons:
        print(reason)
    picture = options.out / f"demo-{recipe.dtype}.png"
    _draw(picture, engines, logs, verdict, dataset, recipe, config)
    numbers = {
        "recipe": recipe.to_dict(),
        "config": config.to_dict(),
        **{name: vars(log) for name, log in logs.items()},
    }
    write_json(picture.with_suffix(".json"), numbers)
    print(f"picture: {picture}")
    print("the engines agree" if verdict.agree else "THE ENGINES DO NOT AGREE: they part sooner than rounding explains")
    return 0 if verdict.agree else 1


def summary(engines: dict[str, Engine], logs: dict[str, Log]) -> str:
    """The table: loss, accuracy and step time of each run, and how far it ended from the torch run."""
    reference = engines["torch"].params()
    rows = []
    for name, log in logs.items():
        gaps = {key: float(np.abs(p - reference[key]).max()) for key, p in engines[name].params().items()}
        worst = max(gaps, key=gaps.__getitem__)
        rows.append((
            name, f"{np.mean(log.losses[-20:]):.4f}", f"{log.accuracies[-1]:.2%}",
            "-" if name == "torch" else f"{gaps[worst]:.1e} ({worst})",
            f"{1e3 * log.step_time:.2f} ms", f"{log.step_time / logs['torch'].step_time:.2f}",
        ))  # fmt: skip
    header = ("run", "loss (last 20)", "test accuracy", "largest parameter difference to torch", "step", "ratio")
    return table(header, rows)


def _draw(path, engines, logs, verdict, dataset: Dataset, recipe: Recipe, config) -> None:
    indices = np.array([int(np.flatnonzero(dataset.test.labels == digit)[0]) for digit in range(DIGITS)])
    pixels = dataset.test.images(indices)
    images = dataset.normalise(pixels, np.dtype(recipe.dtype))
    labels = dataset.test.labels[indices]
    attention = {name: class_attention(engines[name], images, labels, config) for name in ("numpy", "torch")}
    guesses = engines["numpy"].predict(images).argmax(axis=1)
    titles = [f"{label}, read as {guess}" for label, guess in zip(labels, guesses, strict=True)]
    draw(path, logs, verdict, pixels[:, 0], attention, titles)


def _engines() -> dict[str, Engine]:
    # Before torch is loaded: its idle OpenMP threads would spin, on the cores where the other engine takes its turn. On
    # a busy machine of two cores this makes torch's step a hundred times shorter; the number of threads stays.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    require("torch", extra="torch")
    from numpy_vit.engine import NumpyEngine
    from torch_vit.engine import TorchEngine, TorchOptions

    on_cpu = TorchOptions(device="cpu")
    return {"numpy": NumpyEngine(), "torch": TorchEngine(on_cpu), "control": TorchEngine(on_cpu)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
