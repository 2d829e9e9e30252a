"""What several processes that train one model share: starts, sums and batch statistics.

The gradients are summed once per step, after the backward of every path and part, and not by
`DistributedDataParallel`, which expects one forward and one backward per step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from peft_dense.errors import UnsupportedModelError

__all__ = ["SyncBatchNorm", "share_model", "sum_gradients", "sum_over_processes"]


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes; with one, return it as it is.

    Shape:
        ``(...) -> (...)``
    """
    if several():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, in one message per dtype.

    The losses of the processes must be shares of one loss, as ``Task.loss(..., counts=)`` gives.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not several():
        return
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        same = [gradient for gradient in gradients if gradient.dtype == dtype]
        whole = torch.cat([gradient.flatten() for gradient in same])
        dist.all_reduce(whole)
        pieces = torch.split(whole, [gradient.numel() for gradient in same])
        for gradient, summed in zip(same, pieces, strict=True):
            gradient.copy_(summed.view_as(gradient))


def share_model(model: nn.Module) -> None:
    """Give every process the first one's values, and let batch norms see all processes' batches.

    With one process the model stays as it is. Frozen batch norms don't change.

    Raises:
        UnsupportedModelError: A batch norm other than BatchNorm2d or timm's BatchNormAct2d trains.
    """
    if not several():
        return
    for name, module in model.named_modules():
        trains = any(parameter.requires_grad for parameter in module.parameters())
        if not (isinstance(module, _BatchNorm) and trains):
            continue
        if type(module) not in _SYNCED:
            raise UnsupportedModelError(
                f"{name} is a {type(module).__name__} that trains, whose statistics several "
                "processes can't share here; train it on one process, or use BatchNorm2d."
            )
        module.__class__ = _SYNCED[type(module)]
    with torch.no_grad():
        seen: set[int] = set()
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.data_ptr() not in seen and tensor.numel():
                seen.add(tensor.data_ptr())
                value = tensor.contiguous()
                dist.broadcast(value, 0)
                tensor.copy_(value)


def several() -> bool:
    """Whether more than one process trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Sum(torch.autograd.Function):
    """Sum over processes; the backward is the same sum."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return sum_over_processes(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0].contiguous())


class SyncBatchNorm(nn.BatchNorm2d):
    """Normalise channels by the mean and variance of all processes' maps.

    `torch.nn.SyncBatchNorm` does the same on accelerators and refuses the CPU; this one needs only
    a sum over processes. With one process it is `torch.nn.BatchNorm2d`.

    Shape:
        ``(B, C, H, W) -> (B, C, H, W)``
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise a batch; update the running statistics."""
        if not (self.training and several()):
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        local = x.new_full((1,), x.numel() / x.shape[1])
        sums = _sum(torch.cat([x.sum((0, 2, 3)), local]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = x - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None  # there with running_mean
                self.num_batches_tracked.add_(1)
                share = self.momentum or 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
        out = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)


class _SyncBatchNormAct(SyncBatchNorm):
    """timm's batch norm with dropout and activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise a batch, then drop and activate."""
        out: Tensor = self.act(self.drop(super().forward(input)))
        return out


_SYNCED: dict[type[nn.Module], type[SyncBatchNorm]] = {
    nn.BatchNorm2d: SyncBatchNorm,
    BatchNormAct2d: _SyncBatchNormAct,
}


def _sum(tensor: Tensor) -> Tensor:
    return _Sum.apply(tensor)  # type: ignore[no-any-return]
