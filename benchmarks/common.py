"""What the timing commands share: options, the parity check, and the efficiency of what was timed."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import machine, products
from benchmarks.contestants import Case, Contestant
from benchmarks.measure import Timing, paired_ratio
from benchmarks.parity import ParityError, Truth

CHECKED = 2  # images of a batch whose logits and gradients are held against the bound


def add_options(parser: argparse.ArgumentParser, presets: str = "", batches: str = "") -> None:
    parser.add_argument(
        "--threads", type=int, default=machine.cores(), help="threads of both engines (default: all cores)"
    )
    parser.add_argument(
        "--repeats", type=int, default=9, help="rounds in which each contestant is timed once"
    )
    parser.add_argument(
        "--budget", type=float, default=40.0, help="seconds a case may take; three rounds are always made"
    )
    parser.add_argument(
        "--label", default=None, help="suffix of the result file (default: processor and BLAS kernel)"
    )
    if presets:
        parser.add_argument("--presets", nargs="+", default=presets.split(), help="models")
    if batches:
        parser.add_argument(
            "--batches", nargs="+", type=int, default=[int(b) for b in batches.split()], help="batch sizes"
        )


def start(command: str, args: argparse.Namespace) -> dict[str, Any]:
    """The frame of a result: everything but the rows."""
    label = machine.label() if args.label is None else args.label
    return {
        "command": command,
        "label": label,
        "precision": "float32",
        "threads": args.threads,
        "machine": machine.describe(),
        "ceilings_gflops": machine.ceilings(),
        "rows": [],
    }


def assert_parity(
    case: Case, contestants: list[Contestant], gradients: bool, precision: str = "float32"
) -> dict[str, float]:
    """Largest error of each contestant as a share of its bound; above 1, ParityError: nothing is timed."""
    few = min(CHECKED if gradients else 1, len(case.images))
    truth = Truth(case.params, case.images[:few], case.labels[:few], case.config, gradients)
    shares = {}
    for c in contestants:
        logits = c.forward(case.images)[:few]  # of the very batch that is timed
        grads = c.gradients(truth.images, truth.labels) if gradients and c.gradients else None
        shares[c.name] = truth.check(c.name, logits, grads, precision)
    if contestants and contestants[0].step is not None and gradients:
        # Cross-entropy moves by at most twice the largest move of a logit; images have much the same bound.
        _check_losses(
            {c.name: c.step(case.images, case.labels) for c in contestants if c.step}, 2 * truth.logit_bound
        )
    return shares


def _check_losses(losses: dict[str, float], bound: float) -> None:
    """The first step's loss is that of the common parameters, the same for all."""
    first, want = next(iter(losses.items()))
    for name, loss in losses.items():
        if not abs(loss - want) <= 2 * bound:  # each may be a bound away from the truth
            raise ParityError(
                f"the first step of {name} has loss {loss!r}, that of {first} {want!r}; nothing was timed"
            )


def calls(contestants: list[Contestant], case: Case, what: str) -> dict[str, Callable[[], Any]]:
    """{name: the call to time}; `what` is "forward", "gradients" or "step". Who cannot do it is left out."""
    able = {c.name: getattr(c, what) for c in contestants if getattr(c, what) is not None}
    inputs = (case.images,) if what == "forward" else (case.images, case.labels)
    return {name: partial(call, *inputs) for name, call in able.items()}


def ratios(
    timings: dict[str, Timing], of: tuple[str, ...] = ("numpy", "torch")
) -> dict[str, dict[str, float]]:
    """Our engines over everyone else."""
    return {f"{a} / {b}": paired_ratio(timings, a, b) for a in of if a in timings for b in timings if a != b}


def efficiency(
    timings: dict[str, Timing], contestants: list[Contestant], ceilings: dict[str, float], flops: int
) -> dict[str, float]:
    """Time of the model's products at the measured ceiling of the own library, over the measured time."""
    named = {c.name: c.ceiling for c in contestants}
    shortcut = [name for name in timings if name.endswith("class token alone")]  # fewer products than `flops`
    known = {n: ceilings[named[n]] for n in timings if named.get(n) in ceilings and n not in shortcut}
    return {name: flops / ceiling / 1e9 / timings[name].minimum for name, ceiling in known.items()}


def of_own_products(
    timings: dict[str, Timing], case: Case, train: bool, budget: float = 10.0
) -> dict[str, float]:
    """Measured time over that of the same products alone, shape by shape, in the same library."""
    made = list(products.forward(case.config, len(case.images)))
    made += list(products.backward(case.config, len(case.images))) if train else []
    alone = {"numpy": products.numpy_time, "torch": products.torch_time}
    return {
        name: timings[name].minimum / time(made, budget) for name, time in alone.items() if name in timings
    }


def show(row: dict[str, Any]) -> None:
    """A row of a result as text."""
    print(f"\n{row['case']}")
    for name, t in row["times"].items():
        extra = f"  efficiency {row['efficiency'][name]:.2f}" if name in row.get("efficiency", {}) else ""
        share = f"  error {row['parity'][name]:.2f} of bound" if name in row.get("parity", {}) else ""
        spread = "" if t["spread"] is None else f" +-{100 * t['spread']:.0f}%"
        print(f"  {name:24} {t['min_ms']:10.2f} ms  median {t['median_ms']:10.2f}{spread}{extra}{share}")
    for pair, r in row.get("ratios", {}).items():
        print(f"    {pair:40} {r['of_minima']:.3f} (median of rounds {r['median_of_rounds']:.3f})")
    for name, r in row.get("of_own_products", {}).items():
        print(f"    {name} / its own products alone: {r:.3f}")
