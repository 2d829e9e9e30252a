"""Metrics of a model, with what tells whether they compare with another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import Self

from peft_dense import papers
from peft_dense.errors import DataError
from peft_dense.tasks.base import Task
from peft_dense.tasks.registry import task

__all__ = ["Scores", "published", "references"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Hold one metric per task of one model, measured in one way.

    ``dataclasses.asdict`` gives what JSON can hold, and ``Scores(**...)`` takes it back.

    Args:
        values: The metric by task.
        metrics: Its name by task.
        lower_is_better: The tasks whose metric is an error.
        protocol: How it was measured, such as ``PASCAL-Context val, 448x448, resized labels``.
        source: Where it is from: a paper's table, or a run.

    Raises:
        DataError: If values and metrics aren't of the same tasks, or protocol or source is empty.

    Example:
        >>> print(references()["polyhistor_swin_tiny"])
        semseg       67.21 mIoU, higher is better
        human_parts  61.93 mIoU, higher is better
        sal          62.35 mIoU, higher is better
        normals      17.97 mErr, lower is better
        protocol     PASCAL-Context, 5,105 images, sizes of image and label not printed
        source       Polyhistor, table 1; Polyhistor, table 2; VMT-Adapter, table 2; ...
    """

    values: Mapping[str, float]
    metrics: Mapping[str, str]
    lower_is_better: tuple[str, ...]
    protocol: str
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower_is_better", tuple(self.lower_is_better))
        if not set(self.values) == set(self.metrics) >= set(self.lower_is_better):
            raise DataError(
                f"scores have values of {_list(self.values)}, metrics of {_list(self.metrics)} and "
                f"lower_is_better {_list(self.lower_is_better)}; expected the same tasks in the "
                "first two, and no other in the last."
            )
        if not (self.values and self.protocol.strip() and self.source.strip()):
            raise DataError(
                f"scores got values of {_list(self.values)}, protocol={self.protocol!r} and "
                f"source={self.source!r}; say what was measured, how, and where it is from."
            )

    @classmethod
    def of(
        cls,
        scores: Mapping[str, Mapping[str, float]],
        tasks: Mapping[str, Task] | None = None,
        *,
        protocol: str,
        source: str,
    ) -> Self:
        """Take each task's primary metric out of what the meters computed.

        Args:
            scores: By task, every metric of its meter.
            tasks: The tasks; by default the registered ones of these names.
            protocol: How they were measured.
            source: Where they are from.

        Raises:
            UnknownNameError: If a task isn't registered, and none is given.
            DataError: As for the class.

        Example:
            >>> scores = {"normals": {"mErr": 17.0, "rmse": 24.0}}
            >>> Scores.of(scores, protocol="Scenes, 64x64", source="run 3").values
            {'normals': 17.0}
        """
        known = {name: task(name) if tasks is None else tasks[name] for name in scores}
        return cls(
            values={name: scores[name][each.metric] for name, each in known.items()},
            metrics={name: each.metric for name, each in known.items()},
            lower_is_better=tuple(n for n, each in known.items() if not each.higher_is_better),
            protocol=protocol,
            source=source,
        )

    def __str__(self) -> str:
        """Show one line per task, then how it was measured and where it is from."""
        left = max(map(len, [*self.values, "protocol"])) + 1
        lines = [
            f"{name:<{left}}{value:6.2f} {self.metrics[name]}, {self._better(name)} is better"
            for name, value in self.values.items()
        ]
        about = {"protocol": self.protocol, "source": self.source}
        return "\n".join([*lines, *(f"{key:<{left}} {text}" for key, text in about.items())])

    def check(self, reference: Scores, *, allow_protocols: bool = False) -> None:
        """Raise unless a gain over ``reference`` means something.

        Args:
            reference: The scores to compare with.
            allow_protocols: Whether protocols may differ; then say so beside the gain.

        Raises:
            DataError: If a task's metric or the protocol differs.
        """
        who = f"the scores of {self.source!r} and of {reference.source!r} don't compare"
        for name in self.values.keys() & reference.values.keys():
            mine, theirs = (
                f"{each.metrics[name]} ({each._better(name)} is better)"
                for each in (self, reference)
            )
            if mine != theirs:
                raise DataError(
                    f"{who}: {name} is {mine} in the one, {theirs} in the other. Take the same "
                    "metric from both; a meter's compute() gives all of a task."
                )
        if self.protocol != reference.protocol and not allow_protocols:
            raise DataError(
                f"{who}: they were measured on {self.protocol!r} and on {reference.protocol!r}. "
                "Measure both in one way, or pass allow_protocols=True and say so beside the gain."
            )

    def _better(self, name: str) -> str:
        return "lower" if name in self.lower_is_better else "higher"


def published(row: papers.Row) -> Scores:
    """Give the metrics that the papers print in a row.

    Args:
        row: A row of `peft_dense.papers`.

    Raises:
        DataError: If they print none there.

    Example:
        >>> published(papers.ROWS[0]).values["normals"]
        17.97
    """
    if row.scores is None:
        raise DataError(
            f"{row.source} print no metrics of {row.label}, only Delta {row.delta:+.2f}; take a "
            "row whose scores aren't None."
        )
    return Scores(
        values=row.scores,
        metrics=papers.METRICS,
        lower_is_better=("normals",),
        protocol=papers.PROTOCOL,
        source=row.source,
    )


def references() -> dict[str, Scores]:
    """Give the single-task full fine-tuning that the papers' Delta is over, by paper and backbone.

    VMT-Adapter repeats Polyhistor's numbers. Of other backbones and heads both print gains only.

    Example:
        >>> references()["polyhistor_swin_tiny"].values["semseg"]
        67.21
    """
    (row,) = (row for row in papers.ROWS if row.method == "single_task_full")
    return {"polyhistor_swin_tiny": published(row)}


def _list(names: Mapping[str, object] | tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
