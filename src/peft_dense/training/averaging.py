"""A moving average of what trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["Average"]


class Average:
    r"""Follow parameters by their exponential moving average.

    .. math:: a \leftarrow d\, a + (1 - d)\, w, \qquad
        d = \min\left(\mathrm{decay}, \frac{1 + s}{10 + s}\right)

    at step s; d is smaller in the first steps, which forgets the start sooner.

    Args:
        parameters: What to follow; the average starts at their values.
        decay: Largest d.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> average = Average([weight], decay=0.5)
        >>> _ = weight.data.fill_(1.0)
        >>> average.update(step=10)
        >>> with average.applied():
        ...     print(weight.item())
        0.5
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters after ``step``, from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the parameters' place, and afterwards back."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def put(self) -> None:
        """Put the average in the parameters' place, to stay."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            parameter.copy_(value)

    @torch.no_grad()
    def _swap(self) -> None:
        for value, parameter in zip(self.values, self.parameters, strict=True):
            kept = value.clone()
            value.copy_(parameter)
            parameter.copy_(kept)
