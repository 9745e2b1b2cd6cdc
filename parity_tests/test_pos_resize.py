"""Pos resize: parity with torch, adjoint of the complex step, linearity, and each library's own results."""

import os
from pathlib import Path

import numpy as np
import pytest

import numpy_vit
import torch_vit
from parity_tests.variants import variant_tests

test_parity, test_adjoint, test_linear_in_upstream = variant_tests("pos_resize")

SHARED = Path(os.environ.get("VIT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ORACLE = SHARED / "oracles" / "posresize.npz"
POSITIONS = {
    "timm/bicubic_aa": "timm_bicubic", "timm/bicubic_noaa": "timm_bicubic_no_antialias",
    "timm/bilinear_aa": "timm_bilinear", "timm/bilinear_noaa": "timm_bilinear_no_antialias",
    "hf/bicubic_noaa_alignfalse": "huggingface_bicubic", "google/zoom_order1": "google_zoom",
    "torchvision/bicubic_aligncorners": "torchvision_bicubic",
}  # fmt: skip
PATCHES = {"timm_patch_pinv/bicubic_aa": "timm_bicubic", "timm_patch_pinv/bilinear_noaa": "timm_bilinear_no_antialias"}


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
