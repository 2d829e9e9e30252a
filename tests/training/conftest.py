"""A run that nothing happened to, which others are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
from launching import OPTIONS, finish


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    finish(out, **OPTIONS)
    return out
