"""Printing, and exit status, of the command line."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence

from torch import distributed

from peft_dense.errors import PeftDenseError

__all__ = ["exit_status", "one_line", "say", "table"]


def exit_status(run: Callable[[], object]) -> int:
    """Run a command; give its exit status, with one line per warning or error.

    Args:
        run: The command; an integer that it returns is its status, anything else means 0.

    Returns:
        The command's status; 2 after an error of this library; 130 after Ctrl-C.

    Example:
        >>> exit_status(lambda: "done"), exit_status(lambda: 1)
        (0, 1)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: say(f"note: {message}")
        try:
            status = run()
            _leave_group()
        except SystemExit:  # as after a signal, when all processes end together
            _leave_group()
            raise
        except PeftDenseError as error:
            say(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            say("stopped by SIGINT, before there was anything to keep")
            return 130
    return int(status) if isinstance(status, int) else 0


def _leave_group() -> None:
    """Leave the group of processes, if this is one of several.

    Otherwise its threads end with the interpreter, which sometimes aborts the process.
    """
    if distributed.is_available() and distributed.is_initialized():
        # They may still free tensors, which needs Python's lock; torch 2.7 holds that lock while it
        # waits for them, and would wait forever.
        time.sleep(0.1)
        distributed.destroy_process_group()


def say(text: object) -> None:
    """Write one line to the standard error."""
    sys.stderr.write(f"{one_line(text)}\n")


def one_line(text: object) -> str:
    """Join the lines and words of a text by single blanks."""
    return " ".join(str(text).split())


def table(rows: Sequence[Sequence[str]], align: str) -> str:
    """Lay out rows in columns; a row of two cells in a wider table is a name and a remark."""
    full = [row for row in rows if len(row) == len(align)]
    name = max(len(row[0]) for row in rows)
    widths = [name, *(max(len(row[i]) for row in full) for i in range(1, len(align)))]
    lines = []
    for row in rows:
        if row not in full:
            lines.append(f"{row[0]:<{name}}  {row[1]}")
            continue
        cells = [f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
