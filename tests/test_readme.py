"""The README is run: its Python blocks, what they print, its commands, links and stage table."""

import ast
import contextlib
import importlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [
    (code, BLOCKS[i + 1][1] if i + 1 < len(BLOCKS) and BLOCKS[i + 1][0] == "text" else "")
    for i, (language, code) in enumerate(BLOCKS)
    if language == "python"
]
SHELL = [line.split("#")[0].strip() for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
ROUNDING = 1e-12  # below it a number is the rounding of float64, whose digits depend on the processor


def same_text(said: str, printed: str) -> bool:
    """The same words, and the same numbers to the digits shown; numbers that are pure rounding need only be that."""
    if NUMBER.sub("#", said.strip()) != NUMBER.sub("#", printed.strip()):
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True)
    return all(a == b or (0 < abs(float(a)) < ROUNDING and abs(float(b)) < ROUNDING) for a, b in pairs)


@pytest.mark.parametrize(("code", "said"), PYTHON)
def test_python_blocks_print_what_the_readme_says(code, said):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert same_text(said, printed.getvalue()), printed.getvalue()


def test_the_first_block_compares_a_gradient_in_twelve_lines():
    code, said = PYTHON[0]
    assert len(code.splitlines()) <= 12
    assert "e-1" in said
    ast.parse(code)


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("loss 2.31, off by 3e-15", "loss 2.31, off by 4e-16\n", True),
        ("loss 2.31, off by 3e-15", "loss 2.31, off by 4e-08\n", False),
        ("loss 2.31, off by 3e-15", "loss 2.32, off by 3e-15\n", False),
        ("loss 2.31, off by 3e-15", "2.31 off by 3e-15\n", False),
        ("loss 2.31", "loss nan\n", False),
    ],
)
def test_same_text(said, printed, same):
    assert same_text(said, printed) is same


def test_the_stage_table_lists_every_stage_in_reading_order():
    import numpy_vit

    rows = re.findall(r"^\|.*\]\(numpy_vit/(\w+)\.py\) · \[PyTorch\]\(torch_vit/(\w+)\.py\) \|", README, re.MULTILINE)
    assert rows == [(stage, stage) for stage in numpy_vit.STAGES]


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link.split("#")[0]).exists()] == []


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    said = {word for line in SHELL if line.startswith("make") for word in line.split()[1:] if word.isalpha()}
    assert {"demo", "test"} <= said <= targets


COMMANDS = [line.split() for line in SHELL if line.startswith("python -m ")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_exist_with_their_flags(command, capsys):
    module, rest = command[2], command[3:]
    assert importlib.util.find_spec(module) is not None
    if module in {"numpy_vit", "torch_vit"}:
        from vit_common.cli import main

        engine = importlib.import_module(f"{module}.engine")
        factory = engine.NumpyEngine if module == "numpy_vit" else engine.TorchEngine
        with contextlib.suppress(SystemExit):
            main(factory, [rest[0], "--help"])
        known = capsys.readouterr().out
        assert [word for word in rest if word.startswith("--") and word.split("=")[0] not in known] == []
