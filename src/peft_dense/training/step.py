"""The gradients of one step, whichever way its batch is spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from peft_dense.data.labels import Item
from peft_dense.dense import DenseModel
from peft_dense.tasks import Task
from peft_dense.training.batches import part_of
from peft_dense.training.evaluation import normalise
from peft_dense.training.processes import sum_gradients, sum_over_processes
from peft_dense.training.recipe import Recipe

__all__ = ["backward"]


def backward(
    model: DenseModel,
    tasks: Mapping[str, Task],
    batch: Item,
    recipe: Recipe,
) -> dict[str, Tensor]:
    """Add the gradients of the whole batch's weighted losses, from this process's share of it.

    The batch may be spread over processes, over parts (``recipe.accumulate``) and over paths
    (``recipe.by_path``). Each piece's loss is its share of the whole batch's mean (`Task.loss` with
    the counts of the whole), so the sum of the pieces' gradients is what one piece would give,
    however many pixels are labelled in which of them. Two things see the pieces: batch norms see
    all processes' images but one part at a time, and drop path draws anew for each piece.

    Args:
        model: The model, in training mode.
        tasks: Whose losses.
        batch: Items of this process.
        recipe: Parts, paths, weights, precision.

    Returns:
        This process's share of each task's loss; their sum over processes is the batch's.
    """
    device = next(model.parameters()).device
    groups: Sequence[Sequence[str]]
    groups = model.encoder.task_groups if recipe.by_path else [model.tasks]
    counts = {
        name: sum_over_processes(task.counts(batch[name]).to(device))
        for name, task in tasks.items()
    }
    losses = {name: torch.zeros((), device=device) for name in tasks}
    for number in range(recipe.accumulate):
        part = part_of(batch, number, recipe.accumulate)
        images = normalise(model, part["image"])
        for names in groups:
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
                made = model(images, names)
            here = {
                name: tasks[name].loss(made[name], part[name].to(device), counts[name])
                for name in names
            }
            weighted = [recipe.weight(name) * loss for name, loss in here.items()]
            torch.autograd.backward(torch.stack(weighted).sum())
            for name, loss in here.items():
                losses[name] += loss.detach()
    sum_gradients(p for p in model.parameters() if p.requires_grad)
    return losses
