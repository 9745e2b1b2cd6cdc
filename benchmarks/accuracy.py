r"""`accuracy`: what float32 costs each engine: the errors of logits and gradients against the same model in float64.

The error of a batch is relative, over all numbers together: $\lVert x_{32} - x_{64} \rVert / \lVert x_{64} \rVert$; of
several batches the root of the mean square, for that of one differs from the next by a tenth. Nothing is timed.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import common, machine, results
from benchmarks.contestants import Array, Case, Contestant, engines, make_case
from numpy_vit.data_parallel import parallel_loss_and_grads, parallel_predict
from vit_common.masks import keyed_rng

HELP = "errors of float32 logits and gradients, both engines, against float64"
Named = Mapping[str, Array]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, "mnist_patch4 vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224", "8")
    parser.add_argument("--draws", type=int, default=6, help="batches of random images")


def run(args: argparse.Namespace) -> int:
    with machine.threads(args.threads):
        result = common.start("accuracy", args)
        for preset in args.presets:
            for batch in args.batches:
                row = measure(make_case(preset, batch), args.draws)
                result["rows"].append(row)
                show(row)
    print(f"written to {results.save(result)}")
    return 0


def measure(case: Case, draws: int) -> dict[str, Any]:
    """The row of one model: errors of every contestant, and NumPy's over the others'."""
    contestants = engines(case)
    exact = {name: p.astype(np.float64) for name, p in case.params.items()}
    squares: dict[str, dict[str, list[float]]] = {"logits": {}, "gradients": {}}
    for draw in range(draws):
        rng = keyed_rng(0, "accuracy", draw)
        images = rng.standard_normal(case.images.shape, np.float32)
        labels = rng.integers(0, case.config.num_classes, len(images))
        doubled = images.astype(np.float64)
        logits = {"logits": parallel_predict(exact, doubled, case.config)}
        grads = parallel_loss_and_grads(exact, doubled, labels, case.config)[1]
        for c in contestants:
            found = {"logits": c.forward(images)}
            squares["logits"].setdefault(c.name, []).append(relative(found, logits) ** 2)
            squares["gradients"].setdefault(c.name, []).append(relative(_gradients(c, images, labels), grads) ** 2)
    errors = {what: {n: float(np.mean(s)) ** 0.5 for n, s in mine.items()} for what, mine in squares.items()}
    over = {what: {f"numpy / {n}": e["numpy"] / e[n] for n in e if n != "numpy"} for what, e in errors.items()}
    return results.row(f"{case.name}, {draws} draws", {}, errors=errors, error_ratios=over)


def _gradients(contestant: Contestant, images: Array, labels: Array) -> Named:
    assert contestant.gradients is not None  # the engines all have them
    return contestant.gradients(images, labels)


def relative(got: Named, want: Named) -> float:
    """The error's norm over the truth's, all arrays as one."""
    error = sum(float(np.sum((np.asarray(got[name], np.float64) - w) ** 2)) for name, w in want.items())
    return (error / sum(float(np.sum(w**2)) for w in want.values())) ** 0.5


def show(row: Mapping[str, Any]) -> None:
    print(f"\n{row['case']}")
    for what, errors in row["errors"].items():
        print(f"  {what:10}", ", ".join(f"{name} {error:.2e}" for name, error in errors.items()))
        print(" " * 12, ", ".join(f"{pair} {ratio:.3f}" for pair, ratio in row["error_ratios"][what].items()))
