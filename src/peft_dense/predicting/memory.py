"""Estimates of the memory that a pass takes, and errors where there is too little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from peft_dense.data.sources.finding import by
from peft_dense.errors import DataError

__all__ = ["check_memory", "free_memory", "memory_errors", "needed_memory"]

_SMALLER = "give a smaller --size (size=)"
_WINDOWS = f"see it through windows, --window H W (window=), or {_SMALLER}"


def free_memory(device: torch.device) -> int | None:
    """Give the bytes that are free on a device; None where that isn't known.

    On a CPU, Linux grants more memory than there is, and kills the process that uses it without a
    word.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found and device.type == "cpu" else None


def needed_memory(channels: Iterable[int], size: tuple[int, int]) -> int:
    """Give the bytes that one image takes at least: twice itself and all heads' outputs, float32.

    Args:
        channels: Of each head's output, and of the image.
        size: Height and width at which the model sees it.
    """
    return 4 * 2 * sum(channels) * size[0] * size[1]


def check_memory(name: str, size: tuple[int, int], needed: int, free: int, windows: bool) -> None:
    """Raise if an image can't fit into the memory.

    Raises:
        DataError: It can't.
    """
    if needed > free:
        raise DataError(
            f"{name} is too large for the memory at {by(size)} (height x width): it takes at least "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
            f"{_SMALLER if windows else _WINDOWS}."
        )


@contextmanager
def memory_errors(name: str, size: tuple[int, int], windows: bool) -> Iterator[None]:
    """Replace torch's error where memory runs out by one that names the image.

    Raises:
        DataError: Memory ran out in the body.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _is_full(error)):
            raise
        remedy = _SMALLER if windows else _WINDOWS
        raise DataError(
            f"{name} is too large for the memory at {by(size)} (height x width): {remedy}, and see "
            "fewer at a time, --batch 1 (batch=1)."
        ) from error


def _is_full(error: RuntimeError) -> bool:
    return "allocate memory" in str(error) or "out of memory" in str(error)
