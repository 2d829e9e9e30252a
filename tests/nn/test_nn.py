"""Laws that every layer keeps: a new one gets them by a line in ``LAYERS``."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

import peft_dense.nn
from peft_dense.errors import HyperparameterError
from peft_dense.nn import (
    Bottleneck,
    ConvpassAdapter,
    DecomposedHyperNetwork,
    HyperNetwork,
    KroneckerLinear,
    LayerwiseScalingKernel,
    LowRank,
    LowRankLinear,
    MonaAdapter,
    Prompts,
    ScaleShift,
    VectorScalingKernel,
    VMTAdapter,
)

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "bottleneck": (lambda: Bottleneck(12, 6), (5, 12)),
    "bottleneck, norm in": (lambda: Bottleneck(12, 6, norm="in"), (5, 12)),
    "bottleneck, norm out": (lambda: Bottleneck(12, 6, norm="out", activation="gelu"), (5, 12)),
    "bottleneck, low rank": (
        lambda: Bottleneck(12, 6, linear=partial(LowRank, rank=2)),
        (5, 12),
    ),
    "bottleneck, kronecker": (
        lambda: Bottleneck(12, 6, linear=partial(KroneckerLinear, n=3, rank=1)),
        (5, 12),
    ),
    "decomposed hypernetwork": (lambda: DecomposedHyperNetwork(5, 8, 6, 3), (2, 5)),
    "hypernetwork": (lambda: HyperNetwork(5, 8, 6), (2, 5)),
    "kronecker": (lambda: KroneckerLinear(12, 6, 3), (4, 12)),
    "kronecker, rank 1": (lambda: KroneckerLinear(12, 6, 3, rank=1), (4, 12)),
    "low rank": (lambda: LowRank(12, 6, 2), (4, 12)),
    "lora": (lambda: LowRankLinear(nn.Linear(12, 6), 2), (4, 12)),
    "lora on a convolution, norm": (
        lambda: LowRankLinear(nn.Conv2d(12, 6, 1), 2, norm=True),
        (2, 12, 3, 3),
    ),
    "scale and shift": (lambda: ScaleShift(12), (4, 12)),
    "scaling kernel": (lambda: LayerwiseScalingKernel(3), (3, 4, 5)),
    "vector scaling kernel": (lambda: VectorScalingKernel(3), (3, 4)),
    "vmt": (lambda: VMTAdapter(12, [], ratio=2), (5, 12)),
    "vmt lite": (lambda: VMTAdapter(12, [], ratio=2, m=3), (5, 12)),
}


COUNTED: dict[str, Callable[[object], nn.Module]] = {
    "width": lambda value: Bottleneck(12, value),
    "embedding_dim": lambda value: HyperNetwork(value, 8, 6),
    "embedding_dim ": lambda value: DecomposedHyperNetwork(value, 8, 6, 3),
    "rank": lambda value: DecomposedHyperNetwork(5, 8, 6, value),
    "rank ": lambda value: LowRank(12, 6, value),
    "rank  ": lambda value: LowRankLinear(nn.Linear(12, 6), value),
    "rank   ": lambda value: KroneckerLinear(12, 6, 3, rank=value),
    "n": lambda value: KroneckerLinear(12, 6, value),
    "scale": lambda value: LayerwiseScalingKernel(value),
    "scale ": lambda value: VectorScalingKernel(value),
    "count": lambda value: Prompts(value, 12),
    "features": lambda value: Prompts(5, value),
    "ratio": lambda value: VMTAdapter(12, [], ratio=value),
    "m": lambda value: VMTAdapter(12, [], ratio=2, m=value),
    "width ": lambda value: ConvpassAdapter(12, value),
    "width  ": lambda value: MonaAdapter(12, value),
}
"""What a layer counts, by its name (blanks tell layers apart), and the layer made with it."""


@pytest.mark.parametrize("given", [0, -1, 1.5, "2", True])
@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted_is_a_whole_number_and_named(name: str, given: object) -> None:
    with pytest.raises(HyperparameterError, match=f"^{name.strip()} is {given!r}"):
        COUNTED[name](given)


def signs(size: int) -> torch.Tensor:
    """Draw an embedding whose mean square is 1."""
    return torch.randn(size).sign()


ZEROABLE = [name for name, (build, _) in LAYERS.items() if hasattr(build(), "zero_")]
GENERATED = {  # the variance that nn.Linear would give the weight: 1 / (3 in)
    "decomposed hypernetwork": lambda: DecomposedHyperNetwork(16, 48, 24, 6)(signs(16)),
    "hypernetwork": lambda: HyperNetwork(16, 48, 24)(signs(16)),
    "kronecker": lambda: KroneckerLinear(48, 24, 4).weight,
    "kronecker, rank 2": lambda: KroneckerLinear(48, 24, 4, rank=2).weight,
    "low rank": lambda: LowRank(48, 24, 6).weight,
    "linear": lambda: nn.Linear(48, 24).weight,
}


def draw(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Build a layer away from its start, and an input."""
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    layer = build()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return layer, torch.randn(shape)


def test_the_public_names_are_sorted_and_there() -> None:
    names = peft_dense.nn.__all__
    assert names == sorted(names)
    assert all(callable(getattr(peft_dense.nn, name)) for name in names)


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    layer, x = draw(name)
    y = layer(x)
    (y * torch.randn_like(y)).sum().backward()
    for parameter_name, parameter in layer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", LAYERS)
def test_copies_pickles_and_state_dicts_commute_with_forward(name: str) -> None:
    layer, x = draw(name)
    loaded = LAYERS[name][0]()
    loaded.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_modes_change_nothing(name: str) -> None:
    layer, x = draw(name)
    assert torch.equal(layer.train()(x), layer.eval()(x))


@pytest.mark.parametrize("name", ZEROABLE)
def test_a_zeroed_layer_gives_zero_and_can_wake(name: str) -> None:
    layer, x = draw(name)
    layer.zero_()  # type: ignore[operator]
    y = layer(x)
    assert torch.equal(y, torch.zeros_like(y))
    (y * torch.randn_like(y)).sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


@pytest.mark.parametrize("name", GENERATED)
def test_weights_start_with_the_variance_of_a_linear_layers(name: str) -> None:
    torch.manual_seed(0)
    weights = torch.stack([GENERATED[name]() for _ in range(200)])
    assert weights.mean().item() == pytest.approx(0, abs=0.005)
    assert weights.var().item() == pytest.approx(1 / (3 * 48), rel=0.1)
