"""Table resize: parity with torch, adjoint of the complex step, linearity, and what Hugging Face makes of a table."""

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from parity_tests.variants import variant_tests

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = variant_tests("table_resize")


@pytest.mark.parametrize(("old", "new"), [((4, 4), (4, 4)), ((3, 3), (5, 2)), ((4, 3), (4, 3)), ((2, 4), (3, 3))])
def test_hugging_face_reads_a_table_on_its_side(old, new):
    """Its own formula: the flat table seen as (2w - 1, 2h - 1), and interpolated to (2h' - 1, 2w' - 1)."""
    (old_h, old_w), (new_h, new_w) = ((2 * h - 1, 2 * w - 1) for h, w in (old, new))
    table = np.random.default_rng(0).normal(size=(old_h * old_w + 3, 2))
    picture = torch.from_numpy(table[:-3]).reshape(1, old_w, old_h, 2).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(picture, (new_h, new_w), mode="bilinear").permute(0, 2, 3, 1)
    theirs = np.concatenate((resized.reshape(-1, 2).numpy(), table[-3:]))
    ours, _ = numpy_vit.table_resize_forward(table, old, new, "huggingface_bilinear")
    also = torch_vit.table_resize_forward(torch.from_numpy(table), old, new, "huggingface_bilinear")
    for got in (ours, also.numpy()):
        np.testing.assert_allclose(got, theirs, rtol=0, atol=4 * np.finfo(float).eps * np.abs(table).max())
