"""Files written by a program in another language, held against the NumPy engine: `pytest parity_tests --traces DIR`.

The files have the format of `python -m numpy_vit trace` (see `vit_common/trace.py`): a safetensors file with the
parameters, one batch, and as many of the intermediates and gradients as the program can write. The NumPy engine
computes the same batch again in float64, and each tensor must lie within the rounding error that its place in the
model allows for the file's dtype. They are compared in the order of computation: the first wrong one is where to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from parity_tests import bounds
from parity_tests.tolerances import LAMBDA, Probable
from parity_tests.trajectories import apart
from vit_common import ViTConfig
from vit_common.trace import read_trace

Array = np.ndarray


class Finding(NamedTuple):
    """One tensor of a trace."""

    name: str
    state: str  # "right", "wrong", "missing"
    detail: str = ""


def trace_files(folder: str) -> list[Path]:
    """The traces of a folder, or a usage error: nothing to compare is no success."""
    found = sorted(Path(folder).glob("*.safetensors"))
    if not found:
        raise pytest.UsageError(f"--traces {folder}: no *.safetensors file there; write one with the verb `trace`")
    return found


def check_trace(path: str | Path) -> list[Finding]:
    """Every tensor that the engine computes, in the order of computation: values, loss, gradients back, parameters'."""
    arrays, manifest = read_trace(path)
    config = ViTConfig.from_dict(manifest["config"])
    wide = {name: a.astype(np.float64) if np.issubdtype(a.dtype, np.floating) else a for name, a in arrays.items()}
    for name in ("images", "labels"):
        if name not in wide:
            return [Finding(name, "missing", "without it nothing can be computed again")]
    params, masks = ({n[len(p) :]: a for n, a in wide.items() if n.startswith(p)} for p in ("params/", "masks/"))
    smoothing = float(manifest.get("label_smoothing", 0.0))
    engine = NumpyEngine()
    engine.load(config, params, "float64")
    truth = engine.trace(wide["images"], wide["labels"], masks, smoothing)
    dtype, tape = np.dtype(manifest["dtype"]).type, bounds.BoundTape()
    exact = {name: Probable(p, 0.0, dtype) for name, p in params.items()}
    logits, pull = bounds.vit(exact, Probable(wide["images"], 0.0, dtype), config, masks, tape)
    loss, pull_loss = bounds.cross_entropy(logits, wide["labels"], smoothing)
    param_bounds = pull(pull_loss(Probable(1.0, 0.0, dtype))["x"])
    del param_bounds["x"]
    expected = {
        **{f"values/{n}": (truth.values[n], b.e) for n, b in tape.values.items()},
        "loss": (np.asarray(truth.loss), loss.e),
        **{f"grads/{n}": (truth.grads[n], b.e) for n, b in tape.grads.items()},
        **{f"param_grads/{n}": (truth.param_grads[n], b.e) for n, b in param_bounds.items()},
    }
    return list(_compare(wide, expected))


def _compare(arrays: dict[str, Array], expected: dict[str, tuple[Array, Array]]) -> Iterator[Finding]:
    for name, (want, deviation) in expected.items():
        got = arrays.get(name)
        if got is None:
            yield Finding(name, "missing")
        elif got.shape != want.shape:
            yield Finding(name, "wrong", f"its shape is {got.shape}, expected {want.shape}{_transposed(got, want)}")
        elif found := apart(got, want, 2 * LAMBDA * deviation):  # both sides round; float64 files as much as ours
            size = f"off by {found[0]:.3e} where rounding explains {found[1]:.3e}"
            yield Finding(name, "wrong", size + _like(got, want))
        else:
            yield Finding(name, "right")


def _transposed(got: Array, want: Array) -> str:
    return ": it is transposed" if got.shape == want.shape[::-1] else ""


def _like(got: Array, want: Array) -> str:
    from parity_tests.diagnosis import looks_like

    found = looks_like(got, want, {}, {"a factor of 2": 2.0, "the batch size": float(len(want) if want.ndim else 1)})
    return f"; it {found}" if found else ""


def report(path: str | Path, findings: list[Finding]) -> str:
    """What to tell the engineer: the first wrong tensor, what is right before it, what was not there."""
    names = {state: [f.name for f in findings if f.state == state] for state in ("right", "wrong", "missing")}
    lines = [f"{Path(path).name}: {len(names['right'])} tensors right"]
    if names["wrong"]:
        at = next(i for i, f in enumerate(findings) if f.state == "wrong")
        before = [f.name for f in findings[:at] if f.state == "right"]
        after = f" ({before[-1]}, before it, is right)" if before else ""
        lines = [f"{Path(path).name}: the first wrong tensor is {findings[at].name}{after}: {findings[at].detail}",
                 f"  {len(names['wrong'])} wrong in all: {_some(names['wrong'])}"]  # fmt: skip
    if names["missing"]:
        lines.append(f"  not tested, not in the file: {_some(names['missing'])}")
    return "\n".join(lines)


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else "")


class Plugin:
    """With --traces, the files are the tests, and nothing else is."""

    def __init__(self, folder: str):
        self.files = trace_files(folder)
        self.reports: list[str] = []

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "trace_file" in metafunc.fixturenames:
            metafunc.parametrize("trace_file", self.files, ids=[file.name for file in self.files])

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = [item for item in items if "trace_file" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.reports += [text for name, text in report.user_properties if name == "trace" and report.when == "call"]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("traces")
        for text in self.reports:
            terminalreporter.write_line(text)
