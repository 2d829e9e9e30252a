"""The angles between the tasks' gradients over a training run."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import Self

from peft_dense.adapted import AdaptedBackbone
from peft_dense.conflict.gradients import Conflict, conflict, cosine
from peft_dense.conflict.layers import Shared, layers_of
from peft_dense.conflict.picture import draw
from peft_dense.dense import DenseModel
from peft_dense.errors import DataError, UnknownNameError

__all__ = ["ConflictRecorder"]


class ConflictRecorder:
    """Collect the angles of every training step, and draw their histogram.

    VMT-Adapter, section 4.3 and figure 4: the angles between every two tasks' gradients on the
    shared parameters, over all iterations. See :func:`conflict` for one step.

    Args:
        parameters: As for :func:`conflict`.
        name: Title of the picture; None takes the method's name.

    Attributes:
        name: Title of the picture.
        reports: One :class:`Conflict` per step.

    Shape:
        losses ``()``; :meth:`angles` gives ``(steps, pairs)``

    Raises:
        HyperparameterError: As for :func:`conflict`.
        UnsupportedModelError: As for :func:`conflict`.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> recorder = ConflictRecorder({"w": [w]})
        >>> for slope in (1.0, -1.0):
        ...     report = recorder.record({"a": w[0] + w[1], "b": slope * w[0]})
        >>> recorder.angles().round().tolist(), recorder.share_of_conflict()
        ([[45.0], [135.0]], 0.5)
    """

    name: str
    reports: list[Conflict]

    def __init__(self, parameters: Shared, name: str | None = None) -> None:
        if name is None and isinstance(parameters, DenseModel | AdaptedBackbone):
            adapted = parameters.encoder if isinstance(parameters, DenseModel) else parameters
            name = adapted.method.name
        self.name, self.reports = name or "", []
        self._parameters = layers_of(parameters)

    def record(self, losses: Mapping[str, Tensor], *, accumulate: bool = False) -> Conflict:
        """Measure one step, keep it and give it; the arguments are those of :func:`conflict`.

        Raises:
            UnknownNameError: A task that the steps before don't have.
            DataError: A task of the steps before has no loss.
        """
        if self.reports:
            tasks = self.reports[0].tasks
            for task in (*losses, *tasks):
                if task not in tasks:
                    raise UnknownNameError.of("task", task, tasks)
                if task not in losses:
                    raise DataError(f"no loss of {task!r}, recorded before; pass one each step.")
            losses = {task: losses[task] for task in tasks}
        self.reports.append(conflict(losses, self._parameters, accumulate=accumulate))
        return self.reports[-1]

    def angles(self, layer: str | None = None) -> Tensor:
        """Give the angles in degrees, of one layer or of all together: ``(steps, pairs)``.

        Pairs are in the order of :attr:`Conflict.pairs`; NaN where a gradient is zero.

        Raises:
            DataError: Nothing was recorded.
            UnknownNameError: No such layer.
        """
        if not self.reports:
            raise DataError("nothing was recorded; call record(losses) in each training step.")
        dots = torch.stack([report.dot(layer) for report in self.reports])
        row, column = torch.triu_indices(dots.shape[-1], dots.shape[-1], offset=1)
        return cosine(dots)[:, row, column].acos().rad2deg()

    def histogram(self, bins: int = 36, layer: str | None = None) -> tuple[Tensor, Tensor]:
        """Give the shares of the angles in equal bins from 0 to 180 degrees, and their edges.

        Shape:
            ``() -> (bins,), (bins + 1,)``
        """
        angles = self.angles(layer)
        angles = angles[~angles.isnan()]
        edges = torch.linspace(0, 180, bins + 1, dtype=angles.dtype)
        counts = torch.histogram(angles, edges).hist
        return counts / max(1, len(angles)), edges

    def share_of_conflict(self, layer: str | None = None) -> float:
        """Give the share of the angles over 90 degrees; NaN where there is none."""
        angles = self.angles(layer)
        return (angles[~angles.isnan()] > 90).double().mean().item()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``.json``, for :meth:`load`, or ``.csv``, one line per step, layer and pair.

        In the CSV, the layer named ``all`` is all of them together.

        Raises:
            DataError: Another ending, or nothing was recorded.
        """
        file, steps = Path(path), self.angles()
        if file.suffix not in (".csv", ".json"):
            raise DataError(f"{file.name} ends in {file.suffix!r}; expected .csv or .json.")
        file.parent.mkdir(parents=True, exist_ok=True)
        first = self.reports[0]
        if file.suffix == ".json":
            dots = [report.dots.tolist() for report in self.reports]
            known = {"name": self.name, "tasks": first.tasks, "layers": first.layers}
            file.write_text(json.dumps({**known, "dots": dots}) + "\n", encoding="utf-8")
            return file
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["step", "layer", "task", "other", "angle"])
            by_layer = {"all": steps} | {layer: self.angles(layer) for layer in first.layers}
            for step in range(len(steps)):
                for layer, angles in by_layer.items():
                    for pair, angle in zip(first.pairs, angles[step].tolist(), strict=True):
                        writer.writerow([step, layer, *pair, f"{angle:.4f}"])
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote as ``.json``, to draw it; it can't record more.

        Raises:
            DataError: The file isn't one that :meth:`save` wrote.
        """
        try:
            known = json.loads(Path(path).read_text(encoding="utf-8"))
            tasks, layers = tuple(known["tasks"]), tuple(known["layers"])
            dots = torch.tensor(known["dots"], dtype=torch.float64)
            recorder = cls.__new__(cls)
            recorder.name, recorder._parameters = known["name"], {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no record of conflicts ({error!r}); expected JSON written by save()."
            ) from error
        recorder.reports = [Conflict(tasks=tasks, layers=layers, dots=each) for each in dots]
        return recorder

    def picture(
        self, path: str | os.PathLike[str], *others: ConflictRecorder, bins: int = 36
    ) -> Path:
        """Draw the histogram, beside those of ``others`` on the same scale, as an image file.

        Raises:
            DataError: Nothing was recorded.
        """
        panels = [
            (each.name, each.histogram(bins)[0].tolist(), each.share_of_conflict())
            for each in (self, *others)
        ]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        draw(panels).save(path)
        return Path(path)
