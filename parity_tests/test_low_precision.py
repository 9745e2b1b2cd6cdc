"""The torch engine in bfloat16 and with TF32 products: within LAMBDA deviations of the float64 truth.

Every operation is taken to round to the low precision. (torch's kernels keep more inside: a product of bfloat16
matrices is summed in float32, a norm is computed in float32. So the bound is the coarsest of what it may do.)
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves, tree_map_only

from parity_tests import harness
from parity_tests.planting import under_test
from parity_tests.stage import as_tensors
from parity_tests.strategies import seeds
from parity_tests.tolerances import LAMBDA, Probable, unit_roundoff

every_stage = pytest.mark.parametrize("name", harness.STAGES)


def rounded(a, dtype=torch.bfloat16):
    """The nearest numbers of the format, as float64: the truth starts from what the engine is given."""
    return torch.from_numpy(np.array(a)).to(dtype).double().numpy()


def run(stage, case, dy, dtype, device="cpu"):
    """y and gradients of the torch engine, brought back as float64."""
    tensors = {n: torch.from_numpy(a).to(device, dtype).requires_grad_() for n, a in case.arrays.items()}
    y = stage.torch(tensors, options_on(device, case.options, dtype))
    given_dy = torch.from_numpy(np.array(dy)).to(device, dtype)
    grads = torch.autograd.grad(y, list(tensors.values()), given_dy, allow_unused=True)
    found = {n: np.zeros(t.shape) if g is None else g.double().cpu().numpy()
             for (n, t), g in zip(tensors.items(), grads, strict=True)}  # fmt: skip
    assert y.dtype == dtype
    return {"y": y.detach().double().cpu().numpy(), **found}


def options_on(device, options, dtype):
    """The options with their arrays (masks, tables) as tensors beside the others."""
    return tree_map_only(torch.Tensor, lambda t: t.to(device), as_tensors(options, dtype))


def compare(stage, case, seed, precision, dtype, device="cpu"):
    case = case._replace(arrays={n: rounded(a) for n, a in case.arrays.items()})
    shape = np.shape(harness.run_torch(stage, case, np.float64, None, seed)[0])
    dy = rounded(harness.upstream(np.zeros(shape), seed))
    y, grads, _ = harness.run_torch(stage, case, np.float64, dy, seed)
    bound = harness.derive_bounds(stage, case, precision, dy, Probable)
    for name, value in run(stage, case, dy, dtype, device).items():
        truth = y if name == "y" else grads[name]
        harness.assert_within(f"{stage.name} (torch)", name, precision, value, truth, LAMBDA * bound[name])


@every_stage
@given(data=st.data(), seed=seeds)
def test_bfloat16(name, data, seed):
    compare(harness.STAGES[name], data.draw(harness.STAGES[name].cases), seed, "bfloat16", torch.bfloat16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="TF32 is a mode of NVIDIA GPUs, and torch finds none here")
@pytest.mark.parametrize("name", ["linear", "patch_embed", "attention", "multi_head", "mlp", "encoder_block", "vit"])
@given(data=st.data(), seed=seeds)
def test_tf32(name, data, seed):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        case = data.draw(harness.STAGES[name].cases)
        compare(harness.STAGES[name], case, seed, "tf32", torch.float32, "cuda")
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@every_stage
@given(data=st.data())
def test_all_of_a_case_goes_to_the_device(name, data):
    given_options = data.draw(harness.STAGES[name].cases).options
    there = [t for t in tree_leaves(options_on("meta", given_options, torch.float32)) if isinstance(t, torch.Tensor)]
    assert len(there) == sum(isinstance(a, np.ndarray) for a in tree_leaves(given_options))
    assert all(t.is_meta for t in there)


def test_the_unit_roundoffs_are_those_of_the_formats():
    """Half of what torch calls eps; and for TF32, whose numbers are float32's with 13 bits less."""
    assert unit_roundoff("bfloat16") == torch.finfo(torch.bfloat16).eps / 2
    assert unit_roundoff("tf32") == unit_roundoff(np.float32) * 2**13
    for value in (1.0, 1.2345, 3.999):
        assert abs(float(rounded(value)) - value) <= unit_roundoff("bfloat16") * value


@pytest.mark.parametrize("wrong", [1.25, -1.0, 0.0])
def test_a_wrong_gradient_is_seen_even_in_bfloat16(wrong, monkeypatch):
    stage = harness.STAGES["linear"]
    case = harness.Case({"x": rounded(np.linspace(1, 2, 6).reshape(2, 3)), "weight": rounded(np.ones((2, 3)) / 3)}, {})
    right = stage.torch

    def scaled(tensors, options):
        y = right(tensors, options)
        return y if y.dtype != torch.bfloat16 else y.detach() + wrong * (y - y.detach())

    monkeypatch.setattr(type(stage), "torch", lambda self, tensors, options: scaled(tensors, options))
    kept_out = under_test(harness.ENGINE)  # of the report
    with kept_out, pytest.raises(AssertionError, match=r"linear \(torch\): x in bfloat16 differs"):
        compare(stage, case, 0, "bfloat16", torch.bfloat16)
