"""Learned prompt tokens for attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from peft_dense.layout import check_last_axis
from peft_dense.nn.checks import check_whole

__all__ = ["Prompts"]


class Prompts(nn.Module):
    """Put learned prompt tokens before every sequence of tokens.

    Jia et al. 2022 (VPT). The start is uniform with the bound ``sqrt(6 / (3 p^2 + C))`` of its
    official code, where p is the patch size and C the width of the patch embedding. On Swin that is
    the first stage's, for the prompts of every stage.

    Args:
        count: Number of prompts, P.
        features: Width of the tokens, C; ``P C`` parameters.
        patch: Patch size p, for the start only; ``p^2`` is the number of pixels in a patch.
        embedding: Width of the patch embedding, for the start only; None takes ``features``.

    Shape:
        ``(B, N, C) -> (B, P + N, C)``

    Raises:
        HyperparameterError: If count or features isn't a whole number from 1 up.
        ShapeError: If the last axis of the input isn't C wide.

    Example:
        >>> Prompts(50, 96)(torch.randn(8, 49, 96)).shape
        torch.Size([8, 99, 96])
    """

    def __init__(
        self, count: int, features: int, *, patch: float = 4, embedding: int | None = None
    ) -> None:
        super().__init__()
        check_whole("count", count)
        check_whole("features", features)
        self.count, self.features, self.patch = count, features, patch
        self.embedding = features if embedding is None else embedding
        self.weight = nn.Parameter(torch.empty(count, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the prompts anew."""
        bound = math.sqrt(6 / (3 * self.patch**2 + self.embedding))
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, norm: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Put the prompts first, each passed through ``norm`` where it is given."""
        check_last_axis(x, self.features, "Prompts")
        prompts = self.weight if norm is None else norm(self.weight)
        return torch.cat([prompts.expand(x.shape[0], -1, -1).to(x), x], dim=1)

    def extra_repr(self) -> str:
        """Show number and width."""
        return f"{self.count}, {self.features}"
