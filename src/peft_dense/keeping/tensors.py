"""A file of named tensors in the safetensors layout, checked before a value is read.

The layout: 8 bytes with the header's length, a header of JSON (per name: type, shape and where the
values lie), the values. It is read and written here rather than by the safetensors package so
that types and shapes are known before memory is taken, one pass both moves and digests the values,
nothing stays mapped to the file, and the file's mode follows the umask as every other file's does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from peft_dense.errors import CheckpointError

__all__ = ["Header", "LIMIT", "Spec", "parse", "read_header", "read_values", "write_tensors"]

LIMIT = 4 << 20
"""Most bytes of JSON that are parsed, in a header or beside it; some 30,000 tensors."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Spec(NamedTuple):
    """What a tensor is, without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Header(NamedTuple):
    """What lies in a file: tensors in the order of their values, and the mark of its save."""

    specs: dict[str, Spec]
    mark: str | None
    start: int
    """Bytes before the values."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], mark: str) -> str:
    """Write a new file, and return the SHA-256 of its bytes.

    Raises:
        CheckpointError: A tensor has no values here, or a type that the layout doesn't know.
        OSError: The disk refuses.
    """
    for name, tensor in tensors.items():
        if tensor.is_meta or hasattr(tensor, "to_local"):
            raise CheckpointError(
                f"{name} can't be written: its values aren't in this process (device meta, or "
                "sharded by FSDP). Load or gather the weights first."
            )
        if tensor.dtype not in _NAMES:
            raise CheckpointError(
                f"{name} can't be written as {tensor.dtype}; cast it to one of "
                f"{', '.join(sorted(_NAMES.values()))}."
            )
    # Wide types first: every tensor then begins at a multiple of its own item's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": {"mark": mark}}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > LIMIT:
        raise CheckpointError(
            f"the names of {len(tensors)} tensors take {len(header)} bytes; at most {LIMIT} are "
            "read again. Shorten the tasks' names."
        )
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (len(header).to_bytes(8, "little"), header):
            digest.update(part)
            file.write(part)
        for name in order:
            octets = _octets(tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous())
            digest.update(octets)
            file.write(octets)
        file.flush()
        os.fsync(file.fileno())  # a name never stands for less than its bytes
    return digest.hexdigest()


def read_header(path: Path) -> Header:
    """Read names, types and shapes, and check that the file is exactly as long as they say.

    Raises:
        CheckpointError: It isn't such a file, or not whole.
    """
    try:
        with path.open("rb") as file:
            header = _header(file)
    except (OSError, ValueError, MemoryError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); save it again.") from error
    return header


def read_values(path: Path, header: Header, digest: str) -> dict[str, Tensor]:
    """Read the tensors that a checked header lists.

    Raises:
        CheckpointError: The file is damaged, or has another digest.
    """
    found = hashlib.sha256()
    values: dict[str, Tensor] = {}
    try:
        with path.open("rb") as file:
            found.update(file.read(header.start))
            for name, spec in header.specs.items():
                values[name] = torch.empty(spec.shape, dtype=spec.dtype, device="cpu")
                octets = _octets(values[name])
                file.readinto(octets)  # less than all of them, and the digest will tell
                found.update(octets)
                if spec.dtype == torch.bool and any(bytes(octets).strip(b"\0\1")):
                    raise ValueError(f"{name} holds bytes that are neither true nor false")
    except (OSError, ValueError, MemoryError, RuntimeError) as error:  # torch's is a RuntimeError
        raise CheckpointError(f"{path} is damaged ({error}); save it again.") from error
    if found.hexdigest() != digest:
        raise CheckpointError(
            f"{path} was edited or damaged after it was saved: its digest isn't the one in the "
            "file beside it. Save it again, or copy both files anew."
        )
    return values


def parse(text: bytes) -> Any:
    """Parse untrusted JSON.

    Raises:
        ValueError: It is no JSON, too long, nested too deep, or names a key twice.
    """
    if len(text) > LIMIT:
        raise ValueError(f"{len(text)} bytes of JSON; at most {LIMIT} are read")
    try:
        return json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _header(file: BinaryIO) -> Header:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"{size} bytes can't hold a header of {length}")
    if length > LIMIT:
        raise ValueError(f"a header of {length} bytes; at most {LIMIT} are read")
    entries = parse(file.read(length))
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")
    about = entries.pop("__metadata__", {})
    mark = about.get("mark") if isinstance(about, dict) else None
    room = size - 8 - length
    found = sorted(((*_entry(name, entry, room), name) for name, entry in entries.items()), key=_by)
    reached = 0
    for begin, end, _, name in found:
        if begin != reached:
            raise ValueError(f"{name} begins at byte {begin}, not at {reached}")
        reached = end
    if reached != room:
        raise ValueError(f"{room} bytes of values; its header tells of {reached}")
    return Header({name: spec for _, _, spec, name in found}, mark, 8 + length)


def _by(entry: tuple[int, int, Spec, str]) -> tuple[int, int]:
    return entry[:2]


def _entry(name: str, entry: object, room: int) -> tuple[int, int, Spec]:
    """Check one tensor's entry: begin, end, and what lies between."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r:.100} isn't described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{name!r:.100} has the unknown type {dtype!r:.100}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name!r:.100} has no proper shape or offsets")
    begin, end = offsets
    spec = Spec(_DTYPES[dtype], tuple(shape))
    if not begin <= end <= room or end - begin != _bytes(spec, room):
        raise ValueError(f"{name!r:.100} is no {dtype} of shape {shape!r:.100} in its bytes")
    return begin, end, spec


def _are_sizes(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(size) is int and 0 <= size < 1 << 63 for size in value)
    )


def _bytes(spec: Spec, most: int) -> int:
    """Bytes of the values, or something larger than ``most``."""
    count = spec.dtype.itemsize
    for size in spec.shape:
        count *= size
    return min(count, most + 1)


def _octets(tensor: Tensor) -> memoryview:
    octets: Any = tensor.flatten().view(torch.uint8).numpy()
    return memoryview(octets)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> Iterator[None]:
    raise ValueError(f"{name} is no JSON")
