"""What a figure of the gallery is, and the sheet it is drawn on."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from tabrl.control.acting import Rng
from tabrl.plots import GREY, new_figure


class Picture(NamedTuple):
    """A figure of the gallery."""

    summary: str  # one line
    draw: Callable[[Rng, int], Figure]  # draw(rng, runs)
    runs: int  # enough to see the differences


def sheet(width: float, height: float, note: str) -> Figure:
    """An empty figure with a note under it."""
    figure = new_figure(width, height)
    figure.supxlabel(note, fontsize=8.5, color=GREY)
    return figure
