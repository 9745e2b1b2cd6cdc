"""MkDocs hooks: the stages in reading order, and every formula turned into MathML while the site is built."""

import html
import re
from typing import Any

from gen_pages import plain_stages, stages
from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# Commands that the converter does not know, in words that it knows.
KNOWN = {r"\tfrac": r"\frac", r"\dfrac": r"\frac", r"\Bigl": r"\bigl", r"\Bigr": r"\bigr"}


def to_mathml(latex: str, block: bool) -> str:
    """LaTeX as MathML; raises ValueError if a command came through unconverted."""
    for command, other in KNOWN.items():
        latex = re.sub(re.escape(command) + r"(?![A-Za-z])", lambda _, other=other: other, latex)
    mathml = convert(latex, display="block" if block else "inline")
    if unknown := re.findall(r"\\[A-Za-z]+", html.unescape(mathml)):
        raise ValueError(f"{', '.join(unknown)} in {latex!r} has no MathML; add it to docs/hooks.py")
    return mathml.replace("&#x0007E;</mo>", "&#x002DC;</mo>")  # a tilde that stands above, not on the line


def on_config(config: Any) -> Any:
    """The navigation: the stages as STAGES has them, then the variants."""
    plain = plain_stages()
    groups = {"Plain model": plain, "Variants": [stage for stage in stages() if stage not in plain]}
    pages = [{group: [f"stages/{stage}.md" for stage in names]} for group, names in groups.items() if names]
    config.nav = [{"Overview": "index.md"}, {"Stages": pages}, {"Parity": "parity.md"}, {"Reference": "vit_common.md"}]
    return config


def on_page_content(content: str, **_: Any) -> str:
    """Replace what the Markdown extension marked as a formula."""
    return FORMULA.sub(lambda m: to_mathml(html.unescape(m[3]), block=m[2] == "["), content)
