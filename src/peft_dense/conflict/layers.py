"""What tasks share, sorted by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones.edit import AdapterTree
from peft_dense.dense import DenseModel
from peft_dense.errors import HyperparameterError, UnsupportedModelError

__all__ = ["Shared", "layers_of", "shared_layers"]

Shared = DenseModel | AdaptedBackbone | Mapping[str, Iterable[Tensor]]
"""What tasks share: a model of this library, or parameters by the name of a layer."""


def layers_of(parameters: Shared) -> dict[str, list[Tensor]]:
    """Give the parameters to measure, by layer, each once."""
    if isinstance(parameters, DenseModel | AdaptedBackbone):
        return {name: [*members] for name, members in shared_layers(parameters).items()}
    if not isinstance(parameters, Mapping):
        raise UnsupportedModelError(
            f"{type(parameters).__name__} isn't a DenseModel or an AdaptedBackbone; unwrap it "
            "(DDP's .module, compile's ._orig_mod), or pass {'name of a layer': [parameters]}."
        )
    layers = {name: list(members) for name, members in parameters.items()}
    seen: set[int] = set()
    for name, members in layers.items():
        for parameter in members:
            if id(parameter) in seen or not (parameter.is_leaf and parameter.requires_grad):
                what = "is given twice" if id(parameter) in seen else "doesn't train"
                raise HyperparameterError(
                    f"a parameter of layer {name!r}, shape {tuple(parameter.shape)}, {what}; pass "
                    "each trainable parameter once."
                )
            seen.add(id(parameter))
        if not members:
            raise HyperparameterError(f"layer {name!r} has no parameters; leave it out.")
    if not layers:
        raise HyperparameterError("no parameters to measure; pass {'name of a layer': [...]}.")
    return layers


_CONTAINERS = (nn.ModuleList, nn.ModuleDict, AdapterTree)


def shared_layers(model: DenseModel | AdaptedBackbone) -> dict[str, list[nn.Parameter]]:
    """Sort what the tasks of a model share, and what trains of it, by layer.

    On a shared path that is what was added for all tasks and what was unfrozen; with one path per
    task it is what the method shares, such as a hypernetwork. A layer is a whole adapter, a part of
    a hypernetwork, or the module of the backbone that owns the parameter.

    Args:
        model: An adapted backbone, or one with heads.

    Raises:
        UnsupportedModelError: The tasks share nothing that trains.

    Example:
        >>> import timm
        >>> from peft_dense import inject
        >>> adapted = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["a", "b"])
        >>> list(shared_layers(adapted))[:2]
        ['adapters.stages.0.blocks.0.mlp.branch', 'adapters.stages.0.blocks.1.mlp.branch']
    """
    adapted = model.encoder if isinstance(model, DenseModel) else model
    kinds = adapted.parameters_by_kind()
    one_path = adapted.method.one_path
    added = {id(parameter) for kind in ("shared", "per_task") for parameter in kinds[kind]}
    wanted = {
        id(parameter)
        for kind in (("shared", "unfrozen_backbone") if one_path else ("shared",))
        for parameter in kinds[kind]
        if parameter.requires_grad
    }
    layers: dict[str, list[nn.Parameter]] = {}

    def walk(name: str, module: nn.Module, *, whole: bool = True) -> None:
        whole = whole and not isinstance(module, _CONTAINERS)
        whole = whole and all(id(parameter) in added for parameter in module.parameters())
        members = [p for p in module.parameters(recurse=whole) if id(p) in wanted]
        wanted.difference_update(map(id, members))
        if members:
            layers[name] = members
        if not whole:
            for child, part in module.named_children():
                walk(f"{name}.{child}" if name else child, part)

    if adapted.shared is not None:
        walk("shared", adapted.shared, whole=False)
    if one_path:
        for path in adapted.paths.values():
            walk("", path, whole=False)
    if not layers:
        raise UnsupportedModelError(
            f"with {adapted.method.name} on {adapted.info.model} the tasks share nothing that "
            "trains, so their gradients don't meet. Take a method with a shared path "
            "(shared_adapter, vmt) or a hypernetwork (polyhistor), or pass the parameters."
        )
    return layers
