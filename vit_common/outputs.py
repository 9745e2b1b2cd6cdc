"""What a command is about to write, looked at before anything is computed: nothing that is there is lost unasked."""

import os
from collections.abc import Iterable
from pathlib import Path

from vit_common.errors import DataError

Place = str | os.PathLike


def check_outputs(files: Iterable[Place], inputs: Iterable[Place] = (), overwrite: bool = False) -> None:
    """Raise unless these files may be written.

    Raises:
        DataError: one of them is read by the same command or lies in a run folder, whatever `overwrite` says; or it
            exists, and `overwrite` was not given.
    """
    read = [Path(place) for place in inputs]
    for file in map(Path, files):
        there = file.exists() or file.suffix == ".safetensors"  # new weights may be read in place of the old
        if any(_same(file, place) or (there and _same(file.parent, place)) for place in read):
            raise DataError(f"{file} would be written onto what this command reads; name another place")
        if (file.parent / "run.json").is_file():
            raise DataError(f"{file.parent} is the folder of a training run, which nothing else writes into; "
                            f"name another place")  # fmt: skip
        if file.is_dir():
            raise DataError(f"{file} is a folder; name a file")
        if file.exists() and not overwrite:
            raise DataError(f"{file} exists already; replace it (--overwrite), or name another place")


def check_ending(flag: str, file: Path, ending: str) -> None:
    """Raise DataError unless the file's name ends as what is written into it."""
    if file.suffix.lower() != ending:
        raise DataError(f"{flag} {file}: what is written is a {ending} file; let the name end so")


def _same(a: Path, b: Path) -> bool:
    """Whether two paths, of which either may not exist, mean the same place."""
    return a.exists() and b.exists() and os.path.samefile(a, b)
