"""`scale`: how time and memory grow with batch, tokens, width, depth; beside the cost model."""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks import common, contestants, machine, plots, products, results
from benchmarks.contestants import Case, make_case
from benchmarks.measure import interleave
from vit_common.config import ViTConfig
from vit_common.cost import model_costs, totals

HELP = "time and memory against batch, tokens, width, depth, with fitted exponents"
BASE = {"image_size": 128, "patch_size": 16, "embed_dim": 192, "depth": 4, "num_heads": 3, "num_classes": 10}
AXES: dict[str, list[tuple[int, dict, int]]] = {  # axis -> (size, changes of BASE, batch)
    "batch": [(b, {}, b) for b in (1, 2, 4, 8, 16)],
    "tokens": [
        (n * n, {"image_size": 16 * n, "class_token": False, "pool": "mean"}, 2) for n in (6, 9, 14, 20)
    ],
    "width": [(64 * h, {"embed_dim": 64 * h, "num_heads": h}, 4) for h in (1, 2, 4, 8)],
    "depth": [(d, {"depth": d}, 4) for d in (1, 2, 4, 8)],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser)
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.set_defaults(budget=4.0)


def run(args: argparse.Namespace) -> int:
    with machine.threads(args.threads):
        result = common.start("scale", args) | {"exponents": {}}
        for axis in args.axes:
            rows = []
            for size, case in cases(axis):
                both = [contestants.numpy_contestant(case), contestants.torch_contestant(case)]
                parity = common.assert_parity(case, both, gradients=True)
                times = interleave(common.calls(both, case, "gradients"), args.repeats, budget=args.budget)
                total = totals(model_costs(case.config))
                row = results.row(
                    f"{axis} {size}",
                    times,
                    axis=axis,
                    size=size,
                    parity=parity,
                    cache_bytes=total.cache_bytes * len(case.images),
                    flops=products.flops(case.config, len(case.images), train=True),
                    cache_measured=cache_bytes(case),
                )
                rows.append(row)
                common.show(row)
            sizes = [row["size"] for row in rows]
            fits = {e: exponent(sizes, [r["times"][e]["min_ms"] for r in rows]) for e in ("numpy", "torch")}
            fits |= {
                what: exponent(sizes, [r[what] for r in rows])
                for what in ("flops", "cache_bytes", "cache_measured")
            }
            result["exponents"][axis] = fits
            print(f"{axis}: exponents", ", ".join(f"{name} {e:.2f}" for name, e in fits.items()))
            result["rows"] += rows
    path = results.save(result)
    plots.scaling(result, path.with_suffix(".png"))
    print(f"written to {path} and {path.with_suffix('.png')}")
    return 0


def cases(axis: str) -> Iterator[tuple[int, Case]]:
    for size, changes, batch in AXES[axis]:
        config = ViTConfig.from_dict({**BASE, **changes})
        contestants.SMALL["scale"] = config
        case = make_case("scale", batch)
        yield size, case


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log value over log size by least squares: value grows as size to this power."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def cache_bytes(case: Case) -> int:
    """Bytes the NumPy engine really keeps for the backward, without parameters; an array counts once."""
    from numpy_vit import vit_forward

    _, cache = vit_forward(case.params, case.images, case.config)
    own = {_address(p) for p in case.params.values()}
    found: dict[int, int] = {}
    _collect(cache, found)
    return sum(size for address, size in found.items() if address not in own)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _collect(node: object, found: dict[int, int]) -> None:
    if isinstance(node, np.ndarray):
        base = node if node.base is None or not isinstance(node.base, np.ndarray) else node.base
        found[_address(base)] = max(found.get(_address(base), 0), base.nbytes)
    elif isinstance(node, (tuple, list)):
        for child in node:
            _collect(child, found)
