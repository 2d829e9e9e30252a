"""Data sets of images with one dense label a task, and transforms that move them together."""

from peft_dense.data.cached import Cached
from peft_dense.data.checking.check import check_data
from peft_dense.data.made.archive import make_archive
from peft_dense.data.made.scenes import Scenes
from peft_dense.data.sources.folder import DenseFolder, available_tasks, collate
from peft_dense.data.sources.layouts import layout_of, open_data
from peft_dense.data.sources.nyud import NYUDv2
from peft_dense.data.sources.pascal_context import PASCALContext
from peft_dense.data.transforms import (
    ColorJitter,
    Compose,
    PadTo,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScaleCrop,
    Resize,
    augmentation,
)

__all__ = [
    "Cached",
    "ColorJitter",
    "Compose",
    "DenseFolder",
    "NYUDv2",
    "PASCALContext",
    "PadTo",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomScaleCrop",
    "Resize",
    "Scenes",
    "augmentation",
    "available_tasks",
    "check_data",
    "collate",
    "layout_of",
    "make_archive",
    "open_data",
]
