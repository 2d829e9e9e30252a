"""A step: what it draws belongs to seed, step and process; what isn't finite changes nothing."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from small_run import TASKS, make_sets, make_trainer

from peft_dense.data import Finding, RandomFlip, Scenes
from peft_dense.errors import DataError, HyperparameterError
from peft_dense.training import Recipe, Trainer
from peft_dense.training import trainer as trainer_module
from peft_dense.training.batches import load_batches
from peft_dense.training.learner import Learner

# ---------------------------------------------------------------------- what is drawn


def first_images(seed: int, workers: int = 0) -> list[Tensor]:
    """What the first steps see, in the order of the images."""
    scenes = Scenes(4, (8, 12), ["sal"], transform=RandomFlip())
    recipe = Recipe(seed=seed, batch=4, workers=workers)
    batches = load_batches(scenes, recipe, 0, 6, Accelerator(cpu=True))
    found = []
    for batch in batches:
        ids = [about["id"] for about in batch["meta"]]
        order = sorted(range(4), key=ids.__getitem__)
        found.append(batch["image"][order])
    return found


def test_augmentation_follows_the_seed_of_the_run() -> None:
    one, other = first_images(0), first_images(1)
    assert all(map(torch.equal, one, first_images(0)))
    assert all(map(torch.equal, one, first_images(0, workers=2)))
    # Images in one order, so that shuffling alone can't make the difference.
    assert not all(map(torch.equal, one, other))


def drawn(process: int, step: int, seed: int = 0) -> Tensor:
    """What the model draws in a step of a process."""
    trainer = make_trainer(Path("/nowhere"), seed=seed, drop_path=0.5)
    model, noise = trainer.model, []
    model.register_forward_pre_hook(lambda *_: noise.append(torch.rand(4)))
    learner = Learner(model, trainer.tasks, trainer.recipe, 6, process)
    batch = next(iter(load_batches(trainer.train, trainer.recipe, 0, 1, trainer.accelerator)))
    learner.learn(batch, step)
    return noise[0]


def test_each_process_draws_its_own_drop_path() -> None:
    first = drawn(0, 0)
    assert torch.equal(first, drawn(0, 0))
    others = [drawn(1, 0), drawn(0, 1), drawn(0, 0, seed=1)]
    assert not any(torch.equal(first, other) for other in others)


def test_the_trainer_tells_its_process(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)

    class Third:
        """The third of several, as far as it is asked."""

        process_index = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(accelerator, name)

    source = make_trainer(tmp_path)
    trainer = Trainer(
        source.model,
        source.tasks,
        *make_sets(),
        source.recipe,
        tmp_path,
        accelerator=Third(),  # type: ignore[arg-type]
    )
    assert trainer.learner.process == 2


# ---------------------------------------------------------------------- what is said of labels


def test_labels_that_teach_nothing_stop_a_run_before_its_first_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    for item in trainer.train.items:
        item["sal"].fill_(0)
    with pytest.raises(DataError, match="sal"):
        trainer.fit()
    assert not trainer.states.steps() and not (tmp_path / "log.csv").exists()


def test_labels_that_look_odd_are_said_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Finding("depth", "depth unit", "are they millimetres?", serious=False)
    monkeypatch.setattr(trainer_module, "inspect_labels", lambda _: [odd])
    make_trainer(tmp_path, steps=1).fit()
    assert "note: are they millimetres?" in capsys.readouterr().err


# ---------------------------------------------------------------------- what isn't finite


class Exploding(nn.Module):
    """A head that gives no number from a step on."""

    def __init__(self, head: nn.Module, value: float) -> None:
        super().__init__()
        self.head, self.value, self.calls = head, value, 0

    def forward(self, features: list[Tensor]) -> Tensor:
        self.calls += self.training
        made: Tensor = self.head(features)
        return made * (self.value if self.calls >= 3 else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_task_and_step(value: float, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.heads["depth"] = Exploding(trainer.model.heads["depth"], value)
    with pytest.raises(HyperparameterError) as error:
        trainer.fit()
    said = str(error.value)
    assert "the loss of depth isn't finite at step 3" in said and "lower lr" in said.lower()
    assert trainer.states.steps() == [2]
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step_00000002.ckpt"]
    for name, parameter in trainer.model.named_parameters():
        assert parameter.isfinite().all(), name
    states = trainer.states.newest()
    assert states is not None and states[0] == 2


def test_a_sum_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, loss_weights=dict.fromkeys(TASKS, 1e308))
    with pytest.raises(HyperparameterError, match="loss of all tasks together isn't finite"):
        trainer.fit()


# ---------------------------------------------------------------------- options of the step


def test_a_step_gives_votes_back_summed(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    batch = next(iter(load_batches(trainer.train, trainer.recipe, 0, 1, trainer.accelerator)))
    metrics, votes = trainer.learner.learn(batch, 0, [1.0, 0.0])
    assert votes == [1.0, 0.0] and set(metrics) == {*TASKS, "all"}
    total = sum(trainer.recipe.weight(name) * metrics[name]["loss"] for name in TASKS)
    assert metrics["all"]["loss"] == pytest.approx(total, rel=1e-5)


def test_a_learner_goes_on_from_what_it_put_away(tmp_path: Path) -> None:
    first, second = (make_trainer(tmp_path / name, ema=0.5, drop_path=0.2) for name in "ab")
    one, other = list(load_batches(first.train, first.recipe, 0, 2, first.accelerator))
    first.learner.learn(one, 0)
    state = copy.deepcopy(first.learner.as_state())
    expected = first.learner.learn(other, 1)
    second.learner.restore(state)
    assert second.learner.learn(other, 1) == expected
    for learner in (first.learner, second.learner):
        learner.settle()  # the average goes on too
    found, wanted = second.model.trainable_state_dict(), first.model.trainable_state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_compiling_changes_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compiled(model: nn.Module) -> Any:
        def forward(*given: Any) -> Any:
            calls.append(given)
            return model(*given)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    losses = []
    for number, option in enumerate(({}, {"compile": True})):
        trainer = make_trainer(tmp_path / str(number), steps=2, **option)
        losses.append(trainer.fit()["scores"])
        assert bool(calls) == bool(option)
    assert repr(losses[0]) == repr(losses[1])


def test_layouts_reach_images_and_heads(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=1, channels_last=True)
    seen: list[bool] = []
    trainer.model.register_forward_pre_hook(
        lambda model, given: seen.append(
            not model.training or given[0].is_contiguous(memory_format=torch.channels_last)
        )
    )
    backbone = {id(p): p.stride() for p in trainer.model.encoder.eject().parameters()}
    trainer.fit()
    assert seen and all(seen)
    kernels = [p for p in trainer.model.heads.parameters() if p.ndim == 4 and p.shape[-1] > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert backbone == {id(p): p.stride() for p in trainer.model.encoder.eject().parameters()}


def test_products_are_rounded_while_training_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_float32_matmul_precision()
    for tf32, expected in ((True, "high"), (False, before)):
        trainer = make_trainer(tmp_path / str(tf32), steps=1, tf32=tf32)
        seen: set[str] = set()
        trainer.model.register_forward_pre_hook(
            lambda *_, seen=seen: seen.add(torch.get_float32_matmul_precision())
        )
        trainer.fit()
        assert seen == {expected} and torch.get_float32_matmul_precision() == before


def test_fused_where_the_device_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(**options: Any) -> bool:
        return bool(make_trainer(tmp_path, **options).learner.optimizer.defaults["fused"])

    assert fused() and not fused(fused=False)
    former = torch.optim.Adam.__init__

    def refuse(self: Any, *given: Any, fused: bool | None = None, **more: Any) -> None:
        if fused:
            raise RuntimeError("`fused=True` requires ...")
        former(self, *given, **more)

    monkeypatch.setattr(torch.optim.Adam, "__init__", refuse)
    assert not fused()


def test_waiting_is_counted_and_told(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=2)
    result = trainer.fit()
    assert 0 < result["seconds_waiting"] < result["seconds"]
    assert result["images_per_second"] == pytest.approx(2 * 4 / result["seconds"])
    lines = (tmp_path / "log.csv").read_text().splitlines()
    told = {line.split(",")[3]: float(line.split(",")[4]) for line in lines if ",all," in line}
    assert told["images_per_second"] > 0 and 0 <= told["waiting"] <= 1
