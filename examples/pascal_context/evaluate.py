#!/usr/bin/env python
"""Score trained runs by the field's conventions, and compare them over seeds in one table.

    python examples/pascal_context/evaluate.py runs/pascal_context/* --labels native --edges
    python examples/pascal_context/evaluate.py runs/seed*/* --reference single_task_full

This is `peft-dense evaluate`, as a script. Each run is a folder that train.py left: its data,
backbone and weights are found as they were. Runs of one method that differ by their seed make one
row, mean and standard deviation. Every metric of every task is kept in RUN/scores-*.json, and isn't
computed twice. Under `accelerate launch` the processes share the images.

--labels resized scores at the size of training, with labels sampled to it; --labels native scores
at each image's own size, as published numbers on PASCAL-Context mostly are. They don't compare.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from peft_dense.cli import evaluate as command
from peft_dense.cli.output import exit_status


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    found, said = command.evaluate(command.make_parser().parse_args(argv))
    if said:
        print(said)
    return found


if __name__ == "__main__":
    sys.exit(exit_status(main))
