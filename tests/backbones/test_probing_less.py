"""The probe leaves out work, not knowledge: what it skips would have told the same."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from peft_dense.backbones import examine, forwards
from peft_dense.backbones.clone import empty_containers
from peft_dense.backbones.depending import depended_on
from peft_dense.backbones.recall import Recall
from peft_dense.errors import UnsupportedModelError
from zoo import BACKBONES, build


def kinds(*tensors: torch.Tensor):
    return [
        (t.shape, t.stride(), t.storage_offset(), t.dtype, t.device.type, t.requires_grad)
        for t in tensors
    ]


class Forgetful(Recall):
    """Runs every operation."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Checked(Recall):
    """Runs every operation that writes nothing as well, and notes where that gives another kind."""

    wrong: ClassVar[list[str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = super().__torch_dispatch__(func, types, args, kwargs)
        if not func._schema.is_mutable:
            ran = func(*args, **(kwargs or {}))
            one, other = (kinds(*filter(torch.is_tensor, tree_leaves(o))) for o in (given, ran))
            if one != other or type(given) is not type(ran):
                self.wrong.append(f"{func} gave {one} instead of {other}")
        return given


@pytest.mark.parametrize("family", BACKBONES)
def test_the_probe_finds_the_same_where_every_operation_runs(family, monkeypatch):
    model = build(family)
    Checked.wrong.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = examine(model)
        for mode in (Forgetful, Checked):
            monkeypatch.setattr(forwards, "Recall", mode)
            assert examine(model) == info
    assert not Checked.wrong


# ------------------------------------------------------------------ operations that ran before


def meta(*shape: int, **keywords):
    return torch.empty(*shape, device="meta", **keywords)


OPERATIONS = (
    lambda x: x.new_empty(3, 4, dtype=torch.int64) + x.new_empty(3, 4, dtype=torch.int64),
    lambda x: x.new_empty(3, dtype=torch.int64) + 1,
    lambda x: x.new_empty(3, dtype=torch.int64) + 1.0,
    lambda x: x.half() + torch.tensor(1.0, dtype=torch.float64),
    lambda x: x.half() + x.new_empty(3, 4, dtype=torch.float64),
    lambda x: x + x,
    lambda x: x * x[0],
    lambda x: x.mT @ x,
    lambda x: x.mT + x.new_empty(4, 3),
    lambda x: x.new_empty(4, 3) + x.mT,
    lambda x: F.gelu(x.mT),
    lambda x: F.gelu(x.new_empty(4, 3)),
    lambda x: F.linear(x, x, x[:, 0]),
    lambda x: F.linear(x[:2], x, x[:, 0]),
    lambda x: F.layer_norm(x, (4,)),
    lambda x: F.layer_norm(x, (3, 4)),
    lambda x: F.layer_norm(x.mT.contiguous().mT, (4,)),
    lambda x: F.batch_norm(x, x[0].detach(), x[0].detach()),
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: x.max(1).values,
    lambda x: torch.cat([x, x, x[:1]]),
    lambda x: torch.stack(x.mul(2).unbind(1)),
    lambda x: torch.roll(x, (1, 2), (0, 1)),
    lambda x: torch.var_mean(x, 1)[1],
    lambda x: x.mul(2).sum(),
    lambda x: x * x.sum(),
    lambda x: x * 2j,
    lambda x: x.mean(1),
    lambda x: x.mean(0),
    lambda x: x.mean(1, keepdim=True),
    lambda x: x.mean(1, dtype=torch.float64),
    lambda x: F.normalize(x),
    lambda x: torch.linalg.vector_norm(x, dim=0),
    lambda x: torch.linalg.vector_norm(x, dim=0, dtype=torch.float64),
    lambda x: F.conv1d(x, x[:, :3, None], stride=1),
    lambda x: F.conv1d(x, x[:, :3, None], stride=2),
    lambda x: F.conv1d(x, x[:, :3, None], padding=1),
)


def test_what_operations_give_again_is_what_they_gave():
    x = meta(3, 4, requires_grad=True)
    expected = [kinds(operation(x)) for operation in OPERATIONS]
    with Recall():
        for _ in range(3):
            assert [kinds(operation(x)) for operation in OPERATIONS] == expected


def test_the_default_type_counts():
    whole = meta(3, dtype=torch.int64)
    given = []
    with Recall():
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            try:
                given.append((whole + 1.0).dtype)
            finally:
                torch.set_default_dtype(torch.float32)
    assert given == [torch.float32, torch.float64]


def test_numbers_that_are_equal_are_not_of_one_type():
    whole = meta(3, dtype=torch.int64)
    with Recall():
        assert [(whole + one).dtype for one in (1, 1.0, True)] == [
            torch.int64,
            torch.float32,
            torch.int64,
        ]


def test_an_operation_gives_a_tensor_of_its_own_each_time():
    x = meta(3)
    with Recall():
        _, first, again = (x * 2 for _ in range(3))
        first.add_(1)
        view = x.view(3, 1)
    assert (first._version, again._version) == (1, 0)
    assert view._base is x


def test_what_gives_its_input_gives_it_again():
    x = meta(3)
    with Recall(), torch.inference_mode():  # there `dropout` is one operation
        assert [F.dropout(x, 0.5, training=False) is x for _ in range(3)] == [True] * 3


def test_operations_of_others_run_each_time():
    sizes = iter((2, 3))
    with torch.library._scoped_library("probing_less", "DEF") as library:
        library.define("changing(Tensor x) -> Tensor")
        library.impl("changing", lambda x: x.new_empty(next(sizes)), "Meta")
        with Recall():
            changing = torch.ops.probing_less.changing
            assert [changing(meta(1)).shape[0] for _ in range(2)] == [2, 3]


def test_values_are_computed():
    with Recall():
        assert [float(torch.tensor([a]) * 2) for a in (1.0, 2.0)] == [2.0, 4.0]


def test_what_fails_fails_again():
    with Recall():
        for _ in range(2):
            with pytest.raises(RuntimeError):
                meta(3, 4) @ meta(3, 4)


class Shy(nn.Module):
    """Has an operation for which a mode of dispatch has no rule, as torch's scans have had."""

    def __init__(self, error=NotImplementedError) -> None:
        super().__init__()
        self.stem, self.next, self.error = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 8, 2, 2), error

    def forward(self, x):
        if _get_current_dispatch_mode() is not None:
            raise self.error("no rule for this mode")
        x = self.stem(x)
        return [x, self.next(x)]


@pytest.mark.parametrize("error", [NotImplementedError, RecursionError, ValueError])
def test_what_fails_under_recall_runs_without(error):
    assert examine(Shy(error)).reductions == (4, 8)


# ------------------------------------------------------------------ what outputs depend on


class Half(torch.autograd.Function):
    """Gives no gradient to its second input."""

    @staticmethod
    def forward(ctx, x, unused):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class HalfInPlace(Half):
    """The same, and writes into its first input."""

    @staticmethod
    def forward(ctx, x, unused):
        ctx.mark_dirty(x)
        return x.mul_(2)


def into_a_view(net, x):
    x = x.clone()
    HalfInPlace.apply(x[0], net.scale)
    return x


class Net(nn.Module):
    """Parameters that are read in many ways, and two that are not."""

    def __init__(self, read=lambda self, x: x) -> None:
        super().__init__()
        self.stem, self.tail = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 1)
        self.cut, self.scale = nn.Conv2d(4, 4, 1), nn.Parameter(torch.ones(4))
        self.read = read

    def forward(self, x):
        x = self.stem(x)
        return [self.read(self, x), self.tail(x)]


@pytest.mark.parametrize(
    "read",
    [
        lambda net, x: x + net.cut(x).detach(),
        lambda net, x: x * net.scale.view(4, 1, 1),
        lambda net, x: x * (net.scale.view(4, 1, 1) > 0),
        lambda net, x: torch.where(x > 0, net.cut(x), x),
        lambda net, x: Half.apply(net.cut(x), net.scale),
        into_a_view,
        lambda net, x: x.clone().mul_(0) + net.scale.sum(),
        lambda net, x: checkpoint(net.cut, x, use_reentrant=False),
        lambda net, x: net.cut(x).chunk(2, 1)[0],
    ],
)
def test_dependence_is_what_a_backward_says(read):
    net = Net(read)
    outputs = net(torch.randn(1, 3, 8, 8))
    named = dict(net.named_parameters())
    total = sum(output.sum() for output in outputs)
    grads = torch.autograd.grad(total, [*named.values()], allow_unused=True, retain_graph=True)
    expected = {name for name, grad in zip(named, grads, strict=True) if grad is not None}
    assert depended_on(outputs, named) == expected
    assert set(examine(net).parameters) == set(depended_on([outputs[0], outputs[1]], named))


def test_an_output_that_is_a_parameter_depends_on_it():
    net = nn.Linear(2, 2)
    assert depended_on([net.weight, net.bias.detach()], dict(net.named_parameters())) == {"weight"}


def test_nothing_depends_on_what_is_frozen():
    net = Net(lambda net, x: Half.apply(net.cut(x), net.scale))
    net.cut.requires_grad_(False)
    named = dict(net.named_parameters())
    for outputs in (net(torch.randn(1, 3, 8, 8)), [net.tail(torch.randn(1, 4, 2, 2))]):
        assert not {"cut.weight", "cut.bias"} & depended_on([*outputs, net.cut.bias], named)


def test_stages_without_parameters_are_refused():
    class Still(Net):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(UnsupportedModelError, match="depend on none of its parameters"):
        examine(Still())


# ------------------------------------------------------------------ copies


def test_empty_containers_are_copied_as_any():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    net[0].register_forward_hook(print)
    net[1].mine = net[0].mine = {}
    net[1].ordered = OrderedDict()
    copied = copy.deepcopy(net, empty_containers(net))
    assert copied[1].mine is copied[0].mine and copied[0].mine is not net[0].mine
    assert type(copied[1].ordered) is OrderedDict
    assert len(copied[0]._forward_hooks) == 1
    for module, new in zip(net.modules(), copied.modules(), strict=True):
        assert vars(module).keys() == vars(new).keys()
        shared = [k for k, v in vars(module).items() if isinstance(v, dict) and v is vars(new)[k]]
        assert not shared
