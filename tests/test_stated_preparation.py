"""Pictures are prepared as the folder of a checkpoint says, each step held against Pillow and the formula."""

import json

import numpy as np
import pytest

from vit_common import CheckpointError, ViTConfig
from vit_common.commands.classify import ClassifyOptions, preparation, read_images
from vit_common.images import HALF_MEAN, IMAGENET_MEAN, IMAGENET_STD
from vit_common.stated_preparation import Preparation, stated_preparation

CONFIG = ViTConfig(image_size=32, patch_size=8, embed_dim=8, depth=1, num_heads=2, num_classes=3)
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
HUB = {"image_mean": MEAN, "image_std": STD, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255}
CUT = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "resample": 3}


@pytest.fixture
def photo(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "photo.png")
    return image.open(tmp_path / "photo.png")


def hub(tmp_path, name, settings):
    folder = tmp_path / "hub"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(settings))
    return folder


def prepared(tmp_path, folder, **flags):
    options = ClassifyOptions(images=(tmp_path / "photo.png",), checkpoint=folder, dtype="float64", **flags)
    return read_images(options, CONFIG, None)


def expected(photo, size, method, mean=MEAN, std=STD):
    """(width, height) to resize to, then the centre of 32x32."""
    left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
    pixels = np.asarray(photo.resize(size, method).crop((left, top, left + 32, top + 32)), np.float64)
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)[None]


NEAREST, LANCZOS, BILINEAR, BICUBIC = range(4)
FILES = {
    "timm": ("config.json", {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {
        "mean": MEAN, "std": STD, "crop_pct": 0.8, "interpolation": "bilinear", "input_size": [3, 32, 32]}},
        (64, 40), BILINEAR),
    "timm, squashed": ("config.json", {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {
        "mean": MEAN, "std": STD, "crop_pct": 0.8, "crop_mode": "squash", "interpolation": "bicubic"}},
        (40, 40), BICUBIC),
    "both sides": ("preprocessor_config.json", HUB | {"size": {"height": 32, "width": 32}, "resample": 2},
                   (32, 32), BILINEAR),
    "both sides, an older file": ("preprocessor_config.json", HUB | {"size": 32, "resample": 2}, (32, 32), BILINEAR),
    "short side": ("preprocessor_config.json", HUB | CUT | {"size": {"shortest_edge": 40}}, (64, 40), BICUBIC),
    "short side, an older file": ("preprocessor_config.json", HUB | CUT | {
        "size": 40, "crop_size": 32, "feature_extractor_type": "CLIPFeatureExtractor"}, (64, 40), BICUBIC),
    "both sides, then cut": ("preprocessor_config.json", HUB | CUT | {
        "size": 36, "crop_size": 32, "feature_extractor_type": "DeiTFeatureExtractor", "resample": 1},
        (36, 36), LANCZOS),
    "for images twice as large": ("preprocessor_config.json", HUB | CUT | {
        "size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 64}}, (64, 40), BICUBIC),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_as_the_folder_says(tmp_path, photo, case):
    name, settings, size, method = FILES[case]
    found = prepared(tmp_path, hub(tmp_path, name, settings))
    assert np.allclose(found, expected(photo, size, method), rtol=0, atol=1e-12)


def test_pixels_that_are_not_divided_or_not_normalised(tmp_path, photo):
    size = {"size": {"height": 32, "width": 32}, "resample": 2}
    numbers = {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}
    undivided = hub(tmp_path, "preprocessor_config.json", HUB | size | numbers)
    half = expected(photo, (32, 32), BILINEAR, 0.5, 0.5)
    assert np.allclose(prepared(tmp_path, undivided), half, rtol=0, atol=1e-12)
    numbers = {"rescale_factor": 2 / 255, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}
    doubled = hub(tmp_path, "preprocessor_config.json", HUB | size | numbers)
    assert np.allclose(prepared(tmp_path, doubled), half, rtol=0, atol=1e-12)
    raw = hub(tmp_path, "preprocessor_config.json", size | {"do_normalize": False})
    assert np.allclose(prepared(tmp_path, raw), expected(photo, (32, 32), BILINEAR, 0, 1), rtol=0, atol=1e-12)


def test_flags_win_and_a_name_is_the_last_resort(tmp_path, photo):
    folder = hub(tmp_path, "config.json", FILES["timm, squashed"][1])
    found = prepared(tmp_path, folder, resize=40, mean=(0.0,), std=(1.0,))
    assert np.allclose(found, expected(photo, (64, 40), BICUBIC, 0, 1), rtol=0, atol=1e-12)
    (folder / "config.json").unlink()
    options = ClassifyOptions(images=(), checkpoint=folder)
    assert preparation(options, CONFIG.replace(image_size=224), None) == Preparation(HALF_MEAN, HALF_MEAN, 248)
    named = ClassifyOptions(images=(), checkpoint=tmp_path / "deit_tiny.npz")
    assert preparation(named, CONFIG.replace(image_size=224), None) == Preparation(IMAGENET_MEAN, IMAGENET_STD, 256)
    said = hub(tmp_path, "preprocessor_config.json", HUB | {"size": 32}).rename(tmp_path / "deit")
    assert preparation(ClassifyOptions(images=(), checkpoint=said), CONFIG, None).mean == pytest.approx(MEAN)


def test_beside_a_file_only_where_it_is_the_folders_own(tmp_path):
    folder = hub(tmp_path, "preprocessor_config.json", HUB)
    assert stated_preparation(folder / "model.safetensors", (32, 32)) is not None
    assert stated_preparation(folder / "other.safetensors", (32, 32)) is None
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"vit_config": {}}))
    assert stated_preparation(folder, (32, 32)) is None


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("preprocessor_config.json", HUB | {"size": {"edge": 3}}, "does not say how pictures are prepared"),
    ("preprocessor_config.json", HUB | {"size": 32, "resample": 5}, "interpolation=5"),
    ("preprocessor_config.json", HUB | {"image_std": "a"}, "does not say"),
    ("preprocessor_config.json", HUB | {"rescale_factor": 0}, "does not say"),
    ("preprocessor_config.json", HUB | {"rescale_offset": True}, "rescale_offset"),
    ("config.json", {"architecture": "v", "mean": MEAN, "std": STD, "crop_pct": 1.5}, "crop_pct"),
    ("config.json", {"architecture": "v", "mean": MEAN, "std": STD, "crop_mode": "border"}, "border"),
    ("config.json", {"architecture": "v", "pretrained_cfg": [1]}, "does not say"),
])  # fmt: skip
def test_what_is_not_done_here_is_refused_by_name(tmp_path, name, settings, message):
    with pytest.raises(CheckpointError, match=message):
        stated_preparation(hub(tmp_path, name, settings), (32, 32))
