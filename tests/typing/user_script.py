"""What a user writes, as type checkers see it: checked by tests/typing, and run there too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import peft_dense
import peft_dense.methods as m
from peft_dense import AdaptedBackbone, DenseModel, Family, Ledger, Method, inject
from peft_dense.backbones import BackboneInfo, own


@m.register
@dataclass(frozen=True, kw_only=True)
class NormTuning(Method):
    """Trains the backbone's normalisation layers."""

    name: ClassVar[str] = "norm_tuning"
    paper: ClassVar[str] = "Frankle et al. 2021"
    one_path: ClassVar[bool] = True

    biases: bool = True

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Give the path norms of its own."""
        own(path, self._names(info))

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """Count them."""
        return info.numel(self._names(info))

    def _names(self, info: BackboneInfo) -> tuple[str, ...]:
        return tuple(name for name in info.norms if self.biases or not name.endswith(".bias"))


def main(backbone: nn.Module, folder: Path) -> None:
    """Adapt, predict, change tasks, save, load."""
    assert_type(peft_dense.methods(), list[str])
    assert_type(m.methods(), list[str])
    assert_type(m.method("vmt_lite", ratio=8), Method)
    assert_type(NormTuning(biases=False), NormTuning)
    assert_type(m.register(NormTuning), type[NormTuning])

    encoder = inject(backbone, "vmt_lite", tasks=["semseg", "depth"], family=Family(), ratio=8)
    assert_type(encoder, AdaptedBackbone)
    assert_type(inject(backbone, NormTuning(), explain=False), AdaptedBackbone)
    assert_type(encoder.tasks, tuple[str, ...])
    assert_type(encoder.channels, tuple[int, ...])
    assert_type(encoder.reductions, tuple[int, ...])
    assert_type(encoder.method, Method)
    assert_type(encoder.info, BackboneInfo)
    assert_type(encoder.paths, nn.ModuleDict)

    images = torch.zeros(1, 3, 64, 64)
    assert_type(encoder(images), dict[str, list[Tensor]])
    assert_type(encoder(images, ["depth"])["depth"][0], Tensor)
    assert_type(encoder.ledger(), Ledger)
    assert_type(encoder.ledger().encoder, int)
    assert_type([p for _, p in encoder.adapter_parameters()], list[nn.Parameter])
    assert_type(encoder.adapter_state_dict(), dict[str, Tensor])
    assert_type(encoder.extract_task("depth"), AdaptedBackbone)
    assert_type(encoder.eject(), nn.Module)
    assert_type(encoder.train(), AdaptedBackbone)
    assert_type(encoder.eval(), AdaptedBackbone)
    assert_type(encoder.to("cpu"), AdaptedBackbone)
    assert_type(encoder.save(folder / "encoder"), Path)
    assert_type(AdaptedBackbone.load(folder / "encoder", backbone), AdaptedBackbone)

    model = DenseModel(encoder, {"semseg": 21, "depth": 1}, width=8)
    assert_type(model, DenseModel)
    assert_type(model(images), dict[str, Tensor])
    assert_type(model(images, tasks=["semseg"])["semseg"], Tensor)
    assert_type(model.tasks, tuple[str, ...])
    model.add_task("normals", 3)
    model.remove_task("normals")
    assert_type(model.extract_task("semseg"), DenseModel)
    assert_type(model.save(str(folder / "model")), Path)
    assert_type(DenseModel.load(str(folder / "model"), backbone), DenseModel)

    # A user's head, and the optimiser's parameters.
    def head(channels: Sequence[int], out_channels: int) -> nn.Module:
        return Head(channels[0], out_channels)

    own_heads = DenseModel(encoder, {"semseg": 2, "depth": 1}, head={"semseg": head, "depth": head})
    torch.optim.SGD([p for p in own_heads.parameters() if p.requires_grad], lr=0.1)
    assert_type(own_heads(images)["depth"].shape, torch.Size)


class Head(nn.Module):
    """Projects the finest stage."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Give one map."""
        result: Tensor = self.project(features[0])
        return result


if __name__ == "__main__":
    import timm

    main(timm.create_model("pvt_v2_b0").eval(), Path(sys.argv[1]))
