"""A wrong gradient is told, kindly, what it looks like: every mistake that the harness knows, made once."""

from types import SimpleNamespace

import numpy as np
import pytest

import numpy_vit
from parity_tests import harness
from parity_tests.diagnosis import explain
from parity_tests.planting import under_test


def spoilt(function, spoil):
    """The NumPy engine, one backward's gradients changed."""
    right = getattr(numpy_vit, function)
    return SimpleNamespace(**vars(numpy_vit) | {function: lambda dy, cache: spoil(right(dy, cache), dy, cache)})


def one(tensor, change):
    """Change one gradient of (dx, grads)."""
    return lambda result, dy, cache: (result[0], {**result[1], tensor: change(result[1][tensor], dy)})


MISTAKES = [
    ("linear", lambda g, dy, c: (-g[0], g[1]), "gradient of x has the wrong sign"),
    ("linear", one("weight", lambda g, dy: g.T.copy()), "gradient of weight is transposed"),
    ("linear", one("weight", lambda g, dy: np.zeros_like(g)), "gradient of weight is zero everywhere"),
    ("linear", one("weight", lambda g, dy: 2 * g), "weight is too large by a factor of 2: divide by 2"),
    ("linear", one("weight", lambda g, dy: g / 3), "weight is too small by the batch size: multiply by 3"),
    ("linear", one("bias", lambda g, dy: g / 15), "bias is too small by the batch times the tokens: multiply by 15"),
    ("linear", one("bias", lambda g, dy: dy.sum(0)), "it still has axis 0, over which it must be summed"),
    ("linear", one("bias", lambda g, dy: dy[:, 0].sum(0)), "bias counts the first token only"),
    ("linear", one("bias", lambda g, dy: dy.reshape(-1, dy.shape[-1]).sum(1)), "bias is summed along the wrong axis"),
    ("pos_embed", one("pos_embed", lambda g, dy: dy[:1].copy()), "pos_embed counts the first image of the batch only"),
    ("pos_embed", one("pos_embed", lambda g, dy: dy[-1:].copy()), "pos_embed counts the last image of the batch only"),
    ("class_token", one("cls_token", lambda g, dy: g / 3), "cls_token is too small by the batch size"),
    ("layer_norm", lambda g, dy, c: (dy * c.weight * c.rstd, g[1]), "forgets that the mean and the deviation depend"),
    ("layer_norm", lambda g, dy, c: (g[0] / c.rstd, g[1]), "is not divided by the deviation"),
    ("gelu", lambda g, dy, c: g[..., ::-1].copy(), "has the right numbers in the wrong places"),
    ("dropout", lambda g, dy, c: dy * c.mask if c.mask is not None else g, "masked but not divided by the keep rate"),
    ("softmax", lambda g, dy, c: c.probs * dy, "is p * g alone: subtract the row's sum"),
    ("softmax", lambda g, dy, c: c.probs * (1 - c.probs) * dy, "the diagonal of the Jacobian alone"),
    ("attention", lambda g, dy, c: (g[0] * 3**0.5, *g[1:]), "gradient of q is too large by the root of the head width"),
    ("attention", lambda g, dy, c: (g[1].copy(), g[0].copy(), g[2]), "gradient of q is that of k: two gradients are"),
    ("pool", lambda g, dy, c: g * 4, "is too large by the number of patches: divide by 4"),
    ("encoder_block", lambda g, dy, c: (g[0] - dy, g[1]), "lacks what flows past the branch: add the residual"),
    ("encoder_block", lambda g, dy, c: (g[0] * 1.234, g[1]), "is 1.234 times the right one"),
    ("multi_head", lambda g, dy, c: (np.abs(g[0]), g[1]), "like no usual mistake: the gradient of x"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "spoil", "said"), MISTAKES, ids=[f"{m[0]}-{i}" for i, m in enumerate(MISTAKES)])
def test_each_mistake_is_recognised(stage, spoil, said):
    message = explain(spoilt(f"{stage}_backward", spoil), stage)
    assert said in message, message


def test_of_the_loss():
    right = numpy_vit.cross_entropy_backward
    known = {
        "without the label smoothing": lambda c, d=1.0: right(c._replace(label_smoothing=0.0), d),
        "the target is not subtracted": lambda c, d=1.0: d * np.exp(c.log_probs) / len(c.labels),
        "ignores the upstream gradient": lambda c, d=1.0: right(c),
    }
    for said, wrong in known.items():
        engine = SimpleNamespace(**vars(numpy_vit) | {"cross_entropy_backward": wrong})
        assert said in explain(engine, "cross_entropy")


def test_a_wrong_output_is_named_before_its_gradients():
    engine = SimpleNamespace(**vars(numpy_vit) | {"gelu_forward": lambda x: (2 * x, numpy_vit.gelu_forward(x)[1])})
    assert explain(engine, "gelu") == "\n  The output of gelu is wrong."


def test_right_on_ordinary_numbers_and_a_crash():
    assert "On ordinary numbers all values are right" in explain(numpy_vit, "gelu")
    engine = SimpleNamespace(**vars(numpy_vit) | {"gelu_forward": lambda x: 1 / 0})
    assert "ZeroDivisionError" in explain(engine, "gelu")


def test_shrunk_failures_carry_the_explanation():
    engine = spoilt("linear_backward", one("weight", lambda g, dy: -g))
    case = harness.Case({"x": np.ones((1, 1)), "weight": np.ones((1, 1))}, {})
    with (
        under_test(engine),
        pytest.raises(AssertionError, match="bound .*\n  The gradient of weight has the wrong sign"),
    ):
        harness.check_parity(harness.STAGES["linear"], case, np.float64, "C", 0)
