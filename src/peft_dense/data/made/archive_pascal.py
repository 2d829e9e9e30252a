"""Rendered scenes in the layout of PASCAL_MT, its formats and its traps included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from peft_dense.data.labels import IGNORE, Item
from peft_dense.data.made.archive_plain import by_class, coded_normals, save_image, void_borders
from peft_dense.data.made.scenes import PARTS
from peft_dense.data.made.solids import Array
from peft_dense.tasks.drawing import palette

__all__ = ["CONTEXT", "VOC", "PascalWriter"]

VOC = {
    "background": 0,
    "ground": 0,
    "box": 20,
    "sphere": 17,
    "cylinder": 5,
    "cone": 9,
    "person": 15,
}
"""The scenes' classes among VOC's 21: tvmonitor, sheep, bottle, chair and person."""

CONTEXT = {
    "background": 440,
    "ground": 189,
    "box": 427,
    "sphere": 347,
    "cylinder": 34,
    "cone": 72,
    "person": 284,
}
"""The same among PASCAL-Context's 459. Normals don't count on the ground (189) and sheep (347)."""

_NAMES = {5: "bottle", 9: "chair", 15: "person", 17: "sheep", 20: "tvmonitor"}
_SPECK = 0.002
"""Objects with a smaller share of the image's pixels are listed as too small."""


class PascalWriter:
    """Write the nine folders of PASCAL_MT.

    Every third image has its semseg in ``pascal-context`` only, and those PNGs are grey where
    ``VOC12`` has a palette. As in PASCAL-Part, ``human_parts`` lists all objects: sheep have heads
    too, chairs have no parts, and a torso reaches under the arms, which come later.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: dict[str, dict[str, list[int]]] = {"train": {}, "val": {}}
        folders = "JPEGImages ImageSets/Context ImageSets/Parts pascal-context/trainval"
        folders += " semseg/VOC12 semseg/pascal-context human_parts normals_distill sal_distill"
        for name in folders.split():
            (folder / name).mkdir(parents=True)

    def add(self, split: str, name: str, item: Item) -> None:
        """Write the files of one image."""
        from scipy.io import savemat

        voc = by_class(item, VOC)
        save_image(item, self.folder / "JPEGImages" / f"{name}.jpg")

        void = void_borders(voc)
        semseg = Image.fromarray(np.where(void, IGNORE, voc).astype(np.uint8))
        source = "pascal-context" if sum(map(len, self.parts.values())) % 3 == 2 else "VOC12"
        if source == "VOC12":
            semseg.putpalette(palette().flatten().tolist())
        semseg.save(self.folder / "semseg" / source / f"{name}.png")

        normals, sal = Image.fromarray(coded_normals(item)), Image.fromarray(_soft_saliency(item))
        normals.save(self.folder / "normals_distill" / f"{name}.png")
        sal.save(self.folder / "sal_distill" / f"{name}.png")

        regions = {"LabelMap": by_class(item, CONTEXT).astype(np.uint16)}
        path = self.folder / "pascal-context" / "trainval" / f"{name}.mat"
        savemat(path, regions, do_compression=True)

        objects = list(_objects(voc, item["human_parts"].numpy()))
        anno = {"imname": name, "objects": _structs(objects, _OBJECT)}
        path = self.folder / "human_parts" / f"{name}.mat"
        savemat(path, {"anno": _structs([anno], tuple(anno))}, do_compression=True)
        self.parts[split][name] = [
            one["class_ind"] if one["mask"].mean() >= _SPECK else -1 for one in objects
        ]

    def finish(self) -> None:
        """Write the lists."""
        for split, parts in self.parts.items():
            names = "".join(f"{name}\n" for name in parts)
            lists = self.folder / "ImageSets"
            (lists / "Context" / f"{split}.txt").write_text(names, encoding="utf-8")
            (lists / "Parts" / f"{split}.txt").write_text(json.dumps(parts), encoding="utf-8")


def _soft_saliency(item: Item) -> Array:
    """Grey values as a network gives them, brighter where the image is; above half if salient."""
    light = item["image"].mean(0).numpy()
    grey: Array = 128 * item["sal"].numpy() + 127 * light.clip(0, 1)
    return grey.astype(np.uint8)


# ---------------------------------------------------------------------- PASCAL-Part

_OBJECT = ("class", "class_ind", "mask", "parts")
_PART = ("part_name", "mask")


def _objects(voc: Array, parts: Array) -> Iterator[dict[str, Any]]:
    """Give the connected regions of each class as PASCAL-Part's objects."""
    from scipy.ndimage import label

    for index, name in _NAMES.items():
        regions, count = label(voc == index)
        for number in range(1, count + 1):
            mask = regions == number
            pieces = _body(mask, parts) if name == "person" else _others(mask, name)
            pieces = {piece: where for piece, where in pieces.items() if where.any()}
            listed = [
                {"part_name": piece, "mask": where.astype(np.uint8)}
                for piece, where in pieces.items()
            ]
            yield {
                "class": name,
                "class_ind": index,
                "mask": mask.astype(np.uint8),
                "parts": _structs(listed, _PART),
            }


def _body(mask: Array, parts: Array) -> dict[str, Array]:
    """Spread a person's rendered parts over PASCAL-Part's, left and right of its middle."""
    head, torso, upper_arm, lower_arm, upper_leg, lower_leg = (
        mask & (parts == index) for index in range(1, len(PARTS))
    )
    top, middle, bottom = _thirds(head)
    left = np.arange(mask.shape[1]) >= np.nonzero(mask)[1].mean()
    sides = {"l": left, "r": ~left}
    pieces = {"head": head, "hair": top, "nose": middle & left, "mouth": bottom}
    for side, here in sides.items():
        pieces[f"{side}eye"] = middle & here
        pieces[f"{side}ear"] = head & here & ~middle
    pieces["torso"] = torso | upper_arm | lower_arm
    pieces["neck"] = _thirds(torso)[0]
    for side, here in sides.items():
        pieces[f"{side}uarm"], pieces[f"{side}larm"] = upper_arm & here, lower_arm & here
        pieces[f"{side}hand"] = _thirds(lower_arm & here)[2]
        pieces[f"{side}uleg"], pieces[f"{side}lleg"] = upper_leg & here, lower_leg & here
        pieces[f"{side}foot"] = _thirds(lower_leg & here)[2]
    return pieces


def _others(mask: Array, name: str) -> dict[str, Array]:
    top, middle, bottom = _thirds(mask)
    return {
        "bottle": {"cap": top, "body": middle | bottom},
        "sheep": {"head": top, "torso": middle | bottom},
        "tvmonitor": {"screen": middle},
    }.get(name, {})


def _thirds(mask: Array) -> tuple[Array, Array, Array]:
    """Cut a region into an upper, a middle and a lower part of equally many rows."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return mask, mask, mask
    third = 3 * (np.arange(len(mask)) - rows[0]) // (rows[-1] - rows[0] + 1)
    upper, middle, lower = (mask & (third == index)[:, None] for index in range(3))
    return upper, middle, lower


def _structs(rows: list[Mapping[str, Any]] | list[dict[str, Any]], names: tuple[str, ...]) -> Array:
    """Give MATLAB's 1 x N array of structs; no rows are its ``[]``."""
    if not rows:
        return np.zeros((0, 0))
    table: Array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for index, row in enumerate(rows):
        table[0, index] = tuple(row[name] for name in names)
    return table
