"""Archives of rendered scenes, in the layouts that the data sets of this library read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from peft_dense.data.labels import Item
from peft_dense.data.made.archive_described import (
    ADE20KWriter,
    CityscapesWriter,
    COCOPanopticWriter,
    COCOStuffWriter,
    NYUv2MatWriter,
    SevenScenesWriter,
    TaskonomyWriter,
    VOCWriter,
)
from peft_dense.data.made.archive_pascal import PascalWriter
from peft_dense.data.made.archive_plain import FolderWriter, NYUDWriter
from peft_dense.data.made.looks import LOOKS
from peft_dense.data.made.scenes import Scenes
from peft_dense.errors import DataError, MissingPackageError, UnknownNameError

__all__ = ["LAYOUTS", "make_archive", "scenes_of"]

_SMALLEST = 16


class Writer(Protocol):
    """Writes rendered scenes in one layout."""

    def add(self, split: str, name: str, item: Item) -> None:
        """Write the files of one image."""

    def finish(self) -> None:
        """Write what lists the images."""


LAYOUTS: dict[str, tuple[str, Callable[[Path], Writer]]] = {
    "pascal": ("PASCAL_MT", PascalWriter),
    "nyud": ("NYUD_MT", NYUDWriter),
    "folder": ("", FolderWriter),
    "cityscapes": ("", CityscapesWriter),
    "ade20k": ("ADEChallengeData2016", ADE20KWriter),
    "voc": ("VOC2012", VOCWriter),
    "coco_panoptic": ("", COCOPanopticWriter),
    "coco_stuff": ("", COCOStuffWriter),
    "nyuv2_mat": ("", NYUv2MatWriter),
    "taskonomy": ("", TaskonomyWriter),
    "seven_scenes": ("", SevenScenesWriter),
}
"""By name: the folder inside the root, and what writes into it."""


def make_archive(
    root: str | Path,
    *,
    train: int = 16,
    val: int = 8,
    size: Sequence[int] = (192, 256),
    seed: int = 0,
    layout: str = "pascal",
    look: str = "mixed",
) -> Path:
    """Write rendered scenes to disk in the layout of a data set, with exact labels.

    For trying a pipeline, and for tests, without the real set: ``pascal`` has the files, formats
    and traps of PASCAL-Context's archive, ``nyud`` of NYUD's, ``folder`` is a `DenseFolder`, and
    each ready description has its layout here. The folder appears under its name only when it is
    whole. The same arguments write the same files.

    Args:
        root: Folder to make; it may be there already if it is empty.
        train: Number of training images.
        val: Number of validation images.
        size: Largest height and width; sizes vary by up to an eighth, and every fourth image
            stands on its short side.
        seed: Seed of the scenes.
        layout: One of `LAYOUTS`.
        look: One of `peft_dense.data.made.looks.LOOKS`.

    Returns:
        The folder that holds the files, ``root/PASCAL_MT`` for ``pascal``.

    Raises:
        DataError: If ``root`` isn't an empty folder, a number is too small, or the disk refuses.
        MissingPackageError: If the layout needs scipy or h5py, which isn't installed.
        UnknownNameError: If there is no such layout or look.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = make_archive(Path(folder, "small"), train=1, val=1, size=(32, 48))
        ...     sorted(path.name for path in made.iterdir())[:3]
        ['ImageSets', 'JPEGImages', 'human_parts']
    """
    root = Path(root).expanduser().absolute()
    if layout not in LAYOUTS:
        raise UnknownNameError.of("layout", layout, LAYOUTS)
    if look not in LOOKS:
        raise UnknownNameError.of("look", look, LOOKS)
    if min(train, val) < 1 or len(size) != 2 or min(size) < _SMALLEST:
        raise DataError(
            f"train={train}, val={val}, size={tuple(size)}: expected at least one image of each "
            f"split, and a (height, width) of at least {_SMALLEST} pixels each."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and isn't an empty folder; pass a new one, or remove it.")
    inner, write = LAYOUTS[layout]
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as beside:
            whole = Path(beside, "whole")
            (whole / inner).mkdir(parents=True)
            writer = write(whole / inner)
            for split, name, item in scenes_of(train, val, size, seed, look):
                writer.add(split, name, item)
            writer.finish()
            if root.exists():
                root.rmdir()
            os.replace(whole, root)
    except MissingPackageError:
        raise
    except ImportError as error:
        raise MissingPackageError.of(f"writing layout {layout}", error.name, "train") from error
    except OSError as error:
        raise DataError(f"can't write {root}: {error}.") from error
    return root / inner


def scenes_of(
    train: int, val: int, size: Sequence[int], seed: int, look: str = "mixed"
) -> Iterator[tuple[str, str, Item]]:
    """Render what `make_archive` writes: split, id and item, one after the other.

    Example:
        >>> split, name, item = next(scenes_of(1, 1, (32, 48), seed=0))
        >>> split, name, sorted(item)[:3]
        ('train', '2008_000002', ['depth', 'edge', 'human_parts'])
    """
    rng = np.random.default_rng(seed)
    number = 2
    for index in range(train + val):
        height, width = (int(side) - int(rng.integers(0, side // 8 + 1)) for side in size)
        if index % 4 == 3:
            height, width = width, height
        item = Scenes(train + val, (height, width), seed=seed, look=look)[index]
        yield "train" if index < train else "val", f"2008_{number:06d}", item
        number += int(rng.integers(1, 9))
