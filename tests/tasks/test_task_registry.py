"""Tasks by name."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import peft_dense.tasks
from peft_dense.errors import DataError, HyperparameterError, ShapeError, UnknownNameError
from peft_dense.tasks import register, task, tasks
from peft_dense.tasks.kinds import KINDS
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_of_ones_own_name_is_made_by_its_kind(kind: str) -> None:
    options = {"channels": 300} if kind == "segmentation" else {}
    mine = task("roofs", kind=kind, **options)
    assert mine.name == "roofs" and mine.kind == kind and mine.labels.name == kind
    assert pickle.loads(pickle.dumps(mine)) == mine != task("walls", kind=kind, **options)
    other = task("walls", kind=kind, **options).meter()
    with pytest.raises(DataError, match=r"of roofs can't take in a .* of walls"):
        mine.meter().merge_state(other)
    with pytest.raises(ShapeError, match="a roofs target has shape"):
        mine.counts(torch.zeros(1, 1, 1, 4, 4, 4))
    assert "roofs" not in tasks()


@pytest.mark.parametrize("name", tasks())
def test_a_registered_task_has_its_kind_by_itself(name: str) -> None:
    mine = task(name)
    assert task(name, kind=mine.kind) == mine
    assert mine.labels.channels == (() if mine.labels.counted else (mine.channels,))
    for kind in KINDS:
        if kind != mine.kind:
            with pytest.raises(HyperparameterError, match=f"{name} has labels of kind {mine.kind}"):
                task(name, kind=kind)


def test_what_a_task_of_ones_own_lacks_is_said() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown task 'roofs'.*needs a kind.*kind='bin"):
        task("roofs")
    with pytest.raises(UnknownNameError, match="unknown kind of labels 'binry'; .*'binary'"):
        task("roofs", kind="binry")
    with pytest.raises(HyperparameterError, match="roofs of kind segmentation needs a number of"):
        task("roofs", kind="segmentation")
    with pytest.raises(HyperparameterError, match="has no name; pass name="):
        Segmentation(channels=3)
