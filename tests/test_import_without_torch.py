"""`numpy_vit` and `vit_common` need NumPy alone; see `numpy_only.py`, which runs in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("numpy_only.py")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def report() -> dict:
    result = run()
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_every_module_imports_with_numpy_alone(report):
    assert {"numpy_vit.model", "vit_common.config", "vit_common.data"} <= set(report["modules"])
    assert report["foreign"] == []


def test_importing_starts_writes_and_connects_nothing(report):
    assert report["import"] == {"events": [], "absent in a browser": []}


def test_gradients_of_the_whole_model_with_numpy_alone(report):
    assert len(report["float64"]) == 4
    assert {name: error for name, error in report["float64"].items() if not error < 1} == {}


@pytest.mark.parametrize("module", ["torch", "torch_vit", "PIL", "safetensors", "tyro"])
def test_the_hook_refuses_what_is_installed(module):
    result = run(module)
    assert result.returncode != 0
    assert "is refused here: NumPy alone" in result.stderr


def test_the_watch_hears_files_processes_and_sockets(tmp_path):
    code = """
import os, socket, subprocess, sys
sys.path.insert(0, {folder!r})
from numpy_only import Watch
watch = Watch()
open(os.devnull).close()
watch.on = True
open(os.devnull).close()
open({file!r}, "w").close()
subprocess.run([sys.executable, "-c", ""])
socket.socket().close()
watch.on = False
print([event.split("(")[0] for event in watch.seen])
"""
    code = code.format(folder=str(SCRIPT.parent), file=str(tmp_path / "made"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    heard = result.stdout
    assert result.returncode == 0, result.stderr
    assert all(event in heard for event in ("'open'", "'subprocess.Popen'", "'socket.__new__'"))
    assert heard.count("'open'") == 1
