r"""The trace: every intermediate and every gradient of one batch in one file, for checking a port against.

A safetensors file (readable from C, C++, Rust, Swift, JavaScript: an 8-byte length, a JSON header, then raw
little-endian arrays in C order) with these entries:

    images              (B, C, H, W)   the normalised batch
    labels              (B,)           int64
    loss                ()             mean cross-entropy in nats
    params/NAME                        the parameters, weights (out, in)
    masks/SITE                         what was dropped, bool, True = kept; only for rates above 0
    values/STAGE                       every intermediate of the forward pass
    grads/STAGE                        d loss / d that intermediate, the same shape
    param_grads/NAME                   d loss / d that parameter

`__metadata__["manifest"]` of the header, and a copy of it in FILE.json, is the manifest, JSON:

    format      "vit-trace"            version     1
    engine      "numpy" or "torch"     dtype       of parameters and arithmetic
    config      the model's fields     seed        key of weights, batch and masks
    step        of the training run    label_smoothing
    order       the stages in the order of the forward pass: compare `values` in this order, `grads` in reverse; the
                first that is wrong is the one to mend
    arrays      name -> {"shape", "dtype"} of every entry

Both engines write the same names. `compare_traces` does the comparison.
"""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_common.config import ViTConfig
from vit_common.engine import Engine
from vit_common.errors import CheckpointError
from vit_common.files import read_arrays, write_arrays, write_json
from vit_common.loop import Batch
from vit_common.recipe import Recipe

FORMAT, VERSION = "vit-trace", 1
# The order of the forward pass. A block's own name is its output, so it comes after its parts; likewise attn and mlp.
MODEL_ORDER = ("images", "patch_embed", "class_token", "tokens", "blocks", "norm", "pooled", "logits")
BLOCK_ORDER = (
    "norm1", "attn.qkv", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.probs", "attn.context", "attn.proj", "attn",
    "residual", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2", "mlp", "",
)  # fmt: skip


def stage_order(names: list[str]) -> list[str]:
    """The names in the order of the forward pass; those of a variant follow their neighbours."""
    keys: dict[str, tuple[int, int, int]] = {}
    last = (0, 0, 0)
    for name in names:
        match = re.fullmatch(r"blocks\.(\d+)(?:\.(.+))?", name)
        part = (match[2] or "") if match else name
        known = BLOCK_ORDER if match else MODEL_ORDER
        if part in known:
            block = int(match[1]) if match else 0
            last = (MODEL_ORDER.index("blocks" if match else name), block, known.index(part))
        keys[name] = last
    return sorted(names, key=keys.__getitem__)


def write_trace(
    path: str | os.PathLike, engine: Engine, config: ViTConfig, recipe: Recipe, batch: Batch, step: int = 0
) -> dict[str, Any]:
    """Run one batch through the engine, write the file and its manifest, and return the manifest."""
    trace = engine.trace(batch.images, batch.labels, batch.masks, recipe.label_smoothing)
    arrays = {"images": batch.images, "labels": batch.labels, "loss": np.array(trace.loss, batch.images.dtype)}
    groups = {
        "params": engine.params(), "masks": batch.masks, "values": trace.values, "grads": trace.grads,
        "param_grads": trace.param_grads,
    }  # fmt: skip
    for group, members in groups.items():
        arrays |= {f"{group}/{name}": array for name, array in members.items()}
    manifest = {
        "format": FORMAT, "version": VERSION, "engine": engine.name, "dtype": recipe.dtype, "config": config.to_dict(),
        "seed": recipe.seed, "step": step, "label_smoothing": recipe.label_smoothing,
        "order": stage_order(list(trace.values)),
        "arrays": {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()},
    }  # fmt: skip
    write_arrays(path, arrays, {"manifest": json.dumps(manifest)})
    write_json(f"{path}.json", manifest)
    return manifest


def read_trace(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, manifest). Raises CheckpointError if the file is not a trace of a version known here."""
    arrays, header = read_arrays(path)
    try:
        manifest = json.loads(header.get("manifest", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path}: its manifest is not JSON ({error})") from error
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise CheckpointError(f"{path} is not a trace of version {VERSION}; write one with the verb `trace`")
    return arrays, manifest


@dataclass(frozen=True)
class Difference:
    """One entry of two traces: the largest difference, relative to the largest magnitude of the reference."""

    name: str
    relative: float
    note: str = ""


def compare_traces(mine: dict[str, np.ndarray], reference: dict[str, np.ndarray], order: list[str]) -> list[Difference]:
    """Entry by entry: inputs, then `values` in order, the loss, `grads` from the last stage back, `param_grads`.

    A difference is $\\max|a - b| / \\max|b|$; infinite where an entry is missing, misshapen or not finite.
    """
    values = [f"values/{name}" for name in order]
    grads = [f"grads/{name}" for name in reversed(order)]
    inputs = [name for name in reference if name.startswith(("images", "labels", "params/", "masks/"))]
    rest = [name for name in reference if name.startswith("param_grads/")]
    names = [name for name in (*inputs, *values, "loss", *grads, *rest) if name in reference]
    return [_difference(name, mine.get(name), reference[name]) for name in names]


def _difference(name: str, mine: np.ndarray | None, reference: np.ndarray) -> Difference:
    if mine is None:
        return Difference(name, float("inf"), "missing")
    if mine.shape != reference.shape:
        return Difference(name, float("inf"), f"shape {mine.shape}, expected {reference.shape}")
    if not (np.isfinite(mine).all() and np.isfinite(reference).all()):
        return Difference(name, float("inf"), "not finite")
    mine, reference = mine.astype(np.float64), reference.astype(np.float64)
    if not reference.size:
        return Difference(name, 0.0)
    scale = float(np.abs(reference).max())
    gap = float(np.abs(mine - reference).max())
    return Difference(name, gap / scale if scale else (float("inf") if gap else 0.0))
