"""Drawing policies on their way: exact J of every run, shortfalls, samples on exact curves, the simplex of three arms.

t (K,) transitions; J (L,K,runs) of L methods; pi (...,3) points of the probability simplex; samples (M,n) whose mean,
or the root of it, should lie on an exact curve.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tabrl.plots import COLOURS
from tabrl.plots.grid import INK
from tabrl.plots.learning import ORDER, band_curves, exact_levels
from tabrl.plots.runs import THIN, band
from tabrl.types import F

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])  # of the triangle, one for each arm


def colour(i: int) -> str:
    """Colour of the i-th method, the same in every panel."""
    return COLOURS[ORDER[i % 10]]


def many_runs(
    ax: Axes, x: F, y: F, labels: Sequence[str], levels: Mapping[str, float] | None = None, *, middle: bool = False
) -> None:  # fmt: skip
    """Draw the mean of each method with an interval of two standard errors, and every run as a thin line.

    x: (K,). y: (L,K,runs). levels: label -> height of an exact line. middle: the median of the runs in place of the
    mean, without an interval, for axes on which a mean would only show the largest runs. Of more than forty runs the
    first forty are drawn.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure().add_subplot()
    >>> many_runs(ax, np.arange(2.0), np.ones((1, 2, 5)), ["PPO"], {"J*": 2.0})
    >>> sum(x.get_linewidth() < 1 for x in ax.lines), ax.get_legend_handles_labels()[1]
    (5, ['PPO', 'J*: 2'])
    """
    for i, each in enumerate(y):
        ax.plot(x, each[:, :THIN], color=colour(i), lw=0.6, alpha=0.4, zorder=1)
    if middle:
        for i, (each, label) in enumerate(zip(y, labels, strict=True)):
            ax.plot(x, np.median(each, axis=1), color=colour(i), lw=2.0, label=label, zorder=3)
    else:
        band_curves(ax, x, [band(each) for each in y], labels)
    exact_levels(ax, levels or {})


def sampled_points(ax: Axes, x: F, samples: F, i: int, *, root: bool = False, label: str = "_", shift: float = 1.0
                   ) -> None:  # fmt: skip
    """Draw sample means with bars of two standard errors, in the colour of the i-th curve.

    x: (M,). samples: (M,n), nan where a sample does not count. root: the root of the mean of squares.
    """
    count = np.isfinite(samples).sum(axis=1)
    mean = np.nanmean(samples, axis=1)
    half = 2 * np.nanstd(samples, axis=1, ddof=1) / np.sqrt(count)
    ends = np.array([mean - half, mean, mean + half])
    low, middle, high = np.sqrt(np.maximum(ends, 0.0)) if root else ends
    style: dict[str, Any] = {"fmt": "o", "ms": 4.5, "mfc": "white", "elinewidth": 1.3, "capsize": 2.5, "zorder": 5}
    ax.errorbar(x * shift, middle, [middle - low, high - middle], color=colour(i), label=label, **style)


def exact_line(ax: Axes, x: F, y: F, i: int, label: str, *, dash: Any = "-") -> None:
    """Draw an exact curve in the colour of its samples."""
    ax.plot(x, y, color=colour(i), lw=1.6, ls=dash, label=label, zorder=3)


def simplex(ax: Axes, value: F, names: Sequence[str]) -> None:
    """Draw the simplex of three arms, with lines of equal J = value . pi every tenth, and the corners' names.

    value: (3,), not all the same. names: (3,).
    """
    middle, (last, between, first) = CORNERS.mean(axis=0), np.argsort(value, kind="stable")
    for J in np.arange(np.ceil(10 * value[last] + 1e-9), 10 * value[first] - 1e-9) / 10:
        long, other = crossing(value, first, last, J), (first if value[between] < J else last)
        ends = np.array([long, crossing(value, between, other, J)])
        ax.plot(*ends.T, color="#b0b0b0", lw=0.8, zorder=0)
        at = long + 0.05 * (long - middle) / np.sqrt(((long - middle) ** 2).sum())
        ax.text(at[0], at[1], f"{J:g}", fontsize=7.5, color="#666666", ha="center", va="center")
    ax.plot(*CORNERS[[0, 1, 2, 0]].T, color=INK, lw=1.2, zorder=2)
    for (x, y), name, up in zip(CORNERS, names, (-0.035, -0.035, 0.03), strict=True):
        ax.text(x, y + up, name, ha="center", va="bottom" if up > 0 else "top", fontsize=9)
    ax.set(aspect="equal", xlim=(-0.12, 1.12), ylim=(-0.14, 0.97))
    ax.axis("off")


def crossing(value: F, i: int, j: int, J: float) -> F:
    """The point (2,) of the edge between two corners at which value . pi = J.

    >>> crossing(np.array([1.0, 0.0, 0.0]), 0, 1, 0.25)
    array([0.75, 0.  ])
    """
    w = (J - value[j]) / (value[i] - value[j])
    point: F = w * CORNERS[i] + (1 - w) * CORNERS[j]
    return point


def simplex_path(ax: Axes, pi: F, i: int, label: str = "_", *, every: int = 0, **style: Any) -> None:
    """Draw a path (K,3) through the simplex; a dot after every so many updates, an empty one at the start."""
    xy = pi @ CORNERS
    given: dict[str, Any] = {"lw": 1.8, "zorder": 3, **style}
    ax.plot(*xy.T, color=given.pop("color", colour(i)), label=label, **given)
    if every:
        ax.plot(*xy[every::every].T, "o", color=colour(i), ms=3.6, zorder=4)
        ax.plot(*xy[:1].T, "o", color=INK, mfc="white", ms=6, zorder=5)


def transitions_axis(ax: Axes, t: F) -> None:
    """A logarithmic axis of transitions, with whole numbers."""
    ax.set_xscale("log")
    ax.set_xlim(t[0], t[-1])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def percent_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic axis of percentages."""
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
