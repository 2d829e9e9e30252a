#!/usr/bin/env python
"""Train on PASCAL-Context as Polyhistor and VMT-Adapter do, or on any data set with their recipe.

    peft-dense data check /data/PASCAL_MT
    python examples/pascal_context/train.py --data /data/PASCAL_MT --method vmt_lite
    python examples/pascal_context/train.py --data /data/PASCAL_MT --method papers
    accelerate launch --multi_gpu --num_processes 4 examples/pascal_context/train.py --data ...

Swin-Tiny pretrained on ImageNet-1k, four tasks, 448 x 448 pixels, Adam at 1e-4 with linear decay,
batch 12, 60 epochs; every option can be changed. A method is a name with its defaults; `all` is
every method, `papers` every row of the papers' tables. They run one after another; killed at any
moment, the same command goes on where it was, and what is finished isn't repeated.

Each leaves in OUT/METHOD: log.csv, TensorBoard events, grid.png, results.json, last/ and best/
(adapters and heads only). evaluate.py scores them by the field's other conventions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from peft_dense.cli import train as command
from peft_dense.cli.output import exit_status

BACKBONE = "swin_tiny_patch4_window7_224"


def make_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    return command.make_parser(
        argv,
        argparse.ArgumentParser(description=__doc__.split("\n\n")[0]),
        backbone=BACKBONE,
        image_size=(448, 448),
        rotation=20.0,
        head_width=256,
        cache=0,
        out=Path("runs/pascal_context"),
        workers=4,
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    argv = list(sys.argv[1:] if argv is None else argv)
    args = make_parser(argv).parse_args(argv)
    if args.pretrained is None and not args.weights and ":" not in args.backbone:
        args.pretrained = True  # as in the papers, where the backbone is one of timm's
    return args


def main(argv: Sequence[str] | None = None) -> list[dict]:
    return command.train(parse(argv))


if __name__ == "__main__":
    sys.exit(exit_status(main))
