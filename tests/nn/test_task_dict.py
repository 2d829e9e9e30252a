from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from peft_dense.errors import UnknownNameError
from peft_dense.nn import TaskDict

NASTY = ["a.b", ".", "%", "%2E", "%6Beys", "keys", "training", "type", "values", "_modules"]
names = st.one_of(
    st.text(min_size=1, max_size=6),
    st.text(alphabet="%.2E5keys", min_size=1, max_size=6),
    st.sampled_from(NASTY + [name for name in dir(nn.ModuleDict()) if name]),
)


def build(tasks: list[str]) -> TaskDict:
    return TaskDict({task: nn.Linear(1, index + 1) for index, task in enumerate(tasks)})


@settings(deadline=None, max_examples=100)
@given(tasks=st.lists(names, unique=True, max_size=6))
@example(tasks=NASTY)
def test_it_is_a_dictionary_of_plain_names(tasks: list[str]) -> None:
    modules = build(tasks)
    assert list(modules) == list(modules.keys()) == [name for name, _ in modules.items()] == tasks
    assert len(modules) == len(tasks)
    for index, task in enumerate(tasks):
        assert task in modules
        assert modules[task].out_features == index + 1
        assert dict(modules.items())[task] is modules[task]
    for task in tasks[::2]:
        module = modules[task]
        assert modules.pop(task) is module
    for task in tasks[1::2]:
        del modules[task]
    assert len(modules) == 0
    assert not list(modules.parameters())


@settings(deadline=None, max_examples=30)
@given(tasks=st.lists(names, unique=True, min_size=1, max_size=4))
@example(tasks=NASTY)
def test_copies_and_state_dicts_keep_names_and_weights(tasks: list[str]) -> None:
    modules = build(tasks)
    loaded = build(tasks)
    loaded.load_state_dict(modules.state_dict())
    for other in (copy.deepcopy(modules), pickle.loads(pickle.dumps(modules)), loaded):
        assert isinstance(other, TaskDict)
        assert list(other) == tasks
        assert all(torch.equal(other[task].weight, modules[task].weight) for task in tasks)


def test_a_module_dict_of_the_same_tasks_can_be_copied_in() -> None:
    modules = build(["a.b", "keys"])
    assert list(TaskDict(modules)) == ["a.b", "keys"]
    assert TaskDict(modules)["a.b"] is modules["a.b"]


def test_ordinary_names_stay_as_they_are_in_state_dicts() -> None:
    tasks = ["semseg", "human_parts", "sal-2", "tiefe/süd", "0"]
    assert list(build(tasks).state_dict())[::2] == [f"{task}.weight" for task in tasks]
    assert list(build(["a.b", "keys", "5%"]).state_dict())[::2] == [
        "a%2Eb.weight",
        "%6Beys.weight",
        "5%25.weight",
    ]


def test_replacing_a_module_keeps_one() -> None:
    modules = build(["keys"])
    modules["keys"] = replacement = nn.Linear(1, 5)
    assert len(modules) == 1
    assert modules["keys"] is replacement


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_name_must_be_a_non_empty_string(name: object) -> None:
    with pytest.raises(UnknownNameError, match="non-empty string; got"):
        TaskDict()[name] = nn.Identity()  # type: ignore[index]
    assert name not in TaskDict()


def test_an_unknown_task_offers_the_nearest() -> None:
    modules = build(["semseg", "a.b"])
    message = "unknown task 'semsge'; did you mean 'semseg'.* Known: a.b, semseg"
    with pytest.raises(UnknownNameError, match=message):
        modules["semsge"]
    with pytest.raises(UnknownNameError, match=message):
        del modules["semsge"]
    with pytest.raises(UnknownNameError, match=message):
        modules.pop("semsge")
    with pytest.raises(UnknownNameError, match="unknown task 'a%2Eb'"):
        modules["a%2Eb"]
