"""Data sets of images with one dense label per task, and transforms that move them together."""

from peft_dense.data.batch import blank_item, collate, on_device
from peft_dense.data.cached import Cached
from peft_dense.data.checking.check import check_data
from peft_dense.data.checking.findings import Finding
from peft_dense.data.checking.inspect import inspect_labels
from peft_dense.data.described.folder import DescribedFolder
from peft_dense.data.described.items import DescribedItems
from peft_dense.data.described.readers import register_reader
from peft_dense.data.described.ready import FILE, read_description, ready_descriptions
from peft_dense.data.described.schema import Description
from peft_dense.data.describing.draft import Draft, describe
from peft_dense.data.made.archive import make_archive
from peft_dense.data.made.scenes import Scenes
from peft_dense.data.sources.declared import parse_tasks
from peft_dense.data.sources.folder import DenseFolder, available_tasks
from peft_dense.data.sources.layouts import Place, find_place, layout_of, open_data
from peft_dense.data.sources.nyud import NYUDv2
from peft_dense.data.sources.pascal_context import PASCALContext
from peft_dense.data.task_choice import tasks_of
from peft_dense.data.transforms import (
    ColorJitter,
    Compose,
    Pack,
    PadTo,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScaleCrop,
    RandomWarp,
    Resize,
    augmentation,
)

__all__ = [
    "FILE",
    "Cached",
    "ColorJitter",
    "Compose",
    "DenseFolder",
    "DescribedFolder",
    "DescribedItems",
    "Description",
    "Draft",
    "Finding",
    "NYUDv2",
    "PASCALContext",
    "Pack",
    "PadTo",
    "Place",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomScaleCrop",
    "RandomWarp",
    "Resize",
    "Scenes",
    "augmentation",
    "available_tasks",
    "blank_item",
    "check_data",
    "collate",
    "describe",
    "find_place",
    "inspect_labels",
    "layout_of",
    "make_archive",
    "on_device",
    "open_data",
    "parse_tasks",
    "read_description",
    "ready_descriptions",
    "register_reader",
    "tasks_of",
]
