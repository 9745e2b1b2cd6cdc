"""`memory`: peak memory of inference and of a training step, each in a process of its own, both engines."""

import argparse
import json
import sys

import numpy as np

from benchmarks import common, contestants, results
from benchmarks.measure import in_fresh_process, peak_memory

HELP = "peak resident memory of a forward pass and a training step, a fresh process each"
DOINGS = ("nothing", "forward", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=8)


def run(args: argparse.Namespace) -> int:
    result = common.start("memory", args)
    for preset in args.presets:
        case = contestants.make_case(preset, 1)
        result_parity = common.assert_parity(case, contestants.engines(case)[:2], gradients=True)
        row = {"case": f"{preset}, batch {args.batch}", "times": {}, "parity": result_parity, "peak_mib": {}}
        for engine in ("numpy", "torch"):
            for doing in DOINGS:
                words = engine, preset, str(args.batch), doing, str(args.threads)
                peak = in_fresh_process("benchmarks.memory", *words)["peak_bytes"]
                row["peak_mib"][f"{engine}, {doing}"] = round(peak / 2**20, 1)
        result["rows"].append(row)
        print(row["case"], *(f"  {name}: {mib:.0f} MiB" for name, mib in row["peak_mib"].items()), sep="\n")
    print(f"written to {results.save(result)}")
    return 0


def child(engine: str, preset: str, batch: str, doing: str, threads: str) -> None:
    """Two steps (the second has the optimizer's state, and all that the first left), then the peak."""
    case = contestants.make_case(preset, int(batch))
    make = {"numpy": contestants.numpy_contestant, "torch": contestants.torch_contestant}[engine]
    if engine == "torch":
        import torch

        torch.set_num_threads(int(threads))
    if doing != "nothing":
        contestant = make(case)
        for _ in range(2):
            result = (
                contestant.forward(case.images)
                if doing == "forward"
                else contestant.step(case.images, case.labels)
            )
            if not np.all(np.isfinite(result)):
                raise SystemExit(f"{engine}: the {doing} of {preset} is not finite")
    print(json.dumps({"peak_bytes": peak_memory()}))


if __name__ == "__main__":
    child(*sys.argv[1:])
