"""Turn a stored notebook into a page: its text, its code and the outputs that were stored with it.

Nothing runs, so the page shows what the notebook's own test has compared. A picture becomes a file
beside the page.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import Any

PICTURES = {"image/png": "png", "image/jpeg": "jpg"}
LINK = re.compile(r"`(\w+)\.ipynb`")


def convert(source: str, name: str) -> tuple[str, dict[str, bytes]]:
    """Give the page as Markdown, and its pictures by file name.

    Args:
        source: The notebook as it is on the disk.
        name: Its name without the suffix; pictures are called after it.
    """
    cells = json.loads(source)["cells"]
    pictures: dict[str, bytes] = {}
    head, _, rest = join(cells[0]["source"]).partition("\n")
    parts = [f"{head}\n\n[Download this notebook]({name}.ipynb){{ download }}\n{rest}"]
    for cell in cells[1:]:
        if cell["cell_type"] == "markdown":
            parts.append(LINK.sub(r"[`\1.ipynb`](\1.md)", join(cell["source"])))
        elif cell["cell_type"] == "code":
            parts.append(fenced(join(cell["source"]), "python"))
            parts += [shown(output, name, pictures) for output in cell["outputs"]]
    return "\n\n".join(filter(None, parts)) + "\n", pictures


def shown(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    """Write one stored output; a picture goes into ``pictures``."""
    if output["output_type"] == "stream":
        return fenced(join(output["text"]), "text")
    data = output["data"]
    for kind, suffix in PICTURES.items():
        if kind in data:
            file = f"{name}-{len(pictures) + 1}.{suffix}"
            pictures[file] = b64decode(join(data[kind]))
            return f"![What the cell above shows]({file})"
    return fenced(join(data["text/plain"]), "text")


def fenced(text: str, language: str) -> str:
    """Put text between fences that are longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def join(text: str | list[str]) -> str:
    """Notebooks hold text as one string or as lines."""
    return text if isinstance(text, str) else "".join(text)
