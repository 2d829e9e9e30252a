"""LoRA's and DoRA's one product is what their layers do one after the other, gradients too."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.testing import assert_close

from peft_dense.nn import DoRALinear, LowRankLinear

LAYERS = (LowRankLinear, DoRALinear)


def made(
    kind: type[LowRankLinear], widths: tuple[int, int], rank: int, bias: bool, dtype: torch.dtype
) -> LowRankLinear:
    layer = kind(nn.Linear(*widths, bias=bias, dtype=dtype), rank, alpha=3.0)
    nn.init.normal_(layer.up)
    return layer


def results(run, layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor | None]:
    """Give output and gradients: of the input, of all factors, of the base."""
    layer.zero_grad()
    given = x.clone().requires_grad_()
    y = run(given)
    y.square().sum().backward()
    return [y.detach(), given.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("kind", LAYERS)
@settings(deadline=None, max_examples=40)
@given(
    widths=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    batch=st.lists(st.integers(1, 3), max_size=3),
    bias=st.booleans(),
    frozen=st.booleans(),
    double=st.booleans(),
)
def test_one_product_is_the_layers_one_by_one(
    kind: type[LowRankLinear],
    widths: tuple[int, int],
    batch: list[int],
    bias: bool,
    frozen: bool,
    double: bool,
) -> None:
    dtype = torch.double if double else torch.float
    layer = made(kind, widths, min(widths), bias, dtype)
    layer.base.requires_grad_(not frozen)
    x = torch.randn(*batch, widths[0], dtype=dtype)
    fused, plain = results(layer, layer, x), results(layer.forward_plain, layer, x)
    exact = {} if double else {"rtol": 1e-3, "atol": 1e-3}
    assert_close(fused, plain, **exact)
    with torch.no_grad():
        assert_close(layer(x), plain[0], **exact)


def test_a_half_precision_weight_does_not_round_the_update_away() -> None:
    layer = LowRankLinear(nn.Linear(8, 4, bias=False), 1, alpha=1.0).bfloat16()
    with torch.no_grad():
        layer.base.weight.copy_(torch.tensor([1.0, -1.0]).repeat(4, 4))
        layer.down.fill_(1.0)
        layer.up.fill_(2.0**-12)
        y = layer(torch.ones(50, 8, dtype=torch.bfloat16))
    assert_close(y, torch.full_like(y, 8 * 2.0**-12))


def test_autocast_does_not_round_the_update_away() -> None:
    layer = LowRankLinear(nn.Linear(8, 4, bias=False), 1, alpha=1.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer.base.weight.copy_(torch.tensor([1.0, -1.0]).repeat(4, 4))
        layer.down.fill_(1.0)
        layer.up.fill_(2.0**-12)
        y = layer(torch.ones(50, 8))
    assert_close(y, torch.full_like(y, 8 * 2.0**-12))


@pytest.mark.parametrize("kind", LAYERS)
def test_an_export_takes_few_tokens_and_many(kind: type[LowRankLinear]) -> None:
    """Which form is the cheaper one depends on their number, and must not be written into it."""
    layer, tokens = made(kind, (8, 8), 2, True, torch.float), torch.export.Dim("tokens", min=2)
    program = torch.export.export(layer, (torch.randn(3, 8),), dynamic_shapes=({0: tokens},))
    for number in (2, 50):
        x = torch.randn(number, 8)
        assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_and_their_gradients_are_those_of_finite_differences(
    kind: type[LowRankLinear],
) -> None:
    layer = made(kind, (3, 4), 2, True, torch.double)
    names = [n for n, _ in layer.named_parameters()]
    if kind is DoRALinear:  # no gradient goes through the norm: hold what it depends on
        names = ["base.bias", "magnitude"]
    x = torch.randn(5, 3, dtype=torch.double, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = [dict(layer.named_parameters())[n].detach().clone().requires_grad_() for n in names]
    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values))


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_gradients_are_those_of_the_layers(kind: type[LowRankLinear]) -> None:
    layer = made(kind, (3, 4), 2, True, torch.double)
    x = torch.randn(5, 3, dtype=torch.double, requires_grad=True)

    def second(run) -> tuple[torch.Tensor, ...]:
        wanted = (x, *layer.parameters())
        first = torch.autograd.grad(run(x).pow(3).sum(), wanted, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), wanted)

    assert_close(second(layer), second(layer.forward_plain))


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_go_through_vmap_and_autocast(kind: type[LowRankLinear]) -> None:
    layer, x = made(kind, (6, 8), 2, True, torch.float), torch.randn(3, 5, 6)
    assert_close(torch.func.vmap(layer)(x), layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer(x).float(), layer.forward_plain(x).float(), rtol=0.05, atol=0.05)
        layer(x).float().sum().backward()
    assert layer.down.grad is not None


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_run_on_the_meta_device(kind: type[LowRankLinear]) -> None:
    layer = made(kind, (6, 8), 2, True, torch.float).to("meta")
    for tokens in (1, 50):
        assert layer(torch.empty(tokens, 6, device="meta")).shape == (tokens, 8)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_hook_of_the_base_is_heard(kind: type[LowRankLinear]) -> None:
    layer, x = made(kind, (6, 8), 2, True, torch.float), torch.randn(5, 6)
    hooked, heard = copy.deepcopy(layer), []
    hooked.base.register_forward_hook(lambda *_: heard.append(1))
    assert_close(hooked(x), layer(x))
    assert heard == [1]


@pytest.mark.parametrize("kind", LAYERS)
def test_forward_mode_derivatives_go_through_the_layers(kind: type[LowRankLinear]) -> None:
    layer, x = made(kind, (4, 3), 2, True, torch.double), torch.randn(50, 4, dtype=torch.double)
    tangent = torch.randn_like(x)
    found = torch.func.jvp(layer, (x,), (tangent,))
    assert_close(found, torch.func.jvp(layer.forward_plain, (x,), (tangent,)))
    with forward_ad.dual_level():
        pushed = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))).tangent
    assert_close(pushed, found[1])
