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


@pytest.mark.parametrize("layout", ["huggingface", "google", "torchvision"])
@pytest.mark.parametrize("model", MODELS)
def test_converted_and_loaded_back(tmp_path, model, layout):
    """The same parameters to the bit, and with them the same logits."""
    pytest.importorskip("safetensors", reason="folders are written with safetensors")
    from vit_common.convert import convert

    source = SHARED / "data" / MODELS[model]["file"]
    target = tmp_path / ("hub" if layout == "huggingface" else "weights.npz")
    convert(source, target, layout)
    config, params = load_checkpoint(source)
    back_config, back = load_checkpoint(target)
    rules = {name: getattr(config, name) for name in ("pos_resize", "table_resize")}  # at other sizes, each its own
    assert back_config.replace(**rules) == config
    assert list(back) == list(params)
    assert all(np.array_equal(back[name], params[name]) for name in params)
    one = photos(model)[1][:1].astype(np.float32)
    assert np.array_equal(numpy_logits(back_config, back, one), numpy_logits(config, params, one))


# The accuracy stated beside each file, on the images of its classes in MNIST's test set.
MNIST = {
    "vit_mnist_gpu.pt": {"patch_size": 4, "classes": 10, "right": 9721, "of": 10_000},
    "vit_mnist_3class.pt": {"patch_size": 7, "classes": 3, "right": 3130, "of": 3147},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("file", MNIST)
def test_small_mnist_models(file, engine):
    """vit-pytorch's names, ReLU, no query-key-value bias, an inner width of its own: the stated accuracy, exactly."""
    pytest.importorskip("torch", reason="the files are torch's")
    from vit_common.data import load_dataset

    facts = MNIST[file]
    given = {"patch_size": facts["patch_size"], "num_heads": 4, "activation": "relu", "pool": "cls"}
    config, params = load_checkpoint(SHARED / "data" / "vit-mnist-small" / file, config=given)
    assert (config.attn_dim, config.num_classes) == (256 if facts["classes"] == 10 else 64, facts["classes"])
    test = load_dataset("mnist", data_dir=SHARED / "data" / "mnist", download=False, progress=False).test
    mine = np.flatnonzero(test.labels < facts["classes"])
    whole = engine == "torch" or os.environ.get("VIT_FULL")  # the NumPy engine takes twenty seconds for all of them
    seen = mine if whole else mine[:1000]
    right = []
    for first in range(0, len(seen), 500):
        index = seen[first : first + 500]
        pixels = ((test.images(index) / 255.0 - 0.1307) / 0.3081).astype(np.float32)
        right.append(ENGINES[engine](config, params, pixels).argmax(axis=1) == test.labels[index])
    found = int(np.concatenate(right).sum())
    if whole:
        assert (found, len(seen)) == (facts["right"], facts["of"])
    else:  # the first thousand: within four standard errors of a proportion
        rate = facts["right"] / facts["of"]
        assert abs(found / len(seen) - rate) <= 4 * (rate * (1 - rate) / len(seen)) ** 0.5
