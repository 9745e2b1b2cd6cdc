"""The harness checks of every stage, on a fixed number of examples that are the same in every run."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from parity_tests import harness
from parity_tests.planting import under_test
from parity_tests.strategies import LAYOUTS, Case
from parity_tests.variants import VARIANTS

EXAMPLES = 25


@cache
def examples(stage: str, count: int = EXAMPLES) -> tuple[Case, ...]:
    """`count` cases of the stage's own strategy, drawn without randomness."""
    found: list[Case] = []

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=known()[stage].cases)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return tuple(found)


def failure(engine: Any, stage: str, count: int = EXAMPLES) -> str | None:
    """What the first failing check of this stage says, or None. A crash is a failure too."""
    spec = known()[stage]
    layouts = sorted(LAYOUTS)
    with under_test(engine), np.errstate(all="ignore"):
        for i, case in enumerate(examples(stage, count)):
            try:
                harness.check_parity(spec, case, (np.float64, np.float32)[i % 2], layouts[i % len(layouts)], i)
                harness.check_directional(spec, case, i)
                harness.check_linear_in_upstream(spec, case, i)
            except pytest.skip.Exception:
                raise
            except Exception as error:
                text = str(error)
                return text if text.startswith(stage) else f"{stage}: {type(error).__name__}: {text}"
    return None


def known() -> dict[str, harness.Stage]:
    """The stages of the plain model, then the variants; each after the stages that it is made of."""
    return {**harness.STAGES, **VARIANTS}


def first_failure(engine: Any, suspect: str | None = None) -> tuple[str, str] | None:
    """(stage, message) of the first stage in reading order that fails: composites fail too when a leaf is wrong.

    A suspected stage gets more examples than those before it. Of a variant, the variants are asked.
    """
    for stage in VARIANTS if suspect in VARIANTS else harness.STAGES:
        # Some bugs need an option that few examples draw: the suspect gets many, should a few not do.
        for count in (EXAMPLES, 200) if stage == suspect else (8,) if suspect else (EXAMPLES,):
            if message := failure(engine, stage, count):
                return stage, message
        if stage == suspect:
            return None
    return None
