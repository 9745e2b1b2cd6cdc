"""A mutant in a forked child of a process that has everything imported: the change is put into the modules in use.

So a mutant costs neither imports nor collection of tests, only its tests up to the first that fails.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import pytest

from parity_tests.planting import ROOT

FOLDERS = "numpy_vit", "torch_vit", "vit_common", "parity_tests", "tests"
MEMORY = 8 << 30  # bytes of address space: a mutant may ask for an absurd array
PATIENCE = 60  # how often the parent waits ten seconds for the next test of a child that hangs
BEAT, HEART = "\0", list[int]()  # what a child says between two tests, and where
TRIAL = """
import torch
from hypothesis import given, strategies as st
from torch.func import functional_call, grad, jvp

@given(x=st.floats(0, 1))
def test_trial(x):
    jvp(grad(lambda a: a * a), (torch.tensor(x),), (torch.tensor(1.0),))
    layer = torch.nn.Linear(2, 2)
    functional_call(layer, dict(layer.named_parameters()), torch.zeros(1, 2)).sum().backward()
"""


class Verdict(NamedTuple):
    killed: bool
    by: str  # the test that failed first, or how else the mutant died
    seconds: float


Check = Callable[[], str]  # says what failed first, or nothing


def warm_up() -> None:
    """Pytest, hypothesis and autograd load much only when they are used: let the parent do it, once for all."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        trial = Path(folder, "test_trial.py")
        trial.write_text(TRIAL)
        pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:pytest_cov", str(trial)])


# ---- the child -------------------------------------------------------------------------------------------------


def run(check: Check) -> Verdict:
    """Run the check in a child: killed if it fails, dies, or takes longer than it allows itself."""
    gc.freeze()  # no collection in the child touches, and so copies, what the parent has
    start = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _child(check, writing)
    os.close(writing)
    said, waited = "", 0
    while waited < PATIENCE:  # in pieces, so that a parent that was stopped meanwhile does not count the pause
        waited += 1
        if select.select([reading], [], [], 10.0)[0]:
            heard = os.read(reading, 4096).decode()
            if not heard:
                break
            said, waited = said + heard.strip(BEAT), 0
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not said:
        said = "time limit" if -code in (signal.SIGXCPU, signal.SIGKILL) else f"the process died ({code})"
    return Verdict(said != "passed", said, time.monotonic() - start)


def allow(seconds: float) -> None:
    """Of processor time, from now on: by the clock, a mutant would die of a machine that is busy or paused."""
    import resource  # not on Windows, which has no fork either

    if HEART:
        os.write(HEART[0], BEAT.encode())
    ends = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (ends, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _child(check: Check, writing: int) -> None:
    import resource

    said = ""
    HEART.append(writing)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        said = check() or "passed"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        os.write(writing, (said or "nothing said")[:1000].encode())
        os._exit(0)


# ---- the change ------------------------------------------------------------------------------------------------


def patch(module: ModuleType, source: str) -> None:
    """Let a module do what `source` says, and with it everything that has imported from it.

    Functions and classes stay the same objects, with new insides; a constant is replaced wherever it was imported.
    """
    before = dict(vars(module))
    exec(compile(source, str(module.__file__), "exec"), vars(module))
    changed = {n: new for n, new in vars(module).items() if n in before and new is not before[n] and n[:2] != "__"}
    own = {name for name, new in changed.items() if _is_of(module, new)}
    olds = {id(changed[name]): before[name] for name in own}
    for name, new in changed.items():
        old = before[name]
        if name in own:
            _transplant(old, new, olds)
            setattr(module, name, old)
        elif isinstance(new, dict):
            old.clear()
            old.update(new)
            setattr(module, name, old)
        else:
            for other in _importers(module.__name__):
                if vars(other).get(name) is old:
                    setattr(other, name, new)


def _is_of(module: ModuleType, thing: Any) -> bool:
    return isinstance(thing, (FunctionType, type)) and thing.__module__ == module.__name__


def _transplant(old: Any, new: Any, olds: dict[int, Any]) -> None:
    if isinstance(new, FunctionType):
        old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
        return
    for name, value in vars(new).items():
        if name in ("__dict__", "__weakref__", "__module__"):
            continue
        function = getattr(value, "__func__", value)
        for variable, cell in zip(*_closure(function), strict=True):
            if variable == "__class__":  # what super() looks at
                cell.cell_contents = old
        setattr(old, name, olds.get(id(value), value))


def _closure(function: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    if not isinstance(function, FunctionType):
        return (), ()
    return function.__code__.co_freevars, function.__closure__ or ()


@cache
def _importers(name: str) -> list[ModuleType]:
    """The project's modules that say `from name import`."""
    files = {str(path) for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.py") if _says(path, name)}
    return [module for module in list(sys.modules.values()) if getattr(module, "__file__", None) in files]


def _says(path: Path, name: str) -> bool:
    return f"from {name} import" in path.read_text()
