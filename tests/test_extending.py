"""The methods that docs/tutorials/method.md builds keep the laws that the library's own keep."""

from __future__ import annotations

import copy
import functools
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from peft_dense import AdaptedBackbone, inject
from peft_dense.errors import NoSiteError
from peft_dense.methods import base
from peft_dense.ownership import frozen_tensors, slots
from test_docs import code_of
from zoo import build, image, perturb

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "method.md"
TASKS = ("semseg", "a.b", "keys")
both = pytest.mark.parametrize("name", ["local_mixing", "task_forks"])
backbones = pytest.mark.parametrize("family", ["swin", "vit"])


@functools.cache
def page_methods() -> dict[str, type[base.Method]]:
    """What the page registers."""
    before = dict(base._REGISTRY)
    exec(compile(code_of(PAGE), str(PAGE), "exec", dont_inherit=True), {"__name__": "__docs__"})
    made = {name: base._REGISTRY.pop(name) for name in base._REGISTRY.keys() - before.keys()}
    assert before == base._REGISTRY
    return made


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", {**base._REGISTRY, **page_methods()})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is flat")
        yield


@functools.cache
def original(family: str) -> nn.Module:
    return build(family)


def adapt(family: str, name: str, *, awake: bool = True) -> AdaptedBackbone:
    torch.manual_seed(3)
    adapted = inject(original(family), name, tasks=TASKS)
    if awake:
        perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    return adapted


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(a, b) for task in left for a, b in zip(left[task], right[task], strict=True)
    )


@backbones
@both
def test_they_start_as_the_identity_and_then_move_every_stage(family, name):
    plain = inject(original(family), "decoders_only", tasks=TASKS)(image())["keys"]
    for features in adapt(family, name, awake=False)(image()).values():
        for a, b in zip(features, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for features in adapt(family, name)(image()).values():
        assert all(
            not torch.allclose(a, b, atol=1e-3) for a, b in zip(features, plain, strict=True)
        )


@backbones
@both
def test_the_ledger_holds_the_formula_and_says_whose_they_are(family, name):
    adapted = adapt(family, name)
    ledger = adapted.ledger()
    assert ledger.encoder == adapted.method.count(adapted.info, 3)
    assert (ledger.shared, ledger.unfrozen_backbone) == (
        (0, 0) if name == "task_forks" else (ledger.encoder, 0)
    )
    assert ledger.encoder == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


@backbones
@both
def test_tasks_come_and_go_and_move_no_other(family, name):
    adapted = adapt(family, name)
    before = adapted(image())
    adapted.add_task("depth")
    after = adapted(image())
    assert same({task: after[task] for task in TASKS}, before)
    assert adapted.ledger().encoder == adapted.method.count(adapted.info, 4)
    adapted.remove_task("depth")
    adapted.remove_task("semseg")
    assert same(adapted(image()), {task: before[task] for task in TASKS[1:]})
    assert adapted.ledger().encoder == adapted.method.count(adapted.info, 2)
    alone = adapted.extract_task("a.b")
    assert same(alone(image()), {"a.b": before["a.b"]})


@backbones
@both
def test_copies_and_saved_folders_give_the_same(family, name, tmp_path):
    adapted = adapt(family, name)
    expected = adapted(image())
    assert same(copy.deepcopy(adapted)(image()), expected)
    again = AdaptedBackbone.load(adapted.save(tmp_path / "adapter"), original(family))
    assert same(again(image()), expected)
    assert sum(v.numel() for v in adapted.adapter_state_dict().values()) == adapted.ledger().encoder
    shared = [t for t in frozen_tensors(again).values() if isinstance(t, nn.Parameter)]
    assert sum(p.numel() for p in again.parameters() if not p.requires_grad) == sum(
        p.numel() for p in shared
    )


@backbones
def test_a_forks_parameters_are_its_tasks_alone_and_only_wanted_forks_run(family):
    adapted = adapt(family, "task_forks")
    every = adapted(image())
    ran = []
    for task in TASKS:
        for fork in adapted.paths["shared"].forks.values():
            fork.tasks[task].register_forward_hook(lambda *_, task=task: ran.append(task))
    chosen = adapted(image(), ["keys"])
    assert set(ran) == {"keys"}
    assert same(chosen, {"keys": every["keys"]})
    sum(f.square().sum() for f in chosen["keys"]).backward()
    owners = {slot.name: slot.task for slot in slots(adapted)}
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad is not None) == (owners[key] == "keys")


@both
def test_checkpointing_gives_the_plain_gradients(name):
    def gradients(adapted):
        adapted.zero_grad()
        sum(f.square().sum() for fs in adapted(image(1)).values() for f in fs).backward()
        return [p.grad for _, p in adapted.adapter_parameters()]

    adapted = adapt("swin", name)
    plain = gradients(adapted)
    adapted.set_grad_checkpointing()
    for got, expected in zip(gradients(adapted), plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_the_convolution_refuses_what_has_no_map():
    with pytest.raises(NoSiteError, match="local_mixing convolves over maps"):
        inject(build("hiera"), "local_mixing")
