"""Windows that slide over a large image, blended into one map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from peft_dense.errors import HyperparameterError

__all__ = ["blend", "check_overlap", "places", "slide"]


def check_overlap(overlap: float) -> None:
    """Check the share that neighbouring windows have in common.

    Raises:
        HyperparameterError: It isn't a share below 1.
    """
    if not 0 <= overlap < 1:
        raise HyperparameterError(
            f"overlap={overlap}: expected the share of a window that the next one sees again, from "
            "0 to below 1, such as 0.25."
        )


def places(length: int, window: int, overlap: float) -> list[int]:
    """Give where windows begin along one axis: as few as have that overlap, spread evenly.

    The first begins at the image's start and the last one ends at its end, so none goes beyond the
    image, unless the image is shorter than one window.

    Args:
        length: Length of the image.
        window: Length of a window.
        overlap: The least share of a window that the next one sees again.

    Example:
        >>> places(10, 4, 0.25), places(3, 4, 0.25)
        ([0, 3, 6], [0])
    """
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    gaps = -(-(length - window) // step)
    return [round(index * (length - window) / gaps) for index in range(gaps + 1)]


def blend(window: int, starts: Sequence[int], index: int) -> Tensor:
    """Give the weights of a window along one axis: 1, falling towards windows that go on there.

    Where two neighbours overlap, one fades out as the other fades in, so no seam shows. At the
    border of the image nothing falls.

    Args:
        window: Length of a window.
        starts: Where the windows begin.
        index: Which of them.

    Shape:
        ``() -> (window,)``

    Example:
        >>> blend(4, [0, 2], 0).tolist()
        [1.0, 1.0, 0.75, 0.25]
    """
    weights = torch.ones(window)
    for other, away in ((index - 1, -1), (index + 1, 1)):
        if not 0 <= other < len(starts):
            continue
        shared = window - abs(starts[other] - starts[index])
        if shared > 0:
            rise = (torch.arange(shared) + 0.5) / shared
            part = slice(0, shared) if away < 0 else slice(window - shared, window)
            weights[part] *= rise if away < 0 else rise.flip(0)
    return weights


def slide(
    image: Tensor,
    window: tuple[int, int],
    overlap: float,
    batch: int,
    see: Callable[[Tensor], Mapping[str, Tensor]],
    votes: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Look at an image through windows, and give their weighted mean.

    An image smaller than a window is padded with black below and to the right, as the crops of
    training are, and its maps are cut again.

    Args:
        image: The whole image.
        window: Height and width.
        overlap: The least share of a window that the next one sees again.
        batch: Windows at a time.
        see: Maps ``(B, C, *window)`` to predictions ``(B, out, *window)``, by name.
        votes: Brings predictions into a form whose mean makes sense; not called for one window.

    Shape:
        ``(C, H, W) ->`` per map ``(out, H, W)``
    """
    height, width = image.shape[-2:]
    below, right = max(0, window[0] - height), max(0, window[1] - width)
    image = pad(image, (0, right, 0, below))
    size = (image.shape[-2], image.shape[-1])
    sums: dict[str, Tensor] = {}
    total = torch.zeros(size)
    tiles = list(_tiles(size, window, overlap))
    for start in range(0, len(tiles), batch):
        part = tiles[start : start + batch]
        seen = see(torch.stack([image[:, rows, columns] for rows, columns, _ in part]))
        for name, maps in (votes(seen) if len(tiles) > 1 else seen).items():
            if name not in sums:
                sums[name] = maps.new_zeros((maps.shape[1], *size))
            for (rows, columns, weight), each in zip(part, maps, strict=True):
                sums[name][:, rows, columns] += each * weight.to(each.device)
        for rows, columns, weight in part:
            total[rows, columns] += weight
    return {name: (maps / total.to(maps.device))[:, :height, :width] for name, maps in sums.items()}


def _tiles(
    size: tuple[int, int], window: tuple[int, int], overlap: float
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Give rows, columns and weights of each window."""
    along = [places(n, w, overlap) for n, w in zip(size, window, strict=True)]
    for i, top in enumerate(along[0]):
        down = blend(window[0], along[0], i)
        for j, left in enumerate(along[1]):
            across = blend(window[1], along[1], j)
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            yield rows, columns, down[:, None] * across
