"""What is put on a module joins its output, and the module itself doesn't notice."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from peft_dense import Family, inject
from peft_dense.backbones import (
    add_after,
    add_beside,
    branch_at,
    branch_name,
    examine,
    replace_branch,
    take_off,
    transform_output,
)
from peft_dense.backbones.edit import AdapterTree
from peft_dense.errors import UnsupportedModelError
from zoo import image


class Twice(nn.Sequential):
    """A feed-forward part in which one activation object stands twice (A2)."""

    def __init__(self) -> None:
        act = nn.GELU()
        super().__init__(nn.Conv2d(8, 16, 1), act, nn.Conv2d(16, 8, 1), act)


class Iterating(nn.Sequential):
    """One that runs, counts and indexes its own children (A2)."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 8, 1))

    def forward(self, x):
        assert len(self) == 3
        for layer in self:
            x = layer(x)
        return self[-1](self[0](x)) + x


class Net(nn.Module):
    def __init__(self, part: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.mlp = part()

    def forward(self, x):
        x = self.stem(x)
        return [x + self.mlp(x)]


@pytest.mark.parametrize("part", [Twice, Iterating])
@pytest.mark.parametrize("name", ["shared_adapter", "vmt_lite", "lora"])
def test_a_sequential_runs_as_it_did(part, name):
    torch.manual_seed(0)
    net = Net(part).eval()
    options = {"targets": ("fc1", "fc2")} if name == "lora" else {}
    adapted = inject(net, name, tasks=["a"], **options)
    torch.testing.assert_close(adapted(image())["a"][0], net(image())[0])
    with torch.no_grad():
        for _, parameter in adapted.adapter_parameters():
            parameter.add_(0.3)
    assert not torch.allclose(adapted(image())["a"][0], net(image())[0])


@pytest.fixture
def path_and_site():
    torch.manual_seed(0)
    net = Net(Twice).eval()
    info = examine(net, Family())
    return copy.deepcopy(net), info.sites[0]


def test_beside_reads_the_input_and_after_the_output(path_and_site):
    path, site = path_and_site
    x = torch.randn(2, 8, 5, 4)
    plain = path.mlp(x)
    scale = Scale(3.0)
    other = copy.deepcopy(path)
    add_beside(path, site, scale)
    torch.testing.assert_close(path.mlp(x), plain + 3 * x)
    add_after(other, site, scale)
    torch.testing.assert_close(other.mlp(x), plain + 3 * plain)
    transform_output(other, "stem", Scale(0.5), 1)
    image_ = image()
    torch.testing.assert_close(other.stem(image_), 0.5 * path.stem(image_))


class Scale(nn.Module):
    """Scales the last axis, the first entry twice as much: so a wrong axis shows."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        assert x.shape[-1] == 8, "channels come last"
        return x * self.factor


def test_a_branch_can_be_found_replaced_and_taken_off(path_and_site):
    path, site = path_and_site
    x = torch.randn(2, 8, 5, 4)
    plain, keys = path.mlp(x), list(path.state_dict())
    path.mlp.register_forward_hook(count)
    add_beside(path, site, Scale(3.0))
    assert branch_at(path, site) is path.get_submodule(branch_name(site))
    replace_branch(path, site, Scale(-1.0))
    torch.testing.assert_close(path.mlp(x), plain - x)
    for copied in (copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
        torch.testing.assert_close(copied.mlp(x), plain - x)
        with torch.no_grad():
            branch_at(copied, site).factor.fill_(0.0)
        torch.testing.assert_close(copied.mlp(x), plain)
    torch.testing.assert_close(path.mlp(x), plain - x)
    CALLS.clear()
    take_off(path, site)
    assert torch.equal(path.mlp(x), plain)
    assert CALLS == [1]
    assert list(path.state_dict()) == keys


CALLS: list[int] = []


def count(*_) -> None:
    CALLS.append(1)


def test_a_place_takes_one_branch(path_and_site):
    path, site = path_and_site
    add_beside(path, site, Scale(1.0))
    with pytest.raises(UnsupportedModelError, match="a branch at 'mlp' already.*takes one"):
        add_after(path, site, Scale(1.0))
    assert isinstance(path.adapters, AdapterTree)
    path.mlp._forward_hooks.clear()
    with pytest.raises(UnsupportedModelError, match="branch at 'mlp' is gone; inject anew"):
        replace_branch(path, site, Scale(2.0))


def test_the_names_of_the_backbone_are_not_taken(path_and_site):
    path, site = path_and_site
    path.adapters = nn.ModuleList()
    with pytest.raises(UnsupportedModelError, match="'adapters' already.*rename"):
        add_beside(path, site, Scale(1.0))
