"""``peft-dense demo`` in a real browser: a drop, pictures, overlays; nothing asked of elsewhere."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense.cli import main

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DROP = """([content, name]) => {
    const bytes = Uint8Array.from(atob(content), each => each.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name, {type: "image/jpeg"}));
    return files;
}"""
TASKS = ("semseg", "sal", "depth", "normals", "edge", "roofs")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Visitor:
    """Look at the page, and note what goes wrong on it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.wrong = page, []
        page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on(
            "request", lambda r: None if self._is_own(r.url, address) else self.wrong.append(r.url)
        )
        page.on("response", lambda r: self.wrong.append(r.url) if r.status >= 400 else None)
        page.goto(address)
        page.wait_for_selector("#drop input[type=file]", state="attached")

    @staticmethod
    def _is_own(url: str, address: str) -> bool:
        return url.startswith((address, "data:", "blob:"))

    def drop(self, file: Path) -> None:
        content = base64.b64encode(file.read_bytes()).decode()
        files = self.page.evaluate_handle(DROP, [content, file.name])
        self.page.dispatch_event(
            "#drop button:has(input[type=file])", "drop", {"dataTransfer": files}
        )

    def pictures(self) -> dict[str, str]:
        """Addresses of the pictures that can be seen, by task."""
        found = {}
        for name in ("image", *TASKS):
            for one in self.page.query_selector_all(f"#picture-{name} img"):
                if one.evaluate("each => each.complete && each.naturalWidth > 40"):
                    found[name] = one.get_attribute("src")
        return found

    def wait_for_change(self, before: dict[str, str]) -> dict[str, str]:
        for _ in range(600):
            now = self.pictures()
            if len(now) == 1 + len(TASKS) and not set(now.values()) & set(before.values()):
                return now
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the pictures stay as they were: {now}")


def tasks_of(pictures: dict[str, str]) -> dict[str, str]:
    return {name: each for name, each in pictures.items() if name != "image"}


def test_an_image_is_dropped_and_every_task_is_seen(
    trained: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    gradio = pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no chromium here")
    data, _, run = trained
    photos = sorted((data / "images").iterdir())[:2]
    visited = []

    def visit(page: Any) -> None:
        """In the place of waiting for Ctrl-C."""
        address = f"http://127.0.0.1:{port}/"
        with playwright.sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            see = Visitor(browser.new_page(), address)
            assert not see.pictures()
            see.drop(photos[0])
            first = see.wait_for_change({})
            assert "ms for one pass of 6 tasks" in see.page.inner_text("#told")
            see.page.get_by_role("radio", name="over the image").check()
            over = see.wait_for_change(tasks_of(first))
            number = see.page.locator("#opacity input[type=number]")
            number.fill("0.1")
            number.blur()
            faint = see.wait_for_change(tasks_of(over))
            see.drop(photos[1])
            second = see.wait_for_change(faint)
            visited.append(([first, over, faint, second], see.wrong))
            browser.close()
        page.close()

    monkeypatch.setattr(gradio.Blocks, "block_thread", visit)
    port = free_port()
    assert main(["demo", str(run), "--port", str(port), "--cpu"]) == 0
    assert f"is at http://127.0.0.1:{port}/" in capsys.readouterr().out
    ((seen, wrong),) = visited
    assert not wrong
    assert all(each.keys() == {"image", *TASKS} for each in seen)


def test_a_page_without_its_package_or_a_run_says_so(
    trained: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["demo", str(tmp_path / "nowhere"), "--cpu"]) == 2
    assert "no folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(trained[2]), "--cpu"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'peft-dense[demo]'" in said and len(said.strip().splitlines()) == 1


def test_a_port_that_isn_t_free_is_said(
    trained: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", str(trained[2]), "--port", str(port), "--cpu"]) == 2
    assert f"port {port} isn't free" in capsys.readouterr().err


def test_gradio_is_told_not_to_report() -> None:
    pytest.importorskip("gradio")
    from peft_dense.predicting.page import build_page

    page = build_page(lambda path: None, ["depth"], "a title")  # type: ignore[arg-type,return-value]
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and not page.analytics_enabled
