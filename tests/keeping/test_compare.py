"""What doesn't fit is told in one way: counted, sorted, three of each named."""

from __future__ import annotations

import warnings

import pytest
import torch

from peft_dense.errors import CheckpointError
from peft_dense.keeping.compare import (
    changed_weights,
    check_backbone,
    check_state,
    specs,
    warn_unless_finite,
)
from peft_dense.keeping.digest import changed, fingerprint


def tensors(*names: str, shape=(2,), dtype=torch.float32) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape, dtype=dtype) for name in names}


def told(expected: dict, given: dict) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_state(specs(expected), specs(given), "a doesn't fit b", "Do c.")
    return str(caught.value)


def test_all_kinds_are_told_at_once():
    expected = tensors("e", "d", "c", "b", "a") | tensors("shape", "type", "same")
    given = tensors("y", "x", "same") | {
        "shape": torch.zeros(3, 4),
        "type": torch.zeros(2, dtype=torch.int8),
    }
    assert told(expected, given) == (
        "a doesn't fit b: 5 missing (a, b, c, ...); 2 unknown (x, y); "
        "1 misshapen (shape is (3, 4), expected (2,)); "
        "1 of another type (type is int8, expected float32). Do c."
    )


FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
REST = (torch.complex64, torch.bool, torch.int8, torch.uint8, torch.int64)


@pytest.mark.parametrize("given", [*FLOATS, *REST])
@pytest.mark.parametrize("expected", [*FLOATS, *REST])
def test_only_floats_stand_for_one_another(expected, given):
    pair = specs(tensors("a", dtype=expected)), specs(tensors("a", dtype=given))
    if expected == given or {expected, given} <= set(FLOATS):
        check_state(*pair, "", "")
    else:
        with pytest.raises(CheckpointError, match="1 of another type"):
            check_state(*pair, "", "")


def test_names_and_shapes_that_would_fill_the_screen():
    long, deep = {"x" * 10_000: torch.zeros(1)}, {"a": torch.zeros((1,) * 60)}
    assert len(told({}, long)) < 300
    assert "a is of 60 axes, expected (2,)" in told(tensors("a"), deep)


def test_backbones_have_their_own_words():
    with pytest.raises(CheckpointError) as caught:
        check_backbone({"a": [2], "b": [3]}, {"b": (4,), "c": (1,)}, "Net", "Other")
    assert str(caught.value).startswith(
        "the adapters belong to a Net and don't fit this Other: 1 parameters it lacks (a); "
        "1 it has besides (c); 1 of another shape (b is (4,), expected (3,)). Build"
    )
    check_backbone({"a": [2, 3]}, {"a": (2, 3)}, "Net", "Other")


def test_only_what_is_not_finite_is_warned_about():
    whole = (
        tensors("a") | tensors("counter", dtype=torch.int64) | {"m": torch.ones(1, device="meta")}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unless_finite(whole)
    whole["b"] = torch.tensor([1.0, float("inf")])
    with pytest.warns(UserWarning, match=r"1 tensors hold NaN or infinity \(b\)"):
        warn_unless_finite(whole)


def test_changed_weights_are_told_with_the_remedy():
    net = torch.nn.Linear(2, 2)
    before = fingerprint(net.state_dict())
    assert not changed(before, fingerprint(net.state_dict()))
    net(torch.ones(2)).sum().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    assert changed(before, fingerprint(net.state_dict()))
    assert "frozen weights of Net have changed since inject" in changed_weights("Net")
    assert "adapter_parameters()" in changed_weights("Net")
