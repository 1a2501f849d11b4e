"""Drawing that the lessons on policy gradients share: exact lines, and samples with two standard errors.

x (K,); y (K,runs) one column per run; wrong and right have the same colours in every lesson.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tabrl.plots import COLOURS, GREY, tidy
from tabrl.plots.grid import INK
from tabrl.summary import standard_error
from tabrl.types import F, I

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FOURTH", "GREY", "INK", "OTHER", "RIGHT", "WRONG", "finish", "level", "paths", "points"]

RIGHT, WRONG, OTHER, FOURTH = (COLOURS[i] for i in (0, 1, 3, 4))


def points(ax: "Axes", x: F | I, y: F, colour: str, label: str = "_", marker: str = "o") -> None:
    """Draw the mean of runs with an interval of two standard errors."""
    bars = ax.errorbar(x, y.mean(axis=1), 2 * standard_error(y), fmt=marker, color=colour, ms=4, capsize=2, lw=1)
    bars.set_label(label)


def paths(ax: "Axes", x: F | I, y: F, colour: str, label: str = "_") -> None:
    """Draw every run thinly, and an interval of two standard errors around their mean."""
    mean, half = y.mean(axis=1), 2 * standard_error(y)
    ax.plot(x, y, color=colour, lw=0.4, alpha=0.3)
    ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.35, lw=0, label=label)


def level(ax: "Axes", y: float | F, x: float, text: str = "{:.4g}", *, lift: float = 2) -> None:
    """Draw an exact number as a dashed line, with the number at x, `lift` points above."""
    y = float(np.asarray(y))
    ax.axhline(y, color=INK, ls="--", lw=1)
    ax.annotate(text.format(y), (x, y), (0, lift), textcoords="offset points", fontsize=9, va="bottom")


def finish(ax: "Axes", xlabel: str, ylabel: str, title: str, *, legend: Any = "best") -> None:
    """Name the axes; place the legend; no frame."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize=10)
    if legend is not None:
        ax.legend(frameon=False, fontsize=8.5, loc=legend)
    tidy(ax)
