"""Walk the built site in a headless Chromium, and name what a reader would trip over.

Every page, at 1,280 and 390 pixels, light and dark: errors of the console, requests that leave the
site, pictures that don't load, links and anchors that lead nowhere, formulas left as source, text
wider than the page, a page of the reference that is too long to read. The site's search must find
what people type, and the table of methods must filter. ``--shots FOLDER`` keeps a picture of each.

    make docs-check
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-quic")
QUIET += ("--disable-component-update", "--disable-sync", "--no-sandbox")

TALLEST = 6000
"""Pixels that a page of the reference may be high, at the first width."""

SEARCHES = {
    "resume": "life_cycle.html",
    "LoRA": "methods.html",
    "GPU": "own_images.html",
    "own dataset": "data.html",
}
"""What people type, and a page that must be among what is found."""

LOOK = """() => ({
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  ids: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
  broken: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
  raw: /\\.\\. math|\\\\frac|\\\\begin\\{/.test(document.querySelector('article').innerText),
  wide: document.documentElement.scrollWidth - window.innerWidth,
  tall: document.querySelector('article').scrollHeight,
})"""


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine."""
    handler = functools.partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


def look(browser: Any, address: str, width: int, scheme: str, shot: Path | None) -> dict[str, Any]:
    """Open a page and tell what is on it, with ``wrong`` for what went wrong while it loaded."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    root = "/".join(address.split("/")[:3]) + "/"
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on(
        "request",
        lambda r: None if r.url.startswith((root, "data:")) else wrong.append(f"asks {r.url}"),
    )
    page.goto(address, wait_until="networkidle")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    found: dict[str, Any] = page.evaluate(LOOK)
    if shot:
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=str(shot))
    page.close()
    wrong += [f"picture {source} doesn't load" for source in found["broken"]]
    wrong += ["a formula stands as source"] if found["raw"] else []
    wrong += [f"{found['wide']} pixels wider than the screen"] if found["wide"] > 0 else []
    return {**found, "wrong": wrong}


def search_failures(browser: Any, root: str) -> Iterator[str]:
    """Type into the site's search, and name what isn't among what it finds."""
    for words, expected in SEARCHES.items():
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
        page.goto(root + "index.html", wait_until="networkidle")
        page.click(".md-search__input")
        page.wait_for_timeout(2500)  # the index is read by a worker, which says nothing when done
        page.keyboard.type(words)
        page.wait_for_timeout(1500)
        links = page.evaluate(
            "[...document.querySelectorAll('.md-search-result__link')].map(a => a.href)"
        )
        found = [link.removeprefix(root).partition("?")[0] for link in links]
        if expected not in found:
            first = ", ".join(dict.fromkeys(found)) or "nothing"
            yield f"search for {words!r} doesn't find {expected}, but {first}"
        page.close()


def filter_failures(browser: Any, root: str) -> Iterator[str]:
    """Filter the methods by words, passes and count; each must leave some rows and hide some."""
    for name, value in (("words", "polyhistor"), ("passes", "1"), ("most", "300000")):
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
        page.goto(root + "methods.html", wait_until="load")
        field = page.locator(f".filter [name={name}]")
        field.select_option(value) if name == "passes" else field.fill(value)
        rows = "document.querySelector('article table').tBodies[0].rows"
        seen = page.evaluate(f"[...{rows}].filter(row => row.checkVisibility()).length")
        if not 0 < seen < page.evaluate(f"{rows}.length"):
            yield f"methods.html: {name}={value} leaves {seen} rows"
        page.close()


def dead_links(pages: dict[str, dict[str, Any]], root: str, folder: Path) -> Iterator[str]:
    """Name the links within the site that lead to no page, file or anchor."""
    for address, found in pages.items():
        for link in sorted({urljoin(address, link) for link in found["links"]}):
            if not link.startswith(root):
                continue
            target, anchor = urldefrag(link)
            path = target.removeprefix(root) or "index.html"
            where = pages.get(root + path)
            if where is None and not (folder / path).is_file():
                yield f"{address.removeprefix(root)}: {path} isn't there"
            elif where is not None and anchor and anchor not in where["ids"]:
                yield f"{address.removeprefix(root)}: no #{anchor} on {path}"


def main() -> int:
    """Check the site; give 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("site", type=Path, nargs="?", default=Path("site"))
    parser.add_argument("--shots", type=Path, help="keep a picture of each page here")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.stderr.write(f"no browser found; install one of {', '.join(BROWSERS)}.\n")
        return 2
    from playwright.sync_api import sync_playwright

    names = sorted(str(p.relative_to(options.site)) for p in options.site.rglob("*.html"))
    names = [name for name in names if name != "404.html"]  # its links start at the site's address
    if not names:
        sys.stderr.write(f"no pages in {options.site}; run make docs first.\n")
        return 2
    wrong: list[str] = []
    with served(options.site) as root, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=list(QUIET))
        pages: dict[str, dict[str, Any]] = {}
        for name in names:
            for width in WIDTHS:
                for scheme in SCHEMES:
                    shot = None
                    if options.shots:
                        options.shots.mkdir(parents=True, exist_ok=True)
                        flat = name.replace("/", "-").removesuffix(".html")
                        shot = options.shots / f"{flat}-{width}-{scheme}.png"
                    found = look(browser, root + name, width, scheme, shot)
                    pages[root + name] = found
                    wrong += [f"{name} ({width}, {scheme}): {each}" for each in found["wrong"]]
                    if name.startswith("api/") and width == WIDTHS[0] and found["tall"] > TALLEST:
                        wrong.append(f"{name} ({width}, {scheme}): {found['tall']} pixels high")
        wrong += [*search_failures(browser, root), *filter_failures(browser, root)]
        browser.close()
        known = {address: found for address, found in pages.items() if "404" not in address}
        wrong += dead_links(known, root, options.site)
    sys.stdout.write("\n".join([*wrong, f"{len(names)} pages, {len(wrong)} things wrong\n"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
