"""Traces of other programs: `--traces DIR` compares them; these tests see that it notices what is wrong, and where."""

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from parity_tests.traces import check_trace, report, trace_files
from parity_tests.trajectories import CONFIG, RECIPE, batches, initial
from torch_vit.engine import TorchEngine
from vit_common.files import read_arrays, write_arrays
from vit_common.trace import write_trace


@pytest.fixture
def trace_file():
    """A file of `--traces`; without that option there is none."""
    pytest.skip("no --traces DIR was given")


def test_trace(trace_file, record_property):
    findings = check_trace(trace_file)
    text = report(trace_file, findings)
    record_property("trace", text)
    assert not any(f.state == "wrong" for f in findings), text
    if not any(f.state == "right" for f in findings):
        pytest.skip(text)


def written(path, engine, dtype="float64"):
    recipe = RECIPE.replace(dtype=dtype)
    engine.start(CONFIG, initial(CONFIG, recipe), recipe)
    write_trace(path, engine, CONFIG, recipe, next(batches(CONFIG, recipe, 1)))
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("engine", [NumpyEngine, TorchEngine])
def test_the_traces_of_both_engines_are_right(engine, dtype, tmp_path):
    findings = check_trace(written(tmp_path / "t.safetensors", engine(), dtype))
    assert {f.state for f in findings} == {"right"}
    names = [f.name for f in findings]
    order = ["values/images", "values/blocks.0.norm1", "values/blocks.1.mlp.act", "values/logits", "loss",
             "grads/logits", "grads/blocks.1.mlp.act", "grads/blocks.0.norm1", "grads/images"]  # fmt: skip
    assert [n for n in names if n in order] == order
    assert f"{len(names)} tensors right" in report("t.safetensors", findings)


def tampered(path, change):
    arrays, header = read_arrays(path)
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(arrays)
    write_arrays(path, arrays, header)
    return check_trace(path)


def spread(arrays, first, factor):
    """A mistake and everything computed from it."""
    names = [n for n in arrays if n.split("/")[0] in ("values", "grads", "param_grads")]
    arrays["loss"] = arrays["loss"] * factor
    for name in names[names.index(first) :]:
        arrays[name] = arrays[name] * factor


@pytest.mark.parametrize(
    ("name", "said"),
    [("values/blocks.0.attn.scores", "values/blocks.0.attn.v, before it, is right"),
     ("values/blocks.1.norm2", "is -1 times|wrong sign"), ("loss", "values/logits, before it, is right"),
     ("grads/blocks.1.mlp.fc1", "grads/blocks.1.mlp.act, before it, is right"),
     ("param_grads/cls_token", "wrong sign")],
)  # fmt: skip
def test_the_first_wrong_tensor_is_named(name, said, tmp_path):
    path = written(tmp_path / "t.safetensors", TorchEngine(), "float32")

    def negate(arrays):
        arrays[name] = -arrays[name]

    findings = tampered(path, negate)
    text = report(path, findings)
    assert text.startswith(f"t.safetensors: the first wrong tensor is {name}"), text
    assert [f.name for f in findings if f.state == "wrong"] == [name]
    assert any(part in text for part in said.split("|")), text


def test_a_few_units_in_the_last_place_are_enough(tmp_path):
    """One number of one early tensor, a hundred thousand eps off."""
    path = written(tmp_path / "t.safetensors", NumpyEngine())

    def nudge(arrays):
        arrays["values/patch_embed"][0, 1, 2] *= 1 + 1e-11

    findings = tampered(path, nudge)
    assert [f.name for f in findings if f.state == "wrong"] == ["values/patch_embed"]


def test_missing_and_misshapen_tensors(tmp_path):
    path = written(tmp_path / "t.safetensors", NumpyEngine())

    def drop(arrays):
        del arrays["values/blocks.0.attn.q"], arrays["grads/pooled"]
        arrays["param_grads/head.weight"] = np.ascontiguousarray(arrays["param_grads/head.weight"].T)

    findings = tampered(path, drop)
    assert [f.name for f in findings if f.state == "missing"] == ["values/blocks.0.attn.q", "grads/pooled"]
    text = report(path, findings)
    assert "first wrong tensor is param_grads/head.weight" in text
    assert "it is transposed" in text
    assert "not tested, not in the file: values/blocks.0.attn.q, grads/pooled" in text
    findings = tampered(path, lambda arrays: arrays.pop("labels"))
    assert [(f.name, f.state) for f in findings] == [("labels", "missing")]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(pytest.UsageError, match="no \\*.safetensors file"):
        trace_files(str(tmp_path))
