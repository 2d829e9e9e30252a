"""An adapted backbone with a head for every task: images in, dense predictions out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from peft_dense import folders
from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import Family
from peft_dense.errors import HyperparameterError, UnknownNameError, UnsupportedModelError
from peft_dense.heads import head as find_head
from peft_dense.keeping.compare import specs
from peft_dense.layout import from_channels_last, to_channels_last
from peft_dense.ledger import Ledger
from peft_dense.nn import TaskDict
from peft_dense.nn.checks import check_whole
from peft_dense.surgery import check_names

__all__ = ["DenseModel"]

HeadFactory = Callable[..., nn.Module]


class DenseModel(nn.Module):
    """Turn images into one dense prediction per task.

    Each task's stage features pass a LayerNorm per stage (the papers' output norms, one set per
    task) and the task's head; the result is upsampled to the images' size.

    Args:
        encoder: The adapted backbone.
        channels: Output channels per task; every task of the encoder needs a head.
        head: Name of a head, or any callable ``(channels, out_channels, **options) -> module``
            whose module maps a list of stage features to one map; or a mapping of every task to
            its own name or callable.
        **options: Passed on to every head, such as ``width=256``.

    Shape:
        ``(B, C, H, W) ->`` per task ``(B, out, H, W)``

    Raises:
        UnknownNameError: Unknown head, unknown option of a named head, or a head for a task that
            the encoder doesn't have.
        HyperparameterError: A task of the encoder has no head, or its head is no module.

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
        self.encoder, self.options = encoder, options
        self.out_channels: dict[str, int] = {}
        self.head_names: dict[str, str | None] = {}
        self.norms, self.heads = TaskDict(), TaskDict()
        like = next(p for p in encoder.backbone_tensors().values() if p.is_floating_point())
        for task in encoder.tasks:
            self._put_head(task, *self._make_head(task, channels[task], kinds[task]), like)

    def _make_head(
        self, task: str, channels: int, kind: str | HeadFactory
    ) -> tuple[int, str | None, nn.Module, nn.Module]:
        """Check the channels, and build output norms and head."""
        check_whole(f"channels[{task!r}]", channels)
        norms = nn.ModuleList(nn.LayerNorm(width) for width in self.encoder.channels)
        head = _factory(kind, self.options)(self.encoder.channels, int(channels), **self.options)
        if not isinstance(head, nn.Module):
            raise HyperparameterError(
                f"the head of {task!r} is {head!r:.200}; expected the callable to return a Module."
            )
        return int(channels), kind if isinstance(kind, str) else None, norms, head

    def _put_head(
        self,
        task: str,
        channels: int,
        name: str | None,
        norms: nn.Module,
        head: nn.Module,
        like: Tensor,
    ) -> None:
        self.out_channels[task], self.head_names[task] = channels, name
        self.norms[task], self.heads[task] = norms.to(like), head.to(like)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
            """Run :meth:`forward`; declared for type checkers."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return self.encoder.tasks

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Predict ``tasks`` (all if None) at the images' size.

        Raises:
            UnknownNameError: No such task.
            ImageSizeError: The stages can't divide the images.
        """
        self._check_heads()
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

    def _check_heads(self) -> None:
        """Raise if tasks were added to or removed from the encoder alone."""
        if self.encoder.tasks == tuple(self.out_channels):
            return
        remedies = [
            f"model.add_task({task!r}, channels=...) gives it a head"
            for task in self.encoder.tasks
            if task not in self.out_channels
        ] + [
            f"model.remove_task({task!r}) removes its head too"
            for task in self.out_channels
            if task not in self.encoder.tasks
        ]
        raise UnsupportedModelError(
            f"the encoder serves {', '.join(self.encoder.tasks)}, and there are heads for "
            f"{', '.join(self.out_channels)}: it was changed under the model. "
            f"{'; '.join(remedies) or 'Build the DenseModel anew'}."
        )

    # ------------------------------------------------------------------ tasks come and go

    def add_task(self, name: str, channels: int, head: str | HeadFactory | None = None) -> None:
        """Add a task with its head in place; the others' predictions don't move by one bit.

        Args:
            name: The task. If only the encoder has it so far, it gets its head.
            channels: Output channels of its head.
            head: As for the class; None takes the head that all other tasks have.

        Raises:
            HyperparameterError: The task is there already, its name or channels aren't right, or
                the other tasks' heads don't say which one to take.
            UnknownNameError: Unknown head.
        """
        check_names([name])
        if name in self.out_channels:
            raise HyperparameterError(f"task {name!r} is there already; name each task once.")
        if head is None:
            kinds = set(self.head_names.values())
            head = kinds.pop() if len(kinds) == 1 else None
            if head is None:
                raise HyperparameterError(
                    f"the tasks' heads are {self.head_names}, which doesn't tell the one of "
                    f"{name!r}; pass head=..., a name or a callable."
                )
        width, kind, norms, made = self._make_head(name, channels, head)
        # Moved before anything changes, for moving may fail.
        like = next(self.norms.parameters())
        norms, made = norms.to(like), made.to(like)
        if name not in self.encoder.tasks:
            self.encoder.add_task(name)
        self._put_head(name, width, kind, norms, made, like)
        self.train(self.training)

    def remove_task(self, name: str) -> None:
        """Remove a task, its head, and all that served it alone.

        Raises:
            UnknownNameError: No such task.
            HyperparameterError: It is the last one.
        """
        if name not in self.out_channels:
            raise UnknownNameError.of("task", name, self.out_channels)
        if name in self.encoder.tasks:
            self.encoder.remove_task(name)
        for part in (self.norms, self.heads, self.out_channels, self.head_names):
            del part[name]

    def extract_task(self, name: str) -> DenseModel:
        """Return a copy that serves one task only; it shares the frozen backbone with this one.

        Raises:
            UnknownNameError: No such task.
        """
        self._check_heads()
        return self._around(self.encoder.extract_task(name))

    def merge(self) -> DenseModel:
        """Return a copy with its adapters folded into plain modules, for inference.

        Raises:
            UnsupportedModelError: The method can't be folded; the message says why.
        """
        self._check_heads()
        merged = self._around(self.encoder.merge())
        return merged.requires_grad_(False)

    def _around(self, encoder: AdaptedBackbone) -> DenseModel:
        """Copy norms and heads of the tasks of ``encoder``, and put them on it."""
        other = type(self).__new__(type(self))
        nn.Module.__init__(other)
        other.encoder, other.options = encoder, dict(self.options)
        other.out_channels = {task: self.out_channels[task] for task in encoder.tasks}
        other.head_names = {task: self.head_names[task] for task in encoder.tasks}
        other.norms = TaskDict({t: copy.deepcopy(self.norms[t]) for t in encoder.tasks})
        other.heads = TaskDict({t: copy.deepcopy(self.heads[t]) for t in encoder.tasks})
        other.train(self.training)
        return other

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's blocks in the backward instead of keeping their activations.

        Raises:
            UnsupportedModelError: The backbone has no such switch.
        """
        self.encoder.set_grad_checkpointing(enable)

    def adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and parameter of all that was added or unfrozen in the encoder, each once."""
        yield from self.encoder.adapter_parameters()

    # ------------------------------------------------------------------ keep and read

    def ledger(self) -> Ledger:
        """Count the trainable parameters, heads and output norms included."""
        self._check_heads()
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
            CheckpointError: Names, shapes or types differ.
        """
        folders.check_trainable(self, specs(state))
        parts = folders.by_part(state)
        self.encoder.load_adapter_state_dict(parts["encoder"])
        self.norms.load_state_dict(parts["norms"])
        self.heads.load_state_dict(parts["heads"])

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write adapters and heads (safetensors) and what they belong to (JSON) into ``folder``.

        Raises:
            UnsupportedModelError: This is a merged copy, the encoder's tasks were changed, or the
                frozen weights were.
            CheckpointError: The disk refuses; what was there stays.
        """
        self._check_heads()
        return folders.save_model(self, folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        backbone: nn.Module,
        *,
        head: HeadFactory | Mapping[str, str | HeadFactory] | None = None,
        family: Family | None = None,
    ) -> Self:
        """Put a saved model's adapters and heads on ``backbone``.

        Args:
            folder: Where :meth:`save` wrote it.
            backbone: The model it was trained on, or one of the same build.
            head: The callable the heads were made with, or a mapping with those of some tasks,
                where it was no registered name.
            family: As for :func:`peft_dense.inject`.

        Raises:
            CheckpointError: The folder isn't whole, holds an encoder only, or doesn't fit.
            UnknownNameError: ``head`` names a task that the saved model doesn't have.
        """
        return folders.load_model(cls, AdaptedBackbone, folder, backbone, head, family)


def _factory(kind: str | HeadFactory, options: Mapping[str, Any]) -> HeadFactory:
    """Look a name up and check that the head has those options; return a callable as it is."""
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
