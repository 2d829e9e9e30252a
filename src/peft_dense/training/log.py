"""Scalars of a run, as lines of a CSV file and as TensorBoard events."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from peft_dense.training.checkpoints import write_whole

__all__ = ["Log"]

_HEADER = ["step", "split", "task", "metric", "value"]


class Log:
    """Write scalars to ``log.csv``, a line each, and to TensorBoard.

    Args:
        folder: Where the files go.
        step: What is there of later steps is dropped: the run goes on from here.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        path = folder / "log.csv"
        text = io.StringIO(newline="")
        lines = csv.writer(text)
        lines.writerow(_HEADER)
        if path.is_file() and step:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if len(row) == len(_HEADER)]
            lines.writerows(row for row in rows if row[0].isdigit() and int(row[0]) <= step)
        write_whole(path, text.getvalue().encode())
        self._file = path.open("a", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file)
        self._board = SummaryWriter(str(folder), purge_step=step + 1)

    def __call__(self, step: int, split: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Write ``scores``, metrics by task."""
        for name, metrics in scores.items():
            for metric, value in metrics.items():
                self._csv.writerow([step, split, name, metric, f"{value:.6g}"])
                self._board.add_scalar(f"{split}/{name}/{metric}", value, step)
        self._file.flush()

    def picture(self, step: int, sheet: Image.Image) -> None:
        """Show a picture in TensorBoard."""
        self._board.add_image("grid", np.asarray(sheet), step, dataformats="HWC")

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._board.close()
