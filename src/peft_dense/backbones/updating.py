"""Which modules write their own buffers when they run."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Buffers"]


class Buffers:
    """Remember the buffers of a model, and tell which were written since.

    Batch norms are known to write theirs in train mode, so they count even where the model hasn't
    run in that mode.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> Buffers(net).written()
        ('1',)
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._before = self._state()

    def written(self) -> tuple[str, ...]:
        """Names of the modules whose buffers changed, were replaced or are new."""
        after = self._state()
        names = {
            name.rpartition(".")[0]
            for name, (buffer, version) in after.items()
            if name not in self._before
            or self._before[name][0] is not buffer
            or self._before[name][1] != version
        }
        return tuple(
            name
            for name, module in self._model.named_modules()
            if name in names or _follows_batches(module)
        )

    def _state(self) -> dict[str, tuple[Tensor, int]]:
        # The tensors themselves are kept: a freed one's id could be given to another.
        return {
            name: (buffer, buffer._version)
            for name, buffer in self._model.named_buffers(remove_duplicate=False)
        }


def _follows_batches(module: nn.Module) -> bool:
    known = isinstance(module, nn.modules.batchnorm._NormBase)
    return known and module.running_mean is not None
