"""Linear layers of low rank: alone, or added to a frozen linear (LoRA)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.errors import HyperparameterError, UnsupportedModelError
from peft_dense.layout import check_last_axis, from_channels_last, to_channels_last
from peft_dense.nn._init import linear_variance, uniform_
from peft_dense.nn.checks import check_whole
from peft_dense.nn.eager import in_full_precision, is_bare, runs_eagerly
from peft_dense.nn.low_rank_products import LowRankProduct

__all__ = ["LowRank", "LowRankLinear"]


class LowRank(nn.Module):
    """Map the last axis by a product of two thin matrices: ``x @ down @ up + bias``.

    The projection of Polyhistor's low-rank adapter (table 1). ``down`` starts with
    ``nn.Linear``'s variance 1 / (3 in) and ``up`` with 1 / rank, so the entries of ``down @ up``
    have variance rank * 1 / (3 in) * 1 / rank: that of ``nn.Linear``.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        rank: Width between the factors; ``rank (in + out)`` parameters.
        bias: Add a bias, ``out`` more.

    Shape:
        ``(..., in) -> (..., out)``

    Raises:
        HyperparameterError: If the rank isn't from 1 to the smaller width.
        ShapeError: If the last axis of the input has another width.

    Example:
        >>> sum(p.numel() for p in LowRank(96, 48, rank=4).parameters())  # 4 (96 + 48) + 48
        624
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        _check_rank(rank, in_features, out_features)
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = nn.Parameter(torch.empty(in_features, rank))
        self.up = nn.Parameter(torch.empty(rank, out_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both factors and the bias anew."""
        uniform_(self.down, linear_variance(self.in_features))
        uniform_(self.up, 1 / self.rank)
        if self.bias is not None:
            uniform_(self.bias, linear_variance(self.in_features))

    @torch.no_grad()
    def zero_(self) -> None:
        """Make the output zero; ``up`` and the bias still get gradients."""
        self.up.zero_()
        if self.bias is not None:
            self.bias.zero_()

    @property
    def weight(self) -> Tensor:
        """The dense weight ``(out, in)``, as ``nn.Linear`` keeps it."""
        return (self.down @ self.up).mT

    def forward(self, x: Tensor) -> Tensor:
        """Apply one factor after the other."""
        check_last_axis(x, self.in_features, "LowRank")
        y = x @ self.down @ self.up
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Show the widths and the rank."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}"


class LowRankLinear(nn.Module):
    """Add a low-rank branch to a linear: ``base(x) + alpha / rank * up @ down @ x`` (LoRA).

    Hu et al. 2022, section 4.1. ``up`` starts at zero, so the layer starts as ``base``. A model
    that only reads ``.weight`` and ``.bias``, and never calls the layer, gets the merged weight.
    ``base`` keeps its ``requires_grad`` flags: freeze it yourself when you use this layer alone.

    Args:
        base: The linear, or a 1 x 1 convolution (stride 1, no padding, one group); kept by
            reference. The branch lives on its device, in its dtype.
        rank: Width of the branch; ``rank (in + out)`` parameters.
        alpha: Weight of the branch, divided by ``rank``.
        norm: Normalise the branch's input over its channels, ``2 in`` parameters more. The layer
            is then no longer linear and has no merged weight.

    Shape:
        Those of ``base``: ``(..., in) -> (..., out)``, or ``(B, in, H, W) -> (B, out, H, W)``.

    Raises:
        UnsupportedModelError: If ``base`` is another layer, or ``weight`` is read with ``norm``.
        HyperparameterError: If the rank isn't from 1 to the smaller width, or alpha isn't above 0.

    Example:
        >>> base, x = nn.Linear(96, 288), torch.randn(2, 49, 96)
        >>> layer = LowRankLinear(base, rank=4)
        >>> torch.equal(layer(x), base(x)), layer.weight.shape
        (True, torch.Size([288, 96]))
    """

    def __init__(
        self, base: nn.Linear | nn.Conv2d, rank: int, *, alpha: float = 16.0, norm: bool = False
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.channel_axis = _describe(base)
        _check_rank(rank, self.in_features, self.out_features)
        if not alpha > 0:
            raise HyperparameterError(f"alpha is {alpha!r}; pass a number above 0.")
        self.base = base
        self.rank, self.alpha = rank, alpha
        like: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.norm = nn.LayerNorm(self.in_features, **like) if norm else None
        self.down = nn.Parameter(torch.empty(rank, self.in_features, **like))
        self.up = nn.Parameter(torch.empty(self.out_features, rank, **like))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw ``down`` as ``nn.Linear`` draws its weight, and zero ``up``."""
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        nn.init.zeros_(self.up)
        if self.norm is not None:
            self.norm.reset_parameters()

    def merged_weight(self) -> Tensor:
        """Give ``base.weight + alpha / rank * up @ down`` in the shape of ``base.weight``."""
        if self.norm is not None:
            raise UnsupportedModelError(
                "this LowRankLinear normalises the input of its branch (norm=True), so no single "
                "weight does the same. Pass norm=False to merge it, or to use it where a model "
                "reads .weight instead of calling the layer (as SwinV2 and BEiT do with qkv)."
            )
        update = self.alpha / self.rank * (self.up @ self.down)
        return self.base.weight + update.view_as(self.base.weight)

    @property
    def weight(self) -> Tensor:
        """The merged weight, for models that read it."""
        return self.merged_weight()

    @property
    def bias(self) -> Tensor | None:
        """The bias of ``base``."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """Add the scaled branch to the output of ``base``."""
        if not (self._can_fuse(x) and self._pays(x)):
            return self.forward_plain(x)
        up = self.alpha / self.rank * self.up
        y: Tensor = LowRankProduct.apply(x, self.base.weight, self.bias, self.down, up)
        return y

    def _can_fuse(self, x: Tensor) -> bool:
        """Whether one product with the updated weight does what the layers would do."""
        base = self.base
        return (
            runs_eagerly()
            and is_bare(base, nn.Linear)
            and self.norm is None
            # A half-precision weight would round away the update that is added to it.
            and in_full_precision(x)
        )

    def _pays(self, x: Tensor) -> bool:
        """Whether tokens are so many that the branch would cost more than to form the weight."""
        tokens = x.numel() // max(x.shape[-1], 1)
        return tokens * sum(self.base.weight.shape) > self.base.weight.numel()

    def forward_plain(self, x: Tensor) -> Tensor:
        """Do the same by the layers one after the other: what ``forward`` is compared with."""
        z = to_channels_last(x, self.channel_axis)
        if self.norm is not None:
            z = self.norm(z)
        z = self.alpha / self.rank * F.linear(F.linear(z, self.down), self.up)
        y: Tensor = self.base(x) + from_channels_last(z, self.channel_axis)
        return y

    def extra_repr(self) -> str:
        """Show the rank and alpha."""
        return f"rank={self.rank}, alpha={self.alpha}"


def _check_rank(rank: int, in_features: int, out_features: int) -> None:
    limit = min(in_features, out_features)
    check_whole("rank", rank, highest=limit, of=f"the smaller of {in_features} and {out_features}")


def _describe(base: nn.Module) -> tuple[int, int, int]:
    """Give a linear's input width, output width and channel axis."""
    if isinstance(base, nn.Linear):
        return base.in_features, base.out_features, -1
    if isinstance(base, nn.Conv2d):
        plain = (base.kernel_size, base.stride, base.padding) == ((1, 1), (1, 1), (0, 0))
        if plain and base.groups == 1:
            return base.in_channels, base.out_channels, 1
    raise UnsupportedModelError(
        f"LowRankLinear can't wrap {base}; it takes an nn.Linear, or an nn.Conv2d with "
        "kernel_size=1, stride=1, padding=0 and groups=1. Choose other layers as targets."
    )
