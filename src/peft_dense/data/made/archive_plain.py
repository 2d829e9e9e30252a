"""Rendered scenes in the layouts of NYUD_MT and of `DenseFolder`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from peft_dense.data.labels import IGNORE, Item
from peft_dense.data.made.scenes import CLASSES, PARTS
from peft_dense.data.made.solids import Array

__all__ = [
    "NYUD",
    "FolderWriter",
    "NYUDWriter",
    "by_class",
    "coded_normals",
    "save_image",
    "void_borders",
]

NYUD = {
    "background": 1,
    "ground": 2,
    "box": 29,
    "sphere": 40,
    "cylinder": 35,
    "cone": 39,
    "person": 31,
}
"""The scenes' classes among the 40 of NYUD, counted from 1: the cylinder is a lamp, and so on."""


class NYUDWriter:
    """Write ``images segmentation normals depth edge gt_sets`` as NYUD_MT has them.

    Segmentation is coded class + 1, and 0 on the borders between classes; depth is in metres and 0
    there.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists: dict[str, list[str]] = {"train": [], "val": []}
        for name in ("images", "segmentation", "normals", "depth", "edge", "gt_sets"):
            (folder / name).mkdir()

    def add(self, split: str, name: str, item: Item) -> None:
        """Write the files of one image."""
        self.lists[split].append(name)
        semseg = by_class(item, NYUD)
        void = void_borders(semseg)
        save_image(item, self.folder / "images" / f"{name}.jpg")
        coded = np.where(void, 0, semseg).astype(np.uint8)
        Image.fromarray(coded).save(self.folder / "segmentation" / f"{name}.png")
        arrays = {
            "normals": item["normals"].movedim(0, -1).numpy(),
            "depth": np.where(void, 0, item["depth"][0].numpy()).astype(np.float32),
            "edge": item["edge"].numpy().astype(np.uint8),
        }
        for task, array in arrays.items():
            np.save(self.folder / task / f"{name}.npy", array)

    def finish(self) -> None:
        """Write the lists."""
        for split, names in self.lists.items():
            _write_list(self.folder / "gt_sets" / f"{split}.txt", names)


class FolderWriter:
    """Write a `DenseFolder` with all six tasks; a scene without people has no ``human_parts``.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists: dict[str, list[str]] = {"train": [], "val": []}
        for name in ("images", "semseg", "human_parts", "sal", "normals", "edge", "depth"):
            (folder / name).mkdir()

    def add(self, split: str, name: str, item: Item) -> None:
        """Write the files of one image."""
        self.lists[split].append(name)
        save_image(item, self.folder / "images" / f"{name}.jpg")
        millimetres = np.clip(1000 * item["depth"][0].numpy(), 0, 65535).round()
        labels = {
            task: item[task].numpy().astype(np.uint8)
            for task in ("semseg", "human_parts", "sal", "edge")
        }
        labels["normals"] = coded_normals(item)
        labels["depth"] = millimetres.astype(np.uint16)
        if (labels["human_parts"] == IGNORE).all():
            del labels["human_parts"]
        for task, array in labels.items():
            Image.fromarray(array).save(self.folder / task / f"{name}.png")

    def finish(self) -> None:
        """Write the lists and the names of the classes."""
        for split, names in self.lists.items():
            _write_list(self.folder / f"{split}.txt", names)
        classes = {"semseg": CLASSES, "human_parts": PARTS}
        (self.folder / "classes.json").write_text(json.dumps(classes, indent=1), encoding="utf-8")


def save_image(item: Item, path: Path) -> None:
    """Write an item's image as a JPEG of high quality."""
    pixels = (255 * item["image"].clamp(0, 1)).round().byte().movedim(0, -1)
    Image.fromarray(pixels.numpy()).save(path, quality=95, subsampling=0)


def coded_normals(item: Item) -> Array:
    """Code an item's unit vectors as bytes, ``255 (n + 1) / 2``.

    Shape:
        ``(3, H, W) -> (H, W, 3)`` uint8
    """
    coded: Array = np.round(255 * (item["normals"].movedim(0, -1).numpy() + 1) / 2)
    return coded.astype(np.uint8)


def by_class(item: Item, numbers: dict[str, int]) -> Array:
    """Give the scenes' classes other numbers.

    Shape:
        ``(H, W) -> (H, W)``
    """
    table = np.array([numbers[name] for name in CLASSES])
    renumbered: Array = table[item["semseg"].numpy()]
    return renumbered


def void_borders(classes: Array) -> Array:
    """Mark the pixels that have another class among their eight neighbours.

    Shape:
        ``(H, W) -> (H, W)`` bool

    Example:
        >>> void_borders(np.array([[0, 0, 0, 7]])).tolist()
        [[False, False, True, True]]
    """
    height, width = classes.shape
    around = np.pad(classes, 1, mode="edge")
    windows = [around[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    mixed: Array = np.max(windows, 0) != np.min(windows, 0)
    return mixed


def _write_list(path: Path, names: list[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
