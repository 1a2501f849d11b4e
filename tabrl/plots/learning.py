"""Drawing learning curves: the mean over runs, an interval, what is exact, and every mean that leaves the picture.

x (K,) what is varied; y (K,runs) one curve per run; labels name the curves. Exact lines are black and not solid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from tabrl.plots import COLOURS, DASHES, tidy
from tabrl.plots.grid import INK, minus
from tabrl.plots.runs import Band, band
from tabrl.types import F

ORDER = (0, 1, 3, 4, 5, 7, 6, 8, 9, 2)  # of the colours, strong ones first


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
    band_curves(ax, x, [band(y) for y in curves], labels, top=top)
    finish(ax, xlabel, ylabel)


def band_curves(
    ax: Axes, x: F, bands: Sequence[Band], labels: Sequence[str], *, low: float = -np.inf, top: float = np.inf,
    skip: int = 0, dash: int = 0,
) -> None:  # fmt: skip
    """Draw bands as lines with a shade.

    low, top: ends of the axis; points beyond, or not finite, are left out of the line, and a triangle stands at the
    last point before (or the first after) them: "^" above the axis or not finite, "v" below. skip: colours to leave
    to other curves. dash: number of the line style.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure().add_subplot()
    >>> band_curves(ax, np.arange(2.0), [Band(np.array([-9.0, 1.0]), np.zeros(2), np.ones(2))], ["mean"], low=0.0)
    >>> [line.get_marker() for line in ax.lines if len(line.get_xdata())]
    ['None', 'v']
    """
    for i, (b, label) in enumerate(zip(bands, labels, strict=True), skip):
        style: dict[str, Any] = {"color": COLOURS[ORDER[i % 10]]}
        with np.errstate(invalid="ignore"):
            inside = (b.mean >= low) & (b.mean <= top)
        level = np.where(inside, b.mean, np.nan)
        ax.plot(x, level, linestyle=DASHES[(dash + i // 10) % len(DASHES)], lw=1.6, label=label, **style)
        ax.fill_between(x, b.low, b.high, where=inside, alpha=0.2, lw=0, **style)
        for marker, out in (("v", b.mean < low), ("^", ~inside & ~(b.mean < low))):
            edge = inside & (np.append(out[1:], False) | np.append(False, out[:-1]))
            ax.plot(x[edge], level[edge], marker, ms=5, **style)
    if np.isfinite(low):
        ax.set_ylim(bottom=low)
    if np.isfinite(top):
        ax.set_ylim(top=top)


def exact_level(ax: Axes, y: float, label: str, *, dash: int = 1) -> None:
    """Draw an exact number as a horizontal line over the whole width.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure().add_subplot()
    >>> exact_level(ax, -13.0, "V*")
    >>> ax.lines[0].get_ydata()
    [-13.0, -13.0]
    """
    ax.axhline(y, color=INK, ls=DASHES[dash], lw=1.2, label=label, zorder=4)


def exact_span(ax: Axes, low: float, high: float, label: str) -> None:
    """Shade the exact range of a number that depends on how ties are broken."""
    ax.axhspan(low, high, color=INK, alpha=0.12, lw=0, label=label, zorder=0)


def exact_curve(ax: Axes, x: F, y: F, label: str = "_", *, dash: int = 0) -> None:
    """Draw an exact curve, dotted, or dashed in another style; label "_" keeps it out of the legend."""
    ax.plot(x, y, color=INK, ls=DASHES[dash] if dash else (0, (1, 1.6)), lw=1.5, label=label, zorder=4)


def finish(ax: Axes, xlabel: str, ylabel: str, title: str = "") -> None:
    """Name the axes, and put the legend to the right, where no curve runs."""
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, fontsize=10.5)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    tidy(ax)


def step_size_curves(
    ax: Axes, alpha: F, rms: F, labels: Sequence[str], exact: Mapping[str, F], none: float, *, top: float = 0.56,
    title: str = "",
) -> None:  # fmt: skip
    """Draw RMS errors over step sizes, on a square-root scale, one curve for each learner.

    alpha: (K,). rms: (len(labels), K, runs). exact: label -> (K,) exact errors. none: error of V = 0.
    """
    band_curves(ax, alpha, [band(y) for y in rms], labels, top=top)
    for i, (label, y) in enumerate(exact.items()):
        exact_curve(ax, alpha[y <= top], y[y <= top], label, dash=3 * i)
    exact_level(ax, none, f"V = 0: {none:.3f}")
    ax.set_xscale("function", functions=(np.sqrt, np.square))
    ax.set_xlim(0, float(alpha[-1]))
    ax.set_xticks([x for x in (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1) if x <= alpha[-1]])
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    finish(ax, r"step size $\alpha$ (square-root scale)", "RMS error, first 10 episodes", title)


def value_estimates(
    ax: Axes, k: Sequence[int], V: F, mean: F, std: F, exact: F, names: Sequence[str], *, title: str = ""
) -> None:
    """Draw values of some states after k episodes: sample mean with an interval, exact mean, and the goal.

    V: (len(k), runs, n). mean, std: (len(k), n) exact; the shade is one exact standard deviation of a run after the
    last k. exact: (n,) V_pi. names: n states.
    """
    x, runs = np.arange(len(names)), V.shape[1]
    ax.plot(x, exact, color=INK, lw=2.2, label=r"$V_\pi$, exact", zorder=2)
    for i, n in enumerate(k):
        colour = COLOURS[ORDER[i]]
        ax.plot(x, mean[i], color=colour, ls=(0, (1, 1.6)), lw=1.5, zorder=3)
        half = 2 * V[i].std(axis=0, ddof=1) / np.sqrt(runs)
        style: dict[str, Any] = {"fmt": "osD^"[i % 4], "ms": 5, "mfc": "white", "elinewidth": 1.2, "capsize": 2.5}
        ax.errorbar(x, V[i].mean(axis=0), half, color=colour, label=f"after {n} episode{'s' * (n != 1)}", **style)
    ax.fill_between(x, mean[-1] - std[-1], mean[-1] + std[-1], color=colour, alpha=0.15, lw=0)
    ax.set_xticks(x, names)
    finish(ax, "state", "value", title)


def error_pairs(ax: Axes, k: F, groups: Mapping[str, tuple[Sequence[float], F, F]], *, title: str = "") -> None:
    """Draw root mean square errors over episodes, one curve for each step size of each group, with exact curves.

    k: (K,) episodes. groups: name -> step sizes, squares (len(alpha), K, runs), exact roots (len(alpha), K).
    """
    drawn = 0
    for name, (alpha, square, exact) in groups.items():
        labels = [rf"{name} $\alpha$ = {a:g}" for a in alpha]
        band_curves(ax, k, [band(y, root=True) for y in square], labels, skip=drawn)
        drawn += len(alpha)
        for curve in exact:
            exact_curve(ax, k, curve)
    exact_curve(ax, k[:0], k[:0], "exact")
    ax.set_ylim(0, None)
    finish(ax, "episodes", "RMS error over states and runs", title)


def exact_levels(ax: Axes, levels: Mapping[str, float]) -> None:
    """Draw exact numbers as horizontal lines: label -> number, which the legend repeats.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure().add_subplot()
    >>> exact_levels(ax, {"shortest way": 14.0})
    >>> ax.lines[0].get_label()
    'shortest way: 14'
    """
    for i, (label, y) in enumerate(levels.items(), 1):
        exact_level(ax, y, f"{label}: {minus(f'{y:.4g}')}", dash=i)


def episode_curves(
    ax: Axes, y: F, labels: Sequence[str], levels: Mapping[str, float], *, ylabel: str,
    window: tuple[float, float] = (-np.inf, np.inf), title: str = "",
) -> None:  # fmt: skip
    """Draw a quantity over episodes, one curve for each learner, beside exact levels.

    y: (len(labels), episodes, runs), first episode 1. levels: label -> number. window: ends of the axis.
    """
    episodes = np.arange(1.0, y.shape[1] + 1)
    band_curves(ax, episodes, [band(x) for x in y], labels, low=window[0], top=window[1])
    exact_levels(ax, levels)
    ax.set_xlim(0, len(episodes))
    finish(ax, "episode", ylabel, title)
