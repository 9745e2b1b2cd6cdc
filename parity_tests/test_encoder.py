"""Encoder: parity, and depth zero."""

import numpy as np

from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import normal
from vit_common import ViTConfig

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("encoder")


def test_no_blocks_is_the_identity():
    config = ViTConfig(image_size=4, patch_size=2, embed_dim=6, num_heads=2, depth=0)
    x, dy = normal(0, (2, 5, 6)), normal(1, (2, 5, 6))
    y, cache = harness.stage_function(harness.ENGINE, "encoder_forward")({}, x, config)
    dx, grads = harness.stage_function(harness.ENGINE, "encoder_backward")(dy, cache)
    assert np.array_equal(y, x)
    assert np.array_equal(dx, dy)
    assert grads == {}
