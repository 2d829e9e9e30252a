"""What the benchmarks time: the bound, methods put on a backbone, a step and an inference."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from peft_dense import AdaptedBackbone, inject
from peft_dense.errors import DataError
from peft_dense.methods import method
from peft_dense.methods.adapter import Adapter

__all__ = ["BOUND", "NO_GPU", "Chosen", "bound", "infer", "mean_squares", "plain", "read", "step"]

BOUND = "frozen backbone"
NO_GPU = "No GPU was found (torch.cuda.is_available() is False): only the CPU was measured."

Call = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Chosen:
    """A method as it was asked for."""

    label: str
    name: str
    hyper: dict[str, Any]

    @property
    def one_path(self) -> bool:
        return method(self.name, **self.hyper).one_path

    def put_on(self, net: nn.Module, tasks: int) -> AdaptedBackbone:
        return inject(net, self.name, tasks=[f"task_{i}" for i in range(tasks)], **self.hyper)


def read(words: Sequence[str]) -> list[Chosen]:
    """Read ``"lora rank=16 targets=qkv,proj"``: a name, and hyper-parameters behind it."""
    chosen = []
    for label in words:
        name, *settings = label.split()
        hyper: dict[str, Any] = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise DataError(f"{setting!r} in {label!r} isn't KEY=VALUE.")
            hyper[key] = tuple(text.split(",")) if "," in text else _literal(text)
        method(name, **hyper)  # a wrong name fails now, not after an hour
        chosen.append(Chosen(label, name, hyper))
    return chosen


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def bound(net: nn.Module) -> AdaptedBackbone:
    """Put nothing on: the path is the frozen backbone, behind the same call."""
    return inject(net, "decoders_only", tasks=["task_0"])


def plain(net: nn.Module, like: AdaptedBackbone) -> AdaptedBackbone:
    """Put the plain adapters on that a hypernetwork makes the weights of."""
    names = [field.name for field in fields(Adapter)]
    same = {name: getattr(like.method, name) for name in names if hasattr(like.method, name)}
    return inject(net, "adapter", tasks=["task_0"], **same)


def mean_squares(found: Any) -> Tensor:
    """Make a small loss of every map in lists and dicts of them."""
    if isinstance(found, Tensor):
        return found.float().square().mean()
    each = found.values() if isinstance(found, dict) else found
    return torch.stack([mean_squares(one) for one in each]).sum()


def step(call: Call, model: nn.Module, images: Tensor, loss: Call = mean_squares) -> None:
    """Run forward, loss and backward, and drop the gradients."""
    loss(call(images)).backward()
    model.zero_grad()
    images.grad = None


def infer(call: Call, images: Tensor) -> None:
    with torch.no_grad():
        call(images)
