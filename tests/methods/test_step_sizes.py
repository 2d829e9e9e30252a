"""Made weights move as far in a step as an adapter's own: the laws of the hypernetworks' constants.

Adam moves a weight by about its learning rate. A weight that a hypernetwork makes is a sum over a
whole embedding, and the embedding itself comes from a perceptron with hundreds of inputs; whether
the product of all that moves by the rate too is a matter of constants, and no equation says them.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from peft_dense import inject
from peft_dense.methods.hypernetworks import SPREAD, trunk
from peft_dense.nn import FanInLinear, GeneratedBottleneck, TaskEmbedding
from zoo import build

LR = 2e-3  # the common rate of docs/results.md


def rms(x: Tensor) -> float:
    return x.detach().pow(2).mean().sqrt().item()


def steps(make: Callable[[], Tensor], parameters: Iterable[nn.Parameter], number: int) -> None:
    """Let Adam follow a random linear loss of what is made."""
    optimizer = torch.optim.Adam(parameters, lr=LR)
    slope = torch.randn(make().shape)
    for _ in range(number):
        optimizer.zero_grad()
        (make() * slope).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("inputs", [1, 8, 64, 1024])
def test_a_step_moves_outputs_by_the_mean_of_the_inputs(inputs):
    torch.manual_seed(0)
    layer, x = FanInLinear(inputs, 40, gain=2.0), torch.randn(inputs)
    before = layer(x).detach()
    steps(lambda: layer(x), layer.parameters(), 1)
    expected = 2 * (x.abs().mean().item() + 1 / inputs) * LR
    assert rms(layer(x) - before) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("inputs", [32, 512, 1024])
@pytest.mark.parametrize("k", [8, 64, 256])
def test_a_step_hardly_turns_the_embedding_that_all_generators_read(k, inputs):
    torch.manual_seed(0)
    net, embedding = trunk(inputs, k), TaskEmbedding(inputs, std=SPREAD)
    before = net(embedding()).detach()
    steps(lambda: net(embedding()), [*net.parameters(), *embedding.parameters()], 1)
    assert rms(net(embedding()) - before) < 0.05


@functools.cache
def narrow() -> nn.Module:
    """A Swin of widths 16 to 128: scales 1, 2, 4 and 8."""
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32, window_size=2, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)
    ).eval()


class Run:
    """A backbone whose features follow a random linear loss, with what its branches are made of."""

    def __init__(self, net: nn.Module, name: str, **hyperparameters: object) -> None:
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of waists of one unit
            self.adapted = inject(net, name, tasks=("a", "b"), **hyperparameters).eval()
        self.optimizer = torch.optim.Adam([p for _, p in self.adapted.adapter_parameters()], lr=LR)
        size = 32 if net is narrow() else 64
        self.image = torch.randn(1, 3, size, size)
        self.start = self.features()
        self.slopes = [torch.randn(f.shape) for f in self.start]

    def features(self) -> list[Tensor]:
        return [f for fs in self.adapted(self.image).values() for f in fs]

    def step(self) -> None:
        self.optimizer.zero_grad()
        pairs = zip(self.features(), self.slopes, strict=True)
        sum((f * slope).mean() for f, slope in pairs).backward()
        self.optimizer.step()

    def moved(self) -> float:
        pairs = list(zip(self.features(), self.start, strict=True))
        return sum(rms(f - start) / rms(start) for f, start in pairs) / len(pairs)

    def made(self) -> list[dict[str, Tensor]]:
        branches = [m for m in self.adapted.modules() if isinstance(m, GeneratedBottleneck)]
        return [{k: w.detach().clone() for k, w in b.weights().items()} for b in branches]


def moves(before: list[dict[str, Tensor]], after: list[dict[str, Tensor]], part: str) -> float:
    """How far the made weights of all layers and tasks moved, in learning rates."""
    differences = [
        (new[part] - old[part]).flatten() for old, new in zip(before, after, strict=True)
    ]
    return rms(torch.cat(differences)) / LR


def check_moves(run: Run) -> None:
    start = run.made()
    run.step()
    first = run.made()
    assert 1 / 3 <= moves(start, first, "up") <= 3
    run.step()  # while nothing comes up, the way down has no gradient
    second = run.made()
    assert 1 / 3 <= moves(first, second, "down") <= 3
    assert 1 / 3 <= moves(first, second, "up") <= 3


@pytest.mark.parametrize("k", [8, 32, 64, 256])
@pytest.mark.parametrize("rank", [1, 4, 24])
@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("polyhistor", {"ratio": 2}),
        ("polyhistor", {"ratio": 2, "joint": True}),
        ("polyhistor_lite", {}),
        ("polyhistor_lite", {"literal": True}),
    ],
)
def test_a_step_moves_made_weights_by_about_the_rate(name, hyperparameters, rank, k):
    check_moves(Run(narrow(), name, k=k, rank=rank, **hyperparameters))


@pytest.mark.parametrize("k", [8, 64, 256])
@pytest.mark.parametrize("ratio", [1, 4, 16])
def test_a_step_moves_weights_made_entry_by_entry_by_about_the_rate(ratio, k):
    check_moves(Run(narrow(), "hyperformer", k=k, ratio=ratio))


@pytest.mark.parametrize("scale", range(4))
@pytest.mark.parametrize("literal", [False, True])
def test_weights_of_every_scale_move_by_about_the_rate(literal, scale):
    run = Run(narrow(), "polyhistor_lite", literal=literal)
    before = run.made()
    run.step()
    after = run.made()
    layer = slice(scale, None, 4)  # of both tasks
    assert 1 / 3 <= moves(before[layer], after[layer], "up") <= 3


HYPERNETWORKS = [
    ("hyperformer", {}),
    ("polyhistor", {}),
    ("polyhistor", {"joint": True}),
    ("polyhistor_lite", {}),
    ("polyhistor_lite", {"per_task_kernels": True}),
    ("polyhistor_lite", {"literal": True}),
]


@pytest.fixture(scope="module")
def adapter_moves() -> float:
    run = Run(build("swin"), "adapter")
    for _ in range(10):
        run.step()
    return run.moved()


@pytest.mark.parametrize(("name", "hyperparameters"), HYPERNETWORKS)
def test_features_move_about_as_fast_as_an_adapters(name, hyperparameters, adapter_moves):
    run = Run(build("swin"), name, **hyperparameters)
    for _ in range(10):
        run.step()
    assert adapter_moves / 5 < run.moved() < 5 * adapter_moves


@pytest.mark.parametrize(("name", "hyperparameters"), HYPERNETWORKS)
def test_a_step_does_not_redraw_the_weights(name, hyperparameters):
    """The second step: at the first, what reads the embeddings has no gradient."""
    run = Run(build("swin"), name, **hyperparameters)
    run.step()
    before = run.made()
    run.step()
    for old, new in zip(before, run.made(), strict=True):
        assert rms(new["down"] - old["down"]) < 0.2 * rms(old["down"])
