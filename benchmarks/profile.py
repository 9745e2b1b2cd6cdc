"""`profile`: where the time of a NumPy training step goes, stage by stage, beside its matrix products alone.

One thread, processor time, so that what else the machine does weighs little. A stage's time is its own: what the
stages inside it take is theirs.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy_vit
from benchmarks import common, machine, results
from benchmarks.contestants import Case, make_case, numpy_contestant
from benchmarks.measure import Timing
from numpy_vit.data_parallel import parallel_loss_and_grads

HELP = "where the time of a NumPy training step goes, stage by stage"
REST = "tokens, tapes, sums of gradients"
MOVES = ("split_heads", "merge_heads")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, "vit_small_patch16_224 mnist_patch4")
    parser.add_argument("--batch", type=int, default=0, help="images a step (default: 4, for small models 64)")


def run(args: argparse.Namespace) -> int:
    with machine.threads(1):
        args.threads = 1
        result = common.start("profile", args)
        for preset in args.presets:
            case = make_case(preset, args.batch or (4 if preset.startswith("vit_") else 64))
            parity = common.assert_parity(case, [numpy_contestant(case)], gradients=True)
            times = profile(case, args.repeats)
            row = results.row(
                f"{case.name}, forward+backward by stage", times, parity=parity, share=shares(times),
                of_own_products=common.of_own_products({"numpy": total(times)}, case, train=True),
            )  # fmt: skip
            result["rows"].append(row)
            show(row)
    print(f"written to {results.save(result)}")
    return 0


def profile(case: Case, repeats: int) -> dict[str, Timing]:
    """Seconds of each stage function in a step, the most expensive first; the time of what is in none as REST."""
    samples: dict[str, list[float]] = defaultdict(list)
    with watched() as spent:
        for turn in range(repeats + 1):
            spent.clear()
            start = time.thread_time()
            parallel_loss_and_grads(case.params, case.images, case.labels, case.config, workers=1)
            spent[REST] = time.thread_time() - start - sum(spent.values())
            if turn:  # the first warms up
                for name, seconds in spent.items():
                    samples[name].append(seconds)
    timings = {name: Timing(tuple(s)) for name, s in samples.items()}
    return dict(sorted(timings.items(), key=lambda item: -item[1].minimum))


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """While it lasts, every call of a stage function adds its own processor time to the dict, under its name."""
    spent: dict[str, float] = defaultdict(float)
    inside = [0.0]  # what the calls inside each call that is running took

    def watch(name: str, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            inside.append(0.0)
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.thread_time() - start
                spent[name] += seconds - inside.pop()
                inside[-1] += seconds

        return call

    names = [n for n in numpy_vit.__all__ if n.endswith(("_forward", "_backward")) or n in MOVES]
    watching = {id(getattr(numpy_vit, n)): watch(n, getattr(numpy_vit, n)) for n in names if not n.startswith("vit_")}
    engine = [module for name, module in sys.modules.items() if name.split(".")[0] == "numpy_vit"]
    changed = []
    for module in engine:
        for name, value in list(vars(module).items()):
            if id(value) in watching:
                changed.append((module, name, value))
                setattr(module, name, watching[id(value)])
    try:
        yield spent
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


def total(times: dict[str, Timing]) -> Timing:
    return Timing(tuple(map(sum, zip(*(t.samples for t in times.values()), strict=True))))


def shares(times: dict[str, Timing]) -> dict[str, float]:
    whole = sum(t.minimum for t in times.values())
    return {name: round(t.minimum / whole, 4) for name, t in times.items()}


def show(row: dict[str, Any]) -> None:
    print(f"\n{row['case']}")
    for name, t in row["times"].items():
        print(f"  {name:34}{t['min_ms']:9.2f} ms {row['share'][name]:7.1%}")
    for name, ratio in row["of_own_products"].items():
        print(f"  {name} / its own products alone: {ratio:.3f}")
