"""`python -m benchmarks [COMMAND]`: without a command, the CPU set, in less than 15 minutes."""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence

from vit_common.errors import VitError

COMMANDS = (
    "stages", "model", "train", "shares", "profile", "accuracy", "memory", "cold", "scale", "cost", "peers", "gpu",
    "report",
)  # fmt: skip
# The CPU set: command and arguments, so chosen that all of it takes less than 15 minutes on 2 cores.
CPU_SET = (
    ["cost"],
    ["cold", "--budget", "25"],
    ["stages", "--budget", "4"],
    ["model", "--presets", "vit_small_patch16_224", "mnist_patch4", "--budget", "8"],
    ["train", "--budget", "25"],
    ["accuracy", "--presets", "vit_tiny_patch16_224", "mnist_patch4", "--draws", "2"],
    ["profile", "--repeats", "5"],
    ["scale", "--budget", "2"],
    ["memory", "--presets", "vit_small_patch16_224"],
    ["ladder", "--budget", "3"],
    ["erf"],
    ["report"],
)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    top.add_argument(
        "--blas-kernel",
        metavar="NAME",
        default="as-is",
        help="restart with OPENBLAS_CORETYPE=NAME; `free` unsets it",
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"benchmarks.{name}")
        sub = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawTextHelpFormatter
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    commands.add_parser("erf", help="accuracy of erf and GELU against mpmath").set_defaults(run=_erf)
    ladder = commands.add_parser(
        "ladder", help="from plain loops to tiled attention in NumPy, rung by rung", add_help=False
    )
    ladder.set_defaults(run=_ladder)
    compare = commands.add_parser("compare", help="what changed between two runs beyond noise")
    compare.add_argument("before", help="a result file, or a line of the history: 0 the first, -1 the last")
    compare.add_argument("after")
    compare.set_defaults(run=_compare)
    return top


def main(argv: Sequence[str]) -> int:
    """The exit status: 0, 1 for an error (parity above all), 2 for wrong arguments."""
    args, rest = parser().parse_known_args(_with_optional_negatives(argv))
    if rest and args.command != "ladder":
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    if args.blas_kernel != "as-is":
        _restart(args.blas_kernel, argv)
    try:
        return args.run(args) if args.command else cpu_set()
    except VitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def cpu_set() -> int:
    """Every command of the set, one after the other; the worst exit status."""
    begun, status = time.perf_counter(), 0
    for words in CPU_SET:
        print(f"\n== {' '.join(words)} ({time.perf_counter() - begun:.0f} s so far)", flush=True)
        status = max(status, main(words))
    print(f"\nall done in {(time.perf_counter() - begun) / 60:.1f} minutes")
    return status


def _with_optional_negatives(argv: Sequence[str]) -> list[str]:
    """`compare -2 -1`: argparse would take them for flags."""
    words = list(argv)
    negative = words[:1] == ["compare"] and not {"-h", "--help"} & set(words)
    return ["compare", "--", *words[1:]] if negative else words


def _restart(kernel: str, argv: Sequence[str]) -> None:
    """A BLAS picks its kernel when it is loaded: begin again with the variable set, without the flag."""
    at = list(argv).index("--blas-kernel") if "--blas-kernel" in argv else None
    words = (
        [*argv[:at], *argv[at + 2 :]]
        if at is not None
        else [w for w in argv if not w.startswith("--blas-kernel=")]
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    if kernel != "free":
        environment["OPENBLAS_CORETYPE"] = kernel
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *words], environment)


def _erf(args: argparse.Namespace) -> int:
    return importlib.import_module("benchmarks.erf_accuracy").main()


def _ladder(args: argparse.Namespace) -> int:
    return importlib.import_module("benchmarks.ladder.__main__").main(args.rest)


def _compare(args: argparse.Namespace) -> int:
    from benchmarks import history, results

    lines = results.RESULTS / "history.jsonl"
    print(history.report(history.compare(history.read(args.before, lines), history.read(args.after, lines))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
