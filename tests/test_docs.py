"""The study site's pages are written from the sources, and every formula in them can be shown."""

import html
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

import gen_pages
import hooks

FORMULAS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site") / "pages"
    gen_pages.main(folder)
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.md")}


def test_there_is_a_page_for_every_stage(pages):
    others = {"index.md", "parity.md", "vit_common.md"}
    assert {f"stages/{stage}.md" for stage in gen_pages.stages()} | others == set(pages)


@pytest.mark.parametrize("stage", gen_pages.stages())
def test_a_stage_page_holds_both_engines_and_every_formula_converts(stage, pages):
    page = pages[f"stages/{stage}.md"]
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page, flags=re.DOTALL)
    for block, inline in FORMULAS.findall(prose):
        assert hooks.to_mathml(block or inline, bool(block)).startswith("<math")
    assert prose.count("$") % 2 == 0
    for engine in ("numpy_vit", "torch_vit"):
        for part in gen_pages.parts(gen_pages.ROOT / engine / f"{stage}.py"):
            assert part.code in page
    if stage in gen_pages.plain_stages():
        assert "$" in prose


def test_formulas_of_a_page_become_mathml():
    before = f'<p><span class="arithmatex">\\({html.escape("a < b")}\\)</span></p>'
    before += '<div class="arithmatex">\\[\\tfrac12 \\tilde P\\]</div>'
    after = hooks.on_page_content(before)
    assert after.count("<math") == 2
    assert "arithmatex" not in after
    assert "\\" not in after


def test_a_command_without_mathml_is_an_error():
    with pytest.raises(ValueError, match="notacommand"):
        hooks.to_mathml(r"x \notacommand y", block=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("(B, C*P_h*P_w) of $a*b$", r"(B, C\*P_h\*P_w) of $a*b$"),
        ("Raises:\n    Odd: not (B,),\n        nor (D,).\n", "**Raises**\n\n- `Odd`: not (B,), nor (D,).\n"),
        (">>> f(1)\n2", "```python\n>>> f(1)\n```\n2"),
    ],
)
def test_docstrings_as_markdown(text, shown):
    assert gen_pages.prose(text).strip() == shown.strip()
