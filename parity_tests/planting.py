"""A second copy of an engine in memory, some of its source changed, for testing the tests.

The package is imported again under its own name, the changed sources through an import hook, so composites call the
changed stage; then the true modules are put back. Nothing is written to disk.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Planted(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Finds the modules it is given sources for, and no other. `sources`: dotted name -> text."""

    def __init__(self, sources: Mapping[str, str]):
        self.sources = sources

    def find_spec(self, fullname: str, path: Any = None, target: Any = None):
        if fullname not in self.sources:
            return None
        file = self.get_filename(fullname)
        places = [str(Path(file).parent)] if file.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(fullname, file, loader=self, submodule_search_locations=places)

    def get_filename(self, fullname: str) -> str:
        return str(source_path(fullname))

    def get_data(self, path: str | bytes) -> bytes:
        name = next(n for n in self.sources if self.get_filename(n) == str(path))
        return self.sources[name].encode()


def source_path(module: str) -> Path:
    base = ROOT.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def engine_with(sources: Mapping[str, str], package: str = "numpy_vit") -> Any:
    """The package, imported afresh with some modules' source replaced."""
    mine = {n: m for n, m in sys.modules.items() if n == package or n.startswith(package + ".")}
    finder = Planted(sources)
    for name in mine:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(package)
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
            del sys.modules[name]
        sys.modules.update(mine)


@contextmanager
def under_test(engine: Any) -> Iterator[None]:
    """Point the harness at another engine for a while, and keep what it measures out of the report."""
    from parity_tests import harness

    before = harness.ENGINE, harness.RECORDS
    harness.ENGINE, harness.RECORDS = engine, {}
    try:
        yield
    finally:
        harness.ENGINE, harness.RECORDS = before
