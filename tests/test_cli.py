"""The commands, as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from vit_common import PRESETS, ViTConfig, init_params, save_checkpoint
from vit_common.cli import VERBS, main, peek
from vit_common.commands.classify import read_labels
from vit_common.errors import DataError
from vit_common.recipe import Recipe

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("VIT_SHARED", ROOT.parent / "shared")) / "data"
TINY = SHARED / "vit-tiny-in1k" / "vit_tiny_patch16_224_augreg_in21k_ft_in1k.fp16.npz"
DEIT = SHARED / "deit-tiny-in1k" / "deit_tiny_patch16_224.fp16.npz"
needs_weights = pytest.mark.skipif(not TINY.is_file(), reason=f"no weights at {TINY} (VIT_SHARED)")
SMALL = ("--epochs", "1", "--depth", "1", "--embed-dim", "8", "--num-heads", "2", "--batch-size", "128")


def numpy(*argv: object) -> int:
    return main(NumpyEngine, [str(word) for word in argv])


def child(*argv: object, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # as many threads as here: sums are then the same to the bit
    words = [sys.executable, *map(str, argv)]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert numpy("train", *SMALL, "--out", folder) == 0
    return folder


@pytest.fixture
def picture(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_help_names_every_verb_and_a_wrong_verb_gets_the_nearest(capsys):
    assert numpy("--help") == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in VERBS)
    assert numpy() == 2
    assert numpy("trian") == 2
    assert "did you mean 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_needs_no_files(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        numpy(verb, "--help")
    assert stop.value.code == 0
    assert "usage: python -m numpy_vit" in capsys.readouterr().out


def test_every_field_of_model_and_recipe_is_a_flag_with_the_datasets_default(capsys):
    with pytest.raises(SystemExit):
        numpy("train", "--data", "mnist", "--help")
    said = capsys.readouterr().out
    for name in (*ViTConfig.__dataclass_fields__, *Recipe.__dataclass_fields__):
        assert f"--{name.replace('_', '-')}" in said, name
    for default in ("(default: 28 28)", "(default: 7 7)", "(default: 64)"):
        assert default in said


def test_flags_win_over_the_preset_and_the_preset_over_the_dataset(capsys):
    assert numpy("info", "--preset", "vit_tiny_patch16_224", "--num-classes", "1000") == 0
    assert "5,717,416" in capsys.readouterr().out
    assert numpy("info", "--data", "mnist", "--depth", "2") == 0
    assert "over 2 blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["info", "--preset", "vit_tiny_patch16_24"], "did you mean 'vit_tiny_patch16_224'"),
        (["train", "--data", "fashion-minst"], "did you mean 'fashion-mnist'"),
        (["train", "--data", "no/such/folder"], "there is no folder no/such/folder"),
        (["eval", "--checkpoint", "absent"], "there is no checkpoint absent"),
        (["train", "--resume", "absent"], "absent is not a run folder"),
        (["trace"], "--out FILE"),
        (["classify", "--checkpoint", "absent"], "no picture given"),
    ],
)
def test_a_mistake_is_one_line_that_says_the_way_out(capsys, argv, words):
    assert numpy(*argv) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--embed-dim", "10", "--num-heads", "4"], "does not divide"),
        (["--image-size", "9"], "is not divisible by patch_size"),
        (["--embd-dim", "10"], "--embed-dim"),
        (["--lr", "fast"], "--lr"),
        (["--pool", "max-ish"], "--pool"),
    ],
)
def test_a_wrong_flag_is_refused_with_its_name(capsys, argv, words):
    with pytest.raises(SystemExit) as stop:
        numpy("train", *argv)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err.replace("\n│", "").replace("  ", " ")


def test_training_leaves_a_run_folder_that_every_verb_understands(run, picture, tmp_path, capsys):
    names = {path.name for path in run.iterdir()}
    assert names == {"run.json", "config.json", "metrics.jsonl", "model.safetensors", "state.safetensors", "curves.png"}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [*range(1, 12), 11]  # 1437 // 128 steps, then the epoch
    assert numpy("eval", "--checkpoint", run) == 0
    assert (
        f"accuracy {records[-1]['test_accuracy']:.2%}, loss {records[-1]['test_loss']:.4f}" in capsys.readouterr().out
    )
    assert numpy("info", "--checkpoint", run) == 0
    assert "over 1 blocks" in capsys.readouterr().out
    assert numpy("classify", picture, "--checkpoint", run / "model.safetensors", "--top", 3) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(picture)
    assert len(lines) == 4
    assert numpy("trace", "--checkpoint", run, "--out", tmp_path / "t.safetensors") == 0
    assert (tmp_path / "t.safetensors.json").exists()


def test_a_longer_run_goes_on_and_equals_one_that_was_never_stopped(tmp_path, capsys):
    long = ("--depth", "1", "--embed-dim", "8", "--num-heads", "2", "--batch-size", "128", "--epochs", "2")
    assert numpy("train", *long, "--out", tmp_path / "whole") == 0
    code = (
        "import os, signal, sys; from numpy_vit.engine import NumpyEngine as E; from vit_common.cli import main\n"
        "class Stopped(E):\n"
        "  n = 0\n"
        "  def train_step(self, *a):\n"
        "    self.n += 1\n"
        "    if self.n == 7: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return super().train_step(*a)\n"
        "sys.exit(main(Stopped, sys.argv[1:]))\n"
    )
    cut = child("-c", code, "train", *long, "--out", tmp_path / "cut")
    assert cut.returncode == 130, cut.stderr
    assert "stopped after step 7; go on with: python -m numpy_vit train --resume" in cut.stdout
    assert numpy("train", "--resume", tmp_path / "cut") == 0
    assert "test accuracy" in capsys.readouterr().out
    whole, again = (tmp_path / name / "model.safetensors" for name in ("whole", "cut"))
    from vit_common import load_checkpoint

    (_, a), (_, b) = load_checkpoint(whole), load_checkpoint(again)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_signal_from_outside_saves_the_run(tmp_path):
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "numpy_vit", "train", "--epochs", "1000", "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # as many threads as here: sums are then the same to the bit
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, env=environment, **quiet) as process:
        deadline = time.monotonic() + 120
        lines = folder / "metrics.jsonl"  # empty until a step is taken, and no signal is awaited before the first
        while not (lines.exists() and lines.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 130
    assert (folder / "model.safetensors").exists()
    assert (folder / "state.safetensors").exists()


def test_a_run_is_not_overwritten_by_accident(run, capsys):
    before = (run / "model.safetensors").read_bytes()
    assert numpy("train", *SMALL, "--out", run) == 1
    assert "--resume" in capsys.readouterr().err
    assert (run / "model.safetensors").read_bytes() == before


def test_two_engines_trained_by_the_same_command_agree(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    from torch_vit.engine import TorchEngine

    flags = (*SMALL, "--dtype", "float64", "--proj-drop-rate", "0.1", "--augment", "shift")
    losses = []
    for engine, extra in ((NumpyEngine, ()), (TorchEngine, ("--device", "cpu"))):
        out = tmp_path / engine.name
        assert main(engine, ["train", *flags, *extra, "--out", str(out)]) == 0
        losses.append([json.loads(line).get("loss", 0) for line in (out / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_an_unusable_device_is_an_error_that_says_so(capsys):
    pytest.importorskip("torch", reason="torch is not installed")
    from torch_vit.engine import TorchEngine

    assert main(TorchEngine, ["train", *SMALL, "--device", "cuda:99"]) == 1
    assert "device 'cuda:99' cannot be used" in capsys.readouterr().err


def test_traces_compare_and_a_difference_fails(tmp_path, capsys):
    for seed in (0, 1):
        assert numpy("trace", "--seed", seed, "--depth", 1, "--out", tmp_path / f"{seed}.safetensors") == 0
    same = ("trace", "--mine", tmp_path / "0.safetensors", "--against", tmp_path / "0.safetensors")
    assert numpy(*same) == 0
    assert "entries agree" in capsys.readouterr().out
    assert numpy(*same[:-1], tmp_path / "1.safetensors") == 1
    assert "first beyond 0.0001: images" in capsys.readouterr().out


def test_a_folder_of_pictures_makes_a_model_with_its_classes(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        for i in range(4):
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    folder, out = tmp_path / "pets", tmp_path / "run"
    size = ("--image-size", "16", "24", "--patch-size", "8")
    assert numpy("train", "--data", folder, *SMALL, *size, "--out", out) == 0
    assert "3 classes" in capsys.readouterr().out
    assert json.loads((out / "run.json").read_text())["class_names"] == ["cat", "dog", "owl"]
    assert numpy("classify", folder / "cat" / "0.png", "--checkpoint", out) == 0
    assert sorted(line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]) == ["cat", "dog", "owl"]
    assert numpy("eval", "--checkpoint", out) == 0


def test_classify_says_what_is_wrong_with_a_picture_a_label_file_or_a_parameter(run, tmp_path, capsys, picture):
    (tmp_path / "no.png").write_text("not a picture")
    assert numpy("classify", tmp_path / "no.png", "--checkpoint", run) == 1
    assert "no.png cannot be read" in capsys.readouterr().err
    (tmp_path / "two.txt").write_text("yes\nno\n")
    assert numpy("classify", picture, "--checkpoint", run, "--labels", tmp_path / "two.txt") == 1
    assert "names 2 classes, the model has 10" in capsys.readouterr().err
    config = ViTConfig(image_size=8, patch_size=4, num_classes=2, embed_dim=8, num_heads=2, depth=1)
    params = init_params(config, 0)
    params["head.bias"][1] = np.nan
    save_checkpoint(tmp_path / "nan.safetensors", config, params)
    asked = ("classify", picture, "--checkpoint", tmp_path / "nan.safetensors")
    assert numpy(*asked, "--check-finite") == 1
    assert "head.bias holds 1 non-finite" in capsys.readouterr().err
    assert numpy(*asked) == 0  # without the flag NaN goes through, and crashes nothing
    assert "nan" in capsys.readouterr().out


def test_labels_come_one_a_line_or_with_index_and_id(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("first\n\nsecond thing\n")
    assert read_labels(path) == ["first", "second thing"]
    path.write_text("1\tn02\tdog, hound\n0\tn01\tcat\n")
    assert read_labels(path) == ["cat", "dog, hound"]
    path.write_text("0\tn01\tcat\n2\tn02\tdog\n")
    with pytest.raises(DataError, match="0 to 1"):
        read_labels(path)


@needs_weights
@pytest.mark.parametrize(("weights", "model"), [(TINY, "vit_tiny_in1k_fp16weights"), (DEIT, "deit_tiny_in1k_lnquant")])
@pytest.mark.parametrize("folder", [".", "crops224"])
def test_photographs_get_their_known_class(capsys, weights, model, folder):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    known = json.loads((SHARED / "photos" / "expected_top5.json").read_text())
    photos = sorted(path for path in (SHARED / "photos" / folder).iterdir() if path.stem.removesuffix("_224") in known)
    assert len(photos) == 6
    crop = ("--resize", 224) if folder == "crops224" else ()
    labels = SHARED / "vit-tiny-in1k" / "imagenet1k_labels.txt"
    assert numpy("classify", *photos, "--checkpoint", weights, "--labels", labels, "--top", 1, *crop) == 0
    for photo, line in zip(photos, capsys.readouterr().out.splitlines()[1::2], strict=True):
        index, name, probability = known[photo.stem.removesuffix("_224")][model][0]
        found_probability, found_index, found_name = line.split(maxsplit=2)
        assert (int(found_index), found_name) == (index, name), photo
        # The very pixels and the very weights (DeiT's were not yet rounded to float16): four digits are the same.
        if folder == "crops224" and weights == TINY:
            assert float(found_probability) == pytest.approx(probability, abs=1.01e-4)


@needs_weights
def test_classify_imports_nothing_slow():
    pytest.importorskip("PIL", reason="Pillow is not installed")
    code = (
        "import sys, numpy; known = set(sys.modules)\n"
        "from numpy_vit.engine import NumpyEngine; from vit_common.cli import main\n"
        "status = main(NumpyEngine, sys.argv[1:])\n"
        "slow = {'torch', 'matplotlib', 'sklearn', 'scipy', 'pandas', 'tqdm', 'requests', 'pooch', 'typeguard',\n"
        "        'asyncio', 'importlib.metadata', 'numpy.random'} & (set(sys.modules) - known)\n"
        "sys.exit(status or (f'imported {slow}' if slow else 0))\n"
    )
    result = child("-c", code, "classify", SHARED / "photos" / "chelsea.png", "--checkpoint", TINY)
    assert result.returncode == 0, result.stderr
    assert "Egyptian cat" in result.stdout


def test_peek_reads_a_flag_in_both_spellings_and_the_last_wins():
    assert peek(["--data", "a", "--data=b"], "--data") == "b"
    assert peek(["--data-dir", "a"], "--data", "none") == "none"
    assert peek(["--data"], "--data", "none") == "none"


def test_every_preset_has_a_table(capsys):
    for name in PRESETS:
        assert numpy("info", "--preset", name) == 0
    assert capsys.readouterr().out.count("total") == len(PRESETS)


def test_a_model_is_neither_evaluated_nor_resumed_on_other_classes(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for folder, names in (("three", ("cat", "dog", "zebra")), ("two", ("dog", "zebra"))):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(4):
                image.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)).save(tmp_path / folder / name / f"{i}.png")
    out = tmp_path / "run"
    size = ("--image-size", "16", "16", "--patch-size", "8")
    assert numpy("train", "--data", tmp_path / "three", *SMALL, *size, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert numpy("eval", "--checkpoint", out, "--data", tmp_path / "two") == 1
    assert "it lacks cat; give data with the classes cat, dog, zebra" in capsys.readouterr().err
    assert numpy("train", "--resume", out, "--data", tmp_path / "two", "--epochs", 2) == 1
    assert "it lacks cat;" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (tmp_path / "three").rename(tmp_path / "moved")
    assert numpy("eval", "--checkpoint", out, "--data", tmp_path / "moved") == 0
    assert numpy("train", "--resume", out, "--data", tmp_path / "moved", "--epochs", 2) == 0


def test_a_run_is_not_resumed_as_another_one(run, capsys):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for flags, words in ((("--batch-size", 64), "batch_size was 128 and is now 64"), (("--seed", 1), "seed was 0"),
                         (("--depth", 2), "depth was 1 and is now 2")):  # fmt: skip
        assert numpy("train", "--resume", run, "--epochs", 2, *flags) == 1
        assert words in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
