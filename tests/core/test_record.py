"""A call leaves nothing behind, and calls don't meet: threads, checkpoints, exceptions, graphs."""

from __future__ import annotations

import functools
import gc
import threading
import weakref

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torch.utils.checkpoint import checkpoint

from peft_dense import DenseModel, inject, methods
from peft_dense.backbones import Recording, Tap
from peft_dense.backbones.record import watch
from peft_dense.errors import NoSiteError, UnsupportedModelError
from peft_dense.methods import method
from zoo import build, image, perturb

TASKS = ["semseg", "sal"]
ONE_PATH = [name for name in methods() if method(name).one_path]


@functools.cache
def swin() -> nn.Module:
    return build("swin")


@functools.cache
def tiny() -> nn.Module:
    return SwinTransformer(
        img_size=16, patch_size=2, window_size=4, embed_dim=16, depths=(1, 1), num_heads=(1, 2)
    ).eval()


def adapt(name: str, model: nn.Module | None = None):
    model = swin() if model is None else model  # before the seed: building it draws too
    torch.manual_seed(0)
    try:
        adapted = inject(model, name, tasks=TASKS)
    except NoSiteError as error:
        pytest.skip(str(error)[:60])
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    return adapted


def flat(features) -> torch.Tensor:
    return torch.cat([f.flatten() for fs in features.values() for f in fs])


# ------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("name", ONE_PATH)
def test_threads_that_share_a_model_do_not_meet(name):
    """200 calls by two threads, on images and tasks of their own, all as one thread gives them."""
    adapted = adapt(name, tiny())
    x = image(1, 16)
    asked = [(x, ["semseg"]), (-x, ["sal", "semseg"])]
    with torch.no_grad():
        expected = [flat(adapted(x, tasks)) for x, tasks in asked]
    wrong: list[str] = []

    def work(number: int) -> None:
        x, tasks = asked[number]
        with torch.no_grad():
            try:
                found = [flat(adapted(x, tasks)) for _ in range(100)]
            except Exception as error:
                wrong.append(repr(error))
                return
        other = sum(not torch.equal(features, expected[number]) for features in found)
        wrong.extend([f"{other} of thread {number}'s calls"] if other else [])

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_record_belongs_to_its_thread():
    net = nn.Linear(2, 2)
    watch(net, Tap(""))
    inside = []

    def other() -> None:
        with Recording() as record:
            net(torch.zeros(1, 2))
            inside.append(len(record))

    with Recording() as record:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not record
    assert inside == [1]


# ------------------------------------------------------------------------------ after the call


@pytest.mark.parametrize("name", ["vmt", "vmt_lite"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_is_alive_after_the_call(name, checkpointing):
    adapted = adapt(name)
    adapted.set_grad_checkpointing(checkpointing)
    latents: list[weakref.ref] = []
    for tap in adapted.method.taps(adapted.info):
        adapted.paths["shared"].get_submodule(tap.module).register_forward_hook(
            lambda _, __, h: latents.append(weakref.ref(h))
        )
    features = adapted(image(1))
    flat(features).sum().backward()
    del features
    gc.collect()
    assert latents
    assert not [ref for ref in latents if ref() is not None]


def test_a_path_called_by_itself_keeps_nothing_and_gives_the_stream():
    adapted = adapt("vmt")
    path = adapted.paths["shared"]
    expected = adapted.info.stage_outputs(path, image(1))
    with Recording():
        pass
    again = adapted.info.stage_outputs(path, image(1))
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    assert flat(adapted(image(1))).isfinite().all()


def test_a_failing_pass_closes_its_record():
    adapted = adapt("vmt_lite")
    expected = flat(adapted(image(1)))

    def fail(*_):
        raise RuntimeError("in mid-pass")

    handle = adapted.paths["shared"].layers[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in mid-pass"):
        adapted(image(1))
    handle.remove()
    with Recording() as record:
        pass
    assert not record
    assert torch.equal(flat(adapted(image(1))), expected)


def test_of_several_outputs_the_first_is_taken():
    class Pair(nn.Module):
        def forward(self, x):
            return x + 1, x + 2

    net = nn.Sequential(Pair())
    watch(net, Tap("0"))
    with Recording() as record:
        first, _ = net(torch.zeros(2))
    assert record[Tap("0")] is first


def test_records_nest():
    net = nn.Linear(2, 2)
    watch(net, Tap(""))
    watch(net, Tap("", "input"))
    x = torch.zeros(1, 2)
    with Recording() as outer:
        with Recording() as inner:
            y = net(x)
        assert not outer
        assert inner[Tap("")] is y
        assert inner[Tap("", "input")] is x
        z = net(x)
        assert outer[Tap("")] is z
        assert inner[Tap("")] is y


# ------------------------------------------------------------------------------ checkpointing


def reentrant(adapted) -> None:
    """Checkpoint the blocks as ``use_reentrant=True`` does."""
    for module in adapted.modules():
        if type(module).__name__ == "SwinTransformerBlock" or hasattr(module, "mlp"):
            forward = module.forward
            module.forward = functools.partial(checkpoint, forward, use_reentrant=True)


@pytest.mark.parametrize("name", ["vmt", "vmt_lite"])
def test_reentrant_checkpointing_is_refused_where_latents_would_lose_their_gradient(name):
    adapted = adapt(name)
    reentrant(adapted)
    x = image(1).requires_grad_()
    with pytest.raises(UnsupportedModelError, match="reentrant checkpointing.*use_reentrant=False"):
        adapted(x)
    with torch.no_grad():
        plain = adapt(name)
        assert torch.equal(flat(adapted(x)), flat(plain(x)))


@pytest.mark.parametrize("name", ["shared_adapter", "shared_lora", "ssf"])
def test_reentrant_checkpointing_gives_right_gradients_where_nothing_is_tapped(name):
    wanted = {}
    for checkpointed in (False, True):
        adapted = adapt(name)
        if checkpointed:
            reentrant(adapted)
        flat(adapted(image(1).requires_grad_())).square().sum().backward()
        grads = {n: p.grad for n, p in adapted.adapter_parameters()}
        for key, grad in (wanted or grads).items():
            torch.testing.assert_close(grads[key], grad, rtol=1e-4, atol=1e-5)
        wanted = grads


# ------------------------------------------------------------------------------ graphs


@pytest.mark.parametrize("name", ["vmt", "vmt_lite", "shared_adapter", "shared_lora", "ssf"])
@pytest.mark.parametrize("family", ["swin", "pvtv2"])
def test_export_takes_any_number_of_images(name, family):
    adapted = adapt(name, build(family))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(adapted, (image(3),), dynamic_shapes={"x": {0: batch}})
    module = program.module()
    for size in (1, 2, 64):
        x = torch.randn(size, 3, 64, 64)
        torch.testing.assert_close(flat(module(x)), flat(adapted(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vmt", "vmt_lite"])
def test_a_compiled_graph_is_whole(name):
    adapted = adapt(name)
    compiled = torch.compile(adapted, fullgraph=True, backend="aot_eager")
    for tasks in (None, ["sal"]):
        torch.testing.assert_close(flat(compiled(image(1), tasks)), flat(adapted(image(1), tasks)))
    flat(compiled(image(1))).sum().backward()
    with Recording() as record:
        pass
    assert not record


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients_give_the_same(mode):
    model = DenseModel(adapt("vmt_lite"), {"semseg": 5, "sal": 1}, width=16).eval()
    expected = model(image(1))
    with mode():
        found = model(image(1))
    assert all(torch.equal(found[task], expected[task]) for task in expected)
