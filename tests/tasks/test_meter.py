"""Meters: the interface of torchmetrics, across processes, and the same numbers as others give."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from peft_dense.errors import DataError
from peft_dense.tasks import Meter, task, tasks
from peft_dense.tasks.depth import Depth
from peft_dense.tasks.normals import Normals
from processes import in_two_processes, needs_gloo

every_task = pytest.mark.parametrize("name", tasks())
SHARES = {"halves": (3, 3), "uneven": (1, 5), "empty": (6, 0)}
"""How six images fall to two processes."""


@functools.cache
def images(name: str) -> tuple[Tensor, Tensor]:
    """Predictions and labels of six images, some pixels and one whole image ignored."""
    generator = torch.Generator().manual_seed(0)
    kind, shape = task(name), (6, 5, 7)
    if isinstance(kind, Normals):
        target = F.normalize(torch.randn(6, 3, 5, 7, generator=generator), dim=1)
    elif isinstance(kind, Depth):
        target = 0.5 + torch.rand(6, 1, 5, 7, generator=generator)
    else:
        target = torch.randint(max(2, kind.channels), shape, generator=generator)
    hidden = (
        torch.rand(shape, generator=generator)
        < torch.tensor([0.9, 0, 1, 0.3, 0.5, 0])[:, None, None]
    )
    hidden = hidden[:, None] if target.ndim == 4 else hidden
    target = target.masked_fill(hidden, 0 if isinstance(kind, Depth) else 255)
    return torch.randn(6, kind.channels, 5, 7, generator=generator), target


def meter_of(name: str, start: int = 0, stop: int = 6) -> Meter:
    """A meter that has seen images ``start`` to ``stop``, one at a time."""
    prediction, target = images(name)
    meter = task(name).meter()
    for index in range(start, stop):
        meter.update(prediction[index : index + 1], target[index : index + 1])
    return meter


def close(left: dict[str, float], right: dict[str, float]) -> bool:
    return left == pytest.approx(right, rel=1e-12, nan_ok=True)


# ------------------------------------------------------------------------------ one process


@every_task
def test_calling_a_meter_adds_a_batch_and_gives_its_own_scores(name: str) -> None:
    prediction, target = images(name)
    meter = meter_of(name, 0, 4)
    found = meter(prediction[4:], target[4:])
    assert close(found, meter.forward(prediction[4:], target[4:]))  # whatever was before
    alone = task(name).meter()
    alone.update(prediction[4:], target[4:])
    assert close(found, alone.compute())
    other = meter_of(name, 0, 4)
    for _ in range(2):
        other.update(prediction[4:], target[4:])
    assert close(meter.compute(), other.compute())
    assert not any(map(math.isnan, found.values())) and found != meter.compute()


@every_task
def test_meters_made_otherwise_do_not_merge(name: str) -> None:
    meter = meter_of(name)
    before = meter.compute()
    other = task("depth" if name == "sal" else "sal").meter()
    with pytest.raises(DataError, match=rf"of {name} can't take in a \w+ of {other.task.name} tha"):
        meter.merge_state(other)
    assert close(meter.compute(), before)


def test_meters_of_other_classes_do_not_merge() -> None:
    three = task("semseg", channels=3, classes=("a", "b", "c")).meter()
    other = task("semseg", channels=3).meter()
    with pytest.raises(DataError, match=r"differs in task\. Make both by"):
        three.merge_state(other)

    class Mine(type(three)):  # type: ignore[misc]
        pass

    with pytest.raises(DataError, match=r"a Mine of semseg that differs in class\."):
        other.merge_state(Mine(other.task))


def subclasses(cls: type[Meter]) -> Iterator[type[Meter]]:
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


def test_no_meter_of_ours_goes_past_the_sum_over_processes() -> None:
    ours = [each for each in subclasses(Meter) if each.__module__.startswith("peft_dense.")]
    assert len(ours) >= 5
    for each in ours:
        assert not vars(each).keys() & {"compute", "update", "forward"}, f"{each}: write score()"


# ------------------------------------------------------------------------------ two processes


def test_asking_a_twin_leaves_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a process that saw the same, all is there twice, and is so as often as one asks."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda: "cpu:gloo")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    for name in tasks():
        meter = meter_of(name)
        before = {key: value.clone() for key, value in meter.state.items()}
        whole, again = meter.compute(), meter.compute()
        assert all(torch.equal(before[key], value) for key, value in meter.state.items())
        assert again == whole and close(whole, meter.compute(sync=False)), name


def scored(rank: int) -> dict[tuple[str, str], tuple[dict, dict, dict, bool]]:
    """By task and share: the scores of all images, twice; of one's own; and whether they stayed."""
    found = {}
    for name in tasks():
        for share, (first, second) in SHARES.items():
            meter = meter_of(name, *((0, first), (first, first + second))[rank])
            before = {key: value.clone() for key, value in meter.state.items()}
            whole, again = meter.compute(), meter.compute()
            kept = all(torch.equal(before[key], value) for key, value in meter.state.items())
            found[name, share] = whole, again, meter.compute(sync=False), kept
    return found


@needs_gloo
def test_two_processes_together_score_as_one(tmp_path: Path) -> None:
    found = in_two_processes(scored, tmp_path)
    for name in tasks():
        expected = meter_of(name).compute()
        assert not any(map(math.isnan, expected.values()))
        for share, (first, _) in SHARES.items():
            for rank, bounds in enumerate(((0, first), (first, 6))):
                whole, again, local, kept = found[rank][name, share]
                assert close(whole, expected) and again == whole and kept, (name, share, rank)
                assert close(local, meter_of(name, *bounds).compute()), (name, share, rank)


# ------------------------------------------------------------------------------ others' numbers


@pytest.mark.parametrize("name", ["semseg", "human_parts"])
def test_miou_is_that_of_scikit_learn(name: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    prediction, target = images(name)
    valid = target != 255
    truth, found = target[valid].numpy(), prediction.argmax(1)[valid].numpy()
    meter = meter_of(name)
    labels = range(task(name).channels)
    assert (
        metrics.confusion_matrix(truth, found, labels=labels) == meter.state["confusion"].numpy()
    ).all()
    expected = 100 * metrics.jaccard_score(truth, found, average="macro")
    assert meter.compute()["mIoU"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["semseg", "human_parts"])
def test_miou_is_that_of_torchmetrics_by_the_same_calls(name: str) -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    prediction, target = images(name)
    theirs = classification.MulticlassJaccardIndex(task(name).channels, ignore_index=255)
    ours = task(name).meter()
    for _ in range(2):
        for index in range(6):
            batch = prediction[index : index + 1], target[index : index + 1]
            theirs.update(*batch)
            ours.update(*batch)
        assert ours.compute()["mIoU"] == pytest.approx(100 * theirs.compute().item(), rel=1e-5)
        batch = prediction[:2], target[:2]
        found = theirs(*batch)
        assert ours(*batch)["mIoU"] == pytest.approx(100 * found.item(), rel=1e-5)
        theirs.reset()
        ours.reset()


def test_state_goes_where_the_processes_can_send_it() -> None:
    from peft_dense.tasks.meter import _device

    for backends, kind in (("cpu:gloo,cuda:nccl", "cpu"), ("cuda:nccl", "cuda")):
        assert _device(backends).type == kind
