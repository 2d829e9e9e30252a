"""One pytest session that imports and collects once, then forks per mutant.

The tests of a mutant are those that called its function when nothing was mutated, until one fails.
What killed it is kept, so that a kill can be told from an accident.
"""

from __future__ import annotations

import json
import multiprocessing.util
import os
import random
import resource
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

SLOW = 4.0
"""Tests that take more processor seconds are left out."""
ON_SWIN = ("test_laws.py", "test_counts.py")
"""Files whose tests are run on one backbone of many."""
ON_MODELS = ("tests/backbones", "tests/core", "tests/keeping")
CASES = 10
"""Where the cases of a test are whole models, so many are run, drawn by the test's name."""
NOTHING = "peft_dense.x_nothing__mutmut_0"


class TooSlowError(BaseException):
    """A test took longer than it may."""


class OtherProcessError(BaseException):
    """A test starts a program, which would run without the mutant or unmeasured."""


def _refuse(*_: object, **__: object) -> None:
    raise OtherProcessError


def _stop(*_: object) -> None:
    raise TooSlowError


def _forked(work: Callable[[], Any], limit: float) -> tuple[int, int, float]:
    """Run in a child; returns its process id, the end of a pipe and the time when it is late."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader, time.monotonic() + 60 + 12 * limit
    try:
        os.close(reader)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + int(limit) + 1, used + int(limit) + 2))
        try:
            said = work()
        except BaseException:
            why = " ".join(traceback.format_exc()[-600:].split())
            said = {"status": "crashed", "by": "", "why": why}
        with os.fdopen(writer, "w") as pipe:
            json.dump(said, pipe)
        os._exit(0)
    finally:
        os._exit(1)


def _read(reader: int, pid: int, late: float) -> Any:
    """Wait for a child's word: what it said, or how it ended."""
    import select

    said = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, late - time.monotonic()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            break
        part = os.read(reader, 1 << 16)
        if not part:
            break
        said += part
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 0:
        return json.loads(said)
    over = code in (-signal.SIGXCPU, -signal.SIGKILL)
    return {"status": "timeout" if over else "crashed", "by": "", "why": f"exit {code}"}


def in_parallel(jobs: Iterator[tuple[Any, Callable[[], Any], float]], width: int) -> Iterator[Any]:
    """Run jobs in forked children, ``width`` at a time; yields each with its result."""
    running: list[tuple[Any, int, int, float]] = []
    import select

    def take() -> bool:
        job = next(jobs, None)
        if job is not None:
            pid, reader, late = _forked(job[1], job[2])
            running.append((job[0], pid, reader, late))
        return job is not None

    while len(running) < width and take():
        pass
    while running:
        wait = max(0.0, min(late for *_, late in running) - time.monotonic())
        ready, _, _ = select.select([reader for _, _, reader, _ in running], [], [], wait)
        for job in list(running):
            key, pid, reader, late = job
            if reader in ready or time.monotonic() > late:
                running.remove(job)
                yield key, _read(reader, pid, late)
                take()


def run_one(item: pytest.Item, nextitem: pytest.Item | None) -> str:
    """Run one test; returns why it failed, or nothing."""
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            where = f" ({Path(crash.path).name}:{crash.lineno})" if crash else ""
            text = crash.message if crash else str(report.longrepr)[-300:]
            return " ".join(text.split())[:200] + where
    return ""


class Mutation:
    """A pytest plugin whose test loop measures the tests once, then runs mutants."""

    def __init__(self, main: Callable[[Mutation], None], width: int) -> None:
        self.main, self.width = main, width
        self.items: dict[str, pytest.Item] = {}
        self.measured: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out mutants' doctests, laws on backbones but Swin, and most of many cases."""
        cases: dict[str, list[pytest.Item]] = {}
        for item in items:
            given = getattr(item, "callspec", None)
            swin = given is None or given.params.get("family", "swin") == "swin"
            if "mutmut" not in item.nodeid and (swin or item.path.name not in ON_SWIN):
                cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
        items[:] = [
            item
            for name, those in cases.items()
            for item in (
                random.Random(name).sample(those, min(len(those), CASES))
                if name.startswith(ON_MODELS)
                else those
            )
        ]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's loop."""
        import peft_dense

        assert "mutants" in Path(peft_dense.__file__).parts, peft_dense.__file__
        self.items = {item.nodeid: item for item in session.items}
        self.main(self)
        return True

    def measure(self, known: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Run each test once without a mutant; yields its seconds and what it called."""
        chunks: dict[str, list[pytest.Item]] = {}
        for name, item in self.items.items():
            if name not in known:
                chunks.setdefault(name.partition("[")[0], []).append(item)
        jobs = (
            (name, (lambda them=them: self._measure(them)), 2 + SLOW * len(them))
            for name, them in chunks.items()
        )
        for name, found in in_parallel(jobs, self.width):
            if "status" in found:
                failed = f"the measuring process: {found['status']}, {found['why']}"
                lost = {"seconds": 0.0, "calls": [], "failed": failed}
                found = {item.nodeid: lost for item in chunks[name]}
            yield from found.items()

    @staticmethod
    def _measure(items: Sequence[pytest.Item]) -> dict[str, dict[str, Any]]:
        from mutmut.mutation.trampoline import set_mutant_under_test
        from mutmut.state import state

        set_mutant_under_test("stats")
        os.environ["MUTMUT_DEPENDENCY_DEPTH"] = "-1"
        subprocess.Popen.__init__ = _refuse  # type: ignore[method-assign]
        multiprocessing.util.spawnv_passfds = _refuse  # type: ignore[attr-defined]
        signal.signal(signal.SIGPROF, _stop)
        signal.signal(signal.SIGALRM, _stop)
        found = {}
        for item, following in zip(items, [*items[1:], None], strict=True):
            state()._stats.clear()
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SLOW)
            signal.setitimer(signal.ITIMER_REAL, 15 * SLOW)
            try:
                failed = run_one(item, following)
            except BaseException as error:
                failed = repr(error)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if failed and any("OtherProcess" in each["failed"] for each in found.values()):
                failed = f"OtherProcessError in another case; {failed}"
            found[item.nodeid] = {
                "seconds": time.process_time() - start,
                "failed": failed,
                "calls": sorted(state()._stats),
            }
        return found

    def tests_of(self, function: str, budget: float) -> list[pytest.Item]:
        """The passing tests that call a function, up to a sum of seconds.

        First those named after its file (``test_vmt.py``, ``test_x[swin-vmt]``), then the fastest.
        """
        file = function.split(".")[-2]
        calling = [
            (file not in name, test["seconds"], name)
            for name, test in self.measured.items()
            if name in self.items and not test["failed"] and function in test["calls"]
        ]
        chosen, spent = [], 0.0
        for _, seconds, name in sorted(calling):
            spent += seconds
            if chosen and spent > budget:
                break
            chosen.append(self.items[name])
        return chosen

    def run(self, pairs: Sequence[tuple[str, str]], budget: float) -> Iterator[tuple[str, Any]]:
        """Run mutants, each given as its name and its function's; yields what became of each."""

        def jobs() -> Iterator[tuple[str, Callable[[], Any], float]]:
            for name, function in pairs:
                tests = self.tests_of(function, budget)
                expected = sum(self.measured[test.nodeid]["seconds"] for test in tests)
                yield (
                    name,
                    (lambda name=name, tests=tests: self._run(name, tests)),
                    20 + 4 * expected,
                )

        yield from in_parallel(jobs(), self.width)

    @staticmethod
    def _run(name: str, tests: Sequence[pytest.Item]) -> dict[str, Any]:
        from mutmut.mutation.trampoline import set_mutant_under_test

        set_mutant_under_test(name)
        start = time.process_time()
        result = {"status": "survived" if tests else "not called", "by": "", "why": ""}
        for item, following in zip(tests, [*tests[1:], None], strict=False):  # none, perhaps
            failed = run_one(item, following)
            if failed:
                result = {"status": "killed", "by": item.nodeid, "why": failed}
                break
        return {**result, "tests": len(tests), "seconds": time.process_time() - start}
