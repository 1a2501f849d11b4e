"""Drawing runs of token methods: every run, the mean with a bootstrap interval, and what is exact.

k (M+1,) updates; y (M+1,runs) one column per run.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tabrl.control.acting import Rng
from tabrl.figures.picture import sheet
from tabrl.figures.token_runs import Runs
from tabrl.plots.learning import band_curves, exact_level, exact_levels, finish
from tabrl.plots.policies import colour
from tabrl.plots.runs import THIN, Band
from tabrl.summary import bootstrap_interval, mean
from tabrl.tokens.task import TokenTask
from tabrl.types import F

EACH = "thin: every run; thick: mean, shade: 95 % bootstrap interval over runs"


def interval(y: F, rng: Rng) -> Band:
    """Mean over runs with a bootstrap interval; a single run has none. y: (M,runs).

    >>> x = interval(np.array([[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0]]), np.random.default_rng(0))
    >>> x.mean.tolist(), bool(x.low[0] < 1 < 2 < x.high[0]), x.high[1].item()
    ([1.5, 1.0], True, 1.0)
    """
    if y.shape[1] < 2:
        return Band(mean(y), y[:, 0], y[:, 0])
    low, high = bootstrap_interval(y, rng, resamples=2000)
    return Band(mean(y), low, high)


def curves(
    ax: Axes, k: F, ys: Sequence[F], labels: Sequence[str], rng: Rng, levels: Mapping[str, float] | None = None, *,
    skip: int = 0,
) -> None:  # fmt: skip
    """Draw methods: every run thin, their mean with an interval. ys: one (M,runs) for each label; skip: colours.

    >>> from tabrl.plots import new_figure
    >>> ax = new_figure().add_subplot()
    >>> curves(ax, np.arange(2.0), [np.ones((2, 3))], ["GRPO"], np.random.default_rng(0), {"J*": 1.0})
    >>> len(ax.lines), ax.get_legend_handles_labels()[1]
    (7, ['GRPO', 'J*: 1'])
    """
    for i, y in enumerate(ys, skip):
        ax.plot(k, y[:, :THIN], color=colour(i), lw=0.7, alpha=0.4, zorder=1)
    band_curves(ax, k, [interval(y, rng) for y in ys], labels, skip=skip)
    exact_levels(ax, levels or {})
    ax.set_xlim(k[0], k[-1])


def outcome(task: TokenTask, x: Runs, rng: Rng, *, title: str) -> Figure:
    """Draw the exact expected outcome of every run over updates, below the best there is."""
    best = float(task.weights @ [task.best(i)[1] for i in range(task.K)])
    figure = sheet(8.2, 4.6, f"{EACH}. J is exact for every policy drawn")
    ax = figure.add_subplot()
    curves(ax, x.k.astype(np.float64), [x.J], [f"mean of {x.J.shape[1]} runs"], rng)
    exact_level(ax, best, f"J*: {best:g}")
    right = ((task.tree.reward == 0) | (task.tree.reward == 1)).all()
    finish(ax, "updates", "J = success probability, exact" if right else "J, exact", title)
    return figure
