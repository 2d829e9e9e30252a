"""Where images come from: files, folders, patterns, videos, and what is in memory."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from peft_dense.data.images import IMAGES, Picture, as_picture, read_picture
from peft_dense.data.sources.finding import holds
from peft_dense.errors import DataError, MissingFileError
from peft_dense.predicting.frames import VIDEOS, check_video, frames

__all__ = ["Images", "Source", "find_images"]

Images = Any
"""A path of an image, a folder or a video, a pattern, a Pillow image, an array (H, W, C), a tensor
(C, H, W) or (B, C, H, W), or an iterable of these."""


@dataclass(frozen=True)
class Source:
    """An image that isn't read yet.

    Args:
        name: Name of its results; of a file in a folder its path in it, without ending.
        place: Its path or number, for messages.
        read: Reads it, given what white is in images of 16 bits.
    """

    name: str
    place: str
    read: Callable[[float], Picture]


@dataclass(frozen=True)
class _File:
    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


def find_images(
    images: Images, *, every: int = 1, leave_out: Path | None = None
) -> tuple[Iterator[Source], int | None]:
    """Find images; paths are looked up at once, what is in an iterable when its turn comes.

    Args:
        images: The images.
        every: Of a video, take every n-th frame.
        leave_out: A folder whose files aren't taken, such as the one that results go to.

    Returns:
        The images, and their number where it is known. A second ``a`` is called ``a-2``.

    Raises:
        MissingFileError: A path isn't there.
        DataError: There is no image: a folder is empty, a pattern matches nothing.
        MissingPackageError: There is a video, and PyAV isn't installed.
    """
    found: list[Any] = []
    for one in images if isinstance(images, (list, tuple)) else [images]:
        found += _files(one, leave_out) if isinstance(one, (str, Path)) else [one]
    if any(isinstance(one, _File) and one.is_video for one in found):
        check_video()
    numbers = [_number_of(one) for one in found]
    known = [number for number in numbers if number is not None]
    if sum(known) == 0 and len(known) == len(numbers):
        raise DataError("there are no images; give files, folders or patterns that match some.")
    sources = _unique(_Opener(every, leave_out).each(found))
    return sources, sum(known) if len(known) == len(numbers) else None


def _files(given: str | Path, leave_out: Path | None) -> list[_File]:
    """Give the files of a path, and what their results are called."""
    path = Path(given)
    if path.is_file():
        return [_File(path, path.stem)]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _is_wanted(file, path, leave_out))
        if not inside:
            raise DataError(
                f"no image in the folder {path}: it {holds(path)}. Expected files that end in "
                f"{', '.join(IMAGES)}, or videos ({', '.join(VIDEOS)}), in it or in folders below."
            )
        names = (file.relative_to(path).with_suffix("").as_posix() for file in inside)
        return [_File(file, name) for file, name in zip(inside, names, strict=True)]
    if glob.has_magic(str(given)):
        matched = [Path(each) for each in sorted(glob.glob(str(given), recursive=True))]
        matched = [file for file in matched if file.is_file()]
        if not matched:
            raise DataError(
                f"no file matches {given}; give a pattern that does, such as 'photos/*.jpg', or a "
                "folder."
            )
        return [_File(file, file.stem) for file in matched]
    raise MissingFileError(
        f"no file or folder {path}; give images, folders of them, or patterns such as "
        "'photos/*.jpg'."
    )


def _is_wanted(file: Path, root: Path, leave_out: Path | None) -> bool:
    if leave_out is not None and file.resolve().is_relative_to(leave_out.resolve()):
        return False
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.suffix.lower() in (*IMAGES, *VIDEOS) and file.is_file()


def _number_of(one: Any) -> int | None:
    """Give the number of images, where it is known without iterating."""
    if isinstance(one, _File):
        return None if one.is_video else 1
    if isinstance(one, (Tensor, np.ndarray)):
        return len(one) if one.ndim == 4 else 1
    return 1 if isinstance(one, Image.Image) else None


class _Opener:
    """Make sources of files and of what is in memory, which is numbered."""

    def __init__(self, every: int, leave_out: Path | None) -> None:
        self.every, self.leave_out = every, leave_out
        self.numbers = count(1)

    def each(self, given: Any) -> Iterator[Source]:
        """Give the sources of anything, one after another."""
        if isinstance(given, _File):
            yield from self._frames(given) if given.is_video else [_of_file(given)]
        elif isinstance(given, (str, Path)):
            try:
                files = _files(given, self.leave_out)
            except DataError as error:
                yield _bad(str(given), error)
            else:
                yield from self.each(files)
        elif isinstance(given, (Tensor, np.ndarray)) and given.ndim == 4:
            yield from self.each(list(given))
        elif isinstance(given, (Image.Image, Tensor, np.ndarray)):
            number = next(self.numbers)
            place = str(getattr(given, "filename", "") or f"image {number}")
            array = _channels_last(given) if isinstance(given, Tensor) else given
            yield _of_pixels(array, f"image-{number:04d}", place)
        elif isinstance(given, Iterable):
            for one in given:
                yield from self.each(one)
        else:
            number = next(self.numbers)
            yield _bad(
                f"image-{number:04d}",
                DataError(
                    f"image {number} is a {type(given).__name__}; expected paths, Pillow images, "
                    "arrays (H, W, C), tensors (C, H, W) or (B, C, H, W), or an iterable of these."
                ),
            )

    def _frames(self, file: _File) -> Iterator[Source]:
        check_video()
        try:
            for number, pixels in frames(file.path, self.every):
                name = f"{file.name}-{number:06d}"
                yield _of_pixels(pixels, name, f"{file.path}, frame {number}")
        except DataError as error:
            yield _bad(file.name, error)


def _of_file(file: _File) -> Source:
    return Source(file.name, str(file.path), lambda white: read_picture(file.path, white=white))


def _of_pixels(pixels: Any, name: str, place: str) -> Source:
    return Source(name, place, lambda white: as_picture(pixels, place, white=white))


def _bad(name: str, error: DataError) -> Source:
    def read(white: float) -> Picture:
        raise error

    return Source(name, name, read)


def _channels_last(image: Tensor) -> Any:
    values = image.detach().cpu()
    values = values.float() if values.is_floating_point() else values  # NumPy has no bfloat16
    return (values.movedim(0, -1) if values.ndim == 3 else values).numpy()


def _unique(sources: Iterable[Source]) -> Iterator[Source]:
    """Call a second ``a`` ``a-2``, so that no result takes another's place."""
    seen: set[str] = set()
    for source in sources:
        names = (f"{source.name}-{number}" if number > 1 else source.name for number in count(1))
        name = next(name for name in names if name not in seen)
        seen.add(name)
        yield replace(source, name=name)
