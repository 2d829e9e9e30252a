"""What is known of a backbone, and how a path of it is cloned, tapped and edited."""

from peft_dense.backbones.clone import freeze, own, share, template
from peft_dense.backbones.describing import describe
from peft_dense.backbones.edit import (
    add_after,
    add_beside,
    branch_at,
    branch_name,
    comes_first,
    replace,
    replace_branch,
    take_off,
    transform_output,
)
from peft_dense.backbones.examining import examine
from peft_dense.backbones.families import Family, family_of, register_family
from peft_dense.backbones.info import BackboneInfo, LinearSite, MapScope, Operation, Site
from peft_dense.backbones.origin import fold
from peft_dense.backbones.record import Recording, Tap
from peft_dense.backbones.scope import WholeImage
from peft_dense.backbones.sites import probe
from peft_dense.backbones.taps import Form, StageTap

__all__ = [
    "BackboneInfo",
    "Family",
    "Form",
    "LinearSite",
    "MapScope",
    "Operation",
    "Recording",
    "Site",
    "StageTap",
    "Tap",
    "WholeImage",
    "add_after",
    "add_beside",
    "branch_at",
    "branch_name",
    "comes_first",
    "describe",
    "examine",
    "family_of",
    "fold",
    "freeze",
    "own",
    "probe",
    "register_family",
    "replace",
    "replace_branch",
    "share",
    "take_off",
    "template",
    "transform_output",
]
