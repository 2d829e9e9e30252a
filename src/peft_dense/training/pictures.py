"""A sheet of images with truth and prediction of every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch.nn.functional import pad

from peft_dense.data import collate, on_device
from peft_dense.dense import DenseModel
from peft_dense.predicting import raw_maps
from peft_dense.tasks import Task
from peft_dense.training.batches import Draws

__all__ = ["picture"]


def picture(
    model: DenseModel,
    tasks: Mapping[str, Task],
    data: Any,
    rows: int = 4,
    *,
    bf16: bool = False,
    skip_bad: bool = False,
) -> Image.Image:
    """Lay out a row per example: its image, then truth and prediction of each task.

    Args:
        model: The model.
        tasks: What to draw, by name.
        data: Items of one size, with an image and a label a task.
        rows: How many examples.
        bf16: Whether to autocast to bfloat16.
        skip_bad: Leave a row black whose files can't be read.
    """
    rows = min(rows, len(data))
    draws = Draws(data, 0, skip_bad)
    batch = on_device(collate([draws[0, i * len(data) // rows] for i in range(rows)]), "cpu")
    found = {k: v.cpu() for k, v in raw_maps(model, batch["image"], bf16=bf16).items()}
    strips = []
    for index, image in enumerate(batch["image"]):
        cells = [(image.movedim(0, -1) * 255).byte()]
        for name, task in tasks.items():
            cells.append(task.draw_target(batch[name][index]))
            cells.append(task.draw_prediction(found[name][index]))
        strips.append(torch.cat([pad(cell, (0, 0, 0, 4, 0, 4), value=255) for cell in cells], 1))
    pixels = pad(torch.cat(strips), (0, 0, 0, 0, 14, 0), value=255)
    sheet = Image.fromarray(pixels.numpy())
    titles = ["image", *(f"{name} {kind}" for name in tasks for kind in ("truth", "found"))]
    for index, title in enumerate(titles):
        place = (index * sheet.width // len(titles) + 1, 1)
        ImageDraw.Draw(sheet).text(place, title, "black")
    return sheet
