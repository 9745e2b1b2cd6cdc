"""Mutation testing: what the mutator does and leaves alone, how a mutant dies, and a sample of the engines' mutants."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from parity_tests import mutant_run
from parity_tests.mutant_tests import sources
from parity_tests.mutants import EQUIVALENT, known
from parity_tests.mutations import mutants
from parity_tests.planting import ROOT

SOURCE = '''"""Docstring 1."""
import math

def f(x: "int", n: int = 2) -> "str":
    """Docstring 2."""
    check_shape("x", x, ("B", 3))
    if not 0.0 <= n < 1.0:
        raise ValueError(f"n={n} is" " wrong 5")
    y = g(x.T, n, axis=-1)[:, 1:]
    y += x @ y
    y = [a for a in zip(y, y, strict=True)][0:]
    return {"weight": y} if n == 1 else -y
'''


def test_every_kind_of_change():
    found = {(m.kind, m.before, m.after) for m in mutants("file.py", SOURCE)}
    for change in [
        ("number", "def f(x: 'int', n: int=2) -> 'str':", "def f(x: 'int', n: int=3) -> 'str':"),
        ("number", "check_shape('x', x, ('B', 3))", "check_shape('x', x, ('B', 4))"),
        ("statement", "check_shape('x', x, ('B', 3))", "(nothing)"),
        ("comparison", "if not 0.0 <= n < 1.0:", "if not 0.0 < n < 1.0:"),
        ("sign", "if not 0.0 <= n < 1.0:", "if 0.0 <= n < 1.0:"),
        ("statement", "raise ValueError(f'n={n} is wrong 5')", "(nothing)"),
        ("transpose", "y = g(x.T, n, axis=-1)[:, 1:]", "y = g(x, n, axis=-1)[:, 1:]"),
        ("exchange", "y = g(x.T, n, axis=-1)[:, 1:]", "y = g(n, x.T, axis=-1)[:, 1:]"),
        ("argument", "y = g(x.T, n, axis=-1)[:, 1:]", "y = g(x.T, n)[:, 1:]"),
        ("slice", "y = g(x.T, n, axis=-1)[:, 1:]", "y = g(x.T, n, axis=-1)[:, :]"),
        ("exchange", "y += x @ y", "y += y @ x"),
        ("operator", "y += x @ y", "y -= x @ y"),
        ("statement", "y += x @ y", "(nothing)"),
        ("condition", "return {'weight': y} if n == 1 else -y", "return {'weight': y} if not n == 1 else -y"),
        ("name", "return {'weight': y} if n == 1 else -y", "return {'weight_': y} if n == 1 else -y"),
        ("sign", "return {'weight': y} if n == 1 else -y", "return {'weight': y} if n == 1 else y"),
    ]:
        assert change in found


def test_what_is_left_alone():
    for mutant in mutants("file.py", SOURCE):
        for text in ("Docstring 1.", "Docstring 2.", "x: 'int'", "-> 'str'", "import math"):
            assert text in mutant.source
        if "raise" in mutant.source:
            assert "raise ValueError(f'n={n} is wrong 5')" in mutant.source
        assert "zip(y, y, strict=True)" in mutant.source or mutant.kind == "statement"
        assert "check_shape('x', x, ('B', " in mutant.source or mutant.kind in ("statement", "exchange")


def test_keys_outlive_a_change_elsewhere():
    first = mutants("file.py", SOURCE)
    second = mutants("file.py", SOURCE.replace("import math", "import math\n\nz = f(1)"))
    assert len({m.key for m in first}) == len(first)
    assert len({m.source for m in first}) == len(first)
    assert {m.key for m in first} < {m.key for m in second}


def python(*arguments: str) -> subprocess.CompletedProcess:
    """A process without the threads of this one, so that it may fork."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants run in forked processes")


@needs_fork
def test_how_a_mutant_dies():
    """By a failing check, by an error, by a time limit, by taking the process with it; or not at all."""
    done = python(
        "-c",
        "import json, os\n"
        "from parity_tests.mutant_run import allow, run\n"
        "def endless():\n"
        "    allow(0.0)\n"
        "    while True: pass\n"
        "ends = lambda: 'a test', lambda: 1 / 0, endless, lambda: os._exit(3), lambda: ''\n"
        "print(json.dumps([run(end)[:2] for end in ends]))\n",
    )
    want = [[True, "a test"], [True, "ZeroDivisionError: division by zero"], [True, "time limit"],
            [True, "the process died (3)"], [False, "passed"]]  # fmt: skip
    assert json.loads(done.stdout) == want, done.stderr


OLD = """
from functools import partial
from typing import NamedTuple

SIZE = 3
TABLE = {"f": 1}

class Pair(NamedTuple):
    a: int = 1

class Base:
    def g(self):
        return 1

class Derived(Base):
    bias = 5
    kind = Pair
    def g(self):
        return super().g() + self.bias

def f(x, y=1):
    return x + y + SIZE
"""
NEW = OLD.replace("3", "4").replace('"f": 1', '"f": 2').replace("a: int = 1", "a: int = 2").replace("5", "6").replace(
    "super().g() +", "super().g() -").replace("y=1", "y=2").replace("x + y", "x - y")  # fmt: skip


def test_a_patch_reaches_what_was_imported_before(monkeypatch, tmp_path):
    """Functions, classes and their instances, constants, tables: in the module and in those that import from it."""
    monkeypatch.setattr(mutant_run, "ROOT", tmp_path)
    monkeypatch.setattr(mutant_run, "FOLDERS", ["patched_package"])
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "patched_package"
    folder.mkdir()
    (folder / "one.py").write_text(OLD)
    (folder / "two.py").write_text("from patched_package.one import SIZE, TABLE, Derived, Pair, f\nkept = Derived()\n")
    two = importlib.import_module("patched_package.two")
    before = two.f, two.Pair, two.Derived
    assert (two.f(1), two.SIZE, two.TABLE["f"], two.Pair(), two.kept.g()) == (5, 3, 1, (1,), 6)
    mutant_run.patch(sys.modules["patched_package.one"], NEW)
    assert (two.f(1), two.SIZE, two.TABLE["f"], two.Pair(), two.kept.g()) == (3, 4, 2, (2,), -5)
    assert (two.f, two.Pair, two.Derived) == before
    assert two.Derived.kind is two.Pair


@needs_fork
def test_a_sample_of_the_engines_mutants():
    """Each killed, or listed as equivalent. `make mutants` runs them all."""
    done = python("-m", "parity_tests.mutants", "--sample", "12", "--seed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("all")
    assert int(done.stdout.splitlines()[-1].split()[1]) == 12


def test_each_equivalent_mutant_exists_and_has_a_reason():
    entries = json.loads(EQUIVALENT.read_text())
    files = {entry["file"] for entry in entries}
    assert files <= set(sources())
    keys = {m.key: m for file in files for m in mutants(file, (ROOT / file).read_text())}
    for entry in entries:
        assert entry["key"] in keys, f"no mutant {entry['key']} any more: {entry}"
        assert len(entry["why"]) > 10
        mutant = keys[entry["key"]]
        assert (entry["file"], entry["change"]) == (mutant.file, f"{mutant.before}  ->  {mutant.after}")


def test_a_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"file": "a.py", "key": "1", "killed": true}\n{"file": "a.py", "ke')
    assert list(known(path)) == [("a.py", "1")]
