"""The programs that publish the other layouts' files, in many configurations, against both engines: outputs, the
input's gradient, every parameter's in the program's own names, intermediates; and their resizing of positions.

`VIT_PEERS=folder python -m parity_tests.peers_programs [PROGRAM ...]` prints k/n for each program and writes
benchmarks/results/peers_programs.json, where the rows of programs that were not asked for stay if they were run with
the same versions. `parity_tests/programs.py` says which checkouts the folder holds.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from parity_tests import programs, programs_jax, programs_resize, programs_torch

BOUND = 1e-11
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "peers_programs.json"
PROGRAMS = {**programs_torch.PROGRAMS, **programs_jax.PROGRAMS}
POSITIONS, PATCHES = "positions at another size", "patches at another size"
CASES = [(program, case) for program, (_, cases) in PROGRAMS.items() for case in cases]
PACKAGES = ("torch", "torchvision", "timm", "transformers", "open_clip_torch", "vit-pytorch", "jax", "flax", "scipy",
            "numpy")  # fmt: skip
CHECKOUTS = ("vision_transformer", "big_vision", "mae", "dino", "dinov2", "CLIP", "PapersReimplementations")


def errors(program: str, case: str) -> dict[str, float]:
    """The largest relative error of each engine against the program.

    Raises:
        ImportError: the program is not here.
    """
    make, cases = PROGRAMS[program]
    return programs.errors(make(cases[case]))


def commit(program: str) -> str:
    """Of the checkout; empty where it is none of git's."""
    try:
        command = ["git", "-C", str(programs.checkout(program)), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, ImportError, subprocess.CalledProcessError):
        return ""


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _attempt(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _agrees(row: Any) -> bool:
    return isinstance(row, dict) and max(row.values()) <= BOUND


def rows(program: str) -> dict[str, Any]:
    """Every case of one program, its errors or what went wrong."""
    if program == POSITIONS:
        return {name: _attempt(programs_resize.errors, case) for name, case in programs_resize.POSITIONS.items()}
    if program == PATCHES:
        return {name: _attempt(programs_resize.patch_errors, name) for name in programs_resize.PATCHES}
    return {case: _attempt(errors, program, case) for case in PROGRAMS[program][1]}


def kept(versions: dict[str, str], commits: dict[str, str]) -> dict[str, Any]:
    """The rows of an earlier run with the same programs."""
    if not RESULTS.is_file():
        return {}
    before = json.loads(RESULTS.read_text())
    return before["errors"] if (before["versions"], before["commits"]) == (versions, commits) else {}


def main(asked: list[str]) -> int:
    versions = {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}
    commits = {program: commit(program) for program in CHECKOUTS}
    old = kept(versions, commits) if asked else {}
    names = [*PROGRAMS, POSITIONS, PATCHES]
    found = {name: rows(name) if name in asked or name not in old else old[name] for name in names}
    agreed = {program: sum(map(_agrees, cases.values())) for program, cases in found.items()}
    for program, cases in found.items():
        print(f"{program}: {agreed[program]}/{len(cases)}")
        for case, row in cases.items():
            if not _agrees(row):
                print(f"  {case}: {row}")
    report = {
        "what": "largest relative error over outputs, input gradient, every parameter's gradient and intermediates, "
                "float64; of positions, of the resized ones and of the adjoint",
        "bound": BOUND, "agreed": {program: f"{k}/{len(found[program])}" for program, k in agreed.items()},
        "versions": versions, "commits": commits, "errors": found,
    }  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, RESULTS)
    return 0 if all(k == len(found[program]) for program, k in agreed.items()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
