"""Readers: how an image or a label comes out of its file, or out of a container that holds many.

============  ==================================================================================
reader        what a file holds
============  ==================================================================================
``file``      one image or label, as `peft_dense.data.labels.read_array` reads it
``panoptic``  one label of COCO's panoptic form: a PNG whose colours number segments, and a JSON
              file (key ``json``) that says each segment's category; gives categories, 0 for none
``matlab``    all of them: a variable (key ``variable``) of a MATLAB 7.3 file, whose last axis
              numbers the images from 1
============  ==================================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from peft_dense.data.described.checks import nearest
from peft_dense.data.described.patterns import Pattern
from peft_dense.data.labels import Array, read_array, unreadable
from peft_dense.errors import DataError, MissingFileError, MissingPackageError

__all__ = ["READERS", "Reader", "find_reader", "register_reader"]


class Reader(Protocol):
    """Read what a file holds of one id."""

    def read(self, path: Path, root: Path, values: Mapping[str, str], *, colours: bool) -> Array:
        """Give an image ``(H, W, C)``, or a label.

        Args:
            path: The file.
            root: The set's folder.
            values: What the names in patterns stand for.
            colours: Whether colours are wanted, where a palette has both these and numbers.
        """

    def ids(self, path: Path) -> list[str] | None:
        """List the ids in a container; None where each id has a file."""


class FileReader:
    """Read one array per file."""

    container = False

    def __init__(self, **options: Any) -> None:
        _refuse("file", options)

    def read(self, path: Path, root: Path, values: Mapping[str, str], *, colours: bool) -> Array:
        """Give the file's array."""
        return read_array(path, "RGB" if colours and path.suffix.lower() != ".npy" else None)

    def ids(self, path: Path) -> list[str] | None:
        """Return None: each id has a file."""
        return None


class PanopticReader:
    """Read COCO's panoptic PNGs as category numbers.

    A pixel's segment is ``R + 256 G + 65536 B``; ``annotations[...].segments_info`` of the JSON
    file gives each segment of a PNG, by its ``file_name``, a ``category_id``. Segment 0 is none.
    (Kirillov et al., "Panoptic Segmentation", CVPR 2019; cocodataset.org, format of panoptic
    data.)

    Args:
        json: Pattern of the JSON file.
    """

    container = False

    def __init__(self, **options: Any) -> None:
        self._json = Pattern(_needed("panoptic", options, "json"))
        self._tables: dict[Path, dict[str, dict[int, int]]] = {}

    def read(self, path: Path, root: Path, values: Mapping[str, str], *, colours: bool) -> Array:
        """Give the category of each pixel, 0 where there is none."""
        about = root / self._json.fill(values)
        segments = self._segments(about).get(path.name)
        if segments is None:
            raise DataError(f"{about} lists no annotation with file_name {path.name!r}: {path}.")
        pixels = read_array(path, "RGB").astype(np.int32)
        numbers = pixels[..., 0] + (pixels[..., 1] << 8) + (pixels[..., 2] << 16)
        there, place = np.unique(numbers, return_inverse=True)
        unknown = [int(number) for number in there if number and int(number) not in segments]
        if unknown:
            raise DataError(
                f"{path} has segment {unknown[0]}, which {about} doesn't list; expected each "
                "of its segments in segments_info. Are both of one release?"
            )
        categories = np.array([segments[int(number)] if number else 0 for number in there])
        found: Array = categories[place].reshape(numbers.shape)
        return found

    def ids(self, path: Path) -> list[str] | None:
        """Return None: each id has a file."""
        return None

    def _segments(self, path: Path) -> dict[str, dict[int, int]]:
        if path not in self._tables:
            try:
                held = json.loads(path.read_text(encoding="utf-8"))
                self._tables[path] = {
                    each["file_name"]: {s["id"]: s["category_id"] for s in each["segments_info"]}
                    for each in held["annotations"]
                }
            except FileNotFoundError as error:
                raise MissingFileError(
                    f"can't read {path}: there is no such file; expected the JSON that says what "
                    "the segments in the PNGs are."
                ) from error
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path} isn't COCO's panoptic JSON ({type(error).__name__}: {error}); "
                    "expected annotations with file_name and segments_info."
                ) from error
        return self._tables[path]


class MatlabReader:
    """Read images and labels out of one MATLAB 7.3 file, which is HDF5.

    MATLAB stores the first axis fastest and HDF5 the last, so axes come reversed: ``H x W x 3 x N``
    is ``(N, 3, W, H)`` in the file.

    Args:
        variable: Its name in the file.
    """

    container = True

    def __init__(self, **options: Any) -> None:
        self._variable = _needed("matlab", options, "variable")
        self._open: tuple[int, Path, Any] | None = None

    def read(self, path: Path, root: Path, values: Mapping[str, str], *, colours: bool) -> Array:
        """Give the array of one number, from 1."""
        variable = self._of(path)
        number = values.get("id", "")
        if not number.isdigit() or not 1 <= int(number) <= len(variable):
            raise DataError(
                f"{path} has no {self._variable} of id {number!r}; expected 1 to {len(variable)}."
            )
        try:
            return np.ascontiguousarray(np.asarray(variable[int(number) - 1]).T)
        except OSError as error:
            raise unreadable(path, error) from error

    def ids(self, path: Path) -> list[str] | None:
        """Count the images."""
        return [str(number + 1) for number in range(len(self._of(path)))]

    def _of(self, path: Path) -> Any:
        """Open the file, once per process: handles don't survive a fork."""
        if self._open is None or self._open[:2] != (os.getpid(), path):
            try:
                import h5py
            except ImportError as error:
                raise MissingPackageError.of(f"reading {path}", "h5py", "mat") from error
            try:
                file = h5py.File(path, "r")
            except FileNotFoundError as error:
                raise MissingFileError(f"can't read {path}: there is no such file.") from error
            except OSError as error:
                raise unreadable(path, error) from error
            if self._variable not in file:
                known = nearest(self._variable, file)
                raise DataError(f"{path} has no variable {self._variable!r}; {known}")
            self._open = os.getpid(), path, file[self._variable]
        return self._open[2]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file out."""
        return {**self.__dict__, "_open": None}


READERS: dict[str, Any] = {
    "file": FileReader,
    "panoptic": PanopticReader,
    "matlab": MatlabReader,
}
"""By name; called with the keys ``variable`` and ``json`` of the description, where it has them."""


def register_reader(name: str, reader: Any) -> None:
    """Register a reader of your own, such as for another container.

    Args:
        name: Its name in descriptions, ``reader = "name"``.
        reader: A class with ``read`` and ``ids``, as `Reader` says, and a flag ``container``.

    Example:
        >>> class Blank:
        ...     container = False
        >>> register_reader("blank", Blank)
        >>> READERS.pop("blank") is Blank
        True
    """
    READERS[name] = reader


def find_reader(name: str, place: str, **options: Any) -> Any:
    """Make a reader by its name.

    Raises:
        DataError: If there is no such reader, it lacks an option, or an option is unknown.
    """
    if name not in READERS:
        raise DataError(f"{place} has reader = {name!r}; {nearest(name, READERS)}")
    try:
        return READERS[name](**{key: value for key, value in options.items() if value is not None})
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _needed(reader: str, options: dict[str, Any], key: str) -> str:
    _refuse(reader, options, (key,))
    if key not in options:
        raise DataError(f"reader = '{reader}' needs {key} = '...'.")
    return str(options[key])


def _refuse(reader: str, options: Mapping[str, Any], known: Iterable[str] = ()) -> None:
    for key in options:
        if key not in known:
            raise DataError(f"reader = '{reader}' has no use for {key!r}.")
