"""The trace file: what it holds, that both engines write the same, that a comparison finds the first wrong stage."""

import json

import numpy as np
import pytest

import numpy_vit
from numpy_vit.engine import NumpyEngine
from vit_common import ViTConfig, init_params, param_spec
from vit_common.errors import CheckpointError
from vit_common.files import write_arrays
from vit_common.loop import Batch, make_batch
from vit_common.masks import make_masks
from vit_common.recipe import Recipe
from vit_common.trace import compare_traces, read_trace, stage_order, write_trace

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=4, in_channels=2, num_classes=3, embed_dim=8, depth=2, num_heads=2,
    pos_drop_rate=0.1, attn_drop_rate=0.1, proj_drop_rate=0.1, drop_path_rate=0.3,
)  # fmt: skip
RECIPE = Recipe(dtype="float64", label_smoothing=0.1, seed=3)


def batch(config=CONFIG, dtype="float64") -> Batch:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(4, config.in_channels, *config.image_size)).astype(dtype)
    return Batch(images, np.array([0, 2, 1, 2]), make_masks(config, 4, 3, 0), 0.1)


def write(path, engine, config=CONFIG):
    engine.load(config, init_params(config, 3, np.float64), "float64")
    return write_trace(path, engine, config, RECIPE, batch(config))


def test_the_file_holds_what_its_manifest_says_and_its_numbers_are_the_stages(tmp_path):
    manifest = write(tmp_path / "t.safetensors", NumpyEngine())
    arrays, found = read_trace(tmp_path / "t.safetensors")
    assert found == manifest == json.loads((tmp_path / "t.safetensors.json").read_text())
    assert {n: {"shape": list(a.shape), "dtype": str(a.dtype)} for n, a in arrays.items()} == manifest["arrays"]
    assert ViTConfig.from_dict(manifest["config"]) == CONFIG
    spec = param_spec(CONFIG)
    for group in ("params", "param_grads"):
        assert {n for n in arrays if n.startswith(f"{group}/")} == {f"{group}/{n}" for n in spec}
    for name in manifest["order"]:
        assert arrays[f"values/{name}"].shape == arrays[f"grads/{name}"].shape
    # Another way to one of the numbers: the norm's output from the last block's, by the stage itself.
    norm, _ = numpy_vit.layer_norm_forward(
        arrays["values/blocks.1"], arrays["params/norm.weight"], arrays["params/norm.bias"], CONFIG.norm_eps
    )
    assert np.array_equal(norm, arrays["values/norm"])
    slope = (arrays["grads/logits"][:, :, None] * arrays["values/pooled"][:, None]).sum(axis=0)
    assert slope == pytest.approx(arrays["param_grads/head.weight"], rel=1e-12)


@pytest.mark.parametrize("changes", [{}, {"pool": "mean", "class_token": False}, {"pos_embed": "sincos_2d"}], ids=str)
def test_both_engines_write_the_same_names_and_numbers(tmp_path, changes):
    pytest.importorskip("torch", reason="torch is not installed")
    from torch_vit.engine import TorchEngine, TorchOptions

    config = CONFIG.replace(**changes)
    mine = write(tmp_path / "n.safetensors", NumpyEngine(), config)
    theirs = write(tmp_path / "t.safetensors", TorchEngine(TorchOptions(device="cpu")), config)
    assert mine["order"] == theirs["order"]
    assert mine["arrays"] == theirs["arrays"]
    a, b = read_trace(tmp_path / "n.safetensors")[0], read_trace(tmp_path / "t.safetensors")[0]
    differences = compare_traces(a, b, theirs["order"])
    assert {d.name for d in differences} == b.keys()
    # Each stage rounds at most once for each term of its longest sum, there and back: the errors add up along the way.
    longest = max(config.mlp_dim, config.patch_dim, 4 * config.num_tokens)  # 4: images that a bias gradient sums over
    bound = np.finfo(np.float64).eps * longest * 2 * len(theirs["order"])
    assert max(d.relative for d in differences) < bound


def test_the_comparison_names_the_first_stage_that_is_wrong(tmp_path):
    manifest = write(tmp_path / "t.safetensors", NumpyEngine())
    right, _ = read_trace(tmp_path / "t.safetensors")
    assert all(d.relative == 0 for d in compare_traces(right, right, manifest["order"]))
    wrong = {name: array.copy() for name, array in right.items()}
    wrong["values/blocks.1.mlp.act"][0, 0, 0] += 1e-3
    wrong["values/logits"] *= 2
    first = next(d for d in compare_traces(wrong, right, manifest["order"]) if d.relative)
    assert first.name == "values/blocks.1.mlp.act"
    wrong = {**right, "grads/pooled": right["grads/pooled"] * np.nan, "loss": right["loss"][None]}
    del wrong["values/norm"]
    notes = {d.name: d.note for d in compare_traces(wrong, right, manifest["order"]) if d.relative}
    assert notes.keys() == {"values/norm", "loss", "grads/pooled"}
    assert notes["values/norm"] == "missing"
    assert "shape" in notes["loss"]


def test_the_order_is_that_of_the_forward_pass_and_keeps_unknown_stages():
    names = ["logits", "blocks.1", "blocks.10.norm1", "blocks.1.attn.probs", "blocks.1.attn.scores", "tokens", "images"]
    assert stage_order(names) == [
        "images", "tokens", "blocks.1.attn.scores", "blocks.1.attn.probs", "blocks.1", "blocks.10.norm1", "logits",
    ]  # fmt: skip
    assert stage_order(["images", "patch_embed", "registers", "tokens", "logits"])[2] == "registers"


def test_a_file_that_is_no_trace_is_refused(tmp_path):
    write_arrays(tmp_path / "x.safetensors", {"a": np.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="not a trace"):
        read_trace(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_trace(tmp_path / "absent.safetensors")


def test_make_batch_is_what_training_would_take():
    from vit_common.data import load_dataset
    from vit_common.recipe import config_for_data

    data = load_dataset("digits")
    found = make_batch(data, config_for_data("digits"), Recipe.for_data("digits", batch_size=4), 2)
    assert found.images.shape == (4, 1, 8, 8)
    assert found.images.dtype == np.float32
