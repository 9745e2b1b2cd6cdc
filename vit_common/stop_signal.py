"""Ctrl-C, SIGTERM and a closed terminal as a question: a training finishes its step and saves before it stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run was asked to stop; its state is saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}")
        self.step = step


@contextmanager
def stop_signal() -> Iterator[Any]:
    """While inside, Ctrl-C, SIGTERM and SIGHUP set `.asked`; a second Ctrl-C or SIGTERM stops at once.

    A second SIGHUP does not: of one closed terminal both the system and the shell may tell.
    """
    stop = SimpleNamespace(asked=False)

    def ask(number: int, frame: Any) -> None:
        if stop.asked and number in ASKING:
            raise KeyboardInterrupt
        stop.asked = True

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (*ASKING, *_hang_up())}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hang_up() -> tuple[int, ...]:
    """SIGHUP, unless it is ignored, as nohup has it, or unknown, as on Windows."""
    number = getattr(signal, "SIGHUP", None)
    return () if number is None or signal.getsignal(number) is signal.SIG_IGN else (number,)
