"""Draw what docs/concepts.md explains: ``python docs/make_drawings.py`` writes docs/images/*.svg.

Lines and letters have the colour of the page's text (``currentColor``), areas a transparent accent,
so that a drawing is read on light and on dark. docs/hooks.py puts it into the page.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
ACCENT, FROZEN = "#00a08a", "#7f8c9b"
WIDTH = 480


def box(x: int, y: int, w: int, h: int, *lines: str, fill: str = "", dashed: bool = False) -> str:
    """Draw a box with lines of text in its middle."""
    look = f'fill="{fill}" fill-opacity="0.28"' if fill else 'fill="none"'
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    look += f' stroke="currentColor"{dash}'
    rect = f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="4" {look}/>'
    first = y + h / 2 + 4.5 - 8 * (len(lines) - 1)
    return rect + "".join(
        words(x + w // 2, first + 16 * i, line, anchor="middle") for i, line in enumerate(lines)
    )


def words(x: float, y: float, text: str, *, anchor: str = "start", faint: bool = False) -> str:
    """Write one line of text."""
    look = ' opacity="0.75"' if faint else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="currentColor"{look}>'
        f"{escape(text)}</text>"
    )


def arrow(*points: tuple[int, int], dashed: bool = False, head: bool = True) -> str:
    """Draw a line through points, with a head at the last."""
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    tip = ' marker-end="url(#tip)"' if head else ""
    return f'<path d="{path}" fill="none" stroke="currentColor"{dash}{tip}/>'


def drawing(height: int, *parts: str) -> str:
    """Put parts together."""
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" '
        'fill="currentColor"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="13">{tip}{"".join(parts)}</svg>\n'
    )


def paths() -> str:
    """One path for all tasks, and a path per task."""
    parts = [box(150, 8, 180, 34, "frozen tensors, once", fill=FROZEN)]
    parts += [box(8, 82, 190, 50, "path +", "adapters", fill=ACCENT)]
    parts += [arrow((190, 42), (103, 80), dashed=True)]
    for i, task in enumerate(("semseg", "depth", "normals")):
        parts += [arrow((40 + 63 * i, 132), (40 + 63 * i, 158))]
        parts += [box(10 + 64 * i, 160, 60, 28, task)]
        x = 250 + 78 * i
        parts += [box(x, 82, 70, 50, "path +", "adapters", fill=ACCENT)]
        parts += [arrow((270 + 10 * i, 42), (x + 35, 80), dashed=True)]
        parts += [arrow((x + 35, 132), (x + 35, 158)), box(x + 2, 160, 66, 28, task)]
    parts += [words(8, 212, "one_path = True: one pass")]
    parts += [words(250, 212, "one_path = False: a pass per task")]
    return drawing(222, *parts)


def sites() -> str:
    """A block with its sites, and where an adapter stands."""
    parts = [words(8, 20, "stages, finest first")]
    for i, side in enumerate((62, 46, 32, 20)):
        x = (8, 82, 140, 184)[i]
        parts += [box(x, 30, side, side, fill=FROZEN)]
        parts += [words(x + side // 2, 108, f"1/{4 * 2**i}", anchor="middle", faint=True)]
    parts += [words(8, 140, "inside a stage: blocks;"), words(8, 158, "inside a block: sites")]
    parts += [words(240, 20, "a block")]
    parts += [box(240, 30, 232, 216, dashed=True)]
    parts += [arrow((300, 240), (300, 212)), box(256, 176, 88, 34, "attn", fill=FROZEN)]
    parts += [arrow((300, 176), (300, 142)), box(256, 106, 88, 34, "mlp", fill=FROZEN)]
    parts += [arrow((300, 106), (300, 56)), words(312, 68, "+")]
    parts += [
        arrow((300, 158), (415, 158), (415, 142)),
        box(368, 106, 94, 34, "adapter", fill=ACCENT),
    ]
    parts += [arrow((415, 106), (415, 74), (302, 74))]
    parts += [words(356, 198, "a site, too", faint=True)]
    parts += [words(8, 196, "a site knows its stage,"), words(8, 214, "width, linears, and how")]
    parts += [words(8, 232, "its tokens lie on the map")]
    return drawing(256, *parts)


def records() -> str:
    """A call's record: opened, filled by hooks, read, gone."""
    parts = [words(8, 20, "one call"), box(8, 30, 464, 170, dashed=True)]
    for i, name in enumerate(("block", "block", "block")):
        x = 24 + 112 * i
        parts += [box(x, 48, 76, 34, name, fill=FROZEN)]
        parts += [arrow((x + 76, 65), (x + 110, 65))]
        parts += [arrow((x + 38, 82), (x + 38, 116), dashed=True)]
    parts += [box(362, 48, 96, 34, "stage outputs")]
    parts += [box(24, 118, 300, 30, "record of this call, in its thread", fill=ACCENT)]
    parts += [words(70, 104, "taps"), arrow((324, 133), (360, 133)), arrow((410, 82), (410, 114))]
    parts += [box(362, 116, 96, 34, "task_features")]
    parts += [arrow((410, 150), (410, 176)), words(398, 182, "features per task", anchor="end")]
    parts += [
        arrow((410, 176), (410, 222)),
        words(8, 222, "after it: no record, no tensor on any module"),
    ]
    return drawing(234, *parts)


def ledger() -> str:
    """What trains, by whom it serves, over what is frozen."""
    parts = [words(8, 20, "what trains")]
    bars = (
        (8, 130, "shared", "by tasks"),
        (138, 130, "per task", "one task only"),
        (268, 100, "unfrozen", "backbone"),
        (372, 100, "heads,", "output norms"),
    )
    parts += [box(x, 30, w, 44, *lines, fill=ACCENT) for x, w, *lines in bars]
    parts += [arrow((8, 84), (8, 92), (368, 92), (368, 84), head=False)]
    parts += [words(188, 110, "encoder: the papers' column", anchor="middle")]
    parts += [arrow((8, 122), (8, 130), (472, 130), (472, 122), head=False)]
    parts += [words(240, 148, "all", anchor="middle")]
    parts += [words(8, 176, "what doesn't"), box(8, 184, 464, 34, "frozen backbone", fill=FROZEN)]
    return drawing(226, *parts)


DRAWINGS = {"paths": paths, "sites": sites, "records": records, "ledger": ledger}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")
