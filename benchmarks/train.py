"""`train`: the whole training step: forward, backward, clipping, AdamW."""

import argparse

from benchmarks import common, machine, products, results
from benchmarks.contestants import engines, make_case
from benchmarks.measure import interleave

HELP = "full training step (forward, backward, clipping, AdamW), both engines"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, "vit_small_patch16_224 mnist_patch4")
    parser.add_argument(
        "--batch", type=int, default=0, help="images a step (default: 8, for small models 128)"
    )


def run(args: argparse.Namespace) -> int:
    with machine.threads(args.threads):
        result = common.start("train", args)
        for preset in args.presets:
            batch = args.batch or (8 if preset.startswith("vit_") else 128)
            case = make_case(preset, batch)
            contestants = engines(case)
            parity = common.assert_parity(case, contestants, gradients=True)
            calls = common.calls(contestants, case, "step")
            times = interleave(calls, args.repeats, budget=args.budget)
            flops = products.flops(case.config, batch, train=True)
            row = results.row(
                f"{case.name}, training step",
                times,
                parity=parity,
                flops=flops,
                ratios=common.ratios(times),
                efficiency=common.efficiency(times, contestants, result["ceilings_gflops"], flops),
                of_own_products=common.of_own_products(times, case, train=True),
            )
            result["rows"].append(row)
            common.show(row)
    print(f"written to {results.save(result)}")
    return 0
