"""Frames of a video, one after another, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from peft_dense.errors import DataError, MissingPackageError

__all__ = ["VIDEOS", "check_video", "frames"]

VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg")
"""Endings of video files, in lower case."""


def check_video() -> None:
    """Check that videos can be read.

    Raises:
        MissingPackageError: PyAV isn't installed.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingPackageError.of("reading a video", "av", "video") from error


def frames(path: Path, every: int = 1) -> Iterator[tuple[int, Any]]:
    """Give number and pixels ``(H, W, 3)`` uint8 of every n-th frame, turned as it is shown.

    Args:
        path: The video.
        every: 1 for all frames, 10 for every tenth.

    Raises:
        DataError: The file can't be read, or not to its end.
    """
    import av

    number = -1
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} has no video; give a file with one, or images.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if number % every == 0:
                    yield number, _upright(frame)
    except (av.FFmpegError, OSError) as error:
        after = f" after frame {number}" if number >= 0 else ""
        raise DataError(f"can't read {path}{after}: {error}. Is the file whole?") from error


def _upright(frame: Any) -> Any:
    """Turn a frame as its file says it is shown; PyAV gives the angle counter-clockwise."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
