"""Heads by name, and laws of every registered head."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

import peft_dense.heads
from peft_dense.errors import HyperparameterError, ShapeError, UnknownNameError
from peft_dense.heads import Head, head, heads, register

every_head = pytest.mark.parametrize("name", heads())


def stages(channels: tuple[int, ...], height: int, width: int, batch: int = 2) -> list[Tensor]:
    """Stages as a backbone gives them, each half as large as the one before, rounded up."""
    sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(len(channels))]
    return [torch.randn(batch, c, *size) for c, size in zip(channels, sizes, strict=True)]


@every_head
@settings(max_examples=10, deadline=None)
@given(
    channels=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    out=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_map_has_the_size_of_the_finest_stage(
    name: str, channels: tuple[int, ...], out: int, height: int, width: int
) -> None:
    made = head(name)(channels, out).eval()
    assert made(stages(channels, height, width)).shape == (2, out, height, width)


@every_head
def test_every_parameter_gets_a_gradient_and_survives_copies(name: str) -> None:
    torch.manual_seed(0)
    made = head(name)((4, 6, 8), 3)
    features = stages((4, 6, 8), 8, 6)
    made(features).square().sum().backward()
    for key, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    made.eval()
    for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(copied(features), made(features))


@every_head
def test_samples_do_not_mix_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    made = head(name)((4, 6), 3).eval()
    features = stages((4, 6), 8, 6)
    alone = torch.cat([made([x[i : i + 1] for x in features]) for i in range(2)])
    assert_close(made(features), alone)


@every_head
def test_features_that_do_not_fit_are_refused(name: str) -> None:
    made = head(name)((4, 6), 3)
    fine, coarse = stages((4, 6), 8, 6)
    wrong = [
        [],
        [fine],
        [fine, coarse, coarse],
        [coarse, fine],
        [fine, coarse[:1]],
        [fine.flatten(2), coarse],
        [fine[..., :2, :], coarse],
        [fine[..., :2], coarse],
    ]
    for features in wrong:
        with pytest.raises(ShapeError, match="finest first, of 4, 6 channels; got shapes"):
            made(features)


@every_head
def test_impossible_channels_are_refused(name: str) -> None:
    with pytest.raises(HyperparameterError, match="channels is empty"):
        head(name)((), 3)
    with pytest.raises(HyperparameterError, match=r"channels\[1\] is 0"):
        head(name)((4, 0), 3)
    with pytest.raises(HyperparameterError, match="out_channels is 0"):
        head(name)((4,), 0)


def test_every_file_that_registers_a_head_is_known() -> None:
    folder = Path(peft_dense.heads.__file__).parent
    files = [path.stem for path in folder.glob("*.py") if "\n@register\n" in path.read_text()]
    assert sorted(files) == heads()


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown head 'segforner'; did you mean 'segformer'"
    ):
        head("segforner")


def test_a_name_is_given_once() -> None:
    class Other(Head):
        name = "segformer"

    with pytest.raises(HyperparameterError, match=r"'segformer' is .*SegFormerHead already; give"):
        register(Other)
