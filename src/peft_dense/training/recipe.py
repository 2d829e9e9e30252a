"""How a run trains, as typed options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from peft_dense.errors import HyperparameterError

__all__ = ["LOSS_WEIGHTS", "Recipe"]

LOSS_WEIGHTS = {"semseg": 1, "human_parts": 2, "sal": 5, "edge": 50, "normals": 10, "depth": 1}
"""Loss weights of the multi-task work on PASCAL-Context (Maninis et al., CVPR 2019, and after)."""


def _option(default: Any, about: str, group: str = "training", **more: Any) -> Any:
    """Make a field that scripts offer as an option of a group, with this help."""
    metadata = {"help": about, "group": group, **more}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults are VMT-Adapter's on PASCAL-Context, where it states them.

    Adam at 1e-4, which falls linearly to 0, batch 12, 60 epochs (VMT-Adapter, section 5.1; the
    weight decay of 1e-4 is assumed). Each field's ``metadata["help"]`` says what it does;
    `peft_dense.training.add_options` makes command-line options of them.

    Raises:
        HyperparameterError: If a value isn't allowed.

    Example:
        >>> recipe = Recipe(batch=8, epochs=2)
        >>> recipe.steps_for(100), recipe.rate(0, 24), recipe.rate(12, 24)
        (24, 1.0, 0.5)
    """

    epochs: float | None = _option(60.0, "passes over the training set")
    steps: int | None = _option(None, "optimiser steps, instead of epochs")
    batch: int = _option(12, "images per step, over all processes and parts")
    accumulate: int = _option(1, "parts that a process's share of a batch is computed in")
    optimizer: str = _option(
        "adam", "adam (weight decay in the gradient) or adamw", choices=("adam", "adamw")
    )
    lr: float = _option(1e-4, "peak learning rate of heads and output norms")
    adapter_lr: float | None = _option(None, "peak for what the method adds, where it isn't lr")
    backbone_lr: float | None = _option(
        None, "peak for unfrozen backbone parameters, where it isn't lr"
    )
    weight_decay: float = _option(1e-4, "of everything that trains")
    decay_vectors: bool = _option(
        True, "decay vectors too (norms, biases, scales), not only matrices and kernels"
    )
    schedule: str = _option(
        "linear", "how the learning rate falls to 0: linear or cosine", choices=("linear", "cosine")
    )
    warmup: float = _option(0.0, "share of the steps in which the learning rate rises linearly")
    clip: float | None = _option(None, "largest norm of the whole gradient, which is cut to it")
    loss_weights: Mapping[str, float] = _option(LOSS_WEIGHTS, "TASK=WEIGHT; other tasks weigh 1")
    ema: float | None = _option(None, "decay of averaged weights, such as 0.999; they are scored")
    seed: int = _option(0, "of everything that is drawn at random")
    skip_bad: bool = _option(False, "report files that can't be read, and go on without them")
    bf16: bool = _option(False, "autocast to bfloat16", "speed")
    tf32: bool = _option(False, "let a GPU round float32 products to TensorFloat-32", "speed")
    fused: bool = _option(True, "update all weights in one kernel, where the device can", "speed")
    channels_last: bool = _option(
        False, "hold images and the heads' kernels channels last", "speed"
    )
    compile: bool = _option(False, "compile the model by torch.compile", "speed")
    checkpointing: bool = _option(
        False, "recompute blocks in the backward: less memory, slower", "speed"
    )
    by_path: bool = _option(True, "backward path by path: T paths need the memory of one", "speed")
    workers: int = _option(0, "processes that load data, for each process that trains", "speed")
    eval_every: int | None = _option(
        None, "steps between validations, where it isn't a tenth of all", "keeping"
    )
    save_every: int | None = _option(
        None, "steps between states, where it isn't eval_every or 500", "keeping"
    )
    pictures: int = _option(4, "rows of the picture grid; 0 for none", "keeping")

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "steps", "eval_every", "save_every"):
            self._whole(name, 1, optional=name not in ("batch", "accumulate"))
        for name in ("pictures", "workers", "seed"):
            self._whole(name, 0)
        rates = {name: getattr(self, name) for name in ("lr", "adapter_lr", "backbone_lr")}
        weights = {f"loss_weights[{name!r}]": value for name, value in self.loss_weights.items()}
        for name, value in {**rates, "weight_decay": self.weight_decay, **weights}.items():
            may_be_none = name in ("adapter_lr", "backbone_lr")
            if not (value is None and may_be_none) and not _is_number(value, 0, math.inf):
                raise HyperparameterError(f"{name}={value!r}; expected a number from 0.")
        for name, known in _CHOICES.items():
            if (given := getattr(self, name)) not in known:
                raise HyperparameterError(f"{name}={given!r}; expected {' or '.join(known)}.")
        if not _is_number(self.warmup, 0, 1):
            raise HyperparameterError(f"warmup={self.warmup!r}; expected a share, 0 <= warmup < 1.")
        if self.ema is not None and not (self.ema and _is_number(self.ema, 0, 1)):
            raise HyperparameterError(f"ema={self.ema!r}; expected a decay between 0 and 1.")
        if self.clip is not None and not (self.clip and _is_number(self.clip, 0, math.inf)):
            raise HyperparameterError(f"clip={self.clip!r}; expected a positive norm.")
        if self.steps is None and not (self.epochs and _is_number(self.epochs, 0, math.inf)):
            raise HyperparameterError(
                f"epochs={self.epochs!r}, steps={self.steps}; expected a positive number of either."
            )

    def _whole(self, name: str, least: int, *, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise HyperparameterError(f"{name}={value!r}; expected a whole number from {least}.")

    def steps_for(self, images: int) -> int:
        """Count the steps on so many images; an epoch's last incomplete batch is left out."""
        return self.steps or math.ceil((self.epochs or 0) * max(1, images // self.batch))

    def check_parts(self, images: int, processes: int) -> None:
        """Check that every process has an image in each part of a batch.

        Raises:
            HyperparameterError: A batch has fewer images than processes times parts.
        """
        smallest = min(self.batch, images) // processes
        if smallest < self.accumulate:
            raise HyperparameterError(
                f"{smallest} images per process and step can't be computed in {self.accumulate} "
                "parts; use a larger batch, or fewer parts or processes."
            )

    def rate(self, step: int, steps: int) -> float:
        """Give the factor of the learning rate at ``step``, from 0: a rise, then a fall to 0.

        The cosine's fall is half a period (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5).
        """
        rise = round(self.warmup * steps)
        left = min(1.0, (steps - step) / max(1, steps - rise))
        fall = left if self.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
        return min((step + 1) / (rise + 1), fall)

    def weight(self, task: str) -> float:
        """Give the weight of a task's loss."""
        return self.loss_weights.get(task, 1.0)


_CHOICES = {
    each.name: each.metadata["choices"] for each in fields(Recipe) if "choices" in each.metadata
}


def _is_number(value: object, least: float, below: float) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and least <= value < below  # type: ignore[operator]
