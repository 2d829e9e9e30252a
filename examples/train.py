#!/usr/bin/env python
"""Train any method on your own images, or on scenes made here, and compare methods in one table.

    python examples/train.py --method decoders_only,shared_adapter,vmt_lite --out runs/demo
    python examples/train.py --method vmt_lite --data FOLDER --out runs/mine --epochs 60 \
        --backbone swin_tiny_patch4_window7_224 --pretrained --image-size 448 448

FOLDER is laid out as peft_dense.data.DenseFolder says; without one, solids and stick people are
rendered. The methods run one after another on the same data, with the same seed and budget. Each
leaves in OUT/METHOD: log.csv, TensorBoard events, grid.png, results.json, and the checkpoints last/
and best/ (adapters and heads only). Killed at any moment, the same command goes on where it was.
The table tells of the last step, not of the best one.

On several processes: accelerate launch examples/train.py ..., or torchrun.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from peft_dense.errors import PeftDenseError
from peft_dense.training import add_options, run_all
from peft_dense.training.trainer import Result


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    # A short budget on a small Swin: what a demo needs, and a few hundred photographs.
    add_options(
        parser,
        epochs=None,
        batch=8,
        lr=2e-3,
        warmup=0.05,
        optimizer="adamw",
        out=Path("runs/train"),
    )
    args = parser.parse_args(argv)
    if args.steps is None and args.epochs is None:
        args.steps = 250
    return args


def main(argv: Sequence[str] | None = None) -> list[Result]:
    return run_all(parse(argv))


if __name__ == "__main__":
    try:
        main()
    except PeftDenseError as error:
        sys.exit(f"error: {error}")
