"""`cold`: a fresh process from start to first prediction, imports included, NumPy against torch.

The command-line programs themselves (`classify`), one photo-sized image, ViT-Tiny. Without `--checkpoint`,
random weights are written to a temporary folder first, and without `--image`, random pixels; it takes as long
with real ones.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import common, results
from benchmarks.contestants import make_case
from benchmarks.measure import ROOT, interleave, paired_ratio
from benchmarks.parity import ParityError
from vit_common.checkpoint import save_checkpoint
from vit_common.errors import require

HELP = "a fresh process from start to first prediction, imports included, NumPy against torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser)
    parser.add_argument("--preset", default="vit_tiny_patch16_224")
    parser.add_argument("--checkpoint", type=Path, default=None, help="weights (default: random ones)")
    parser.add_argument("--image", type=Path, default=None, help="a picture (default: random pixels)")


def run(args: argparse.Namespace) -> int:
    result = common.start("cold", args)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or write_checkpoint(args.preset, Path(folder))
        image = args.image or write_image(Path(folder))
        command = ["classify", str(image), "--checkpoint", str(checkpoint)]
        programs = {name: [sys.executable, "-m", f"{name}_vit", *command] for name in ("numpy", "torch")}
        imports = {
            f"import {name}_vit": [sys.executable, "-c", f"import {name}_vit"] for name in ("numpy", "torch")
        }
        answers = {name: probabilities(_run(words)) for name, words in programs.items()}
        check_answers(answers)
        everything = programs | imports | {"python alone": [sys.executable, "-c", ""]}
        calls = {name: partial(_run, words) for name, words in everything.items()}
        times = interleave(calls, args.repeats, warmup=1, budget=args.budget, pause=0.0)
    ratio = {"numpy / torch": paired_ratio(times, "numpy", "torch")}
    row = results.row(f"{args.preset}, one image, cold", times, ratios=ratio)
    result["rows"].append(row)
    common.show(row)
    print(f"written to {results.save(result)}")
    return 0


def write_checkpoint(preset: str, folder: Path) -> Path:
    """Random weights, in the format that training writes."""
    case = make_case(preset, 1)
    save_checkpoint(folder / "weights.safetensors", case.config, case.params)
    return folder / "weights.safetensors"


def write_image(folder: Path) -> Path:
    image = require("PIL.Image", extra="cli")
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    image.fromarray(pixels).save(folder / "noise.png")
    return folder / "noise.png"


def probabilities(output: str) -> dict[int, float]:
    """{class: probability} of what `classify` prints."""
    lines = re.findall(r"^\s+(\d\.\d+)\s+(\d+)\s", output, re.MULTILINE)
    return {int(index): float(p) for p, index in lines}


def check_answers(answers: dict[str, dict[int, float]]) -> None:
    """Both name the same classes, with probabilities equal to the last printed digit, or ParityError."""
    ours, theirs = answers["numpy"], answers["torch"]
    printed = 1e-4  # four decimals
    if (
        not ours
        or ours.keys() != theirs.keys()
        or any(abs(ours[c] - theirs[c]) > 1.5 * printed for c in ours)
    ):
        raise ParityError(f"the programs answer differently, {ours} and {theirs}; nothing was timed")


def _run(words: list[str]) -> str:
    # Compiled modules may be kept, as on a user's machine: else only the engine's own files are compiled at each start.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(words, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout
