"""Sums added up in place are those added up term by term, gradients and their gradients too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from peft_dense.nn.scaled_sums import scaled_sums, scaled_sums_plain

FORMS = (scaled_sums, scaled_sums_plain)


def drawn(
    shape: tuple[int, ...], count: int, tasks: int, dtype: torch.dtype = torch.double
) -> tuple[list[Tensor], int, int]:
    """Draw a base, maps, shifts and scales, in one list of leaves."""
    shapes = [shape] * (1 + count) + [shape[-1:]] * (tasks + tasks * count)
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes], count, tasks


def run(form, leaves: list[Tensor], count: int, tasks: int) -> list[Tensor]:
    base, *rest = leaves
    maps, shifts, flat = rest[:count], rest[count : count + tasks], rest[count + tasks :]
    rows = [flat[t * count : (t + 1) * count] for t in range(tasks)]
    return form(base, maps, rows, shifts)


def is_fused(sums: list[Tensor]) -> bool:
    return "ScaledSums" in type(sums[0].grad_fn).__name__


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple),
    count=st.integers(1, 3),
    tasks=st.integers(1, 4),
    double=st.booleans(),
    data=st.data(),
)
def test_sums_and_gradients_are_those_of_the_plain_form(shape, count, tasks, double, data) -> None:
    dtype = torch.double if double else torch.float
    leaves, *sizes = drawn(shape, count, tasks, dtype)
    for leaf in leaves:
        leaf.requires_grad_(data.draw(st.booleans()))
    leaves[data.draw(st.integers(0, count))].requires_grad_()  # never nothing at all
    used = data.draw(st.sets(st.integers(0, tasks - 1), min_size=1))
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    outcomes = []
    for form in FORMS:
        sums = run(form, leaves, *sizes)
        loss = sum(sums[t].sin().sum() for t in used)
        # None, not zero, where the loss doesn't reach.
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        outcomes.append([[each.detach() for each in sums], list(gradients)])
        with torch.no_grad():
            assert_close(run(form, leaves, *sizes), outcomes[0][0])
    assert_close(*outcomes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [{0}, {1, 2}, {0, 1, 2}, {1}, {3, 4, 5}, {6, 7, 8, 9, 10, 11}])
def test_sums_have_the_widest_precision_of_all_that_they_sum(half: set[int]) -> None:
    leaves, *sizes = drawn((4, 5, 3), 2, 3, torch.float)
    for i, leaf in enumerate(leaves):
        if i in half:
            leaves[i] = leaf.detach().bfloat16().requires_grad_()
    outcomes = []
    for form in FORMS:
        sums = run(form, leaves, *sizes)
        gradients = torch.autograd.grad(sum(each.sin().sum() for each in sums), leaves)
        outcomes.append([*(each.detach() for each in sums), *gradients])
    assert is_fused(run(scaled_sums, leaves, *sizes))
    fast, plain = outcomes
    assert [each.dtype for each in fast] == [each.dtype for each in plain]
    assert fast[0].dtype == torch.float
    assert_close(fast, plain, rtol=1e-2, atol=1e-2)
    assert_close(fast[:3], plain[:3], rtol=1e-6, atol=1e-6)


def test_a_map_is_kept_in_its_own_precision() -> None:
    leaves, *sizes = drawn((40, 50, 3), 2, 5, torch.float)
    leaves[1:3] = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves[1:3]]
    kept: dict[int, int] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.setdefault(x.data_ptr(), x.nbytes) and x, lambda x: x
    ):
        sums = run(scaled_sums, leaves, *sizes)
    maps = sum(size for size in kept.values() if size >= 40 * 50 * 3 * 2)
    assert sums and maps == 2 * 40 * 50 * 3 * 2


def test_gradients_and_their_gradients_are_those_of_finite_differences() -> None:
    leaves, *sizes = drawn((2, 3, 2), 2, 3)

    def fast(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(scaled_sums, list(leaves), *sizes))

    assert is_fused(run(scaled_sums, leaves, *sizes))
    assert torch.autograd.gradcheck(fast, leaves)
    assert torch.autograd.gradgradcheck(fast, leaves)


@pytest.mark.parametrize("frozen", ["base", "maps", "vectors"])
def test_no_more_is_kept_than_by_the_plain_form(frozen: str) -> None:
    leaves, *sizes = drawn((4, 5, 3), 2, 3)
    parts = {"base": leaves[:1], "maps": leaves[1:3], "vectors": leaves[3:]}
    for leaf in parts[frozen]:
        leaf.requires_grad_(False)
    kept: list[list[Tensor]] = []
    for form in FORMS:
        kept.append([])
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: kept[-1].append(x) or x, lambda x: x
        ):
            run(form, leaves, *sizes)
    fast, plain = ({each.data_ptr(): each.nbytes for each in some} for some in kept)
    assert fast.items() <= plain.items()
    assert len(kept[0]) <= len(kept[1])


def test_inputs_are_left_as_they_were() -> None:
    leaves, *sizes = drawn((2, 3, 2), 2, 3)
    before = [leaf.detach().clone() for leaf in leaves]
    sums = run(scaled_sums, leaves, *sizes)
    weights = [torch.randn_like(each) for each in sums]
    copies = [weight.clone() for weight in weights]
    torch.autograd.backward(sums, weights)
    assert_close([leaf.detach() for leaf in leaves], before, rtol=0, atol=0)
    assert_close(weights, copies, rtol=0, atol=0)


def test_compilers_and_traces_get_the_plain_form() -> None:
    leaves, *sizes = drawn((2, 3, 2), 2, 2)

    def fast(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(scaled_sums, list(leaves), *sizes))

    want = fast(*leaves)
    traced = torch.jit.trace(fast, tuple(leaves))
    assert "ScaledSums" not in str(traced.graph)
    assert_close(traced(*leaves), want)
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    assert_close(compiled(*leaves), want)


def test_transforms_and_autocast_go_through() -> None:
    leaves, *sizes = drawn((2, 3, 2), 2, 2)
    inputs = tuple(leaf.detach() for leaf in leaves)

    def of(form):
        return lambda *leaves: tuple(run(form, list(leaves), *sizes))

    fast, plain = map(of, FORMS)
    tangents = tuple(map(torch.randn_like, inputs))
    stacked = [torch.stack([each, 2 * each]) for each in inputs]
    assert_close(torch.func.jvp(fast, inputs, tangents), torch.func.jvp(plain, inputs, tangents))
    assert_close(torch.func.vmap(fast)(*stacked), torch.func.vmap(plain)(*stacked))
    jacobians = [torch.func.jacrev(each)(*inputs) for each in (fast, plain)]
    assert_close(*jacobians)
    with torch.autograd.forward_ad.dual_level():
        pairs = zip(inputs, tangents, strict=True)
        dual = [torch.autograd.forward_ad.make_dual(*pair) for pair in pairs]
        pushed = [torch.autograd.forward_ad.unpack_dual(e(*dual)[1]).tangent for e in (fast, plain)]
    assert_close(*pushed)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(fast(*leaves), plain(*leaves))
