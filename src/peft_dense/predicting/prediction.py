"""What a model found in one image: label maps at its own size, and pictures of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from peft_dense.predicting.painting import Tile, over, painted, shown, titled_tiles
from peft_dense.tasks import Task

__all__ = ["Prediction"]


@dataclass(frozen=True)
class Prediction:
    """Hold what a model found in one image.

    Args:
        name: The image's name: its file's without ending, or its number.
        place: The image's path, or its number, for messages.
        image: ``(C, H, W)`` as it was read, turned as it is shown: uint8, or float32 in 0..1.
        labels: By task, at the image's own size: classes ``(H, W)`` (uint8; int32 where there are
            more than 256), probabilities of marks ``(H, W)``, depths ``(H, W)`` and unit normals
            ``(3, H, W)``, these float32.
        tasks: The tasks by name.
        seconds: How long the pass took; in a batch, the image's share.

    Shape:
        image ``(C, H, W)``; labels ``(H, W)``, of normals ``(3, H, W)``

    Example:
        >>> import torch
        >>> from peft_dense.tasks import task
        >>> found = Prediction(
        ...     name="a",
        ...     place="a.png",
        ...     image=torch.zeros(3, 4, 6, dtype=torch.uint8),
        ...     labels={"semseg": torch.zeros(4, 6, dtype=torch.uint8)},
        ...     tasks={"semseg": task("semseg", channels=21)},
        ...     seconds=0.1,
        ... )
        >>> found.size, found.map("semseg").size
        ((4, 6), (6, 4))
    """

    name: str
    place: str
    image: Tensor = field(repr=False)
    labels: dict[str, Tensor] = field(repr=False)
    tasks: Mapping[str, Task] = field(repr=False)
    seconds: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, and of each label map."""
        return self.image.shape[-2], self.image.shape[-1]

    def photo(self, longest: int | None = None) -> Image.Image:
        """Give the image as a picture.

        Args:
            longest: Its longer side in pixels, if it is longer.
        """
        return shown(self.image, longest)

    def map(self, task: str, longest: int | None = None) -> Image.Image:
        """Paint what was found of a task.

        Args:
            task: Its name.
            longest: The longer side in pixels, if it is longer.
        """
        return painted(self.tasks[task], self.labels[task], longest)

    def overlay(self, task: str, opacity: float = 0.6, longest: int | None = None) -> Image.Image:
        """Paint what was found of a task over the image.

        Background and what isn't marked stay clear.

        Args:
            task: Its name.
            opacity: From 0, only the image, to 1.
            longest: The longer side in pixels, if it is longer.
        """
        return over(self.image, self.tasks[task], self.labels[task], opacity, longest)

    def side_by_side(self, opacity: float | None = None, longest: int = 480) -> Image.Image:
        """Lay out the image and all tasks side by side, with the meaning of their colours.

        Args:
            opacity: Paint the tasks over the image; by default on their own.
            longest: Longer side of each tile in pixels, if it is longer.
        """
        tiles: list[Tile] = [("image", self.photo(longest), None, None)]
        for name, task in self.tasks.items():
            tile = (
                self.map(name, longest) if opacity is None else self.overlay(name, opacity, longest)
            )
            tiles.append((name, tile, task, self.labels[name]))
        return titled_tiles(tiles, laid_over=opacity is not None)

    def is_finite(self) -> bool:
        """Whether no label map holds NaN or infinity."""
        return all(bool(torch.isfinite(label).all()) for label in self.labels.values())
