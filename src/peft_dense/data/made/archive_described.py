"""Rendered scenes in the layouts that ready descriptions read, in their codings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from peft_dense.data.described.ready import read_description
from peft_dense.data.labels import IGNORE, Item
from peft_dense.data.made.archive_pascal import VOC
from peft_dense.data.made.archive_plain import NYUD, by_class, save_image, void_borders
from peft_dense.data.made.scenes import CLASSES
from peft_dense.data.made.solids import Array
from peft_dense.errors import MissingPackageError
from peft_dense.tasks.drawing import palette

__all__ = [
    "STANDS_FOR",
    "ADE20KWriter",
    "COCOPanopticWriter",
    "COCOStuffWriter",
    "CityscapesWriter",
    "NYUv2MatWriter",
    "SevenScenesWriter",
    "TaskonomyWriter",
    "VOCWriter",
]

STANDS_FOR: dict[str, tuple[str, ...]] = {
    "cityscapes": ("building", "road", "car", "traffic sign", "pole", "vegetation", "person"),
    "ade20k": ("wall", "floor", "box", "ball", "column", "tent", "person"),
    "coco": ("wall-wood", "road", "microwave", "sports ball", "bottle", "tent", "person"),
    "taskonomy": ("background", "background", "microwave", "clock", "bottle", "vase", "chair"),
}
"""Which classes of a layout the scenes' stand for: wall, ground, box, sphere, cylinder, cone and
person, in this order."""


def _numbers(layout: str, name: str) -> dict[str, int]:
    """Find the number in files of each of the scenes' classes, in a ready description."""
    how = read_description(layout).tasks["semseg"]
    names, values = how.names or (), how.values
    numbers: dict[str, int] = {}
    for scene, stands in zip(CLASSES, STANDS_FOR[name], strict=True):
        if isinstance(values, Mapping):
            numbers[scene] = next(int(v) for v, n in values.items() if n == stands)
        else:
            numbers[scene] = list(values or ()).index(names.index(stands))
    return numbers


class _Writer:
    """Write files into folders that are made as they are needed.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists: dict[str, list[str]] = {"train": [], "val": []}

    def add(self, split: str, name: str, item: Item) -> None:
        """Write the files of one image."""
        self.lists[split].append(name)
        self._write(split, name, item)

    def _write(self, split: str, name: str, item: Item) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Write what lists the images."""

    def _image(self, path: str, item: Item) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ".png":
            pixels = (255 * item["image"].clamp(0, 1)).round().byte().movedim(0, -1)
            Image.fromarray(pixels.numpy()).save(place)
        else:
            save_image(item, place)

    def _png(self, path: str, array: Array, colours: bool = False) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(array)
        if colours:
            image.putpalette(palette().flatten().tolist())
        image.save(place)

    def _lines(self, path: str, lines: list[str]) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class CityscapesWriter(_Writer):
    """Write Cityscapes' folders: label numbers, out of roi on borders, and disparities."""

    def _write(self, split: str, name: str, item: Item) -> None:
        city = "aachen" if split == "train" else "lindau"
        stem = f"{split}/{city}/{city}_{name.replace('2008', '000000')}"
        self._image(f"leftImg8bit/{stem}_leftImg8bit.png", item)
        classes = by_class(item, _numbers("cityscapes", "cityscapes"))
        labels = np.where(void_borders(classes), 3, classes).astype(np.uint8)
        self._png(f"gtFine/{stem}_gtFine_labelIds.png", labels)
        depth = item["depth"][0].numpy().astype(np.float64)
        with np.errstate(divide="ignore"):
            shifts = (0.209313 * 2262.52 * 256 / depth + 1).round()
        there = (depth > 0) & (shifts <= 65535)  # nearer than 1.85 m nothing is measured
        self._png(f"disparity/{stem}_disparity.png", np.where(there, shifts, 0).astype(np.uint16))


class ADE20KWriter(_Writer):
    """Write ADE20K's folders as SceneParse150: class + 1, and 0 on borders."""

    def _write(self, split: str, name: str, item: Item) -> None:
        folder = {"train": "training", "val": "validation"}[split]
        self._image(f"images/{folder}/ADE_{split}_{name}.jpg", item)
        classes = by_class(item, _numbers("ade20k", "ade20k"))
        labels = np.where(void_borders(classes), 0, classes).astype(np.uint8)
        self._png(f"annotations/{folder}/ADE_{split}_{name}.png", labels)


class VOCWriter(_Writer):
    """Write PASCAL VOC's folders: PNGs with the palette, 255 on borders, and lists."""

    def _write(self, split: str, name: str, item: Item) -> None:
        self._image(f"JPEGImages/{name}.jpg", item)
        classes = by_class(item, VOC)
        labels = np.where(void_borders(classes), IGNORE, classes).astype(np.uint8)
        self._png(f"SegmentationClass/{name}.png", labels, colours=True)

    def finish(self) -> None:
        """Write the lists."""
        both = [*self.lists["train"], *self.lists["val"]]
        for split, names in {**self.lists, "trainval": both}.items():
            self._lines(f"ImageSets/Segmentation/{split}.txt", names)


class COCOStuffWriter(_Writer):
    """Write COCO-Stuff's maps: label number - 1, and 255 on borders."""

    def _write(self, split: str, name: str, item: Item) -> None:
        self._image(f"{split}2017/{name}.jpg", item)
        classes = by_class(item, _numbers("coco_stuff", "coco"))
        labels = np.where(void_borders(classes), IGNORE, classes).astype(np.uint8)
        self._png(f"stuffthingmaps/{split}2017/{name}.png", labels)


class COCOPanopticWriter(_Writer):
    """Write COCO's panoptic form: segments by colour, and JSON that says what they are.

    Each class of a scene is one segment, and borders belong to none.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.annotations: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}

    def _write(self, split: str, name: str, item: Item) -> None:
        self._image(f"{split}2017/{name}.jpg", item)
        categories = by_class(item, _numbers("coco_panoptic", "coco"))
        number = len(self.annotations[split])
        # Numbers that need all three bytes, so that a reader that drops one fails.
        segment = np.where(void_borders(categories), 0, 70_000 + 1_000 * number + categories)
        bytes_of = [(segment >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
        self._png(f"annotations/panoptic_{split}2017/{name}.png", np.stack(bytes_of, -1))
        infos = [
            {
                "id": int(one),
                "category_id": int(one) - 70_000 - 1_000 * number,
                "area": int((segment == one).sum()),
                "iscrowd": 0,
            }
            for one in np.unique(segment)
            if one
        ]
        self.annotations[split].append(
            {"image_id": number, "file_name": f"{name}.png", "segments_info": infos}
        )

    def finish(self) -> None:
        """Write the JSON files."""
        values = read_description("coco_panoptic").tasks["semseg"].values
        assert isinstance(values, Mapping)
        categories = [{"id": int(v), "name": n} for v, n in values.items()]
        for split, listed in self.annotations.items():
            held = {
                "images": [
                    {"id": each["image_id"], "file_name": each["file_name"].replace("png", "jpg")}
                    for each in listed
                ],
                "annotations": listed,
                "categories": categories,
            }
            path = self.folder / "annotations" / f"panoptic_{split}2017.json"
            path.write_text(json.dumps(held), encoding="utf-8")


class TaskonomyWriter(_Writer):
    """Write Taskonomy's folders: depth in 1/512 m, normals around 127, segments with uncertainty.

    Each image is a building of its own, as splits are of whole buildings.
    """

    def _write(self, split: str, name: str, item: Item) -> None:
        point = "point_0_view_0_domain"
        building = f"building{name[5:]}"
        self._image(f"{building}/rgb/{point}_rgb.png", item)
        depth = item["depth"][0].numpy()
        coded = np.where(depth > 0, (512 * depth).round().clip(1, 64999), 65535)
        self._png(f"{building}/depth_zbuffer/{point}_depth_zbuffer.png", coded.astype(np.uint16))
        x, y, z = item["normals"].numpy()
        turned = np.stack([x, -y, -z], -1)  # right, down, away
        bytes_of = (127 + 127 * turned).round().clip(0, 255).astype(np.uint8)
        self._png(f"{building}/normal/{point}_normal.png", bytes_of)
        classes = by_class(item, _numbers("taskonomy", "taskonomy"))
        labels = np.where(void_borders(item["semseg"].numpy()), 0, classes).astype(np.uint8)
        self._png(f"{building}/segment_semantic/{point}_segmentsemantic.png", labels)


class SevenScenesWriter(_Writer):
    """Write 7-Scenes' frames: millimetres, 65535 where there is none, and lists of sequences."""

    def _write(self, split: str, name: str, item: Item) -> None:
        frame = f"room/seq-0{1 if split == 'train' else 2}/frame-{len(self.lists[split]) - 1:06d}"
        self._image(f"{frame}.color.png", item)
        depth = item["depth"][0].numpy()
        void = void_borders(item["semseg"].numpy())
        coded = np.where(void, 65535, (1000 * depth).round().clip(0, 65534)).astype(np.uint16)
        self._png(f"{frame}.depth.png", coded)

    def finish(self) -> None:
        """Write the lists."""
        self._lines("room/TrainSplit.txt", ["sequence1"])
        self._lines("room/TestSplit.txt", ["sequence2"])


class NYUv2MatWriter(_Writer):
    """Write NYUv2's labelled .mat, and the .mat of its splits; scenes are cut to one size."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.items: list[tuple[str, Item]] = []

    def _write(self, split: str, name: str, item: Item) -> None:
        self.items.append((split, item))

    def finish(self) -> None:
        """Write the files."""
        from scipy.io import savemat

        try:
            import h5py
        except ImportError as error:
            raise MissingPackageError.of("writing NYUv2's .mat", "h5py", "mat") from error
        values = list(read_description("nyuv2_mat").tasks["semseg"].values or ())
        first = {number: values.index(number) for number in range(40)}
        height, width = (
            min(item["image"].shape[axis] for _, item in self.items) for axis in (1, 2)
        )
        arrays: dict[str, list[Array]] = {"images": [], "labels": [], "depths": []}
        for _, item in self.items:
            cut = {
                name: value[..., :height, :width] for name, value in item.items() if name != "meta"
            }
            classes = by_class(cut, NYUD) - 1
            labels = np.vectorize(first.get)(classes)
            labels = np.where(void_borders(classes), 0, labels)
            pixels = (255 * cut["image"].clamp(0, 1)).round().byte().numpy()
            # HDF5 has MATLAB's axes reversed: (3, W, H), (W, H).
            arrays["images"].append(pixels.swapaxes(1, 2))
            arrays["labels"].append(labels.astype(np.uint16).T)
            arrays["depths"].append(cut["depth"][0].numpy().T.astype(np.float32))
        with h5py.File(self.folder / "nyu_depth_v2_labeled.mat", "w") as file:
            for name, each in arrays.items():
                file[name] = np.stack(each)
        numbers = {
            key: np.array([[n + 1] for n, (split, _) in enumerate(self.items) if split == wanted])
            for key, wanted in (("trainNdxs", "train"), ("testNdxs", "val"))
        }
        savemat(self.folder / "splits.mat", numbers)
