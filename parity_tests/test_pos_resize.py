"""Pos resize: parity with torch, error ratio, complex step, linearity, and each library's own results."""

import itertools
import os
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import numpy_vit
import torch_vit
from numpy_vit.resize_matrix import RULES, resize_matrix
from parity_tests.tolerances import unit_roundoff
from parity_tests.variants import variant_tests
from torch_vit.resize_matrix import RULES as TORCH_RULES
from torch_vit.resize_matrix import resize_matrix as by_torch
from vit_common.variant import ResizeRule

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = variant_tests("pos_resize")

SHARED = Path(os.environ.get("VIT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ORACLE = SHARED / "oracles" / "posresize.npz"
POSITIONS = {
    "timm/bicubic_aa": "timm_bicubic", "timm/bicubic_noaa": "timm_bicubic_no_antialias",
    "timm/bilinear_aa": "timm_bilinear", "timm/bilinear_noaa": "timm_bilinear_no_antialias",
    "hf/bicubic_noaa_alignfalse": "huggingface_bicubic", "google/zoom_order1": "google_zoom",
    "torchvision/bicubic_aligncorners": "torchvision_bicubic",
}  # fmt: skip
PATCHES = {"timm_patch_pinv/bicubic_aa": "timm_bicubic", "timm_patch_pinv/bilinear_noaa": "timm_bilinear_no_antialias"}


def weight_error(new, old):
    r"""What a weight of a resize matrix may be off by, in each of two programs.

    A place is at most max(new, old) and takes four roundings; a kernel's slope is at most 1.5 and its value six
    roundings of terms below 8; dividing by the sum of a row's weights, which is 1, at most triples that.
    """
    return 2 * 3 * (1.5 * 4 * max(new, old) + 6 * 8) * unit_roundoff(np.float64)


def test_the_engines_have_one_table_of_rules():
    assert list(RULES) == list(TORCH_RULES) == list(get_args(ResizeRule))
    for rule in RULES:
        for new, old in itertools.product((1, 2, 3, 4, 7, 8, 14, 26, 30), repeat=2):
            ours, theirs = resize_matrix(new, old, rule), by_torch(new, old, rule).numpy()
            assert np.abs(ours - theirs).max() <= weight_error(new, old), (rule, new, old)


@pytest.mark.parametrize(("new", "old"), [(14, 28), (30, 16), (26, 8)])
def test_the_row_that_scipy_drops(new, old):
    """scipy.ndimage.zoom leaves points past the border at zero; rounding puts the last one there for these sizes."""
    scipy = pytest.importorskip("scipy.ndimage", reason="the zoom is scipy's")
    ours = resize_matrix(new, old, "google_zoom")
    assert not ours[-1].any()
    np.testing.assert_allclose(ours, scipy.zoom(np.eye(old), (new / old, 1), order=1), rtol=0,
                               atol=weight_error(new, old))  # fmt: skip


@pytest.mark.parametrize("rule", get_args(ResizeRule))
def test_positions_of_the_same_grid_stay_as_they_are(rule):
    """Under dino's rule too, which would resize 4 points to 4.1."""
    positions, upstream = np.random.default_rng(0).normal(size=(2, 1, 13, 5))
    y, cache = numpy_vit.pos_resize_forward(positions, (4, 3), (4, 3), rule, 1)
    np.testing.assert_array_equal(y, positions)
    np.testing.assert_array_equal(numpy_vit.pos_resize_backward(upstream, cache), upstream)
    tensor = torch_vit.to_torch({"p": positions})["p"]
    assert torch_vit.pos_resize_forward(tensor, (4, 3), (4, 3), rule, 1).equal(tensor)


@pytest.mark.skipif(not ORACLE.exists(), reason=f"{ORACLE} is not there; set VIT_SHARED")
def test_what_each_library_makes_of_positions_and_patches():
    seen = 0
    with np.load(ORACLE, allow_pickle=False) as oracle:
        positions, weight = (oracle[f"in/{n}"].astype(np.float64) for n in ("pos_4x4_prefix1", "patch_8x8"))
        for name in oracle.files:
            rule, _, size = name.rpartition("/")
            if rule in POSITIONS:
                new = tuple(map(int, size.split("x")))
                ours = numpy_vit.pos_resize_forward(positions, (4, 4), new, POSITIONS[rule], 1)[0]
                theirs = torch_vit.pos_resize_forward(
                    torch_vit.to_torch({"p": positions})["p"], (4, 4), new, POSITIONS[rule], 1
                )
            elif rule in PATCHES:
                ours = numpy_vit.patch_resize_forward(weight, (int(size),) * 2, PATCHES[rule])[0]
                tensor = torch_vit.to_torch({"w": weight})["w"]
                theirs = torch_vit.patch_resize_forward(tensor, (int(size),) * 2, PATCHES[rule])
            else:
                continue
            truth, seen = oracle[name], seen + 1
            for got in (ours, theirs.numpy()):
                assert np.abs(got - truth).max() <= 1e-11 * np.abs(truth).max(), name
    assert seen == 32
