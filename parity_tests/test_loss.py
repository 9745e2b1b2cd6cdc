"""Cross-entropy: parity, label smoothing, and the errors for bad labels."""

import numpy as np
import pytest
import torch
from hypothesis import given

import torch_vit
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import loss_cases, normal
from parity_tests.tolerances import gamma, unit_roundoff
from vit_common import DtypeError, RangeError, ShapeError

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("cross_entropy")
STAGE = harness.STAGES["cross_entropy"]
U = unit_roundoff(np.float64)


@given(case=loss_cases())
def test_gradient_rows_sum_to_zero_and_smoothing_zero_is_plain(case):
    """sum(p) = sum(t) = 1; and without smoothing the loss is minus the label's log-probability."""
    logits, labels = case.arrays["x"], case.options["labels"]
    _, cache = STAGE.forward(harness.ENGINE, case.arrays, case.options)
    dlogits = STAGE.backward(harness.ENGINE, 1.0, cache, case.arrays)["x"]
    bound = harness.derive_bounds(STAGE, case, np.float64, np.asarray(1.0))["x"]
    assert np.all(np.abs(dlogits.sum(1)) <= 2 * bound.sum(1) + gamma(logits.shape[1] + 2, U))
    plain = {"labels": labels, "label_smoothing": 0.0}
    loss, _ = STAGE.forward(harness.ENGINE, case.arrays, plain)
    shifted = logits - logits.max(1, keepdims=True)
    want = np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels])
    slack = 2 * harness.derive_bounds(STAGE, case._replace(options=plain), np.float64, np.asarray(1.0))["y"]
    assert abs(loss - want) <= slack


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confident_and_wrong(dtype):
    """Softmax and then a logarithm would give infinity here."""
    loss, cache = harness.stage_function(harness.ENGINE, "cross_entropy_forward")(
        np.array([[0, 1000.0]], dtype), np.array([0])
    )
    assert loss == 1000
    assert loss.dtype == dtype
    assert np.array_equal(harness.stage_function(harness.ENGINE, "cross_entropy_backward")(cache), [[-1, 1]])


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_bad_labels(engine):
    module, wrap = (harness.ENGINE, np.asarray) if engine == "numpy" else (torch_vit, torch.from_numpy)
    forward = harness.stage_function(module, "cross_entropy_forward")
    logits = wrap(normal(0, (3, 4)))
    for bad in (4, -1):
        with pytest.raises(RangeError, match=f"label {bad} is outside 0..3"):
            forward(logits, wrap(np.array([0, bad, 3])))
    for dtype in (np.float64, bool):
        with pytest.raises(DtypeError, match="expected integers"):
            forward(logits, wrap(np.array([0, 1, 1], dtype)))
    for labels in (np.array([0, 1]), np.array([[0], [1], [2]])):
        with pytest.raises(ShapeError, match="labels has shape"):
            forward(logits, wrap(labels))
    with pytest.raises(ShapeError, match="logits has shape"):
        forward(logits[0], wrap(np.array([0, 1, 2])))
    for smoothing in (-0.1, 1.1, float("nan")):
        with pytest.raises(RangeError, match="label_smoothing"):
            forward(logits, wrap(np.array([0, 1, 2])), smoothing)
