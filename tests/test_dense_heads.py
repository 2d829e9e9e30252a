"""A dense model takes its heads by name, as a callable, or one of either for each task."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from peft_dense import DenseModel, inject
from peft_dense.errors import CheckpointError, HyperparameterError, UnknownNameError
from peft_dense.heads import HRNetHead, SegFormerHead, heads
from peft_dense.keeping.files import CONFIG
from zoo import perturb

OUTPUTS = {"semseg": 5, "a.b": 3, "keys": 1}
CHANNELS = (12, 24)


@functools.cache
def swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2), num_classes=3
    ).eval()


def x() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class Finest(nn.Module):
    """A head that no one registered: a convolution of the finest stage."""

    def __init__(self, channels, out_channels, dropout=0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2d(channels[0], out_channels, 1)

    def forward(self, features):
        return self.conv(self.dropout(features[0]))


def dense(head="segformer", **options) -> DenseModel:
    backbone = swin()  # before the seed: building it draws too
    torch.manual_seed(1)
    model = DenseModel(inject(backbone, "vmt_lite", tasks=list(OUTPUTS)), OUTPUTS, head, **options)
    perturb(model, [p for p in model.parameters() if p.requires_grad], 0.05)
    model.train()(x())  # running statistics move
    return model.eval()


MIXED = {"semseg": "hrnet", "a.b": Finest, "keys": "segformer"}


@pytest.mark.parametrize("name", heads())
def test_a_head_by_name_serves_every_task(name):
    predictions = dense(name)(x())
    assert {task: tuple(p.shape) for task, p in predictions.items()} == {
        task: (2, out, 32, 32) for task, out in OUTPUTS.items()
    }


def test_each_task_has_the_head_of_the_mapping():
    model = dense(MIXED)
    made = {task: type(model.heads[task]) for task in OUTPUTS}
    assert made == {"semseg": HRNetHead, "a.b": Finest, "keys": SegFormerHead}
    assert {task: p.shape[1] for task, p in model(x()).items()} == OUTPUTS
    norms = len(OUTPUTS) * 2 * sum(CHANNELS)
    counted = HRNetHead.count(CHANNELS, 5) + (12 + 1) * 3 + SegFormerHead.count(CHANNELS, 1)
    assert model.ledger().heads == counted + norms


def test_a_mapping_of_one_name_is_that_name():
    one, other = dense("hrnet"), dense(dict.fromkeys(OUTPUTS, "hrnet"))
    assert all(torch.equal(p, other(x())[task]) for task, p in one(x()).items())


def test_options_reach_every_head():
    model = dense(MIXED, dropout=0.5)
    assert all(model.heads[task].dropout.p == 0.5 for task in OUTPUTS)


def test_the_order_of_a_mapping_is_of_no_matter():
    one, other = dense(MIXED), dense(dict(reversed(MIXED.items())))
    assert all(torch.equal(p, other(x())[task]) for task, p in one(x()).items())


@pytest.mark.parametrize(
    "head", ["hrnet", dict.fromkeys(OUTPUTS, "hrnet"), MIXED | {"a.b": "hrnet"}]
)
def test_named_heads_come_back_by_themselves(tmp_path, head):
    model = dense(head, dropout=0.25)
    again = DenseModel.load(model.save(tmp_path), swin()).eval()
    assert all(torch.equal(p, again(x())[task]) for task, p in model(x()).items())
    assert all(again.heads[task].dropout.p == 0.25 for task in OUTPUTS)


@pytest.mark.parametrize("given", [{"a.b": Finest}, MIXED])
def test_a_callable_is_passed_again_on_load(tmp_path, given):
    model = dense(MIXED)
    folder = model.save(tmp_path)
    names = json.loads((folder / CONFIG).read_text())["heads"]["names"]
    assert names == MIXED | {"a.b": None}
    again = DenseModel.load(folder, swin(), head=given).eval()
    assert all(torch.equal(p, again(x())[task]) for task, p in model(x()).items())


def test_a_callable_for_all_is_passed_again_on_load(tmp_path):
    model = dense(Finest)
    again = DenseModel.load(model.save(tmp_path), swin(), head=Finest).eval()
    assert all(torch.equal(p, again(x())[task]) for task, p in model(x()).items())


def test_loading_without_the_callable_says_whose_it_is(tmp_path):
    dense(MIXED).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"of 'a\.b' in .* made by a callable; pass it as"):
        DenseModel.load(tmp_path, swin())
    with pytest.raises(CheckpointError, match=r"heads don't fit"):  # another head than was saved
        DenseModel.load(tmp_path, swin(), head={"a.b": "segformer"})
    with pytest.raises(UnknownNameError, match=r"unknown task with a head 'a_b'; did you mean"):
        DenseModel.load(tmp_path, swin(), head={"a.b": Finest, "a_b": Finest})


def test_wrong_heads():
    encoder = inject(swin(), "vmt_lite", tasks=list(OUTPUTS))
    with pytest.raises(UnknownNameError, match="unknown head 'hrnett'; did you mean 'hrnet'"):
        DenseModel(encoder, OUTPUTS, MIXED | {"keys": "hrnett"})
    with pytest.raises(UnknownNameError, match="unknown task with a head 'key'; did you mean"):
        DenseModel(encoder, OUTPUTS, MIXED | {"key": "hrnet"})
    with pytest.raises(HyperparameterError, match="no head for 'a.b', 'keys'; give every task"):
        DenseModel(encoder, OUTPUTS, {"semseg": "hrnet"})
    with pytest.raises(UnknownNameError, match=r"option of head 'hrnet' 'width'.* Known: dropout"):
        DenseModel(encoder, OUTPUTS, "hrnet", width=64)
