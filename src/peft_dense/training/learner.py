"""A model with its optimizer and its average, trained step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from peft_dense.data.labels import Item
from peft_dense.dense import DenseModel
from peft_dense.errors import HyperparameterError
from peft_dense.tasks import Task
from peft_dense.training.averaging import Average
from peft_dense.training.batches import seed_of
from peft_dense.training.optimizer import make_optimizer, set_rates
from peft_dense.training.processes import share_model, sum_over_processes
from peft_dense.training.recipe import Recipe
from peft_dense.training.report import not_finite
from peft_dense.training.step import backward

__all__ = ["Learner"]


class Learner:
    """Take training steps by a recipe; all they depend on can be saved and restored.

    Args:
        model: The model, on its device.
        tasks: The tasks whose losses count.
        recipe: How to train.
        steps: Steps of the whole run.
        process: Number of this process; drop path draws by it.
    """

    def __init__(
        self,
        model: DenseModel,
        tasks: Mapping[str, Task],
        recipe: Recipe,
        steps: int,
        process: int = 0,
    ) -> None:
        self.model, self.tasks, self.recipe = model, tasks, recipe
        self.steps, self.process = steps, process
        if recipe.checkpointing:
            model.encoder.set_grad_checkpointing()
        if recipe.channels_last:  # the backbone's kernels are shared with the original: they stay
            model.heads.to(memory_format=torch.channels_last)
        share_model(model)
        self.forward: Any = torch.compile(model) if recipe.compile else model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(model, recipe)
        self.average = Average(self.trained, recipe.ema) if recipe.ema else None

    def learn(
        self, batch: Item, step: int, votes: Sequence[float] = ()
    ) -> tuple[dict[str, dict[str, float]], list[float]]:
        """Take one step.

        Args:
            batch: This process's share of the images.
            step: The step's number, from 0.
            votes: Numbers to sum over processes, in one message with the losses.

        Returns:
            Each task's ``loss`` over the whole batch, with all of them weighted under ``all``; and
            the votes summed.

        Raises:
            HyperparameterError: The loss isn't finite; no weight has changed.
        """
        recipe = self.recipe
        torch.manual_seed(seed_of(recipe.seed, step, self.process, 0))
        self.model.train()
        self.optimizer.zero_grad()
        set_rates(self.optimizer, recipe.rate(step, self.steps))
        shares = torch.stack(
            list(backward(self.model, self.tasks, batch, recipe, self.forward).values())
        )
        told = torch.cat([shares, torch.tensor(votes).to(shares)])
        values = sum_over_processes(told).tolist()  # the one wait for the device
        losses = dict(zip(self.tasks, values, strict=False))
        total = sum(recipe.weight(name) * value for name, value in losses.items())
        if not math.isfinite(total):
            raise HyperparameterError(not_finite(losses, step, recipe))
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.trained, recipe.clip)
        self.optimizer.step()
        if self.average:
            self.average.update(step)
        metrics = {name: {"loss": value} for name, value in losses.items()}
        metrics["all"] = {"loss": total, "lr": self.optimizer.param_groups[0]["lr"]}
        return metrics, values[len(losses) :]

    @contextmanager
    def scored(self) -> Iterator[DenseModel]:
        """Give the model as it is scored and kept: averaged, where there is an average."""
        if not self.average:
            yield self.model
            return
        with self.average.applied():
            yield self.model

    def settle(self) -> None:
        """Leave the model as it is scored."""
        if self.average:
            self.average.put()

    def as_state(self) -> dict[str, Any]:
        """Give all that further steps depend on; the tensors aren't copied."""
        return {
            "model": self.model.trainable_state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values if self.average else [],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`as_state` gave."""
        self.model.load_trainable_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            for value, saved in zip(self.average.values, state["average"], strict=True):
                value.copy_(saved)
