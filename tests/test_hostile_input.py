"""What people type and have on their disks: odd paths, odd pictures, a reader that leaves."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from vit_common import DataError, ViTConfig, init_params, save_checkpoint
from vit_common.cli import VERBS, main
from vit_common.images import load_image

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
ROOT = Path(__file__).parents[1]
LONG = "a" * 300 + ".png"  # longer than a file's name may be


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a picture and a model of two classes."""
    monkeypatch.chdir(tmp_path)
    config = ViTConfig(image_size=8, patch_size=4, num_classes=2, embed_dim=8, num_heads=2, depth=1)
    save_checkpoint("model.safetensors", config, init_params(config, 0))
    Image.new("RGB", (9, 8), (10, 20, 30)).save("one.png")
    return tmp_path


def one_line(capsys, *argv: str) -> str:
    assert main(NumpyEngine, argv) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("classify", LONG, "--checkpoint", "model.safetensors"), "name another file"),
        (("classify", "one.png", "--checkpoint", LONG), "name another file"),
        (("attend", "one.png", "--checkpoint", "model.safetensors", "--out", LONG), "name another file"),
        (("classify", "one.png", "--checkpoint", "model.safetensors", "--mean"), "--mean has 0 numbers"),
        (("classify", "one.png", "--checkpoint", "model.safetensors", "--std"), "--std has 0 numbers"),
        (("classify", "one.png", "--checkpoint", "model.safetensors", "--resize", "0"), "resize is 0"),
        (("info", "--data", "minst"), "did you mean 'mnist'"),
        (("info", "--data", "one.png"), "one.png is a file"),
        (("info", "--data", "no/such"), "there is no folder no/such"),
    ],
)
def test_one_line_says_what_is_wrong(here, capsys, argv, words):
    assert words in one_line(capsys, *argv)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes that have names")
def test_a_pipe_is_not_said_to_be_absent_nor_waited_for(here):
    os.mkfifo("pipe.png")
    with pytest.raises(DataError, match="is a device or a pipe"):
        load_image("pipe.png")
    with pytest.raises(DataError, match="does not exist"):
        load_image("absent.png")


def test_an_error_that_no_file_is_to_blame_for_is_not_hidden(monkeypatch):
    def fail(*argv):
        raise OSError(5000, "of the program itself")

    monkeypatch.setattr("vit_common.commands.info.run", fail)
    with pytest.raises(OSError, match="of the program itself"):
        main(NumpyEngine, ["info"])


def test_lab_becomes_grey_by_way_of_rgb(here):
    """Pillow converts it to nothing else."""
    Image.open("one.png").convert("LAB").save("lab.tif")
    want = Image.open("lab.tif").convert("RGB")
    np.testing.assert_array_equal(load_image("lab.tif"), np.asarray(want))
    np.testing.assert_array_equal(load_image("lab.tif", 1)[..., 0], np.asarray(want.convert("L")))


def child(*argv: str, script: str = "", **environment: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "numpy_vit", *argv]
    if script:
        words = ["sh", "-c", script, "sh", *words]
    whole = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(words, capture_output=True, env=whole, timeout=300)


@pytest.mark.parametrize("name", ["two words.png", "ünï-图.png", "-dash.png", "./sub/../one.png"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_the_terminal_cannot_show_is_a_name(here, name, encoding):
    Path("sub").mkdir()
    Image.new("RGB", (8, 8)).save(name)
    done = child("classify", "--checkpoint", "model.safetensors", "--", name, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = str(Path(name)).encode(encoding, "backslashreplace")
    assert done.stdout.splitlines()[0] == shown


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text, not bytes")
def test_a_name_that_is_no_text_is_a_name(here):
    name = os.fsdecode(b"\xff.png")
    Image.new("RGB", (8, 8)).save(name)
    done = child("classify", name, "--checkpoint", "model.safetensors", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(os.name == "nt", reason="has no sh")
@pytest.mark.parametrize("argv", [(verb, "--help") for verb in VERBS] + [("--help",), ("info",)], ids=" ".join)
def test_a_reader_that_leaves_leaves_no_traceback(argv):
    done = child(*argv, script='{ "$@"; echo "status $?" >&2; } | true')
    assert done.stderr == b"status 0\n"


@pytest.mark.skipif(os.name == "nt", reason="has no sh")
def test_a_closed_output_is_no_reason_to_fail():
    done = child("info", script='"$@" >&-; echo "status $?" >&2')
    assert done.stderr == b"status 0\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a system without /dev/full")
def test_an_output_to_a_full_disk_is_an_error_of_one_line():
    done = child("info", script='"$@" > /dev/full; echo "status $?" >&2')
    error, status = done.stderr.decode().splitlines()
    assert error == "error: the output: No space left on device; put that right, or name another file"
    assert status == "status 1"
