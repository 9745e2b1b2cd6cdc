r"""Timing that can be believed: in turns, warmed up, synchronised; memory in fresh processes.

Taking turns makes what else the machine does hit everyone alike, so ratios stay true on a busy machine. Each
round starts with another contestant: none is always the one that follows the one with the largest arrays. And each
waits until the threads of the one before are asleep, or it would have a core less: OpenBLAS's look for work for 0.11
seconds after a product, onnxruntime's for 0.04, torch's for 0.01 (seen as processor time of a process that sleeps). The
minimum says what the code can do, the median what it does here, the spread (half the interquartile range over
the median) how far to trust it.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHORTEST = 2e-3  # seconds: calls that are quicker are repeated inside one sample
PAUSE = 0.15  # seconds between contestants
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, sample by sample."""

    samples: tuple[float, ...]

    @property
    def minimum(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """Half the interquartile range, as a share of the median."""
        if len(self.samples) < 2:
            return math.nan
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    def to_dict(self) -> dict[str, Any]:
        """Milliseconds, for a result file."""
        spread = None if math.isnan(self.spread) else round(self.spread, 4)
        return {
            "min_ms": 1e3 * self.minimum,
            "median_ms": 1e3 * self.median,
            "spread": spread,
            "samples": len(self.samples),
        }


def interleave(
    contestants: Mapping[str, Callable[[], Any]],
    repeats: int = 9,
    warmup: int = 2,
    synchronise: Callable[[], None] = lambda: None,
    budget: float = math.inf,
    pause: float = PAUSE,
) -> dict[str, Timing]:
    """Time everyone `repeats` times, in turns; stops after `budget` seconds, but makes three rounds.

    After the pause comes a call that is not timed, unless a call takes longer than the pause: caches and threads are
    as warm as in a loop of such calls.
    """
    inner: dict[str, int] = {}
    quick: dict[str, bool] = {}
    for name, call in contestants.items():
        for _ in range(max(warmup, 1)):
            once = _seconds(call, 1, synchronise)
        inner[name] = max(1, math.ceil(SHORTEST / max(once, 1e-9)))
        quick[name] = once < pause
    names = list(contestants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(pause)
            if quick[name]:
                contestants[name]()
            samples[name].append(_seconds(contestants[name], inner[name], synchronise))
        if turn >= 2 and time.perf_counter() - start > budget:
            break
    return {name: Timing(tuple(times)) for name, times in samples.items()}


def _seconds(call: Callable[[], Any], times: int, synchronise: Callable[[], None]) -> float:
    synchronise()
    start = time.perf_counter()
    for _ in range(times):
        call()
    synchronise()
    return (time.perf_counter() - start) / times


def paired_ratio(timings: Mapping[str, Timing], name: str, to: str) -> dict[str, float]:
    """`name` over `to`: of the minima, and the median over the rounds, in which both met the same weather."""
    a, b = timings[name], timings[to]
    rounds = [x / y for x, y in zip(a.samples, b.samples, strict=True)]
    return {"of_minima": a.minimum / b.minimum, "median_of_rounds": statistics.median(rounds)}


def in_fresh_process(module: str, *args: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON object on the last line of `python -m module args`; or CalledProcessError."""
    command = [sys.executable, "-m", module, *args]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes.

    On Linux from /proc: getrusage would count what the parent held when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(
            line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")
        )
        return 1024 * int(line.split()[1])
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
