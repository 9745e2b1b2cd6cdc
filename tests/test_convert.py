"""Conversion: what is written is what the other library loads, and what comes back is the same to the bit."""

import json

import numpy as np
import pytest

from vit_common import CheckpointError, ConfigError, ViTConfig, init_params, load_checkpoint, save_checkpoint
from vit_common.convert import convert, layout_table
from vit_common.huggingface_settings import huggingface_settings
from vit_common.layouts import LAYOUTS

CONFIG = ViTConfig(image_size=8, patch_size=4, in_channels=3, embed_dim=12, depth=2, num_heads=3, num_classes=5)
DINO = {"layer_scale": 1.0}
# What only says how a library goes about images of another size.
OTHER_SIZES = ("pos_resize", "table_resize", "dynamic_image_size")
# What each Hugging Face model type computes, as a configuration of ours.
MODELS: dict[str, dict] = {
    "vit": {}, "vit, no head": {"num_classes": 0}, "vit, relu": {"activation": "relu", "norm_eps": 1e-12},
    "deit": {"dist_token": True}, "deit, teacher": {"dist_token": True, "dist_head": True},
    "beit": {"qkv_bias": "qv", "layer_scale": 0.1, "layer_scale_names": "gamma", "rel_pos_bias": "block",
             "pool": "mean", "final_norm": False, "fc_norm": True, "pos_embed": "none"},
    "dinov2": {**DINO, "pool": "cls_mean"},
    "dinov2, swiglu": {**DINO, "pool": "cls_mean", "mlp": "glu_packed", "mlp_hidden": 32, "activation": "silu"},
    "registers": {**DINO, "pool": "cls_mean", "reg_tokens": 3, "pos_embed_registers": False},
    "dinov3": {**DINO, "num_classes": 0, "rope": "dinov3", "rope_half": True, "rope_temperature": 100.0,
               "pos_embed": "none", "layer_scale_names": "gamma", "reg_tokens": 2, "qkv_bias": "qv"},
    "clip": {"patch_bias": False, "pre_norm": True, "head_bias": False, "activation": "quick_gelu"},
    "siglip": {"class_token": False, "pool": "map", "num_classes": 0, "activation": "gelu_tanh"},
    "siglip, no head": {"class_token": False, "pool": "none", "num_classes": 0},
    "siglip, classifier": {"class_token": False, "pool": "mean"},
    "clip, classifier": {"patch_bias": False, "pre_norm": True, "pool": "mean", "final_norm": False},
}  # fmt: skip


def config_of(changes: dict) -> ViTConfig:
    heads = {"embed_dim": 24, "num_heads": 3} if "rope" in changes else {}
    return CONFIG.replace(**heads, **changes)


def noisy(config: ViTConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=v.shape).astype(np.float32) for k, v in init_params(config, 0).items()}


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("model", MODELS)
def test_hugging_face_there_and_back(tmp_path, model):
    config = config_of(MODELS[model])
    params = convert_own(tmp_path, config)
    back_config, back = load_checkpoint(tmp_path / "hub")
    untold = ("layer_scale", "mlp_ratio", "mlp_hidden", *OTHER_SIZES)
    same_function = {name: getattr(config, name) for name in untold}
    assert back_config.replace(**same_function) == config
    assert same(back, params)


@pytest.mark.parametrize("model", ["vit", "deit, teacher", "dinov2", "clip"])
def test_the_tensors_tell_the_head_where_config_json_names_no_class(tmp_path, model):
    convert_own(tmp_path, config_of(MODELS[model]))
    named = load_checkpoint(tmp_path / "hub")[0]
    settings = json.loads((tmp_path / "hub" / "config.json").read_text())
    del settings["architectures"]
    (tmp_path / "hub" / "config.json").write_text(json.dumps(settings))
    assert load_checkpoint(tmp_path / "hub")[0] == named


def test_a_pooler_is_what_the_tensors_have(tmp_path):
    config = CONFIG.replace(num_classes=0, pre_logits=7)
    params = convert_own(tmp_path, config)
    loaded, back = load_checkpoint(tmp_path / "hub")
    assert (loaded.pre_logits, loaded.num_classes) == (7, 0)
    assert same(back, params)
    settings = json.loads((tmp_path / "hub" / "config.json").read_text())
    (tmp_path / "hub" / "config.json").write_text(json.dumps({**settings, "pooler_act": "relu"}))
    with pytest.raises(CheckpointError, match="pooler_act='relu'"):
        load_checkpoint(tmp_path / "hub")


def test_tables_that_hugging_face_would_mix_up():
    config = config_of(MODELS["beit"]).replace(image_size=(8, 16))
    with pytest.raises(ConfigError, match="mixes up rows and columns"):
        huggingface_settings(config, "huggingface_beit")
    huggingface_settings(config.replace(table_resize="huggingface_bilinear"), "huggingface_beit")


def convert_own(folder, config: ViTConfig) -> dict[str, np.ndarray]:
    params = noisy(config)
    save_checkpoint(folder / "own", config, params)
    convert(folder / "own", folder / "hub", "huggingface")
    return params


@pytest.mark.parametrize("layout", ["timm", "google", "google_linen", "torchvision", "mae", "dino"])
@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "folder"])
def test_other_layouts_there_and_back(tmp_path, layout, name):
    """Exact GELU is not what Google's code computes: the file says so itself."""
    params = noisy(CONFIG)
    save_checkpoint(tmp_path / "own", CONFIG, params)
    assert convert(tmp_path / "own", tmp_path / name, layout) == layout
    config, back = load_checkpoint(tmp_path / name)
    assert config == CONFIG
    assert same(back, params)


def test_a_file_that_tells_itself_is_left_clean(tmp_path):
    config = CONFIG.replace(activation="gelu_tanh")
    save_checkpoint(tmp_path / "own", config, noisy(config))
    convert(tmp_path / "own", tmp_path / "w.npz", "google")
    assert all("/" in name or name == "cls" for name in np.load(tmp_path / "w.npz").files)
    assert load_checkpoint(tmp_path / "w.npz")[0] == config


def test_what_the_other_library_has_not(tmp_path):
    for changes, message in (({"qk_norm": True}, "no place"), ({"pool": "mean"}, "pool='mean'"),
                             ({"num_classes": 5, **MODELS["dinov2"], "pool": "cls"}, "pool='cls'")):  # fmt: skip
        config = CONFIG.replace(**changes)
        save_checkpoint(tmp_path / "own", config, noisy(config))
        with pytest.raises((CheckpointError, ConfigError), match=message):
            convert(tmp_path / "own", tmp_path / "hub", "huggingface")
        assert not (tmp_path / "hub").exists()


def test_maps_outside_the_heads_blocks_are_not_lost_silently(tmp_path):
    config = CONFIG.replace(attn_proj=False, final_norm=False, head_softmax=True, norm_eps=1e-5)
    save_checkpoint(tmp_path / "own", config, noisy(config))
    with pytest.raises(CheckpointError, match=r"cannot hold these tensors unchanged: blocks\.0\.attn\.qkv\.weight"):
        convert(tmp_path / "own", tmp_path / "w.safetensors", "tutorial")


def test_a_folder_is_not_named_like_a_file(tmp_path):
    save_checkpoint(tmp_path / "own", CONFIG, noisy(CONFIG))
    with pytest.raises(CheckpointError, match="is a folder"):
        convert(tmp_path / "own", tmp_path / "hub.safetensors", "huggingface")


def test_settings_are_json_and_every_layout_has_a_title():
    assert json.loads(json.dumps(huggingface_settings(CONFIG)))["model_type"] == "vit"
    assert [name for name, title in layout_table() if title] == list(LAYOUTS)


@pytest.mark.parametrize("model", MODELS)
def test_transformers_loads_what_was_written(tmp_path, model):
    """No tensor missing, none unexpected; the same numbers come out."""
    peers = pytest.importorskip("parity_tests.peers", reason="the peers' helpers need torch")
    torch = pytest.importorskip("torch", reason="transformers needs torch")
    try:
        transformers = peers.import_transformers()
        transformers.ViTModel  # noqa: B018  (imported when it is asked for)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"transformers cannot be imported: {str(error)[:80]}")
    import numpy_vit

    config = config_of(MODELS[model])
    params = noisy(config)
    save_checkpoint(tmp_path / "own", config, params)
    convert(tmp_path / "own", tmp_path / "hub", "huggingface")
    name = json.loads((tmp_path / "hub" / "config.json").read_text())["architectures"][0]
    with peers.float64():
        loaded, info = getattr(transformers, name).from_pretrained(
            tmp_path / "hub", output_loading_info=True, dtype=torch.float64
        )
    assert not [key for key in info["missing_keys"] if "pooler" not in key]
    assert not info["unexpected_keys"]
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8))
    with torch.no_grad():
        out = loaded.eval()(torch.from_numpy(x))
    words = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
    values = next(out[word] for word in words if out.get(word) is not None)
    if model == "vit, no head":
        values = out["last_hidden_state"][:, 0]
    got = numpy_vit.vit_forward({k: v.astype(np.float64) for k, v in params.items()}, x, config)[0]
    assert abs(got - values.numpy()).max() <= 1e-11 * abs(got).max()
