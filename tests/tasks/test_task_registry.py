"""Tasks by name."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import peft_dense.tasks
from peft_dense.errors import HyperparameterError, UnknownNameError
from peft_dense.tasks import register, task, tasks
from peft_dense.tasks.registry import _TASKS
from peft_dense.tasks.segmentation import Segmentation


def test_every_file_that_registers_a_task_is_known() -> None:
    folder = Path(peft_dense.tasks.__file__).parent
    files = [path.stem for path in folder.glob("*.py") if "\n@register\n" in path.read_text()]
    assert sorted(files) == tasks()


def test_channels_by_default() -> None:
    names = ("semseg", "human_parts", "sal", "normals", "edge", "depth")
    assert [task(name).channels for name in names] == [21, 7, 1, 3, 1, 1]


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown task 'normal'; did you mean 'normals'"):
        task("normal")
    with pytest.raises(UnknownNameError, match=r"unknown semseg option 'chanels'; .*'channels'"):
        task("semseg", chanels=3)


def test_a_new_task_is_known_once_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft_dense.tasks.registry._TASKS", dict(_TASKS))

    @register
    @dataclass(frozen=True, kw_only=True)
    class Materials(Segmentation):
        name: ClassVar[str] = "materials"
        channels: int = 5

    assert task("materials").channels == 5 and "materials" in tasks()

    class Other(Materials):
        pass

    with pytest.raises(
        HyperparameterError, match=r"'materials' is .*Materials already; give .*Other"
    ):
        register(Other)


@pytest.mark.parametrize("name", tasks())
def test_tasks_are_values(name: str) -> None:
    kind = task(name)
    assert pickle.loads(pickle.dumps(kind)) == kind == task(name) and hash(kind) == hash(task(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.channels = 2  # type: ignore[misc]
