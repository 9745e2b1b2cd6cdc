"""The command line of both engines: `python -m numpy_vit VERB ...`, `python -m torch_vit VERB ...`.

Each verb is a module of `vit_common.commands` with `run(factory, argv) -> exit status`. Flags are generated from
dataclasses by tyro: `ViTConfig`, `Recipe`, the engine's own options, and what the verb itself takes. Their defaults
come from --data, --preset, --resume or --checkpoint, which are therefore looked at first: `--help` shows what would
really be used.
"""

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args

from vit_common.engine import EngineFactory
from vit_common.errors import VitError, nearest, require

BROKEN_PIPE = 141  # 128 and the number of SIGPIPE, as a shell has it
VERBS = {
    "train": "train a model on digits, MNIST, Fashion-MNIST, CIFAR-10 or a folder of pictures",
    "eval": "loss and accuracy of a checkpoint on a test split",
    "classify": "the most probable classes of pictures",
    "attend": "a picture of where the class token looks, and of attention rollout",
    "convert": "write a checkpoint in another library's layout",
    "trace": "write every intermediate and gradient of one batch to a file, or compare with such a file",
    "info": "the table of stages: shapes, parameters, arithmetic, memory",
}


def main(factory: EngineFactory, argv: Sequence[str]) -> int:
    """Run a verb with an engine; returns the exit status: 0; 1 error; 2 wrong flags; 130 interrupted; 141 not read."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name or a label may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    verb, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    try:
        if verb in ("-h", "--help"):
            print(usage(factory.name))
            status = 0 if argv else 2
        elif verb in VERBS:
            status = importlib.import_module(f"vit_common.commands.{verb}").run(factory, rest)
        else:
            unknown = f"error: unknown verb {verb!r}; {nearest(verb, VERBS)}"
            print(f"{unknown}\n\n{usage(factory.name)}", file=sys.stderr)
            return 2
        if sys.stdout is not None:  # closed: `>&-`
            sys.stdout.flush()  # here, where a reader that is gone is expected
        return status
    except VitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        unread = verb == "train" and not {"-h", "--help"} & set(rest)
        return _refused(error, BROKEN_PIPE if unread else 0)  # an answer was read as wanted; a training is not done
    except (MemoryError, RuntimeError) as error:
        from vit_common.room import no_memory

        if not (said := no_memory(error)):
            raise
        print(f"error: {said}", file=sys.stderr)
        return 1


def _refused(error: OSError, unread: int) -> int:
    """The exit status for what the system refuses; `unread` where nobody reads the output. Raises what is a defect."""
    if isinstance(error, BrokenPipeError) or (error.errno == errno.EIO and error.filename is None):
        _without_output()  # the reader, e.g. `head`, has enough, or the terminal was closed
        return unread
    if error.filename is None and error.errno != errno.ENOSPC:
        raise error
    # Of a file that nobody else has words for, as one whose name is too long; or the output goes to a full disk.
    name = "the output" if error.filename is None else error.filename
    print(f"error: {name}: {error.strerror}; put that right, or name another file", file=sys.stderr)
    return 1


def _without_output() -> None:
    """What is still to be printed goes nowhere: its reader is gone, and Python would complain when it ends."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # replaced by something that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def usage(engine: str) -> str:
    program = f"python -m {engine}_vit"
    verbs = "\n".join(f"  {verb:10}{text}" for verb, text in VERBS.items())
    return (
        f"usage: {program} VERB [OPTIONS]\n\n{verbs}\n\nAll options of a verb: {program} VERB --help\n"
        f"For example: {program} train --data digits --epochs 5"
    )


def parse(factory: EngineFactory, verb: str, argv: Sequence[str], **groups: Any) -> tuple[Any, ...]:
    """Parse flags into one dataclass instance for each group; the groups' names head the help.

    A group is an instance, whose values are the defaults, or a dataclass where some flags are required. A field whose
    metadata say {"positional": True} takes what stands without a flag.
    """
    tyro = require("tyro", extra="cli")
    flat: list[Any] = []
    for name, group in groups.items():
        kind = group if isinstance(group, type) else type(group)
        if any(f.metadata.get("positional") for f in fields(kind)):
            kind = _with_positionals(kind, tyro)
        value = () if isinstance(group, type) else (group,)
        flat.append((name, tyro.conf.OmitArgPrefixes[kind], *value))
    whole = make_dataclass(verb, flat, frozen=True, kw_only=True)
    program = f"python -m {factory.name}_vit {verb}"
    parsed = tyro.cli(whole, args=list(argv), prog=program, description=VERBS[verb])
    return tuple(getattr(parsed, name) for name in groups)


def _with_positionals(kind: type, tyro: Any) -> type:
    """A subclass whose positional fields, all of files, are marked for tyro: not in the class, which does without tyro.

    tyro compares a default with a tuple's or a union's type by a library whose import takes an eighth of the time to a
    first prediction, but not with a plain class, nor with a `Union` of which None is the first.
    """
    files = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[PATH [PATH ...]]",
        instance_from_str=lambda words: tuple(Path(word) for word in words),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda paths: [str(path) for path in paths],
    )
    marked: dict[str, Any] = {}
    for f in fields(kind):
        if f.metadata.get("positional"):
            marked[f.name] = tyro.conf.Positional[Annotated[tuple, files]]
        elif type(None) in get_args(f.type):
            marked[f.name] = Union[(None, *get_args(f.type))]
    body = {"__annotations__": marked, "__doc__": kind.__doc__}
    return dataclass(frozen=True, kw_only=True)(type(kind.__name__, (kind,), body))


def peek(argv: Sequence[str], flag: str, default: str = "") -> str:
    """The value of a flag before the rest is parsed: `--data mnist` or `--data=mnist`, the last one given."""
    for i, word in reversed(list(enumerate(argv))):
        if word == flag and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return default
