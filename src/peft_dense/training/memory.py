"""The most memory that a run takes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path

import torch

__all__ = ["peak_memory", "reset_peak_memory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier runs freed isn't this one's
        with contextlib.suppress(OSError):
            _RESET.write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """Give the peak since the reset, in bytes; None where the system can't say.

    Of a GPU what PyTorch had allocated; of the CPU the resident memory of this process, Python and
    libraries included (Linux).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
