"""The counts and metrics that both papers print, for Swin-Tiny and four tasks of PASCAL-Context.

The papers give millions with two decimals and leave details of the methods out. Each row names the
method and hyper-parameters that come nearest, and how certain it is that the authors ran that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BACKBONE", "METRICS", "PLACES", "PROTOCOL", "ROWS", "Row", "verdict"]

BACKBONE = "swin_tiny_patch4_window7_224"
"""timm's name of the backbone that the rows are about."""

METRICS = {"semseg": "mIoU", "human_parts": "mIoU", "sal": "mIoU", "normals": "mErr"}
"""The metric of each task's column, as section 5.1 of either paper names it.

Other papers head the same normals column, with the same single-task row, "rmse". By these two it is
the mean error. Neither prints the thresholds of saliency; only the mean over images of the
foreground's IoU at the best of several is known to reach such values.
"""

PROTOCOL = "PASCAL-Context, 5,105 images, sizes of image and label not printed"
"""How the metrics were measured, as far as the papers print it."""

PLACES = {
    "P1": "Polyhistor, table 1",
    "P2": "Polyhistor, table 2",
    "P3b": "Polyhistor, figure 3b and section 5.3",
    "V2": "VMT-Adapter, table 2",
    "V3": "VMT-Adapter, table 3",
}
"""The places that print cells, by the short names that rows use."""


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
        fits: Encoder and total of another definition, given in the note, that meets the cells
            where this one doesn't.
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
    def scores(self) -> dict[str, float] | None:
        """The printed metrics by task, those of :data:`METRICS`; None where there are none."""
        cells = _CELLS[self.label][:-1]
        return dict(zip(METRICS, cells, strict=True)) if cells else None

    @property
    def delta(self) -> float:
        """The printed mean relative gain over single-task full fine-tuning, in percent."""
        return _CELLS[self.label][-1]

    @property
    def source(self) -> str:
        """The places in words: ``Polyhistor, table 1; VMT-Adapter, table 2``."""
        return "; ".join(PLACES[place] for place in self.places.split())

    @property
    def note(self) -> str:
        """What was chosen among several definitions, or why a cell isn't met; may be empty."""
        return _NOTES.get(self.label, "")


def verdict(count: int, printed: str | None) -> str:
    """Compare a count with a printed cell: ``ok``, or by how many millions it is off.

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

# By row's label: metrics in the order of METRICS, and Delta; the same in all places of the row.
_CELLS: dict[str, tuple[float, ...]] = {
    "single_task_full": (67.21, 61.93, 62.35, 17.97, 0.00),
    "decoders_only": (63.14, 52.37, 58.39, 20.89, -11.02),
    "multitask_full": (68.71, 62.13, 64.18, 17.35, 2.23),
    "bitfit": (68.57, 55.99, 60.64, 19.42, -4.60),
    "relative_bias": (63.51, 52.35, 57.74, 21.07, -11.40),
    "vpt_shallow": (62.96, 52.27, 58.31, 20.90, -11.18),
    "vpt_deep": (64.35, 52.54, 58.15, 21.07, -10.85),
    "phm": (68.55, 56.28, 60.35, 19.23, -4.34),
    "compacter": (68.08, 56.41, 60.08, 19.22, -4.55),
    "compacter_pp": (67.26, 55.69, 59.47, 19.54, -5.84),
    "lora norm=True": (70.12, 57.73, 61.90, 18.96, -2.17),
    "adapter": (69.21, 57.38, 61.28, 18.83, -2.71),
    "low_rank_adapter": (68.31, 56.53, 60.29, 19.36, -4.54),
    "shared_adapter unfreeze_norms=True": (70.21, 59.15, 62.29, 19.26, -1.83),
    "hyperformer": (71.43, 60.73, 65.54, 17.77, 2.64),
    "hyperformer ratio=32": (-0.14,),
    "polyhistor": (70.87, 59.54, 65.47, 17.47, 2.34),
    "polyhistor_lite k=64": (70.24, 59.12, 64.75, 17.40, 1.74),
    "polyhistor_lite k=32": (69.80, 58.72, 64.14, 17.73, 0.72),
    "polyhistor_lite k=16": (69.67, 58.38, 63.55, 18.05, -0.15),
    "shared_bitfit": (67.99, 56.23, 60.96, 18.63, -3.49),
    "shared_relative_bias": (65.55, 54.44, 59.14, 19.52, -9.56),
    "shared_lora norm=True": (68.96, 56.71, 61.07, 17.92, -1.90),
    "shared_adapter": (70.21, 59.15, 62.29, 19.26, -0.64),
    "shared_low_rank_adapter": (66.84, 55.52, 60.21, 18.51, -4.33),
    "vmt ratio=1": (71.26, 61.01, 63.76, 16.12, 4.27),
    "vmt ratio=2": (70.96, 60.82, 64.01, 16.39, 3.81),
    "vmt ratio=4": (71.60, 60.67, 64.02, 16.41, 3.96),
    "vmt ratio=8": (71.34, 59.95, 63.48, 16.82, 3.02),
    "vmt_lite m=3": (70.03, 59.51, 62.45, 17.09, 1.34),
    "vmt_lite m=6": (69.85, 59.38, 61.95, 17.53, 0.61),
    "vmt_lite m=12": (69.33, 59.15, 61.88, 17.55, 0.06),
}

_ONE_SET = "The printed total fits with one set of output norms for all tasks; here each has one."
_SET_MORE = (
    "Both cells fit with one more set of output norms (2,880), shared by the tasks and counted in "
    "the encoder; here the encoder's count is the method's alone."
)
_NOTES = {
    "multitask_full": f"{_ONE_SET} The encoder is printed truncated, not rounded.",
    "bitfit": "The count shows that the relative-position bias tables train too.",
    "phm": "The text puts it after attention and MLP; no plausible definition with both gives the "
    "count, one after the MLP alone does.",
    "compacter_pp": "The encoder is printed truncated, not rounded.",
    "lora norm=True": "A LayerNorm on the update's input is needed to meet the count. The default "
    "is standard LoRA without it, which merges into the weights.",
    "shared_adapter unfreeze_norms=True": "The count shows that the backbone's LayerNorms train "
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
