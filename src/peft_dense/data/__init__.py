"""Data sets of images with one dense label a task, and transforms that move them together."""

from peft_dense.data.cached import Cached
from peft_dense.data.folder import DenseFolder, available_tasks, collate
from peft_dense.data.scenes import Scenes
from peft_dense.data.transforms import Compose, RandomFlip, RandomScaleCrop, Resize

__all__ = [
    "Cached",
    "Compose",
    "DenseFolder",
    "RandomFlip",
    "RandomScaleCrop",
    "Resize",
    "Scenes",
    "available_tasks",
    "collate",
]
