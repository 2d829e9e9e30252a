"""Batches, averages, states and processes: each does what the trainer builds on."""

from __future__ import annotations

import contextlib
import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.norm_act import BatchNormAct2d
from timm.models.swin_transformer import SwinTransformer
from torch import nn

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense import DenseModel, inject
from peft_dense.data import RandomFlip, Resize, Scenes
from peft_dense.errors import CheckpointError, DataError, HyperparameterError
from peft_dense.training import Checkpoints, Recipe
from peft_dense.training import processes as shared_processes
from peft_dense.training.averaging import Average
from peft_dense.training.batches import Batches, Draws, load_batches, part_of
from peft_dense.training.log import Log
from peft_dense.training.optimizer import make_optimizer, set_rates
from peft_dense.training.processes import (
    SyncBatchNorm,
    share_model,
    sum_gradients,
    sum_over_processes,
)
from processes import in_two_processes, needs_gloo

few = settings(max_examples=25, deadline=None)
numbers = st.integers(1, 9)


# ---------------------------------------------------------------------- batches


@few
@given(length=st.integers(8, 30), batch=st.integers(4, 8), world=st.integers(1, 4), seed=numbers)
def test_processes_part_what_one_process_sees(
    length: int, batch: int, world: int, seed: int
) -> None:
    steps = 7
    one = list(Batches(length, batch, steps, seed=seed))
    shares = [
        list(Batches(length, batch, steps, seed=seed, rank=r, world=world)) for r in range(world)
    ]
    for step in range(steps):
        together = [draw for share in shares for draw in share[step]]
        assert sorted(together) == sorted(one[step])
        sizes = {len(share[step]) for share in shares}
        assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


@few
@given(length=st.integers(1, 30), batch=numbers, start=st.integers(0, 12), seed=numbers)
def test_a_run_that_goes_on_sees_what_is_left(
    length: int, batch: int, start: int, seed: int
) -> None:
    whole = list(Batches(length, batch, 12, seed=seed))
    assert list(Batches(length, batch, 12, start=start, seed=seed)) == whole[start:]


@few
@given(length=st.integers(1, 30), batch=numbers, seed=numbers)
def test_an_epoch_sees_no_image_twice(length: int, batch: int, seed: int) -> None:
    draws = [draw for step in Batches(length, batch, 12, seed=seed) for draw in step]
    assert set(Counter(draws).values()) == {1}
    assert all(0 <= index < length for _, index in draws)


def test_seeds_shuffle_differently() -> None:
    assert list(Batches(30, 5, 6, seed=0)) != list(Batches(30, 5, 6, seed=1))
    first, second = (step[0] for step in list(Batches(5, 5, 2, seed=0)))
    assert first[0] != second[0]  # another epoch


def test_each_process_loads_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, scenes = Accelerator(cpu=True), Scenes(7, (8, 12), ["sal"])

    def loaded(process: int, world: int) -> list[list[str]]:
        monkeypatch.setattr(Accelerator, "process_index", process)
        monkeypatch.setattr(Accelerator, "num_processes", world)
        batches = load_batches(scenes, Recipe(batch=4, seed=3), 1, 5, accelerator)
        return [[about["id"] for about in batch["meta"]] for batch in batches]

    whole, first, second = loaded(0, 1), loaded(0, 2), loaded(1, 2)
    assert len(whole) == 4 and all(len(set(batch)) == 4 for batch in whole)
    assert first == [batch[::2] for batch in whole] and second == [batch[1::2] for batch in whole]


def test_a_batch_too_small_for_the_processes_is_refused() -> None:
    with pytest.raises(DataError, match="batch of 2 images can't be shared by 3 processes"):
        Batches(9, 2, 1, world=3)


@few
@given(length=numbers, parts=numbers)
def test_parts_make_up_the_batch(length: int, parts: int) -> None:
    batch = {"image": torch.arange(length), "meta": list(range(length))}
    pieces = [part_of(batch, number, parts) for number in range(parts)]
    assert sorted(torch.cat([piece["image"] for piece in pieces]).tolist()) == batch["meta"]
    assert sorted(name for piece in pieces for name in piece["meta"]) == batch["meta"]


def test_a_draw_is_a_function_of_seed_epoch_and_index() -> None:
    scenes = Scenes(3, (8, 12), ["sal"], transform=RandomFlip())
    draws = {seed: Draws(scenes, seed) for seed in (0, 1)}
    keys = [(epoch, index) for epoch in range(6) for index in range(3)]
    images = {seed: [draws[seed][key]["image"] for key in keys] for seed in draws}
    torch.manual_seed(5)  # what else draws doesn't matter, nor does a draw change it
    before = torch.random.get_rng_state()
    assert all(
        torch.equal(draws[0][key]["image"], image)
        for key, image in zip(keys, images[0], strict=True)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    unflipped = [Scenes(3, (8, 12), ["sal"])[index]["image"] for _, index in keys]
    flips = [[not same for same in map(torch.equal, images[seed], unflipped)] for seed in draws]
    assert 0 < sum(flips[0]) < len(keys) and flips[0] != flips[1]
    epochs = {tuple(flips[0][epoch * 3 :][:3]) for epoch in range(6)}
    assert len(epochs) > 1  # each sees an image in another way


class Unreadable:
    tasks = ("sal", "normals", "depth")
    transform = Resize((8, 12))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise DataError("can't read a.jpg")


def test_what_is_skipped_has_the_size_of_the_others_and_no_label() -> None:
    with pytest.raises(DataError, match=r"a\.jpg"):
        Draws(Unreadable(), 0)[0, 0]
    item = Draws(Unreadable(), 0, skip_bad=True)[0, 0]
    assert item["image"].shape == (3, 8, 12)
    assert (item["sal"] == 255).all() and (item["normals"] == 255).all()
    assert (item["depth"] == 0).all() and item["meta"]["skipped"] == "can't read a.jpg"


# ---------------------------------------------------------------------- recipe


@few
@given(steps=st.integers(1, 50), warmup=st.floats(0, 0.9))
def test_the_rate_rises_then_falls_to_nothing(steps: int, warmup: float) -> None:
    rates = [Recipe(warmup=warmup).rate(step, steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert Recipe(warmup=warmup).rate(steps, steps) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch": 0}, "batch=0"),
        ({"accumulate": 1.5}, "accumulate=1.5"),
        ({"optimizer": "sgd"}, "expected adam or adamw"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"epochs": None}, "expected a positive number of either"),
        ({"epochs": -1.0}, "epochs=-1.0"),
        ({"batch": 4.0}, "batch=4.0"),
        ({"seed": -1}, "seed=-1"),
        ({"lr": -0.1}, "lr=-0.1"),
        ({"adapter_lr": float("nan")}, "adapter_lr=nan"),
        ({"backbone_lr": "fast"}, "backbone_lr='fast'"),
        ({"loss_weights": {"semseg": -5}}, r"loss_weights\['semseg'\]=-5"),
    ],
)
def test_a_recipe_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(HyperparameterError, match=said):
        Recipe(**wrong)


def test_every_part_needs_an_image_of_every_process() -> None:
    Recipe(batch=8, accumulate=2).check_parts(images=9, processes=4)
    for images, processes in ((9, 5), (7, 4)):
        with pytest.raises(HyperparameterError, match="1 images per process and step"):
            Recipe(batch=8, accumulate=2).check_parts(images, processes)


def make_model(method: str) -> DenseModel:
    net = SwinTransformer(img_size=32, window_size=4, embed_dim=12, depths=(1,), num_heads=(1,))
    return DenseModel(inject(net, method, tasks=["sal"]), {"sal": 1}, width=8)


def test_a_rate_of_zero_is_zero() -> None:
    model = make_model("vmt_lite")
    optimizer = make_optimizer(model, Recipe(lr=0.1, adapter_lr=0))
    assert [group["peak"] for group in optimizer.param_groups] == [0.1, 0]
    set_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0]


# ---------------------------------------------------------------------- averages, states, log


def test_an_average_is_what_its_formula_says() -> None:
    weight = nn.Parameter(torch.zeros(3))
    average, expected = Average([weight], 0.9), torch.zeros(3)
    for step in range(30):
        with torch.no_grad():
            weight += torch.randn(3)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    now = weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(weight.detach(), expected)
    assert torch.equal(weight, now)
    with contextlib.suppress(KeyError), average.applied():
        raise KeyError  # even then the weights come back
    assert torch.equal(weight, now)


def test_only_the_newest_states_stay(tmp_path: Path) -> None:
    states = Checkpoints(tmp_path, keep=2)
    for step in (1, 5, 9):
        states.save(step, {"a": step})
    assert states.steps() == [5, 9]
    states.save(3, {"a": 3})  # after going back; what is newer isn't touched
    assert states.newest() == (9, {"a": 9}) and 3 in states.steps()
    states.clear()
    assert states.newest() is None and not list(tmp_path.iterdir())


def test_no_state_is_taken_that_is_not_whole(tmp_path: Path) -> None:
    states = Checkpoints(tmp_path)
    states.save(1, {"a": torch.arange(50)})
    content = (tmp_path / "step_00000001.ckpt").read_bytes()
    for end in range(0, len(content), 97):
        (tmp_path / "step_00000002.ckpt").write_bytes(content[:end])
        with pytest.warns(UserWarning, match="isn't whole"):
            found = states.newest()
        assert found is not None and found[0] == 1


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    states = Checkpoints(tmp_path)
    (tmp_path / "step_00000001.ckpt").mkdir()
    with pytest.raises(CheckpointError, match="can't write"):
        states.save(1, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.ckpt"]


def test_a_log_goes_on_after_the_step_given(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in (1, 2, 3):
        log(step, "train", {"sal": {"loss": step / 2}})
    log.close()
    log = Log(tmp_path, 2)
    log(3, "train", {"sal": {"loss": 9.0}})
    log.close()
    lines = (tmp_path / "log.csv").read_text().split()
    assert lines == [
        "step,split,task,metric,value",
        *("1,train,sal,loss,0.5", "2,train,sal,loss,1", "3,train,sal,loss,9"),
    ]


# ---------------------------------------------------------------------- processes


def make_net() -> nn.Module:
    torch.manual_seed(0)
    frozen = nn.BatchNorm2d(3).eval().requires_grad_(False)
    first = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 3, 1)
    return nn.Sequential(*first, BatchNormAct2d(3), frozen, nn.Conv2d(3, 1, 1)).double()


def images() -> torch.Tensor:
    return torch.randn(5, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    (net(x) ** 2).sum().backward()
    sum_gradients(net.parameters())
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def of_my_images(rank: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    net = make_net()
    if rank:  # a start of its own, which the first process's replaces
        nn.init.zeros_(net[0].weight)
    share_model(net)
    return gradients(net, images()[rank::2]), net.state_dict()


@needs_gloo
def test_two_processes_give_the_gradients_and_statistics_of_one(tmp_path: Path) -> None:
    returned = in_two_processes(of_my_images, tmp_path)
    net = make_net()
    expected = gradients(net, images())
    for found, state in returned:
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, msg=name)
        for name, value in net.state_dict().items():
            torch.testing.assert_close(state[name], value, msg=name)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_a_twin_process_counts_as_the_same_images_again(
    affine: bool, momentum: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What both see is what one would see that has every image twice."""
    monkeypatch.setattr(shared_processes, "several", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    torch.manual_seed(0)
    shared = SyncBatchNorm(2, affine=affine, momentum=momentum).double()
    whole = nn.BatchNorm2d(2, affine=affine, momentum=momentum).double()
    weights = torch.randn(5, 2, 4, 4, dtype=torch.float64)
    for _ in range(3):
        mine = torch.randn(5, 2, 4, 4, dtype=torch.float64, requires_grad=True)
        twice = torch.cat([mine, mine]).detach().requires_grad_()
        found, expected = shared(mine), whole(twice)
        torch.testing.assert_close(found, expected[:5])
        (found * weights).sum().backward()
        (expected * torch.cat([weights, weights])).sum().backward()
        assert mine.grad is not None and twice.grad is not None
        torch.testing.assert_close(mine.grad, twice.grad[:5])
    sum_gradients(shared.parameters())
    for (name, found), expected in zip(shared.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(shared.eval()(mine), whole.eval()(mine))


def test_a_sum_over_processes_leaves_what_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_processes, "several", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    mine = torch.arange(3.0)
    assert sum_over_processes(mine).tolist() == [0, 2, 4] and mine.tolist() == [0, 1, 2]


def test_one_process_leaves_the_model_as_it_is() -> None:
    net = make_net()
    before = copy.deepcopy(net)
    share_model(net)
    assert [type(m) for m in net.modules()] == [type(m) for m in before.modules()]
    assert json.dumps([p.tolist() for p in net.parameters()]) == json.dumps(
        [p.tolist() for p in before.parameters()]
    )
