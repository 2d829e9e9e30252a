"""A sheet of images with every task's label and prediction."""

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

_GAP, _TITLES = 4, 14
"""White pixels between cells, and above the first row."""


def picture(
    model: DenseModel,
    tasks: Mapping[str, Task],
    data: Any,
    rows: int = 4,
    *,
    bf16: bool = False,
    skip_bad: bool = False,
) -> Image.Image:
    """Lay out two rows per example: its image and labels, and its predictions below.

    Args:
        model: The model.
        tasks: What to draw, by name.
        data: Items of one size, with an image and one label per task.
        rows: Number of examples.
        bf16: Whether to autocast to bfloat16.
        skip_bad: Leave examples black whose files can't be read.

    Example:
        >>> import timm
        >>> from peft_dense import DenseModel, inject
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["depth"])
        >>> model = DenseModel(encoder, {"depth": 1})
        >>> from peft_dense.data import Scenes
        >>> from peft_dense.tasks import task
        >>> scenes = Scenes(2, size=(64, 64), tasks=["depth"])
        >>> picture(model, {"depth": task("depth")}, scenes, rows=1).width > 2 * 64
        True
    """
    rows = min(rows, len(data))
    draws = Draws(data, 0, skip_bad)
    batch = on_device(collate([draws[0, i * len(data) // rows] for i in range(rows)]), "cpu")
    found = {k: v.cpu() for k, v in raw_maps(model, batch["image"], bf16=bf16).items()}
    strips = []
    for index, image in enumerate(batch["image"]):
        truth = [(image.movedim(0, -1) * 255).byte()]
        below = [torch.full_like(truth[0], 255)]
        for name, task in tasks.items():
            truth.append(task.draw_target(batch[name][index]))
            below.append(task.draw_prediction(found[name][index]))
        strips += [
            torch.cat([pad(cell, (0, 0, 0, _GAP, 0, under), value=255) for cell in cells], 1)
            for cells, under in ((truth, _GAP), (below, 3 * _GAP))
        ]
    pixels = pad(torch.cat(strips), (0, 0, 0, 0, _TITLES, 0), value=255)
    sheet = Image.fromarray(pixels.numpy())
    write = ImageDraw.Draw(sheet)
    height, width = (side + _GAP for side in batch["image"].shape[-2:])
    for column, title in enumerate(("image", *tasks)):
        write.text((column * width + 1, 1), title, "black")
    for row in range(rows):
        top = _TITLES + row * (2 * height + 2 * _GAP) + height
        write.multiline_text((1, top), "above: truth\nhere: found", "black")
    return sheet
