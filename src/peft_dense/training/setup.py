"""The data, model and place of a run, as typed options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["DEMO_BACKBONE", "MADE", "Setup"]

MADE = "made"
"""The value of ``data`` that stands for scenes rendered on the spot."""

DEMO_BACKBONE = "timm.models.swin_transformer:SwinTransformer"
"""The backbone where none is named: a Swin small enough for two CPU cores."""


def _option(default: Any, group: str, about: str, **more: Any) -> Any:
    """Make a field that scripts offer as an option of a group, with this help."""
    return field(default=default, metadata={"group": group, "help": about, **more})


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Name the data, the model and the place of runs; `Recipe` says how they train.

    Each field's ``metadata["help"]`` says what it does; `peft_dense.training.add_options` makes
    command-line options of them, and `peft_dense.training.building` builds what they name.

    Example:
        >>> Setup(method="lora").head
        'segformer'
    """

    data: str = _option(
        MADE,
        "data",
        f"'{MADE}'; the folder of PASCAL_MT, NYUD_MT, a DenseFolder or a set with a dense.toml; "
        "that file itself; or a ready description and a folder, cityscapes:ROOT",
    )
    tasks: str | None = _option(
        None,
        "data",
        "with commas between, where they aren't the data's own; NAME=KIND for your own",
    )
    image_size: tuple[int, int] = _option(
        (96, 128),
        "data",
        "height and width in pixels that images are trained and scored at",
        metavar=("H", "W"),
    )
    scale: tuple[float, float] = _option(
        (0.75, 1.25), "data", "smallest and largest zoom of random crops", metavar=("MIN", "MAX")
    )
    rotation: float = _option(0.0, "data", "largest random rotation, in degrees")
    colour: float = _option(0.0, "data", "strength of random colour changes")
    protocol: str = _option(
        "atrc", "data", "of PASCAL-Context's padding: atrc (ignored) or astmt (background)"
    )
    scenes: tuple[int, int] = _option(
        (320, 64), "data", "made scenes: train, val", metavar=("TRAIN", "VAL")
    )
    cache: int = _option(1000, "data", "megabytes of each data set that are held in memory")
    method: str = _option(
        "vmt_lite",
        "model",
        "names with commas between; all; or papers: every row of their tables",
    )
    hyper: tuple[str, ...] = _option(
        (), "model", "hyper-parameters of the methods, as [METHOD.]KEY=VALUE"
    )
    backbone: str = _option(DEMO_BACKBONE, "model", "a timm model's name, or module:Class")
    backbone_args: Mapping[str, Any] | None = _option(
        None, "model", "its keyword arguments, as JSON"
    )
    pretrained: bool | None = _option(
        None,
        "model",
        "download the timm model's weights; --no-pretrained: random weights are meant",
    )
    weights: Path | None = _option(  # noqa: RUF009 - a field, not a call
        None, "model", "a safetensors file for the backbone"
    )
    window: int | None = _option(
        None, "model", "call the backbone's set_input_size with this window"
    )
    drop_path: float | None = _option(
        None, "model", "largest rate of stochastic depth, where it isn't the backbone's own"
    )
    head: str = _option("segformer", "model", "segformer or hrnet")
    head_width: int = _option(64, "model", "width of the heads; the papers' counts have 256")
    out: Path = _option(  # noqa: RUF009 - a field, not a call
        Path("runs"), "where", "the folder; each method gets a folder in it"
    )
    fork_from: Path | None = _option(  # noqa: RUF009 - a field, not a call
        None, "where", "a run's folder; begin anew from its weights, by this recipe"
    )
    restart: bool = _option(False, "where", "begin anew in folders that hold runs, and drop those")
    cpu: bool = _option(False, "where", "even where there is a GPU")

    @property
    def own_data(self) -> bool:
        """Whether the data are your own, not made scenes."""
        return self.data != MADE
