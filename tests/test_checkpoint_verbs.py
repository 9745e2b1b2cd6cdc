"""The verbs that take a checkpoint: right answers, or a refusal before anything is computed or written."""

import json

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from vit_common import ViTConfig, init_params, load_checkpoint, save_checkpoint
from vit_common.cli import main
from vit_common.data import ArraySplit, Dataset
from vit_common.loop import evaluate

CONFIG = ViTConfig.preset("digits", depth=1)


def numpy(*words) -> int:
    return main(NumpyEngine, [str(word) for word in words])


@pytest.fixture
def model(tmp_path):
    save_checkpoint(tmp_path / "model", CONFIG, init_params(CONFIG, 0))
    return tmp_path / "model"


@pytest.fixture
def photo(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


# A model whose last stage is a softmax


def sharp(config):
    """Parameters whose probabilities are far from equal."""
    params = init_params(config, 0)
    rng = np.random.default_rng(1)
    return params | {"head.weight": 3 * rng.normal(size=params["head.weight"].shape).astype(np.float32)}


def test_probabilities_are_not_put_through_another_softmax(tmp_path, photo, capsys):
    printed = []
    for softmax in (False, True):
        config = CONFIG.replace(head_softmax=softmax)
        save_checkpoint(tmp_path / str(softmax), config, sharp(config))
        assert numpy("classify", photo, "--checkpoint", tmp_path / str(softmax), "--top", 10) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    values = [float(line.split()[0]) for line in printed[1].splitlines()[1:]]
    assert sum(values) == pytest.approx(1, abs=6e-4)
    assert values[0] > 0.5


def test_the_loss_of_such_a_model_is_the_one_it_is_trained_with():
    """As in the program it comes from: the cross-entropy of the probabilities, as if they were logits."""
    config = CONFIG.replace(head_softmax=True)
    engine = NumpyEngine()
    engine.load(config, sharp(config))
    rng = np.random.default_rng(2)
    pixels, labels = rng.integers(0, 256, (6, 1, 8, 8)).astype(np.uint8), rng.integers(0, 10, 6)
    split = ArraySplit(pixels, labels)
    names = tuple(map(str, range(10)))
    data = Dataset("drawn", split, split, names, np.array([0.5]), np.array([0.5]))
    images = ((pixels / 255 - 0.5) / 0.5).astype(np.float32)
    trained = engine.trace(images, labels, None, 0.0).loss
    assert evaluate(engine, data, split).loss == pytest.approx(trained, rel=1e-5)


# Places


def test_trace_does_not_write_onto_what_it_reads(model, capsys):
    before = (model / "model.safetensors").read_bytes()
    for more in ((), ("--overwrite",)):
        assert numpy("trace", "--checkpoint", model, "--out", model / "model.safetensors", *more) == 1
        assert "onto what this command reads" in capsys.readouterr().err
    assert (model / "model.safetensors").read_bytes() == before


def test_trace_asks_before_it_replaces_a_file_or_its_manifest(tmp_path, model, capsys):
    out = tmp_path / "t.safetensors"
    assert numpy("trace", "--checkpoint", model, "--out", out) == 0
    before = out.read_bytes()
    assert numpy("trace", "--out", out) == 1
    assert "exists already; replace it (--overwrite)" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert numpy("trace", "--out", out, "--overwrite") == 0
    assert out.read_bytes() != before
    out.unlink()
    assert numpy("trace", "--out", out) == 1
    assert "t.safetensors.json exists already" in capsys.readouterr().err
    assert not out.exists()


def test_attend_leaves_the_photo_and_other_pictures_alone(tmp_path, model, photo, capsys):
    before = photo.read_bytes()
    (tmp_path / "other.png").write_bytes(b"mine")
    for out, more, message in ((photo, ("--overwrite",), "onto what this command reads"),
                               (tmp_path / "other.png", (), "exists already")):  # fmt: skip
        assert numpy("attend", photo, "--checkpoint", model, "--out", out, *more) == 1
        assert message in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert (tmp_path / "other.png").read_bytes() == b"mine"
    pytest.importorskip("matplotlib", reason="the picture is drawn with Matplotlib")
    assert numpy("attend", photo, "--checkpoint", model, "--out", tmp_path / "other.png", "--overwrite") == 0
    assert (tmp_path / "other.png").read_bytes().startswith(b"\x89PNG")


def test_a_name_ends_as_what_is_written(tmp_path, model, photo, capsys):
    assert numpy("attend", photo, "--checkpoint", model, "--out", tmp_path / "x.pdf") == 1
    assert "what is written is a .png file" in capsys.readouterr().err
    assert numpy("trace", "--checkpoint", model, "--out", tmp_path / "x.npz") == 1
    assert "what is written is a .safetensors file" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


# Flags


@pytest.mark.parametrize("verb", ["info", "trace", "classify", "attend", "eval"])
@pytest.mark.parametrize("flag", [("--checkpoint", ""), ("--checkpoint=",)])
def test_an_empty_checkpoint_is_no_fresh_model(tmp_path, verb, flag, photo, capsys):
    more = {"trace": ("--out", tmp_path / "t.safetensors"), "classify": (photo,), "attend": (photo,)}.get(verb, ())
    assert numpy(verb, *more, *flag) == 1
    assert "--checkpoint is empty" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_has_pictures(size, capsys):
    assert numpy("info", "--batch-size", size) == 1
    assert f"--batch-size {size}: expected 1 or more" in capsys.readouterr().err


def test_what_a_file_does_not_tell_is_asked_for_in_words_of_the_command_line(tmp_path, capsys):
    from safetensors.numpy import save_file

    save_file(init_params(CONFIG, 0), tmp_path / "bare.safetensors")
    assert numpy("info", "--checkpoint", tmp_path / "bare.safetensors") == 1
    error = capsys.readouterr().err
    assert "num_heads" in error
    assert f"convert {tmp_path / 'bare.safetensors'} FOLDER --layout timm --architecture NAME" in error


def test_a_hub_folders_file_is_read_with_the_config_json_beside_it(tmp_path, model):
    from vit_common.convert import convert

    convert(model, tmp_path / "hub", "huggingface")
    folder, file = load_checkpoint(tmp_path / "hub"), load_checkpoint(tmp_path / "hub" / "model.safetensors")
    assert folder[0] == file[0]
    assert all(np.array_equal(folder[1][name], file[1][name]) for name in folder[1])
    (model / "config.json").write_text(json.dumps({"vit_config": CONFIG.replace(depth=7).to_dict()}))
    assert load_checkpoint(model / "model.safetensors")[0] == CONFIG  # what the file itself says goes first
