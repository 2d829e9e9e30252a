"""A quick look at labels before the first step of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft_dense.data.checking.findings import Finding
from peft_dense.data.checking.tally import Tally
from peft_dense.data.labels import Item
from peft_dense.data.task_choice import names_of_tasks
from peft_dense.errors import DataError, ShapeError

__all__ = ["inspect_labels"]


def inspect_labels(data: Any, limit: int = 200) -> list[Finding]:
    """Look at some labels of a data set, and report what would mislead training.

    It reads labels, not images, of items spread evenly over the data; `check_data` reads all.

    Args:
        data: A data set of `peft_dense.data`, or any with ``tasks`` whose items have labels (and
            ``labels(index)``, where items are transformed).
        limit: How many items to look at.

    Returns:
        The findings, serious ones first.

    Example:
        >>> from peft_dense.data import Scenes
        >>> inspect_labels(Scenes(3, (24, 32), tasks=["sal", "depth"]))
        []
    """
    tallies = {name: _tally(data, name) for name in names_of_tasks(data)}
    found: list[Finding] = []
    total = len(data)
    looked = min(limit, total)
    for index in sorted({place * total // looked for place in range(looked)}):
        try:
            item, files = _labels(data, index)
            for name, tally in tallies.items():
                if name in item and (not files or name in files):
                    tally.add(item[name], files.get(name))
        except (DataError, ShapeError) as error:  # noqa: PERF203
            found.append(Finding("", "unreadable", str(error)))
    if looked and len(found) == looked:
        reason = f"none of the {looked} items looked at can be used. The first: {found[0]}"
        return [Finding("", "no label", reason), *found]
    for tally in tallies.values():
        found += tally.findings()
    return sorted(found, key=lambda finding: not finding.serious)


def _tally(data: Any, name: str) -> Tally:
    kind = getattr(data, "kinds", {}).get(name)
    names = getattr(data, "classes", {}).get(name)
    declared = getattr(data, "declared", None)
    tally = Tally(name, names, kind, declared.number(name) if declared else None, declared)
    if declared is None and not hasattr(data, "classes"):
        tally.declared = True  # a plain list has no place to declare anything
    return tally


def _labels(data: Any, index: int) -> tuple[Item, dict[str, Path]]:
    """Give labels, and their files where there are files."""
    item: Item = data.labels(index) if hasattr(data, "labels") else data[index]
    return item, data.files(data.ids[index]) if hasattr(data, "files") else {}
