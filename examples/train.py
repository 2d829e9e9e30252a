#!/usr/bin/env python
"""Train any method on your own images, or on scenes made here, and compare methods in one table.

    python examples/train.py --method decoders_only,shared_adapter,vmt_lite --out runs/demo
    python examples/train.py --method vmt_lite --data FOLDER --out runs/mine --epochs 60 \
        --backbone swin_tiny_patch4_window7_224 --pretrained --image-size 448 448

This is `peft-dense train`, as a script to start from. FOLDER is laid out as
peft_dense.data.DenseFolder says; without one, solids and stick people are rendered. The backbone is
then a small Swin that examples/pretrain_demo.py has pretrained on scenes of another look; its
weights lie beside this script, and --no-pretrained leaves it at random. The methods run one after
another on the same data, with the same seed and budget. The table tells of the last step, not of
the best one.

On several processes: accelerate launch examples/train.py ..., or torchrun.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from peft_dense.cli.output import exit_status
from peft_dense.cli.train import make_parser, train
from peft_dense.errors import CheckpointError
from peft_dense.training.setup import DEMO_BACKBONE, MADE

WEIGHTS = Path(__file__).with_name("demo_backbone.safetensors")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    argv = list(sys.argv[1:] if argv is None else argv)
    return make_parser(argv).parse_args(argv)


def with_demo_weights(options: argparse.Namespace, weights: Path = WEIGHTS) -> argparse.Namespace:
    """Give the demo's backbone its weights, where nobody said which.

    Args:
        options: As parsed.
        weights: What examples/pretrain_demo.py wrote.

    Raises:
        CheckpointError: The file isn't there.
    """
    demo = options.data == MADE and options.backbone == DEMO_BACKBONE
    if not demo or options.backbone_args or options.weights or options.pretrained is not None:
        return options
    if not weights.is_file():
        raise CheckpointError(
            f"no file {weights} with the demo's backbone. Make it by `python "
            f"examples/pretrain_demo.py --out {weights}` (about a quarter of an hour), or pass "
            "--weights FILE; --no-pretrained if random weights are what you want."
        )
    options.weights = weights
    return options


def main(argv: Sequence[str] | None = None) -> list[dict]:
    return train(with_demo_weights(parse(argv)))


if __name__ == "__main__":
    sys.exit(exit_status(main))
