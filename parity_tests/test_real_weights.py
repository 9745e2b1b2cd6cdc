"""Published weights, real photographs: both engines give the logits that torch gave for them.

The data folder is named by the environment variable VIT_SHARED (default: ../shared beside the checkout).
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import numpy_vit
from vit_common import load_checkpoint

SHARED = Path(os.environ.get("VIT_SHARED", Path(__file__).parents[2] / "shared"))
PHOTOS = SHARED / "data" / "photos"
MODELS = {
    "vit_tiny": {
        "file": "vit-tiny-in1k/vit_tiny_patch16_224_augreg_in21k_ft_in1k.fp16.npz", "key": "vit_tiny_in1k_fp16weights",
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "bound": 1e-9,
    },
    # The expected logits of DeiT belong to its float32 weights, the file holds them rounded to float16: 2**-11 relative
    # in every weight. For ViT-Tiny the same rounding moves the logits by 0.01.
    "deit_tiny": {
        "file": "deit-tiny-in1k/deit_tiny_patch16_224.fp16.npz", "key": "deit_tiny_in1k_lnquant",
        "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "bound": 0.01,
    },
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not PHOTOS.exists(), reason=f"the weights and photos are not in {SHARED}; set VIT_SHARED"
)


@cache
def photos(model: str) -> tuple[list[str], np.ndarray]:
    """Names, and images (6, 3, 224, 224) normalised as the model was trained."""
    image = pytest.importorskip("PIL.Image", reason="photos need Pillow")
    files = sorted((PHOTOS / "crops224").glob("*_224.png"))
    pixels = np.stack([np.asarray(image.open(file).convert("RGB")) for file in files]) / 255.0
    normal = (pixels - np.array(MODELS[model]["mean"])) / np.array(MODELS[model]["std"])
    return [file.stem.removesuffix("_224") for file in files], np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def numpy_logits(config, params, images):
    return numpy_vit.vit_forward(params, images, config)[0]


def torch_logits(config, params, images):
    torch = pytest.importorskip("torch", reason="the torch engine needs torch")
    import torch_vit

    model = torch_vit.VisionTransformer(config).to(torch.from_numpy(images).dtype)
    model.load_state_dict(torch_vit.to_torch(params))
    with torch.no_grad():
        return model.eval()(torch.from_numpy(images)).numpy()


ENGINES = {"numpy": numpy_logits, "torch": torch_logits}


@cache
def logits(model: str, engine: str, dtype: str) -> np.ndarray:
    config, params = load_checkpoint(SHARED / "data" / MODELS[model]["file"], dtype=dtype)
    return ENGINES[engine](config, params, photos(model)[1].astype(dtype))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
def test_float64_logits(model, engine):
    expected = np.load(PHOTOS / "expected_logits_fp64.npz")
    want = np.stack([expected[f"{MODELS[model]['key']}/{name}"] for name in photos(model)[0]])
    assert abs(logits(model, engine, "float64") - want).max() <= MODELS[model]["bound"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
def test_top_1(model, engine):
    expected = json.loads((PHOTOS / "expected_top5.json").read_text())
    want = [expected[name][MODELS[model]["key"]][0][0] for name in photos(model)[0]]
    assert logits(model, engine, "float32").argmax(axis=1).tolist() == want


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
def test_float32_logits(model, engine):
    exact, single = logits(model, engine, "float64"), logits(model, engine, "float32")
    assert single.dtype == np.float32
    assert abs(single - exact).max() <= 1e-4 * abs(exact).max()


def test_the_file_needs_no_further_arguments():
    config, params = load_checkpoint(SHARED / "data" / MODELS["vit_tiny"]["file"])
    assert (config.num_heads, config.norm_eps, config.activation, config.image_size) == (3, 1e-6, "gelu", (224, 224))
    assert sum(p.size for p in params.values()) == 5_717_416
    assert {p.dtype for p in params.values()} == {np.dtype(np.float32)}  # stored as float16
