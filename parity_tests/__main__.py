"""`python -m parity_tests`: run the suite, say how far every stage is from its bound, write the parity report.

Writes parity_report.json and parity_report.html. Exit status 1 when a check fails, with the failures named.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # arrays here are small: more threads only get in each other's way

import pytest  # noqa: E402

from parity_tests import deep, page, report, running  # noqa: E402
from parity_tests.strategies import DEEP  # noqa: E402
from vit_common.errors import require  # noqa: E402
from vit_common.files import write_atomically, write_json  # noqa: E402

OUT = Path(__file__).resolve().parent.parent / "build"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m parity_tests", description=__doc__.splitlines()[0])
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="about a minute: few examples, no long runs")
    effort.add_argument("--deep", action="store_true", help=f"hours, resumable: {DEEP} examples a property")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the report (default: build)")
    parser.add_argument("--engine", help="module or .py file to test in place of numpy_vit")
    parser.add_argument("--workers", type=int, default=running.workers(), help="processes (default: one a core)")
    options = parser.parse_args(arguments)
    profile = "smoke" if options.quick else "deep" if options.deep else "default"

    start = time.perf_counter()
    more = ["--engine", options.engine] if options.engine else []
    more += ["-p", "parity_tests.deep"] if options.deep else []
    with require("tqdm", extra="cli").tqdm(unit="test", file=sys.stderr, dynamic_ncols=True) as bar:
        outcome = running.run(profile, options.quick, options.workers, bar, more)
        bar.set_postfix_str("training curves")
        curves = None if options.engine else make_curves()
    if options.deep:
        deep.main()
    found = report.build(outcome, profile, time.perf_counter() - start, curves)
    write_json(options.out / "parity_report.json", found)
    html = page.render(found)
    write_atomically(options.out / "parity_report.html", lambda path: path.write_text(html, encoding="utf-8"))
    print(report.summary(found))
    print(f"written: {options.out / 'parity_report.json'} and {options.out / 'parity_report.html'}")
    if outcome.failures:
        print(report.failures(found), file=sys.stderr)
        return 1
    if outcome.status and not (options.deep and outcome.status == pytest.ExitCode.NO_TESTS_COLLECTED):
        # a bad option, broken off, nothing collected (but of a deep run, whose rest may be nothing)
        print(outcome.output.strip() or f"pytest ended with status {outcome.status}", file=sys.stderr)
        return 1
    return 0


def make_curves() -> dict:
    from parity_tests.curves import trajectories

    return trajectories()


if __name__ == "__main__":
    sys.exit(main())
