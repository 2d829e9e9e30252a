"""What inject refuses, with which words, and that the model is as it was before."""

from __future__ import annotations

import dataclasses
import re

import numpy
import pytest
import torch
import torch.distributed as dist
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from peft_dense import AdaptedBackbone, DenseModel, Family, inject, methods, register_family
from peft_dense.backbones import families
from peft_dense.errors import (
    HyperparameterError,
    ImageSizeError,
    NoSiteError,
    PeftDenseError,
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.methods import method
from zoo import build, image, perturb


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2), num_classes=3
    )


class Block(nn.Module):
    """A residual block with a depthwise mixer and a feed-forward part, channels first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixer = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.channel_mix = nn.Sequential(
            nn.BatchNorm2d(width), nn.Conv2d(width, width, 1), nn.GELU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x):
        return x + self.channel_mix(x + self.mixer(x))


class HomeMade(nn.Module):
    """A pyramid that only classifies."""

    def __init__(self, widths=(8, 16)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, widths[0], 4, 4)
        self.stages = nn.ModuleList([Block(widths[0]), Block(widths[1])])
        self.down = nn.Conv2d(widths[0], widths[1], 2, 2)
        self.classify = nn.Linear(widths[1], 5)

    def maps(self, x):
        fine = self.stages[0](self.stem(x))
        return [fine, self.stages[1](self.down(fine))]

    def forward(self, x):
        return self.classify(self.maps(x)[-1].mean((2, 3)))


class HomeMadePyramid(HomeMade):
    """The same, with maps for an output."""

    def forward(self, x):
        return self.maps(x)


HOME_MADE = Family(features=lambda model, x: model.maps(x), mlp=("channel_mix",))


def snapshot(model: nn.Module) -> list:
    """Everything an edit of a model would show in, by value or by identity."""
    parts: list = [(name, id(value)) for name, value in model.state_dict(keep_vars=True).items()]
    parts += [value.clone() for value in model.state_dict().values()]
    parts += [(p.requires_grad, p.grad) for p in model.parameters()]
    for name, module in model.named_modules():
        attributes = {k: id(v) for k, v in vars(module).items() if not isinstance(v, dict)}
        hooks = [len(v) for k, v in sorted(vars(module).items()) if k.endswith("_hooks")]
        parts.append((name, type(module), module.training, attributes, hooks))
    return parts


def unchanged(model: nn.Module, before: list) -> bool:
    after = snapshot(model)
    return len(after) == len(before) and all(
        (a.dtype == b.dtype and torch.equal(a, b)) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(after, before, strict=True)
    )


def refuses(kind: type[Exception], match: str, model, *args, **options) -> str:
    """Check that inject refuses, in these words, and leaves the model as it was."""
    before = snapshot(model) if isinstance(model, nn.Module) else None
    with pytest.raises(kind, match=match) as caught:
        inject(model, *args, **options)
    assert isinstance(caught.value, PeftDenseError)
    assert before is None or unchanged(model, before)
    return str(caught.value)


def test_a_snapshot_sees_a_change():
    for edit in (
        lambda m: m.eval(),
        lambda m: m.requires_grad_(False),
        lambda m: m.register_forward_hook(print),
        lambda m: nn.init.zeros_(m.head.fc.bias).add_(1),
        lambda m: setattr(m, "grad_checkpointing", True),
        lambda m: m.double(),
    ):
        model = tiny().train()
        before = snapshot(model)
        assert unchanged(model, before)
        with torch.no_grad():
            edit(model)
        assert not unchanged(model, before)


# ------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("vmt_light", "'vmt_lite'"), ("LoRA", "'lora'"), ("polyhistr", "'polyhistor'")],
)
def test_an_unknown_method_offers_the_nearest(name, nearest):
    text = refuses(UnknownNameError, f"unknown method '{name}'.*did you mean", tiny(), name)
    assert nearest in text.split("Known:")[0]
    assert all(known in text.split("Known:")[1] for known in methods())


@pytest.mark.parametrize("name", [None, 3, ["vmt"], ""])
def test_a_method_is_a_name_or_a_method(name):
    refuses(UnknownNameError, "unknown method", tiny(), name)


@pytest.mark.parametrize(
    ("name", "given", "nearest"),
    [("vmt_lite", "rato", "ratio"), ("lora", "ranks", "rank"), ("polyhistor", "joined", "joint")],
)
def test_an_unknown_hyperparameter_offers_the_nearest(name, given, nearest):
    words = f"unknown hyper-parameter of {name} '{given}'; did you mean '{nearest}'"
    refuses(UnknownNameError, words, tiny(), name, **{given: 2})


def test_a_hyperparameter_of_another_method_is_unknown():
    refuses(UnknownNameError, "hyper-parameter of lora 'ratio'.*alpha", tiny(), "lora", ratio=2)


def test_an_unknown_task_offers_the_nearest():
    adapted = inject(tiny(), "vmt_lite", tasks=["semseg", "depth"])
    for call in (
        lambda: adapted(image(size=32), ["semsg"]),
        lambda: adapted(image(size=32), "semsg"),
        lambda: adapted.extract_task("semsg"),
        lambda: adapted.remove_task("semsg"),
    ):
        with pytest.raises(UnknownNameError, match="unknown task 'semsg'; did you mean 'semseg'"):
            call()
    assert adapted.tasks == ("semseg", "depth")


@pytest.mark.parametrize("tasks", [[], (), ["a", "b", "a"], ["a", ""], [""], "", ["a", 3], [None]])
def test_tasks_are_names_each_once(tasks):
    words = re.escape(f"tasks={tasks!r}; expected at least one name")
    refuses(HyperparameterError, words, tiny(), "vmt_lite", tasks=tasks)


@pytest.mark.parametrize("tasks", [3, 1.5, object])
def test_tasks_are_a_sequence(tasks):
    refuses(HyperparameterError, "tasks=", tiny(), "vmt_lite", tasks=tasks)


def test_one_string_is_one_task():
    adapted = inject(tiny(), "polyhistor", tasks="semseg", ratio=3)
    assert adapted.tasks == ("semseg",)
    assert list(adapted(image(size=32), "semseg")) == ["semseg"]


def test_no_tasks_means_the_four_of_pascal_context():
    assert inject(tiny(), "vmt_lite").tasks == ("semseg", "human_parts", "sal", "normals")


def test_a_task_comes_once_and_the_last_one_stays():
    adapted = inject(tiny(), "vmt_lite", tasks=["a", "b"])
    with pytest.raises(HyperparameterError, match="'a' is there already"):
        adapted.add_task("a")
    adapted.remove_task("b")
    with pytest.raises(HyperparameterError, match="'a' is the last task; use eject"):
        adapted.remove_task("a")


@pytest.mark.parametrize("name", ["vmt_lite", "polyhistor", "lora"])
@pytest.mark.parametrize("task", ["", 3, None])
def test_an_added_task_is_a_non_empty_string(name, task):
    adapted = inject(tiny(), name, tasks=["a"], **({} if name == "lora" else {"ratio": 3}))
    before, count = adapted.tasks, adapted.ledger().encoder
    with pytest.raises(PeftDenseError, match="non-empty string"):
        adapted.add_task(task)
    assert adapted.tasks == before
    assert adapted.ledger().encoder == count
    assert list(adapted(image(size=32))) == ["a"]


# ------------------------------------------------------------------------------ hyper-parameters


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vmt", {"ratio": 5}, "ratio is 5, but must divide .*12.*pass one of 1, 2, 3, 4, 6, 12"),
        (
            "adapter",
            {"ratio": 7},
            "ratio is 7, but must divide .*12.*pass one of 1, 2, 3, 4, 6, 12",
        ),
        ("adapter", {"ratio": 0}, "ratio is 0"),
        ("adapter", {"ratio": -2}, "ratio is -2"),
        ("adapter", {"ratio": 2.0}, r"ratio is 2\.0"),
        ("adapter", {"ratio": "2"}, "ratio is '2'"),
        ("adapter", {"ratio": True}, "ratio is True"),
        ("polyhistor", {"ratio": 16}, "ratio is 16, but must divide .*12"),
        (
            "polyhistor_lite",
            {"ratio": 5},
            "ratio is 5, but must divide .*template.*12.*pass one of 1, 2, 3, 4, 6, 12",
        ),
        ("polyhistor_lite", {"ratio": 2.0}, r"ratio is 2\.0"),
        ("polyhistor_lite", {"ratio": "2"}, "ratio is '2'"),
        ("vmt_lite", {"ratio": 2, "m": 4}, "m=4 .*allow 1, 2, 3, 6"),
        ("vmt_lite", {"m": 2}, "m=2 .*allow 1, 3"),
        ("vmt", {"gate": 1.5}, r"gate is 1\.5; pass a number from 0 to 1"),
        ("vmt", {"gate": "half"}, "gate is 'half'"),
        ("vmt", {"norm": "out"}, "norm is 'out'; pass one of 'in', None"),
        ("vmt", {"collect": "mean"}, "collect is 'mean'; pass one of 'sum', 'last'"),
        ("adapter", {"norm": "pre"}, "norm is 'pre'; pass one of 'in', 'out', None"),
        (
            "adapter",
            {"sites": "conv"},
            "sites is 'conv'; pass one of 'mlp', 'attn', 'both'",
        ),
        ("lora", {"rank": 0}, "rank is 0"),
        ("lora", {"rank": 13}, "rank is 13; pass a whole number from 1 to 12"),
        ("lora", {"rank": 1.5}, r"rank is 1\.5"),
        ("lora", {"targets": ()}, "targets is empty"),
        ("lora", {"targets": ("qvk",)}, "targets is 'qvk'; pass one of 'qkv'"),
        ("lora", {"targets": "kqv"}, "targets is 'kqv'; pass one of 'qkv'"),
        ("polyhistor", {"ratio": 3, "rank": 0}, "rank is 0"),
        ("polyhistor", {"ratio": 3, "k": 0}, "k is 0"),
        ("polyhistor_lite", {"rank": 0}, "rank is 0"),
        ("polyhistor_lite", {"k": -1}, "k is -1"),
        ("polyhistor_lite", {"k": 1.5}, r"k is 1\.5"),
    ],
)
def test_a_hyperparameter_that_does_not_fit(name, options, words):
    refuses(HyperparameterError, words, tiny(), name, **options)


CHOICES = [
    (name, field.name)
    for name in methods()
    for field in dataclasses.fields(method(name))
    if field.name in ("norm", "sites", "placement", "collect") and field.type != "bool"
]


@pytest.mark.parametrize(("name", "field"), CHOICES)
def test_a_choice_is_one_of_those_offered(name, field):
    words = f"{field} is 'sideways'; pass one of"
    refuses(HyperparameterError, words, tiny(), name, **{field: "sideways"})


OPTIONAL = [
    (name, field.name)
    for name in methods()
    for field in dataclasses.fields(method(name))
    if field.type == "int | None" and name != "hyperformer"  # which takes no rank at all
]


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
@pytest.mark.parametrize(("name", "field"), OPTIONAL)
def test_an_optional_number_is_checked_before_there_is_a_backbone(name, field, value):
    with pytest.raises(HyperparameterError, match=rf"{field} is {re.escape(repr(value))}; pass"):
        method(name, **{field: value})
    assert getattr(method(name, **{field: None}), field) is None
    assert type(getattr(method(name, **{field: numpy.int64(3)}), field)) is int


def test_an_unknown_activation_offers_the_nearest():
    refuses(UnknownNameError, "activation 'rilu'.*'relu'", tiny(), "adapter", activation="rilu")


def test_a_method_given_as_a_method_can_be_changed():
    how = method("vmt_lite", ratio=2)
    assert inject(tiny(), how, m=2).method == method("vmt_lite", ratio=2, m=2)
    refuses(UnknownNameError, "hyper-parameter of vmt_lite 'rank'", tiny(), how, rank=2)


# ------------------------------------------------------------------------------ wrapped models


def test_what_inject_wrapped():
    adapted = inject(tiny(), "vmt_lite")
    refuses(UnsupportedModelError, r"already wrapped by peft_dense.inject.*eject\(\)", adapted)
    dense = DenseModel(inject(tiny(), "vmt_lite", tasks=["a"]), {"a": 1}, width=8)
    refuses(UnsupportedModelError, r"already wrapped by peft_dense.inject.*eject\(\)", dense)


@pytest.mark.parametrize("name", ["vmt_lite", "shared_adapter", "shared_lora"])
def test_a_path_of_an_adapted_backbone(name):
    """A path carries adapters already; a second set would take the place of the first."""
    path = inject(tiny(), name, tasks=["a"]).paths["shared"]
    refuses(UnsupportedModelError, r"peft_dense.inject.*eject\(\)", path, "shared_adapter")


def test_a_backbone_with_adapters_of_its_own():
    """Its submodules aren't silently replaced by ours."""
    model = tiny()
    model.layers[0].blocks[0].mlp.adapter = nn.Linear(12, 12)
    assert inject(model, "shared_adapter", tasks=["a"], ratio=3)(image(size=32))
    model.adapters = nn.ModuleList([nn.Linear(12, 12)])
    refuses(UnsupportedModelError, "'adapters' already.*rename", model, "shared_adapter")


def test_data_parallel():
    refuses(UnsupportedModelError, "wrapped by DataParallel.*model.module", nn.DataParallel(tiny()))


def test_torch_compile():
    refuses(UnsupportedModelError, "torch.compile.*model._orig_mod", torch.compile(tiny()))
    compiled = tiny()
    compiled.compile()
    refuses(UnsupportedModelError, r"torch.compile.*anew after model\.compile\(\)", compiled)


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_distributed_wrappers(one_process):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(tiny())
    refuses(UnsupportedModelError, "DistributedDataParallel.*model.module", wrapped)
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("torch without fully_shard")
    sharded = tiny()
    mesh = init_device_mesh("cpu", (1,))
    fsdp.fully_shard(sharded.layers[0], mesh=mesh)
    with pytest.raises(
        UnsupportedModelError, match="FullyShardedDataParallel.*build the model anew"
    ):
        inject(sharded)


# ------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("model", [None, "swin_tiny_patch4_window7_224", SwinTransformer, {}])
def test_not_a_module(model):
    words = f"inject got {type(model).__name__}; expected a torch.nn.Module"
    refuses(UnsupportedModelError, words, model)


def test_no_site_lists_what_was_found():
    refuses(
        NoSiteError,
        "no 'mlp' site in HomeMadePyramid.*blocks hold .*channel_mix.*mixer.*Family",
        HomeMadePyramid(),
    )
    flat = Family(mlp=("channel_mix",))
    words = r"no 'attn' site in HomeMadePyramid; it has 2 'mlp'.*Family\(attn="
    refuses(NoSiteError, words, HomeMadePyramid(), "adapter", family=flat, sites="attn")
    words = "no 'qkv' linear in HomeMadePyramid; it has fc1, fc2"
    refuses(NoSiteError, words, HomeMadePyramid(), "lora", family=flat)


@pytest.mark.parametrize("name", ["bitfit", "shared_bitfit", "relative_bias"])
def test_a_method_without_a_parameter_to_train_says_so(name):
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4, bias=False), nn.Conv2d(8, 8, 2, 2, bias=False))
    family = Family(features=lambda model, x: [y := model[0](x), model[1](y)])
    words = f"has no .*(biases|parameters); {name} would train nothing"
    refuses(NoSiteError, words, model, name, family=family)


def test_no_stages():
    words = r"HomeMade has no forward_intermediates .*family=Family\(features="
    refuses(UnsupportedModelError, words, HomeMade())


def test_a_model_that_does_not_run():
    class Broken(HomeMadePyramid):
        def forward(self, x):
            return [self.classify(x)]

    refuses(UnsupportedModelError, "Broken failed on an image of 224x224 .*Family", Broken())


def test_a_model_that_can_not_be_copied():
    model = tiny()
    model.lock = (i for i in range(3))
    refuses(UnsupportedModelError, "can't be deep-copied .*inject works on copies", model)


# ------------------------------------------------------------------------------ images


@pytest.mark.parametrize(
    ("size", "nearest"),
    [((33, 32), "32x32"), ((50, 130), "48x128"), ((3, 5), "8x8"), ((40, 44), "40x48")],
)
def test_an_image_that_the_stages_can_not_divide(size, nearest):
    adapted = inject(tiny(), "vmt_lite")
    words = f"image size {size[0]}x{size[1]}: .*divisible by 8; the nearest size .* is {nearest}"
    with pytest.raises(ImageSizeError, match=words):
        adapted(torch.zeros(1, 3, *size))
    height, width = map(int, nearest.split("x"))
    assert adapted(torch.zeros(1, 3, height, width))["sal"][0].shape[-2:] == (
        height // 4,
        width // 4,
    )


def test_a_backbone_of_one_size_says_so():
    adapted = inject(build("nest"), "shared_adapter", tasks=["a"])
    with pytest.raises(
        ImageSizeError, match="takes only 64x64; the nearest size that works is 64x64"
    ):
        adapted(torch.zeros(1, 3, 96, 64))


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 32, 32, 3), (1, 1, 32, 32), (32, 32), (1, 2, 3, 32, 32)]
)
def test_images_are_batches_of_three_channels(shape):
    adapted = inject(tiny(), "vmt_lite")
    words = re.escape(f"images have shape {shape}; expected (B, 3, H, W)")
    with pytest.raises(ShapeError, match=words):
        adapted(torch.zeros(shape))


# ------------------------------------------------------------------------------ heads


def test_every_task_has_a_head_and_no_other():
    adapted = inject(tiny(), "vmt_lite", tasks=["semseg", "depth"])
    with pytest.raises(HyperparameterError, match="no head for 'depth'.*{'depth': 1}"):
        DenseModel(adapted, {"semseg": 21})
    with pytest.raises(UnknownNameError, match="'deptj'; did you mean 'depth'"):
        DenseModel(adapted, {"semseg": 21, "deptj": 1})
    with pytest.raises(
        UnknownNameError, match="unknown head 'segfromer'; did you mean 'segformer'"
    ):
        DenseModel(adapted, {"semseg": 21, "depth": 1}, head="segfromer")


@pytest.mark.parametrize("channels", [0, -1, 2.5, "21", None])
def test_a_head_has_a_whole_number_of_channels(channels):
    adapted = inject(tiny(), "vmt_lite", tasks=["semseg"])
    with pytest.raises(HyperparameterError, match="whole number"):
        DenseModel(adapted, {"semseg": channels})


def test_an_unknown_option_of_a_head_offers_the_nearest():
    adapted = inject(tiny(), "vmt_lite", tasks=["semseg"])
    with pytest.raises(UnknownNameError, match="'widht'; did you mean 'width'"):
        DenseModel(adapted, {"semseg": 21}, widht=32)


# ------------------------------------------------------------------------------ home-made backbones


@pytest.mark.parametrize("name", ["vmt_lite", "vmt", "adapter", "shared_adapter", "multitask_full"])
def test_a_home_made_backbone_takes_one_family(name):
    model = HomeMade().eval()
    adapted = inject(model, name, tasks=["a", "b"], family=HOME_MADE)
    assert adapted.channels == (8, 16)
    assert adapted.reductions == (4, 8)
    assert "classify" in adapted.info.unused
    x = image(size=32)
    for features in adapted(x).values():
        for feature, expected in zip(features, model.maps(x), strict=True):
            torch.testing.assert_close(feature, expected)


def test_lora_on_convolutions_by_family():
    adapted = inject(HomeMade().eval(), "lora", family=HOME_MADE, targets=("fc1", "fc2"), rank=2)
    assert adapted.ledger().encoder == 4 * 2 * 2 * (8 + 8 + 16 + 16)
    merged = adapted.merge()
    for a, b in zip(merged(image())["sal"], adapted(image())["sal"], strict=True):
        torch.testing.assert_close(a, b)


def test_a_registered_family_is_found_and_the_latest_wins(monkeypatch):
    monkeypatch.setattr(families.base, "_FAMILIES", list(families.base._FAMILIES))
    register_family(HomeMade, Family(mlp=("nothing",)))
    refuses(UnsupportedModelError, "no forward_intermediates", HomeMade())
    register_family(HomeMade, HOME_MADE)
    assert inject(HomeMade(), "vmt_lite").info.family is HOME_MADE
    assert isinstance(inject(HomeMadePyramid(), "vmt_lite"), AdaptedBackbone)  # a subclass too


def test_a_list_of_maps_needs_no_features():
    class Plain(HomeMadePyramid):
        def __init__(self):
            super().__init__()
            for stage in self.stages:
                stage.mlp = stage.channel_mix
                del stage.channel_mix

            def forward(self, x):
                return x + self.mlp(x + self.mixer(x))

            for stage in self.stages:
                stage.__class__ = type("MlpBlock", (Block,), {"forward": forward})

    model = Plain().eval()
    adapted = inject(model, "vmt_lite", tasks=["a"])
    assert [site.name for site in adapted.info.sites] == ["stages.0.mlp", "stages.1.mlp"]
    for feature, expected in zip(adapted(image())["a"], model(image()), strict=True):
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize(
    "name", ["vmt_lite", "polyhistor_lite", "lora", "shared_adapter", "multitask_full", "vpt_deep"]
)
def test_inject_leaves_a_good_model_alone_too(name):
    model = tiny().train()
    before = snapshot(model)
    adapted = inject(model, name)
    sum(feature.sum() for feature in adapted(image(size=32))["sal"]).backward()
    assert unchanged(model, before)
    assert adapted.eject() is model


# ------------------------------------------------------------------------------ other values

OTHERS = [
    ("mona", {"width": 4}),
    ("convpass", {"width": 4}),
    ("polyhistor_lite", {"ratio": 2, "k": 4}),
    ("polyhistor_lite", {"ratio": 2, "k": 4, "literal": True}),
    ("polyhistor_lite", {"ratio": 2, "rank": 2, "per_task_kernels": True}),
    ("polyhistor", {"ratio": 3, "k": 8, "rank": 2}),
    ("dora", {"rank": 3}),
    ("lora", {"rank": 3, "norm": True}),
]


@pytest.mark.parametrize(("name", "options"), OTHERS)
def test_other_hyperparameters_than_the_defaults_are_used_and_counted(name, options):
    model = SwinTransformer(
        img_size=16, patch_size=2, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2)
    ).eval()
    adapted = inject(model, name, tasks=["a", "b"], **options)
    count = sum(p.numel() for _, p in adapted.adapter_parameters())
    assert count == adapted.ledger().encoder == adapted.method.count(adapted.info, 2)
    plain = inject(model, "decoders_only", tasks=["a"])(image(size=16))["a"]
    started = adapted(image(size=16))
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    moved = adapted(image(size=16))
    for task in "ab":
        for before, after, same in zip(started[task], moved[task], plain, strict=True):
            torch.testing.assert_close(before, same, rtol=1e-4, atol=1e-4)
            assert not torch.allclose(after, same, atol=1e-3)


@pytest.mark.parametrize("k", [3, 9, 15])
def test_literal_halves_k_so_it_is_even(k):
    options = {"ratio": 3, "k": k, "literal": True}
    refuses(HyperparameterError, f"k={k} must be even", tiny(), "polyhistor_lite", **options)


def test_a_parallel_branch_at_what_changes_the_width_names_the_place_and_the_way():
    words = "placement='parallel' can't go at '.*attn.*use placement='serial'"
    refuses(HyperparameterError, words, build("mvitv2"), "adapter", sites="attn")
