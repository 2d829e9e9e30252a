"""The gradients of one step, over processes, parts and paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from peft_dense.data import on_device
from peft_dense.data.labels import Item
from peft_dense.dense import DenseModel
from peft_dense.predicting import normalise
from peft_dense.tasks import Task
from peft_dense.training.batches import part_of
from peft_dense.training.processes import sum_gradients, sum_over_processes
from peft_dense.training.recipe import Recipe

__all__ = ["Forward", "backward", "rounded_products"]


Forward = Callable[[Tensor, Sequence[str]], Mapping[str, Tensor]]


def backward(
    model: DenseModel,
    tasks: Mapping[str, Task],
    batch: Item,
    recipe: Recipe,
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """Add the gradients of the whole batch's weighted losses, from this process's share of it.

    The batch may be spread over processes, over parts (``recipe.accumulate``) and over paths
    (``recipe.by_path``). Each piece's loss is its share of the whole batch's mean (`Task.loss` with
    the counts of the whole), so the pieces' gradients add up to the whole batch's, wherever its
    labelled pixels are. Two things depend on the pieces: batch norms see all processes' images but
    one part at a time, and drop path draws anew for each piece.

    Args:
        model: The model, in training mode.
        tasks: The tasks whose losses count.
        batch: Items of this process.
        recipe: Parts, paths, weights, precision, layout.
        forward: What maps images to predictions, such as the model compiled; by default the model.

    Returns:
        This process's share of each task's loss; their sum over processes is the batch's.
    """
    forward = forward or model
    device = next(model.parameters()).device
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    groups: Sequence[Sequence[str]]
    groups = model.encoder.task_groups if recipe.by_path else [model.tasks]
    batch = on_device(batch, device)
    counts = _counts(tasks, batch)
    losses = {name: torch.zeros((), device=device) for name in tasks}
    for number in range(recipe.accumulate):
        part = part_of(batch, number, recipe.accumulate)
        images = normalise(model, part["image"]).contiguous(memory_format=layout)
        for names in groups:
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
                predictions = forward(images, names)
            shares = {
                name: tasks[name].loss(predictions[name], part[name], counts[name])
                for name in names
            }
            weighted = [recipe.weight(name) * loss for name, loss in shares.items()]
            torch.autograd.backward(torch.stack(weighted).sum())
            for name, loss in shares.items():
                losses[name] += loss.detach()
    sum_gradients(p for p in model.parameters() if p.requires_grad)
    return losses


def _counts(tasks: Mapping[str, Task], batch: Item) -> dict[str, Tensor]:
    """Count what each task's loss over the whole batch divides by, in one message."""
    own = [task.counts(batch[name]) for name, task in tasks.items()]
    whole = torch.split(sum_over_processes(torch.cat(own)), [len(each) for each in own])
    return dict(zip(tasks, whole, strict=True))


@contextmanager
def rounded_products(rounded: bool) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TensorFloat-32 within the context."""
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if rounded else former)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)
