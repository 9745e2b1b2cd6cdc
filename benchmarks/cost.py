"""`cost`: parameters, arithmetic and memory of any preset, by the formulas of `vit_common.cost`."""

import argparse

from vit_common.config import PRESETS, ViTConfig
from vit_common.cost import model_costs, totals
from vit_common.errors import ConfigError
from vit_common.info import binary, si, stage_table, table

HELP = "FLOPs, parameters and cache bytes of any preset, by formula"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "presets", nargs="*", help="models for which to print every stage (default: the totals of all)"
    )
    parser.add_argument("--batch", type=int, default=1)


def run(args: argparse.Namespace) -> int:
    for name in args.presets:
        print(f"{name}, batch {args.batch}\n{stage_table(ViTConfig.preset(name), args.batch)}\n")
    if not args.presets:
        print(summary(args.batch))
    return 0


def summary(batch: int = 1) -> str:
    """A line a preset for which there are formulas."""
    rows = []
    for name in PRESETS:
        try:
            total = totals(model_costs(ViTConfig.preset(name)))
        except ConfigError:  # a variant beyond the plain model
            continue
        cells = (
            si(total.params),
            si(total.flops * batch),
            si(3 * total.flops * batch),
            binary(total.cache_bytes * batch),
        )
        rows.append((name, *cells))
    return table(("preset", "parameters", "forward FLOPs", "step FLOPs", "cache, float32"), rows)
