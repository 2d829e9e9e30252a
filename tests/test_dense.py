"""A dense model predicts at the images' size, trains, and leaves frozen statistics alone."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from peft_dense import DenseModel, inject
from peft_dense.errors import ImageSizeError, ShapeError, UnknownNameError
from peft_dense.ownership import frozen_tensors
from zoo import build, perturb

OUTPUTS = {"semseg": 5, "a.b": 3, "keys": 1}


@functools.cache
def swin(drop_path: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
        drop_path_rate=drop_path,
        num_classes=3,
    ).eval()


def dense(name: str = "vmt_lite", model: nn.Module | None = None, **options) -> DenseModel:
    model = swin() if model is None else model
    torch.manual_seed(1)
    encoder = inject(model, name, tasks=list(OUTPUTS), **options)
    dense_model = DenseModel(encoder, OUTPUTS, width=8)
    perturb(dense_model, [p for p in dense_model.parameters() if p.requires_grad], 0.05)
    return dense_model.eval()


def x(height: int = 32, width: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


def loss_of(predictions: dict[str, torch.Tensor]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return sum(
        F.mse_loss(p, torch.randn(p.shape, generator=generator)) for p in predictions.values()
    )


# ------------------------------------------------------------------------------ predictions


@pytest.mark.parametrize("size", [(32, 32), (40, 64), (8, 8)])
def test_predictions_have_the_images_size(size):
    predictions = dense()(x(*size))
    assert {task: tuple(p.shape) for task, p in predictions.items()} == {
        task: (2, channels, *size) for task, channels in OUTPUTS.items()
    }


def test_a_subset_of_tasks_predicts_the_same():
    model = dense()
    every = model(x())
    assert list(every) == list(model.tasks) == list(OUTPUTS)
    for chosen in (["keys"], ("a.b", "semseg"), "semseg"):
        some = model(x(), chosen)
        assert list(some) == ([chosen] if isinstance(chosen, str) else list(chosen))
        assert all(torch.equal(p, every[task]) for task, p in some.items())
    assert model(x(), []) == {}


def test_a_prediction_is_the_head_of_the_normalised_stages():
    model = dense()
    features = model.encoder(x())["a.b"]
    norms, head = model.norms["a.b"], model.heads["a.b"]
    normed = [
        F.layer_norm(f.permute(0, 2, 3, 1), f.shape[1:2], n.weight, n.bias).permute(0, 3, 1, 2)
        for f, n in zip(features, norms, strict=True)
    ]
    expected = F.interpolate(head(normed), size=(32, 32), mode="bilinear")
    torch.testing.assert_close(model(x())["a.b"], expected)


def test_a_batch_is_its_images():
    model, images = dense(), x(batch=3)
    whole = model(images)
    for i in range(3):
        for task, prediction in model(images[i : i + 1]).items():
            torch.testing.assert_close(prediction[0], whole[task][i], rtol=1e-4, atol=1e-5)


def test_a_head_is_any_callable():
    class OneByOne(nn.Module):
        def __init__(self, channels, out_channels, bias):
            super().__init__()
            self.conv = nn.Conv2d(channels[0], out_channels, 1, bias=bias)

        def forward(self, features):
            return self.conv(features[0])

    encoder = inject(swin(), "vmt_lite", tasks=list(OUTPUTS))
    model = DenseModel(encoder, OUTPUTS, head=OneByOne, bias=False)
    assert model(x())["semseg"].shape == (2, 5, 32, 32)
    norms = len(OUTPUTS) * 2 * (12 + 24)
    assert model.ledger().heads == 12 * sum(OUTPUTS.values()) + norms


def test_wrong_input():
    model = dense()
    with pytest.raises(ImageSizeError, match="nearest size that works is 32x40"):
        model(x(33, 39))
    with pytest.raises(ShapeError, match=r"expected \(B, 3, H, W\)"):
        model(x()[0])
    with pytest.raises(ShapeError, match="dtype|float"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(UnknownNameError, match="unknown task 'key'; did you mean 'keys'"):
        model(x(), ["key"])


# ------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize("name", ["decoders_only", "vmt_lite", "polyhistor_lite", "multitask_full"])
def test_the_ledger_counts_all_that_trains(name):
    model = dense(name)
    ledger = model.ledger()
    assert ledger.total == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert ledger.encoder == model.encoder.ledger().encoder
    assert ledger.heads == sum(
        p.numel() for part in (model.norms, model.heads) for p in part.parameters()
    )
    assert f"{ledger.total:,}" in str(ledger)


@pytest.mark.parametrize("name", ["decoders_only", "vmt_lite", "polyhistor_lite", "multitask_full"])
def test_every_trainable_parameter_gets_a_gradient_and_no_other(name):
    model = dense(name).train()
    loss_of(model(x())).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert all(p.grad is None for p in swin().parameters())


def test_a_tasks_head_gets_no_gradient_from_another_task():
    model = dense()
    loss_of(model(x(), ["keys"])).backward()
    for part in (model.heads, model.norms):
        assert all(p.grad is not None for p in part["keys"].parameters())
        for task in ("semseg", "a.b"):
            assert all(p.grad is None for p in part[task].parameters())


def test_trainable_state_names_each_tensor_once_and_no_frozen_one():
    model = dense("polyhistor", ratio=3)
    state = model.trainable_state_dict()
    assert len({value.data_ptr() for value in state.values() if value.numel()}) == len(state)
    frozen = {p.data_ptr() for p in frozen_tensors(model.encoder).values()}
    assert not frozen & {value.data_ptr() for value in state.values()}
    assert not any(value.requires_grad for value in state.values())


@pytest.mark.parametrize("name", ["vmt_lite", "shared_adapter", "polyhistor_lite", "lora"])
def test_adapters_alone_lower_the_loss_and_no_frozen_tensor_moves(name):
    model = dense(name)
    before = {key: value.clone() for key, value in swin().state_dict().items()}
    optimizer = torch.optim.Adam([p for _, p in model.encoder.adapter_parameters()], lr=3e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = sum((p - 1).square().mean() for p in model(x()).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert all(torch.equal(value, before[key]) for key, value in swin().state_dict().items())
    frozen = frozen_tensors(model.encoder)
    kept = [key for key in frozen if key in before]  # all but indices that aren't saved
    assert len(kept) > 10
    assert all(torch.equal(frozen[key], before[key]) for key in kept)


# ------------------------------------------------------------------------------ modes


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers() if "running" in name}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.mark.parametrize("name", ["shared_adapter", "polyhistor_lite", "decoders_only"])
def test_frozen_batch_norm_stays_in_eval(name):
    model = build("tiny_vit").train()
    at_start = statistics(model)
    assert at_start
    adapted = dense(name, model).encoder.train()
    norms = [m for m in adapted.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    assert norms
    assert not any(norm.training for norm in norms)
    before = statistics(adapted)
    adapted(x(64, 64))
    assert not moved(before, statistics(adapted))
    assert not moved(at_start, statistics(model))
    assert model.training  # the original keeps its mode
    assert all(m.training for m in model.modules())


def test_heads_statistics_follow_train():
    model = dense("shared_adapter", build("tiny_vit"))
    model(x(64, 64))
    before = statistics(model)
    model.eval()(x(64, 64))
    assert not moved(before, statistics(model))
    model.train()(x(64, 64))
    changed = moved(before, statistics(model))
    assert changed and all(name.startswith("heads.") for name in changed)


@pytest.mark.parametrize(
    ("name", "options"), [("multitask_full", {}), ("shared_adapter", {"unfreeze_norms": True})]
)
def test_batch_norm_that_trains_moves_its_own_statistics_only(name, options):
    model = build("tiny_vit")
    at_start = statistics(model)
    adapted = dense(name, model, **options).encoder.train()
    before = statistics(adapted)
    adapted(x(64, 64))
    changed = moved(before, statistics(adapted))
    assert changed and all(key.startswith("paths.shared.") for key in changed)
    assert not moved(at_start, statistics(model))
    assert not moved(at_start, statistics(adapted.eject()))
    # And in eval they stay.
    before = statistics(adapted.eval())
    adapted(x(64, 64))
    assert not moved(before, statistics(adapted))


def test_each_path_of_single_task_full_owns_its_statistics():
    adapted = dense("single_task_full", build("tiny_vit")).encoder.train()
    before = statistics(adapted)
    adapted(x(64, 64), ["keys"])
    changed = moved(before, statistics(adapted))
    assert changed and all(key.startswith("paths.%6Beys.") for key in changed)


def test_drop_path_follows_train():
    adapted = dense("vmt_lite", swin(0.5)).encoder
    assert all(
        torch.equal(a, b) for a, b in zip(adapted(x())["keys"], adapted(x())["keys"], strict=True)
    )
    adapted.train()
    torch.manual_seed(0)
    first = adapted(x())["keys"]
    second = adapted(x())["keys"]
    assert not torch.equal(first[-1], second[-1])
    torch.manual_seed(0)
    assert torch.equal(adapted(x())["keys"][-1], first[-1])


def test_the_mode_is_the_models():
    assert not inject(swin(), "vmt_lite").training
    training = SwinTransformer(
        img_size=32, window_size=4, embed_dim=12, depths=(1,), num_heads=(1,), num_classes=0
    ).train()
    assert inject(training, "vmt_lite").training


def test_a_dense_model_moves_as_a_whole():
    model = dense("polyhistor_lite").double()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert {p.dtype for p in model(x().double()).values()} == {torch.float64}
    assert {p.dtype for p in swin().parameters()} == {torch.float32}  # the original stays


def test_heads_follow_the_encoder_type():
    torch.manual_seed(0)
    double = SwinTransformer(
        img_size=32, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2)
    ).double()
    encoder = inject(double, "vmt_lite", tasks=["a"])
    model = DenseModel(encoder, {"a": 2}, width=8)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
