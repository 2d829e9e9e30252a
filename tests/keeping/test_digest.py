"""Every change of weights is noticed, and a rounded copy is known for what it is."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peft_dense.keeping import digest
from peft_dense.keeping.digest import changed, compare_weights, fingerprint, weights_id

ROW = digest._COLUMNS * 8  # bytes of one row of the sums
DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.int8,
    torch.bool,
    torch.complex64,
)


def values(shape, dtype=torch.float32, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 8
    return (drawn > 0) if dtype == torch.bool else drawn.to(dtype)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """As of a small model: weights, statistics, a counter, an empty and a scalar tensor."""
    return {
        "conv.weight": values((40, 3, 7, 7), seed=seed),
        "norm.weight": 1 + values((40,), seed=seed) / 100,
        "norm.running_var": values((40,), seed=seed).abs(),
        "norm.num_batches_tracked": torch.tensor(7),
        "scale": torch.tensor(0.3),
        "none": torch.zeros(0, 3),
        "whole": torch.ones(2),
    }


# ------------------------------------------------------------------------------ fingerprint


@given(
    dtype=st.sampled_from(DTYPES),
    size=st.sampled_from([1, 2, 3, 7, 64, 1001, 70_000]),
    place=st.integers(0, 10**9),
    bit=st.integers(0, 7),
)
def test_every_changed_bit_is_noticed(dtype, size, place, bit):
    tensor = values((size,), dtype)
    before = fingerprint({"a": tensor})
    octets = tensor.view(torch.uint8)
    octets[place % octets.numel()] ^= 1 if dtype == torch.bool else 1 << bit
    after = fingerprint({"a": tensor})
    assert after != before
    assert changed(before, after)


@given(
    place=st.integers(0, 3 * ROW // 4 - 1),
    step=st.sampled_from([1, 2, ROW // 8, ROW // 4, ROW // 2]),
    negative=st.booleans(),
)
def test_values_that_change_places_or_signs_are_noticed(place, step, negative):
    """Also where they meet in one column of the sums, and where only their signs differ."""
    tensor = values((3 * ROW // 4,))
    other = (place + step) % len(tensor)
    if negative:
        tensor[other] = -tensor[place]
    before = fingerprint({"a": tensor})
    pair = tensor[[place, other]]
    for changed_pair in (pair.flip(0), -pair):
        tensor[[place, other]] = changed_pair
        assert fingerprint({"a": tensor}) != before
    tensor[[place, other]] = pair
    assert fingerprint({"a": tensor}) == before


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_sign_of_everything_is_noticed(rows):
    for tensor in (torch.zeros(rows * ROW // 4), torch.ones(rows * ROW // 4)):
        assert fingerprint({"a": tensor}) != fingerprint({"a": -tensor})


def test_values_that_move_between_tensors_are_noticed():
    a, b = values((5,), seed=0), values((5,), seed=1)
    assert fingerprint({"a": a, "b": b}) != fingerprint({"a": b, "b": a})
    joined, parted = {"a": torch.cat((a, b))}, {"a": a, "b": b}
    assert fingerprint(joined) != fingerprint(parted)


def test_names_types_and_shapes_are_noticed():
    a = torch.zeros(4, 6)
    others = [{"b": a}, {"a": a.view(6, 4)}, {"a": a.view(torch.int32)}, {"a": a, "b": a}, {}]
    prints = [fingerprint(named) for named in [{"a": a}, *others]]
    assert len(set(prints)) == len(prints)
    assert not any(changed(prints[0], other) for other in prints[1:])  # those can't be compared


def test_how_values_lie_does_not_matter():
    plain = weights()
    wide = torch.zeros(41)  # a view that begins in the middle of eight bytes
    wide[1:] = plain["norm.weight"]
    moved = dict(
        reversed(
            {
                **plain,
                "conv.weight": plain["conv.weight"].to(memory_format=torch.channels_last),
                "norm.weight": wide[1:],
                "norm.running_var": nn.Parameter(plain["norm.running_var"]),
            }.items()
        )
    )
    assert fingerprint(moved) == fingerprint(plain)
    with torch.inference_mode():
        assert fingerprint(plain) == fingerprint(moved)


def test_without_values_shapes_are_left():
    whole = weights()
    meta = {name: tensor.to("meta") for name, tensor in whole.items()}
    assert fingerprint(meta) == fingerprint({n: t + 1 for n, t in meta.items()})
    assert fingerprint(meta).split("-")[0] == fingerprint(whole).split("-")[0]
    assert not changed(fingerprint(whole), fingerprint(meta))
    assert not changed(fingerprint(meta), fingerprint(whole))
    assert compare_weights(weights_id(whole), weights_id(meta)) == "unknown"
    assert compare_weights(weights_id(meta), weights_id(whole)) == "unknown"


# ------------------------------------------------------------------------------ comparison


def cast(named: dict[str, torch.Tensor], *dtypes: torch.dtype) -> dict[str, torch.Tensor]:
    for dtype in dtypes:
        named = {n: t.to(dtype) if t.is_floating_point() else t for n, t in named.items()}
    return named


def through_json(about: dict) -> dict:
    return json.loads(json.dumps(about, allow_nan=False))


def compare(saved, here) -> str:
    verdict = compare_weights(through_json(weights_id(saved)), weights_id(here))
    assert compare_weights(weights_id(here), through_json(weights_id(saved))) == verdict
    return verdict


HALF = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
def test_the_same_weights(dtype):
    assert compare(cast(weights(), dtype), cast(weights(), dtype)) == "same"


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("full", [torch.float64, torch.float32])
def test_a_rounded_copy(dtype, full):
    whole = cast(weights(), full)
    assert compare(whole, cast(whole, dtype)) == "rounded"
    assert compare(whole, cast(whole, dtype, torch.float32)) == "rounded"  # rounded on the way
    assert compare(cast(whole, dtype), cast(whole, dtype, torch.float32)) == "rounded"
    part = {n: t if "norm" in n else t.to(dtype) for n, t in cast(whole, torch.float32).items()}
    assert compare(whole, part | {"norm.num_batches_tracked": torch.tensor(7)}) == "rounded"


def test_two_rounded_copies_of_one_model():
    assert compare(cast(weights(), torch.bfloat16), cast(weights(), torch.float16)) == "rounded"
    assert compare(cast(weights(), torch.float32), cast(weights(), torch.float64)) == "rounded"


@pytest.mark.parametrize("name", ["conv.weight", "norm.weight", "norm.running_var", "scale"])
@pytest.mark.parametrize(
    ("saved", "here"),
    [(torch.float32, here) for here in (torch.float32, *HALF)] + [(half, half) for half in HALF],
)
def test_one_other_value(name, saved, here):
    other = weights()
    other[name].view(-1)[-1] *= 1.01  # more than half-precision rounds away
    assert compare(cast(weights(), saved), cast(other, here)) == "other"


def test_of_two_roundings_a_tensor_that_differs_by_two_percent_or_in_order():
    """They share no digest, so a sketch has to tell."""
    saved, other = cast(weights(), torch.bfloat16), weights()
    other["conv.weight"] *= 1.02
    assert compare(saved, cast(other, torch.float16)) == "other"
    other["conv.weight"] = weights()["conv.weight"].flip(0, 3)
    assert compare(saved, cast(other, torch.float16)) == "other"


def test_a_change_below_half_precision_is_noticed_in_full_precision():
    other = weights()
    other["conv.weight"][0, 0, 0, 0] *= 1 + 1e-6
    assert compare(weights(), other) == "other"


def test_an_integer_buffer_counts():
    other = weights() | {"norm.num_batches_tracked": torch.tensor(8)}
    assert compare(weights(), other) == "other"
    assert compare(weights(), cast(other, torch.bfloat16)) == "other"


@pytest.mark.parametrize("saved", [torch.float32, *HALF])
@pytest.mark.parametrize("here", [torch.float32, *HALF])
def test_other_weights(saved, here):
    assert compare(cast(weights(0), saved), cast(weights(1), here)) == "other"
    more = weights() | {"more": torch.ones(2)}
    assert compare(cast(weights(), saved), cast(more, here)) == "other"


def test_values_that_are_not_finite():
    broken = weights()
    broken["conv.weight"][0, 0, 0, :2] = torch.tensor([float("nan"), float("inf")])
    assert compare(broken, broken) == "same"
    assert compare(broken, weights()) == "other"
