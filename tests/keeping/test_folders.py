"""Saved adapters come back bit for bit, or are refused with the reason and nothing half done."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from peft_dense import AdaptedBackbone, DenseModel, Family, inject
from peft_dense.errors import CheckpointError, PeftDenseError, UnsupportedModelError
from peft_dense.heads import head as find_head
from peft_dense.keeping import files
from peft_dense.keeping.files import CONFIG, TENSORS, sign
from zoo import build, perturb

TASKS = ("a.b", "keys")


def swin(**changes) -> nn.Module:
    torch.manual_seed(0)
    options = {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (1, 1)}
    return SwinTransformer(**{**options, "num_heads": (1, 2), "num_classes": 3, **changes}).eval()


def adapt(name: str = "vmt_lite", tasks=TASKS, model: nn.Module | None = None) -> AdaptedBackbone:
    torch.manual_seed(1)
    adapted = inject(swin() if model is None else model, name, tasks=tasks)
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    return adapted


def dense(name: str = "vmt_lite") -> DenseModel:
    """A dense model one training pass old, so that the heads' running statistics have moved."""
    model = DenseModel(adapt(name), {"a.b": 3, "keys": 1}, width=8).train()
    perturb(model, [*model.norms.parameters(), *model.heads.parameters()])
    model(x())
    return model.eval()


def x() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def equal(left, right) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return len(left) == len(right) and all(map(equal, left, right))


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def forge(folder: Path, change) -> None:
    """Change the configuration in place, and give it the digest it would have had."""
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps({**config, "digest": sign(config)}))


# ------------------------------------------------------------------------------ and back


@pytest.mark.parametrize("name", ["vmt_lite", "polyhistor_lite", "multitask_full", "decoders_only"])
def test_an_adapted_backbone_comes_back(name, tmp_path):
    adapted = adapt(name)
    assert adapted.save(tmp_path / "deep" / "er") == tmp_path / "deep" / "er"
    assert sorted(os.listdir(tmp_path / "deep" / "er")) == [CONFIG, TENSORS]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = AdaptedBackbone.load(str(tmp_path / "deep" / "er"), swin())
    assert again.tasks == adapted.tasks
    assert again.method == adapted.method
    assert equal(again.adapter_state_dict(), adapted.adapter_state_dict())
    assert equal(again(x()), adapted(x()))


@pytest.mark.parametrize("name", ["vmt_lite", "polyhistor_lite"])
def test_a_dense_model_comes_back_with_its_buffers(name, tmp_path):
    model = dense(name)
    state = model.trainable_state_dict()
    moved = [key for key in state if key.endswith("running_mean")]
    assert moved and all(state[key].any() for key in moved)
    again = DenseModel.load(model.save(tmp_path), swin()).eval()
    assert again.out_channels == {"a.b": 3, "keys": 1}
    assert equal(again.trainable_state_dict(), state)
    assert equal(again(x()), model(x()))


def test_only_what_was_added_is_written(tmp_path):
    adapted = adapt()
    tensors = load_file(adapted.save(tmp_path) / TENSORS)
    assert sum(tensor.numel() for tensor in tensors.values()) == adapted.ledger().encoder
    model = dense()
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = sum(b.numel() for part in (model.heads, model.norms) for b in part.buffers())
    tensors = load_file(model.save(tmp_path) / TENSORS)
    assert sum(tensor.numel() for tensor in tensors.values()) == count + buffers


def test_heads_made_by_a_callable(tmp_path):
    def make(channels, out_channels):
        return find_head("segformer")(channels, out_channels, width=8)

    torch.manual_seed(1)
    model = DenseModel(adapt(), {"a.b": 3, "keys": 1}, head=make).eval()
    model.save(tmp_path)
    with pytest.raises(CheckpointError, match="made by a callable; pass it as head="):
        DenseModel.load(tmp_path, swin())
    assert equal(DenseModel.load(tmp_path, swin(), head=make).eval()(x()), model(x()))


def test_a_half_precision_model_keeps_its_type(tmp_path):
    adapted = adapt(model=swin().bfloat16())
    again = AdaptedBackbone.load(adapted.save(tmp_path), swin().bfloat16())
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert equal(again.adapter_state_dict(), adapted.adapter_state_dict())


class Scalar(nn.Module):
    """A pyramid with a scalar parameter and, if wanted, two convolutions of one weight."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.first, self.second = nn.Module(), nn.Module()
        self.first.mlp, self.second.mlp = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 1)
        if tied:
            self.second.mlp.weight = self.first.mlp.weight
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        fine = self.first.mlp(self.stem(x))
        return [fine, nn.functional.avg_pool2d(self.second.mlp(fine) * self.scale, 2)]


@pytest.mark.parametrize("name", ["shared_adapter", "multitask_full", "shared_bitfit"])
@pytest.mark.parametrize("tied", [False, True])
def test_scalar_and_tied_parameters_of_a_backbone(name, tied, tmp_path):
    adapted = adapt(name, model=Scalar(tied).eval())
    again = AdaptedBackbone.load(adapted.save(tmp_path), Scalar(tied).eval())
    assert equal(again(x()), adapted(x()))


def test_a_family_is_given_again(tmp_path):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.mix = nn.Conv2d(3, 12, 4, 4), nn.Conv2d(12, 12, 1)

        def forward(self, x):
            return self.mix(self.stem(x)).mean()

    family = Family(features=lambda model, x: [model.mix(model.stem(x))], mlp=("mix",))
    adapted = inject(Named(), "vmt_lite", tasks=TASKS, family=family)
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    again = AdaptedBackbone.load(adapted.save(tmp_path), Named(), family=family)
    assert equal(again(x()), adapted(x()))


# ------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_a_missing_file(name, tmp_path):
    adapt().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name} in .*it holds peft_dense"):
        AdaptedBackbone.load(tmp_path, swin())


def test_a_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match=f"no {CONFIG} in .*it holds nothing"):
        AdaptedBackbone.load(tmp_path / "nowhere", swin())


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "\x00\x01", '{"mark": 1}'])
def test_a_damaged_config(text, tmp_path):
    adapt().save(tmp_path)
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(CheckpointError, match=f"{CONFIG} is damaged"):
        AdaptedBackbone.load(tmp_path, swin())


def test_a_config_that_is_no_text(tmp_path):
    adapt().save(tmp_path)
    (tmp_path / CONFIG).write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(CheckpointError, match=f"{CONFIG} is damaged"):
        AdaptedBackbone.load(tmp_path, swin())


@pytest.mark.parametrize("lost", ["method", "hyperparameters", "tasks", "backbone"])
def test_a_config_that_lacks_an_entry(lost, tmp_path):
    adapt().save(tmp_path)
    forge(tmp_path, lambda config: config.pop(lost))
    with pytest.raises(CheckpointError, match=lost):
        AdaptedBackbone.load(tmp_path, swin())


@pytest.mark.parametrize("keep", [0, 7, 40, 1000, -1])
def test_damaged_tensors(keep, tmp_path):
    adapt().save(tmp_path)
    whole = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(whole[:keep])
    with pytest.raises(CheckpointError, match=f"{TENSORS} is damaged"):
        AdaptedBackbone.load(tmp_path, swin())


def test_a_newer_format(tmp_path):
    adapt().save(tmp_path)
    forge(tmp_path, lambda config: config.update(format=99))
    with pytest.raises(CheckpointError, match="format 99; this version reads up to 4. Update"):
        AdaptedBackbone.load(tmp_path, swin())


def test_files_of_two_saves(tmp_path):
    adapted = adapt()
    adapted.save(tmp_path / "one")
    adapted.save(tmp_path / "two")
    (tmp_path / "two" / TENSORS).replace(tmp_path / "one" / TENSORS)
    with pytest.raises(CheckpointError, match="come from different saves; copy both from one"):
        AdaptedBackbone.load(tmp_path / "one", swin())


def test_tensors_that_nobody_marked(tmp_path):
    adapted = adapt()
    adapted.save(tmp_path)
    save_file(load_file(tmp_path / TENSORS), tmp_path / TENSORS)
    with pytest.raises(CheckpointError, match="different saves"):
        AdaptedBackbone.load(tmp_path, swin())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depths": (1,), "num_heads": (1,)}, r"parameters it lacks \(layers\.1\."),
        ({"depths": (1, 2)}, r"it has besides \(layers\.1\.blocks\.1\."),
        (
            {"embed_dim": 16},
            r"31 of another shape \(layers\.0\..*bias is \(16,\), expected \(12,\),",
        ),
        ({"window_size": 2}, r"2 of another shape \(.*relative_position_bias_table"),
    ],
)
def test_another_backbone(changes, words, tmp_path):
    adapt().save(tmp_path)
    with pytest.raises(CheckpointError, match=rf"belong to a SwinTransformer.*{words}"):
        AdaptedBackbone.load(tmp_path, swin(**changes))


def test_another_family_of_backbone(tmp_path):
    adapt().save(tmp_path)
    with pytest.raises(
        CheckpointError, match="belong to a SwinTransformer and don't fit this Hiera"
    ):
        AdaptedBackbone.load(tmp_path, build("hiera"))


def test_a_wrapped_backbone(tmp_path):
    adapted = adapt()
    adapted.save(tmp_path)
    with pytest.raises(UnsupportedModelError, match="already wrapped"):
        AdaptedBackbone.load(tmp_path, adapted)


def test_the_classifier_does_not_matter(tmp_path):
    adapted, headless = adapt(), swin(num_classes=0)
    headless.load_state_dict(swin().state_dict(), strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = AdaptedBackbone.load(adapted.save(tmp_path), headless)
    assert equal(again(x()), adapted(x()))


def test_other_weights_are_warned_about(tmp_path):
    adapt().save(tmp_path)
    other = swin()
    with torch.no_grad():
        other.patch_embed.proj.bias.add_(1e-3)
    with pytest.warns(UserWarning, match="trained on other weights of SwinTransformer") as caught:
        AdaptedBackbone.load(tmp_path, other)
    assert [warning.filename for warning in caught] == [__file__]  # it points at the caller


def test_a_flat_backbone_is_warned_about_where_it_is_given(tmp_path):
    with pytest.warns(UserWarning, match="is flat") as caught:
        adapted = inject(build("vit"), tasks=TASKS)
    assert [warning.filename for warning in caught] == [__file__]
    DenseModel(adapted, dict.fromkeys(TASKS, 1), width=8).save(tmp_path / "dense")
    adapted.save(tmp_path / "encoder")
    for kind, folder in ((AdaptedBackbone, "encoder"), (DenseModel, "dense")):
        with pytest.warns(UserWarning, match="is flat") as caught:
            kind.load(tmp_path / folder, build("vit"))
        assert [warning.filename for warning in caught] == [__file__]


def test_a_merged_copy_is_not_saved(tmp_path):
    merged = adapt("lora").merge()
    with pytest.raises(UnsupportedModelError, match="merged copy can't be saved"):
        merged.save(tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_encoder_is_no_dense_model(tmp_path):
    adapt().save(tmp_path)
    with pytest.raises(CheckpointError, match="encoder without heads; .*AdaptedBackbone.load"):
        DenseModel.load(tmp_path, swin())


def test_a_dense_model_is_no_encoder(tmp_path):
    dense().save(tmp_path)
    with pytest.raises(CheckpointError, match="DenseModel.load"):
        AdaptedBackbone.load(tmp_path, swin())


class Largest(TorchDispatchMode):
    """Note the most bytes that one operation gave on a device with memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["heads"]["options"].update(width=3_000), "heads don't fit.*misshapen"),
        (lambda c: c["heads"]["channels"].update(keys=1 << 40), "heads don't fit.*misshapen"),
        (lambda c: c["hyperparameters"].update(ratio=1), "adapters don't fit.*misshapen"),
        (
            lambda c: c["tasks"].__setitem__(0, "ab"),
            "heads.names is .*; expected an entry per task",
        ),
    ],
)
def test_shapes_are_compared_before_memory_is_taken(change, words, tmp_path):
    dense().save(tmp_path)
    with Largest() as whole:
        DenseModel.load(tmp_path, swin())
    forge(tmp_path, change)
    backbone = swin()
    with Largest() as refused, pytest.raises(CheckpointError, match=words):
        DenseModel.load(tmp_path, backbone)
    assert refused.bytes <= whole.bytes


def test_shapes_of_an_encoder_are_compared_before_memory_is_taken(tmp_path):
    adapt("adaptformer").save(tmp_path)
    with Largest() as whole:
        AdaptedBackbone.load(tmp_path, swin())
    forge(tmp_path, lambda config: config["hyperparameters"].update(width=1 << 20))
    with Largest() as refused, pytest.raises(CheckpointError, match="don't fit.*misshapen"):
        AdaptedBackbone.load(tmp_path, swin())
    assert refused.bytes <= whole.bytes


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_values_of_another_kind(dtype, tmp_path):
    adapted = adapt()
    state = adapted.adapter_state_dict()
    name = sorted(state)[0]
    with pytest.raises(CheckpointError, match=f"1 of another type .{name} is .*, expected float32"):
        adapted.load_adapter_state_dict({**state, name: state[name].to(dtype)})
    files.write(tmp_path, {**state, name: state[name].to(dtype)}, adapted.config())
    with pytest.raises(CheckpointError, match=f"1 of another type .{name} is .*, expected float32"):
        AdaptedBackbone.load(tmp_path, swin())


def test_floats_of_another_precision_are_converted(tmp_path):
    adapted = adapt()
    state = adapted.adapter_state_dict()
    halves = {name: value.bfloat16() for name, value in state.items()}
    again = AdaptedBackbone.load(files.write(tmp_path, halves, adapted.config()), swin())
    expected = {name: value.float() for name, value in halves.items()}
    assert equal(again.adapter_state_dict(), expected)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("make", [adapt, dense])
def test_values_that_are_not_finite_are_named(value, make, tmp_path):
    model = make()
    name, parameter = next((n, p) for n, p in model.named_parameters() if p.requires_grad)
    with torch.no_grad():
        parameter.view(-1)[0] = float(value)
    model.save(tmp_path)
    last = name.rpartition(".")[2]
    with pytest.warns(UserWarning, match=f"1 tensors hold NaN or infinity .*{last}") as caught:
        type(model).load(tmp_path, swin())
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(method="vmt_light"), "unknown method 'vmt_light'; did you mean"),
        (lambda c: c["hyperparameters"].update(m="3"), "m='3'|m is '3'"),
        (
            lambda c: c["hyperparameters"].update(self=3),
            "unknown hyper-parameter of vmt_lite 'self'",
        ),
        (lambda c: c["hyperparameters"].update(name=3), "doesn't describe adapters"),
        (lambda c: c["heads"]["options"].update(width=-1), "width is -1; pass a whole number"),
        (lambda c: c["heads"]["options"].update(channels=3), "doesn't describe heads"),
        (lambda c: c["heads"]["names"].update(keys="head"), "unknown head 'head'"),
    ],
)
def test_a_configuration_that_describes_nothing(change, words, tmp_path):
    dense().save(tmp_path)
    forge(tmp_path, change)
    with pytest.raises(CheckpointError, match=words):
        DenseModel.load(tmp_path, swin())


def test_no_tensors():
    adapted = adapt()
    state = adapted.adapter_state_dict()
    with pytest.raises(CheckpointError, match="is a list; expected a tensor"):
        adapted.load_adapter_state_dict({**state, next(iter(state)): [1.0]})


def test_a_callable_that_needs_real_tensors(tmp_path):
    """Its heads can't be compared on ``meta``; they are once they are built."""

    def make(channels, out_channels):
        head = find_head("segformer")(channels, out_channels, width=8)
        with torch.no_grad():
            head.classify.bias.fill_(head.classify.weight.mean().item())
        return head

    model = DenseModel(adapt(), {"a.b": 3, "keys": 1}, head=make).eval()
    model.save(tmp_path)
    assert equal(DenseModel.load(tmp_path, swin(), head=make).eval()(x()), model(x()))

    def broken(channels, out_channels):
        raise RuntimeError("no such head")

    with pytest.raises(CheckpointError, match="no such head"):
        DenseModel.load(tmp_path, swin(), head=broken)


# ------------------------------------------------------------------------------ other weights


class Normalised(nn.Module):
    """A pyramid with running statistics, some that its output doesn't depend on, and a cache."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mlp = nn.Conv2d(3, 12, 4, 4), nn.Conv2d(12, 12, 1)
        self.norm, self.plain = nn.BatchNorm2d(12), nn.BatchNorm2d(12, affine=False)
        self.dropped, self.unused = nn.BatchNorm2d(12), nn.BatchNorm2d(12)
        self.register_buffer("cache", torch.ones(3), persistent=False)

    def forward(self, x):
        out = self.mlp(self.plain(self.norm(self.stem(x * self.cache[:, None, None]))))
        self.dropped(out)
        return [out]


def warned(folder: Path, model: nn.Module) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AdaptedBackbone.load(folder, model)
    assert all("trained on other weights" in str(warning.message) for warning in caught)
    return bool(caught)


@pytest.mark.parametrize("norm", ["norm", "plain"])
@pytest.mark.parametrize("buffer", ["running_mean", "running_var", "num_batches_tracked"])
def test_other_statistics_are_other_weights(norm, buffer, tmp_path):
    adapt(model=Normalised().eval()).save(tmp_path)
    other = Normalised().eval()
    assert not warned(tmp_path, other)
    getattr(getattr(other, norm), buffer).add_(1)
    assert warned(tmp_path, other)


def test_what_is_not_used_or_not_kept_does_not_matter(tmp_path):
    adapt(model=Normalised().eval()).save(tmp_path)
    other = Normalised().eval()
    other.unused.running_mean.add_(1)
    other.dropped.running_mean.add_(1)
    other.cache.add_(1e-3)
    assert not warned(tmp_path, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_same_weights_in_another_type_are_no_other_weights(dtype, tmp_path):
    adapt(model=Normalised().eval()).save(tmp_path / "full")
    adapt(model=Normalised().eval().to(dtype)).save(tmp_path / "cast")
    assert not warned(tmp_path / "full", Normalised().eval().to(dtype))
    assert not warned(tmp_path / "cast", Normalised().eval())
    other = Normalised().eval()
    with torch.no_grad():
        other.stem.bias.add_(0.01)
    assert warned(tmp_path / "full", other.to(dtype))
    assert warned(tmp_path / "cast", other)


# ------------------------------------------------------------------------------ nothing half done


def spoilt(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    """New values, and one entry that doesn't fit: the last, so that loading starts well."""
    state = {name: value + 1 for name, value in state.items()}
    last = list(state)[-1]
    if how == "missing":
        del state[last]
    elif how == "unknown":
        state[last + ".more"] = torch.zeros(1)
    else:
        state[last] = torch.zeros(2, 3, 5)
    return state


@pytest.mark.parametrize("how", ["missing", "unknown", "misshapen"])
@pytest.mark.parametrize("name", ["vmt_lite", "polyhistor_lite", "multitask_full"])
def test_adapters_that_do_not_fit_change_nothing(name, how):
    adapted = adapt(name)
    before = values(adapted)
    wrong = spoilt(adapted.adapter_state_dict(), how)
    with pytest.raises(CheckpointError, match=f"don't fit {name} on SwinTransformer.*1 {how}"):
        adapted.load_adapter_state_dict(wrong)
    assert equal(values(adapted), before)


def test_adapters_of_other_tasks():
    state = adapt().adapter_state_dict()
    with pytest.raises(CheckpointError, match=r"tasks keys, depth: \d+ missing .*depth.*unknown"):
        adapt(tasks=("keys", "depth")).load_adapter_state_dict(state)


def test_adapters_of_another_method():
    state = adapt("shared_adapter").adapter_state_dict()
    with pytest.raises(CheckpointError, match="don't fit vmt_lite.*Inject the method"):
        adapt().load_adapter_state_dict(state)


@pytest.mark.parametrize("how", ["missing", "unknown", "misshapen"])
@pytest.mark.parametrize("part", ["encoder", "norms", "heads"])
def test_a_dense_model_that_does_not_fit_changes_nothing(part, how):
    model = dense()
    before = values(model)
    state = {name: value + 1 for name, value in model.trainable_state_dict().items()}
    own = {name: value for name, value in state.items() if name.startswith(part)}
    rest = {name: value for name, value in state.items() if name not in own}
    with pytest.raises(CheckpointError, match="don't fit"):
        model.load_trainable_state_dict({**rest, **spoilt(own, how)})
    with pytest.raises(CheckpointError, match="'backbone.x' is no part of a dense model"):
        model.load_trainable_state_dict({**state, "backbone.x": torch.zeros(1)})
    assert equal(values(model), before)


def test_loaded_tensors_are_copies():
    adapted, state = adapt(), adapt().adapter_state_dict()
    state = {name: value + 1 for name, value in state.items()}
    adapted.load_adapter_state_dict(state)
    for value in state.values():
        value.zero_()
    assert all(value.any() for value in adapted.adapter_state_dict().values())


# ------------------------------------------------------------------------------ writing


def fail_at(call: int):
    """Make an os.replace that fails at its n-th call."""
    calls = []

    def replace(source, target):
        calls.append(target)
        if len(calls) == call:
            raise OSError("no space left")
        os.rename(source, target)

    return replace


@pytest.mark.parametrize("call", [1, 2])
def test_a_write_that_fails_leaves_no_temporary_files(call, tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "replace", fail_at(call))
    with pytest.raises(CheckpointError, match="no space left"):
        adapt().save(tmp_path)
    assert set(os.listdir(tmp_path)) <= {CONFIG, TENSORS}


@pytest.mark.parametrize("call", [1, 2])
def test_an_earlier_save_survives_a_write_that_fails(call, tmp_path, monkeypatch):
    first = adapt()
    first.save(tmp_path)
    other = adapt()
    perturb(other, [p for _, p in other.adapter_parameters()])
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail_at(call))
        with pytest.raises(CheckpointError, match="no space left"):
            other.save(tmp_path)
    assert equal(AdaptedBackbone.load(tmp_path, swin())(x()), first(x()))


def test_a_second_save_takes_the_place_of_the_first(tmp_path):
    adapt("shared_adapter").save(tmp_path)
    second = adapt("polyhistor_lite")
    second.save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [CONFIG, TENSORS]
    assert equal(AdaptedBackbone.load(tmp_path, swin())(x()), second(x()))


def test_a_save_can_be_overwritten_with_what_was_read_from_it(tmp_path):
    """The tensors of a read file are no views of it."""
    again = AdaptedBackbone.load(adapt().save(tmp_path), swin())
    expected = again(x())
    again.save(tmp_path)
    assert equal(AdaptedBackbone.load(tmp_path, swin())(x()), expected)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        adapt().save(tmp_path / "file")


def test_options_that_json_can_not_hold(tmp_path):
    def make(channels, out_channels, act):
        return find_head("segformer")(channels, out_channels, width=8)

    model = DenseModel(adapt(), {"a.b": 3, "keys": 1}, head=make, act=nn.ReLU)
    with pytest.raises(PeftDenseError, match="act"):
        model.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
