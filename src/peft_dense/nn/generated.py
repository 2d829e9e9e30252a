"""An adapter without parameters of its own: a hypernetwork makes its weights at every call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from peft_dense.nn.bottleneck import Bottleneck, apply_bottleneck, check_activation

__all__ = ["GeneratedBottleneck"]


class GeneratedBottleneck(nn.Module):
    """Residual branch of a bottleneck whose weights are ``source(*key)``.

    The source is referred to, not registered: another module owns it, and the branch itself has no
    parameters.

    Args:
        source: Maps ``key`` to a dict with ``down`` (C, n) and ``up`` (n, C); it may also have
            ``down_bias`` (n,) and ``up_bias`` (C,) and, with a norm, ``norm_weight`` (its
            difference from one) and ``norm_bias`` (C,).
        key: What the source is called with: which place and which task.
        norm: LayerNorm on the branch's input, its output, or none.
        activation: Name of the non-linearity.

    Shape:
        ``(..., C) -> (..., C)``

    Raises:
        UnknownNameError: If the activation is unknown.

    Example:
        >>> class Source(nn.Module):
        ...     def forward(self, task):
        ...         return {"down": torch.zeros(6, 2), "up": torch.zeros(2, 6)}
        >>> GeneratedBottleneck(Source(), "semseg")(torch.randn(4, 6)).abs().sum()
        tensor(0.)
    """

    def __init__(
        self,
        source: nn.Module,
        *key: int | str,
        norm: Literal["in", "out"] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_activation(activation)
        self._source = (source,)
        self.key, self.norm, self.activation = key, norm, activation

    def weights(self) -> dict[str, Tensor]:
        """Let the source make the weights."""
        weights: dict[str, Tensor] = self._source[0](*self.key)
        if "norm_weight" in weights:
            weights = {**weights, "norm_weight": 1 + weights["norm_weight"]}
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """Apply a bottleneck with the weights made for this place and task."""
        return apply_bottleneck(x, **self.weights(), norm=self.norm, activation=self.activation)

    def bake(self) -> Bottleneck:
        """Return a plain bottleneck with the present weights, no longer tied to the source."""
        weights = {name: weight.detach().clone() for name, weight in self.weights().items()}
        features, width = weights["down"].shape
        plain = Bottleneck(features, width, norm=self.norm, activation=self.activation)
        plain.to(weights["down"])
        state = {
            "down.weight": weights["down"].mT,
            "down.bias": weights.get("down_bias", torch.zeros_like(weights["down"][0])),
            "up.weight": weights["up"].mT,
            "up.bias": weights.get("up_bias", torch.zeros_like(weights["up"][0])),
        }
        if self.norm is not None:  # whose weights a source needn't make
            start = plain.state_dict()
            for name in ("weight", "bias"):
                state[f"norm.{name}"] = weights.get(f"norm_{name}", start[f"norm.{name}"])
        plain.load_state_dict(state)
        return plain

    def extra_repr(self) -> str:
        """Show what isn't a submodule."""
        return f"key={self.key}, norm={self.norm!r}, activation={self.activation!r}"
