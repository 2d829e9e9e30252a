"""torchvision's ResNets and RegNets return class scores, no maps; their stages have names.

They have neither feed-forward parts nor token mixers, so they take the methods that need no site.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.regnet import RegNet
from torchvision.models.resnet import ResNet

from peft_dense.backbones.families.base import Family, register_family

__all__: list[str] = []


def _resnet(model: nn.Module, x: Tensor) -> list[Tensor]:
    for name in ("conv1", "bn1", "relu", "maxpool"):
        x = model.get_submodule(name)(x)
    return [x := model.get_submodule(f"layer{stage}")(x) for stage in (1, 2, 3, 4)]


def _regnet(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = model.get_submodule("stem")(x)
    return [x := stage(x) for stage in model.get_submodule("trunk_output").children()]


register_family(ResNet, Family(features=_resnet))
register_family(RegNet, Family(features=_regnet))
