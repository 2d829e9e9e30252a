"""Tasks come and go on the encoder and on the model with heads; the rest moves by no bit."""

from __future__ import annotations

import functools

import pytest
import timm
import torch
from torch import nn

from peft_dense import DenseModel, inject
from peft_dense.errors import (
    HyperparameterError,
    PeftDenseError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.methods import method
from zoo import build, image, perturb

CHANNELS = {"semseg": 5, "sal": 1}
SOME = ("vmt_lite", "shared_lora", "lora", "polyhistor_lite", "bitfit", "phm")


@functools.cache
def swin() -> nn.Module:
    return build("swin")


def dense(name: str = "vmt_lite", head="segformer", **options) -> DenseModel:
    backbone = swin()  # before the seed: building it draws too
    torch.manual_seed(0)
    model = DenseModel(inject(backbone, name, tasks=list(CHANNELS)), CHANNELS, head, **options)
    perturb(model, [p for p in model.parameters() if p.requires_grad])
    return model.eval()


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[t], right[t]) for t in left)


# ------------------------------------------------------------------------------ with heads


@pytest.mark.parametrize("name", SOME)
def test_a_task_comes_with_its_head_and_moves_no_other(name, tmp_path):
    model = dense(name, width=8)
    before, counted = model(image(1)), model.ledger()
    model.add_task("depth", 3)
    after = model(image(1))
    assert after["depth"].shape == (1, 3, 64, 64)
    assert same({task: after[task] for task in before}, before)
    more = model.ledger()
    count = model.encoder.method.count(model.encoder.info, 3)
    assert more.encoder == count
    assert more.heads > counted.heads
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == more.total
    sum(p.sum() for p in model(image(1), ["depth"]).values()).backward()
    assert all(p.grad is not None for p in model.heads["depth"].parameters())
    folder = model.save(tmp_path)
    assert same(DenseModel.load(folder, swin()).eval()(image(1)), after)
    model.remove_task("semseg")
    assert same(model(image(1)), {task: after[task] for task in ("sal", "depth")})
    assert model.tasks == ("sal", "depth")
    assert set(model.out_channels) == set(model.heads) == set(model.norms) == {"sal", "depth"}
    assert same(DenseModel.load(model.save(tmp_path), swin()).eval()(image(1)), model(image(1)))


@pytest.mark.parametrize("name", SOME)
def test_an_extracted_task_keeps_its_head(name):
    model = dense(name, width=8)
    expected = model(image(1))["sal"]
    alone = model.extract_task("sal")
    assert alone.tasks == ("sal",)
    assert same(alone(image(1)), {"sal": expected})
    with torch.no_grad():
        for parameter in alone.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    assert torch.equal(model(image(1))["sal"], expected)
    assert alone.ledger().encoder == alone.encoder.method.count(alone.encoder.info, 1)


def test_extracting_copies_one_path_and_the_heads_of_one_task():
    model = dense("lora", width=8)
    ours = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
    alone = model.extract_task("sal")
    assert {p.data_ptr() for p in alone.parameters() if not p.requires_grad} <= frozen
    assert not {p.data_ptr() for p in alone.parameters() if p.requires_grad} & ours
    assert list(alone.encoder.paths) == ["sal"]


def test_extracting_after_an_eval_forward_with_gradients():
    """TinyViT keeps a tensor with its graph then, which deepcopy refuses (A17)."""
    encoder = inject(build("tiny_vit"), "lora", tasks=["a", "b"], targets=("fc1",)).eval()
    expected = encoder(image(1))["a"]
    alone = encoder.extract_task("a")
    for a, b in zip(alone(image(1))["a"], expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["shared_lora", "lora", "polyhistor_lite"])
def test_merging_folds_the_encoder_and_keeps_the_heads(name):
    model = dense(name, width=8).double()
    merged = model.merge()
    assert not any(p.requires_grad for p in merged.parameters())
    for task, prediction in model(image(1).double()).items():
        torch.testing.assert_close(merged(image(1).double())[task], prediction)
    with pytest.raises(UnsupportedModelError, match="merged copy can't be saved"):
        merged.save("nowhere")
    with pytest.raises(UnsupportedModelError, match="merged copy can't be given tasks"):
        merged.add_task("depth", 1)
    assert merged.tasks == tuple(CHANNELS)


def test_checkpointing_reaches_the_encoder():
    model = dense(width=8)
    plain = model(image(1))
    model.set_grad_checkpointing()
    assert model.encoder.paths["shared"].layers[0].grad_checkpointing
    assert same(model(image(1)), plain)


def test_adapter_parameters_are_the_encoders():
    model = dense(width=8)
    ours, encoders = list(model.adapter_parameters()), list(model.encoder.adapter_parameters())
    assert [name for name, _ in ours] == [name for name, _ in encoders]
    assert all(a is b for (_, a), (_, b) in zip(ours, encoders, strict=True))


# ------------------------------------------------------------------------------ changed under it


@pytest.mark.parametrize("use", ["forward", "save", "ledger", "extract", "merge"])
def test_an_encoder_that_lost_a_task_is_noticed(use, tmp_path):
    model = dense("shared_lora", width=8)
    model.encoder.remove_task("sal")
    calls = {
        "forward": lambda: model(image(1)),
        "save": lambda: model.save(tmp_path / "x"),
        "ledger": model.ledger,
        "extract": lambda: model.extract_task("semseg"),
        "merge": model.merge,
    }
    with pytest.raises(UnsupportedModelError, match=r"model\.remove_task\('sal'\) removes its"):
        calls[use]()
    assert not (tmp_path / "x").exists()
    model.remove_task("sal")
    assert list(model(image(1))) == ["semseg"]


def test_an_encoder_that_got_a_task_is_noticed():
    model = dense(width=8)
    expected = model(image(1))
    model.encoder.add_task("depth")
    with pytest.raises(UnsupportedModelError, match=r"model\.add_task\('depth', channels=\.\.\.\)"):
        model(image(1))
    model.add_task("depth", 2)
    after = model(image(1))
    assert after["depth"].shape[1] == 2
    assert same({task: after[task] for task in expected}, expected)


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("sal", 1), HyperparameterError, "'sal' is there already"),
        (("", 1), HyperparameterError, "non-empty string"),
        ((3, 1), HyperparameterError, "non-empty string"),
        (("depth", 0), HyperparameterError, r"channels\['depth'\] is 0"),
        (("depth", 1.5), HyperparameterError, r"channels\['depth'\] is 1\.5"),
        (("depth", 1, "segfromer"), UnknownNameError, "'segformer'"),
    ],
)
def test_a_task_that_can_not_be_added_leaves_the_model_as_it_was(arguments, error, words):
    model = dense(width=8)
    expected, ledger = model(image(1)), model.ledger()
    with pytest.raises(error, match=words):
        model.add_task(*arguments)
    assert model.ledger() == ledger
    assert same(model(image(1)), expected)


def narrow(channels, out_channels):
    return nn.Sequential(Finest(), nn.Conv2d(channels[0], out_channels, 1))


class Finest(nn.Module):
    def forward(self, features):
        return features[0]


def test_a_head_that_nothing_tells_must_be_given():
    model = dense(head={"semseg": "segformer", "sal": narrow})
    with pytest.raises(HyperparameterError, match=r"doesn't tell the one of 'depth'; pass head="):
        model.add_task("depth", 1)
    model.add_task("depth", 1, head=narrow)
    assert model(image(1))["depth"].shape == (1, 1, 64, 64)
    model = dense(head=narrow)
    with pytest.raises(HyperparameterError, match="pass head="):
        model.add_task("depth", 1)


def test_what_can_not_go_stays():
    model = dense(width=8)
    with pytest.raises(UnknownNameError, match="'dep'"):
        model.remove_task("dep")
    with pytest.raises(UnknownNameError, match="'dep'"):
        model.extract_task("dep")
    model.remove_task("sal")
    with pytest.raises(HyperparameterError, match="last task"):
        model.remove_task("semseg")
    assert list(model(image(1))) == ["semseg"]


# ------------------------------------------------------------------------------ encoder


@pytest.mark.parametrize("tasks", [{"a", "b"}, frozenset("ab"), iter(["a"]), 5, {"a": 1, "": 2}])
def test_tasks_have_an_order(tasks):
    with pytest.raises(HyperparameterError, match="in a list"):
        inject(swin(), tasks=tasks)


def test_tasks_of_a_path_get_lists_of_their_own():
    encoder = inject(swin(), "shared_adapter", tasks=["a", "b"])
    out = encoder(image(1))
    out["a"][0] = None
    assert out["b"][0] is not None


def test_numpys_numbers_are_numbers(tmp_path):
    import numpy

    encoder = inject(swin(), "adapter", tasks=["a"], ratio=numpy.int64(4), scale=numpy.float32(0.5))
    assert type(encoder.method.ratio) is int
    assert type(encoder.method.scale) is float
    encoder.save(tmp_path)


def test_a_method_without_string_annotations_is_checked(tmp_path):
    """Its fields' types are types then, not their names (A17)."""
    source = (
        "from dataclasses import dataclass\n"
        "from peft_dense.methods import Method\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Third(Method):\n"
        "    name = 'third'\n    paper = 'none'\n    one_path = True\n"
        "    rank: int = 4\n    scale: float = 1.0\n    deep: bool = False\n"
        "    waist: int | None = None\n"
    )
    space: dict = {}
    exec(compile(source, "third.py", "exec", dont_inherit=True), space)
    third = space["Third"]
    for wrong in (
        {"waist": 0},
        {"rank": None},
        {"scale": None},
        {"rank": 0},
        {"rank": 1.5},
        {"scale": "1"},
        {"scale": float("nan")},
        {"deep": 1},
    ):
        with pytest.raises(HyperparameterError, match=next(iter(wrong))):
            third(**wrong)
    assert third(rank=2).rank == 2


def test_merging_takes_off_no_hook_of_the_users():
    encoder = inject(build("swin"), "ssf", tasks=["a"])
    perturb(encoder, [p for _, p in encoder.adapter_parameters()])
    encoder.double()
    calls = []
    for module in encoder.paths["shared"].modules():
        module.register_forward_hook(_Count(calls))
    expected, before = encoder(image(1).double()), len(calls)
    calls.clear()
    merged = encoder.merge()
    found = merged(image(1).double())
    for a, b in zip(found["a"], expected["a"], strict=True):
        torch.testing.assert_close(a, b)
    branches = len(encoder.info.operations)
    assert len(calls) == before - branches  # those on the branches went with them


class _Count:
    """A hook of the user's, whose list isn't copied with the model."""

    def __init__(self, calls: list) -> None:
        self.calls = calls

    def __deepcopy__(self, memo):
        return self

    def __call__(self, module, args, output):
        self.calls.append(type(module).__name__)


def test_a_merged_copy_has_one_backbone_and_its_own_weights():
    encoder = inject(build("swin"), "lora", tasks=list("abcd"))
    merged = encoder.merge()
    backbone = sum(p.numel() for p in encoder.paths["a"].parameters() if not p.requires_grad)
    queries = sum(li.in_features * li.out_features for li in encoder.info.linears(["qkv"]))
    assert sum(p.numel() for p in merged.parameters()) == backbone + 3 * queries


def test_explain_says_what_will_be_there_and_changes_nothing(capsys):
    model = build("swin")
    before = [name for name, _ in model.named_modules()]
    encoder = inject(model, "vmt_lite", tasks=["a"], explain=True)
    said = capsys.readouterr().out
    for site in encoder.info.find("mlp"):
        assert site.name in said
    assert "each of 1 path:" in said
    assert "VMTAdapter" in said
    assert f"{encoder.ledger().encoder:,}" in said
    assert [name for name, _ in model.named_modules()] == before
    with pytest.raises(PeftDenseError):
        inject(model, "vmt_lite", ratio=7, explain=True)
    assert "layers.0.blocks.0.mlp" in capsys.readouterr().out  # what was found comes first
    inject(model, "polyhistor", tasks=["a", "b"], explain=True)
    said = capsys.readouterr().out
    assert "each of 2 paths:" in said
    assert "TaskHyperNetworks" in said
    assert method("polyhistor").name in said


def hooked(name: str):
    """Adapt a model whose own hooks stand first at the places that are folded."""
    model = build("swin")
    for key, module in model.named_modules():
        if key.endswith((".mlp", ".norm1", ".norm2")):
            module.register_forward_hook(lambda module, args, output: 1.5 * output)
    encoder = inject(model, name, tasks=["a"])
    perturb(encoder, [p for _, p in encoder.adapter_parameters()])
    return encoder


def test_merging_finds_its_own_hook_among_a_users():
    encoder = hooked("polyhistor_lite")
    for found, wanted in zip(encoder.merge()(image())["a"], encoder(image())["a"], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_what_a_hook_changes_in_between_is_not_folded():
    encoder = hooked("ssf")
    before = encoder(image())["a"]
    with pytest.raises(UnsupportedModelError, match="norm1'.* a forward hook of the model's own"):
        encoder.merge()
    assert all(torch.equal(a, b) for a, b in zip(encoder(image())["a"], before, strict=True))


def test_a_ledger_names_its_method():
    for name in ("vmt_lite", "lora"):
        ledger = inject(swin(), name, tasks=["a"]).ledger()
        assert ledger.method == name
        assert str(ledger).startswith(f"{name}: trainable")


def test_a_scale_behind_an_activation_can_not_be_folded():
    """timm's BatchNormAct2d normalises and activates: folding would be wrong without a word."""
    encoder = inject(timm.create_model("mobilevitv2_050").eval(), "ssf", tasks=["a"])
    before = [f.clone() for f in encoder(image(1))["a"]]
    with pytest.raises(UnsupportedModelError, match="BatchNormAct2d has an activation"):
        encoder.merge()
    assert all(torch.equal(a, b) for a, b in zip(encoder(image(1))["a"], before, strict=True))


# ------------------------------------------------------------------------------ what fails midway


@pytest.mark.parametrize("name", ["vmt_lite", "lora", "polyhistor_lite", "multitask_full"])
def test_a_task_that_fails_midway_leaves_no_trace(name, monkeypatch):
    adapted = inject(swin(), name, tasks=list(CHANNELS)).eval()
    state, ledger = adapted.state_dict(), adapted.ledger()

    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("peft_dense.ownership.settle", out_of_memory)
        with pytest.raises(MemoryError):
            adapted.add_task("depth")
    assert adapted.tasks == tuple(CHANNELS)
    assert adapted.state_dict().keys() == state.keys()
    assert adapted.ledger() == ledger
    adapted.add_task("depth")
    assert adapted(image(1)).keys() == {*CHANNELS, "depth"}


def test_a_head_that_is_no_module_leaves_no_task_behind():
    model = dense(width=8)
    before = model(image(1))
    with pytest.raises(HyperparameterError, match=r"'depth'.*Module"):
        model.add_task("depth", 3, head=lambda channels, out, **options: None)
    assert model.tasks == tuple(CHANNELS)
    assert same(model(image(1)), before)
    model.add_task("depth", 3)
    assert model(image(1)).keys() == {*CHANNELS, "depth"}


@pytest.mark.parametrize("name", ["vmt", "lora", "shared_bitfit"])
def test_parameters_by_kind_are_the_ledgers(name):
    adapted = inject(swin(), name, tasks=["a", "b"])
    ledger = adapted.ledger()
    counts = {
        kind: sum(p.numel() for p in those) for kind, those in adapted.parameters_by_kind().items()
    }
    assert counts == {
        "shared": ledger.shared,
        "per_task": ledger.per_task,
        "unfrozen_backbone": ledger.unfrozen_backbone,
    }
