r"""The run folder: everything a training run leaves behind.

    run.json             the model, the recipe, the data, the engine and its versions
    metrics.jsonl        one JSON line a step {"step", "epoch", "loss", "grad_norm", "lr", "seconds"}
                         and one an epoch {"epoch", "step", "train_loss", "test_loss", "test_accuracy", "seconds"}
    model.safetensors    the parameters, with config.json beside them: the folder is a checkpoint that `load_checkpoint`
                         reads, and either engine runs
    state.safetensors    parameters, optimizer and step: what `--resume` goes on from, in either engine
    curves.png           loss, learning rate and accuracy

`step` counts finished steps. The files are replaced whole; metrics are appended.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vit_common.checkpoint import read_extra, save_checkpoint
from vit_common.config import ViTConfig
from vit_common.errors import CheckpointError, DataError
from vit_common.files import read_arrays, read_json, write_arrays, write_json
from vit_common.recipe import Recipe

FORMAT = 1
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RunInfo:
    """What was trained, how, and on what."""

    engine: str
    config: ViTConfig
    recipe: Recipe
    data: str
    data_dir: str | None = None
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse."""
        return {"format": FORMAT, **vars(self), "config": self.config.to_dict(), "recipe": self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunInfo":
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        if values.pop("format", None) != FORMAT or not values.keys() <= cls.__dataclass_fields__.keys():
            raise DataError(f"this is not a run.json of format {FORMAT}; was it written by another version?")
        parts = {"config": ViTConfig.from_dict(values["config"]), "recipe": Recipe.from_dict(values["recipe"])}
        return cls(**{**values, **parts})


class RunFolder:
    """A folder with the files named above."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike, info: RunInfo, overwrite: bool = False) -> "RunFolder":
        """A new run. Raises DataError if there is one already, unless it may be overwritten."""
        run = cls(path)
        if run.exists() and not overwrite:
            raise DataError(
                f"{path} already holds a run; go on with it (--resume {path}), replace it (--overwrite), "
                f"or name another folder (--out)"
            )
        for name in ("metrics.jsonl", "state.safetensors", "curves.png"):
            (run.path / name).unlink(missing_ok=True)
        run.write_info(info)
        return run

    def write_info(self, info: RunInfo) -> None:
        write_json(self.path / "run.json", info.to_dict())

    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    def info(self) -> RunInfo:
        """Raises DataError if this is no run folder."""
        if not self.exists():
            raise DataError(f"{self.path} is not a run folder: it has no run.json; give the folder that --out named")
        return RunInfo.from_dict(read_json(self.path / "run.json"))

    def log(self, **record: Any) -> None:
        """Append a line to the metrics."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of the metrics: the last one may have been cut by a crash."""
        records = []
        path = self.path / "metrics.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop the metrics after `step`, so that a resumed run writes them once; returns what is left."""
        records = [record for record in self.metrics() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in records)
        temporary = self.path / ".metrics.jsonl.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path / "metrics.jsonl")
        return records

    def save(self, config: ViTConfig, params: Arrays, state: Arrays, step: int) -> None:
        """Write the checkpoint and the training state."""
        write_arrays(self.path / "state.safetensors", state, {"step": str(step)})
        save_checkpoint(self.path, config, params, extra=self.info().to_dict())

    def state(self) -> tuple[dict[str, np.ndarray], int]:
        """(training state, finished steps). Raises CheckpointError if none was written, or it is damaged."""
        path = self.path / "state.safetensors"
        if not path.exists():
            raise CheckpointError(f"{path} does not exist: the run stopped before its first checkpoint; start it anew")
        arrays, header = read_arrays(path)
        if not header.get("step", "").isdigit():
            raise CheckpointError(f"{path} does not say its step; it is not a training state")
        return arrays, int(header["step"])

    def draw(self) -> None:
        """Write curves.png from the metrics."""
        from vit_common.plots import draw_curves

        draw_curves(self.path / "curves.png", self.metrics(), self.path.name)


def find_run(checkpoint: str | os.PathLike) -> RunInfo | None:
    """The run that a checkpoint came from: told by the folder it lies in, or by the file itself, wherever it is now."""
    path = Path(checkpoint)
    if path.is_dir() or path.name == "model.safetensors":
        run = RunFolder(path if path.is_dir() else path.parent)
        if run.exists():
            return run.info()
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    extra = read_extra(path)
    return RunInfo.from_dict(extra) if "recipe" in extra else None


def versions(*packages: str) -> dict[str, str]:
    """Python's and the packages' versions, for the record."""
    from importlib import metadata  # a twentieth of the time to a first prediction, which does not need it

    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
