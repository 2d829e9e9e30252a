"""Stage outputs of a backbone as ``(B, C_i, H/r_i, W/r_i)`` maps, finest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["stage_outputs"]


def stage_outputs(
    model: nn.Module, x: Tensor, indices: Sequence[int] | None = None
) -> list[Tensor] | None:
    """Run ``model`` on ``x`` and return its stage outputs, or None where it has no way to tell.

    The common tap is timm's ``forward_intermediates``; a model whose forward returns a list of
    maps (timm's ``features_only``, segmentation_models.pytorch's encoders) is its own tap.

    Args:
        model: The backbone, or a clone of it.
        x: Images.
        indices: Which of the model's outputs to return; all if None.

    Shape:
        ``(B, 3, H, W) ->`` a list of ``(B, C_i, H_i, W_i)``
    """
    tap: Any = getattr(model, "forward_intermediates", None)
    if tap is not None:
        # The final norm belongs to the classifier: dense heads bring norms of their own.
        chosen = None if indices is None else list(indices)
        outputs: Any = tap(
            x, indices=chosen, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return list(outputs)
    outputs = model(x)
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if not isinstance(outputs, (list, tuple)):
        return None
    maps = [output for output in outputs if isinstance(output, Tensor) and output.ndim == 4]
    if len(maps) != len(outputs) or not maps:
        return None
    return maps if indices is None else [maps[index] for index in indices]
