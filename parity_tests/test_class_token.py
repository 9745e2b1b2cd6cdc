"""Class token: parity, and that it stands in every image."""

import numpy as np
import pytest
from hypothesis import given

from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import class_token_cases, normal
from vit_common import ShapeError

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("class_token")


@given(case=class_token_cases())
def test_first_in_every_image(case):
    y, _ = harness.STAGES["class_token"].forward(harness.ENGINE, case.arrays, {})
    for image, patches in zip(y, case.arrays["x"], strict=True):
        assert np.array_equal(image[0], case.arrays["cls_token"][0, 0])
        assert np.array_equal(image[1:], patches)


@pytest.mark.parametrize("token", [(1, 3), (1, 1, 2), (2, 1, 3), (1, 2, 3)])
def test_tokens_that_would_broadcast(token):
    with pytest.raises(ShapeError, match="cls_token has shape"):
        harness.stage_function(harness.ENGINE, "class_token_forward")(normal(0, (2, 4, 3)), normal(1, token))
