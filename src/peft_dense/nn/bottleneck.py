"""The bottleneck adapter: as a module, and as a function of given weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.errors import HyperparameterError, UnknownNameError, UnsupportedModelError
from peft_dense.layout import check_last_axis
from peft_dense.nn.checks import check_choice, check_share, check_whole

__all__ = ["Bottleneck", "apply_bottleneck"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Bottleneck(nn.Module):
    """Residual branch of a narrow two-layer perceptron on the last axis.

    Computes ``scale * up(act(down(x)))`` (Houlsby et al. 2019; Polyhistor, section 3), with a
    LayerNorm before ``down`` or after ``up`` if asked. ``up`` starts at zero, so the branch
    adds nothing at first. With ``norm="out"`` the first steps are large: at zero, LayerNorm
    multiplies gradients by ``1 / sqrt(eps)``, about 300.

    Args:
        features: Width of the stream, C.
        width: Width of the bottleneck, n; with ``nn.Linear``, ``2 C n + n + C`` parameters.
        norm: ``"in"`` normalises the input, ``"out"`` the output; ``2 C`` parameters more.
        activation: One of gelu, relu, silu, tanh.
        scale: A constant factor.
        linear: Builds ``down`` and ``up`` from their two widths: ``nn.Linear``, or a ``partial``
            of a layer with a ``zero_()``, such as ``KroneckerLinear`` and ``LowRank``.
        dropout: Share of the bottleneck that is dropped in train mode.

    Shape:
        ``(..., C) -> (..., C)``

    Raises:
        HyperparameterError: If the width isn't a whole number from 1 up, norm is none of the
            above, or dropout isn't from 0 to 1.
        UnknownNameError: If the activation is unknown.
        UnsupportedModelError: If ``linear`` builds neither an ``nn.Linear`` nor a layer with
            ``zero_()``.
        ShapeError: If the last axis of the input isn't C wide.

    Example:
        >>> branch = Bottleneck(96, width=8)
        >>> bool((branch(torch.randn(2, 49, 96)) == 0).all())
        True
    """

    def __init__(
        self,
        features: int,
        width: int,
        *,
        norm: Literal["in", "out"] | None = None,
        activation: str = "relu",
        scale: float = 1.0,
        linear: Callable[[int, int], nn.Module] = nn.Linear,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole("width", width)
        check_choice("norm", norm, ("in", "out", None))
        check_share("dropout", dropout)
        _activation(activation)
        self.features, self.activation, self.scale = features, activation, scale
        self.norm_at, self.dropout = norm, dropout
        self.norm = None if norm is None else nn.LayerNorm(features)
        self.down = linear(features, width)
        self.up = linear(width, features)
        _silence(self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Go down, activate, come up, scale."""
        check_last_axis(x, self.features, "Bottleneck")
        if self.norm is not None and self.norm_at == "in":
            x = self.norm(x)
        waist = _activation(self.activation)(self.down(x))
        if self.dropout:
            waist = F.dropout(waist, self.dropout, self.training)
        y: Tensor = self.up(waist)
        if self.norm is not None and self.norm_at == "out":
            y = self.norm(y)
        return y if self.scale == 1 else self.scale * y

    def extra_repr(self) -> str:
        """Show what isn't a submodule."""
        return f"norm={self.norm_at!r}, activation={self.activation!r}, scale={self.scale}"


def apply_bottleneck(
    x: Tensor,
    down: Tensor,
    up: Tensor,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    norm: Literal["in", "out"] | None = None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    activation: str = "relu",
) -> Tensor:
    """Apply a bottleneck with given weights: ``act(x @ down + down_bias) @ up + up_bias``.

    For adapters whose weights a hypernetwork makes. Weights act on rows, as hypernetworks and
    the papers write them: the transposes of those of ``nn.Linear``.

    Args:
        x: The input.
        down: Weight of the way down.
        up: Weight of the way up.
        down_bias: Bias of the bottleneck.
        up_bias: Bias of the output.
        norm: ``"in"`` normalises the input, ``"out"`` the output, over the last axis.
        norm_weight: Scales of the LayerNorm.
        norm_bias: Shifts of the LayerNorm.
        activation: One of gelu, relu, silu, tanh.

    Shape:
        ``x (..., C)``, ``down (C, n)``, ``up (n, C)``, ``down_bias (n,)``, the others ``(C,)``;
        the result is ``(..., C)``.

    Raises:
        HyperparameterError: If norm is none of the above, or norm weights come without a norm.
        UnknownNameError: If the activation is unknown.
        ShapeError: If the last axis of the input isn't C wide.

    Example:
        >>> x, down, up = torch.randn(2, 49, 96), torch.randn(96, 8), torch.randn(8, 96)
        >>> torch.allclose(apply_bottleneck(x, down, up), F.relu(x @ down) @ up)
        True
    """
    check_last_axis(x, down.shape[0], "apply_bottleneck")
    check_choice("norm", norm, ("in", "out", None))
    if norm is None and (norm_weight is not None or norm_bias is not None):
        raise HyperparameterError(
            'norm_weight or norm_bias is given, but norm is None; pass norm="in" or "out".'
        )
    if norm == "in":
        x = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias)
    waist = x @ down if down_bias is None else x @ down + down_bias
    y = _activation(activation)(waist) @ up
    y = y if up_bias is None else y + up_bias
    return F.layer_norm(y, y.shape[-1:], norm_weight, norm_bias) if norm == "out" else y


def check_activation(name: str) -> None:
    """Raise unless there is an activation of that name.

    Raises:
        UnknownNameError: There is none; the nearest are offered.
    """
    _activation(name)


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in _ACTIVATIONS:
        raise UnknownNameError.of("activation", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]


@torch.no_grad()
def _silence(layer: nn.Module) -> None:
    """Make a linear layer's output zero such that gradients still reach it."""
    if isinstance(layer, nn.Linear):
        for parameter in layer.parameters():
            parameter.zero_()
    elif callable(getattr(layer, "zero_", None)):
        layer.zero_()  # type: ignore[operator]
    else:
        raise UnsupportedModelError(
            f"linear built {layer}, which has no zero_(); pass nn.Linear or a factory of a layer "
            "with one, such as functools.partial(KroneckerLinear, n=4)."
        )
