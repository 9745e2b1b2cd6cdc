"""`ladder`: every rung's time and memory at the sizes of a preset, parity with the stage asserted before.

All rungs but `threads` run on one core, so that the ratios are those of the code. Memory is what the rung allocates at
most, forward and backward together, beyond its inputs (tracemalloc).
"""

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import numpy_vit
from benchmarks import common, machine, results
from benchmarks.ladder import LADDER, rung
from benchmarks.measure import Timing, interleave
from vit_common.config import ViTConfig
from vit_common.errors import VitError
from vit_common.masks import keyed_rng
from vit_common.memory import keep_freed_memory
from vit_common.params import init_params, sub

Array = np.ndarray
U = float(np.finfo(np.float32).eps) / 2


def inputs(stage: str, config: ViTConfig, batch: int) -> tuple[Any, ...]:
    """Random arguments of the stage at this model's sizes."""
    rng = keyed_rng(0, "ladder", stage)
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    x = draw(batch, config.num_tokens, config.embed_dim)
    if stage == "attention":
        return tuple(draw(batch, config.num_heads, config.num_tokens, config.head_dim) for _ in "qkv")
    if stage == "layer_norm":
        return x, draw(config.embed_dim), draw(config.embed_dim)
    if stage == "gelu":
        return (draw(batch, config.num_tokens, config.mlp_dim),)
    return sub(init_params(config, 0), "blocks.0"), x, config


def arrays(result: Any) -> list[Array]:
    """The arrays of a backward's result, whatever their packing, in a fixed order."""
    if isinstance(result, dict):
        return [result[name] for name in sorted(result)]
    return [result] if isinstance(result, np.ndarray) else [a for part in result for a in arrays(part)]


def assert_same(name: str, got: Any, want: Any) -> None:
    """A thousand roundings of the largest number, over which sums of this length stay: raises VitError beyond."""
    for a, b in zip(arrays(got), arrays(want), strict=True):
        if not np.max(np.abs(a - b)) <= 1000 * U * np.max(np.abs(b)):
            raise VitError(f"{name} is not the stage's function; nothing was timed")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def peak_memory(call: Callable[[], Any]) -> int:
    """Bytes that `call` holds at most, beyond what was there before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure(stage: str, config: ViTConfig, batch: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    given = inputs(stage, config, batch)
    forward, backward = (getattr(numpy_vit, f"{stage}_{way}") for way in ("forward", "backward"))
    y, cache = forward(*given)
    dy = keyed_rng(1, "ladder", stage).standard_normal(y.shape, np.float32)
    want, peaks = backward(dy, cache), {}
    forwards, backwards = {}, {}
    once: dict[str, dict[str, Timing]] = {"forward": {}, "backward": {}}
    for name in LADDER[stage]:
        go, back = (getattr(rung(stage, name), f"{stage}_{way}") for way in ("forward", "backward"))
        seconds, (ours, kept) = timed(lambda go=go: go(*given))
        seconds_back, grads = timed(lambda back=back, kept=kept: back(dy, kept))
        assert_same(f"{stage}, {name}: y", ours, y)
        assert_same(f"{stage}, {name}: gradients", grads, want)
        if name == "loops":  # too slow to be timed again
            once["forward"][name], once["backward"][name] = Timing((seconds,)), Timing((seconds_back,))
        else:
            forwards[name] = lambda go=go: go(*given)
            backwards[name] = lambda back=back, kept=kept: back(dy, kept)
        peaks[name] = peak_memory(lambda go=go, back=back: back(dy, go(*given)[1]))
    rows = []
    for way, these in (("forward", forwards), ("backward", backwards)):
        times = once[way] | interleave(these, args.repeats, warmup=1, budget=args.budget)
        case = f"{stage}, {way}, {batch} x {config.num_tokens} tokens"
        best = times["vectorised"].minimum
        rows.append(
            results.row(
                case, times, stage=stage, way=way, tokens=config.num_tokens, batch=batch,
                peak_mib={name: round(peak / 2**20, 2) for name, peak in peaks.items()},
                to_vectorised={name: round(t.minimum / best, 3) for name, t in times.items()},
            )
        )  # fmt: skip
        show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    print(f"\n{row['case']}")
    for name, t in row["times"].items():
        ratio, peak = row["to_vectorised"][name], row["peak_mib"][name]
        times = f"{t['min_ms']:10.2f} ms  median {t['median_ms']:10.2f}"
        print(f"  {name:12} {times}  {ratio:8.3f} of vectorised  {peak:8.1f} MiB", flush=True)


def main(argv: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ladder", description=__doc__)
    common.add_options(parser)
    parser.add_argument("--preset", default="vit_small_patch16_224", help="the model whose sizes are taken")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--stages", nargs="+", default=list(LADDER), choices=list(LADDER))
    parser.add_argument("--long", type=int, default=512, help="pixels of one more image, for attention; 0: none")
    parser.set_defaults(budget=5.0, threads=1)  # `threads` takes two all the same
    args = parser.parse_args(list(argv))
    keep_freed_memory()
    with machine.threads(args.threads):
        result = common.start("ladder", args)
        result |= {"preset": args.preset, "batch": args.batch}
        for stage in args.stages:
            result["rows"] += measure(stage, ViTConfig.preset(args.preset), args.batch, args)
        if args.long and "attention" in args.stages:  # where memory begins to count
            result["rows"] += measure("attention", ViTConfig.preset(args.preset, image_size=args.long), 1, args)
    print(f"written to {results.save(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
