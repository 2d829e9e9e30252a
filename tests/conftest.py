"""Settings of the whole test run, the doctests of src/ included."""

from __future__ import annotations

import gc
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

# Workers that each take every core slow one another down, and so do small layers on many cores.
torch.set_num_threads(1)

# Every test builds and copies whole models: with the thresholds of a script, the collector walks
# all that the session holds several times a test, which took most of the time.
gc.set_threshold(100_000, 20, 100)
