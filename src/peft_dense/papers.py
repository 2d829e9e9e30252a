"""The parameter counts that both papers print, for Swin-Tiny and the four tasks of PASCAL-Context.

The papers give millions with two decimals and leave details of the methods out. Each row names the
method and hyper-parameters that come nearest, and how certain it is that the authors ran that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BACKBONE", "PLACES", "ROWS", "Row", "verdict"]

BACKBONE = "swin_tiny_patch4_window7_224"
"""timm's name of the backbone that the rows are about."""

PLACES = {
    "P1": "Polyhistor, table 1",
    "P2": "Polyhistor, table 2",
    "P3b": "Polyhistor, figure 3b and section 5.3",
    "V2": "VMT-Adapter, table 2",
    "V3": "VMT-Adapter, table 3",
}
"""The places that print counts, by the short names that rows use."""


@dataclass(frozen=True)
class Row:
    """One row of the papers' tables.

    Args:
        method: Name of the method here.
        options: Hyper-parameters that tell the row from others of its method.
        encoder: The printed cell of the encoder, in millions.
        total: The printed cell of encoder and heads, or None where there is none.
        places: Where it is printed: keys of :data:`PLACES`, parted by spaces.
        certainty: How certain the definition is to be what the authors ran: ``high``, ``good``,
            ``medium``, ``low`` or ``undetermined``.
        fits: Encoder and total of another definition, told in the note, that meets the cells where
            this one doesn't.
    """

    method: str
    options: Mapping[str, Any]
    encoder: str
    total: str | None
    places: str
    certainty: str
    fits: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """The method and its hyper-parameters: ``vmt_lite m=6``."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def note(self) -> str:
        """What was chosen among several definitions, or why a cell isn't met; may be empty."""
        return _NOTES.get(self.label, "")


def verdict(count: int, printed: str | None) -> str:
    """Say whether a count rounds to a printed cell, or by how many millions it is off.

    Example:
        >>> verdict(1_126_848, "1.13"), verdict(79_488, "0.13"), verdict(20_152_724, None)
        ('ok', '-0.05', '')
    """
    if printed is None:
        return ""
    off = round(round(count / 1e6, 2) - float(printed), 2)
    return f"{off:+.2f}" if off else "ok"


ROWS = (
    Row("single_task_full", {}, "110.07", "112.62", "P1 P2 V2 V3", "high"),
    Row("decoders_only", {}, "0.00", "2.55", "P1 V2 V3", "high"),
    Row("multitask_full", {}, "27.51", "30.06", "P1 V2", "high", (27_517_818, 30_058_202)),
    Row("bitfit", {}, "0.30", "2.85", "P1 V2", "high"),
    Row("relative_bias", {}, "0.09", "2.64", "P1 V2", "high"),
    Row("vpt_shallow", {}, "0.02", "2.57", "P1", "high"),
    Row("vpt_deep", {}, "0.88", "3.43", "P1", "high"),
    Row("phm", {}, "0.59", "3.14", "P1", "low"),
    Row("compacter", {}, "0.23", "2.78", "P1", "good"),
    Row("compacter_pp", {}, "0.11", "2.66", "P1", "good"),
    Row("lora", {"norm": True}, "0.32", "2.87", "P1 V2", "good"),
    Row("adapter", {}, "8.69", "11.24", "P1 V2", "high"),
    Row("low_rank_adapter", {}, "0.34", "2.89", "P1 V2", "good"),
    Row("shared_adapter", {"unfreeze_norms": True}, "2.20", "4.74", "P1", "good"),
    Row("hyperformer", {}, "72.77", "75.32", "P1 V2", "high"),
    Row("hyperformer", {"ratio": 32}, "20.15", None, "P3b", "high"),
    Row("polyhistor", {}, "6.41", "8.96", "P1 V2", "good"),
    Row("polyhistor_lite", {"k": 64}, "0.41", "2.96", "P1 P2 V2", "good"),
    Row("polyhistor_lite", {"k": 32}, "0.29", "2.84", "P2", "good"),
    Row("polyhistor_lite", {"k": 16}, "0.23", "2.78", "P2", "good"),
    Row("shared_bitfit", {}, "0.08", "2.63", "V2", "medium", (77_658, 2_626_682)),
    Row("shared_relative_bias", {}, "0.03", "2.58", "V2", "medium", (26_202, 2_575_226)),
    Row("shared_lora", {"norm": True}, "0.13", "2.68", "V2", "undetermined", (129_306, 2_678_330)),
    Row("shared_adapter", {}, "2.17", "4.71", "V2", "high", (2_172_000, 4_712_384)),
    Row("shared_low_rank_adapter", {}, "0.10", "2.62", "V2", "low"),
    Row("vmt", {"ratio": 1}, "4.36", "6.91", "V3", "medium"),
    Row("vmt", {"ratio": 2}, "2.21", "4.56", "V3", "medium"),
    Row("vmt", {"ratio": 4}, "1.13", "3.68", "V2 V3", "medium"),
    Row("vmt", {"ratio": 8}, "0.59", "3.14", "V3", "medium"),
    Row("vmt_lite", {"m": 3}, "0.40", "2.95", "V2 V3", "medium"),
    Row("vmt_lite", {"m": 6}, "0.22", "2.77", "V3", "medium"),
    Row("vmt_lite", {"m": 12}, "0.15", "2.70", "V3", "medium"),
)
"""Every printed count, in the papers' order."""

_ONE_SET = "The printed total fits with one set of output norms for all tasks; here each has one."
_SET_MORE = (
    "Both cells fit with one more set of output norms (2,880), shared by the tasks and counted in "
    "the encoder; here the encoder's count is the method's alone."
)
_NOTES = {
    "multitask_full": f"{_ONE_SET} The encoder is printed cut, not rounded.",
    "bitfit": "The count tells that the relative-position bias tables train too.",
    "phm": "The text puts it after attention and MLP; no sensible definition with two sites fits "
    "the count, one beside the MLP does.",
    "compacter_pp": "The encoder is printed cut, not rounded.",
    "lora norm=True": "A LayerNorm on the update's input is needed to meet the count. The default "
    "is standard LoRA without it, which merges into the weights.",
    "shared_adapter unfreeze_norms=True": "The count tells that the backbone's LayerNorms train "
    "too.",
    "polyhistor": "Equation 3 has one low-rank pair for the joint matrix (joint); the count "
    "fits a pair for each projection.",
    "polyhistor_lite k=64": "Equation 6 has scaling kernels for every task (per_task_kernels); "
    "the count fits kernels that the tasks share. Equation 5 to the letter (literal) is far "
    "below it.",
    "shared_bitfit": _SET_MORE,
    "shared_relative_bias": _SET_MORE,
    "shared_lora norm=True": "lora's definition, shared, gives 0.08. Both cells fit with "
    "rank 4 on qkv and proj, no LayerNorm, and the relative-position tables trained besides.",
    "shared_adapter": _ONE_SET,
    "shared_low_rank_adapter": "The two cells disagree: in nearly all other rows they differ by "
    "2.55, here by 2.52.",
    "vmt ratio=2": "4.56 is taken for a misprint of 4.76, the sum of the rounded parts.",
    "vmt ratio=4": "No code is public. A LayerNorm on the input, a bias of the up projection and "
    "none of the down projection meet the counts of all four ratios; gate and start are assumed.",
    "vmt_lite m=3": "Without a LayerNorm, unlike vmt, the counts of all three m are met.",
}
