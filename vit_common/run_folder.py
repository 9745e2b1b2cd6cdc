r"""The run folder: everything a training run leaves behind.

    run.json             the model, the recipe, the data, the engine and its versions
    metrics.jsonl        one JSON line a step {"step", "epoch", "loss", "grad_norm", "lr", "seconds"}
                         and one an epoch {"epoch", "step", "train_loss", "test_loss", "test_accuracy", "seconds"}
    model.safetensors    the parameters, with config.json beside them: the folder is a checkpoint that `load_checkpoint`
                         reads, and either engine runs
    state.safetensors    parameters, optimizer and step: what `--resume` goes on from, in either engine
    curves.png           loss, learning rate and accuracy

`step` counts finished steps. The files are replaced whole; metrics are appended. Whatever is damaged, missing or
refused by the system is a DataError or CheckpointError that names the file.
"""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.checkpoint import read_extra, save_checkpoint
from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError, DataError
from vit_common.files import append_line, naming, read_arrays, read_json, write_arrays, write_atomically, write_json
from vit_common.run_info import RunInfo

FILES = ("run.json", "metrics.jsonl", "model.safetensors", "config.json", "state.safetensors", "curves.png")
Arrays = Mapping[str, np.ndarray]


class RunFolder:
    """A folder with the files named above."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._settings: RunInfo | None = None  # to be written with the next checkpoint

    @classmethod
    def create(cls, path: str | os.PathLike, info: RunInfo, overwrite: bool = False) -> "RunFolder":
        """A new run. Raises DataError if it would replace files, unless they may be overwritten."""
        run = cls(path)
        found = [name for name in FILES if os.path.lexists(run.path / name)]
        if found and not overwrite:
            resumable = {"run.json", "state.safetensors"} <= set(found)
            what = f"already holds a run; go on with it (--resume {path})" if resumable else f"holds {', '.join(found)}"
            raise DataError(f"{path} {what}, replace it (--overwrite), or name another folder (--out)")
        if odd := [name for name in found if (run.path / name).is_dir()]:
            raise DataError(f"{run.path / odd[0]} is a folder, where a run has a file; name another folder (--out)")
        for name in found:
            with naming("replace", run.path / name):
                (run.path / name).unlink()
        write_json(run.path / "run.json", info.to_dict())
        return run

    def go_on(self, info: RunInfo) -> None:
        """Settings that replace the run's with the next checkpoint: one that never comes leaves them as they are."""
        self._settings = info

    def exists(self) -> bool:
        with naming("read", self.path):
            return (self.path / "run.json").is_file()

    def info(self) -> RunInfo:
        """Raises DataError if this is no run folder."""
        if not self.exists():
            raise DataError(f"{self.path} is not a run folder: it has no run.json; give the folder that --out named")
        path = self.path / "run.json"
        return RunInfo.from_dict(read_json(path), str(path))

    def log(self, **record: Any) -> None:
        """Append a line to the metrics."""
        append_line(self.path / "metrics.jsonl", json.dumps(record))

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of the metrics. The last one may have been cut by a crash, and is then left out.

        Raises:
            DataError: another line is damaged; to go on without it would lose all that follows.
        """
        path = self.path / "metrics.jsonl"
        with naming("read", path):
            lines = path.read_bytes().splitlines() if path.exists() else []
        records = [_record(line) for line in lines]
        if records and records[-1] is None:
            records.pop()
        if None in records:
            raise DataError(f"{path}, line {records.index(None) + 1} is damaged; repair or remove that line")
        return [record for record in records if record is not None]

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop the metrics after `step`, so that a resumed run writes them once; returns what is left."""
        records = [record for record in self.metrics() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.path / "metrics.jsonl", lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return records

    def save(self, config: ViTConfig, params: Arrays, state: Arrays, step: int) -> None:
        """Write the checkpoint and the training state."""
        info = self._settings or self.info()
        write_arrays(self.path / "state.safetensors", state, {"step": str(step)})
        if self._settings:
            write_json(self.path / "run.json", info.to_dict())
        save_checkpoint(self.path, config, params, extra=info.to_dict())

    def has_state(self) -> bool:
        with naming("read", self.path):
            return (self.path / "state.safetensors").exists()

    def state(self) -> tuple[dict[str, np.ndarray], int]:
        """(training state, finished steps). Raises CheckpointError if none was written, or it is damaged."""
        path = self.path / "state.safetensors"
        if not self.has_state():
            raise CheckpointError(f"{path} does not exist: the run stopped before its first checkpoint; start it anew")
        arrays, header = read_arrays(path)
        said = header.get("step", "")
        if not (said.isascii() and said.isdigit() and len(said) < 19):
            raise CheckpointError(f"{path} does not say its step, but {said!r}; it is not a training state")
        step, taken = int(said), arrays.get("optim/step")
        if taken is not None and taken.tolist() != step:
            raise CheckpointError(f"{path} is of step {step}, its optimizer of step {taken.tolist()!r}; it is damaged")
        return arrays, step

    def draw(self) -> None:
        """Write curves.png from the metrics."""
        from vit_common.plots import draw_curves

        draw_curves(self.path / "curves.png", self.metrics(), self.path.name)


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of the metrics, an object of numbers; None for anything else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return None
    return record if all(isinstance(value, (int, float)) for value in record.values()) else None


def find_run(checkpoint: str | os.PathLike) -> RunInfo | None:
    """The run that a checkpoint came from: told by the folder it lies in, or by the file itself, wherever it is now."""
    path = Path(checkpoint)
    with naming("read", path):
        is_folder, is_file = path.is_dir(), path.is_file()
    if is_folder or path.name == "model.safetensors":
        run = RunFolder(path if is_folder else path.parent)
        if run.exists():
            return run.info()
    if path.suffix != ".safetensors" or not is_file:
        return None
    extra = read_extra(path)
    known = isinstance(extra, dict) and "recipe" in extra
    return RunInfo.from_dict(extra, f"what {path} says of its run") if known else None


def versions(*packages: str) -> dict[str, str]:
    """Python's and the packages' versions, for the record."""
    from importlib import metadata  # a twentieth of the time to a first prediction, which does not need it

    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
