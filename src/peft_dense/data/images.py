"""Read image files: turned as they are shown, scaled to 0..1, with any number of channels.

==================================  ===============================================================
file                                what is read
==================================  ===============================================================
JPEG, PNG, WebP, BMP, TIFF of 8     RGB; grey is repeated, a palette gives its colours, alpha is
bits                                left out
PNG, TIFF of 16 bits, grey          RGB, repeated; divided by ``white`` (65535, or 4095 for 12 bits)
TIFF of several pages or bands,     as many channels as there are; bytes are divided by 255, 16-bit
.npy (H, W) or (H, W, C)            numbers by ``white``, floats are in 0..1 already
==================================  ===============================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from peft_dense.data.labels import Array, unreadable
from peft_dense.errors import DataError, MissingFileError

__all__ = [
    "IMAGES",
    "Picture",
    "as_picture",
    "read_head",
    "read_image",
    "read_picture",
    "turned",
    "white_of",
]

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".npy")
"""Endings of image files, in lower case."""

_ORIENTATION = 0x0112
_SWAPS = (5, 6, 7, 8)
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class Picture:
    """An image that was read.

    Args:
        pixels: ``(C, H, W)``, uint8 or float32 in 0..1; smaller than ``size`` if it was read so.
        size: Height and width as it is shown.
        orientation: The EXIF orientation of the file, 1 to 8; 1 where it is stored as it is shown.
    """

    pixels: Tensor
    size: tuple[int, int]
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width as the file stores it, before it is turned."""
        return self.size[::-1] if self.orientation in _SWAPS else self.size

    def floats(self) -> Tensor:
        """Give the pixels as float32 in 0..1."""
        return self.pixels.float() / 255 if self.pixels.dtype == torch.uint8 else self.pixels


def read_image(path: Path, white: float = 65535) -> Tensor:
    """Read an image file into ``(C, H, W)`` float32 in 0..1, of RGB files ``(3, H, W)``.

    Args:
        path: The file.
        white: What white is in images of 16 bits.

    Raises:
        DataError: If the file can't be read.
    """
    return read_picture(path, white=white).floats()


def read_picture(
    path: Path,
    *,
    turn: bool = True,
    white: float = 65535,
    smallest: Sequence[int] | None = None,
) -> Picture:
    """Read an image file.

    Args:
        path: The file.
        turn: Whether to turn it as its EXIF orientation says.
        white: What white is in images of 16 bits.
        smallest: Height and width that are enough; a JPEG is then decoded at a half, a quarter or
            an eighth of its size if that has them, which is faster.

    Raises:
        DataError: If the file can't be read, or isn't an image.
    """
    try:
        if path.suffix.lower() == ".npy":
            array, size, orientation = np.load(path, allow_pickle=False), None, 1
        else:
            array, size, orientation = _open(path, turn, smallest)
    except FileNotFoundError as error:
        raise MissingFileError(f"can't read {path}: there is no such file.") from error
    except Exception as error:  # a damaged file makes Pillow and NumPy raise nearly anything
        array, size, orientation = _bands(path, error), None, 1
    return _picture(array, white, path, size, orientation)


def as_picture(given: Image.Image | Array, name: str, *, white: float = 65535) -> Picture:
    """Read an image that is in memory as its file would be read.

    Args:
        given: A Pillow image, or an array (H, W) or (H, W, C).
        name: Its name in errors.
        white: What white is in images of 16 bits.

    Raises:
        DataError: If it isn't an image.

    Example:
        >>> as_picture(np.zeros((4, 6, 3), np.uint8), "black").size
        (4, 6)
    """
    if not isinstance(given, Image.Image):
        return _picture(given, white, name)
    try:
        array, size, orientation = _pixels(given, True)
    except Exception as error:  # Pillow decodes late, and a damaged file may raise any error
        raise unreadable(Path(name), error) from error
    return _picture(array, white, name, size, orientation)


def _picture(
    array: Array,
    white: float,
    name: Path | str,
    size: tuple[int, int] | None = None,
    orientation: int = 1,
) -> Picture:
    pixels = _scaled(array, white, name)
    whole = size or pixels.shape[:2]
    channels_first = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return Picture(torch.from_numpy(channels_first), (whole[0], whole[1]), orientation)


def read_head(path: Path, *, turn: bool) -> Picture:
    """Read size and orientation of an image file from its header, without pixels.

    Args:
        path: The file.
        turn: Whether to give the size as its EXIF orientation shows it.

    Raises:
        DataError: If the file can't be read.
    """
    try:
        if path.suffix.lower() == ".npy":
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return Picture(torch.empty(0), (int(shape[0]), int(shape[1])))
        with Image.open(path) as image:
            orientation = _orientation(image) if turn else 1
            swapped = orientation in _SWAPS
            size = (image.width, image.height) if swapped else (image.height, image.width)
            return Picture(torch.empty(0), size, orientation)
    except FileNotFoundError as error:
        raise MissingFileError(f"can't read {path}: there is no such file.") from error
    except Exception as error:
        shape = _bands(path, error).shape
        return Picture(torch.empty(0), (shape[0], shape[1]))


def turned(array: Array, orientation: int) -> Array:
    """Turn pixels ``(H, W, ...)`` that are stored with an EXIF orientation as they are shown.

    Example:
        >>> turned(np.array([[1, 2, 3], [4, 5, 6]]), 6).tolist()  # a quarter turn clockwise
        [[4, 1], [5, 2], [6, 3]]
    """
    if orientation in _SWAPS:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _open(
    path: Path, turn: bool, smallest: Sequence[int] | None
) -> tuple[Array, tuple[int, int], int]:
    """Give pixels, the size as shown and the orientation."""
    with Image.open(path) as image:
        return _pixels(image, turn, smallest)


def _pixels(
    image: Image.Image, turn: bool, smallest: Sequence[int] | None = None
) -> tuple[Array, tuple[int, int], int]:
    orientation = _orientation(image) if turn else 1
    swapped = orientation in _SWAPS
    size = (image.width, image.height) if swapped else (image.height, image.width)
    if smallest is not None and image.format == "JPEG":
        needed = smallest if swapped else smallest[::-1]
        if math.prod(needed):
            image.draft("RGB", (needed[0], needed[1]))
    if getattr(image, "n_frames", 1) > 1 and image.format == "TIFF":
        pixels = _pages(image)
    elif image.mode in (*_DEEP, "F"):
        pixels = np.repeat(np.asarray(image)[..., None], 3, axis=-1)
    else:
        pixels = np.array(image.convert("RGB"))
    return turned(pixels, orientation), size, orientation


def _pages(image: Image.Image) -> Array:
    """Stack the pages of a TIFF as channels."""
    pages = []
    for number in range(int(getattr(image, "n_frames", 1))):
        image.seek(number)
        pages.append(np.atleast_3d(np.asarray(image)))
    return np.concatenate(pages, axis=-1)


def _bands(path: Path, error: Exception) -> Array:
    """Read a TIFF that Pillow fails on, as of five bands, where tifffile is installed.

    Raises:
        DataError: If it isn't one.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise unreadable(path, error) from error
    try:
        from tifffile import TiffFile
    except ImportError:
        raise DataError(
            f"can't read {path}: {error}. Is the file whole? Pillow takes TIFFs of up to four "
            "bands, or of several pages; for others pip install tifffile, or save (H, W, C) as "
            ".npy."
        ) from error
    try:
        with TiffFile(path) as file:
            bands = np.asarray(file.asarray())
            return np.moveaxis(bands, 0, -1) if file.series[0].axes[0] in "SC" else bands
    except Exception:
        raise unreadable(path, error) from error


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # Pillow would decode the pixels to look for it behind them
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _scaled(array: Array, white: float, path: Path | str) -> Array:
    """Give bytes as they are, and anything else as float32 in 0..1, ``(H, W, C)``."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype.kind not in "buif" or 0 in array.shape:
        raise DataError(
            f"{path} has shape {array.shape} of {array.dtype}; an image is (H, W) or (H, W, C) of "
            "numbers, channels last."
        )
    if array.dtype == np.uint8:
        return array
    whole = array.dtype.kind in "ui"
    scaled: Array = array.astype(np.float32) / np.float32(white if whole else 1)
    if not (scaled.min() >= 0 and scaled.max() <= 1):
        at = f"white at {white:g}" if whole else "floats in 0..1"
        raise DataError(
            f"{path} holds {scaled.min():g} to {scaled.max():g} with {at}; expected 0 to 1. Pass "
            "white=..., the value of white in 16-bit images, or scale it."
        )
    return scaled


def white_of(paths: Sequence[Path]) -> float:
    """Find what white is in a folder's images of 16 bits, from up to 32 of them.

    Cameras of 10, 12 or 14 bits write 16-bit files whose values end there. So it is the smallest of
    1023, 4095, 16383 and 65535 that none of those images exceeds; without such images, 65535.
    """
    largest = max((_peak(path) for path in paths[:: -(-len(paths) // 32) or 1]), default=0)
    return next((top for top in (1023, 4095, 16383) if 255 < largest <= top), 65535)


def _peak(path: Path) -> int:
    """Give the largest value of an image of 16 bits, of others 0."""
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return int(array.max()) if array.dtype == np.uint16 else 0
        with Image.open(path) as image:
            deep = image.mode.startswith("I")
            return int(np.asarray(image).max()) if deep else 0
    except Exception:  # reading the image raises the error
        return 0
