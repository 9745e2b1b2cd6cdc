"""Ctrl-C as a question: a training finishes its step and saves before it stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}")
        self.step = step


@contextmanager
def stop_signal() -> Iterator[Any]:
    """While inside, Ctrl-C and SIGTERM set `.asked`; a second Ctrl-C stops at once."""
    stop = SimpleNamespace(asked=False)

    def ask(number: int, frame: Any) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
