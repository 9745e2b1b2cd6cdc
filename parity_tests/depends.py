"""What a test depends on, so that what it has passed can be kept until one of that changes.

A test depends on its own function, on what that names in its file and imports, and on all that those import in turn. A
test of one stage (its file, or its parameter, says which) takes of both engines that stage's files and what they
import; any other test takes all of both.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from typing import Any

from parity_tests.planting import ROOT, source_path

ENGINES, COMMON = ("numpy_vit", "torch_vit"), "vit_common"
PACKAGES = (*ENGINES, COMMON, "parity_tests", "benchmarks")
# The file of a stage that is not named after it.
FILES = {"softmax": "attention", "drop_path": "dropout", "pool": "head", "cross_entropy": "loss", "vit": "model"}
# What speaks only after a failure, or of another's engine: it decides nothing.
ASIDE = {f"parity_tests.{name}" for name in ("foreign", "diagnosis", "reproduce", "traces")}


def modules(item: Any) -> frozenset[str]:
    """Every module that a test depends on; of its own file the definitions, `module:name`."""
    test = frozenset[str]()
    if item.path.parent.name == "parity_tests":
        test = needs(f"parity_tests.{item.path.stem}", getattr(item, "originalname", ""))
    own = {m for m in test if m.split(".")[0] not in ENGINES}
    parts = [reached(f"{engine}.{file}") for engine in ENGINES for file in stage_files(item)]
    return frozenset(own.union(*parts) if parts else own | every_engine_file())


def stage_files(item: Any) -> list[str]:
    """The file of the stage that a test is about; none if it is about several."""
    given = getattr(item, "callspec", None)
    named = given.params.get("name") if given else None
    stage = named if isinstance(named, str) else item.path.stem.removeprefix("test_")
    file = FILES.get(stage, stage)
    return [file] if (ROOT / ENGINES[0] / f"{file}.py").is_file() else []


@cache
def every_engine_file() -> frozenset[str]:
    return frozenset(f"{e}.{p.stem}" for e in ENGINES for p in (ROOT / e).glob("*.py"))


@cache
def needs(module: str, name: str) -> frozenset[str]:
    """What a definition of a module needs: `module:name` of itself and of what it names there, and imported modules."""
    table = top_level(module)
    if name not in table:
        return reached(module)
    found: set[str] = set()
    todo = [name, *(n for n in table if n.startswith("#") or n == "pytestmark")]
    while todo:
        name = todo.pop()
        if name not in table or f"{module}:{name}" in found:
            continue
        for node in ast.walk(table[name]):
            found.update(*(reached(m) for m in imported(node, name)))
            todo += [getattr(node, "id", getattr(node, "arg", None)) or ""]
        if not isinstance(table[name], ast.Import | ast.ImportFrom):
            found.add(f"{module}:{name}")
    return frozenset(found)


@cache
def top_level(module: str) -> dict[str, ast.stmt]:
    """Name -> the statement of a module that binds it; `#0`, ... what binds none, and always runs."""
    table: dict[str, ast.stmt] = {}
    for i, statement in enumerate(ast.parse(source_path(module).read_text(encoding="utf-8")).body):
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names = [name]
            case ast.Import() | ast.ImportFrom():
                names = [(a.asname or a.name).split(".")[0] for a in statement.names]
            case _:
                names = [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        table |= dict.fromkeys(names or [f"#{i}"], statement)
    return table


@cache
def reached(module: str) -> frozenset[str]:
    """The module and all that it imports, directly or not; not what an engine's __init__ gathers, nor ASIDE."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen and name not in ASIDE:
            seen.add(name)
            todo += imports(name) if name not in ENGINES else []
    return frozenset(seen)


@cache
def imports(module: str) -> frozenset[str]:
    """The project's modules that a module names in its imports, wherever they stand."""
    nodes = ast.walk(ast.parse(source_path(module).read_text(encoding="utf-8")))
    return frozenset[str]().union(*map(imported, nodes))


def imported(node: ast.AST, only: str = "") -> set[str]:
    """The project's modules of an import; of one that brings the name `only`, those of that name."""
    found = set()
    if isinstance(node, ast.Import | ast.ImportFrom):
        brings = {(a.asname or a.name).split(".")[0]: a.name for a in node.names}
        names = [brings[only]] if only in brings else [a.name for a in node.names]
        if isinstance(node, ast.Import):
            found = set(names)
        elif node.module:
            where = gathered() if node.module == COMMON else {}
            found = {where.get(name, node.module) for name in names} | {f"{node.module}.{name}" for name in names}
    return {n for n in found if n.split(".")[0] in PACKAGES and source_path(n).is_file()}


@cache
def gathered() -> dict[str, str]:
    """Name -> the module that defines it, of what vit_common hands out as its own."""
    tree = ast.parse(source_path(COMMON).read_text(encoding="utf-8"))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    found = {alias.name: node.module for node in froms for alias in node.names if node.module != COMMON}
    return found | dict.fromkeys(("load_checkpoint", "save_checkpoint"), "vit_common.checkpoint")


@cache
def digest(names: frozenset[str]) -> str:
    found = hashlib.blake2b(digest_size=12)
    for name in sorted(names):
        module, _, definition = name.partition(":")
        whole = source_path(module).read_text(encoding="utf-8")
        source = ast.unparse(top_level(module)[definition]) if definition else whole
        found.update(f"{name}\n{meaning(source)}".encode())
    return found.hexdigest()


def meaning(source: str) -> str:
    """A source without its comments, docstrings and functions' annotations: changing those changes no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
