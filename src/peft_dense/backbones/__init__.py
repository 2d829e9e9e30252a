"""What is known of a backbone, and how a path of it is cloned, tapped and edited."""

from peft_dense.backbones.clone import freeze, own, share
from peft_dense.backbones.edit import adapter_at, add_after, add_beside, replace, set_adapter
from peft_dense.backbones.examine import examine
from peft_dense.backbones.families import Family, family_of, register_family
from peft_dense.backbones.info import BackboneInfo, LinearSite, MapScope, Operation, Site
from peft_dense.backbones.sites import probe
from peft_dense.backbones.taps import Form, Tap

__all__ = [
    "BackboneInfo",
    "Family",
    "Form",
    "LinearSite",
    "MapScope",
    "Operation",
    "Site",
    "Tap",
    "adapter_at",
    "add_after",
    "add_beside",
    "examine",
    "family_of",
    "freeze",
    "own",
    "probe",
    "register_family",
    "replace",
    "set_adapter",
    "share",
]
