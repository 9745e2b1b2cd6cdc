"""Every layout, over drawn configurations: export, then load, is the identity to the bit; and what is told from names,
from shapes, and what has to be given."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from vit_common import CheckpointError, ViTConfig, init_params, load_checkpoint, param_spec
from vit_common.huggingface_settings import huggingface_settings
from vit_common.layouts import ALIASES, FAMILIES, LAYOUTS, export_layout, find_layout, get_layout
from vit_common.mae_config import MaeConfig, mae_spec

CLIP = {"patch_bias": False, "pre_norm": True}
DINO2 = {"layer_scale": 1e-5}
BEIT = {"layer_scale": 1e-5, "layer_scale_names": "gamma", "qkv_bias": "qv"}
DINO3 = {"rope": "dinov3", "rope_half": True, "pos_embed": "none", "layer_scale": 1e-5, "layer_scale_names": "gamma"}
LUCID = {"patch_norm": "layer", "patch_norm_in": True, "qkv_bias": "none", "norm_eps": 1e-5}
NO_CLASS = {"class_token": False, "pool": "mean"}
MAP = {"class_token": False, "pool": "map"}
GOOGLE = {"activation": "gelu_tanh"}
POOLED = {"pool": "mean", "final_norm": False, "fc_norm": True}
PLAIN_NORM_EPS = {"norm_eps": 1e-5}

# What each layout can hold: fields beyond the drawn sizes, one dict a variety.
VARIETIES: dict[str, list[dict]] = {
    "timm": [{}, NO_CLASS, DINO2 | {"reg_tokens": 2, "pos_embed_prefix": False}, MAP, CLIP,
             {"dist_token": True, "dist_head": True}, {"mlp": "glu"}, {"mlp": "glu_packed"}, {"block": "parallel"},
             {"qkv": "split", "qkv_bias": "qv"}, {"block": "res_post"},
             {"block": "parallel_things", "layer_scale": 0.1},
             {"attention": "diff"}, {"norm": "rms"}, {"block": "diff_parallel"}, {"rel_pos_bias": "both"},
             {"rope": "mixed", "pos_embed": "none"}, {"pre_logits": 5},
             {"attn_norm": True, "mlp_norm": True, "qk_norm": True}, {"qkv_bias": "none", "proj_bias": False}],
    "mae": [{}, POOLED],
    "dino": [{}],
    "dinov2": [DINO2, DINO2 | {"reg_tokens": 2, "pos_embed_registers": False}, {},
               DINO2 | {"mlp": "glu_packed", "activation": "silu"}],
    "huggingface_mae": [{}],
    "huggingface_vit": [{}, {"qkv_bias": "none"}],
    "huggingface_deit": [{"dist_token": True}, {"dist_token": True, "dist_head": True}],
    "huggingface_beit": [BEIT, BEIT | POOLED | {"rel_pos_bias": "block", "pos_embed": "none"},
                         BEIT | POOLED | {"rel_pos_bias": "both"}, BEIT | POOLED | {"rel_pos_bias": "shared"}],
    "huggingface_dinov2": [DINO2, DINO2 | {"pool": "cls_mean"}, DINO2 | {"mlp": "glu_packed"}],
    "huggingface_dinov2_with_registers": [DINO2 | {"reg_tokens": 3, "pool": "cls_mean", "pos_embed_registers": False},
                                          DINO2 | {"reg_tokens": 1, "mlp": "glu_packed", "pos_embed_registers": False}],
    "huggingface_dinov3": [DINO3, DINO3 | {"reg_tokens": 4, "qkv_bias": "qv"},
                           DINO3 | {"mlp": "glu", "mlp_bias": False}],
    "huggingface_clip": [CLIP | {"head_bias": False}, CLIP | {"pool": "mean", "final_norm": False}],
    "huggingface_siglip": [NO_CLASS, MAP],
    "google": [GOOGLE, GOOGLE | NO_CLASS, GOOGLE | {"pre_logits": 7}],
    "google_linen": [GOOGLE, GOOGLE | {"pre_logits": 7}],
    "big_vision": [GOOGLE | NO_CLASS, GOOGLE | MAP, GOOGLE | {"pos_embed_prefix": False},
                   GOOGLE | NO_CLASS | {"pos_embed": "sincos_2d_inclusive"}, GOOGLE | MAP | {"pre_logits": 6}],
    "big_vision_scan": [GOOGLE | NO_CLASS, GOOGLE | MAP],
    "torchvision": [{}, {"pre_logits": 9}],
    "open_clip": [CLIP | {"head_bias": False}, CLIP | DINO2 | {"head_bias": False, "pool": "mean"},
                  {"patch_bias": False, "head_bias": False}],
    "lucidrains": [LUCID, LUCID | NO_CLASS, LUCID | {"attn_head_dim": 5}, LUCID | {"attn_proj": False},
                   {"qkv_bias": "none", "activation": "relu"}],
    "simple_vit": [LUCID | NO_CLASS | {"pos_embed": "sincos_2d_inclusive", "proj_bias": False}],
    "tutorial": [{"attn_proj": False, "final_norm": False, "head_softmax": True, "norm_eps": 1e-5, "pos_embed": pos}
                 for pos in ("sincos_1d", "learned")],
}  # fmt: skip


@st.composite
def configurations(draw, name: str) -> ViTConfig:
    variety = draw(st.sampled_from(VARIETIES[name]))
    heads = draw(st.integers(1, 3))
    grid = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    patch = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    classes = draw(st.integers(1, 6))
    if variety.get("head_bias", True) and variety.get("final_norm", True) and not variety.get("head_softmax"):
        classes *= draw(st.integers(0, 1))
    sizes = {
        "image_size": (grid[0] * patch[0], grid[1] * patch[1]), "patch_size": patch,
        "in_channels": draw(st.integers(1, 4)), "embed_dim": 4 * heads * draw(st.integers(1, 2)), "num_heads": heads,
        "depth": draw(st.integers(1, 3)), "mlp_ratio": draw(st.sampled_from([1.0, 2.0, 3.5])), "num_classes": classes,
    }  # fmt: skip
    if name == "huggingface_mae" or (name.startswith("huggingface") and variety.get("pool") == "map"):
        classes = 0  # there, a classifier reads the mean
    sizes["num_classes"] = classes
    if not classes:
        variety = {key: value for key, value in variety.items() if key not in ("dist_head", "pre_logits")}
    return ViTConfig(**{**sizes, **variety})


def random_tensors(config: ViTConfig, seed: int) -> dict[str, np.ndarray]:
    """Every number another; of the tutorial model's maps, the blocks it has."""
    rng = np.random.default_rng(seed)
    out = {name: rng.normal(size=spec.shape).astype(np.float32) for name, spec in param_spec(config).items()}
    if config.head_softmax:
        block = np.kron(np.eye(config.num_heads), np.ones((config.head_dim, config.head_dim))) > 0
        for name in out:
            if name.endswith("qkv.weight"):
                out[name] = np.where(np.tile(block, (3, 1)), out[name], np.float32(0))
    return out


def identical(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) and a[k].shape == b[k].shape for k in a)


def test_every_layout_is_tried():
    assert VARIETIES.keys() == LAYOUTS.keys()
    assert set(ALIASES.values()) <= LAYOUTS.keys() | FAMILIES.keys()


@pytest.mark.parametrize("name", LAYOUTS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_exported_then_loaded_is_the_identity(name, data):
    config = data.draw(configurations(name))
    tensors = random_tensors(config, seed=data.draw(st.integers(0, 99)))
    before = {key: value.copy() for key, value in tensors.items()}
    exported = export_layout(tensors, config, name)
    layout = LAYOUTS[name]
    assert identical(layout.load(layout.plain_names(exported), config), tensors)
    assert identical(tensors, before)
    assert {key: value.shape for key, value in exported.items()} == layout.shapes(config)
    for value in exported.values():
        assert value.flags.c_contiguous
        assert not any(np.shares_memory(value, own) for own in tensors.values())
    # numbers are moved, never changed: gradients are exported by the same rule
    ours, theirs = (np.sort(np.concatenate([v.ravel() for v in t.values()])) for t in (tensors, exported))
    assert np.array_equal(ours[ours != 0], theirs[theirs != 0])


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("mae", "dino", "huggingface_mae")])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_layout_is_recognised(name, data):
    config = data.draw(configurations(name))
    exported = export_layout(random_tensors(config, 0), config, name)
    assert find_layout(exported).name == name
    assert find_layout({"module." + key: value for key, value in exported.items()}).name == name


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_shapes_tell_and_what_they_do_not(name, tmp_path):
    """With the fields that the layout says it needs, the whole configuration comes back; without one, an error."""
    layout = LAYOUTS[name]
    for variety in VARIETIES[name]:
        if name == "timm" and (variety.keys() & {"block", "attention", "rope", "qk_norm"}):
            continue  # kinds of block that only an architecture's name tells
        headless = name == "huggingface_mae" or (name.startswith("huggingface") and variety.get("pool") == "map")
        classes = 0 if headless else 5
        sizes = {"image_size": 16, "patch_size": 4, "in_channels": 3, "embed_dim": 24, "num_heads": 3, "depth": 2,
                 "num_classes": classes, "activation": layout.fixed.get("activation", "gelu")}  # fmt: skip
        config = ViTConfig(**{**sizes, **PLAIN_NORM_EPS, **layout.fixed, **variety})
        np.savez(tmp_path / "w.npz", **export_layout(random_tensors(config, 0), config, name))
        needed = [*layout.needs, *(["patch_size"] if layout.flat else []), *(["pool"] if name == "open_clip" else [])]
        needed += ["image_size"] if "sincos" in config.pos_embed else []
        given = {key: getattr(config, key) for key in needed}
        assert load_checkpoint(tmp_path / "w.npz", layout=name, config=given)[0] == config
        told = layout.facts(layout.plain_names(export_layout(random_tensors(config, 0), config, name)))
        for key in set(needed) - told.keys() - layout.fixed.keys() - {"pool", "rope_temperature"}:
            with pytest.raises(CheckpointError, match=f"{key} cannot be told"):
                load_checkpoint(tmp_path / "w.npz", layout=name, config={k: v for k, v in given.items() if k != key})


def test_family_names():
    plain = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=2)
    assert get_layout("HuggingFace", plain).name == "huggingface_vit"
    assert get_layout("hf", plain.replace(**CLIP)).name == "huggingface_clip"
    assert get_layout("vit-pytorch", plain.replace(**VARIETIES["simple_vit"][0])).name == "simple_vit"
    assert get_layout("Google", plain).name == "google"
    with pytest.raises(CheckpointError, match="layout 'hugingface' is unknown; did you mean 'huggingface'"):
        get_layout("hugingface")


def test_a_model_that_a_layout_cannot_hold():
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, reg_tokens=2, num_classes=2)
    with pytest.raises(CheckpointError, match=r"torchvision layout has no place for 1 .*: reg_token"):
        export_layout(init_params(config, 0), config, "torchvision")


def test_towers_beside_the_model_are_left_aside(tmp_path):
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=4, head_bias=False,
                       **CLIP)  # fmt: skip
    params = random_tensors(config, 0)
    text = {"text_model.encoder.layers.0.mlp.fc1.weight": np.ones((3, 3), np.float32),
            "logit_scale": np.ones((), np.float32), "text_projection.weight": np.ones((4, 4), np.float32)}  # fmt: skip
    save_file({**export_layout(params, config, "huggingface"), **text}, tmp_path / "clip.safetensors")
    assert identical(load_checkpoint(tmp_path / "clip.safetensors", config=config)[1], params)
    visual = {"visual." + key: value for key, value in export_layout(params, config, "open_clip").items()}
    text = {"transformer.resblocks.0.ln_1.weight": np.ones(9, np.float32),
            "positional_embedding": np.ones((7, 9), np.float32)}  # fmt: skip
    save_file({**visual, **text}, tmp_path / "openai.safetensors")
    assert identical(load_checkpoint(tmp_path / "openai.safetensors", config=config)[1], params)


def test_mixed_layouts(tmp_path):
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=2)
    params = random_tensors(config, 0)
    both = {**params, **export_layout(params, config, "huggingface")}
    np.savez(tmp_path / "both.npz", **both)
    with pytest.raises(CheckpointError, match="mixed layouts: most .* named as in timm, but 24 as in huggingface_"):
        load_checkpoint(tmp_path / "both.npz", config=config)


@pytest.mark.parametrize("asked", ["torchvision", "lucidrains", "google", "tutorial"])
def test_a_layout_asked_for_that_it_is_not(tmp_path, asked):
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=2)
    np.savez(tmp_path / "w.npz", **random_tensors(config, 0))
    message = f"named as in timm, not as in {asked}: .* leave layout= away, or give layout='timm'"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "w.npz", layout=asked, config=config)


@pytest.mark.parametrize("layout", ["mae", "huggingface_mae"])
def test_masked_autoencoders_with_their_decoder(tmp_path, layout):
    """A file in pre-training gives the whole autoencoder where that is asked for, else its encoder."""
    encoder = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=2, num_classes=0)
    config = MaeConfig(encoder, decoder_dim=8, decoder_depth=3, decoder_heads=2, decoder_mlp_ratio=2.0)
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=spec.shape).astype(np.float32) for name, spec in mae_spec(config).items()}
    exported = export_layout(tensors, config, layout)
    assert find_layout(exported).name == layout
    np.savez(tmp_path / "mae.npz", **exported)
    loaded = load_checkpoint(tmp_path / "mae.npz", config=config)
    assert loaded[0] == config
    assert identical(loaded[1], tensors)
    given = {"num_heads": 3, "norm_eps": 1e-6, "activation": "gelu"}
    alone = load_checkpoint(tmp_path / "mae.npz", config=given)
    assert alone[0] == encoder
    assert identical(alone[1], {name: tensors[name] for name in param_spec(encoder)})
    if layout == "huggingface_mae":
        save_file(exported, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(huggingface_settings(config)))
        found, params = load_checkpoint(tmp_path)
        rules = {name: getattr(encoder, name) for name in ("pos_resize", "table_resize")}  # at other sizes, its own
        assert replace(found, encoder=found.encoder.replace(**rules)) == config
        assert identical(params, tensors)
    with pytest.raises(CheckpointError, match="do not fit this masked autoencoder; 1 missing: cls_token"):
        export_layout({k: v for k, v in tensors.items() if k != "cls_token"}, config, layout)


def test_older_names_are_read(tmp_path):
    """vit-pytorch's of 2021 and 2022, and torchvision's before 0.13."""
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=2, norm_eps=1e-5,
                       qkv_bias="none")  # fmt: skip
    params = random_tensors(config, 0)
    new = export_layout(params, config, "lucidrains")
    assert "to_patch_embedding.2.weight" in new
    renames = [("to_patch_embedding.2", "to_patch_embedding.1"), ("transformer.norm", "mlp_head.0"),
               ("mlp_head.weight", "mlp_head.1.weight"), ("mlp_head.bias", "mlp_head.1.bias"), (".0.to_", ".0.fn.to_"),
               (".1.net.0", ".1.norm"), (".1.net.1", ".1.fn.net.0"), (".1.net.4", ".1.fn.net.3")]  # fmt: skip
    old = {}
    for key, value in new.items():
        for here, there in renames:
            key = key.replace(here, there)
        old[key] = value[None] if key in ("cls_token", "pos_embedding") else value
    np.savez(tmp_path / "old.npz", **old)
    assert identical(load_checkpoint(tmp_path / "old.npz", config=config)[1], params)
    given = {"patch_size": 4, "num_heads": 3, "activation": "gelu", "pool": "cls"}
    assert load_checkpoint(tmp_path / "old.npz", config=given)[0] == config
    mean = load_checkpoint(tmp_path / "old.npz", config=given | {"pool": "mean"})[0]
    assert (mean.pool_include_prefix, mean.fc_norm, mean.final_norm) == (True, True, False)

    vision = config.replace(qkv_bias="all", norm_eps=1e-6)
    params = random_tensors(vision, 1)
    old = {k.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): v
           for k, v in export_layout(params, vision, "torchvision").items()}  # fmt: skip
    np.savez(tmp_path / "old.npz", **old)
    assert identical(load_checkpoint(tmp_path / "old.npz", config={"num_heads": 3})[1], params)


def test_a_dino_training_checkpoint(tmp_path):
    torch = pytest.importorskip("torch", reason="torch files need torch")
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=0)
    params = random_tensors(config, 0)
    teacher = {f"backbone.{key}": torch.from_numpy(value) for key, value in params.items()}
    teacher |= {"head.mlp.0.weight": torch.ones(3, 12), "head.last_layer.weight_v": torch.ones(4, 3)}
    torch.save({"teacher": teacher, "epoch": 3}, tmp_path / "dino.pth")
    loaded = load_checkpoint(tmp_path / "dino.pth", config={"num_heads": 3})
    assert loaded[0] == config
    assert identical(loaded[1], params)


def test_open_clip_folder(tmp_path):
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=4, norm_eps=1e-5,
                       activation="quick_gelu", head_bias=False, **CLIP)  # fmt: skip
    params = random_tensors(config, 0)
    save_file(export_layout(params, config, "open_clip"), tmp_path / "open_clip_model.safetensors")
    vision = {"image_size": 8, "layers": 1, "width": 12, "head_width": 4, "patch_size": 4}
    cfg = {"model_cfg": {"embed_dim": 4, "quick_gelu": True, "vision_cfg": vision, "text_cfg": {}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(cfg))
    assert load_checkpoint(tmp_path)[0] == config
    assert identical(load_checkpoint(tmp_path)[1], params)


def test_constructor_arguments_of_the_library_itself(tmp_path):
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=4)
    np.savez(tmp_path / "tv.npz", **export_layout(random_tensors(config, 0), config, "torchvision"))
    own = {"image_size": 8, "patch_size": 4, "num_layers": 1, "num_heads": 3, "hidden_dim": 12, "mlp_dim": 48}
    assert load_checkpoint(tmp_path / "tv.npz", config=own)[0] == config
    np.savez(tmp_path / "timm.npz", **random_tensors(config, 0))
    args = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "num_heads": 3, "depth": 1}
    timm = {"architecture": "vit_tiny_patch16_224", "num_classes": 4, "model_args": args}
    assert load_checkpoint(tmp_path / "timm.npz", config=timm)[0] == config
