"""Drawing learning curves: the mean over runs, an interval, and every run that leaves the picture.

x (K,) what is varied; y (K,runs) one curve per run; labels name the curves.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from tabrl.plots import COLOURS, DASHES, tidy
from tabrl.types import F


def error_curves(
    ax: Axes, x: F, curves: Sequence[F], labels: Sequence[str], *, xlabel: str, ylabel: str = "RMS error", top: float
) -> None:
    """Draw mean curves with an interval of two standard errors.

    x: (K,). curves: one (K,runs) array for each label. top: upper end of the axis; points above it, or not
    finite, are left out of the line and marked with a triangle at the edge where the line leaves.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure().add_subplot()
    >>> error_curves(ax, np.arange(2.0), [np.ones((2, 5))], ["n = 1"], xlabel="alpha", top=2.0)
    >>> ax.get_ylabel()
    'RMS error'
    """
    for i, (y, label) in enumerate(zip(curves, labels, strict=True)):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        with np.errstate(all="ignore"):  # runs that diverged
            mean, half = y.mean(axis=1), 2 * y.std(axis=1, ddof=1) / np.sqrt(y.shape[1])
        shown = np.isfinite(mean) & (mean <= top)
        level = np.where(shown, mean, np.nan)
        ax.plot(x, level, color=colour, linestyle=dash, lw=1.6, label=label)
        ax.fill_between(x, level - half, level + half, color=colour, alpha=0.2, lw=0)
        leaves = np.flatnonzero(shown[:-1] & ~shown[1:])
        ax.plot(x[leaves], mean[leaves], "^", color=colour, ms=5)
    ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(None, top))
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    tidy(ax)
