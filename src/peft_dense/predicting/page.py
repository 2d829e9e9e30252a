"""A page to drop images on, on this machine alone: nothing is sent anywhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from peft_dense.errors import HyperparameterError, MissingPackageError, PeftDenseError
from peft_dense.predicting.painting import Tile, titled_tiles
from peft_dense.predicting.prediction import Prediction

__all__ = ["build_page", "serve"]

_VIEWS = ("side by side", "over the image")
_LONGEST = 480
_NOTHING = "No image yet."

See = Callable[[Path], Prediction]
"""Predicts the image of a file."""


def _gradio() -> Any:
    """Import gradio with its usage reports switched off.

    Raises:
        MissingPackageError: It isn't installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise MissingPackageError.of("the page", "gradio", "demo") from error
    return gradio


def build_page(see: See, tasks: Sequence[str], title: str) -> Any:
    """Build the page: an image goes in, every task comes out, with the time of the pass.

    Args:
        see: Predicts the image of a file.
        tasks: Names of the tasks.
        title: Heading of the page.

    Raises:
        MissingPackageError: gradio isn't installed.
    """
    gr = _gradio()
    with gr.Blocks(title="peft-dense", analytics_enabled=False, fill_width=True) as page:
        found = gr.State(None)
        gr.Markdown(f"### {title}")
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                # As a path and in its own mode: 16 bits and EXIF are read as in training.
                image = gr.Image(
                    label="Drop an image here",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=300,
                    elem_id="drop",
                )
                view = gr.Radio(_VIEWS, value=_VIEWS[0], label="Show tasks", elem_id="view")
                opacity = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity", elem_id="opacity")
                told = gr.Markdown(_NOTHING, elem_id="told")
            with gr.Column(scale=4), gr.Row(elem_id="pictures"):
                photo = _picture(gr, "image")
                shown = [_picture(gr, name) for name in tasks]
        chosen = [view, opacity]

        def look(path: str | None, view: str, opacity: float) -> list[Any]:
            one, text = _look(see, path)
            drawn = titled_tiles([("image", one.photo(_LONGEST), None, None)]) if one else None
            return [one, text, drawn, *paint(one, view, opacity)]

        def paint(found: Prediction | None, view: str, opacity: float) -> list[Any]:
            return [None] * len(shown) if found is None else _paint(found, view, opacity)

        # The photo isn't sent again with another view: gradio would write its file anew while the
        # browser may still be reading it.
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        image.change(look, [image, *chosen], [found, told, photo, *shown], **hidden)
        view.change(paint, [found, *chosen], shown, **hidden)
        opacity.release(paint, [found, *chosen], shown, **hidden)
    return page


def _picture(gr: Any, name: str) -> Any:
    """Make the place of a picture, with its title in it."""
    with gr.Column(min_width=300):
        return gr.Image(
            label="photo" if name == "image" else name,
            show_label=False,
            interactive=False,
            buttons=["download", "fullscreen"],
            format="png",
            elem_id=f"picture-{name}",
        )


def serve(page: Any, port: int | None = None, *, wait: bool = True) -> str:
    """Serve a page on 127.0.0.1, which only this machine reaches.

    Args:
        page: From `build_page`.
        port: Its port; by default the first free one from 7860 on.
        wait: Whether to return only after Ctrl-C.

    Returns:
        The address.

    Raises:
        HyperparameterError: The port isn't free.
    """
    gr = _gradio()
    fonts = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
    theme = gr.themes.Default(font=fonts[0], font_mono=fonts[1])  # none from elsewhere
    try:
        _, address, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            theme=theme,
            footer_links=[],
            share=False,
            ssr_mode=False,
            run_history=False,
            quiet=True,
            prevent_thread_lock=not wait,
        )
    except OSError as error:
        raise HyperparameterError(
            f"port {port or '7860 to 7959'} isn't free on 127.0.0.1; give another one, --port."
        ) from error
    return str(address)


def _look(see: See, path: str | None) -> tuple[Prediction | None, str]:
    """Predict the image of a file; give the prediction and a line on it."""
    if path is None:
        return None, _NOTHING
    try:
        found = see(Path(path))
    except PeftDenseError as error:
        return None, f"{error}"
    height, width = found.size
    number = len(found.tasks)
    return found, (
        f"**{1000 * found.seconds:.0f} ms** for one pass of {number} task{'s' * (number != 1)} "
        f"({width} x {height} pixels)"
    )


def _paint(found: Prediction, view: str, opacity: float) -> list[Image.Image]:
    """Paint every task, each with its title and its legend."""
    over = view == _VIEWS[1]
    tiles: list[Tile] = []
    for name, task in found.tasks.items():
        one = found.overlay(name, opacity, _LONGEST) if over else found.map(name, _LONGEST)
        tiles.append((name, one, task, found.labels[name]))
    return [titled_tiles([tile], over) for tile in tiles]
