"""What mkdocs does besides reading pages: notebooks, the changelog, drawings."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from notebooks import convert  # noqa: E402

NOTEBOOKS = DOCS.parent / "examples" / "notebooks"
CHANGELOG = DOCS.parent / "CHANGELOG.md"
DRAWING = re.compile(r'<img alt="([^"]*)" src="([^"]+/)?(\w+)\.svg"\s*/?>')


def on_files(files: Files, config: Any) -> Files:
    """Add a page per notebook, its pictures, the notebook itself, and the changelog."""
    made: dict[str, str | bytes] = {"changelog.md": CHANGELOG.read_text(encoding="utf-8")}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        source = path.read_text(encoding="utf-8")
        page, pictures = convert(source, path.stem)
        made[f"tutorials/{path.stem}.md"] = page
        made[f"tutorials/{path.name}"] = source
        made.update({f"tutorials/{name}": content for name, content in pictures.items()})
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Put drawings into the page, so that they take its colours, light or dark."""
    return DRAWING.sub(_drawn, html)


def _drawn(found: re.Match[str]) -> str:
    drawing = (DOCS / "images" / f"{found[3]}.svg").read_text(encoding="utf-8")
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{found[1]}" ', 1)
