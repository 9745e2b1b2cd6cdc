r"""Training and evaluation, the same for every engine.

Step $s$ is a function of (data, recipe, $s$) alone: its images, their augmentation, its masks, its learning rate. So
both engines see the same, and a run that goes on from a saved state takes the steps it would have taken.
"""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vit_common.config import ViTConfig
from vit_common.data import Dataset, Split, batches, epoch_order
from vit_common.engine import Engine
from vit_common.errors import ConfigError, DataError
from vit_common.keeper import DivergedError, Keeper
from vit_common.masks import make_masks
from vit_common.progress import progress_bar
from vit_common.raw_images import RawImages
from vit_common.recipe import Recipe
from vit_common.run_folder import RunFolder
from vit_common.schedule import warmup_cosine
from vit_common.step_log import LATE, StepLog
from vit_common.stop_signal import Interrupted, stop_signal

SAVE_SECONDS = 300.0  # a long epoch is saved on the way


@dataclass(frozen=True)
class Plan:
    """How many steps a recipe makes of a number of images."""

    images: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int

    @classmethod
    def of(cls, images: int, recipe: Recipe) -> "Plan":
        if images < 1:
            raise DataError("the training split is empty; there is nothing to learn from")
        batch = min(recipe.batch_size, images)
        per_epoch = images // batch  # whole batches only: one shape, and every step averages as many images
        total = per_epoch * recipe.epochs
        return cls(images, batch, per_epoch, total, min(round(per_epoch * recipe.warmup_epochs), total))


class Batch(NamedTuple):
    """What one step is made of."""

    images: Any  # (B, C, H, W), normalised: an array, or what an engine made of the pixels
    labels: np.ndarray  # (B,)
    masks: dict[str, np.ndarray]
    lr: float


def make_batch(
    dataset: Dataset, config: ViTConfig, recipe: Recipe, step: int,
    prepare: Callable[[RawImages, str], Any] = RawImages.to_numpy,
) -> Batch:  # fmt: skip
    """The batch of a step, counted from 0; an engine's own `images` may prepare the pictures."""
    plan = Plan.of(len(dataset.train), recipe)
    epoch, place = divmod(step, plan.steps_per_epoch)
    order = _order(plan.images, recipe.seed, epoch)
    indices = order[place * plan.batch_size : (place + 1) * plan.batch_size]
    pixels = dataset.train.images(indices)
    raw = RawImages(pixels, indices, recipe.augment, recipe.seed, epoch, dataset.mean, dataset.std)
    return Batch(
        prepare(raw, recipe.dtype),
        dataset.train.labels[indices],
        make_masks(config, len(indices), recipe.seed, step),
        warmup_cosine(step, plan.total_steps, plan.warmup_steps, recipe.lr, recipe.min_lr),
    )


_order = functools.lru_cache(maxsize=2)(epoch_order)


class Evaluation(NamedTuple):
    """Mean over a split."""

    loss: float
    accuracy: float
    pictures: int


def evaluate(
    engine: Engine, dataset: Dataset, split: Split, dtype: str = "float32", batch_size: int = 256
) -> Evaluation:
    """Mean loss in nats, and share of images whose largest logit is the label's."""
    if not len(split):
        raise DataError("the split is empty; there is nothing to evaluate on")
    loss, right = 0.0, 0
    for indices in batches(np.arange(len(split)), batch_size):
        raw = RawImages(split.images(indices), indices, "none", 0, 0, dataset.mean, dataset.std)
        logits = engine.predict(engine.images(raw, dtype)).astype(np.float64)
        labels = split.labels[indices]
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        loss += float((log_sum - logits[np.arange(len(labels)), labels]).sum())
        right += int((logits.argmax(axis=1) == labels).sum())
    return Evaluation(loss / len(split), right / len(split), len(split))


def check_fit(dataset: Dataset, config: ViTConfig) -> None:
    """Raise ConfigError if the model has too few classes for the data, or is no classifier."""
    if len(dataset.class_names) > config.num_classes:
        raise ConfigError(
            f"{dataset.name} has {len(dataset.class_names)} classes but the model num_classes={config.num_classes}; "
            f"use --num-classes {len(dataset.class_names)}"
        )
    if config.pool == "none":
        raise ConfigError("pool='none' gives each token its own logits; a classifier of pictures pools, as pool='cls'")


def check_ready(dataset: Dataset, config: ViTConfig, recipe: Recipe, first_step: int = 0) -> Plan:
    """The plan of a training that can be started: raise now what would stop it after an epoch.

    Raises:
        ConfigError: the model does not fit the data, or there are fewer steps than have been taken.
        DataError: a split is empty.
    """
    check_fit(dataset, config)
    plan = Plan.of(len(dataset.train), recipe)
    if not len(dataset.test):
        raise DataError(f"the test split of {dataset.name} is empty; each class needs a picture to test with")
    if first_step > plan.total_steps:
        raise ConfigError(
            f"the run has taken {first_step} steps, and --epochs {recipe.epochs} makes {plan.total_steps}; "
            f"give as many epochs as it has, or more"
        )
    return plan


def train(
    engine: Engine,
    config: ViTConfig,
    recipe: Recipe,
    dataset: Dataset,
    run: RunFolder,
    first_step: int = 0,
    show: bool = True,
) -> Evaluation:
    """Train from `first_step` (0, or that of a loaded state) to the end; returns the test split's evaluation.

    The run folder gets a line of metrics a step, a checkpoint and an evaluation an epoch. Ctrl-C, SIGTERM or a closed
    terminal finishes the step, saves, and raises Interrupted; what else stops it between two steps, a picture that
    cannot be read or an output that nobody reads, is raised when the steps so far are saved.

    Raises:
        RangeError: the loss or the gradient of a step, which it names, or the loss on the test split is not finite. The
            parameters before the step are saved if one can go on from them, else the checkpoint before stays.
    """
    plan = check_ready(dataset, config, recipe, first_step)
    log = StepLog(run, plan.steps_per_epoch, [m["loss"] for m in run.rewind(first_step) if "loss" in m])
    epoch_start = time.perf_counter()
    result = Evaluation(math.nan, math.nan, 0)

    def batch_of(step: int) -> Batch:
        return make_batch(dataset, config, recipe, step, engine.images)

    keeper = Keeper(engine, config, run, log, first_step, lambda step: engine.train_step(*batch_of(step)))
    with stop_signal() as stop, keeper, progress_bar(plan.total_steps, engine.name, first_step, show=show) as bar:
        for step in range(first_step, plan.total_steps):
            batch = batch_of(step)
            start = time.perf_counter()
            with keeper.taking(step):
                taken = engine.train_step(*batch)
            log.add(step, batch.lr, time.perf_counter() - start, taken)
            done, epoch, stopping = step + 1, step // plan.steps_per_epoch + 1, stop.asked
            ended = done % plan.steps_per_epoch == 0
            due = ended or stopping or keeper.seconds > SAVE_SECONDS
            log.read(keep=0 if due else LATE)
            bar.update()
            known = {"test": f"{result.accuracy:.2%}"} if result.pictures else {}
            bar.set_postfix(loss=f"{log.losses[-1]:.3f}" if log.losses else "?", **known, refresh=False)
            if ended:
                result = evaluate(engine, dataset, dataset.test, recipe.dtype)
                if not math.isfinite(result.loss):  # before it is saved over parameters that were better
                    raise DivergedError(f"after step {done} the loss on the test split is {result.loss}")
                now = time.perf_counter()
                mean_loss = sum(log.losses[-plan.steps_per_epoch :]) / plan.steps_per_epoch
                run.log(
                    epoch=epoch, step=done, train_loss=mean_loss, test_loss=result.loss, test_accuracy=result.accuracy,
                    seconds=round(now - epoch_start, 3),
                )  # fmt: skip
                if show:
                    bar.write(
                        f"epoch {epoch:3d}/{recipe.epochs}  train loss {mean_loss:.4f}  test loss {result.loss:.4f}  "
                        f"test accuracy {result.accuracy:.2%}  {now - epoch_start:.1f} s"
                    )
                epoch_start = now
            if due:
                keeper.save()
            if stopping and done < plan.total_steps:
                raise Interrupted(done)
    if not result.pictures:
        result = evaluate(engine, dataset, dataset.test, recipe.dtype)
    return result
