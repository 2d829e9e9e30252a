#!/usr/bin/env python
"""Train any method on your own images, or on scenes made here, and compare methods in one table.

    python examples/train.py --method decoders_only,shared_adapter,vmt_lite --out runs/demo
    python examples/train.py --method vmt_lite --data FOLDER --out runs/mine --epochs 60 \
        --backbone swin_tiny_patch4_window7_224 --pretrained --image-size 448 448

This is `peft-dense train`, as a script to start from. FOLDER is laid out as
peft_dense.data.DenseFolder says; without one, solids and stick people are rendered. The methods run
one after another on the same data, with the same seed and budget. The table tells of the last step,
not of the best one.

On several processes: accelerate launch examples/train.py ..., or torchrun.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from peft_dense.cli.output import exit_status
from peft_dense.cli.train import make_parser, train


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    argv = list(sys.argv[1:] if argv is None else argv)
    return make_parser(argv).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[dict]:
    return train(parse(argv))


if __name__ == "__main__":
    sys.exit(exit_status(main))
