"""Drawing runs of a learner: every run, their mean with an interval, and the exact curve it should follow.

t (K,) transitions, visits or episodes; y (K,runs) one column per run; estimates (K,runs,n) of n quantities.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from tabrl.plots import COLOURS, DASHES, tidy
from tabrl.plots.grid import INK
from tabrl.summary import mean, standard_error
from tabrl.types import F

THIN = 40  # runs that are drawn one by one


class Band(NamedTuple):
    """A mean and two standard errors around it."""

    mean: F  # (K,)
    low: F  # (K,)
    high: F  # (K,)


def band(y: F, *, root: bool = False) -> Band:
    """Mean over runs with an interval of two standard errors, or their roots; nan where a run has no number.

    y: (K,runs). A single run has no interval.

    >>> band(np.array([[1.0, 3.0]])).high
    array([4.])
    """
    with np.errstate(invalid="ignore", over="ignore"):
        middle = mean(y)
        half = 2 * standard_error(y) if y.shape[1] > 1 else np.zeros(len(y))
        ends = Band(middle, middle - half, middle + half)
        return Band(*(np.sqrt(np.maximum(x, 0.0)) for x in ends)) if root else ends


def learning_curve(
    ax: Axes, t: Any, y: F, *, ylabel: str, window: tuple[float, float], root: bool = False, exact: Any = None,
    lines: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Draw runs, their mean with an interval of two standard errors, and what is exactly known.

    t: (K,). y: (K,runs). window: lower and upper end of the axis; a run is marked with a triangle where it leaves
    them, or has no finite number. root: y are squares, their root is drawn: sqrt of the mean, not mean of the roots;
    otherwise the median is drawn too.
    exact: (K,) the expected curve. lines: label -> height of a horizontal line.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure().add_subplot()
    >>> learning_curve(ax, np.arange(2.0), np.array([[1.0, 1.0], [0.5, 9.0]]), ylabel="error", window=(0, 2))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['outside: 1 of 2 runs, 1 at the end', 'mean over runs ± 2 s.e.', 'median of the runs']
    """
    with np.errstate(invalid="ignore"):
        each = np.sqrt(y) if root else y
    low, high = window
    if y.shape[1] <= THIN:
        ax.plot(t, np.where(np.isfinite(each), each, np.nan), color=COLOURS[0], lw=0.5, alpha=0.3, zorder=1)
    mark_leaving(ax, t, each, low, high)
    b = band(y, root=root)
    inside = (b.mean >= low) & (b.mean <= high)
    ax.plot(t, b.mean, color=COLOURS[0], lw=2.0, label="mean over runs ± 2 s.e.", zorder=3)
    ax.fill_between(t, b.low, b.high, where=inside, color=COLOURS[0], alpha=0.3, lw=0, zorder=2)
    if not root:
        ax.plot(t, np.median(each, axis=1), color=INK, lw=1.0, label="median of the runs", zorder=3)
    if exact is not None:
        ax.plot(t, exact, color=INK, ls=(0, (4, 2)), lw=1.5, label="exact expectation", zorder=4)
    for i, (label, level) in enumerate((lines or {}).items()):
        ax.axhline(level, color=COLOURS[(1, 3, 4)[i % 3]], ls=DASHES[(2, 3, 1)[i % 3]], lw=1.6, label=label, zorder=4)
    ax.set(ylabel=ylabel, ylim=window, xlim=(0, 1.02 * float(t[-1])))
    finish(ax, "transitions")


def mark_leaving(ax: Axes, t: Any, each: F, low: float, high: float) -> None:
    """Put a triangle where a run first leaves the axis, at the edge, and count such runs in the legend."""
    with np.errstate(invalid="ignore"):
        out = ~((each >= low) & (each <= high))
    gone = np.flatnonzero(out.any(axis=0))
    if not len(gone):
        return
    first = out[:, gone].argmax(axis=0)
    up = each[first, gone] > high
    label = f"outside: {len(gone)} of {each.shape[1]} runs, {int(out[-1].sum())} at the end"
    for side, marker, level in ((up, "^", high), (~up, "v", low)):
        if side.any():
            at = np.full(side.sum(), level)
            ax.plot(t[first[side]], at, marker, color=COLOURS[4], ms=7, clip_on=False, ls="", zorder=6, label=label)
            label = "_"


def against_exact(ax: Axes, t: Any, estimates: F, exact: F, labels: Sequence[str], *, xlabel: str) -> None:
    """Draw the sample mean of several quantities, with bars of two standard errors, on their exact expectation.

    t: (K,). estimates: (K,runs,n). exact: (K,n). labels: n names, at most ten of which are drawn.
    """
    shown = spread(len(labels))
    for i, k in enumerate(shown):
        colour = COLOURS[i % len(COLOURS)]
        ax.plot(t, exact[:, k], color=colour, lw=1.3, label=labels[k])
        level, error = mean(estimates[:, :, k]), 2 * standard_error(estimates[:, :, k])
        ax.errorbar(t, level, error, color=colour, fmt="o", ms=3.2, mfc="white", mew=1.0, elinewidth=1.0, zorder=3)
    ax.set_ylabel("value")
    finish(ax, xlabel, title="line: exact\ncircle: sample mean")


def scores(ax: Axes, t: Any, z: F, labels: Sequence[str], *, xlabel: str) -> None:
    """Draw z-scores (sample mean - exact expectation) / standard error, with the band that holds 95 %.

    t: (K,). z: (K,n), nan where nothing varies. The scores of one quantity hang together over time.
    """
    ax.axhspan(-2, 2, color="#e9edf2", zorder=0)
    ax.axhline(0, color=INK, lw=0.8)
    for i, k in enumerate(spread(len(labels))):
        ax.plot(t, z[:, k], color=COLOURS[i % len(COLOURS)], marker="o", ms=3, lw=1.0, label=labels[k])
    top = max(4.0, float(np.nanmax(abs(z), initial=0.0)) * 1.1)
    ax.set(ylabel="z-score", ylim=(-top, top))
    finish(ax, xlabel, title="grey: ± 2")


def spread(n: int, most: int = 7) -> list[int]:
    """Choose at most `most` of n, evenly spaced.

    >>> spread(3), spread(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    return list(dict.fromkeys(np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()))


def finish(ax: Axes, xlabel: str, title: str | None = None) -> None:
    """Name the axis, and put the legend where no curve runs: below, or with a title to the right."""
    ax.set_xlabel(xlabel)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    tidy(ax)
    if not ax.get_legend_handles_labels()[0]:
        return
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
    if title is not None:
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "title": title, "title_fontsize": 9}
    ax.legend(frameon=False, fontsize=9, **place)
