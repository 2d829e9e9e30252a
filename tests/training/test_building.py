"""A backbone gets the weights that somebody chose, or there is an error that names the ways out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense.data import make_archive
from peft_dense.errors import (
    CheckpointError,
    DataError,
    HyperparameterError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.heads import Head, base
from peft_dense.tasks import task
from peft_dense.training import Recipe, Setup, make_backbone, make_data, make_model, run_all
from peft_dense.training.building import load_weights

ARGUMENTS = {
    "img_size": 32,
    "window_size": 4,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("data") / "own"
    return str(make_archive(root, train=2, val=1, size=(40, 56), layout="folder"))


def test_random_weights_on_own_images_must_be_asked_for(folder: str) -> None:
    with pytest.raises(HyperparameterError, match="random weights") as error:
        make_backbone(Setup(data=folder, backbone_args=ARGUMENTS))
    for way in ("--pretrained", "--weights FILE", "--no-pretrained"):
        assert way in str(error.value)
    make_backbone(Setup(data=folder, backbone_args=ARGUMENTS, pretrained=False))
    make_backbone(Setup(backbone_args=ARGUMENTS))  # made scenes need nobody's weights


def test_it_fails_before_anything_is_written(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(HyperparameterError, match="random weights"):
        run_all(Setup(data=folder, backbone_args=ARGUMENTS, out=out, cpu=True), Recipe(steps=1))
    assert not out.exists()


def test_without_a_network_the_error_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = ["train", "--backbone", "pvt_v2_b0", "--pretrained", "--cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "peft_dense", *command, "--out", str(tmp_path / "out")],
        env={**environment, "TORCH_HOME": str(tmp_path / "torch")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "Retrying" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: the weights of pvt_v2_b0 can't be downloaded")
    assert "--weights FILE" in line and "Traceback" not in done.stderr


def test_weights_that_timm_has_not_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        make_backbone(Setup(backbone="swin_tiny_patch4", pretrained=True))
    with pytest.raises(UnsupportedModelError, match="no name of timm's"):
        make_backbone(Setup(pretrained=True))
    with pytest.raises(UnsupportedModelError, match="timm has no weights for"):
        make_backbone(Setup(backbone="coatnet_0_224", pretrained=True))


def test_what_went_wrong_with_a_download_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, pretrained: bool, **options: Any) -> None:
        raise ConnectionError(f"no route to the host\nof {name}, {options}" + "!" * 999)

    build = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **o: (refuse if o.get("pretrained") else build)(name, **o),
    )
    with pytest.raises(CheckpointError) as error:
        make_backbone(Setup(backbone="resnet10t", pretrained=True, drop_path=0.25))
    said = str(error.value)
    assert "ConnectionError: no route to the host of resnet10t" in said and "\n" not in said
    assert "'drop_path_rate': 0.25" in said and 0 < said.count("!") < 200


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    net = make_backbone(Setup(backbone_args=ARGUMENTS))
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="can't be read as safetensors"):
        load_weights(net, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="no file"):
        load_weights(net, tmp_path / "other")


def test_a_window_is_set_and_lacking_weights_are_named(tmp_path: Path) -> None:
    net = make_backbone(Setup(backbone_args=ARGUMENTS))
    state = {k: v for k, v in net.state_dict().items() if "attn_mask" not in k}
    first = next(iter(state))
    save_file({k: v for k, v in state.items() if k != first}, tmp_path / "w.safetensors")
    setup = Setup(backbone_args=ARGUMENTS, weights=tmp_path / "w.safetensors")
    with pytest.warns(UserWarning, match=f"lacks 1 of the backbone's parameters.*{first}"):
        make_backbone(setup)


def test_data_are_resized_and_named_as_asked(folder: str) -> None:
    known, train, val = make_data(Setup(data=folder, image_size=(32, 48)), Recipe())
    assert {*known, "image", "meta"} == set(train[0]) == set(val[0]) and len(train) == 2
    assert train[0]["image"].shape == val[0]["image"].shape == (3, 32, 48)
    with pytest.raises(DataError, match="no folder"):
        make_data(Setup(data="/nowhere"), Recipe())


def test_seeds_make_other_scenes() -> None:
    setup = Setup(scenes=(2, 2), image_size=(32, 32), tasks="sal")
    sets = [make_data(setup, Recipe(seed=seed))[1:] for seed in (0, 1)]
    images = [data[index]["image"] for pair in sets for data in pair for index in range(2)]
    assert not any(torch.equal(a, b) for a, b in combinations(images, 2))


def test_buffers_in_a_file_of_weights_are_no_parameters(tmp_path: Path) -> None:
    """They are loaded, and don't make up for parameters that lack."""
    net = make_backbone(Setup(backbone="resnet10t"))
    state = {k: v.clone() for k, v in net.state_dict().items()}
    state["bn1.running_mean"] += 1
    save_file(state, tmp_path / "all.safetensors")
    assert load_weights(net, tmp_path / "all.safetensors") == []
    assert torch.equal(net.state_dict()["bn1.running_mean"], state["bn1.running_mean"])
    buffers = dict(net.named_buffers())
    save_file(buffers, tmp_path / "buffers.safetensors")
    with pytest.raises(CheckpointError, match="holds 0 of the backbone's"):
        load_weights(net, tmp_path / "buffers.safetensors")


class Plain(Head):
    """A head that has no width."""

    name = "plain"

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__(channels, out_channels)
        self.last = nn.Conv2d(channels[0], out_channels, 1)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        made: torch.Tensor = self.last(features[0])
        return made


def test_a_head_has_a_width_if_it_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base._HEADS, "plain", Plain)
    known, net = {"sal": task("sal")}, make_backbone(Setup(backbone_args=ARGUMENTS))

    def size(head: str, width: int) -> int:
        setup = Setup(head=head, head_width=width)
        model = make_model(setup, net, "decoders_only", {}, known, 0)
        return sum(p.numel() for p in model.heads.parameters())

    assert size("segformer", 8) < size("segformer", 16)
    assert size("plain", 8) == size("plain", 16) == 8 + 1  # the first stage has 8 channels
