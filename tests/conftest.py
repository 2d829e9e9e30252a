"""Settings of the whole test run, the doctests of src/ included."""

from __future__ import annotations

import os
import tempfile

import torch
from hypothesis import settings

# Few examples: each one runs layers or whole backbones. CI draws the same ones every time.
settings.register_profile("local", deadline=None, max_examples=20)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# Derived labels of the tests' archives stay out of the home folder.
os.environ.setdefault("PEFT_DENSE_CACHE", tempfile.mkdtemp(prefix="peft_dense_cache_"))

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that each take every core slow one another down.
    torch.set_num_threads(1)
