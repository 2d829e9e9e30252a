"""Predictions as files: label maps that other tools read, and pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from peft_dense.errors import DataError
from peft_dense.keeping.whole import put_whole
from peft_dense.predicting.prediction import Prediction
from peft_dense.tasks import Task
from peft_dense.tasks.drawing import palette

__all__ = ["SHEET", "check_out", "file_of", "save_prediction", "write_picture"]

SHEET = "contact_sheet.png"

_PICTURES = {"side_by_side": None, "overlay": 0.6}
"""Folders of pictures, and the tasks' opacity over the image there."""


def check_out(out: Path, overwrite: bool) -> None:
    """Check that results can go to a folder.

    Raises:
        DataError: It is a file; or it isn't empty, and ``overwrite`` is off.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; give a folder for the results.")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise DataError(
            f"{out} isn't empty; give a new folder, or --overwrite to replace what has the same "
            "name there."
        )


def file_of(task: Task, name: str) -> str:
    """Give the path of an image's label map in the folder of results.

    Example:
        >>> from peft_dense.tasks import task
        >>> file_of(task("semseg"), "a"), file_of(task("depth"), "a")
        ('semseg/a.png', 'depth/a.npy')
    """
    ending = "npy" if task.labels.name in ("depth", "normals") else "png"
    return f"{task.name}/{name}.{ending}"


def save_prediction(found: Prediction, out: Path, *, pictures: bool = True) -> list[Path]:
    """Write label maps, and pictures of all tasks side by side and over the image.

    ==============  ================================================================================
    kind            what is written
    ==============  ================================================================================
    segmentation    PNG of classes with the pictures' palette; of more than 256, PNG of 16 bits
    binary, edge    PNG, 255 times the probability
    depth           .npy ``(H, W)`` float32, in the unit of training's labels
    normals         .npy ``(H, W, 3)`` float32, unit vectors
    ==============  ================================================================================

    Each file is whole or not there. What has the same name is replaced.

    Args:
        found: The prediction.
        out: The folder; each task gets one in it, and so do the pictures.
        pictures: Whether to write those.

    Returns:
        The files.

    Raises:
        DataError: The disk refuses.
    """
    files = []
    for name, task in found.tasks.items():
        path = out / file_of(task, found.name)
        label = found.labels[name]
        _write(path, _ENCODERS[task.labels.name](task, label))
        files.append(path)
    for folder, opacity in _PICTURES.items() if pictures else ():
        path = out / folder / f"{found.name}.jpg"
        write_picture(found.side_by_side(opacity), path)
        files.append(path)
    return files


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all.

    Raises:
        DataError: The disk refuses.
    """
    how: dict[str, Any] = {"quality": 92, "subsampling": 0} if path.suffix == ".jpg" else {}
    _write(path, _as_file(picture, "JPEG" if path.suffix == ".jpg" else "PNG", **how))


def _write(path: Path, content: bytes) -> None:
    try:
        put_whole(path, lambda file: file.write(content))
    except OSError as error:
        raise DataError(
            f"can't write {path} ({error}); what was written before is whole. Make room, or give "
            "another folder."
        ) from error


def _classes(task: Task, label: Tensor) -> bytes:
    if task.channels > 256:
        return _as_file(Image.fromarray(label.numpy().astype(np.uint16)), "PNG")
    picture = Image.fromarray(label.numpy())
    picture.putpalette(palette().numpy().tobytes())
    return _as_file(picture, "PNG")


def _marks(task: Task, label: Tensor) -> bytes:
    return _as_file(Image.fromarray((255 * label).round().byte().numpy()), "PNG")


def _numbers(task: Task, label: Tensor) -> bytes:
    file = io.BytesIO()
    array = label.movedim(0, -1) if label.ndim == 3 else label
    np.save(file, np.ascontiguousarray(array.numpy()), allow_pickle=False)
    return file.getvalue()


def _as_file(picture: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


_ENCODERS: dict[str, Callable[[Task, Tensor], bytes]] = {
    "segmentation": _classes,
    "binary": _marks,
    "edge": _marks,
    "depth": _numbers,
    "normals": _numbers,
}
