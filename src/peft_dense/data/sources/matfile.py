"""Read MATLAB's .mat files, and walk the structs in them however they are wrapped."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from peft_dense.data.labels import unreadable
from peft_dense.errors import DataError, MissingFileError, MissingPackageError

__all__ = ["field", "load_mat", "records", "scalar"]

_HEADER = 128
_COMPRESSED = 15


def load_mat(path: Path, key: str) -> Any:
    """Read one variable of a .mat file, as SciPy gives it.

    Raises:
        DataError: If the file can't be read or has no such variable.
        MissingPackageError: If scipy isn't installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingPackageError.of(f"reading {path}", "scipy", "train") from error
    try:
        data = path.read_bytes()
        _check_sums(data)
        held = loadmat(io.BytesIO(data))
    except FileNotFoundError as error:
        raise MissingFileError(f"can't read {path}: there is no such file.") from error
    except Exception as error:  # a damaged file makes SciPy raise nearly anything
        raise unreadable(path, error) from error
    if key not in held:
        names = ", ".join(name for name in held if not name.startswith("__")) or "nothing"
        raise DataError(f"{path} holds {names}; expected a variable {key!r}.")
    return held[key]


def records(value: Any) -> list[np.void]:
    """List the structs of a struct array, or of a cell array of such, in MATLAB's order.

    An empty array of any type has none.

    Raises:
        ValueError: If there is something else in it.

    Example:
        >>> wrapped = np.empty((1, 1), object)
        >>> wrapped[0, 0] = np.array([[(1,), (2,)]], [("id", object)])
        >>> [int(one["id"]) for one in records(wrapped)]
        [1, 2]
    """
    if isinstance(value, np.void):
        return [value]
    array = np.asarray(value)
    if array.size == 0:
        return []
    if array.dtype.names:
        return list(array.ravel("F"))
    if array.dtype == object and array.shape:
        return [record for item in array.ravel("F") for record in records(item)]
    raise ValueError(f"{array.dtype} of shape {array.shape} in the place of a struct")


def field(record: np.void, name: str, place: int) -> Any:
    """Take a field of a struct by its name, or by its place where it has another name.

    Raises:
        ValueError: If the struct is too short.
    """
    names = record.dtype.names or ()
    if name in names:
        return record[name]
    if place >= len(names):
        raise ValueError(f"a struct of {', '.join(names)}, which has no {name!r}")
    return record[names[place]]


def scalar(value: Any) -> Any:
    """Unwrap the one value of an array.

    Raises:
        ValueError: If there isn't exactly one.

    Example:
        >>> str(scalar(np.array([["head"]])))
        'head'
    """
    while isinstance(value, np.ndarray):
        if value.size != 1:
            raise ValueError(f"an array of shape {value.shape} in the place of one value")
        value = value.ravel()[0]
    return value


def _check_sums(data: bytes) -> None:
    """Unpack what is compressed: SciPy may crash on a damaged stream before its sum says so."""
    if 0 in data[:4]:
        return  # version 4 has no header, and no compression
    order = "<" if data[126:128] == b"IM" else ">"
    at = _HEADER
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, at)
        at += 8
        if kind == _COMPRESSED:
            zlib.decompress(data[at : at + length])
        at += length
