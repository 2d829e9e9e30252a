"""How the layers' weights start.

``nn.Linear`` draws its weights from U(-1/sqrt(in), 1/sqrt(in)), of variance 1 / (3 in). A layer
here whose weight is a sum of products aims at that same variance: factors are independent and of
mean zero, so the variance of a product is the product of the variances, and that of a sum of k
such products k times as large.
"""

from __future__ import annotations

import math

from torch import Tensor, nn


def linear_variance(in_features: int) -> float:
    """Give the variance of ``nn.Linear``'s initial weights, 1 / (3 in)."""
    return 1 / (3 * in_features)


def uniform_(tensor: Tensor, variance: float) -> None:
    """Fill ``tensor`` with draws from the uniform distribution of mean zero and that variance."""
    bound = math.sqrt(3 * variance)
    nn.init.uniform_(tensor, -bound, bound)
