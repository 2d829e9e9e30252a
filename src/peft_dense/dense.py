"""An adapted backbone with a head for every task: images in, dense predictions out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import BackboneInfo, Family
from peft_dense.backbones.clone import meta
from peft_dense.errors import CheckpointError, HyperparameterError, UnknownNameError
from peft_dense.heads import head as find_head
from peft_dense.keeping.files import Saved, read, write
from peft_dense.keeping.fit import check_state, specs, warn_unless_finite
from peft_dense.keeping.tensors import Spec
from peft_dense.layout import from_channels_last, to_channels_last
from peft_dense.ledger import Ledger
from peft_dense.nn import TaskDict
from peft_dense.nn._checks import check_whole

__all__ = ["DenseModel"]

HeadFactory = Callable[..., nn.Module]
AnyPart = TypeVar("AnyPart", Tensor, Spec)


class DenseModel(nn.Module):
    """Turn images into one dense prediction a task.

    Each task's stage features pass a LayerNorm a stage (the papers' output norms, one set a task)
    and the task's head; the result is upsampled to the images' size.

    Args:
        encoder: The adapted backbone.
        channels: Output channels per task; every task of the encoder needs a head.
        head: Name of a head, or any callable ``(channels, out_channels, **options) -> module``
            whose module maps a list of stage features to one map; or a mapping of every task to
            its own name or callable.
        **options: Passed on to every head, such as ``width=256``.

    Shape:
        ``(B, 3, H, W) ->`` per task ``(B, out, H, W)``

    Raises:
        UnknownNameError: Unknown head, an option that a named head hasn't, or a head for a task
            that the encoder hasn't.
        HyperparameterError: A task of the encoder has no head.

    Example:
        >>> import timm, torch
        >>> from peft_dense import inject
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["semseg", "depth"])
        >>> model = DenseModel(encoder, {"semseg": 21, "depth": 1}, width=32)
        >>> model(torch.randn(2, 3, 64, 64))["semseg"].shape
        torch.Size([2, 21, 64, 64])
    """

    def __init__(
        self,
        encoder: AdaptedBackbone,
        channels: Mapping[str, int],
        head: str | HeadFactory | Mapping[str, str | HeadFactory] = "segformer",
        **options: Any,
    ) -> None:
        super().__init__()
        kinds = head if isinstance(head, Mapping) else dict.fromkeys(encoder.tasks, head)
        for task in (*channels, *kinds):
            if task not in encoder.tasks:
                raise UnknownNameError.of("task with a head", task, encoder.tasks)
        missing = [task for task in encoder.tasks if task not in channels or task not in kinds]
        if missing:
            raise HyperparameterError(
                f"no head for {', '.join(map(repr, missing))}; give every task of the encoder its "
                f"output channels, e.g. {{{missing[0]!r}: 1}}, and where head= is a mapping its "
                "head, or inject with fewer tasks."
            )
        self.encoder = encoder
        for task in encoder.tasks:
            check_whole(f"channels[{task!r}]", channels[task])
        self.out_channels = {task: channels[task] for task in encoder.tasks}
        self.head_names = {
            task: kind if isinstance(kind, str) else None for task, kind in kinds.items()
        }
        self.options = options
        self.norms, self.heads = TaskDict(), TaskDict()
        reference = next(p for p in encoder.backbone.parameters() if p.is_floating_point())
        for task, out in self.out_channels.items():
            norms = nn.ModuleList(nn.LayerNorm(width) for width in encoder.channels)
            self.norms[task] = norms.to(reference)
            make = _factory(kinds[task], options)
            self.heads[task] = make(encoder.channels, out, **options).to(reference)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.encoder.tasks

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Predict ``tasks`` (all if None) at the images' size.

        Raises:
            UnknownNameError: A task that isn't there.
            ImageSizeError: The stages can't divide the images.
        """
        predictions = {}
        for task, features in self.encoder(x, tasks).items():
            normed = [
                from_channels_last(norm(to_channels_last(feature, 1)), 1)
                for norm, feature in zip(self.norms[task], features, strict=True)
            ]
            predictions[task] = F.interpolate(
                self.heads[task](normed), size=x.shape[-2:], mode="bilinear", align_corners=False
            )
        return predictions

    def ledger(self) -> Ledger:
        """Count the trainable parameters, heads and output norms included."""
        heads = sum(p.numel() for part in (self.norms, self.heads) for p in part.parameters())
        return replace(self.encoder.ledger(), heads=heads)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return adapters, output norms and heads, their buffers included, each tensor once."""
        state = {f"encoder.{k}": v for k, v in self.encoder.adapter_state_dict().items()}
        for name, part in (("norms", self.norms), ("heads", self.heads)):
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`trainable_state_dict` returned; nothing changes where it doesn't fit.

        Raises:
            CheckpointError: Names or shapes differ.
        """
        self.check_trainable_specs(specs(state))
        parts = _by_part(state)
        self.encoder.load_adapter_state_dict(parts["encoder"])
        self.norms.load_state_dict(parts["norms"])
        self.heads.load_state_dict(parts["heads"])

    def check_trainable_specs(self, given: Mapping[str, Spec]) -> None:
        """Check that tensors of these types and shapes could be loaded.

        Raises:
            CheckpointError: Names, shapes or types differ; the first few are listed.
        """
        parts = _by_part(given)
        self.encoder.check_adapter_specs(parts["encoder"])
        for name, part in (("norms", self.norms), ("heads", self.heads)):
            check_state(
                specs(part.state_dict()),
                parts[name],
                f"the saved {name} don't fit tasks {self.out_channels}",
                "Build the model with the heads it was saved with.",
            )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write adapters and heads (safetensors) and what they belong to (JSON) into ``folder``."""
        config = {
            **self.encoder.config(),
            "heads": {
                "names": self.head_names,
                "options": self.options,
                "channels": self.out_channels,
            },
        }
        return write(folder, self.trainable_state_dict(), config)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        backbone: nn.Module,
        *,
        head: HeadFactory | Mapping[str, str | HeadFactory] | None = None,
        family: Family | None = None,
    ) -> DenseModel:
        """Put a saved model's adapters and heads on ``backbone``.

        Args:
            folder: Where :meth:`save` wrote it.
            backbone: The model it was trained on, or one of the same build.
            head: The callable the heads were made with, or a mapping with those of some tasks,
                where it was no registered name.
            family: As for :func:`peft_dense.inject`.

        Raises:
            CheckpointError: The folder isn't whole, holds an encoder only, or doesn't fit.
        """
        saved = read(folder)
        heads = saved.config.get("heads")
        if heads is None:
            raise CheckpointError(
                f"{folder} holds an encoder without heads; read it with AdaptedBackbone.load."
            )
        given = head if isinstance(head, Mapping) else dict.fromkeys(heads["names"], head)
        for task in given:
            if task not in heads["names"]:
                raise UnknownNameError.of("task with a head", task, heads["names"])
        kinds = heads["names"] | {task: kind for task, kind in given.items() if kind is not None}
        nameless = [task for task, kind in kinds.items() if kind is None]
        if nameless:
            raise CheckpointError(
                f"the heads of {', '.join(map(repr, nameless))} in {folder} were made by a "
                f"callable; pass it as head=... or head={{{nameless[0]!r}: ...}}."
            )
        info = AdaptedBackbone._examine(saved.config, backbone, family, stacklevel=4)
        cls._check_specs(saved, meta(backbone), info, kinds)
        state = saved.tensors()
        model = cls._build(saved.config, backbone, info, kinds)
        model.load_trainable_state_dict(state)
        model.encoder._warn_of_other_weights(saved.config, stacklevel=3)
        warn_unless_finite(model.trainable_state_dict())
        return model

    @classmethod
    def _check_specs(
        cls,
        saved: Saved,
        shapes: nn.Module,
        info: BackboneInfo,
        kinds: Mapping[str, str | HeadFactory],
    ) -> None:
        """Compare the saved tensors with a model on ``meta``, before memory is taken."""
        with torch.device("meta"):
            encoder = AdaptedBackbone._build(saved.config, shapes, info)
            encoder.check_adapter_specs(_by_part(saved.specs)["encoder"])
            try:
                twin = cls._build(saved.config, shapes, info, kinds)
            except CheckpointError:
                if all(isinstance(kind, str) for kind in kinds.values()):
                    raise
                return  # a callable may need real tensors; its heads are compared once built
        twin.check_trainable_specs(saved.specs)

    @classmethod
    def _build(
        cls,
        config: Mapping[str, Any],
        backbone: nn.Module,
        info: BackboneInfo,
        kinds: Mapping[str, str | HeadFactory],
    ) -> DenseModel:
        """Build what a checked configuration says; on ``meta`` where the backbone is there."""
        encoder = AdaptedBackbone._build(config, backbone, info)
        heads = config["heads"]
        try:
            return cls(encoder, heads["channels"], kinds, **heads["options"])
        except Exception as error:  # a head's own checks, or torch's where it has none
            raise CheckpointError(
                f"the saved configuration doesn't describe heads that can be built: "
                f"{error!s:.500} "
                "Save the model again, or pass the callable that made them as head=..."
            ) from error


def _by_part(state: Mapping[str, AnyPart]) -> dict[str, dict[str, AnyPart]]:
    """Sort what a dense model's state dict holds by the part it belongs to."""
    parts: dict[str, dict[str, AnyPart]] = {"encoder": {}, "norms": {}, "heads": {}}
    for name, value in state.items():
        kind, _, rest = name.partition(".")
        if kind not in parts:
            raise CheckpointError(
                f"{name!r:.200} is no part of a dense model; its parts are encoder, norms and "
                "heads."
            )
        parts[kind][rest] = value
    return parts


def _factory(kind: str | HeadFactory, options: Mapping[str, Any]) -> HeadFactory:
    """Look a name up, and see that the head has those options; a callable is what it is."""
    if not isinstance(kind, str):
        return kind
    make = find_head(kind)
    parameters = signature(make).parameters.values()
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters][2:]  # after channels, out_channels
        for name in options:
            if name not in known:
                raise UnknownNameError.of(f"option of head {kind!r}", name, known)
    return make
