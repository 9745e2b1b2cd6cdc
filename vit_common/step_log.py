"""One line of metrics a step, written a step late.

On a device the host only queues a step's work. To read its loss at once would be to wait, and the device would then run
dry while the next batch is made; read after the next step has been queued, it costs nothing.
"""

import math
import time
from collections import deque
from typing import NamedTuple

from vit_common.engine import StepResult
from vit_common.run_folder import RunFolder

LATE = 1  # steps


class Queued(NamedTuple):
    step: int  # counted from 0
    lr: float
    seconds: float  # that queueing it took; where nothing is asynchronous, the whole step
    result: StepResult


class NotFiniteError(ArithmeticError):
    """The loss or the gradient of a step is not finite: the step was not taken."""

    def __init__(self, step: int, loss: float, grad_norm: float):
        super().__init__(f"step {step + 1}: loss {loss}, gradient norm {grad_norm}: not finite")
        self.step = step


class StepLog:
    """The losses of a run so far, and the steps whose results have not been looked at."""

    def __init__(self, run: RunFolder, steps_per_epoch: int, losses: list[float]):
        self.run, self.steps_per_epoch, self.losses = run, steps_per_epoch, losses
        self._queue: deque[Queued] = deque()

    def add(self, step: int, lr: float, seconds: float, result: StepResult) -> None:
        self._queue.append(Queued(step, lr, seconds, result))

    def read(self, keep: int = 0) -> None:
        """Look at all results but the newest `keep`.

        Raises:
            NotFiniteError: at the first that is not finite.
        """
        while len(self._queue) > keep:
            step, lr, seconds, result = self._queue.popleft()
            start = time.perf_counter()
            loss, norm = result
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise NotFiniteError(step, loss, norm)
            self.losses.append(loss)
            seconds = round(seconds + time.perf_counter() - start, 6)  # the wait belongs to the step
            epoch = step // self.steps_per_epoch + 1
            self.run.log(step=step + 1, epoch=epoch, loss=loss, grad_norm=norm, lr=lr, seconds=seconds)
