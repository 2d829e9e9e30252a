"""Joint transforms: what moves the image moves every label the right way.

Images are interpolated; labels are sampled (nearest), so no class is invented, no normal is mixed
with an ignored neighbour, and ignored pixels stay ignored. They are built on torchvision's v2
transforms, any of which works in `Compose`. Random draws use torch's generator.
"""

from peft_dense.data.transforms.augment import augmentation
from peft_dense.data.transforms.colour import ColorJitter
from peft_dense.data.transforms.functions import flip, resize, rotate
from peft_dense.data.transforms.joint import Compose, jointly
from peft_dense.data.transforms.moves import (
    PadTo,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScaleCrop,
    Resize,
)
from peft_dense.data.transforms.packing import Pack, Unpack
from peft_dense.data.transforms.warp import RandomWarp

__all__ = [
    "ColorJitter",
    "Compose",
    "Pack",
    "PadTo",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomScaleCrop",
    "RandomWarp",
    "Resize",
    "Unpack",
    "augmentation",
    "flip",
    "jointly",
    "resize",
    "rotate",
]
