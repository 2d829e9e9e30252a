"""Stage outputs of a backbone as ``(B, C_i, H/r_i, W/r_i)`` maps, finest first.

The probe finds out once how a model returns them; a :class:`StageTap` holds and applies that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from peft_dense.layout import tokens_to_map

__all__ = ["Form", "StageTap", "listed"]


def listed(output: Any) -> list[Any]:
    """List what a forward gave: a list's entries, a dict's values, or a dataclass's fields.

    Example:
        >>> import torch
        >>> listed({"fine": 1, "coarse": 2}), listed((1, 2))
        ([1, 2], [1, 2])
    """
    if isinstance(output, Mapping):
        return list(output.values())
    if isinstance(output, (list, tuple)):
        return list(output)
    if is_dataclass(output):
        return [getattr(output, entry.name) for entry in fields(output)]
    return [output]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How one stage output is laid out.

    Args:
        channel_axis: Where the channels are: 1 or -1.
        stride: None for a map; for tokens (B, N, C) their map is ``ceil(H / stride) x ceil(W /
            stride)`` of an (H, W) image, and any class and register tokens come before.

    Shape:
        ``(B, C, H, W)``, ``(B, H, W, C)``, ``(B, N, C)`` or ``(B, C, N)`` ``-> (B, C, H, W)``

    Example:
        >>> import torch
        >>> tokens = torch.zeros(1, 1 + 6, 32)
        >>> Form(channel_axis=-1, stride=16).to_map(tokens, torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 32, 2, 3])
    """

    channel_axis: int
    stride: int | None = None

    def to_map(self, output: Tensor, image: Tensor) -> Tensor:
        """Bring the output to (B, C, H, W)."""
        if self.stride is not None:
            tokens = output if self.channel_axis == -1 else output.mT
            height, width = (-(-side // self.stride) for side in image.shape[-2:])
            return tokens_to_map(tokens, height, width)
        return output if self.channel_axis == 1 else output.movedim(-1, 1)


@dataclass(frozen=True, kw_only=True)
class StageTap:
    """Where a model's stage outputs are, and how each is laid out.

    Args:
        source: ``"features"``: the family's function; ``"intermediates"``: timm's
            ``forward_intermediates``; ``"forward"``: what the model's forward returns.
        keywords: Keyword arguments of that forward.
        field: Attribute, key or place of what in its output holds the stages; None where the output
            does itself.
        indices: Which of the outputs are stages.
        forms: How each of those is laid out; maps (B, C, H, W) where empty.

    Shape:
        ``(B, C, H, W) ->`` a list of ``(B, C_i, H_i, W_i)``, finest first

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2))
        >>> tap = StageTap(source="features", forms=(Form(channel_axis=1),) * 2)
        >>> def features(model, x):
        ...     return [x := stage(x) for stage in model]
        >>> [tuple(stage.shape) for stage in tap(net, torch.zeros(1, 3, 16, 16), features)]
        [(1, 8, 4, 4), (1, 16, 2, 2)]
    """

    source: str
    keywords: tuple[tuple[str, bool], ...] = ()
    field: str | int | None = None
    indices: tuple[int, ...] | None = None
    forms: tuple[Form, ...] = ()

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        features: Callable[[nn.Module, Tensor], Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Run ``model`` on ``x`` and return its stages as maps, finest first."""
        outputs = self.reach(model, x, features)
        return [form.to_map(out, x) for out, form in zip(outputs, self.forms, strict=True)]

    def reach(
        self,
        model: nn.Module,
        x: Tensor,
        features: Callable[[nn.Module, Tensor], Sequence[Tensor]] | None = None,
    ) -> list[Any]:
        """Run ``model`` on ``x`` and return the chosen outputs as the model lays them out."""
        if self.source == "features":
            assert features is not None, "the family has the function"
            return self._chosen(list(features(model, x)))
        if self.source == "intermediates":
            tap: Any = model.forward_intermediates
            # The final norm belongs to the classifier: dense heads bring norms of their own.
            return list(
                tap(
                    x,
                    indices=None if self.indices is None else list(self.indices),
                    norm=False,
                    output_fmt="NCHW",
                    intermediates_only=True,
                )
            )
        return self._chosen(self.entries(model(x, **dict(self.keywords))))

    def entries(self, output: Any) -> list[Any]:
        """List what of a forward's output holds the stages."""
        if isinstance(self.field, int):
            output = listed(output)[self.field]
        elif self.field is not None:
            named = isinstance(output, Mapping)
            output = output[self.field] if named else getattr(output, self.field)
        return listed(output)

    def _chosen(self, outputs: list[Any]) -> list[Any]:
        if self.indices is None:
            return outputs
        return [outputs[index] for index in self.indices]
