"""Settings of the whole test run, the doctests of src/ included."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile

import pytest
import torch
from hypothesis import settings

# Few examples: each one runs layers or whole backbones. CI draws the same ones every time.
settings.register_profile("local", deadline=None, max_examples=20)
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A script of a user's that registers a method: it is run by its test, not for its doctests.
collect_ignore = ["typing/user_script.py"]

# Derived labels of the tests' archives stay out of the home folder.
if "PEFT_DENSE_CACHE" not in os.environ:  # else that of the process that started this one
    os.environ["PEFT_DENSE_CACHE"] = tempfile.mkdtemp(prefix="peft_dense_cache_")
    atexit.register(shutil.rmtree, os.environ["PEFT_DENSE_CACHE"], ignore_errors=True)

# Workers that each take every core slow one another down, and so do small layers on many cores.
torch.set_num_threads(1)

# Every test builds and copies whole models: with the thresholds of a script, the collector walks
# all that the session holds several times a test, which took most of the time.
gc.set_threshold(100_000, 20, 100)

SLOW = (
    "test_cli_train.py::test_missing_packages_name_the_extra[command0-tensorboard]",
    "test_cli_train.py::test_missing_packages_name_the_extra[command1",
    "test_cli_train.py::test_scripts_end_as_the_command_does[pascal_context",
    "test_notebooks.py::test_runs_and_shows_what_is_stored[add_a_method]",
    "test_notebooks.py::test_runs_and_shows_what_is_stored[own_images]",
    "test_notebooks.py::test_runs_and_shows_what_is_stored[pascal_context]",
    "test_onnx.py::test_outputs_are_named_by_their_task_and_the_batch_is_free[pvtv2",
    "test_onnx.py::test_outputs_are_named_by_their_task_and_the_batch_is_free[swin-poly",
    "test_on_maps.py::test_one_compiled_graph_gives_the_eager_results[pvtv2",
    "test_record.py::test_a_compiled_graph_is_whole[vmt]",
    "test_record.py::test_export_takes_any_number_of_images[pvtv2-s",
    "test_record.py::test_export_takes_any_number_of_images[swin-s",
    "test_record.py::test_export_takes_any_number_of_images[swin-vmt]",
    "test_stopping.py::test_a_signal_to_one_process_ends_all[15-",
    "test_stopping.py::test_a_signal_to_the_loading_workers_too[SIGINT]",
    "test_stopping.py::test_scoring_is_left_at_once_and_done_when_the_run_goes_on",
    "test_trainer.py::test_a_damaged_last_state_is_set_aside[cut",
    "test_trainer.py::test_a_damaged_last_state_is_set_aside[emptied",
    "test_trainer.py::test_a_full_disk_is_said_and_nothing_is_lost[3-best]",
    "test_trainer.py::test_two_processes_train_as_one[polyhistor_lite]",
)
"""Tests that take many seconds and have a quicker relative; `make test-all` runs them too."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow ones as `full`."""
    for item in items:
        if any(f"/{name}" in item.nodeid for name in SLOW):
            item.add_marker(pytest.mark.full)
