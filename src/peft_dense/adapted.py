"""A frozen backbone, its paths, and each task's stage features."""

from __future__ import annotations

import copy
import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from peft_dense.backbones import BackboneInfo, Family, examine, freeze, share, stage_outputs
from peft_dense.backbones.clone import meta
from peft_dense.errors import (
    CheckpointError,
    HyperparameterError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.keeping.digest import compare_weights, weights_id
from peft_dense.keeping.files import read, write
from peft_dense.keeping.fit import check_backbone, check_state, specs, warn_unless_finite
from peft_dense.keeping.schema import check_config
from peft_dense.keeping.tensors import Spec
from peft_dense.ledger import Ledger
from peft_dense.methods.base import Method
from peft_dense.methods.base import method as find_method
from peft_dense.naming import drop_duplicates, frozen_keys, restore_duplicates
from peft_dense.nn import TaskDict

__all__ = ["AdaptedBackbone"]

_SHARED_PATH = "shared"


class AdaptedBackbone(nn.Module):
    """Turn images into stage features for every task, through paths that share a frozen backbone.

    Made by :func:`peft_dense.inject`. A *path* is a clone of the backbone that shares every frozen
    tensor; tasks that share a path cost one pass together. There is no current task: which tasks
    run is an argument of the call.

    Args:
        model: The original backbone; it is kept, never touched, and handed back by :meth:`eject`.
        method: What goes on the paths, with every hyper-parameter settled.
        tasks: Names of the tasks.
        info: What the probe found.

    Attributes:
        tasks: Names of the tasks.
        method: The method.
        info: What is known of the backbone: stages, sites, sizes.
        channels: Widths of the stages, finest first.
        reductions: Strides of the stages, finest first.
        backbone: The frozen backbone that all paths share.
        paths: The paths by name: one named ``shared``, or one a task.
        shared: What the paths refer to and none owns (a hypernetwork), or None.

    Shape:
        ``(B, 3, H, W) ->`` per task a list of ``(B, C_i, H / r_i, W / r_i)``, finest first
    """

    tasks: tuple[str, ...]
    method: Method
    info: BackboneInfo
    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    paths: nn.ModuleDict
    shared: nn.Module | None

    def __init__(
        self, model: nn.Module, method: Method, tasks: Sequence[str], info: BackboneInfo
    ) -> None:
        super().__init__()
        self._original = _Original(model)
        self.method, self.info, self.tasks = method, info, tuple(tasks)
        self.channels, self.reductions = info.channels, info.reductions
        self.merged = False
        self.backbone = freeze(model)
        for name in info.unused:
            self.backbone.set_submodule(name, nn.Identity())
        if info.family.flexible is not None:
            info.family.flexible(self.backbone)
        self.shared = method.shared(info, self.tasks)
        self.paths = TaskDict()
        for name, served in self._routes().items():
            self.paths[name] = self._new_path(served)
        self._follow_backbone()
        self.register_state_dict_post_hook(drop_duplicates)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(restore_duplicates)  # type: ignore[no-untyped-call]
        self.train(model.training)

    # ------------------------------------------------------------------ forward

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> dict[str, list[Tensor]]:
        """Compute stage features for ``tasks`` (all if None), one pass a path.

        Raises:
            UnknownNameError: A task that isn't there.
            ShapeError: ``x`` isn't a batch of images with three channels.
            ImageSizeError: The stages can't divide the image.
        """
        wanted = self._wanted(tasks)
        self.info.check_images(x)
        made: dict[str, list[Tensor]] = {}
        for name, served in self._routes().items():
            here = [task for task in served if task in wanted]
            if here:
                path = self.paths[name]
                outputs = self._stage_outputs(path, x)
                made |= self.method.task_features(path, self.info, outputs, here, x)
        return {task: made[task] for task in wanted}

    @property
    def task_groups(self) -> tuple[tuple[str, ...], ...]:
        """Tasks that share a path; a backward a group needs the memory of one path."""
        return tuple(self._routes().values())

    def _stage_outputs(self, path: nn.Module, x: Tensor) -> list[Tensor]:
        info = self.info
        if info.family.features is not None:
            outputs = list(info.family.features(path, x))
            return [outputs[index] for index in info.indices]
        tapped = stage_outputs(path, x, info.indices)
        assert tapped is not None, "the probe reached them"
        return tapped

    def _wanted(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        if tasks is None:
            return self.tasks
        wanted = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        for task in wanted:
            if task not in self.tasks:
                raise UnknownNameError.of("task", task, self.tasks)
        return wanted

    # ------------------------------------------------------------------ what is ours

    def adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and parameter of everything this library added or unfroze, each once."""
        for name, parameter in self._ours():
            yield self._short(name), parameter

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """Return what this library added or unfroze, buffers included, each tensor once."""
        frozen = frozen_keys(self.backbone, self.paths)
        state: dict[str, Tensor] = {}
        seen: set[int] = set()
        for name, tensor in self.state_dict(keep_vars=True).items():
            ours = not name.startswith("backbone.") and name not in frozen
            if ours and id(tensor) not in seen:  # a tied parameter has several names
                seen.add(id(tensor))
                state[self._short(name)] = tensor.detach()
        return state

    def load_adapter_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`adapter_state_dict` returned; nothing changes where it doesn't fit.

        Raises:
            CheckpointError: Names or shapes differ; the first few are listed.
        """
        own = self.adapter_state_dict()
        self.check_adapter_specs(specs(state))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def check_adapter_specs(self, given: Mapping[str, Spec]) -> None:
        """Check that tensors of these types and shapes could be loaded as adapters.

        Raises:
            CheckpointError: Names, shapes or types differ; the first few are listed.
        """
        check_state(
            specs(self.adapter_state_dict()),
            given,
            f"these adapters don't fit {self.method.name} on {self.info.model} with tasks "
            f"{', '.join(self.tasks)}",
            "Inject the method they were trained with, with the same hyper-parameters and tasks.",
        )

    def parameters_by_kind(self) -> dict[str, list[nn.Parameter]]:
        """Sort what trains into ``shared``, ``per_task`` and ``unfrozen_backbone``.

        For optimisers that treat them apart: unfrozen pretrained weights like smaller steps.
        """
        kinds: dict[str, list[nn.Parameter]] = {
            "shared": [],
            "per_task": [],
            "unfrozen_backbone": [],
        }
        names = {name for name, _ in self.backbone.named_parameters(remove_duplicate=False)}
        owners = self._task_owners()
        for name, parameter in self._ours():
            if not parameter.requires_grad:
                continue
            if name.startswith("paths.") and name.split(".", 2)[2] in names:
                kinds["unfrozen_backbone"].append(parameter)
            else:
                kinds["per_task" if id(parameter) in owners else "shared"].append(parameter)
        return kinds

    def ledger(self) -> Ledger:
        """Count the trainable parameters by what they serve."""
        tasks = dict.fromkeys(self.tasks, 0)
        owners = self._task_owners()
        for _, parameter in self._ours():
            if id(parameter) in owners and parameter.requires_grad:
                tasks[owners[id(parameter)]] += parameter.numel()
        kinds = self.parameters_by_kind()
        return Ledger(
            method=self.method.name,
            **{kind: sum(p.numel() for p in members) for kind, members in kinds.items()},
            backbone=self.info.size,
            tasks=tasks,
            passes=self.method.passes(len(self.tasks)),
        )

    # ------------------------------------------------------------------ keep and read

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the adapters (safetensors) and what they belong to (JSON) into ``folder``.

        Raises:
            UnsupportedModelError: This is a merged copy.
        """
        return write(folder, self.adapter_state_dict(), self.config())

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        backbone: nn.Module,
        *,
        family: Family | None = None,
    ) -> AdaptedBackbone:
        """Put saved adapters on ``backbone``.

        Args:
            folder: Where :meth:`save` wrote them.
            backbone: The model they were trained on, or one of the same build.
            family: As for :func:`peft_dense.inject`.

        Raises:
            CheckpointError: The folder isn't whole, or the backbone doesn't fit; the reason is
                named.
        """
        saved = read(folder)
        if "heads" in saved.config:
            raise CheckpointError(f"{folder} holds heads too; read it with DenseModel.load.")
        info = cls._examine(saved.config, backbone, family, stacklevel=4)
        with torch.device("meta"):
            cls._build(saved.config, meta(backbone), info).check_adapter_specs(saved.specs)
        state = saved.tensors()
        adapted = cls._build(saved.config, backbone, info)
        adapted.load_adapter_state_dict(state)
        adapted._warn_of_other_weights(saved.config, stacklevel=3)
        warn_unless_finite(adapted.adapter_state_dict())
        return adapted

    def config(self) -> dict[str, Any]:
        """Describe method, tasks and backbone such that JSON can hold it."""
        self._check_not_merged("saved as adapters")
        return {
            "method": self.method.name,
            "hyperparameters": dataclasses.asdict(self.method),
            "tasks": list(self.tasks),
            "backbone": {
                "class": self.info.model,
                "parameters": {name: list(s) for name, s in self.info.parameters.items()},
                "weights": weights_id(self._weights()),
            },
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], backbone: nn.Module, *, family: Family | None = None
    ) -> AdaptedBackbone:
        """Build what :meth:`config` describes on ``backbone``, with fresh adapters.

        Raises:
            CheckpointError: The backbone has other parameters than those described.
        """
        check_config(config, "the configuration")
        adapted = cls._build(config, backbone, cls._examine(config, backbone, family, stacklevel=4))
        adapted._warn_of_other_weights(config, stacklevel=3)
        return adapted

    @staticmethod
    def _examine(
        config: Mapping[str, Any], backbone: nn.Module, family: Family | None, *, stacklevel: int
    ) -> BackboneInfo:
        """Probe ``backbone``, and check that it has the parameters that a configuration names."""
        info = examine(backbone, family, stacklevel=stacklevel)
        saved = config["backbone"]
        check_backbone(saved["parameters"], info.parameters, saved["class"], info.model)
        return info

    @classmethod
    def _build(
        cls, config: Mapping[str, Any], backbone: nn.Module, info: BackboneInfo
    ) -> AdaptedBackbone:
        """Build what a checked configuration says; on ``meta`` where the backbone is there."""
        try:
            how = find_method(config["method"], **config["hyperparameters"]).resolve(info)
            return cls(backbone, how, config["tasks"], info)
        except Exception as error:  # a method's own checks, or torch's where it has none
            raise CheckpointError(
                f"the saved configuration doesn't describe adapters of this {info.model}: "
                f"{error!s:.500} "
                "Save them again, or load them with the version that saved them."
            ) from error

    def _weights(self) -> dict[str, Tensor]:
        """The frozen weights that outputs depend on: used parameters, and buffers that are kept."""
        weights: dict[str, Tensor] = {}
        for path, module in self.backbone.named_modules():
            at = f"{path}." if path else ""
            own = dict(module.named_parameters(recurse=False))
            used = {name: p for name, p in own.items() if at + name in self.info.parameters}
            weights |= {at + name: parameter for name, parameter in used.items()}
            if used or not own:  # statistics belong to the weight beside them
                weights |= {
                    at + name: buffer
                    for name, buffer in module.named_buffers(recurse=False)
                    if name not in module._non_persistent_buffers_set
                }
        return weights

    def _warn_of_other_weights(self, config: Mapping[str, Any], stacklevel: int) -> None:
        verdict = compare_weights(config["backbone"]["weights"], weights_id(self._weights()))
        if verdict == "other":
            warnings.warn(
                f"the adapters were trained on other weights of {self.info.model} than these; load "
                "the same pretrained weights into the backbone first.",
                stacklevel=stacklevel,
            )

    def eject(self) -> nn.Module:
        """Return the original model, bit for bit as it was given; deep copies return it too."""
        return self._original.model

    # ------------------------------------------------------------------ tasks come and go

    def add_task(self, name: str) -> None:
        """Add a task in place; the others' outputs don't move by one bit.

        Raises:
            HyperparameterError: The task is there already.
        """
        if name in self.tasks:
            raise HyperparameterError(f"task {name!r} is there already; name each task once.")
        self._check_not_merged("given tasks")
        for module in list(self.modules()):
            tasks = getattr(module, "tasks", None)
            if isinstance(tasks, TaskDict) and len(tasks):
                module.add_task(name)  # type: ignore[operator]
        if not self.method.one_path:
            self.paths[name] = self._new_path((name,))
        self.tasks = (*self.tasks, name)
        self._follow_backbone()
        self.train(self.training)

    def remove_task(self, name: str) -> None:
        """Remove a task and all that served it alone; the others don't move by one bit.

        Raises:
            UnknownNameError: No such task.
            HyperparameterError: It is the last one.
        """
        self._wanted([name])
        if len(self.tasks) == 1:
            raise HyperparameterError(
                f"{name!r} is the last task; use eject() to get the backbone."
            )
        for module in list(self.modules()):
            tasks = getattr(module, "tasks", None)
            if isinstance(tasks, TaskDict) and name in tasks:
                del tasks[name]
        if not self.method.one_path:
            del self.paths[name]
        self.tasks = tuple(task for task in self.tasks if task != name)

    def extract_task(self, name: str) -> AdaptedBackbone:
        """Return a copy that serves one task only; it shares the frozen backbone with this one.

        Raises:
            UnknownNameError: No such task.
        """
        self._wanted([name])
        alone = self._copy()
        for task in self.tasks:
            if task != name:
                alone.remove_task(task)
        return alone

    def merge(self) -> AdaptedBackbone:
        """Return a copy whose adapters are folded into plain modules, for inference.

        Exact where the method is linear in the weights (LoRA); hypernetworks are baked into plain
        adapters. The copy can't be saved or given tasks: keep this one for that.

        Raises:
            UnsupportedModelError: The method can't be folded; the message says why.
        """
        self._check_not_merged("merged again")
        merged = self._copy()
        for path in merged.paths.values():
            self.method.merge(path, self.info)
        merged.shared, merged.merged = None, True
        for _, parameter in merged._ours():
            parameter.requires_grad_(False)
        return merged

    # ------------------------------------------------------------------ modes

    def train(self, mode: bool = True) -> Self:
        """Switch drop path and dropout; frozen batch normalisation stays in eval."""
        super().train(mode)
        frozen = {id(parameter) for parameter in self.backbone.parameters()}
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                parameters = list(module.parameters())
                if all(id(parameter) in frozen for parameter in parameters):
                    module.training = False
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

    def extra_repr(self) -> str:
        """Show method, tasks and stages."""
        flat = ", flat: one scale" if self.info.flat else ""
        return (
            f"{self.method}, tasks={self.tasks}, channels={self.channels}, "
            f"reductions={self.reductions}{flat}"
        )

    # ------------------------------------------------------------------ inside

    def _ours(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what isn't the frozen backbone's, under its full name."""
        frozen = {id(parameter) for parameter in self.backbone.parameters()}
        for name, parameter in self.named_parameters():
            if id(parameter) not in frozen:
                yield name, parameter

    def _copy(self) -> AdaptedBackbone:
        """Copy all but the frozen tensors and the original."""
        memo: dict[int, Any] = {id(p): p for p in self.backbone.parameters()}
        return copy.deepcopy(self, memo)

    def _check_not_merged(self, what: str) -> None:
        if self.merged:
            raise UnsupportedModelError(
                f"a merged copy can't be {what}; use the one it was merged from."
            )

    def _routes(self) -> dict[str, tuple[str, ...]]:
        """Which tasks each path serves."""
        if self.method.one_path:
            return {_SHARED_PATH: self.tasks}
        return {task: (task,) for task in self.tasks}

    def _new_path(self, served: Sequence[str]) -> nn.Module:
        path = share(self.backbone)
        self.method.adapt(path, self.info, served, self.shared)
        return path

    def _follow_backbone(self) -> None:
        """Put what was added on the backbone's device, in its floating-point type."""
        reference = next(p for p in self.backbone.parameters() if p.is_floating_point())
        for _, parameter in self.adapter_parameters():
            parameter.data = parameter.data.to(reference.device, reference.dtype)

    def _task_owners(self) -> dict[int, str]:
        """Which parameters serve one task alone: those under its name in a TaskDict."""
        owners: dict[int, str] = {}
        if not self.method.one_path:
            for task, path in self.paths.items():
                owners |= {id(parameter): task for parameter in path.parameters()}
        for module in self.modules():
            if isinstance(module, TaskDict) and module is not self.paths:
                for task, part in module.items():
                    owners |= {id(parameter): task for parameter in part.parameters()}
        return owners

    def _short(self, name: str) -> str:
        """Drop the path's name where all tasks share it."""
        return name.removeprefix(f"paths.{_SHARED_PATH}.") if self.method.one_path else name


class _Original:
    """Hold the original out of sight of ``nn.Module``; copies refer to the same one."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __deepcopy__(self, memo: dict[int, Any]) -> _Original:
        return self
