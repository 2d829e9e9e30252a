"""No step waits for the device: on a device without values every wait is an error."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from peft_dense.tasks import task, tasks
from peft_dense.tasks.meter import histogram

every_task = pytest.mark.parametrize("name", tasks())


def labels(name: str) -> torch.Tensor:
    """Labels of two images."""
    kind = task(name).labels
    shape = (2, *kind.channels, 4, 5)
    return torch.ones(shape, dtype=kind.dtype) / max(sum(kind.channels), 1) ** 0.5


def on_cpu(name: str) -> torch.Tensor:
    made = labels(name)
    return made if task(name).labels.channels else made.long()


@every_task
def test_the_loss_waits_for_nothing_if_counts_are_given(name: str) -> None:
    kind, target = task(name), on_cpu(name)
    counts = kind.counts(target)
    prediction = torch.zeros(2, kind.channels, 4, 5, device="meta", requires_grad=True)
    for where in ("cpu", "meta"):
        loss = kind.loss(prediction, target.to(where), counts.to(where))
        loss.backward()
        assert loss.device.type == "meta" and loss.shape == ()
    with pytest.raises((NotImplementedError, RuntimeError)):  # so that the above can fail
        kind.loss(prediction, target.to("meta"))


@every_task
def test_a_meter_waits_for_nothing_until_it_is_asked(name: str) -> None:
    kind, target = task(name), on_cpu(name)
    prediction = torch.zeros(2, kind.channels, 4, 5, device="meta")
    meter = kind.meter()
    for _ in range(2):
        meter.update(prediction, target)
    assert {value.device.type for value in meter.state.values()} == {"meta"}
    assert {n: v.dtype for n, v in meter.state.items()} == {
        n: v.dtype for n, v in kind.meter().state.items()
    }


@every_task
def test_with_its_own_counts_the_loss_is_the_same(name: str) -> None:
    torch.manual_seed(0)
    kind, target = task(name), on_cpu(name)
    prediction = torch.randn(2, kind.channels, 4, 5)
    assert_close(kind.loss(prediction, target, kind.counts(target)), kind.loss(prediction, target))


def test_a_histogram_counts_what_is_valid() -> None:
    index = torch.tensor([[3, 0, 3], [900, -5, 1]])
    valid = torch.tensor([[True, True, True], [False, False, True]])
    assert histogram(index, valid, 5).tolist() == [1, 1, 0, 2, 0]
