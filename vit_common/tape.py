"""The tape: a dict that a forward or backward pass fills with every named intermediate.

A tape costs nothing when it is None, and copies what it keeps, so that a stage may go on working in place.
"""

from typing import Any, Protocol


class Writable(Protocol):
    def __setitem__(self, name: str, value: Any, /) -> None: ...


Tape = Writable | None


class _Scope:
    def __init__(self, tape: Writable, prefix: str):
        self.tape, self.prefix = tape, prefix

    def __setitem__(self, name: str, value: Any) -> None:
        self.tape[f"{self.prefix}.{name}"] = value


def scope(tape: Tape, prefix: str) -> Tape:
    """A view of `tape` that writes every name below `prefix`."""
    return None if tape is None else _Scope(tape, prefix)


def note(tape: Tape, **intermediates: Any) -> None:
    """Write copies of the named intermediates, if there is a tape."""
    if tape is not None:
        for name, value in intermediates.items():
            tape[name] = value.copy()
