"""What `convert` refuses: models that the target's program does not compute, and places that hold something."""

import json

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from vit_common import CheckpointError, ConfigError, DataError, ViTConfig, init_params, load_checkpoint, save_checkpoint
from vit_common.cli import main
from vit_common.config_source import vit_from_fields
from vit_common.convert import convert, write_layout
from vit_common.layouts import LAYOUTS, export_layout, get_layout
from vit_common.mae_config import MaeConfig, init_mae_params

CONFIG = ViTConfig(image_size=8, patch_size=4, in_channels=3, embed_dim=24, depth=2, num_heads=3, num_classes=5)
MAE = MaeConfig(
    CONFIG.replace(num_classes=0, patch_crop=False), decoder_dim=12, decoder_depth=1, decoder_heads=2, mask_ratio=0.5
)
FACEBOOK = ("mae", "dino", "dinov2")
REFUSED = [
    *(({"activation": "gelu_tanh"}, layout, "activation='gelu_tanh'") for layout in ("torchvision", *FACEBOOK)),
    *(({"activation": "quick_gelu"}, layout, "activation='quick_gelu'") for layout in ("google", "big_vision", "dino")),
    *(({"norm_eps": 1e-5}, layout, "norm_eps=1e-05") for layout in ("google", *FACEBOOK)),
    *(({"rope": "axial"}, layout, "rope='axial'") for layout in ("google", "torchvision", *FACEBOOK)),
    *(({"class_token": False, "pool": "map"}, layout, "pool='map'") for layout in FACEBOOK),
    *(({"layer_scale": 1e-5}, layout, "layer_scale=1e-05") for layout in ("mae", "dino")),
    *(({"qk_norm": True}, layout, "qk_norm=True") for layout in FACEBOOK),
    *(({"pos_embed": "sincos_2d"}, layout, "pos_embed='sincos_2d'") for layout in ("google", "torchvision", *FACEBOOK)),
    *(({"head_softmax": True}, layout, "head_softmax=True") for layout in ("google", "torchvision", *FACEBOOK)),
    ({"norm_eps": 1e-5, "qkv_bias": "none", "activation": "gelu_tanh"}, "lucidrains", "activation='gelu_tanh'"),
    ({"norm_eps": 1e-5, "patch_bias": False, "pre_norm": True, "head_bias": False, "activation": "silu"}, "open_clip",
     "activation='silu'"),
    ({"pool": "mean"}, "google", "pool='mean'"), ({"pool": "mean"}, "torchvision", "pool='mean'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "layout", "message"), REFUSED)
def test_a_program_that_computes_something_else(tmp_path, changes, layout, message):
    config = CONFIG.replace(**changes)
    with pytest.raises(ConfigError, match=message):
        write_layout(tmp_path / "w.safetensors", layout, config, init_params(config, 0))
    assert not list(tmp_path.iterdir())


TAKEN = [
    *(({}, layout) for layout in ("torchvision", *FACEBOOK)),
    *(({"activation": "gelu_tanh"}, layout) for layout in ("google", "google_linen", "big_vision", "big_vision_scan")),
    ({"pool": "none", "activation": "gelu_tanh"}, "google"),
    ({"class_token": False, "pool": "mean", "activation": "gelu_tanh"}, "google"),
    ({"norm_eps": 1e-5}, "torchvision"),
    ({"layer_scale": 1.0, "reg_tokens": 2, "pos_embed_registers": False}, "dinov2"),
    ({"mlp": "glu_packed", "activation": "silu"}, "dinov2"), ({"qkv_bias": "none"}, "dino"),
    ({"pool": "mean", "final_norm": False, "fc_norm": True}, "mae"),
    ({"norm_eps": 1e-5, "qkv_bias": "none", "patch_norm_in": True, "patch_norm": "layer"}, "lucidrains"),
    *(({"norm_eps": 1e-5, "patch_bias": False, "pre_norm": True, "head_bias": False, **more}, "open_clip")
      for more in ({"activation": "quick_gelu"}, {"pool": "mean"}, {"norm_eps": 1e-6})),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "layout"), TAKEN)
def test_what_is_taken_is_read_back_from_the_tensors_and_the_programs_own_arguments(tmp_path, changes, layout):
    config = CONFIG.replace(**changes)
    params = init_params(config, 0)
    write_layout(tmp_path / "w.safetensors", layout, config, params)
    chosen = get_layout(layout, config)
    tensors = chosen.plain_names(export_layout(params, config, layout))
    names = ("num_heads", "image_size", "patch_size", "in_channels", *chosen.needs, *chosen.options)
    told = vit_from_fields({name: getattr(config, name) for name in names}, chosen, tensors)
    initial = {name: getattr(config, name) for name in ("layer_scale", "mlp_ratio", "mlp_hidden")}
    assert told.replace(**initial) == config
    assert load_checkpoint(tmp_path / "w.safetensors")[0] == config


def test_options_are_fields_and_refer_to_what_a_reader_assumes():
    for layout in LAYOUTS.values():
        names = {*layout.options, *layout.fixed, *(layout.variants or ())}
        assert names <= ViTConfig.__dataclass_fields__.keys(), layout.name


def test_the_two_forms_of_gelu_are_not_called_equal(tmp_path, capsys):
    """Weights of the one are run with the other by both sides; the file says which, and so does the command."""
    save_checkpoint(tmp_path / "own", CONFIG, init_params(CONFIG, 0))
    assert main(NumpyEngine, ["convert", str(tmp_path / "own"), str(tmp_path / "w.npz"), "--layout", "google"]) == 0
    out = capsys.readouterr().out
    assert "note: the program of this layout computes activation='gelu_tanh', this model 'gelu'" in out
    assert main(NumpyEngine, ["convert", str(tmp_path / "own"), str(tmp_path / "v.npz"), "--layout", "dino"]) == 0
    assert "note" not in capsys.readouterr().out


# Masked autoencoders


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["folder", "w.safetensors"])
def test_a_masked_autoencoder_is_saved_and_loaded(tmp_path, name):
    params = init_mae_params(MAE, 0)
    save_checkpoint(tmp_path / name, MAE, params)
    config, back = load_checkpoint(tmp_path / name)
    assert config == MAE
    assert same(back, params)
    with pytest.raises(CheckpointError, match="mask_token"):
        save_checkpoint(tmp_path / "w", MAE, {k: v for k, v in params.items() if k != "mask_token"})


@pytest.mark.parametrize("name", ["folder", "w.safetensors", "w.npz"])
def test_from_hugging_face_to_facebook_and_back(tmp_path, name):
    params = init_mae_params(MAE, 0)
    write_layout(tmp_path / "hub", "huggingface", MAE, params)
    assert convert(tmp_path / "hub", tmp_path / name, "mae") == "mae"
    config, back = load_checkpoint(tmp_path / name)
    assert same(back, params)
    convert(tmp_path / name, tmp_path / "again", "huggingface")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "hub" / "config.json").read_text()
    assert isinstance(config, MaeConfig)


def test_autoencoders_that_facebooks_program_has_not(tmp_path):
    small = MaeConfig(MAE.encoder.replace(norm_eps=1e-12), 12, 1, 2)
    with pytest.raises(ConfigError, match="norm_eps=1e-12"):
        write_layout(tmp_path / "w", "mae", small, init_mae_params(small, 0))
    other = MaeConfig(MAE.encoder, 12, 1, 2, decoder_mlp_ratio=2.0)
    with pytest.raises(ConfigError, match=r"decoder_mlp_ratio=2\.0"):
        write_layout(tmp_path / "w", "mae", other, init_mae_params(other, 0))
    with pytest.raises(CheckpointError, match="no place"):
        write_layout(tmp_path / "w", "dino", MAE, init_mae_params(MAE, 0))


@pytest.mark.parametrize("broken", [{"encoder": {}, "mask": 3}, {"encoder": 5}, {"encoder": {"widht": 4}}])
def test_a_description_of_an_autoencoder_that_is_none(tmp_path, broken):
    save_checkpoint(tmp_path / "own", MAE, init_mae_params(MAE, 0))
    (tmp_path / "own" / "config.json").write_text(json.dumps({"vit_config": broken}))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "own")


@pytest.mark.parametrize("verb", ["info", "eval", "classify", "attend", "trace"])
def test_other_verbs_say_what_they_need(tmp_path, capsys, verb):
    save_checkpoint(tmp_path / "mae", MAE, init_mae_params(MAE, 0))
    more = {"classify": ["p.png"], "attend": ["p.png", "--out", str(tmp_path / "a.png")]}.get(verb, [])
    assert main(NumpyEngine, [verb, *more, "--checkpoint", str(tmp_path / "mae")]) == 1
    error = capsys.readouterr().err
    assert "is a masked autoencoder, which this verb cannot run" in error
    assert "config.encoder" in error


# Places


def test_nothing_is_overwritten_unasked(tmp_path, capsys):
    save_checkpoint(tmp_path / "own", CONFIG, init_params(CONFIG, 0))
    save_checkpoint(tmp_path / "old.safetensors", CONFIG, init_params(CONFIG, 1))
    before = (tmp_path / "old.safetensors").read_bytes()
    argv = ["convert", str(tmp_path / "own"), str(tmp_path / "old.safetensors"), "--layout", "timm"]
    assert main(NumpyEngine, argv) == 1
    assert "exists already; replace it (--overwrite)" in capsys.readouterr().err
    assert (tmp_path / "old.safetensors").read_bytes() == before
    assert main(NumpyEngine, [*argv, "--overwrite"]) == 0
    assert same(load_checkpoint(tmp_path / "old.safetensors")[1], load_checkpoint(tmp_path / "own")[1])


@pytest.mark.parametrize("target", ["run", "run/model.safetensors", "run/new.npz"])
def test_a_run_folder_is_left_as_it_is(tmp_path, target):
    for name, seed in (("own", 0), ("run", 1)):
        save_checkpoint(tmp_path / name, CONFIG, init_params(CONFIG, seed))
    (tmp_path / "run" / "run.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(DataError, match="folder of a training run"):
        convert(tmp_path / "own", tmp_path / target, "timm", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize(("source", "target"), [
    ("own", "own"), ("own", "own/model.safetensors"), ("own/model.safetensors", "own"), ("own", "own/new.safetensors"),
])  # fmt: skip
def test_never_onto_what_is_read(tmp_path, source, target):
    save_checkpoint(tmp_path / "own", CONFIG, init_params(CONFIG, 0))
    with pytest.raises(DataError, match="onto what this command reads"):
        convert(tmp_path / source, tmp_path / target, "dino", overwrite=True)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt"])
def test_endings_of_files_that_are_not_written(tmp_path, ending):
    save_checkpoint(tmp_path / "own", CONFIG, init_params(CONFIG, 0))
    with pytest.raises(CheckpointError, match=f"{ending} is not written"):
        convert(tmp_path / "own", tmp_path / f"w{ending}", "timm")
