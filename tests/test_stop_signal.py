"""Who asks a training to stop, and how often; and Ctrl-C before there is a training."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vit_common.stop_signal import stop_signal

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without SIGHUP")


@pytest.fixture
def hang_up_is():
    """Set the handler of SIGHUP; it is put back."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_asks_however_often_it_is_told(hang_up_is):
    hang_up_is(signal.SIG_DFL)
    with stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_under_nohup_a_closed_terminal_asks_nothing(hang_up_is):
    hang_up_is(signal.SIG_IGN)
    with stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_ask_stops_at_once(hang_up_is, second):
    hang_up_is(signal.SIG_DFL)
    with stop_signal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), second)


@pytest.mark.parametrize("program", ["numpy_vit", "torch_vit"])
def test_ctrl_c_while_the_program_is_imported_ends_it_quietly(program):
    if program == "torch_vit":
        pytest.importorskip("torch", reason="torch is not installed")
    code = (
        "import os, runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background it is ignored\n"
        "class Press:\n"
        "  def find_spec(self, name, *rest):\n"
        "    if name == 'vit_common.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
        "runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code, program]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


CLOSING = """
import os, sys
from numpy_vit.engine import NumpyEngine
from vit_common.cli import main
class Closing(NumpyEngine):
    steps = 0
    def train_step(self, *batch):
        self.steps += 1
        if self.steps == 3: os.write(int(sys.argv[1]), b'.'); os.read(int(sys.argv[2]), 1)  # the terminal closes now
        return super().train_step(*batch)
status = main(Closing, sys.argv[3:])
os.write(int(sys.argv[1]), b'%d' % status)
os._exit(status)
"""


def test_a_closed_terminal_leaves_a_run_that_goes_on(tmp_path):
    pty = pytest.importorskip("pty", reason="a system without pseudo-terminals")
    told, tell = os.pipe()
    waits, go = os.pipe()
    child, terminal = pty.fork()
    if not child:  # it leads a session of its own, whose terminal is the pseudo-terminal
        os.environ["PYTHONPATH"] = str(ROOT)
        for end in (tell, waits):
            os.set_inheritable(end, True)
        flags = "--epochs", "1", "--depth", "1", "--embed-dim", "8", "--num-heads", "2", "--batch-size", "128"
        argv = [sys.executable, "-c", CLOSING, str(tell), str(waits), "train", *flags, "--out", str(tmp_path / "run")]
        os.execv(sys.executable, argv)
    os.close(tell)
    assert os.read(told, 1) == b"."
    os.close(terminal)
    os.write(go, b".")
    status = os.read(told, 9)
    os.waitpid(child, 0)
    for end in (told, waits, go):
        os.close(end)
    assert status in (b"130", b"141")  # the stop, or first that nobody reads
    assert (tmp_path / "run" / "state.safetensors").exists()
    from vit_common.run_folder import RunFolder

    assert RunFolder(tmp_path / "run").state()[1] == 3
