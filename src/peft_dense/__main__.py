"""``python -m peft_dense``: the command line."""

import sys

from peft_dense.cli import main

if __name__ == "__main__":
    sys.exit(main())
