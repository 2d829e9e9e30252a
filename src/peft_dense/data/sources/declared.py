"""What a folder declares of its tasks: names of classes, their number, kinds of labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from peft_dense.errors import DataError
from peft_dense.tasks.kinds import IGNORE, LabelKind
from peft_dense.tasks.registry import kind_of_labels

__all__ = ["Declared", "parse_tasks", "read_declared"]


@dataclass
class Declared:
    """Names, numbers and kinds by task, and where they are from.

    Args:
        names: Class names.
        numbers: Numbers of classes, where there are no names.
        kinds: Kinds of labels.
        source: Where they are declared, for messages.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    source: Path | str = Path("classes.json")

    def number(self, task: str) -> int | None:
        """Give the number of classes, if it was declared."""
        return len(self.names[task]) if task in self.names else self.numbers.get(task)

    def kind(self, task: str) -> LabelKind:
        """Give the kind of labels: as declared, else by the task's name."""
        return kind_of_labels(task, self.kinds.get(task), self.number(task) or 0)

    def remedy(self, task: str, number: object) -> str:
        """Give the way to declare classes, for messages."""
        if isinstance(self.source, Path):
            return (
                f"Declare them in {self.source.name}: "
                f'{{"{task}": [names]}} or {{"{task}": {number}}}.'
            )
        return f"Declare them in {self.source}: classes = [names] or {number} in [tasks.{task}]."

    def remedy_of_depth(self, task: str) -> str:
        """Give the way to correct a unit of depth, for messages."""
        if isinstance(self.source, Path):
            return "A .npy is read as metres, a 16-bit PNG as millimetres: divide or save it so."
        return f"Correct unit or scale in [tasks.{task}] of {self.source}."

    def check(self, task: str, label: Tensor, kind: LabelKind, path: Path) -> None:
        """Raise if a map of classes holds one beyond those declared.

        Raises:
            DataError: It names the file, the class and the number.
        """
        number, largest = self.number(task), int(label.max())
        if largest == kind.ignore:
            largest = int(label.masked_fill(label == kind.ignore, 0).max())
        if number is None and largest > IGNORE:
            raise DataError(
                f"{path} holds class {largest}; more than {IGNORE} classes have to be declared. "
                f"{self.remedy(task, 'NUMBER')}"
            )
        if number is not None and largest >= number:
            raise DataError(
                f"{path} holds class {largest}; {self.source} declares {number} classes of "
                f"{task}, 0 to {number - 1} ({kind.ignore} where ignored). Declare them all there, "
                "or map the labels to that range."
            )


def read_declared(
    root: Path, kinds: Mapping[str, str], classes: Mapping[str, int | Sequence[str]]
) -> Declared:
    """Read a folder's ``classes.json``, if it has one; the arguments override it.

    Raises:
        DataError: If the file isn't JSON of such a form.
    """
    path = root / "classes.json"
    declared = Declared(source=path)
    said = _read(path)
    for task, value in (*said.items(), *classes.items(), *kinds.items()):
        if isinstance(value, str):
            declared.kinds[task] = value
        elif isinstance(value, int):
            declared.names.pop(task, None)
            declared.numbers[task] = value
        else:
            declared.names[task] = list(value)
    return declared


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        wrong = [task for task, value in said.items() if not _is_declaration(value)]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} isn't JSON of the form {{task: [names]}}: {error}.") from error
    if wrong:
        raise DataError(
            f"{path} isn't JSON of the form {{task: [names]}}: {wrong[0]!r} is neither a list of "
            "names, nor a number of classes, nor a kind of labels."
        )
    return said


def _is_declaration(value: Any) -> bool:
    names = isinstance(value, list) and bool(value) and all(isinstance(n, str) for n in value)
    number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return names or number or isinstance(value, str)


def parse_tasks(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Read tasks from a command line: names with commas between, ``name=kind`` for your own.

    Args:
        text: The argument.

    Raises:
        DataError: If a name is empty or stands twice.

    Example:
        >>> parse_tasks("semseg, roofs=binary")
        (('semseg', 'roofs'), {'roofs': 'binary'})
    """
    pairs = [[word.strip() for word in part.split("=", 1)] for part in text.split(",")]
    names = tuple(pair[0] for pair in pairs)
    if not all(names) or len(set(names)) != len(names):
        raise DataError(
            f"{text!r} names a task twice, or has an empty name; expected names with commas "
            "between, with their kind where they are your own: semseg,roofs=binary."
        )
    return names, {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
