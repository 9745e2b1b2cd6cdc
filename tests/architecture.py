"""What the source tree must look like, read with `ast` alone: each check takes a root folder, returns its complaints.

Nothing is imported, so that a check can also be shown a small tree that breaks the rule (`test_architecture.py` does).
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ENGINES = ("numpy_vit", "torch_vit")
STDLIB = set(sys.stdlib_module_names)

# package -> (what it may import while it is being imported, what it may never import, not even inside a function)
ARROWS: dict[str, tuple[set[str], set[str]]] = {
    "vit_common": (STDLIB | {"numpy", "vit_common"}, {"numpy_vit", "torch_vit"}),
    "numpy_vit": (STDLIB | {"numpy", "vit_common", "numpy_vit"}, {"torch_vit", "torch"}),
    "torch_vit": (STDLIB | {"numpy", "torch", "vit_common", "torch_vit"}, {"numpy_vit"}),
}
OUTSIDE = {"parity_tests", "benchmarks", "demo", "docs", "tests"}  # these see the three packages, never the reverse

NO_STAGE = {"__init__", "__main__", "engine"}
# Other files that are no stage, and why the other engine has no twin of them.
ALONE = {
    "torch_vit/augment.py": "the twin of vit_common/augment.py, on the device",
    "torch_vit/compiled.py": "torch.compile",
    "torch_vit/fast_cpu.py": "which of torch's float32 products to call on a CPU; NumPy has one",
    "torch_vit/numerics.py": "torch's settings of precision and attention kernels",
    "torch_vit/options.py": "the engine's options; NumPy has none",
    "torch_vit/predictor.py": "inference from a copy of the weights that the device multiplies faster",
    "torch_vit/recompute.py": "activation checkpointing, which changes modules; in NumPy a cache is data",
    "torch_vit/tape.py": "hooks on modules; in NumPy a tape is a dict that the stages write into",
    "torch_vit/transfer.py": "between host and device",
    "torch_vit/update.py": "torch's optimizer objects; in NumPy the optimizer's functions",
}
# Forwards that one engine has and the other has not, and why.
ONE_ENGINE = {
    "torch_vit.attention.fused_attention_forward": "torch's fused kernel: a second way to compute attention_forward",
}
# Parameters that only NumPy functions take: torch's tape hangs on hooks, and its modules cast what they hold.
NUMPY_ONLY = {"tape", "dtype"}
# NumPy forwards without a backward, and why.
NO_BACKWARD: dict[str, str] = {}

# Files that put the variants together as a configuration asks: no mathematics of their own, and in torch, modules.
ASSEMBLY = {"activation", "assembled", "assembled_attention", "assembled_block", "assembled_encoder", "assembled_head",
            "branch", "norm", "patch_stem", "positions", "qkv_project", "token_stem"}  # fmt: skip

MAX_LINES = 300
MAX_LINES_OUTSIDE = 400  # tests, benchmarks, demo: what is tabled there in one place may be longer
MAX_STAGE_LINES = 150  # a stage is read from top to bottom
SHAPE = re.compile(r"\((?:\.\.\.|\d+|[A-Z]{1,2}(?:_[a-z])?)(?:, |,\)|\))")  # "(B, T, D)", "(..., D)", "(1, N, D)"


def modules(root: Path, package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((root / package).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST, package: str, deferred: bool = False) -> Iterator[tuple[str, bool]]:
    """(top-level name, deferred) of every import; deferred: in a function, so not run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (package if node.level else (node.module or "").split(".")[0]), deferred
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__", "require"}:
            yield from ((str(ast.literal_eval(a)).split(".")[0], deferred) for a in node.args[:1] if _constant(a))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, package, deferred or inside)


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def check_arrows(root: Path) -> list[str]:
    """Imports run numpy_vit -> vit_common <- torch_vit, and only NumPy (and torch, in torch_vit) at import."""
    wrong = []
    for package, (allowed, never) in ARROWS.items():
        for path, tree in modules(root, package):
            for name, deferred in imports(tree, package):
                where = f"{path.relative_to(root)} imports {name}"
                if name in never | OUTSIDE:
                    wrong.append(where)
                elif not deferred and name not in allowed:
                    wrong.append(f"{where} at module level; do it inside the function that needs it")
    return wrong


def stages(root: Path, engine: str) -> list[str]:
    """The tuple STAGES of an engine's __init__.py."""
    for node in ast.parse((root / engine / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "STAGES":
            return list(ast.literal_eval(node.value))
    return []


def ideas(root: Path, engine: str) -> list[str]:
    """Every stage file, those of the variants included, which STAGES does not list."""
    listed = stages(root, engine)
    found = {path.stem for path in (root / engine).glob("*.py") if f"{engine}/{path.name}" not in ALONE}
    return listed + sorted(found - set(listed) - NO_STAGE)


def check_twins(root: Path) -> list[str]:
    """Both engines list the same stages, every stage is a file in both, and every other file has a twin or a reason."""
    listed = {engine: stages(root, engine) for engine in ENGINES}
    files = {engine: {path.stem for path in (root / engine).glob("*.py")} for engine in ENGINES}
    wrong = []
    if listed["numpy_vit"] != listed["torch_vit"] or not listed["numpy_vit"]:
        wrong.append(f"STAGES differ or are empty: {listed}")
    for engine, other in (ENGINES, ENGINES[::-1]):
        absent = [name for name in listed[engine] if name not in files[engine]]
        wrong += [f"{engine}/{name}.py is missing, but in STAGES" for name in absent]
        alone = {f"{engine}/{stem}.py" for stem in files[engine] - files[other]}
        excused = {name for name in ALONE if name.startswith(engine + "/")}
        wrong += [f"{name} has no twin in {other}" for name in sorted(alone - excused)]
        wrong += [f"{name} is excused for having no twin, but has one or is gone" for name in sorted(excused - alone)]
    return wrong


def check_reading_order(root: Path) -> list[str]:
    """A NumPy stage imports only stages that come before it in STAGES: reading order is dependency order."""
    order = stages(root, "numpy_vit")
    wrong = []
    for i, stage in enumerate(order):
        tree = ast.parse((root / "numpy_vit" / f"{stage}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numpy_vit."):
                used = (node.module or "").removeprefix("numpy_vit.")
                if used in order[i:]:
                    wrong.append(f"numpy_vit/{stage}.py uses {used}, which STAGES does not put before it")
    return wrong


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    """Public module-level functions; `a = b` where b is one of them counts as a function too."""
    if not path.exists():
        return {}
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in found:
            found |= {target.id: found[node.value.id] for target in node.targets if isinstance(target, ast.Name)}
    return {name: node for name, node in found.items() if not name.startswith("_")}


def parameters(function: ast.FunctionDef) -> list[tuple[str, str | None]]:
    """(name, default as source) of the positional parameters, without those that only NumPy takes."""
    args = [*function.args.posonlyargs, *function.args.args]
    defaults = [None] * (len(args) - len(function.args.defaults)) + [ast.unparse(d) for d in function.args.defaults]
    return [(arg.arg, default) for arg, default in zip(args, defaults, strict=True) if arg.arg not in NUMPY_ONLY]


def check_names(root: Path) -> list[str]:
    """Stage by stage the same `*_forward`; functions of one name take the same leading parameters and defaults."""
    wrong = []
    for stage in set(ideas(root, "numpy_vit")) - ASSEMBLY:
        ours, theirs = (functions(root / engine / f"{stage}.py") for engine in ENGINES)
        for engine, have, other in (("numpy_vit", ours, theirs), ("torch_vit", theirs, ours)):
            lonely = [f"{engine}.{stage}.{name}" for name in have if name.endswith("_forward") and name not in other]
            wrong += [f"{name} has no counterpart in the other engine" for name in lonely if name not in ONE_ENGINE]
        for name in ours.keys() & theirs.keys():
            mine, its = parameters(ours[name]), parameters(theirs[name])
            extra = its[len(mine):]
            if its[: len(mine)] != mine or any(default is None for _, default in extra):
                wrong.append(f"{stage}.{name} takes {mine} in numpy_vit but {its} in torch_vit")
    return wrong


def check_backwards(root: Path) -> list[str]:
    """Every forward of a NumPy stage has its backward in the same file."""
    wrong = []
    for stage in ideas(root, "numpy_vit"):
        names = functions(root / "numpy_vit" / f"{stage}.py")
        lonely = [n for n in names if n.endswith("_forward") and n.replace("_forward", "_backward") not in names]
        wrong += [f"numpy_vit/{stage}.py has {n} but no backward" for n in lonely if f"{stage}.{n}" not in NO_BACKWARD]
    return wrong


def check_docstrings(root: Path) -> list[str]:
    """Public stage functions are documented; forwards and backwards say their shapes; NumPy forwards their equation."""
    wrong = []
    for engine in ENGINES:
        for stage in ideas(root, engine):
            for name, node in functions(root / engine / f"{stage}.py").items():
                text, where = ast.get_docstring(node) or "", f"{engine}.{stage}.{name}"
                passes = name.endswith(("_forward", "_backward"))
                if not text and (passes or not name.startswith("check_")):
                    wrong.append(f"{where} has no docstring")
                elif stage in ASSEMBLY:
                    continue
                elif passes and not SHAPE.search(text):
                    wrong.append(f"{where}'s docstring names no shape like (B, T, D)")
                elif engine == "numpy_vit" and name.endswith("_forward") and "$" not in text:
                    wrong.append(f"{where}'s docstring has no equation in $...$")
    return wrong


def check_lengths(root: Path) -> list[str]:
    """One idea a file: a stage is short, and nothing is long."""
    wrong = []
    for package in (*ARROWS, *sorted(OUTSIDE)):
        names = ideas(root, package) if package in ENGINES else []
        for path in sorted((root / package).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            most = MAX_STAGE_LINES if path.stem in names else MAX_LINES if package in ARROWS else MAX_LINES_OUTSIDE
            if lines > most:
                wrong.append(f"{path.relative_to(root)} has {lines} lines, more than {most}")
    return wrong


# A path of one machine in a file is of no use on another. Spelt in pieces, so that this file passes its own check.
PRIVATE = re.compile(r"(?<![\w./$}-])/(?:" + "|".join(("work", "root", "home/[a-z]+")) + r")(?![\w.-])")
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".cfg", ".css", ".js", ".html", ""}


def check_private_paths(root: Path, files: list[Path]) -> list[str]:
    """No file names a folder of the machine it was written on."""
    wrong = []
    for path in files:
        if path.suffix in TEXT:
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if found := PRIVATE.search(line):
                    wrong.append(f"{path.relative_to(root)}:{number} holds {found.group()!r}")
    return wrong
