"""What a run is: the engine, the model, the recipe and the data, as run.json and a checkpoint's header keep them."""

import math
from dataclasses import dataclass, field
from typing import Any

from vit_common.config import ViTConfig
from vit_common.errors import ConfigError, DataError, VitError
from vit_common.recipe import RECIPES, Recipe

FORMAT = 1
FIXED = ("batch_size", "seed", "dtype", "optimizer")  # of the recipe: with another, step s is another step


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
    train_images: int = 0  # 0: not known

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse."""
        return {"format": FORMAT, **vars(self), "config": self.config.to_dict(), "recipe": self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, values: Any, source: str = "this") -> "RunInfo":
        """Raises DataError, with the name of the source, for whatever `to_dict` cannot have written."""
        try:
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise DataError(f"its format is not {FORMAT}; was it written by another version?")
            values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name != "format"}
            parts = {"config": ViTConfig.from_dict(values["config"]), "recipe": Recipe.from_dict(values["recipe"])}
            info = cls(**{**values, **parts})
            info._check_types()
        except KeyError as error:
            raise DataError(f"{source} is not a run.json: it lacks {error}; start the run anew") from error
        except (VitError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise DataError(f"{source} is not a run.json that can be used: {error}") from error
        return info

    def _check_types(self) -> None:
        right = {
            "engine": isinstance(self.engine, str),
            "data": isinstance(self.data, str),
            "data_dir": self.data_dir is None or isinstance(self.data_dir, str),
            "class_names": isinstance(self.class_names, tuple) and all(isinstance(n, str) for n in self.class_names),
            "mean": _are_numbers(self.mean),
            "std": _are_numbers(self.std),
            "versions": isinstance(self.versions, dict),
            "train_images": isinstance(self.train_images, int),
        }
        if wrong := [name for name, fine in right.items() if not fine]:
            raise DataError(f"{wrong[0]} is {getattr(self, wrong[0])!r}, of the wrong type")

    def check_classes(self, name: str, class_names: tuple[str, ...]) -> None:
        """Raise DataError unless data has the classes that the run learned: labels are places in their list."""
        if not self.class_names or self.class_names == class_names:
            return
        lacks, odd = (
            sorted(set(a) - set(b)) for a, b in ((self.class_names, class_names), (class_names, self.class_names))
        )
        told = [f"{verb} {', '.join(n)}" for verb, n in (("lacks", lacks), ("also has", odd)) if n]
        raise DataError(
            f"{name} does not have the classes that the run on {self.data} learned: it "
            f"{' and '.join(told) or 'has them in another order'}; give data with the classes "
            f"{', '.join(self.class_names)}"
        )

    def check_continues(self, before: "RunInfo") -> None:
        """Raise ConfigError or DataError if this is not what `before` began: its steps would be others.

        More epochs, another learning rate and the like are what one goes on with; so is a folder that was moved.
        """
        pairs = {name: (getattr(before.recipe, name), getattr(self.recipe, name)) for name in FIXED}
        old, new = before.config.to_dict(), self.config.to_dict()
        pairs |= {name: (old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())}
        if before.data in RECIPES or self.data in RECIPES:
            pairs["data"] = before.data, self.data
        if differ := {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}:
            told = "; ".join(f"{name} was {a!r} and is now {b!r}" for name, (a, b) in differ.items())
            raise ConfigError(f"this is not the run that is resumed: {told}. Leave that out, or start a run of its own")
        before.check_classes(self.data, self.class_names)
        if before.train_images and before.train_images != self.train_images:
            raise DataError(
                f"{self.data} has {self.train_images} training pictures, the run began with {before.train_images}: "
                f"its steps would be others; give the same pictures, or start a run of its own"
            )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, tuple) and all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)

