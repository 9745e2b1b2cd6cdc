"""`model`: the whole model, forward and forward with backward, both engines."""

import argparse

from benchmarks import common, machine, products, results
from benchmarks.contestants import engines, make_case, serving
from benchmarks.measure import interleave

HELP = "whole model, forward and forward+backward, both engines"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224 mnist", "1 8")


def run(args: argparse.Namespace) -> int:
    with machine.threads(args.threads):
        result = common.start("model", args)
        for preset in args.presets:
            for batch in args.batches:
                case = make_case(preset, batch)
                contestants = [*engines(case), *serving(case)]
                parity = common.assert_parity(case, contestants, gradients=True)
                for train in (False, True):
                    calls = common.calls(contestants, case, "gradients" if train else "forward")
                    times = interleave(calls, args.repeats, budget=args.budget)
                    flops = products.flops(case.config, batch, train)
                    row = results.row(
                        f"{case.name}, {'forward+backward' if train else 'forward'}",
                        times,
                        parity=parity,
                        flops=flops,
                        ratios=common.ratios(times),
                        efficiency=common.efficiency(times, contestants, result["ceilings_gflops"], flops),
                    )
                    result["rows"].append(row)
                    common.show(row)
    print(f"written to {results.save(result)}")
    return 0
