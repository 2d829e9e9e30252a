"""A pass of the model over a batch of images, which leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from peft_dense.data.transforms import flip
from peft_dense.dense import DenseModel
from peft_dense.tasks import Task

__all__ = ["averaged_maps", "normalise", "raw_maps", "undisturbed", "votes"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, as timm's default


def normalise(model: DenseModel, images: Tensor) -> Tensor:
    """Shift and scale images in 0..1 as the backbone was pretrained, on the model's device.

    Mean and deviation are those of timm's ``pretrained_cfg``, where the backbone has it, else
    ImageNet's; where images have another number of channels than these, their average.

    Args:
        model: The model.
        images: In 0..1.

    Shape:
        ``(B, C, H, W) -> (B, C, H, W)``

    Example:
        >>> import timm
        >>> from peft_dense import DenseModel, inject
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["semseg"])
        >>> model = DenseModel(encoder, {"semseg": 21})
        >>> normalise(model, torch.full((1, 3, 1, 1), 0.485))[0, 0].abs().item() < 1e-6
        True
    """
    about = getattr(model.encoder.eject(), "pretrained_cfg", None) or {}
    images = images.to(next(model.parameters()).device, non_blocking=True)
    mean, std = (
        _per_channel(about.get(name) or default, images)
        for name, default in (("mean", _MEAN), ("std", _STD))
    )
    return (images - mean) / std


def _per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    """Give one value per channel; channels that aren't those of the values get their mean."""
    channels = images.shape[1]
    if len(values) != channels:
        values = [sum(values) / len(values)] * channels
    return torch.tensor(values, device=images.device)[:, None, None]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode; afterwards each of its modules is in the mode it was in.

    ``model.train(was_training)`` wouldn't do: it puts modules in train mode that weren't.

    Args:
        model: Any module.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with undisturbed(model):
        ...     model[0].training
        False
        >>> [module.training for module in model]
        [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def raw_maps(
    model: DenseModel,
    images: Tensor,
    tasks: Sequence[str] | None = None,
    *,
    bf16: bool = False,
) -> dict[str, Tensor]:
    """Predict ``tasks`` (all if None) of images in 0..1, in one pass in evaluation mode.

    Args:
        model: The model; it is left as it was.
        images: As many channels as the backbone takes.
        tasks: Their names.
        bf16: Whether to autocast to bfloat16.

    Shape:
        ``(B, C, H, W) ->`` per task ``(B, out, H, W)`` float32

    Raises:
        ShapeError: Images have other channels than the backbone takes, or no batch axis.

    Example:
        >>> import timm
        >>> from peft_dense import DenseModel, inject
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["semseg"])
        >>> model = DenseModel(encoder, {"semseg": 21})
        >>> raw_maps(model, torch.rand(1, 3, 64, 64))["semseg"].shape
        torch.Size([1, 21, 64, 64])
    """
    images = normalise(model, images)
    with undisturbed(model), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        predictions = model(images, tasks)
    return {name: prediction.float() for name, prediction in predictions.items()}


def averaged_maps(
    model: DenseModel,
    images: Tensor,
    tasks: Mapping[str, Task],
    *,
    bf16: bool = False,
    mirrored: bool = False,
) -> dict[str, Tensor]:
    """Predict tasks of images in 0..1; on request averaged with the mirrored images' predictions.

    Predictions of a mirrored image are mirrored back as labels are, by their kind: the x of normals
    changes its sign.

    Args:
        model: The model; it is left as it was.
        images: As many channels as the backbone takes.
        tasks: The tasks by name.
        bf16: Whether to autocast to bfloat16.
        mirrored: Whether to average with the mirrored images.

    Shape:
        ``(B, C, H, W) ->`` per task ``(B, out, H, W)`` float32
    """
    names = tuple(tasks)
    seen = raw_maps(model, images, names, bf16=bf16)
    if not mirrored:
        return seen
    other = raw_maps(model, images.flip(-1), names, bf16=bf16)
    kinds = {name: task.labels for name, task in tasks.items()}
    back = flip({**votes(tasks, other), "meta": {"kinds": kinds}})
    return {name: (each + back[name]) / 2 for name, each in votes(tasks, seen).items()}


def votes(tasks: Mapping[str, Task], maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give maps in the form whose mean over several views is taken (`Task.votes`)."""
    return {name: tasks[name].votes(each) for name, each in maps.items()}
