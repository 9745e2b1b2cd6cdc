"""Patch embedding: parity, and cutting into patches against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given

import torch_vit
from parity_tests import harness
from parity_tests.generic import stage_tests
from parity_tests.naive import patchify_loops, unpatchify_loops
from parity_tests.strategies import normal, patch_embed_cases
from vit_common import ShapeError

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("patch_embed")


@given(case=patch_embed_cases())
def test_patchify_and_its_inverse(case):
    images, patch = case.arrays["x"], case.arrays["weight"].shape[2:]
    patchify, unpatchify = (harness.stage_function(harness.ENGINE, name) for name in ("patchify", "unpatchify"))
    patches = patchify(images, patch)
    assert np.array_equal(patches, patchify_loops(images, patch))
    assert np.array_equal(unpatchify(patches, images.shape[1:], patch), images)
    assert np.array_equal(unpatchify_loops(patches, images.shape[1:], patch), images)
    tensor = torch.from_numpy(images)
    assert np.array_equal(torch_vit.patchify(tensor, patch).numpy(), patches)
    assert np.array_equal(torch_vit.unpatchify(torch.from_numpy(patches), images.shape[1:], patch).numpy(), images)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize(("size", "patch"), [((8, 9), (4, 4)), ((9, 8), (4, 4)), ((8, 8), (3, 4)), ((2, 8), (4, 4))])
def test_a_patch_that_does_not_divide(engine, size, patch):
    images, weight = normal(0, (1, 1, *size)), normal(1, (5, 1, *patch))
    module, wrap = (harness.ENGINE, np.asarray) if engine == "numpy" else (torch_vit, torch.from_numpy)
    with pytest.raises(ShapeError, match=rf"{size[0]}x{size[1]} pixels .* {patch[0]}x{patch[1]}"):
        harness.stage_function(module, "patch_embed_forward")(wrap(images), wrap(weight))


def test_channels_that_differ():
    with pytest.raises(ShapeError, match="patch_embed weight"):
        harness.stage_function(harness.ENGINE, "patch_embed_forward")(normal(0, (1, 3, 4, 4)), normal(1, (5, 1, 2, 2)))
