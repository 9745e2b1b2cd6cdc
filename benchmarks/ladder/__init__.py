"""How far NumPy goes: each stage written several times, every rung faster or smaller than the one below.

    loops       image by image, head by head, row by row: the tutorial's way
    vectorised  whole arrays, one line of mathematics at a time, a new array for each
    in_place    the same steps in memory that is there already
    blocked     the same steps on pieces that stay in the processor's cache
    tiled       attention alone: online softmax, scores never stored, memory linear in the tokens
    threads     the batch over two threads, matrix products held to one each

A rung is a file with the functions of the stage, `x_forward` and `x_backward`, same arguments and results; only masks
and tape are left out. `parity_tests/test_ladder.py` holds each against the stage; `python -m benchmarks ladder`
measures time and memory and writes them to `benchmarks/results`.
"""

import importlib
from types import ModuleType

LADDER = {
    "attention": ("loops", "vectorised", "in_place", "blocked", "tiled", "threads"),
    "layer_norm": ("loops", "vectorised", "in_place", "blocked", "threads"),
    "gelu": ("loops", "vectorised", "in_place", "blocked", "threads"),
    "encoder_block": ("loops", "vectorised", "in_place", "blocked", "tiled", "threads"),
}


def rung(stage: str, name: str) -> ModuleType:
    """The module of one rung, e.g. rung("attention", "tiled").attention_forward."""
    return importlib.import_module(f"benchmarks.ladder.{stage}.{name}")
