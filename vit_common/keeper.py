"""What a training leaves on the disk, however it ends."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vit_common.config import ViTConfig
from vit_common.engine import Engine, StepResult
from vit_common.errors import DataError, RangeError, VitError
from vit_common.run_folder import RunFolder
from vit_common.step_log import NotFiniteError, StepLog

WAY_OUT = "Try a smaller --lr, a longer --warmup-epochs or a smaller --clip-norm"


class DivergedError(RangeError):
    """The parameters are not worth saving."""


class Keeper:
    """Saves the engine's state when told to, and when the training inside `with` fails.

    `retake` takes a step, counted from 0, once more. A run without a state gets that of its first step at once: there
    is then always something to go on from, and a place that cannot be written to is told before the work is done.
    """

    def __init__(
        self, engine: Engine, config: ViTConfig, run: RunFolder, log: StepLog, step: int,
        retake: Callable[[int], StepResult],
    ):  # fmt: skip
        self.engine, self.config, self.run, self.log, self.retake = engine, config, run, log, retake
        self.step: int | None = step  # that the engine's state is of; None: in the middle of one
        self._saved: int | None = step
        self._at = time.perf_counter()
        if not run.has_state():
            self.save()

    @property
    def seconds(self) -> float:
        """Since the last checkpoint."""
        return time.perf_counter() - self._at

    def save(self) -> None:
        assert self.step is not None
        self._saved = self.step  # if that fails it is not tried again
        self.run.save(self.config, self.engine.params(), self.engine.state(), self.step)
        self._at = time.perf_counter()

    @contextmanager
    def taking(self, step: int) -> Iterator[None]:
        """Around a step: one that fails in its middle leaves a state that is of no step."""
        self.step = None
        yield
        self.step = step + 1

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if isinstance(error, NotFiniteError):
                raise error
            if isinstance(error, DivergedError):
                raise RangeError(f"{error}. {self._last()}. {WAY_OUT}") from error
            if isinstance(error, Exception) and self.step not in (None, self._saved):
                self.log.read()  # the last steps may not have been looked at
                self.save()
        except NotFiniteError as late:
            raise RangeError(self._not_finite(late)) from late
        except DataError as second:
            if isinstance(error, VitError):
                raise DataError(f"{error}; and the steps so far could not be saved: {second}") from error
            raise

    def _not_finite(self, error: NotFiniteError) -> str:
        """Save the parameters before the step, unless it fails from them again: nobody could go on from there."""
        params, state = self.engine.params(), self.engine.state()
        self.engine.load_state(state)  # since the failure the engine takes no steps
        if all(math.isfinite(number) for number in self.retake(error.step)):
            self.run.save(self.config, params, state, error.step)
            kept = f"the parameters before it are saved in {self.run.path}"
        else:
            kept = f"taken again from the same parameters it fails again. {self._last()}"
        return f"{error}. The step was not taken; {kept}. {WAY_OUT}"

    def _last(self) -> str:
        return f"The checkpoint of step {self._saved} stays as it is in {self.run.path}"
