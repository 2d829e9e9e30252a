from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.nn import DecomposedHyperNetwork, HyperNetwork, TaskEmbedding

small = st.integers(1, 6)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)


@settings(deadline=None, max_examples=30)
@given(k=small, d=small, n=small, r=small, bias=st.booleans())
def test_decomposed_output_is_equation_3(k: int, d: int, n: int, r: int, bias: bool) -> None:
    hyper = DecomposedHyperNetwork(k, d, n, r, bias=bias, gain=3.0).double()
    randomise(hyper)
    v = torch.randn(k, dtype=torch.double)
    p = (hyper.p.weight @ v + (hyper.p.bias if bias else 0)).reshape(d, r) * 3 / k
    q = (hyper.q.weight @ v + (hyper.q.bias if bias else 0)).reshape(n, r) * 3 / k
    written_out = sum(torch.outer(p[:, i], q[:, i]) for i in range(r))
    assert_close(hyper(v), written_out)
    assert count(hyper) == (k + bias) * r * (d + n)


@settings(deadline=None, max_examples=30)
@given(k=small, d=small, n=small, bias=st.booleans())
def test_plain_output_is_equation_2(k: int, d: int, n: int, bias: bool) -> None:
    hyper = HyperNetwork(k, d, n, bias=bias, gain=3.0).double()
    randomise(hyper)
    v = torch.randn(k, dtype=torch.double)
    vector = (hyper.generator.weight @ v + (hyper.generator.bias if bias else 0)) * 3 / k
    for row in range(d):
        assert_close(hyper(v)[row], vector[row * n : (row + 1) * n])
    assert count(hyper) == (k + bias) * d * n


@pytest.mark.parametrize("hyper", [DecomposedHyperNetwork(5, 4, 3, 2), HyperNetwork(5, 4, 3)])
def test_a_batch_of_embeddings_gives_a_batch_of_weights(hyper: nn.Module) -> None:
    v = torch.randn(2, 3, 5)
    weights = hyper(v)
    assert weights.shape == (2, 3, 4, 3)
    for i in range(2):
        for j in range(3):
            assert_close(weights[i, j], hyper(v[i, j]))


@pytest.mark.parametrize("bias", [True, False])
def test_zeroed_hypernetworks_give_zero_and_can_wake(bias: bool) -> None:
    decomposed, plain = (
        DecomposedHyperNetwork(5, 4, 3, 2, bias=bias),
        HyperNetwork(5, 4, 3, bias=bias),
    )
    for hyper, last in ((decomposed, decomposed.q), (plain, plain.generator)):
        hyper.zero_()
        weight = hyper(torch.randn(5))
        assert torch.equal(weight, torch.zeros(4, 3))
        (weight * torch.randn(4, 3)).sum().backward()
        for parameter in last.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0


def test_an_embedding_is_one_vector() -> None:
    embedding = TaskEmbedding(7)
    assert embedding() is embedding.weight
    assert embedding.weight.shape == (7,)


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(HyperparameterError, match="rank is 0; pass a whole number from 1 up"):
        DecomposedHyperNetwork(5, 4, 3, 0)
    with pytest.raises(HyperparameterError, match="embedding_dim is 0; pass a whole number"):
        HyperNetwork(0, 4, 3)
    with pytest.raises(HyperparameterError, match=r"size is 2\.5; pass a whole number"):
        TaskEmbedding(2.5)  # type: ignore[arg-type]
    for hyper in (DecomposedHyperNetwork(5, 4, 3, 2), HyperNetwork(5, 4, 3)):
        with pytest.raises(ShapeError, match="HyperNetwork works on a last axis of 5"):
            hyper(torch.zeros(4))
