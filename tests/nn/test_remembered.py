"""What DoRA keeps for inference is what it would make anew, whatever happened to the weights."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from peft_dense import inject
from peft_dense.nn import DoRALinear
from zoo import build, image

PARTS = ("down", "up", "magnitude", "base.weight")


def made(dtype: torch.dtype = torch.float, bias: bool = True) -> DoRALinear:
    layer = DoRALinear(nn.Linear(6, 8, bias=bias, dtype=dtype).requires_grad_(False), 2, alpha=3.0)
    nn.init.normal_(layer.up)
    nn.init.uniform_(layer.magnitude, 1, 2)
    return layer.eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


def infer(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x)


def anew(layer: nn.Module, x: Tensor) -> Tensor:
    """A copy has nothing to remember."""
    return infer(copy.deepcopy(layer), x)


@contextmanager
def counted(layer: DoRALinear) -> Iterator[list[weakref.ref[Tensor]]]:
    """Note every weight that is made."""
    make, notes = layer.merged_weight, []

    def noting() -> Tensor:
        weight = make()
        notes.append(weakref.ref(weight))
        return weight

    layer.merged_weight = noting  # type: ignore[method-assign]
    yield notes
    del layer.merged_weight


@settings(deadline=None, max_examples=30)
@given(
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.lists(st.integers(0, 9), max_size=3),
    bias=st.booleans(),
    double=st.booleans(),
    mode=st.sampled_from((torch.no_grad, torch.inference_mode)),
)
def test_every_call_gives_what_the_merged_weight_does(
    widths: tuple[int, int],
    batch: list[int],
    bias: bool,
    double: bool,
    mode: Callable[[], torch.no_grad],
) -> None:
    dtype = torch.double if double else torch.float
    layer = DoRALinear(nn.Linear(*widths, bias=bias, dtype=dtype), 1).eval()
    nn.init.normal_(layer.up)
    x = torch.randn(*batch, widths[0], dtype=dtype)
    expected = F.linear(x, layer.merged_weight(), layer.bias)
    plain = layer.forward_plain(x)
    for _ in range(3):
        with mode():
            y = layer(x)
        assert torch.equal(y, expected)
        assert_close(y, plain, **({} if double else {"rtol": 1e-3, "atol": 1e-3}))


def test_while_weights_stand_still_one_is_made(x: Tensor) -> None:
    layer = made()
    with counted(layer) as notes:
        for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):
            for tokens in (x, x[:1, :1], torch.cat([x] * 9)):  # few and many
                with mode():
                    layer(tokens)
    assert len(notes) == 1


def put(module: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def by_load(layer: DoRALinear, name: str, *, assign: bool) -> None:
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    state[name] *= 2
    layer.load_state_dict(state, assign=assign)


def by_optimizer(layer: DoRALinear, name: str, kind: type[torch.optim.Optimizer], **how) -> None:
    parameter = layer.get_parameter(name).requires_grad_()
    optimizer = kind([parameter], lr=0.1, **how)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def by_average(layer: DoRALinear, name: str) -> None:
    """As an EMA of weights is copied in."""
    torch._foreach_lerp_([layer.get_parameter(name).data], [torch.zeros(())], 0.5)


def by_other_process(layer: DoRALinear, name: str) -> None:
    """Which writes into the same memory, and counts no version of ours."""
    nn.Parameter(layer.get_parameter(name).data).data.mul_(2)


def in_inference_mode(layer: DoRALinear, name: str) -> None:
    with torch.inference_mode():
        layer.get_parameter(name).mul_(2)


def without_gradients(layer: DoRALinear, name: str) -> None:
    with torch.no_grad():
        layer.get_parameter(name)[-1] *= 2


def by_swapping(layer: DoRALinear, name: str) -> None:
    one = layer.get_parameter(name)
    torch.utils.swap_tensors(one, nn.Parameter(one.detach() * 2, requires_grad=one.requires_grad))


def flat(layer: DoRALinear, name: str) -> Tensor:
    return layer.get_parameter(name).data.view(-1)


def set_data(layer: DoRALinear, name: str) -> None:
    layer.get_parameter(name).data = layer.get_parameter(name).data * 2


WRITES: dict[str, Callable[[DoRALinear, str], object]] = {
    "in place": without_gradients,
    "in inference mode": in_inference_mode,
    "all of .data": lambda layer, name: layer.get_parameter(name).data.mul_(2),
    "signs of .data": lambda layer, name: layer.get_parameter(name).data.neg_(),
    "numpy": lambda layer, name: flat(layer, name).numpy().__imul__(2),
    "another process": by_other_process,
    ".data set": set_data,
    "swap_tensors": by_swapping,
    "Parameter set": lambda layer, name: put(layer, name, layer.get_parameter(name).detach() * 2),
    "load_state_dict": lambda layer, name: by_load(layer, name, assign=False),
    "load_state_dict, assign": lambda layer, name: by_load(layer, name, assign=True),
    "SGD": lambda layer, name: by_optimizer(layer, name, torch.optim.SGD),
    "fused AdamW": lambda layer, name: by_optimizer(layer, name, torch.optim.AdamW, fused=True),
    "foreach AdamW": lambda layer, name: by_optimizer(layer, name, torch.optim.AdamW, foreach=True),
    "average": by_average,
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("write", WRITES)
def test_a_changed_weight_is_seen(write: str, name: str, x: Tensor) -> None:
    layer = made()
    for _ in range(2):  # the second one changes what the first one had kept
        before = infer(layer, x)
        WRITES[write](layer, name)
        after, expected = infer(layer, x), anew(layer, x)
        assert torch.equal(after, expected)
        assert not torch.equal(after, before)


def in_place(layer: DoRALinear, number: int) -> None:
    with torch.no_grad():
        layer.base.weight.view(-1)[number] += 0.01


def moved(layer: DoRALinear, number: int) -> Tensor:
    weight = layer.base.weight.detach().clone()
    weight.view(-1)[number] += 0.01
    return weight


@pytest.mark.parametrize(
    "write",
    [
        in_place,
        lambda layer, number: setattr(layer.base.weight, "data", moved(layer, number)),
        lambda layer, number: put(layer, "base.weight", moved(layer, number)),
        lambda layer, number: layer.base.load_state_dict(
            {"weight": moved(layer, number)}, strict=False
        ),
    ],
    ids=["in place", ".data set", "Parameter set", "load_state_dict"],
)
def test_a_single_entry_of_the_base_is_seen(write, x: Tensor) -> None:
    layer = made()
    for number in range(layer.base.weight.numel()):
        before = infer(layer, x)
        write(layer, number)
        assert torch.equal(infer(layer, x), anew(layer, x))
        assert not torch.equal(infer(layer, x), before)


def test_the_former_weights_memory_is_held_until_the_next_call(x: Tensor) -> None:
    """So the allocator can't give its address, by which weights are told apart, to another."""
    layer, array = made(), np.ones((8, 6), dtype=np.float32)
    memory = weakref.ref(array)
    put(layer, "base.weight", torch.from_numpy(array))
    del array
    infer(layer, x)
    put(layer, "base.weight", torch.ones(8, 6))
    assert memory() is not None
    infer(layer, x)
    assert memory() is None


@settings(deadline=None, max_examples=100)
@given(widths=st.tuples(st.integers(1, 12), st.integers(1, 12)), data=st.data())
def test_a_row_or_column_written_through_data_is_seen(
    widths: tuple[int, int], data: st.DataObject
) -> None:
    layer = DoRALinear(nn.Linear(*widths), 1).eval()
    x = torch.randn(3, widths[0])
    infer(layer, x)
    axis = data.draw(st.integers(0, 1))
    number = data.draw(st.integers(0, layer.base.weight.shape[axis] - 1))
    layer.base.weight.data.select(axis, number).add_(1)
    assert torch.equal(infer(layer, x), anew(layer, x))


@pytest.mark.parametrize("name", PARTS[:3])
def test_one_entry_of_what_trains_written_through_data_is_seen(name: str, x: Tensor) -> None:
    layer = made()
    for number in range(layer.get_parameter(name).numel()):
        before = infer(layer, x)
        flat(layer, name)[number] += 0.01
        assert torch.equal(infer(layer, x), anew(layer, x))
        assert not torch.equal(infer(layer, x), before)


def in_norm(module: nn.Module, name: str, run: Callable[[], object]) -> None:
    """Compute a weight from others, and change one of them once that is remembered."""
    parametrizations.weight_norm(module, name)
    run()
    module.parametrizations[name].original0.data.mul_(torch.arange(1, 9)[:, None])


OTHERS: dict[str, Callable[[DoRALinear], object]] = {
    "a transposed base": lambda layer: put(layer, "base.weight", torch.randn(6, 8).mT),
    "alpha": lambda layer: setattr(layer, "alpha", layer.alpha * 2),
    "bias": lambda layer: layer.base.bias.data.add_(1),
    "base": lambda layer: setattr(layer, "base", nn.Linear(6, 8)),
    "pruned base": lambda layer: prune.random_unstructured(layer.base, "weight", 0.5),
    "pruned factor": lambda layer: prune.random_unstructured(layer, "up", 0.5),
    "weight_norm of base": lambda layer: in_norm(
        layer.base, "weight", lambda: infer(layer, torch.ones(1, 6))
    ),
    "weight_norm of a factor": lambda layer: in_norm(
        layer, "up", lambda: infer(layer, torch.ones(1, 6))
    ),
    "drawn anew": lambda layer: (layer.reset_parameters(), nn.init.normal_(layer.up)),
    "a vector of all": lambda layer: nn.utils.vector_to_parameters(
        2 * nn.utils.parameters_to_vector(layer.parameters()), layer.parameters()
    ),
    "a hook of the base": lambda layer: layer.base.register_forward_hook(
        lambda module, inputs, output: 2 * output
    ),
}


@pytest.mark.parametrize("change", OTHERS)
def test_whatever_else_changes_is_seen(change: str, x: Tensor) -> None:
    layer = made()
    before = infer(layer, x)
    OTHERS[change](layer)
    after = infer(layer, x)
    assert torch.equal(after, anew(layer, x))
    assert not torch.equal(after, before)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("dtype", [torch.double, torch.bfloat16])
def test_a_layer_that_moved_to_another_type_forgets(dtype: torch.dtype, swap: bool) -> None:
    layer, x = made(), torch.randn(3, 6)
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        for to in (dtype, torch.float, dtype):
            infer(layer, x.to(layer.up))
            layer.to(to)
            assert torch.equal(infer(layer, x.to(to)), anew(layer, x.to(to)))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_other_weights_for_one_call_are_used_and_then_not(x: Tensor) -> None:
    layer = made()
    before = infer(layer, x)
    for name in PARTS:
        other = copy.deepcopy(layer)
        with torch.no_grad():
            other.get_parameter(name).mul_(2)
            found = functional_call(layer, {name: other.get_parameter(name).detach()}, (x,))
        assert torch.equal(found, anew(other, x))
        assert torch.equal(infer(layer, x), before)


def test_the_weights_of_the_original_are_watched_too() -> None:
    """A path's frozen tensors are other Parameters on the original's memory."""
    net = build("swin")
    adapted = inject(net, "dora", tasks=("a",)).eval()
    images = image(1)
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    for write in (lambda w: w.mul_(2), lambda w: w.data.mul_(2), lambda w: w.data[3].add_(1)):
        infer(adapted, images)
        with torch.no_grad():
            for linear in linears:
                write(linear.weight)
        assert_close(infer(adapted, images), anew(adapted, images), rtol=0, atol=0)


# What may not use the memory, since it would lose gradients, tangents or axes, or write a constant
# into a graph. Each is run with a layer that remembers, and has to give what a fresh one gives.
def with_tangent(layer: DoRALinear, x: Tensor) -> Tensor:
    x, up = x[0, :2], layer.up.detach()  # for many tokens the one product has no tangents
    with torch.no_grad(), forward_ad.dual_level(), forward_ad._set_fwd_grad_enabled(True):
        dual = forward_ad.make_dual(up, torch.ones_like(up))
        tangent = forward_ad.unpack_dual(functional_call(layer, {"up": dual}, (x,))).tangent
    assert tangent is not None
    return tangent


def over_weights(layer: DoRALinear, x: Tensor) -> Tensor:
    ups = torch.stack([layer.up.detach(), 2 * layer.up.detach()])
    with torch.no_grad():
        return vmap(lambda up: functional_call(layer, {"up": up}, (x,)))(ups)


def in_autocast(layer: DoRALinear, x: Tensor) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return layer(x)


def as_trace(layer: DoRALinear, x: Tensor) -> Tensor:
    with torch.no_grad():
        traced = torch.jit.trace(layer, (x,))
    assert "up" in str(traced.inlined_graph)
    return infer(traced, x)


def as_graph(layer: DoRALinear, x: Tensor) -> Tensor:
    with torch.no_grad():
        graph = make_fx(lambda up, x: functional_call(layer, {"up": up}, (x,)))(
            layer.up.detach(), x
        )
        return graph(2 * layer.up.detach(), x)


def as_export(layer: DoRALinear, x: Tensor) -> Tensor:
    with torch.no_grad():
        program = torch.export.export(layer, (x,))
    assert {"up", "down", "magnitude"} <= program.state_dict.keys()
    return infer(program.module(), x)


def compiled(layer: DoRALinear, x: Tensor) -> Tensor:
    torch._dynamo.reset()
    run = torch.compile(layer, backend="eager", fullgraph=True)
    infer(run, x)
    layer.up.data.mul_(2)
    found = infer(run, x)
    layer.up.data.div_(2)
    return found


def fake(layer: DoRALinear, x: Tensor) -> Tensor:
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        shape = layer(x).shape
    return torch.zeros(shape)


def flops(layer: DoRALinear, x: Tensor) -> Tensor:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    return torch.tensor(counter.get_total_flops())


def gradients(layer: DoRALinear, x: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(layer(x).square().sum(), layer.up)
    return found


AROUND = (with_tangent, over_weights, in_autocast, as_trace, as_graph, as_export, compiled)


@pytest.mark.parametrize("run", [*AROUND, fake, flops, gradients])
def test_nothing_else_is_given_from_memory(run, x: Tensor) -> None:
    layer = made()
    expected = run(copy.deepcopy(layer), x)
    with counted(layer) as notes:
        infer(layer, x)
        assert len(notes) == 1  # so there is something to remember
    assert torch.equal(run(layer, x), expected)
    assert torch.equal(infer(layer, x), anew(layer, x))


def test_a_weight_in_another_layout_is_watched_too(x: Tensor) -> None:
    layer = made()
    put(layer, "base.weight", torch.randn(6, 8).mT)
    for _ in range(2):
        before = infer(layer, x)
        layer.base.weight.data.mul_(torch.arange(2, 10)[:, None])
        assert torch.equal(infer(layer, x), anew(layer, x))
        assert not torch.equal(infer(layer, x), before)


def test_tensors_of_inference_mode_have_no_version_and_do_without(x: Tensor) -> None:
    with torch.inference_mode():
        layer = made()
        for name in PARTS:
            before = layer(x)
            layer.get_parameter(name).mul_(2)
            assert not torch.equal(layer(x), before)
    assert_close(infer(layer, x), anew(layer, x))


FREEING: dict[str, Callable[[DoRALinear, Tensor], object]] = {
    "gradients": lambda layer, x: layer(x),
    "train mode": lambda layer, x: infer(layer.train(), x),
    "autocast": in_autocast,
    "another type": lambda layer, x: infer(layer.bfloat16(), x.bfloat16()),
    "other weights": lambda layer, x: (layer.up.data.mul_(2), infer(layer, x)),
}


@pytest.mark.parametrize("way", FREEING)
def test_the_memory_is_freed(way: str, x: Tensor) -> None:
    layer = made()
    with counted(layer) as notes:
        infer(layer, x)
        assert notes[0]() is not None
        FREEING[way](layer, x)
        assert notes[0]() is None


def test_the_former_one_goes_before_the_next_is_made(x: Tensor) -> None:
    layer, alive = made(), []
    with counted(layer) as notes:
        make = layer.merged_weight
        layer.merged_weight = lambda: (alive.extend(note() for note in notes), make())[1]
        infer(layer, x)
        layer.up.data.mul_(2)
        infer(layer, x)
    assert alive == [None]


def test_a_graph_has_no_side_effect(x: Tensor) -> None:
    layer = made()
    infer(layer, x)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        torch.export.export(layer, (x,), strict=True)
    assert not [each for each in caught if "side effects" in str(each.message)]


def test_what_trains_keeps_nothing(x: Tensor) -> None:
    """Reentrant checkpointing runs its first forward without gradients."""
    layer = made().train()
    with counted(layer) as notes:
        run = torch.utils.checkpoint.checkpoint(layer, x.requires_grad_(), use_reentrant=True)
        assert not [note for note in notes if note() is not None]
        run.sum().backward()
    assert layer.up.grad is not None


def test_what_is_kept_is_no_part_of_the_model() -> None:
    adapted = inject(build("swin"), "dora", tasks=("a", "b")).eval()
    images = image(1)

    def parts() -> list[object]:
        tensors = dict(adapted.named_parameters()) | dict(adapted.named_buffers())
        return [
            list(tensors),
            list(adapted.state_dict()),
            list(adapted.adapter_state_dict()),
            str(adapted.ledger()),
            repr(adapted),
            len(pickle.dumps(adapted)),
            saved_whole(adapted),
        ]

    before, expected = parts(), infer(adapted, images)
    assert parts() == before
    for again in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert_close(infer(again, images), expected, rtol=0, atol=0)


def saved_whole(model: nn.Module) -> int:
    file = io.BytesIO()
    torch.save(model, file)
    return file.tell()


def test_copies_share_no_memory(x: Tensor) -> None:
    layer = made()
    with counted(layer) as notes:
        infer(layer, x)
    twin = copy.deepcopy(layer)
    layer(x)
    assert notes[0]() is None  # nobody else holds it
    assert torch.equal(infer(twin, x), infer(layer, x))


def test_threads_on_one_memory_get_each_its_own(x: Tensor) -> None:
    """Replicas of a layer, as DataParallel makes them, share what isn't a tensor or a module."""
    layer = made()
    replicas = []
    for scale in (1, 2, 3):
        replica = copy.copy(layer)
        replica._parameters = {
            **layer._parameters,
            "magnitude": nn.Parameter(layer.magnitude.detach() * scale),
        }
        replicas.append(replica)
    expected = [anew(replica, x) for replica in replicas]
    wrong: list[int] = []
    start = threading.Barrier(len(replicas))

    def work(number: int) -> None:
        start.wait()
        found = [infer(replicas[number], x) for _ in range(200)]
        wrong.extend(number for y in found if not torch.equal(y, expected[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(replicas))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
