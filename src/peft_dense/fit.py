"""Tell whether saved adapters belong on a backbone: by names and shapes, and by its weights."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from peft_dense.backbones import BackboneInfo
from peft_dense.errors import CheckpointError

__all__ = ["check_fit", "checksum"]


def checksum(tensors: Mapping[str, Tensor], info: BackboneInfo) -> dict[str, str]:
    """Tell one set of weights from another: type and CRC-32 of the used parameters."""
    crc, kinds = 0, set()
    for name in info.parameters:
        if True:
            parameter = tensors[name]
            values = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
            crc = zlib.crc32(values.numpy().tobytes(), crc)
            kinds.add(str(parameter.dtype).removeprefix("torch."))
    return {"dtype": ",".join(sorted(kinds)), "crc32": f"{crc:08x}"}


def check_fit(saved: Mapping[str, Sequence[int]], name: str, info: BackboneInfo) -> None:
    """Compare the parameters the adapters were made for with those that are there."""
    here = {key: list(shape) for key, shape in info.parameters.items()}
    missing, extra = sorted(saved.keys() - here.keys()), sorted(here.keys() - saved.keys())
    shapes = [
        f"{key} is {tuple(here[key])}, not {tuple(saved[key])}"
        for key in saved
        if key in here and list(saved[key]) != here[key]
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("parameters it lacks", missing),
            ("it has besides", extra),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"the adapters belong to a {name} and don't fit this {info.model}: "
            f"{'; '.join(problems)}. Build the backbone as it was when they were trained."
        )
