"""Colours: the VOC palette bit by bit, and the ramps."""

from __future__ import annotations

import torch

from peft_dense.tasks.drawing import IGNORED_COLOUR, grey, palette, ramp


def test_palette_deals_the_bits_of_a_class_out_to_the_channels() -> None:
    for index, colour in enumerate(palette().tolist()):
        bits = f"{index:08b}"[::-1]  # lowest first
        for channel, value in enumerate(colour):
            dealt = bits[channel::3].ljust(8, "0")  # its lowest becomes the channel's highest
            assert value == int(dealt, 2), (index, channel)


def test_palette_gives_the_colours_of_voc() -> None:
    colours = palette()
    assert colours[[1, 2, 15, 20]].tolist() == [
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]
    assert len(colours.unique(dim=0)) == 256
    assert IGNORED_COLOUR.tolist() == [224, 224, 192]


def test_ramps_brighten_from_0_to_1_and_stop_there() -> None:
    amounts = torch.linspace(0, 1, 101)[None]
    for paint in (grey, ramp):
        colours = paint(amounts)[0].float() @ torch.tensor([0.30, 0.59, 0.11])
        assert (colours.diff() > 0).all()
        outside = paint(torch.tensor([[-3.0, 5.0, float("nan")]]))[0]
        ends = paint(torch.tensor([[0.0, 1.0, 0.0]]))[0]
        assert torch.equal(outside, ends)
