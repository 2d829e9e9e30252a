"""Whose a tensor is stays decided, whatever replaces, moves or casts it.

The original never moves.
"""

from __future__ import annotations

import copy
import functools
import io
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from choice import over
from peft_dense import AdaptedBackbone, DenseModel, inject, methods
from peft_dense.backbones import own
from peft_dense.errors import HyperparameterError, NoSiteError, UnsupportedModelError
from peft_dense.methods import Method, method
from peft_dense.ownership import frozen_tensors, slots
from zoo import build, image, perturb

TASKS = ["semseg", "sal"]


def adapt(name: str, model: nn.Module, **options) -> AdaptedBackbone:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers that serve the stream only
        adapted = inject(model, name, tasks=TASKS, **options)
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    return adapted


@functools.cache
def swin() -> nn.Module:
    return build("swin")


def flat(features) -> torch.Tensor:
    return torch.cat([f.flatten() for fs in features.values() for f in fs])


# ------------------------------------------------------------------------------ the original


def spectral() -> nn.Module:
    """A Swin with both kinds of spectral norm, whose buffers a forward in train mode writes."""
    model = build("swin")
    spectral_norm(model.layers[0].blocks[0].mlp.fc1)
    torch.nn.utils.spectral_norm(model.layers[1].blocks[0].mlp.fc2)
    return model


def small(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **options)


WITH_STATISTICS = {
    "tiny_vit": lambda: build("tiny_vit"),
    "efficientformerv2": lambda: small("efficientformerv2_s0", img_size=64),
    "mobilevitv2": lambda: small("mobilevitv2_050"),
    "levit": lambda: small("levit_128s", img_size=64),
    "spectral_norm": spectral,
}


@functools.cache
def with_statistics(name: str) -> nn.Module:
    return WITH_STATISTICS[name]()


def state_of(model: nn.Module) -> list[object]:
    """Everything of a model that a user could notice a change of."""
    return [
        [
            (n, t.clone(), t._version)
            for n, t in (*model.named_parameters(), *model.named_buffers())
        ],
        [(n, p.requires_grad, p.grad is None) for n, p in model.named_parameters()],
        [(n, type(m), m.training) for n, m in model.named_modules()],
        [(n, list(m._forward_hooks), list(m._forward_pre_hooks)) for n, m in model.named_modules()],
        [(n, sorted(vars(m))) for n, m in model.named_modules()],
    ]


@over(WITH_STATISTICS, methods())
def test_training_leaves_the_original_as_it_was(family, name):
    model = with_statistics(family).train()
    before = state_of(model)
    try:
        adapted = adapt(name, model)
    except (NoSiteError, HyperparameterError) as error:
        pytest.skip(str(error)[:60])
    adapted.train()
    trained = [p for _, p in adapted.adapter_parameters()] or [nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(trained, lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        loss = flat(adapted(image(2))).square().mean() + trained[0].sum() * 0
        loss.backward()
        optimizer.step()
    after = state_of(model)
    for (key, old, version), (_, new, now) in zip(before[0], after[0], strict=True):
        assert torch.equal(old, new), key
        assert version == now, key
    assert before[1:] == after[1:]


@pytest.mark.parametrize("backbone", WITH_STATISTICS)
def test_frozen_statistics_stand_still_and_are_used(backbone):
    """In train mode a frozen backbone computes what it computes in eval mode."""
    model = with_statistics(backbone).eval()
    adapted = adapt("shared_adapter", model)
    adapted.eval()
    expected = flat(adapted(image(2)))
    adapted.train()
    for module in adapted.modules():
        if "DropPath" in type(module).__name__:
            module.drop_prob = 0.0
    torch.testing.assert_close(flat(adapted(image(2))), expected, rtol=1e-4, atol=1e-4)
    adapted.eval()
    assert torch.equal(flat(adapted(image(2))), expected)


def test_a_batch_norm_that_was_added_trains_and_is_saved():
    """One without weights too: ownership isn't read off what it holds (A5)."""

    class Normed(Method):
        name, paper, one_path = "normed", "none", True

        def adapt(self, path, info, tasks, shared):
            path.extra = nn.BatchNorm1d(3, affine=False)

        def task_features(self, path, info, outputs, taps, tasks, image):
            path.extra(image.flatten(2))
            return {task: list(outputs) for task in tasks}

        def count(self, info, tasks):
            return 0

    adapted = inject(build("tiny_vit"), Normed(), tasks=TASKS).train()
    assert adapted.paths["shared"].extra.training
    adapted(image(2))
    state = adapted.adapter_state_dict()
    assert {"extra.running_mean", "extra.running_var", "extra.num_batches_tracked"} == set(state)
    assert state["extra.running_mean"].any()
    adapted.load_state_dict(adapted.state_dict())
    other = inject(build("tiny_vit"), Normed(), tasks=TASKS)
    other.load_adapter_state_dict(state)
    assert torch.equal(other.paths["shared"].extra.running_mean, state["extra.running_mean"])


def test_what_is_added_to_a_model_on_meta_is_on_meta():
    """Its buffers too, which are replaced rather than moved."""

    class Normed(Method):
        name, paper, one_path = "normed", "none", True

        def adapt(self, path, info, tasks, shared):
            path.extra = nn.BatchNorm1d(3)

        def count(self, info, tasks):
            return 6

    adapted = inject(build("swin").to("meta"), Normed(), tasks=TASKS)
    extra = adapted.paths["shared"].extra
    assert all(t.is_meta for t in (*extra.parameters(), *extra.buffers()))
    assert extra.num_batches_tracked.dtype == torch.int64


def test_a_batch_norm_whose_bias_trains_has_statistics_of_its_own():
    model = build("tiny_vit")
    adapted = adapt("bitfit", model).train()
    before = {key: t.clone() for key, t in adapted.adapter_state_dict().items()}
    adapted(image(2), ["sal"])
    after = adapted.adapter_state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert all(key.startswith("paths.sal.") for key in moved)
    assert all(key.endswith(("running_mean", "running_var", "tracked")) for key in moved)


# ------------------------------------------------------------------------------ sharing


REPLACED = {
    "assign": lambda a: (a.load_state_dict(copy.deepcopy(a.state_dict()), assign=True), a)[1],
    "double": lambda a: a.double().float(),
    "overwrite": lambda a: overwriting(a),
    "deepcopy": copy.deepcopy,
    "file": lambda a: torch.load(written(a), weights_only=False),
}


def overwriting(adapted):
    old = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return adapted.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(old)


def written(adapted) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(adapted, file)
    file.seek(0)
    return file


@over(REPLACED, methods())
def test_sharing_outlives_what_replaces_tensors(family, name):
    how = family
    model = swin() if name != "shared_bitfit" else build("tiny_vit")
    adapted = adapt(name, model)
    expected, ledger = flat(adapted(image(1))), adapted.ledger()
    keys = list(adapted.adapter_state_dict())
    frozen = frozen_tensors(adapted).keys()
    replaced = REPLACED[how](adapted)
    assert torch.equal(flat(replaced(image(1))), expected)
    assert replaced.ledger() == ledger
    assert list(replaced.adapter_state_dict()) == keys
    by_key: dict[str, set[int]] = {}
    for slot in slots(replaced):
        if slot.frozen:
            by_key.setdefault(slot.origin.key, set()).add(id(slot.tensor))
            assert not slot.tensor.requires_grad
    assert by_key.keys() == frozen
    assert all(len(held) == 1 for held in by_key.values())
    replaced.train()
    assert not any(m.training for m in replaced.modules() if "BatchNorm" in type(m).__name__) or (
        "bitfit" in name
    )


@pytest.mark.parametrize("name", ["vmt_lite", "polyhistor_lite", "bitfit", "phm"])
def test_a_model_made_on_meta_materialises_once(name):
    real = adapt(name, build("swin"))
    adapted = inject(build("swin").to("meta"), name, tasks=TASKS)
    assert all(t.is_meta for t in (*adapted.parameters(), *adapted.buffers()))
    adapted.to_empty(device="cpu")
    adapted.load_state_dict(real.state_dict())
    size = sum(p.numel() for p in adapted.parameters())
    assert size == sum(p.numel() for p in real.parameters())
    for key, buffer in frozen_tensors(real).items():
        frozen_tensors(adapted)[key].copy_(buffer)  # indices aren't in state dicts
    assert torch.equal(flat(adapted.eval()(image(1))), flat(real.eval()(image(1))))


def test_loading_other_frozen_values_leaves_the_original_alone():
    model, other = build("swin"), build("swin")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    adapted, source = adapt("lora", model), adapt("lora", other)
    adapted.load_state_dict(source.state_dict())
    assert torch.equal(flat(adapted(image(1))), flat(source(image(1))))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    adapted.add_task("depth")
    source.add_task("depth")
    assert torch.equal(flat(adapted(image(1), ["depth"])), flat(source(image(1), ["depth"])))


def test_a_new_task_of_lost_weights_is_refused():
    """Biases that every path owns were never loaded: a new path can't start from them."""
    model, other = build("swin"), build("swin")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    adapted = adapt("bitfit", model)
    adapted.load_state_dict(adapt("bitfit", other).state_dict())
    tasks = adapted.tasks
    with pytest.raises(UnsupportedModelError, match=r"starts from the backbone's own .*bias"):
        adapted.add_task("depth")
    assert adapted.tasks == tasks
    assert len(adapted(image(1))) == len(tasks)


# ------------------------------------------------------------------------------ casting


@pytest.mark.parametrize("name", ["vmt_lite", "vmt", "polyhistor", "lora", "bitfit"])
def test_a_new_task_casts_and_moves_no_other(name):
    adapted = adapt(name, build("swin").bfloat16())
    for _, parameter in adapted.adapter_parameters():
        parameter.data = parameter.data.float()
    before = {n: (p.dtype, p.clone()) for n, p in adapted.adapter_parameters()}
    adapted.add_task("depth")
    for key, parameter in adapted.adapter_parameters():
        assert parameter.dtype == torch.float32
        if key in before:
            assert before[key][0] == parameter.dtype
            assert torch.equal(before[key][1], parameter)
    assert {t.dtype for t in frozen_tensors(adapted).values() if t.is_floating_point()} <= {
        torch.bfloat16
    }


# ------------------------------------------------------------------------------ changed weights


def test_a_new_task_leaves_adapters_of_several_types_as_they_are():
    adapted = adapt("lora", swin())
    for name, parameter in adapted.adapter_parameters():
        if "semseg" in name:
            parameter.data = parameter.data.double()
    before = {name: (p, p.dtype) for name, p in adapted.adapter_parameters()}
    assert len({kind for _, kind in before.values()}) == 2
    adapted.add_task("c")
    after = dict(adapted.adapter_parameters())
    assert all(after[name] is p and p.dtype == kind for name, (p, kind) in before.items())


@pytest.mark.parametrize("name", ["vmt_lite", "lora"])
def test_frozen_weights_that_changed_are_noticed_at_save(name, tmp_path):
    model = build("swin")
    encoder = adapt(name, model)
    dense = DenseModel(encoder, dict.fromkeys(TASKS, 1), width=8)
    dense.save(tmp_path / "before")
    dense.requires_grad_(True)
    optimizer = torch.optim.SGD(dense.parameters(), lr=1e-2)
    sum(p.square().mean() for p in dense(image(1)).values()).backward()
    optimizer.step()
    for what in (encoder, dense):
        with pytest.raises(UnsupportedModelError, match="frozen weights .* changed since inject"):
            what.save(tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_moving_casting_and_loading_are_no_change(tmp_path):
    encoder = adapt("vmt_lite", build("swin"))
    encoder.double()
    encoder.save(tmp_path / "cast")
    encoder.float()
    encoder.load_state_dict(encoder.state_dict())
    encoder.save(tmp_path / "loaded")
    with torch.no_grad():
        next(iter(frozen_tensors(encoder).values())).view(-1)[0] += 1e-3
    encoder.double()
    with pytest.raises(UnsupportedModelError, match="changed since inject"):
        encoder.save(tmp_path / "changed")


# ------------------------------------------------------------------------------ own and origin


def test_own_takes_a_tied_parameter_once():
    adapted = inject(build("swin"), "decoders_only", tasks=["a"])
    path = adapted.paths["shared"]
    names = ["layers.0.blocks.0.mlp.fc1.bias", "layers.0.blocks.0.norm1.weight"]
    made = own(path, names)
    assert [p.requires_grad for p in made] == [True, True]
    assert {n for n, _ in adapted.adapter_parameters()} == set(names)
    assert adapted.ledger().unfrozen_backbone == sum(p.numel() for p in made)


def test_a_task_taken_home_trains_and_merges():
    """A path of a hypernetwork alone has nothing to train; the extracted task has (A17)."""
    adapted = adapt("polyhistor", build("swin")).double()
    alone = adapted.extract_task("sal")
    assert any(p.requires_grad for p in alone.parameters())
    path = alone.merge().paths["sal"]
    expected = adapted(image(1).double(), ["sal"])["sal"]
    found = adapted.info.stage_outputs(path, image(1).double())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_merged_weights_stay_apart_when_they_are_moved():
    adapted = adapt("lora", build("swin"))
    merged = adapted.merge()
    expected = {task: [f.clone() for f in fs] for task, fs in merged(image(1)).items()}
    merged.double().float()
    for task, features in merged(image(1)).items():
        for a, b in zip(features, expected[task], strict=True):
            assert torch.equal(a, b)


def test_a_ledger_of_methods_is_what_is_counted():
    for name in methods():
        adapted = adapt(name, swin())
        assert adapted.ledger().encoder == method(name).resolve(adapted.info).count(
            adapted.info, len(TASKS)
        )
