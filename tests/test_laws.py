"""Laws that every registered method keeps on every backbone it goes on.

A new method inherits them by being registered, a new backbone by one row in ``zoo.py``. `make test`
runs the first law on every pair of method and backbone and the others on a choice of pairs,
`make test-all` on all.
"""

from __future__ import annotations

import copy
import functools
import pickle
import warnings

import pytest
import torch
from torch import nn

from choice import over
from peft_dense import AdaptedBackbone, methods
from peft_dense.backbones import examine
from peft_dense.errors import NoSiteError
from peft_dense.methods import method as make_method
from peft_dense.ownership import frozen_tensors, slots
from zoo import BACKBONES, FIVE, SIZE, build, image, perturb

TASKS = ("semseg", "a.b", "keys")  # "Tasks are any names", clashing ones too
NOT_IDENTITY = {"vpt_shallow", "vpt_deep"}  # prompts add tokens


@functools.cache
def original(family: str) -> nn.Module:
    """Build each family once; no law may change it."""
    return build(family)


@functools.cache
def info_of(family: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return examine(original(family))


def adapt(family: str, name: str, *, awake: bool = True) -> AdaptedBackbone:
    """Inject a method (fresh parameters, off the identity if awake) or skip where it can't go."""
    torch.manual_seed(3)
    how = make_method(name)
    if hasattr(how, "activation"):
        how = make_method(how, activation="gelu")  # of two hidden units, ReLU often kills both
    try:
        how = how.resolve(info_of(family))
        adapted = AdaptedBackbone(original(family), how, TASKS, info_of(family))
    except NoSiteError as error:
        pytest.skip(str(error).split(";")[0])
    if awake:
        perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    return adapted


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(a, b) for task in left for a, b in zip(left[task], right[task], strict=True)
    )


def close(left, right) -> None:
    for task in left:
        for a, b in zip(left[task], right[task], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def gradients(adapted: AdaptedBackbone, tasks=None) -> dict[str, torch.Tensor | None]:
    """Gradient of a sum over all features that no symmetry makes vanish."""
    adapted.zero_grad()
    weight = torch.Generator().manual_seed(4)
    features = adapted(image(1), tasks)
    total = sum(
        (f * torch.randn(f.shape, generator=weight)).sum() for fs in features.values() for f in fs
    )
    if total.requires_grad:
        total.backward()
    return {name: p.grad for name, p in adapted.adapter_parameters()}


every_backbone = pytest.mark.parametrize("family", BACKBONES)
every_method = pytest.mark.parametrize("name", methods())


@every_backbone
@every_method
def test_start_is_the_identity_and_shapes_follow_the_stages(family, name):
    adapted = adapt(family, name, awake=False)
    untouched = adapt(family, "decoders_only")(image())["semseg"]
    for features in adapted(image()).values():
        for feature, channels, reduction, plain in zip(
            features, adapted.channels, adapted.reductions, untouched, strict=True
        ):
            assert feature.shape == (2, channels, SIZE // reduction, SIZE // reduction)
            if name not in NOT_IDENTITY:
                torch.testing.assert_close(feature, plain, rtol=1e-4, atol=1e-4)


@over(BACKBONES, methods())
def test_only_adapters_train_and_every_one_gets_a_gradient(family, name):
    adapted = adapt(family, name)
    grads = gradients(adapted)
    assert {n for n, p in adapted.named_parameters() if p.requires_grad} == {
        n
        for n, p in adapted.named_parameters()
        if any(p is q for _, q in adapted.adapter_parameters())
    }
    silent = [n for n, grad in grads.items() if grad is None or not grad.any()]
    assert not silent
    assert all(t.grad is None for t in frozen_tensors(adapted).values())


@over(BACKBONES, methods())
def test_counted_is_the_closed_formula(family, name):
    adapted = adapt(family, name)
    ledger = adapted.ledger()
    assert ledger.encoder == adapted.method.count(adapted.info, len(TASKS))
    assert ledger.encoder == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert ledger.per_task <= sum(ledger.tasks.values()) <= ledger.encoder


@over(FIVE, methods())
def test_adapters_change_the_output(family, name):
    if name == "decoders_only":
        pytest.skip("adds nothing")
    plain = adapt(family, "decoders_only")(image())["semseg"]
    # A few normalised prompts in one attention of random weights move some stage by less than 1e-3.
    atol = 1e-5 if name == "vpt_shallow" else 1e-3
    for features in adapt(family, name)(image()).values():
        assert all(
            not torch.allclose(a, b, atol=atol) for a, b in zip(features, plain, strict=True)
        )


@over(FIVE, methods())
def test_the_original_stays_untouched_and_comes_back(family, name):
    model = original(family)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    modules = [type(module) for module in model.modules()]
    adapted = adapt(family, name)
    gradients(adapted)
    adapted.train()
    adapted(image())
    assert adapted.eject() is model
    assert [type(module) for module in model.modules()] == modules
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@over(FIVE, methods())
def test_deepcopy_pickle_and_state_dict_commute_with_forward(family, name):
    adapted = adapt(family, name)
    expected = adapted(image())
    sum(f.sum() for fs in expected.values() for f in fs)  # a graph is alive while we copy
    assert same(copy.deepcopy(adapted)(image()), expected)
    assert same(pickle.loads(pickle.dumps(adapted))(image()), expected)
    fresh = adapt(family, name, awake=False)
    fresh.load_state_dict(adapted.state_dict())
    assert same(fresh(image()), expected)


@over(FIVE, methods())
def test_frozen_tensors_exist_once(family, name):
    adapted = adapt(family, name)
    for copied in (adapted, copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        frozen = {p.data_ptr() for p in copied.parameters() if not p.requires_grad}
        ours = sum(p.numel() for _, p in copied.adapter_parameters())
        shared = [t for t in frozen_tensors(copied).values() if isinstance(t, nn.Parameter)]
        assert frozen == {p.data_ptr() for p in shared}
        assert sum(p.numel() for p in copied.parameters()) == ours + sum(p.numel() for p in shared)
    sizes = sum(v.numel() for v in adapted.state_dict().values())
    assert sizes == sum(p.numel() for p in adapted.parameters()) + sum(
        v.numel()
        for k, v in adapted.state_dict().items()
        if k not in dict(adapted.named_parameters())
    )


@over(FIVE, methods())
def test_checkpointing_gives_the_plain_gradients(family, name):
    adapted = adapt(family, name)
    plain = gradients(adapted)
    adapted.set_grad_checkpointing()
    for key, grad in gradients(adapted).items():
        torch.testing.assert_close(grad, plain[key], rtol=1e-4, atol=1e-5)
    copy.deepcopy(adapted)  # what the recomputation left behind doesn't get in the way


@over(FIVE, methods())
def test_a_subset_of_tasks_gives_the_same_outputs(family, name):
    adapted = adapt(family, name)
    every = adapted(image())
    for chosen in (["keys"], ["a.b", "semseg"]):
        assert same(adapted(image(), chosen), {task: every[task] for task in chosen})


@over(FIVE, methods())
def test_a_tasks_own_parameters_get_no_gradient_from_another(family, name):
    adapted = adapt(family, name)
    owners = {id(slot.tensor): slot.task for slot in slots(adapted)}
    ids = {n: id(p) for n, p in adapted.adapter_parameters()}
    for n, grad in gradients(adapted, ["keys"]).items():
        owner = owners.get(ids[n])
        if owner not in (None, "keys"):
            assert grad is None or not grad.any(), n


@over(FIVE, methods())
def test_adding_and_removing_a_task_moves_no_other(family, name):
    adapted = adapt(family, name)
    before = adapted(image())
    adapted.add_task("depth")
    after = adapted(image())
    assert same({task: after[task] for task in TASKS}, before)
    assert adapted.ledger().encoder == adapted.method.count(adapted.info, len(TASKS) + 1)
    adapted.remove_task("depth")
    adapted.remove_task("semseg")
    assert same(adapted(image()), {task: before[task] for task in TASKS[1:]})
    assert adapted.ledger().encoder == adapted.method.count(adapted.info, len(TASKS) - 1)


@over(FIVE, methods())
def test_an_extracted_task_gives_the_same_outputs(family, name):
    adapted = adapt(family, name)
    expected = adapted(image())
    alone = adapted.extract_task("a.b")
    assert alone.tasks == ("a.b",)
    assert same(alone(image()), {"a.b": expected["a.b"]})
    assert {key: t.data_ptr() for key, t in frozen_tensors(alone).items()} == {
        key: t.data_ptr() for key, t in frozen_tensors(adapted).items()
    }


@over(FIVE, methods())
def test_save_and_load_give_the_same_outputs(family, name, tmp_path):
    adapted = adapt(family, name)
    folder = adapted.save(tmp_path / "adapter")
    again = AdaptedBackbone.load(folder, original(family))
    assert again.method == adapted.method
    assert same(again(image()), adapted(image()))
    state = adapted.adapter_state_dict()
    assert sum(v.numel() for v in state.values()) >= adapted.ledger().encoder
    assert len({v.data_ptr() for v in state.values()}) == len(state)
    assert not any(key.startswith("backbone.") for key in state)


@over(BACKBONES, ["lora", "polyhistor", "polyhistor_lite", "hyperformer", "dora", "ssf"])
def test_a_merged_copy_gives_the_same_outputs(family, name):
    adapted = adapt(family, name).double()  # in double precision: perturbed weights are large
    merged = adapted.merge()
    close(merged(image().double()), adapted(image().double()))
    assert adapted.merged is False


@pytest.mark.parametrize("family", [f for f in BACKBONES if f not in ("nest",)])
def test_sizes_that_the_stages_divide_work(family):
    adapted = adapt(family, "vmt")
    x = torch.randn(1, 3, 96, 160)
    for feature, reduction in zip(adapted(x)["keys"], adapted.reductions, strict=True):
        assert feature.shape[-2:] == (96 // reduction, 160 // reduction)


@every_backbone
def test_tokens_lie_where_the_map_says(family):
    """A spike on one token of a stage's last MLP shows at that token's place in the output."""
    adapted = adapt(family, "decoders_only")
    info, path, x = adapted.info, adapted.paths["shared"], image(1)
    try:
        make_method("vmt").resolve(info)
    except NoSiteError as error:
        pytest.skip(str(error).split(";")[0])
    from peft_dense.layout import to_channels_last
    from peft_dense.methods.vmt import _to_map

    for stage, output in enumerate(adapted(x)["semseg"]):
        sites = [site for site in info.find("mlp") if site.stage == stage]
        if not sites:
            continue
        site, marks = sites[-1], []

        def spike(module, args, out, site=site, marks=marks):
            mark = torch.zeros_like(to_channels_last(out, site.channel_axis))
            flat = mark.view(-1, mark.shape[-1])
            flat[flat.shape[0] * 2 // 3] = 100.0
            marks.append(mark)
            axis = site.channel_axis
            return out + (mark if axis == -1 else mark.movedim(-1, axis))

        handle = path.get_submodule(site.name).register_forward_hook(spike)
        changed = (adapted(x)["semseg"][stage] - output).abs().sum(1)
        handle.remove()
        expected = _to_map(path, info, site, marks[0], x, output).abs().sum(1)
        assert changed.flatten().argmax() == expected.flatten().argmax()
