"""`python -m parity_tests.weak_practices` writes docs/why_the_suite.md: the planted bugs that weaker tests miss.

Each practice is carried out, on one set of ordinary numbers as one would write them down, against every planted bug.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from parity_tests import harness, planted_variants
from parity_tests.ordinary import Setting, model_case, ordinary_case
from parity_tests.planted_bugs import BUGS, planted
from parity_tests.planting import ROOT
from parity_tests.strategies import normal
from vit_common import init_params, make_masks

PAGE = ROOT / "docs" / "why_the_suite.md"
Array = np.ndarray

# ---- the practices: each raises if it notices something -----------------------------------------------------------

Compare = Callable[[Array, Array], None]


def close(got: Array, want: Array) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def two_decimals(got: Array, want: Array) -> None:
    np.testing.assert_almost_equal(got, want, decimal=2)


def per_mille(got: Array, want: Array) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def same_shape(got: Array, want: Array) -> None:
    assert np.shape(got) == np.shape(want)


USUAL = Setting()


def against_autograd(
    engine: Any, stage: str, setting: Setting = USUAL, compare: Compare = close, dtype: Any = np.float64,
    ones: bool = False, gradients: bool = True,
) -> None:  # fmt: skip
    spec, case = harness.STAGES[stage], ordinary_case(stage, setting)
    y_true, g_true, dy = harness.run_torch(spec, case, dtype, None, 11)
    if ones:
        dy = np.ones_like(dy)
        y_true, g_true, _ = harness.run_torch(spec, case, dtype, dy, 11)
    arrays = harness.cast(case.arrays, dtype)
    y, cache = spec.forward(engine, arrays, case.options)
    compare(y, y_true)
    if gradients:
        dy = dy.astype(dtype)
        grads = spec.backward(engine, dy, cache, arrays)
        for name, want in g_true.items():
            compare(grads[name], want)


def own_differences(engine: Any, stage: str) -> None:
    """The backward against central differences of the same engine's forward, in one direction."""
    spec, case = harness.STAGES[stage], ordinary_case(stage, Setting())
    y, cache = spec.forward(engine, harness.cast(case.arrays, np.float64), case.options)
    dy = harness.upstream(y, 11)
    grads = spec.backward(engine, dy, cache, case.arrays)
    for i, name in enumerate(case.arrays):
        d, h = normal(20 + i, case.arrays[name].shape), 1e-5
        moved = [{**case.arrays, name: case.arrays[name] + s * h * d} for s in (1, -1)]
        ys = [spec.forward(engine, harness.cast(m, np.float64), case.options)[0] for m in moved]
        up, down = (float(np.sum(dy * y)) for y in ys)
        slope = float(np.sum(grads[name] * d))
        assert abs((up - down) / (2 * h) - slope) <= 1e-5 * (1 + abs(slope))


def loss_goes_down(engine: Any, stage: str) -> None:
    """Forty steps of AdamW on one batch, dropout and smoothing on: the last losses are below the first."""
    case = model_case("vit", Setting(batch=8, fresh=True, depth=2), 8)
    config, images = case.options["config"], case.arrays["x"].astype(np.float32)
    labels = np.arange(8) % config.num_classes
    params = init_params(config, 0)
    state, losses = engine.adamw_init(params), []
    for step in range(40):
        logits, cache = engine.vit_forward(params, images.copy(), config, make_masks(config, 8, 0, step))
        loss, loss_cache = engine.cross_entropy_forward(logits, labels, 0.1)
        losses.append(float(loss))
        _, grads = engine.vit_backward(engine.cross_entropy_backward(loss_cache), cache)
        params, state = engine.adamw_step(params, grads, state, 1e-2)
    assert np.mean(losses[-5:]) < losses[0]


class Practice(NamedTuple):
    title: str
    lesson: str  # what the suite does instead
    run: Callable[[Any, str], None]


def _comparison(**changes: Any) -> Callable[[Any, str], None]:
    return lambda engine, stage: against_autograd(engine, stage, **changes)


PRACTICES = (
    Practice("the loss goes down",
             "A model learns with wrong gradients too, only worse: numbers are compared, stage by stage.",
             loss_goes_down),
    Practice("shapes only",
             "Shapes are checked, and say next to nothing: values are compared.",
             _comparison(compare=same_shape)),
    Practice("forward only",
             "The gradient of every input and parameter is compared, with torch's and without torch.",
             _comparison(gradients=False)),
    Practice("own differences",
             "A backward that fits a wrong forward passes any gradient check: the forward has an oracle of its own.",
             own_differences),
    Practice("ones upstream",
             "With ones, and weights as initialised, the gradients of softmax and LayerNorm vanish: upstream gradients "
             "are always random, and so is every weight.",
             _comparison(setting=Setting(fresh=True), ones=True)),
    Practice("decimal=2",
             "Bounds come from an analysis of rounding errors, in units of the last place.",
             _comparison(compare=two_decimals)),
    Practice("float32, 1e-3",
             "float64 first; then float32, against the float64 truth.",
             _comparison(compare=per_mille, dtype=np.float32)),
    Practice("batch of one",
             "Batches of one to four are drawn, and a batch must equal its images.",
             _comparison(setting=Setting(batch=1))),
    Practice("equal sizes",
             "Every size is drawn on its own: images and patches are rarely square.",
             _comparison(setting=Setting(square=True))),
    Practice("one layer",
             "Depths of none, one and more are drawn; three are needed for a rate between none and full.",
             _comparison(setting=Setting(depth=1))),
    Practice("options off",
             "Masks, rates, smoothing and eps are drawn, and differ from their defaults.",
             _comparison(setting=Setting(options=False))),
    Practice("one good test",
             "What it lacks: exact dtypes, inputs not written to, a second backward, numbers from tiny to huge.",
             _comparison()),
)  # fmt: skip


def misses(practice: Practice, engine: Any, stage: str) -> bool:
    with np.errstate(all="ignore"):
        try:
            practice.run(engine, stage)
        except Exception:
            return False
    return True


@cache
def results() -> dict[tuple[str, str], bool]:
    """(name of the bug, title of the practice) -> whether it is missed."""
    return {(bug.name, p.title): misses(p, planted(bug), bug.stage) for bug in BUGS for p in PRACTICES}


def page() -> str:
    missed = results()
    head = ["planted bug", *(p.title for p in PRACTICES)]
    cells = {bug: ["missed" if missed[bug.name, p.title] else "·" for p in PRACTICES] for bug in BUGS}
    counts = [f"**{sum(missed[bug.name, p.title] for bug in BUGS)}**" for p in PRACTICES]
    rows = [[f"**{bug.stage}**: {bug.story}", *cells[bug]] for bug in BUGS]
    rows.append([f"**missed, of {len(BUGS)}**", *counts])
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] + [":-:"] * len(PRACTICES), *rows)]
    lessons = [f"- **{p.title}**. {p.lesson}" for p in PRACTICES]
    more = [f"- **{bug.stage}**: {bug.story}" for bug in ELSEWHERE]
    return "\n".join([*INTRODUCTION, *table, "", "## What each column teaches", "", *lessons, "", *VARIANTS, *more, ""])


INTRODUCTION = [
    "# Why the suite is as it is", "",
    "<!-- Written by `python -m parity_tests.weak_practices`; do not edit. -->", "",
    "Each row is a bug planted in the NumPy engine, one at a time; most were found in published NumPy transformers",
    "whose own tests pass. Each column is a way of testing that is often thought to be enough, carried out for real",
    "against each bug: a comparison with torch's autograd on one set of ordinary numbers, weakened in the one respect",
    "that its title names (the first and the fourth need no torch). *missed*: the test passes although the bug is",
    "there. The parity suite catches every one of them and names its stage (`parity_tests/test_planted_bugs.py`).", "",
]  # fmt: skip
ELSEWHERE = (*planted_variants.BUGS, *planted_variants.WHOLES)
VARIANTS = [
    "## Planted in the variants' stages", "",
    f"{len(ELSEWHERE)} more, in the stages that other people's Vision Transformers are assembled from, in whole models",
    "and in the optimizer; the suite catches each of them.", "",
]  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}", file=sys.stderr)
