"""Convpass's and Mona's layers against their equations, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.layout import join_map, split_map
from peft_dense.nn import ConvpassAdapter, MonaAdapter

close = torch.testing.assert_close
GRIDS = [(4, 4), (3, 5), (1, 2)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)
every_prefix = pytest.mark.parametrize("prefix", [0, 1, 3])
every_layer = pytest.mark.parametrize("layer", [ConvpassAdapter, MonaAdapter])


def awake(branch: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in branch.parameters():
        nn.init.normal_(parameter)
    return branch.double()


def tokens(prefix: int, grid: tuple[int, int], channels: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (2, prefix + math.prod(grid), channels)
    return torch.randn(shape, generator=generator, dtype=torch.double)


def convolve(pixels: dict[tuple[int, int], Tensor], conv: nn.Conv2d) -> dict:
    """The sum over each pixel's neighbours, one by one; what isn't there counts as zero."""
    reach, results = conv.kernel_size[0] // 2, {}
    for row, column in pixels:
        total = conv.bias.expand_as(next(iter(pixels.values())))
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                neighbour = pixels.get((row + down, column + right))
                if neighbour is None:
                    continue
                weight = conv.weight[:, :, reach + down, reach + right]
                depthwise = conv.groups > 1
                total = total + (neighbour * weight[:, 0] if depthwise else neighbour @ weight.T)
        results[row, column] = total
    return results


def lay_out(x: Tensor, grid: tuple[int, int]) -> tuple[list[Tensor], dict]:
    """Tokens before the map's, and each pixel's (B, C) by its row and column."""
    before = x.shape[1] - math.prod(grid)
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    pixels = {place: x[:, before + i] for i, place in enumerate(places)}
    return [x[:, i] for i in range(before)], pixels


def quick_gelu(u: Tensor) -> Tensor:
    return u / (1 + torch.exp(-1.702 * u))


@every_prefix
@every_grid
def test_convpass_is_its_equation(prefix, grid):
    branch, x = awake(ConvpassAdapter(6, 3, scale=0.7)), tokens(prefix, grid)
    waist = quick_gelu(x @ branch.down.weight.T + branch.down.bias)
    alone, pixels = lay_out(waist, grid)
    convolved = [convolve({(0, 0): token}, branch.conv)[0, 0] for token in alone]
    convolved += convolve(pixels, branch.conv).values()
    expected = quick_gelu(torch.stack(convolved, 1)) @ branch.up.weight.T + branch.up.bias
    close(branch(x, grid), 0.7 * expected)


@every_prefix
@every_grid
def test_mona_is_its_equation_and_adds_nothing_to_class_tokens(prefix, grid):
    branch, x = awake(MonaAdapter(6, 4)), tokens(prefix, grid)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    normed = (x - mean) / (variance + 1e-5).sqrt() * branch.norm.weight + branch.norm.bias
    u = branch.norm_scale * normed + branch.input_scale * x
    _, pixels = lay_out(u @ branch.down.weight.T + branch.down.bias, grid)
    filtered = [convolve(pixels, conv) for conv in branch.filters]
    pixels = {at: v + sum(each[at] for each in filtered) / 3 for at, v in pixels.items()}
    mixed = convolve(pixels, branch.mix)
    stacked = torch.stack([v + mixed[at] for at, v in pixels.items()], 1)
    expected = F.gelu(stacked) @ branch.up.weight.T + branch.up.bias
    result = branch(x, grid)
    close(result[:, prefix:], expected)
    assert not result[:, :prefix].any()


@every_layer
@every_grid
def test_a_map_gives_what_its_tokens_give(layer, grid):
    branch, x = awake(layer(6)), tokens(0, grid)
    close(branch(x.unflatten(1, grid), grid).flatten(1, 2), branch(x, grid))


@every_layer
def test_a_branch_starts_silent_and_can_wake(layer):
    branch, x = layer(6), tokens(1, (3, 5)).float()
    assert torch.equal(branch(x, (3, 5)), torch.zeros_like(x))
    (branch(x, (3, 5)) * torch.randn(x.shape)).sum().backward()
    assert branch.up.weight.grad.any() and branch.up.bias.grad.any()


def test_the_originals_starts():
    mona = MonaAdapter(6)
    assert torch.equal(mona.input_scale, torch.ones(6))
    close(mona.norm_scale.detach(), torch.full((6,), 1e-6))
    assert [conv.kernel_size[0] for conv in mona.filters] == [3, 5, 7]
    assert all(conv.groups == 64 for conv in mona.filters)
    convpass = ConvpassAdapter(600)
    bounds = {convpass.down: (600 + 8), convpass.conv: 2 * 9 * 8}  # Xavier: sqrt(6 / (in + out))
    for part, fans in bounds.items():
        bound = math.sqrt(6 / fans)
        assert 0.9 * bound < part.weight.abs().max() <= bound
        assert not part.bias.any()


@pytest.mark.parametrize("channels", [1, 6, 13])
def test_the_counts_are_the_formulas(channels):
    def count(branch: nn.Module) -> int:
        return sum(p.numel() for p in branch.parameters())

    assert count(ConvpassAdapter(channels)) == 2 * 8 * channels + channels + 2 * 8 + 9 * 64
    assert count(MonaAdapter(channels)) == 133 * channels + 9728


@every_layer
def test_bad_input_is_refused(layer):
    branch = layer(6)
    with pytest.raises(ShapeError, match="last axis of 6 channels"):
        branch(torch.zeros(2, 15, 5), (3, 5))
    with pytest.raises(ShapeError, match="a 3 x 6 map needs"):
        branch(torch.zeros(2, 15, 6), (3, 6))
    with pytest.raises(ShapeError, match="a 5 x 3 map needs"):
        branch(torch.zeros(2, 3, 5, 6), (5, 3))
    with pytest.raises(HyperparameterError, match="width is 0"):
        layer(6, 0)


@every_prefix
@every_grid
def test_split_and_join_undo_each_other(prefix, grid):
    x = tokens(prefix, grid)
    before, laid = split_map(x, *grid)
    assert laid.shape == (2, 6, *grid)
    assert (before is None) if prefix == 0 else torch.equal(before, x[:, :prefix])
    assert torch.equal(laid[:, :, 0, -1], x[:, prefix + grid[1] - 1])
    assert torch.equal(join_map(before, laid, flat=True), x)
    as_map = x[:, prefix:].unflatten(1, grid)
    assert torch.equal(join_map(*split_map(as_map, *grid), flat=False), as_map)
