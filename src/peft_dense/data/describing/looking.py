"""Look at some files of a group, and say what they seem to hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from peft_dense.data.described.codes import code_of_colours, colour_text
from peft_dense.data.describing.groups import Group
from peft_dense.data.labels import Array
from peft_dense.tasks.kinds import IGNORE, IGNORE_MANY

__all__ = ["Look", "look_at"]

_FILES = 24
_COLOURS = 64
_FLAT = 0.7
"""A map is of regions if so many of its pixels have the value of their right neighbour."""

_HINTS = {
    "image": r"rgb|image|img|photo|colou?r|jpeg|picture|input|leftimg|frames?",
    "depth": r"depth|disparity|zbuffer|range|height",
    "normals": r"normal",
    "edge": r"edge|bound|contour",
    "sal": r"salien|\bsal\b",
    "human_parts": r"parts?\b|parsing",
    "semseg": r"seg|label|annot|mask|class|\bgt|semantic|truth|parsing",
}


@dataclass
class Look:
    """What a group of files seems to hold.

    Args:
        what: ``image``, a kind of labels, or ``unknown``.
        size: Height and width of the first file.
        keys: Keys of a description of such labels.
        saw: What was seen.
        doubts: What a person has to check.
    """

    what: str
    size: tuple[int, int] = (0, 0)
    keys: dict[str, Any] = field(default_factory=dict)
    saw: str = ""
    doubts: list[str] = field(default_factory=list)


def hint_of(text: str) -> str | None:
    """Give what the name of a folder or a file suggests.

    Example:
        >>> hint_of("trainannot/{id}.png"), hint_of("rgb/{id}.png"), hint_of("x/{id}.png")
        ('semseg', 'image', None)
    """
    words = re.sub(r"\{[^}]*\}", "", text).lower().replace("_", " ")
    order = ("depth", "normals", "edge", "sal", "human_parts", "semseg", "image")
    return next((name for name in order if re.search(_HINTS[name], words)), None)


def look_at(group: Group) -> Look:
    """Read some files of a group, and say what they seem to hold.

    Args:
        group: The files.
    """
    arrays: list[Array] = []
    modes: set[str] = set()
    for path in group.some(_FILES):
        try:
            array, mode = _read(path)
        except Exception:  # a damaged file may raise any error; data check names it
            continue
        if not arrays or array.ndim == arrays[0].ndim:
            arrays.append(array)
            modes.add(mode)
    if not arrays:
        return Look("unknown", saw="none of the files looked at can be read")
    hint = hint_of(group.pattern)
    first = arrays[0]
    size = (int(first.shape[0]), int(first.shape[1])) if first.ndim > 1 else (0, 0)
    if first.ndim == 3 and first.shape[2] >= 3:
        found = _of_colours(arrays, hint)
    elif first.ndim == 2 or (first.ndim == 3 and first.shape[2] == 1):
        flat = [array.reshape(array.shape[:2]) for array in arrays]
        found = _of_numbers(flat, hint, {str(mode) for mode in modes})
    else:
        found = Look("unknown", saw=f"arrays of shape {first.shape}")
    found.size = size
    return found


def _read(path: Path) -> tuple[Array, str]:
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False), "npy"
    with Image.open(path) as image:
        if image.mode in ("RGBA", "CMYK", "LA"):
            return np.asarray(image.convert("RGB")), image.format or ""
        return np.asarray(image), f"{image.mode} {image.format}"


# ---------------------------------------------------------------------- three channels


def _of_colours(arrays: Sequence[Array], hint: str | None) -> Look:
    if arrays[0].dtype.kind == "f":
        lengths = np.concatenate([np.linalg.norm(a[..., :3], axis=-1).ravel() for a in arrays])
        held = lengths[(lengths > 0) & np.isfinite(lengths)]
        if len(held) and np.abs(held - 1).mean() < 0.05:
            return _normals("vectors of length 1")
        return Look("image" if lengths.max() <= 2 else "unknown", saw="floats of three channels")
    if arrays[0].dtype != np.uint8:
        return Look("unknown", saw=f"three channels of {arrays[0].dtype}")
    if all((array[..., :3] == array[..., :1]).all() for array in arrays):
        looked = _of_numbers([np.ascontiguousarray(array[..., 0]) for array in arrays], hint, set())
        looked.saw += ", saved as RGB"
        return looked
    vectors = np.concatenate([array[::4, ::4, :3].reshape(-1, 3) for array in arrays]) / 127.5 - 1
    lengths = np.linalg.norm(vectors, axis=-1)
    held = lengths[lengths < 1.7]  # neither black nor white
    if hint != "image" and len(held) and np.mean(np.abs(held - 1) < 0.06) > 0.9:
        return _normals("colours that are vectors of length 1")
    codes = [code_of_colours(array) for array in arrays]
    seen: set[int] = set()
    for code in codes:
        seen |= set(np.unique(code).tolist())
        if len(seen) > _COLOURS:
            return Look("image", saw="colours of many kinds")
    flat = float(np.mean([_flatness(code) for code in codes]))
    if flat < _FLAT:
        return Look("image", saw=f"{len(seen)} colours, finely mixed")
    shown = sorted(seen)
    names = {f"class {at}": colour_text(colour) for at, colour in enumerate(shown)}
    return Look(
        "segmentation",
        keys={"palette": names},
        saw=f"{len(shown)} flat colours",
        doubts=[
            f"name the {len(shown)} colours of the palette; more may be in files that weren't "
            "looked at, and colours without a meaning belong in ignore"
        ],
    )


def _normals(saw: str) -> Look:
    return Look(
        "normals",
        keys={"axes": ["right", "up", "viewer"]},
        saw=saw,
        doubts=[
            "axes of normals: say where each channel points; in `data check --picture` floors "
            "should be green, walls to the right of the camera not red"
        ],
    )


# ---------------------------------------------------------------------- one channel


def _of_numbers(arrays: Sequence[Array], hint: str | None, modes: set[str]) -> Look:
    if arrays[0].dtype.kind == "f":
        return _of_floats(arrays, hint)
    values = np.unique(np.concatenate([np.unique(array) for array in arrays]))
    flat = float(np.mean([_flatness(array) for array in arrays]))
    held = values.tolist()
    deep = arrays[0].dtype.itemsize > 1 and arrays[0].dtype != bool
    if deep and (hint == "depth" or (len(held) > 256 and held[-1] > 512)):
        return _deep_depth(arrays)
    if arrays[0].dtype == bool or set(held) <= {0, 1, IGNORE}:
        return _marks(held, hint)
    if hint == "depth" and flat < 0.95 and len(held) > 32:
        return Look(
            "depth",
            keys={"scale": 1.0, "invalid": [0]},
            saw=f"grey values {held[0]} to {held[-1]}",
            doubts=["scale of depth: metres that 1 stands for; 8-bit depth seldom is metric"],
        )
    if flat < _FLAT or (len(held) > 200 and held[-1] <= IGNORE and "P" not in " ".join(modes)):
        if hint in ("sal", "edge"):
            return Look(
                "edge" if hint == "edge" else "binary",
                keys={"threshold": 127},
                saw=f"soft grey values, {len(held)} of them",
                doubts=["threshold: grey values above it are marked"],
            )
        return Look("image" if hint == "image" else "unknown", saw=f"{len(held)} grey values")
    return _classes(held)


def _marks(held: list[Any], hint: str | None) -> Look:
    shown = ", ".join(str(int(value)) for value in held)
    doubts = ["255 is read as ignored beside 1, and as a mark without it"] if IGNORE in held else []
    return Look("edge" if hint == "edge" else "binary", saw=f"values {shown}", doubts=doubts)


def _classes(held: list[int]) -> Look:
    top = [value for value in held if value not in (IGNORE, IGNORE_MANY)]
    if not top:
        return Look("unknown", saw=f"no value but {' and '.join(map(str, held))}")
    number = max(top) + 1
    keys: dict[str, Any] = {"classes": number}
    doubts = [f"names of the {number} classes (classes = [...]), and whether there are more"]
    if held[-1] - number >= 1:
        doubts.append(f"{held[-1]} is taken for ignored")
    gaps = number - len(top)
    if gaps > max(8, number // 2):
        keys = {"values": {int(value): f"class {value}" for value in top}}
        doubts = [
            f"values: {len(top)} different ones up to {max(top)} were seen; name them, and list "
            "what has no meaning in ignore"
        ]
    return Look(
        "segmentation", keys=keys, saw=f"{len(held)} values up to {held[-1]}", doubts=doubts
    )


def _deep_depth(arrays: Sequence[Array]) -> Look:
    held = np.concatenate([array[::4, ::4].ravel() for array in arrays])
    positive = held[(held > 0) & (held < 65535)]
    median = float(np.median(positive)) if len(positive) else 0.0
    keys: dict[str, Any] = {"unit": "mm"}
    if (held == 65535).any():
        keys["invalid"] = [0, 65535]
    doubts = [
        f"unit of depth: taken for millimetres, so half of the pixels are nearer than "
        f"{median / 1000:.2f} m; other units are common (scale = metres that 1 stands for)"
    ]
    return Look("depth", keys=keys, saw=f"whole numbers up to {int(held.max())}", doubts=doubts)


def _of_floats(arrays: Sequence[Array], hint: str | None) -> Look:
    held = np.concatenate([array[::4, ::4].ravel() for array in arrays])
    held = held[np.isfinite(held)]
    if len(held) and hint in (None, "depth") and held.min() >= -1:
        return Look(
            "depth",
            keys={"unit": "m"},
            saw=f"floats {held.min():.3g} to {held.max():.3g}",
            doubts=[f"unit of depth: taken for metres, up to {held.max():.3g}"],
        )
    return Look("unknown", saw="floats")


def _flatness(array: Array) -> float:
    """Give the share of pixels that have the value of their right neighbour."""
    return float((array[:, 1:] == array[:, :-1]).mean()) if array.shape[1] > 1 else 1.0
