"""`shares`: a batch as one, and in shares on a thread each; from which size on that pays, in both engines."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from benchmarks import common, machine, results
from benchmarks.contestants import Case, Contestant, make_case, torch_contestant
from benchmarks.measure import interleave
from numpy_vit import data_parallel
from vit_common.errors import ConfigError

HELP = "batches split over threads, or not: from which size on it pays"
CASES = """mnist:8 mnist:128 mnist_patch4:8 mnist_patch4:32 mnist_patch4:64 mnist_patch4:128
    vit_tiny_patch16_224:2 vit_tiny_patch16_224:8 vit_small_patch16_224:2 vit_small_patch16_224:8"""
Array = np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser)
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="PRESET:BATCH",
        default=CASES.split(),
    )


def run(args: argparse.Namespace) -> int:
    if args.threads < 2:
        raise ConfigError(f"threads={args.threads}, expected 2 or more: nothing to split among; try --threads 2")
    with machine.threads(args.threads):
        result = common.start("shares", args)
        for words in args.cases:
            preset, _, batch = words.partition(":")
            case = make_case(preset, int(batch))
            shares = data_parallel.split(len(case.images), args.threads)
            numbers = (shares[0].stop or 1) * case.config.num_tokens * case.config.embed_dim
            contestants = [c for n in (1, args.threads) for c in (by_numpy(case, n), by_torch(case, n))]
            parity = common.assert_parity(case, contestants, gradients=True)
            for way in ("forward", "gradients"):
                times = interleave(common.calls(contestants, case, way), args.repeats, budget=args.budget)
                ratios = {
                    pair: ratio
                    for pair, ratio in common.ratios(times, tuple(times)).items()
                    if pair in ("numpy shares / numpy whole", "torch shares / torch whole")
                }
                named = f"{case.name}, {numbers} numbers a share, {way}"
                result["rows"].append(
                    results.row(named, times, parity=parity, numbers=numbers, ratios=ratios)
                )
                common.show(result["rows"][-1])
    print(f"written to {results.save(result)}")
    return 0


def by_numpy(case: Case, workers: int) -> Contestant:
    def forward(images: Array) -> Array:
        return data_parallel.parallel_predict(case.params, images, case.config, workers)

    def gradients(images: Array, labels: Array) -> Mapping[str, Array]:
        return data_parallel.parallel_loss_and_grads(
            case.params, images, labels, case.config, workers=workers
        )[1]

    return Contestant(f"numpy {'shares' if workers > 1 else 'whole'}", "numpy", forward, gradients)


def by_torch(case: Case, workers: int) -> Contestant:
    """The engine, its rule set aside."""
    from torch_vit import data_parallel as shares

    engine = torch_contestant(case)

    @contextmanager
    def least() -> Iterator[None]:
        before, shares.LEAST_TOKENS = shares.LEAST_TOKENS, 1 if workers > 1 else sys.maxsize
        try:
            yield
        finally:
            shares.LEAST_TOKENS = before

    name = f"torch {'shares' if workers > 1 else 'whole'}"
    return Contestant(name, engine.ceiling, least()(engine.forward), least()(engine.gradients))
