"""Scalars of a run, as lines of a CSV file and as TensorBoard events."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar

from peft_dense.errors import CheckpointError
from peft_dense.training.checkpoints import write_whole

__all__ = ["Log"]

_HEADER = ["step", "split", "task", "metric", "value"]


class Log:
    """Write scalars to ``log.csv``, one per line, and to TensorBoard.

    Args:
        folder: Where the files go.
        step: The step that the run goes on from; what is there of later ones is dropped.

    Raises:
        CheckpointError: The disk refuses, now or at any later call; both files are closed then.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._path = folder / "log.csv"
        text = io.StringIO(newline="")
        lines = csv.writer(text)
        lines.writerow(_HEADER)
        if self._path.is_file() and step:
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if len(row) == len(_HEADER)]
            lines.writerows(row for row in rows if row[0].isdigit() and int(row[0]) <= step)
        write_whole(self._path, text.getvalue().encode())
        self._files = contextlib.ExitStack()
        with self._writing():
            file = self._path.open("a", newline="", encoding="utf-8")
            self._file = self._files.enter_context(file)
            self._csv = csv.writer(self._file)
            events = (folder / _events_name()).open("wb")
            self._events = _Events(self._files.enter_context(events), step)

    def __call__(self, step: int, split: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Write ``scores``, metrics by task."""
        with self._writing():
            for name, metrics in scores.items():
                for metric, value in metrics.items():
                    self._csv.writerow([step, split, name, metric, f"{value:.6g}"])
                    summary = scalar(f"{split}/{name}/{metric}", value)  # type: ignore[no-untyped-call]
                    self._events.add(step, summary)
            self._file.flush()
            self._events.flush()

    def picture(self, step: int, sheet: Image.Image) -> None:
        """Keep a picture as ``grid.png``, and show it in TensorBoard."""
        file = io.BytesIO()
        sheet.save(file, "png")
        write_whole(self._path.with_name("grid.png"), file.getvalue())
        with self._writing():
            summary = image("grid", np.asarray(sheet), dataformats="HWC")  # type: ignore[no-untyped-call]
            self._events.add(step, summary)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close both; an error of closing doesn't hide another."""
        with contextlib.suppress(CheckpointError) if error else contextlib.nullcontext():
            self.close()

    def close(self) -> None:
        """Close both."""
        with self._writing():
            self._files.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self._files.close()
            raise CheckpointError(
                f"can't write {self._path} or TensorBoard's events beside it ({error}); the states "
                "are whole. Make room, and start the same command again: it goes on from there."
            ) from error


def _events_name() -> str:
    """Name a file of events as TensorBoard expects it, unlike any other process's."""
    return f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"


class _Events:
    """Write a file of TensorBoard events, each at once.

    Torch's ``SummaryWriter`` writes in a thread, whose errors, such as a full disk, can't be
    caught.

    Args:
        file: Takes the events.
        step: Earlier files' events of later steps are dropped.
    """

    def __init__(self, file: BinaryIO, step: int) -> None:
        self._file = file
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def add(self, step: int, summary: object) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        self._file.flush()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
