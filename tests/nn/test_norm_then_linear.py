"""A LayerNorm and a linear in one are the two one after the other, and keep one map less."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.testing import assert_close

from peft_dense.nn import VMTAdapter
from peft_dense.nn.norm_then_linear import norm_then_linear


def layers(
    features: int, out: int, bias: bool, dtype: torch.dtype
) -> tuple[nn.LayerNorm, nn.Linear]:
    norm = nn.LayerNorm(features, dtype=dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, nn.Linear(features, out, bias=bias, dtype=dtype)


def plain(x: Tensor, norm: nn.Module, linear: nn.Module) -> Tensor:
    return linear(norm(x))


def results(run, x: Tensor, norm: nn.Module, linear: nn.Module) -> list[Tensor | None]:
    given = x.clone().requires_grad_()
    norm.zero_grad()
    linear.zero_grad()
    y = run(given, norm, linear)
    y.pow(3).sum().backward()
    return [y.detach(), given.grad, *(p.grad for m in (norm, linear) for p in m.parameters())]


@settings(deadline=None, max_examples=40)
@given(
    features=st.integers(2, 9),
    out=st.integers(1, 5),
    batch=st.lists(st.integers(1, 3), max_size=3),
    bias=st.booleans(),
    double=st.booleans(),
)
def test_it_is_the_layers_one_by_one(
    features: int, out: int, batch: list[int], bias: bool, double: bool
) -> None:
    dtype = torch.double if double else torch.float
    norm, linear = layers(features, out, bias, dtype)
    x = torch.randn(*batch, features, dtype=dtype)
    exact = {} if double else {"rtol": 1e-3, "atol": 1e-3}
    one = results(norm_then_linear, x, norm, linear)
    assert_close(one, results(plain, x, norm, linear), **exact)


def test_without_gradients_the_layers_run_as_they_are() -> None:
    norm, linear = layers(64, 32, True, torch.float)
    x = torch.randn(100, 64)
    with torch.no_grad():
        assert torch.equal(norm_then_linear(x, norm, linear), plain(x, norm, linear))


def test_gradients_of_first_and_second_order() -> None:
    norm, linear = layers(5, 3, True, torch.double)
    x = torch.randn(2, 4, 5, dtype=torch.double, requires_grad=True)

    def run(x: Tensor, *_: Tensor) -> Tensor:
        return norm_then_linear(x, norm, linear)

    values = (*norm.parameters(), *linear.parameters())
    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values))


def kept(run, *given: object) -> int:
    """Bytes that autograd keeps for the backward, parameters left out."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = run(*given)
    del y
    return sum(sizes.values())


def test_one_map_is_kept_where_the_layers_keep_two() -> None:
    norm, linear = layers(16, 2, False, torch.float)
    x = torch.randn(1000, 16, requires_grad=True)
    one, two = kept(norm_then_linear, x, norm, linear), kept(plain, x, norm, linear)
    whole = x.numel() * x.element_size()
    assert two >= 2 * whole and one <= two - 0.9 * whole


def test_a_vmt_adapter_keeps_one_map_for_its_way_down() -> None:
    adapter, x = VMTAdapter(16, ["a"], ratio=8), torch.randn(1000, 16, requires_grad=True)
    whole = x.numel() * x.element_size()
    # the normalised map, the waist before and after ReLU, and vectors
    assert kept(adapter.latent, x) < 1.6 * whole


@pytest.mark.parametrize("why", ["hook on norm", "hook on linear", "another norm", "autocast"])
def test_what_more_the_layers_do_is_done(why: str) -> None:
    norm, linear = layers(5, 3, True, torch.float)
    calls = []
    if why == "hook on norm":
        norm.register_forward_hook(lambda *_: calls.append(1))
    elif why == "hook on linear":
        linear.register_forward_pre_hook(lambda *_: calls.append(1))
    elif why == "another norm":

        class Other(nn.LayerNorm):
            def forward(self, x: Tensor) -> Tensor:
                calls.append(1)
                return super().forward(x) + 1

        norm = Other(5)
    x = torch.randn(2, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        y = norm_then_linear(x, norm, linear)
        assert torch.equal(y, linear(norm(x)))
    assert bool(calls) == (why != "autocast")


def test_transforms_of_functions_go_through() -> None:
    norm, linear = layers(5, 3, True, torch.double)
    x, tangent = torch.randn(2, 4, 5, dtype=torch.double), torch.randn(2, 4, 5, dtype=torch.double)

    def one(x: Tensor) -> Tensor:
        return norm_then_linear(x, norm, linear)

    def two(x: Tensor) -> Tensor:
        return plain(x, norm, linear)

    assert_close(torch.func.jvp(one, (x,), (tangent,)), torch.func.jvp(two, (x,), (tangent,)))
    assert_close(torch.func.vmap(one)(x), torch.func.vmap(two)(x))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        pushed = [forward_ad.unpack_dual(each(dual)).tangent for each in (one, two)]
    assert_close(*pushed)
