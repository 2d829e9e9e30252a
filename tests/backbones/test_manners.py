"""The probe asks nothing of its caller, and leaves the model and its caller's modes alone."""

from __future__ import annotations

import random

import pytest
import timm
import torch
from torch import nn

from peft_dense import inject
from peft_dense.backbones import examine
from peft_dense.errors import UnsupportedModelError
from zoo import build, image


class Stage(nn.Module):
    """One stage with a feed-forward part; what it computes may be changed by the test."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mlp = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return [self.mlp(self.stem(x))]


# ------------------------------------------------------------------ the caller's modes


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode_of_the_caller(mode):
    expected = examine(build("swin"))
    model = build("swin")
    with mode():
        info = examine(model)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert (info.sites, info.parameters, info.operations) == (
        expected.sites,
        expected.parameters,
        expected.operations,
    )
    with mode():
        adapted = inject(model, "vmt_lite", tasks=["a"])
        adapted(image())
    assert all(p.requires_grad for _, p in adapted.adapter_parameters())


def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        model = build("swin")
    assert all(p.is_inference() for p in model.parameters())
    assert examine(model).sites == examine(build("swin")).sites


def test_a_model_on_the_meta_device_is_probed_as_any():
    with torch.device("meta"):
        model = timm.create_model("pvt_v2_b0")
    info = examine(model)
    assert info.sites == examine(timm.create_model("pvt_v2_b0")).sites
    assert all(t.device.type == "meta" for t in model.state_dict().values())


def test_no_random_number_is_drawn():
    class Drawing(Stage):
        def forward(self, x):
            if self.training:  # layer drop, as some models have it
                torch.rand(3)
            return super().forward(x)

    model = timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), drop_path_rate=0.5
    )
    for some in (Drawing(), model):
        state, python = torch.random.get_rng_state(), random.getstate()
        examine(some)
        assert torch.equal(state, torch.random.get_rng_state())
        assert python == random.getstate()


# ------------------------------------------------------------------ users' hooks


class Listener:
    """Keeps what it hears, and must not be copied."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def __deepcopy__(self, memo: object):
        raise RuntimeError("listeners can't be copied")

    def forward(self, module, args, output):
        self.heard.append(module)

    def before(self, module, args):
        self.heard.append(module)

    def backward(self, module, given, wanted):
        self.heard.append(module)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_users_hooks_hear_nothing_of_the_probe_and_stay():
    model, listener = Stage(), Listener()
    calls: list[int] = []
    model.mlp.register_forward_hook(listener.forward)
    model.mlp.register_forward_pre_hook(listener.before)
    model.stem.register_full_backward_hook(listener.backward)
    model.stem.register_forward_hook(lambda *_: calls.append(1))
    examine(model)
    assert not listener.heard and not calls
    model(torch.zeros(1, 3, 8, 8))[0].sum().backward()
    assert len(listener.heard) == 3 and len(calls) == 1


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("wrap", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm])
def test_hooks_by_which_a_model_computes_run(wrap):
    model = Stage()
    wrap(model.mlp)
    info = examine(model)
    assert [site.name for site in info.sites] == ["mlp"]
    assert info.parameters.keys() == dict(model.named_parameters()).keys()


def test_a_model_that_runs_by_users_hooks_only_is_run_with_them():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.mlp = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            return [self.mlp(self.stem(x))]

    model = Half()
    with pytest.raises(UnsupportedModelError):
        examine(model)
    model.stem.register_forward_hook(lambda module, args, output: output[:, :8])
    assert examine(model).channels == (8,)


def test_timms_own_hooks_are_part_of_its_model():
    model = timm.create_model(
        "resnet18", features_only=True, feature_cls="hook", out_indices=(1, 2, 3, 4)
    )
    assert examine(model).reductions == (4, 8, 16, 32)


# ------------------------------------------------------------------ what is left out


class Branches(nn.Module):
    """Code goes over a list of parts, called or not, as crossvit's does."""

    def __init__(self, read: bool = False) -> None:
        super().__init__()
        self.stem, self.mlp, self.read = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1), read
        self.heads = nn.ModuleList(nn.Linear(8, 2) for _ in range(2))
        self.named = nn.ModuleDict({"a": nn.Sequential(nn.Linear(8, 2))})
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        x = self.mlp(self.stem(x))
        assert [len(self.heads), len(self.named)] == [2, 1]
        assert len(list(self.named["a"])) == 1
        if self.read:
            x = x.to(self.norm.weight.dtype)
        return [x]


def test_containers_stay_and_their_unused_parts_go():
    model = Branches()
    assert examine(model).unused == ("heads.0", "heads.1", "named.a.0", "norm")
    inject(model, "vmt_lite", tasks=["a"])(torch.zeros(1, 3, 8, 8))


def test_of_unused_modules_inside_one_another_the_outermost_is_named():
    model = Branches()
    model.norm = Branches()  # a whole model that nothing calls
    assert examine(model).unused == ("heads.0", "heads.1", "named.a.0", "norm")


def test_what_is_read_but_never_called_stays():
    model = Branches(read=True)
    assert examine(model).unused == ()
    inject(model, "vmt_lite", tasks=["a"])(torch.zeros(1, 3, 8, 8))


def test_crossvit_runs_after_inject():
    model = timm.create_model("crossvit_tiny_240", img_size=240).eval()
    adapted = inject(model, "bitfit", tasks=["a"])
    x = torch.randn(1, 3, 240, 240)
    expected = model.forward_intermediates(x, norm=False, intermediates_only=True)
    for a, index in zip(adapted(x)["a"], adapted.info.indices, strict=True):
        torch.testing.assert_close(a, expected[index])


@pytest.mark.filterwarnings("ignore:VisionTransformer is flat")
def test_few_forwards(monkeypatch):
    """Probing is two forwards of a usual model, three where it takes its native size only."""
    for name, most in (("swin", 2), ("pvtv2", 2), ("vit", 2), ("tiny_vit", 2)):
        model, ran = build(name), []
        kind = type(model)
        forward = kind.forward_intermediates

        def counted(self, *args, forward=forward, ran=ran, **keywords):
            ran.append(1)
            return forward(self, *args, **keywords)

        monkeypatch.setattr(kind, "forward_intermediates", counted)
        examine(model)
        assert len(ran) == most
