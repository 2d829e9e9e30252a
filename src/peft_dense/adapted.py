"""A frozen backbone, its paths, and each task's stage features."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from peft_dense import folders, ownership, surgery
from peft_dense.backbones import BackboneInfo, Family, Recording, WholeImage
from peft_dense.backbones.clone import deepcopy_parts, freeze, share, template
from peft_dense.backbones.record import watch
from peft_dense.errors import UnknownNameError, UnsupportedModelError
from peft_dense.keeping.compare import specs
from peft_dense.keeping.digest import changed, fingerprint
from peft_dense.ledger import Ledger
from peft_dense.methods.base import Method
from peft_dense.nn import TaskDict
from peft_dense.ownership import Slot

__all__ = ["AdaptedBackbone"]

SHARED_PATH = "shared"
"""Name of the path that all tasks share."""


class AdaptedBackbone(nn.Module):
    """Turn images into stage features for every task, through paths that share a frozen backbone.

    Made by :func:`peft_dense.inject`. A *path* is a clone of the backbone that shares every frozen
    tensor; tasks that share a path cost one pass together. There is no current task: which tasks
    run is an argument of the call, and a call leaves nothing behind.

    Args:
        model: The original backbone; it is kept, never touched, and handed back by :meth:`eject`.
        method: The method, its hyper-parameters settled by ``resolve``.
        tasks: Names of the tasks.
        info: What the probe found.

    Attributes:
        tasks: Names of the tasks.
        method: The method.
        info: What is known of the backbone: stages, sites, sizes.
        channels: Widths of the stages, finest first.
        reductions: Strides of the stages, finest first.
        paths: The paths by name: one named ``shared``, or one per task.
        shared: What the paths refer to and none owns (a hypernetwork), or None.

    Shape:
        ``(B, C, H, W) ->`` per task a list of ``(B, C_i, H / r_i, W / r_i)``, finest first

    Raises:
        UnsupportedModelError: The method can't be put on the backbone.

    Example:
        >>> import timm
        >>> from peft_dense import inject
        >>> backbone = timm.create_model("pvt_v2_b0")
        >>> encoder = inject(backbone, "vmt_lite", tasks=["semseg", "normals"])
        >>> [tuple(stage.shape) for stage in encoder(torch.randn(1, 3, 64, 64))["normals"]]
        [(1, 32, 16, 16), (1, 64, 8, 8), (1, 160, 4, 4), (1, 256, 2, 2)]
    """

    tasks: tuple[str, ...]
    method: Method
    info: BackboneInfo
    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    paths: nn.ModuleDict
    shared: nn.Module | None

    if TYPE_CHECKING:

        def __call__(
            self, x: Tensor, tasks: Sequence[str] | None = None
        ) -> dict[str, list[Tensor]]:
            """Run :meth:`forward`; declared for type checkers."""

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __init__(
        self, model: nn.Module, method: Method, tasks: Sequence[str], info: BackboneInfo
    ) -> None:
        super().__init__()
        self.method, self.info, self.tasks = method, info, tuple(tasks)
        self.channels, self.reductions = info.channels, info.reductions
        self.merged = False
        frozen = freeze(model)
        for name in info.unused:
            frozen.set_submodule(name, nn.Identity())
        if info.family.flexible is not None:
            info.family.flexible(frozen)
        self._origin = _OutOfSight(model, template(frozen, info.updating))
        tensors = {**dict(frozen.named_parameters()), **dict(frozen.named_buffers())}
        self.shared = method.shared(info, self.tasks)
        self.paths = nn.ModuleDict() if method.one_path else TaskDict()
        for name, tasks_of_path in self.routes.items():
            self.paths[name] = self.new_path(tasks_of_path, tensors)
        like = next((p for p in tensors.values() if p.is_floating_point()), torch.empty(0))
        ownership.settle(self, like)
        self._seal, self._frozen_changed, self.replaced = "", False, False
        self._reseal()
        self.register_state_dict_post_hook(ownership.drop_copies)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]
        self.train(model.training)

    # ------------------------------------------------------------------ forward

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, list[Tensor]]:
        """Compute stage features for ``tasks`` (all if None), one pass per path.

        Raises:
            UnknownNameError: No such task.
            ShapeError: ``x`` isn't a batch of images with the backbone's number of channels.
            ImageSizeError: The stages can't divide the image.
        """
        wanted = self.check_tasks(tasks)
        self.info.check_images(x)
        features: dict[str, list[Tensor]] = {}
        for name, tasks_of_path in self.routes.items():
            asked = [task for task in tasks_of_path if task in wanted]
            if asked:
                features.update(self._pass(self.paths[name], x, asked))
        return {task: features[task] for task in wanted}

    def _pass(self, path: nn.Module, x: Tensor, tasks: Sequence[str]) -> dict[str, list[Tensor]]:
        with Recording() as record, WholeImage(path, x):
            outputs = self.info.stage_outputs(path, x)
        return self.method.task_features(path, self.info, outputs, record, tasks, x)

    @property
    def routes(self) -> dict[str, tuple[str, ...]]:
        """Which tasks each path serves, by the path's name."""
        if self.method.one_path:
            return {SHARED_PATH: self.tasks}
        return {task: (task,) for task in self.tasks}

    @property
    def task_groups(self) -> tuple[tuple[str, ...], ...]:
        """Tasks that share a path; a backward per group needs the memory of one path."""
        return tuple(self.routes.values())

    def check_tasks(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        """Give the tasks that are asked for: all if None.

        Raises:
            UnknownNameError: A task that isn't there.
        """
        if tasks is None:
            return self.tasks
        wanted = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        for task in wanted:
            if task not in self.tasks:
                raise UnknownNameError.of("task", task, self.tasks)
        return wanted

    def new_path(self, tasks: Sequence[str], tensors: Mapping[str, Tensor]) -> nn.Module:
        """Make a path around the frozen ``tensors`` and put the method on it."""
        path = share(self.pattern, tensors)
        self.method.adapt(path, self.info, tasks, self.shared)
        for tap in self.method.taps(self.info):
            watch(path, tap)
        return path

    # ------------------------------------------------------------------ what is ours

    def adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and parameter of all that was added or unfrozen, each once."""
        for slot in self._ours():
            if isinstance(slot.tensor, nn.Parameter):
                yield self._short(slot.name), slot.tensor

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """Return all that was added or unfrozen, buffers included, each tensor once."""
        return {self._short(s.name): s.tensor.detach() for s in self._ours() if s.persistent}

    def load_adapter_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`adapter_state_dict` returned; nothing changes where it doesn't fit.

        Raises:
            CheckpointError: Names or shapes differ; the first few are listed.
        """
        own = self.adapter_state_dict()
        folders.check_adapters(self, specs(state))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def parameters_by_kind(self) -> dict[str, list[nn.Parameter]]:
        """Sort what trains into ``shared``, ``per_task`` and ``unfrozen_backbone``.

        For optimisers that treat them apart: unfrozen pretrained weights take smaller steps.
        """
        kinds: dict[str, list[nn.Parameter]] = {
            "shared": [],
            "per_task": [],
            "unfrozen_backbone": [],
        }
        for slot in self._ours():
            if isinstance(slot.tensor, nn.Parameter) and slot.tensor.requires_grad:
                kinds[slot.kind].append(slot.tensor)
        return kinds

    def ledger(self) -> Ledger:
        """Count the trainable parameters by what they serve."""
        kinds = {"shared": 0, "per_task": 0, "unfrozen_backbone": 0}
        tasks = dict.fromkeys(self.tasks, 0)
        for slot in self._ours():
            if isinstance(slot.tensor, nn.Parameter) and slot.tensor.requires_grad:
                kinds[slot.kind] += slot.tensor.numel()
                if slot.task is not None:
                    tasks[slot.task] += slot.tensor.numel()
        return Ledger(
            method=self.method.name,
            **kinds,
            backbone=self.info.size,
            tasks=tasks,
            passes=self.method.passes(len(self.tasks)),
        )

    def _ours(self) -> Iterator[Slot]:
        """Yield what isn't the frozen backbone's, each tensor once."""
        seen: set[int] = set()
        for slot in ownership.slots(self):
            if not slot.frozen and id(slot.tensor) not in seen:
                seen.add(id(slot.tensor))
                yield slot

    def _short(self, name: str) -> str:
        """Drop the path's name where all tasks share it."""
        return name.removeprefix(f"paths.{SHARED_PATH}.") if self.method.one_path else name

    @property
    def pattern(self) -> nn.Module:
        """The backbone's modules on the ``meta`` device, of which paths are made."""
        return self._origin.pattern

    def backbone_tensors(self) -> dict[str, Tensor]:
        """Give the backbone's parameters and buffers by name.

        The paths' shared tensors; the original's where every path has a copy of its own.
        """
        original = self._origin.model
        named = {**dict(original.named_parameters()), **dict(original.named_buffers())}
        return {**named, **ownership.frozen_tensors(self)}

    # ------------------------------------------------------------------ keep and read

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the adapters (safetensors) and what they belong to (JSON) into ``folder``.

        Raises:
            UnsupportedModelError: This is a merged copy, or the frozen weights changed since
                inject.
            CheckpointError: The disk refuses; what was there stays.
        """
        return folders.save_encoder(self, folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        backbone: nn.Module,
        *,
        family: Family | None = None,
    ) -> Self:
        """Put saved adapters on ``backbone``.

        Args:
            folder: Where :meth:`save` wrote them.
            backbone: The model they were trained on, or one of the same build.
            family: As for :func:`peft_dense.inject`.

        Raises:
            CheckpointError: The folder isn't whole, or the backbone doesn't fit; the reason is
                named.
        """
        return folders.load_encoder(cls, folder, backbone, family)

    def config(self) -> dict[str, Any]:
        """Describe method, tasks and backbone such that JSON can hold it."""
        return folders.describe_encoder(self)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], backbone: nn.Module, *, family: Family | None = None
    ) -> Self:
        """Build what :meth:`config` describes on ``backbone``, with fresh adapters.

        Raises:
            CheckpointError: The backbone has other parameters than those described.
        """
        return folders.encoder_from_config(cls, config, backbone, family)

    def eject(self) -> nn.Module:
        """Return the original model, bit for bit as it was given; deep copies return it too."""
        return self._origin.model

    # ------------------------------------------------------------------ tasks come and go

    def add_task(self, name: str) -> None:
        """Add a task in place; the others' outputs don't move by one bit.

        Raises:
            HyperparameterError: The task is there already, or its name isn't a non-empty string.
            UnsupportedModelError: This is a merged copy, or the new task would start from
                backbone weights that are no longer there.
        """
        surgery.add_task(self, name)

    def remove_task(self, name: str) -> None:
        """Remove a task and all that served it alone; the others don't move by one bit.

        Raises:
            UnknownNameError: No such task.
            HyperparameterError: It is the last one.
        """
        surgery.remove_task(self, name)

    def extract_task(self, name: str) -> AdaptedBackbone:
        """Return a copy that serves one task only; it shares the frozen backbone with this one.

        Raises:
            UnknownNameError: No such task.
        """
        return surgery.extract_task(self, name)

    def merge(self) -> AdaptedBackbone:
        """Return a copy whose adapters are folded into plain modules, for inference.

        Exact where the method is linear in the weights (LoRA); hypernetworks are baked into plain
        adapters. The copy can't be saved or given tasks: keep this one for that.

        Raises:
            UnsupportedModelError: The method can't be folded; the message says why.
        """
        return surgery.merge(self)

    def check_not_merged(self, what: str) -> None:
        """Raise if this is a merged copy, which can't be ``what``."""
        if self.merged:
            raise UnsupportedModelError(
                f"a merged copy can't be {what}; use the one it was merged from."
            )

    # ------------------------------------------------------------------ modes

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; what would write into frozen buffers (batch norms) stays in eval."""
        super().train(mode)
        ownership.freeze_statistics(self)
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward instead of keeping their activations.

        Raises:
            UnsupportedModelError: The backbone has no such switch.
        """
        for path in self.paths.values():
            switch: Any = getattr(path, "set_grad_checkpointing", None)
            if switch is None:
                raise UnsupportedModelError(
                    f"{self.info.model} has no set_grad_checkpointing; wrap its blocks with "
                    "torch.utils.checkpoint before inject."
                )
            switch(enable)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move, cast or materialise all tensors (``to``, ``half``, ``to_empty``), once each."""
        self._frozen_changed = self.frozen_changed()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        ownership.retie(self)
        self._reseal()
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Before the paths load: give each the frozen tensors that the state dict names once."""
        self._frozen_changed = self.frozen_changed()
        self.replaced = ownership.fill_copies(self, state_dict, prefix) or self.replaced
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy all but the original, also where a forward left tensors with a graph behind."""
        return deepcopy_parts(self, memo)

    def frozen_changed(self) -> bool:
        """Whether a frozen tensor holds other values than at inject (or than were loaded since)."""
        now = fingerprint(ownership.frozen_tensors(self))
        return self._frozen_changed or changed(self._seal, now)

    def _reseal(self) -> None:
        self._seal = fingerprint(ownership.frozen_tensors(self))

    def extra_repr(self) -> str:
        """Show method, tasks and stages."""
        flat = ", flat: one scale" if self.info.flat else ""
        return (
            f"{self.method}, tasks={self.tasks}, channels={self.channels}, "
            f"reductions={self.reductions}{flat}"
        )


class _OutOfSight:
    """Hold the original and the pattern of the paths where ``nn.Module`` doesn't see them.

    Copies of the adapted backbone refer to the same ones.
    """

    def __init__(self, model: nn.Module, pattern: nn.Module) -> None:
        self.model, self.pattern = model, pattern

    def __deepcopy__(self, memo: dict[int, Any]) -> _OutOfSight:
        return self


def _after_loading(module: Any, _: Any) -> None:
    ownership.retie(module)
    module._reseal()
