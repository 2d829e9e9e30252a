from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError, ShapeError, UnknownNameError
from peft_dense.nn import VMTAdapter

TASKS = ["semseg", "a.b", "keys"]


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    m, ratio, width = draw(st.none() | st.integers(1, 3)), draw(st.integers(1, 4)), 3
    return {
        "features": (m or 1) * ratio * width,
        "tasks": TASKS[: draw(st.integers(0, 3))],
        "ratio": ratio,
        "gate": draw(st.floats(0, 1)),
        "m": m,
        "norm": draw(st.sampled_from(["default", "in", None])),
        "gain": draw(st.sampled_from([1.0, 2.0])),
    }


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)


@settings(deadline=None, max_examples=40)
@given(given_=arguments())
def test_the_count_is_the_formula(given_: dict[str, Any]) -> None:
    adapter = VMTAdapter(**given_)
    c, m, t = given_["features"], given_["m"], len(given_["tasks"])
    projections = 2 * c * (c // given_["ratio"])
    normed = m is None if given_["norm"] == "default" else given_["norm"] == "in"
    expected = projections if m is None else projections // m + m**3
    expected += c + 2 * t * c + normed * 2 * c
    assert sum(p.numel() for p in adapter.parameters()) == expected


@settings(deadline=None, max_examples=40)
@given(given_=arguments())
def test_the_parts_are_the_equations(given_: dict[str, Any]) -> None:
    adapter, gate = VMTAdapter(**given_).double(), given_["gate"]
    randomise(adapter)
    x = torch.randn(2, 3, given_["features"], dtype=torch.double)
    normed = x if adapter.norm is None else adapter.norm(x)
    h = F.relu(normed @ adapter.down.weight.T) @ adapter.up.weight.T + adapter.up.bias
    assert_close(adapter(x), given_["gain"] * gate * h)
    assert_close(adapter.latent(x), h)
    for task in given_["tasks"]:
        own = adapter.tasks[task]
        h_t = given_["gain"] * (1 - gate) * h
        assert_close(adapter.specific(h, task), own.scale * h_t + own.shift)
        assert_close(h * adapter.scale(task) + adapter.shift(task), adapter.specific(h, task))


@pytest.mark.parametrize("m", [None, 3])
def test_every_part_starts_silent_and_can_wake(m: int | None) -> None:
    adapter = VMTAdapter(24, TASKS, m=m)
    h = adapter.latent(torch.randn(5, 24))
    parts = [adapter.generic(h), *(adapter.specific(h, task) for task in TASKS)]
    assert all(torch.equal(part, torch.zeros(5, 24)) for part in parts)
    (sum(parts) * torch.randn(5, 24)).sum().backward()
    fast = adapter.up.weight if m is None else adapter.up.fast
    assert fast.grad.abs().max() > 0
    assert all(adapter.tasks[task].shift.grad.abs().min() > 0 for task in TASKS)


def test_the_matrices_of_the_lite_form_serve_both_projections() -> None:
    adapter = VMTAdapter(24, [], m=3, ratio=2)
    slow = [a for a, _ in adapter.down.factors()] + [a for a, _ in adapter.up.factors()]
    for i in range(3):
        assert torch.equal(slow[i], adapter.rule.weight[i])
        assert torch.equal(slow[3 + i], adapter.rule.weight[i])


@pytest.mark.parametrize("m", [None, 3])
def test_copies_commute_with_forward(m: int | None) -> None:
    adapter = VMTAdapter(24, TASKS, m=m)
    randomise(adapter)
    x = torch.randn(5, 24)
    y = adapter(x)
    for other in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert torch.equal(other(x), y)


@pytest.mark.parametrize("m", [None, 3])
def test_a_call_leaves_nothing_behind(m: int | None) -> None:
    adapter = VMTAdapter(24, TASKS, m=m)
    held = {name: id(value) for name, value in vars(adapter).items()}
    latents = []
    adapter.up.register_forward_hook(lambda _, __, h: latents.append(weakref.ref(h)))
    y = adapter(torch.randn(5, 24))
    assert {name: id(value) for name, value in vars(adapter).items()} == held
    y.sum().backward()
    del y
    gc.collect()
    assert latents
    assert latents[0]() is None


@pytest.mark.parametrize("m", [None, 3])
def test_the_latent_is_what_up_gives(m: int | None) -> None:
    """Methods read it there, through a tap."""
    adapter = VMTAdapter(24, TASKS, m=m)
    randomise(adapter)
    seen = []
    adapter.up.register_forward_hook(lambda _, __, h: seen.append(h))
    x = torch.randn(5, 24)
    adapter(x)
    assert torch.equal(seen[0], adapter.latent(x))


def test_a_new_task_starts_at_the_identity_and_moves_no_other() -> None:
    adapter = VMTAdapter(8, ["semseg"]).to(torch.bfloat16)
    randomise(adapter)
    h = torch.randn(5, 8, dtype=torch.bfloat16)
    before = adapter.specific(h, "semseg")
    adapter.add_task("depth.v2")
    assert torch.equal(adapter.specific(h, "depth.v2"), 0.5 * h)
    assert torch.equal(adapter.specific(h, "semseg"), before)
    assert {p.dtype for p in adapter.parameters()} == {torch.bfloat16}


def test_one_compiled_graph_serves_every_task() -> None:
    adapter = VMTAdapter(24, TASKS, m=3)
    randomise(adapter)

    def parts(x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = adapter.latent(x)
        return {"": adapter.generic(h), **{task: adapter.specific(h, task) for task in TASKS}}

    x = torch.randn(5, 24)
    compiled = torch.compile(parts, fullgraph=True, backend="eager")
    assert_close(compiled(x), parts(x))


def test_the_widths_of_swin_tiny_give_the_papers_counts() -> None:
    def total(**options: Any) -> int:
        blocks = {96: 2, 192: 2, 384: 6, 768: 2}
        with torch.device("meta"):
            return sum(
                depth * sum(p.numel() for p in VMTAdapter(c, "abcd", **options).parameters())
                for c, depth in blocks.items()
            )

    assert [total(ratio=ratio) for ratio in (1, 2, 4, 8)] == [4361664, 2205120, 1126848, 587712]
    assert [total(m=m) for m in (3, 6, 12)] == [399492, 222048, 150336]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 5}, r"ratio is 5, but must divide features \(24\); pass one of 1, 2, 3, 4, 6"),
        ({"ratio": 0}, "ratio is 0"),
        ({"m": 4}, r"m is 4, but must divide features \(24\) and width \(6\); .* 1, 2, 3, 6"),
        ({"gate": 1.5}, r"gate is 1\.5; pass a number from 0 to 1"),
        ({"gate": math.nan}, "gate is nan"),
        ({"norm": "out"}, "norm is 'out'; pass one of 'default', 'in', None"),
        ({"tasks": ["a", "a"]}, "task 'a' is there already"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        VMTAdapter(24, **{"tasks": ["semseg"], **options})


def test_unknown_tasks_and_widths_are_named() -> None:
    adapter = VMTAdapter(24, ["semseg"])
    with pytest.raises(UnknownNameError, match="unknown task 'semsge'; did you mean 'semseg'"):
        adapter.specific(torch.zeros(1, 24), "semsge")
    with pytest.raises(ShapeError, match="VMTAdapter works on a last axis of 24"):
        adapter(torch.zeros(1, 12))
