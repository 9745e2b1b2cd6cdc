"""Write the pages of the study site from the sources: `python docs/gen_pages.py FOLDER`.

One page a stage: the mathematics of the NumPy docstrings, then NumPy and PyTorch side by side, then the tests that hold
them together. Nothing is imported and nothing written twice: what a page says stands in the source.
"""

import ast
import inspect
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_STAGE = {"__init__", "__main__", "engine"}
MATH = re.compile(r"(\$\$.*?\$\$|\$[^$]*\$|`[^`]*`)", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A public function or class of a stage: its docstring, and its code without it."""

    name: str
    text: str
    code: str


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def docstring(node: ast.AST) -> str:
    return inspect.cleandoc(ast.get_docstring(node, clean=False) or "")


def plain_stages() -> list[str]:
    """STAGES of the NumPy engine."""
    for node in tree_of(ROOT / "numpy_vit" / "__init__.py").body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "STAGES":
            return list(ast.literal_eval(node.value))
    raise ValueError("numpy_vit/__init__.py defines no STAGES")


def stages() -> list[str]:
    """The stages of the plain model, then the variants: what else both engines have."""
    plain = plain_stages()
    ours, theirs = ({path.stem for path in (ROOT / engine).glob("*.py")} for engine in ("numpy_vit", "torch_vit"))
    return plain + sorted((ours & theirs) - set(plain) - NO_STAGE)


def parts(path: Path) -> list[Part]:
    """The file's functions and classes in order, caches included: they are half of what a backward needs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            keep = lines[first - 1 : node.end_lineno]
            if ast.get_docstring(node) is not None:
                doc = node.body[0]
                keep = lines[first - 1 : doc.lineno - 1] + lines[doc.end_lineno : node.end_lineno]
            found.append(Part(node.name, docstring(node), "\n".join(keep).strip("\n")))
    return found


def prose(text: str) -> str:
    """A docstring as Markdown: stars between words stay stars, `Raises:` becomes a list, examples become code."""
    pieces = MATH.split(text)
    pieces[::2] = [re.sub(r"(?<=\w)\*(?=\w)", r"\\*", piece) for piece in pieces[::2]]
    text = "".join(pieces)
    text = re.sub(r"^(\$\$.*?\$\$)$", r"\n\1\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"((?:^>>> .*\n?|^\.\.\. .*\n?)+)", r"```python\n\1```\n", text, flags=re.MULTILINE)

    def section(match: re.Match) -> str:
        entries = re.sub(r"\n {5,}", " ", match[2])  # continuation lines
        return f"**{match[1]}**\n\n" + re.sub(r"^ {4}(\w+): ", r"- `\1`: ", entries, flags=re.MULTILINE)

    return re.sub(r"^(Raises|Args|Returns):\n((?: {4}.*\n?)+)", section, text, flags=re.MULTILINE)


def code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def stage_page(stage: str) -> str:
    ours, theirs = (ROOT / engine / f"{stage}.py" for engine in ("numpy_vit", "torch_vit"))
    page = ["---\nhide: [toc]\n---\n", f"# {stage.replace('_', ' ').capitalize()}\n"]
    page += [prose(docstring(tree_of(ours))), ""]
    for part in parts(ours):
        if part.text and not part.name.endswith("_backward") and not part.name.startswith("_"):
            page += [f"## {part.name}\n", prose(part.text), ""]
    page += ["## NumPy and PyTorch\n", '<div class="twins" markdown>', '<div markdown>\n', "**numpy_vit**, by hand\n"]
    page += [code("\n\n\n".join(part.code for part in parts(ours))), "</div>", "<div markdown>\n"]
    page += ["**torch_vit**, by autograd\n", code("\n\n\n".join(part.code for part in parts(theirs)))]
    page += ["</div>", "</div>\n"]
    if checks := tests_of(stage):
        page += ["## Held together by\n", *checks]
    return "\n".join(page)


def tests_of(stage: str) -> list[str]:
    path = ROOT / "parity_tests" / f"test_{stage}.py"
    if not path.exists():
        return []
    name = path.relative_to(ROOT).as_posix()
    return [f"`pytest {name}`: the tests that [every stage](../parity.md) gets, and\n", *tests_in(path)]


def tests_in(path: Path) -> list[str]:
    """The tests of a file, each with the first paragraph of its docstring."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = " ".join(docstring(node).split("\n\n")[0].split())
            title = node.name.removeprefix("test_").replace("_", " ")
            found.append(f"- {title}: {prose(first)}" if first else f"- {title}")
    return found


def parity_page() -> str:
    page = ["# Parity\n", prose(docstring(tree_of(ROOT / "parity_tests" / "__init__.py"))), ""]
    for path in sorted((ROOT / "parity_tests").glob("*.py")):
        text = docstring(tree_of(path))
        if text and path.stem not in {"__init__", "__main__"} and not path.stem.startswith("test_"):
            page += [f"## {path.stem}\n", prose(text), ""]
    for path in sorted((ROOT / "parity_tests").glob("test_*.py")):
        page += [f"## {path.stem}\n", prose(docstring(tree_of(path))), "", *tests_in(path), ""]
    return "\n".join(page)


def index_page() -> str:
    """The README, its links to sources turned into links to pages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\[NumPy\]\(numpy_vit/(\w+)\.py\) · \[PyTorch\]\(torch_vit/\w+\.py\)", r"[\1](stages/\1.md)", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?:|stages/|#)[^)]+\)", r"\1", text)


def reference_page() -> str:
    tree = tree_of(ROOT / "vit_common" / "__init__.py")
    modules = list(dict.fromkeys(node.module for node in tree.body if isinstance(node, ast.ImportFrom)))
    entries = [f"## {name}\n\n::: {name}\n    options: {{show_root_heading: false}}" for name in modules]
    return "\n\n".join(["# vit_common", *entries])


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "stages").mkdir(parents=True)
    pages = {"index": index_page(), "parity": parity_page(), "vit_common": reference_page()}
    pages |= {f"stages/{stage}": stage_page(stage) for stage in stages()}
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    shutil.copy(ROOT / "docs" / "style.css", folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
