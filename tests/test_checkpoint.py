"""Checkpoints written and read back; and everything a checkpoint can get wrong, each with its own message."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vit_common import CheckpointError, ViTConfig, VitError, init_params, load_checkpoint, save_checkpoint
from vit_common.checkpoint import read_extra

CONFIG = ViTConfig(image_size=8, patch_size=4, in_channels=1, embed_dim=12, depth=2, num_heads=3, num_classes=5)
TIMM = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "model_args": {
    "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 3}}  # fmt: skip


@pytest.fixture
def params():
    return init_params(CONFIG, seed=0)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def folder(path, params, settings):
    path.mkdir(exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in params.items()}, path / "model.safetensors")
    if settings is not None:
        (path / "config.json").write_text(json.dumps(settings))
    return path


# Whole


@pytest.mark.parametrize("name", ["run", "model.safetensors"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saved_is_loaded_to_the_bit(tmp_path, name, dtype):
    params = init_params(CONFIG, seed=1, dtype=dtype)
    save_checkpoint(tmp_path / name, CONFIG, params, extra={"classes": ["a", "b"]})
    config, loaded = load_checkpoint(tmp_path / name)
    assert config == CONFIG
    assert same(loaded, params)
    assert read_extra(tmp_path / name) == {"classes": ["a", "b"]}
    for p in loaded.values():
        assert p.flags.writeable
        assert p.flags.c_contiguous
        assert p.dtype.isnative
        assert p.flags.owndata
    assert not [f for f in os.listdir(tmp_path) if "tmp" in f]


@pytest.mark.parametrize("name", ["w.safetensors", "folder"])
def test_what_was_saved_beside_the_model_is_read_without_the_model(tmp_path, name, monkeypatch):
    save_checkpoint(tmp_path / name, CONFIG, init_params(CONFIG, 0), extra={"classes": ["a"]})
    monkeypatch.setattr("vit_common.read_tensors.read_safetensors", lambda path: pytest.fail("the tensors were read"))
    assert read_extra(tmp_path / name) == {"classes": ["a"]}


def test_damage_beside_the_model_is_told(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(init_params(CONFIG, 0), path, {"extra": "{"})
    with pytest.raises(CheckpointError, match="saved beside the model is not legal JSON"):
        read_extra(path)
    np.savez(tmp_path / "w.npz", **init_params(CONFIG, 0))
    assert read_extra(tmp_path / "w.npz") == {}
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_extra(tmp_path / "none.safetensors")


def test_a_file_without_its_config_json_still_knows_its_configuration(tmp_path, params):
    save_checkpoint(tmp_path / "run", CONFIG, params)
    (tmp_path / "run" / "config.json").unlink()
    assert load_checkpoint(tmp_path / "run")[0] == CONFIG


def test_a_failing_write_leaves_the_old_checkpoint(tmp_path, params, monkeypatch):
    save_checkpoint(tmp_path / "run", CONFIG, params)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(VitError, match="disk full"):
        save_checkpoint(tmp_path / "run", CONFIG, {k: v + 1 for k, v in params.items()})
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert sorted(os.listdir(tmp_path / "run")) == ["config.json", "model.safetensors"]


def test_parameters_that_do_not_fit_are_not_saved(tmp_path, params):
    with pytest.raises(CheckpointError, match=r"1 missing: norm\.bias"):
        save_checkpoint(tmp_path / "run", CONFIG, {k: v for k, v in params.items() if k != "norm.bias"})
    assert not (tmp_path / "run").exists()


# Formats


def test_timm_folder(tmp_path, params):
    config, loaded = load_checkpoint(folder(tmp_path / "hub", params, TIMM))
    assert config == ViTConfig.from_timm("vit_tiny_patch16_224", **TIMM["model_args"], num_classes=5)
    assert config == CONFIG
    assert same(loaded, params)


def test_sharded_folder(tmp_path, params):
    names = list(params)
    hub = folder(tmp_path / "hub", params, TIMM)
    (hub / "model.safetensors").unlink()
    shards = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for shard, held in shards.items():
        save_file({k: params[k] for k in held}, hub / shard)
    index = {"weight_map": {k: shard for shard, held in shards.items() for k in held}}
    (hub / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(load_checkpoint(hub)[1], params)

    os.rename(hub / "model-2.safetensors", tmp_path / "outside.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks the shard model-2\.safetensors"):
        load_checkpoint(hub)
    for escape in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "..", "", "a\\b"):
        bad = {k: escape if shard == "model-2.safetensors" else shard for k, shard in index["weight_map"].items()}
        (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": bad}))
        with pytest.raises(CheckpointError, match="not a file beside it"):
            load_checkpoint(hub)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, params, save, order):
    stored = {k: np.asfortranarray(v.astype(order + "f4")) for k, v in params.items()}
    save(tmp_path / "weights.npz", **stored)
    _, loaded = load_checkpoint(tmp_path / "weights.npz", config=CONFIG)
    assert same(loaded, params)
    assert all(p.flags.c_contiguous and p.dtype.isnative for p in loaded.values())


def test_half_precision_is_cast_up_exactly(tmp_path, params):
    torch = pytest.importorskip("torch", reason="bfloat16 files are made with torch")
    from safetensors.torch import save_file as save_torch

    np.savez(tmp_path / "half.npz", **{k: v.astype(np.float16) for k, v in params.items()})
    half = load_checkpoint(tmp_path / "half.npz", config=CONFIG)[1]
    assert all(h.dtype == np.float32 and np.array_equal(h, params[k].astype(np.float16)) for k, h in half.items())
    brain = {k: torch.from_numpy(v).bfloat16() for k, v in params.items()}
    save_torch(brain, tmp_path / "brain.safetensors")
    torch.save(brain, tmp_path / "brain.pt")
    for name in ("brain.safetensors", "brain.pt"):
        loaded = load_checkpoint(tmp_path / name, config=CONFIG)[1]
        assert all(np.array_equal(p, brain[k].float().numpy()) for k, p in loaded.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_and_the_wrappers_around_them(tmp_path, params, legacy):
    torch = pytest.importorskip("torch", reason="torch files need torch")
    state = {"module." + k: torch.from_numpy(v) for k, v in params.items()}
    for i, value in enumerate((state, {"state_dict": state, "epoch": 3}, {"model": state, "optimizer": {"lr": 1.0}})):
        torch.save(value, tmp_path / f"{i}.pth", _use_new_zipfile_serialization=not legacy)
        assert same(load_checkpoint(tmp_path / f"{i}.pth", config=CONFIG)[1], params)


def test_torch_files_are_never_unpickled(tmp_path):
    torch = pytest.importorskip("torch", reason="torch files need torch")
    torch.save({"x": CONFIG}, tmp_path / "object.pt")
    with pytest.raises(CheckpointError, match="torch file of plain tensors"):
        load_checkpoint(tmp_path / "object.pt")


def test_a_dtype_may_be_asked_for(tmp_path, params):
    save_checkpoint(tmp_path / "run", CONFIG, params)
    assert {p.dtype for p in load_checkpoint(tmp_path / "run", dtype=np.float64)[1].values()} == {np.dtype(np.float64)}
    with pytest.raises(CheckpointError, match="int32"):
        load_checkpoint(tmp_path / "run", dtype=np.int32)


# Where the configuration comes from


def test_the_published_name_is_a_configuration(tmp_path):
    config = ViTConfig.from_timm("vit_tiny_patch16_224", depth=1, num_classes=3)
    np.savez(tmp_path / "other.npz", **init_params(config, 0))
    with pytest.raises(CheckpointError, match=r"num_heads, norm_eps, activation, pool cannot be told.*config="):
        load_checkpoint(tmp_path / "other.npz")
    os.rename(tmp_path / "other.npz", tmp_path / "vit_tiny_patch16_224.mine.npz")
    with pytest.raises(CheckpointError, match=r"vit_tiny_patch16_224.*missing: blocks\.1\."):  # the tensors must fit
        load_checkpoint(tmp_path / "vit_tiny_patch16_224.mine.npz")
    full = ViTConfig.from_timm("vit_tiny_patch16_224", num_classes=3)
    np.savez(tmp_path / "vit_tiny_patch16_224.mine.npz", **init_params(full, 0))
    assert load_checkpoint(tmp_path / "vit_tiny_patch16_224.mine.npz")[0] == full


def test_a_few_fields_may_be_given(tmp_path, params):
    np.savez(tmp_path / "w.npz", **params)
    given = {"num_heads": 3, "norm_eps": 1e-6, "activation": "gelu", "pool": "cls"}
    assert load_checkpoint(tmp_path / "w.npz", config=given)[0] == CONFIG
    for name in given:
        with pytest.raises(CheckpointError, match=f"{name} cannot be told"):
            load_checkpoint(tmp_path / "w.npz", config={k: v for k, v in given.items() if k != name})
    with pytest.raises(CheckpointError, match="did you mean 'num_heads'"):
        load_checkpoint(tmp_path / "w.npz", config={**given, "n_heads": 3})


def test_the_argument_wins_over_config_json(tmp_path, params):
    hub = folder(tmp_path / "hub", params, TIMM)
    assert load_checkpoint(hub, config=CONFIG.replace(norm_eps=1e-5))[0].norm_eps == 1e-5


# What can be wrong


def broken(params, **changes):
    return {k: v for k, v in {**params, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.1.mlp.fc1.bias": None}, r"1 missing: blocks\.1\.mlp\.fc1\.bias \(\d+,\)"),
        ({"blocks.1.mlp.fc3.bias": np.ones(3, np.float32)}, r"1 not part of .*: blocks\.1\.mlp\.fc3\.bias \(3,\)"),
        (
            {"blocks.1.norm1.weight": np.ones(7, np.float32)},
            r"blocks\.1\.norm1\.weight has shape \(7,\).*expects \(12,\)",
        ),
        ({"pos_embed": np.ones((1, 7, 12), np.float32)}, r"pos_embed has shape \(1, 7, 12\).*expects \(1, 5, 12\)"),
        ({"cls_token": np.ones((12,), np.float32)}, r"cls_token has shape \(12,\).*expects \(1, 1, 12\)"),
        ({"vit.encoder.layer.0.norm1.bias": np.ones(3, np.float32)}, r"not part of the model: vit\.encoder"),
    ],
)
@pytest.mark.parametrize("settings", [TIMM, None])
def test_tensors_that_do_not_fit(tmp_path, params, changes, message, settings):
    hub = folder(tmp_path / "hub", broken(params, **changes), settings)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(hub, config=None if settings else CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_dim": 24}, "embed_dim is 24 there, but the tensors have 12"),
        ({"depth": 3}, "depth is 3 there, but the tensors have 2"),
        ({"patch_size": 2}, r"patch_size is \(2, 2\) there, but the tensors have \(4, 4\)"),
        ({"num_heads": 5}, "num_heads=5 does not divide"),
        ({"img_size": 12}, r"pos_embed has shape \(1, 5, 12\), but config.json expects \(1, 10, 12\)"),
        ({"class_token": False, "global_pool": "avg", "fc_norm": False}, "not part of the model: cls_token"),
        ({"frobnicate": 1}, "no argument 'frobnicate'"),
        ({"embed_dim": "wide"}, "config.json"),
        ({"depth": 10**9}, "depth is 1000000000 there"),
        ({"img_size": 4 * 10**9}, "describes [0-9]+ parameters, but the checkpoint holds only"),
    ],
)
def test_config_json_contradicts_the_tensors(tmp_path, params, change, message):
    hub = folder(tmp_path / "hub", params, {**TIMM, "model_args": TIMM["model_args"] | change})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(hub)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"architecture": 3}', '{"architecture": "vit_tiny_patch17"}',
                                  '{"model_type": "bert"}', '{"vit_config": 1}', '{"vit_config": {"depht": 1}}',
                                  '{"architecture": "vit_tiny_patch16_224", "model_args": 5}',
                                  "[" * 100_000])  # fmt: skip
def test_config_json_that_says_nothing(tmp_path, params, text):
    hub = folder(tmp_path / "hub", params, None)
    (hub / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        load_checkpoint(hub)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"), (b"hello, world, this is text", "not a safetensors file"),
        (b"PK\x03\x04" + bytes(60), "npz"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"), (b"\x02", "not a safetensors file"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch"), ((2).to_bytes(8, "little") + b"{}", "holds no tensors"),
        ((2**62).to_bytes(8, "little") + b"{}", "header of"), ((2).to_bytes(8, "little") + b"[]", "no table"),
        ((7).to_bytes(8, "little") + b'{"a":1}', "needs dtype"), (b"\x93NUMPY\x01\x00" + bytes(99), "safetensors"),
    ],
)  # fmt: skip
def test_files_that_are_no_checkpoint(tmp_path, content, message):
    if b"NUMPY" not in content and content[:2] == b"\x80\x02":
        pytest.importorskip("torch", reason="torch files need torch")
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "file")


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; looked for model\.safetensors"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.pt"])
def test_truncated(tmp_path, params, name):
    if name == "w.npz":
        np.savez(tmp_path / name, **params)
    elif name == "w.pt":
        torch = pytest.importorskip("torch", reason="torch files need torch")
        torch.save({k: torch.from_numpy(v) for k, v in params.items()}, tmp_path / name)
    else:
        save_checkpoint(tmp_path / name, CONFIG, params)
    whole = (tmp_path / name).read_bytes()
    for length in {1, 8, 60, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name, config=CONFIG)


def test_npz_members_that_lie(tmp_path):
    path = tmp_path / "w.npz"

    def write(**members):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name + ".npy", data)

    def npy(array):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()

    np.savez(path, a=np.array([{}], object))
    with pytest.raises(CheckpointError, match="objects are never unpickled"):
        load_checkpoint(path)
    write(a=npy(np.zeros(10_000_000, np.uint8)))  # 10 MB in 10 KB
    with pytest.raises(CheckpointError, match="more than 100 times"):
        load_checkpoint(path)
    write(a=npy(np.zeros(3)).replace(b"(3,)", b"(3000000000000,)")[:-12])
    with pytest.raises(CheckpointError, match="does not fit its shape"):
        load_checkpoint(path)
    write(a=npy(np.zeros(3))[:-1])
    with pytest.raises(CheckpointError, match="does not fit its shape"):
        load_checkpoint(path)
    write(a=b"not an array")
    with pytest.raises(CheckpointError, match="npz"):
        load_checkpoint(path)


def test_unknown_layout_names_the_nearest(tmp_path, params):
    save_checkpoint(tmp_path / "run", CONFIG, params)
    with pytest.raises(CheckpointError, match="layout 'tim' is unknown; did you mean 'timm'"):
        load_checkpoint(tmp_path / "run", layout="tim")


def test_unrecognised_names_are_listed(tmp_path, params):
    np.savez(tmp_path / "w.npz", **{k.replace("blocks.0", "stages.0"): v for k, v in params.items()})
    with pytest.raises(CheckpointError, match=r"nearest is 'timm'.*do not fit: stages\.0\.norm1"):
        load_checkpoint(tmp_path / "w.npz", config=CONFIG)
    np.savez(tmp_path / "w.npz", kernel=np.ones(3), bias=np.ones(2))
    with pytest.raises(CheckpointError, match="no known layout has names like kernel, bias"):
        load_checkpoint(tmp_path / "w.npz")


def test_written_files_are_ordinary_safetensors(tmp_path, params):
    save_checkpoint(tmp_path / "w.safetensors", CONFIG, params)
    assert same(load_file(tmp_path / "w.safetensors"), params)
