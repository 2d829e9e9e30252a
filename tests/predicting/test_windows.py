"""Windows: together they see all, and what they see alike stays as it is."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from peft_dense.predicting.windows import blend, places, slide

SIDES, WINDOWS = st.integers(1, 40), st.integers(1, 16)
OVERLAPS = st.sampled_from([0.0, 0.25, 0.5, 0.9])


@given(SIDES, WINDOWS, OVERLAPS)
def test_windows_cover_an_axis_and_overlap_as_much_as_asked(
    length: int, window: int, overlap: float
) -> None:
    starts = places(length, window, overlap)
    assert starts[0] == 0 and starts == sorted(set(starts))
    assert starts[-1] == max(0, length - window)
    shared = [window - (b - a) for a, b in itertools.pairwise(starts)]
    assert all(each >= min(int(window * overlap), window - 1) for each in shared)


@given(st.tuples(SIDES, SIDES), st.tuples(WINDOWS, WINDOWS), OVERLAPS, st.integers(1, 5))
def test_what_looks_the_same_in_every_window_stays(
    size: tuple[int, int], window: tuple[int, int], overlap: float, batch: int
) -> None:
    image = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    shapes = []

    def see(tiles: torch.Tensor) -> dict[str, torch.Tensor]:
        shapes.append(tuple(tiles.shape))
        return {"same": tiles, "twice": 2 * tiles}

    found = slide(image, window, overlap, batch, see, dict)
    torch.testing.assert_close(found["same"], image)
    torch.testing.assert_close(found["twice"], 2 * image)
    assert all(shape[0] <= batch and shape[2:] == window for shape in shapes)


@given(WINDOWS, st.integers(1, 16))
def test_a_window_fades_only_towards_its_neighbours(window: int, step: int) -> None:
    step = min(step, window)
    first, middle = (blend(window, [0, step, 2 * step], index) for index in (0, 1))
    assert float(first[: max(0, 2 * step - window)].min() if 2 * step > window else 1) == 1
    assert bool((first > 0).all()) and bool((middle > 0).all())
    if 2 * step >= window:  # no third one sees the same: two neighbours make one
        torch.testing.assert_close(
            first[step:] + middle[: window - step], torch.ones(window - step)
        )
