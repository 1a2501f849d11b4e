"""Figures: each function draws the arrays it is given on the axes it is given.

V (S,) values; pi (S,A) policy or mask of actions; k sweep; a record has k, V, residual and bound.
No algorithm runs here and no window opens; `new_figure` makes a figure without any global state.
Pictures on a grid are in `plot_grid`, whose functions can be used from here.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from tabrl.plots.grid import INK, borders, grid_values, minus, policy_contour, shows_numbers, table, value_contour
from tabrl.types import B, F

__all__ = [
    "COLOURS",
    "Curve",
    "borders",
    "convergence",
    "curve",
    "grid_values",
    "image",
    "methods",
    "new_figure",
    "policy_contour",
    "policy_steps",
    "shows_numbers",
    "table",
    "value_bars",
    "value_contour",
    "value_curve",
    "value_steps",
]

# petroff10 of matplotlib: chosen for colour-vision deficiency (Petroff, 2021)
COLOURS = ("#3f90da", "#bd1f01", "#94a4a2", "#832db6", "#e76300", "#a96b59", "#717581", "#ffa90e", "#92dadd", "#b9ac70")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)), (0, (8, 2, 2, 2, 2, 2)))
MARKERS = "os^DvpX"
GREY = "#666666"


class Curve(NamedTuple):
    """What a sequence of records says about convergence."""

    k: F  # (n,) sweeps or rounds done
    residual: F  # (n,)
    bound: F  # (n,) certified max |V - V_star|
    error: F  # (n,) true max |V - V_star|; nan where V_star is not given


def curve(records: Iterable[Any], V_star: Any = None) -> Curve:
    """Reduce records with k, V, residual and bound to four numbers each.

    >>> from tabrl.types import Sweep
    >>> curve([Sweep(1, np.array([1.0, 2.0]), 2.0, 4.0)], V_star=np.array([1.0, 2.5])).error
    array([0.5])
    """
    rows = []
    for x in records:
        error = np.nan if V_star is None else float(abs(x.V - V_star).max(initial=0.0))
        rows.append((x.k, x.residual, x.bound, error))
    return Curve(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """Return an empty figure of the given size in inches, on a canvas of its own."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def image(figure: Figure, *, kind: str = "png", dpi: int = 130) -> bytes:
    """Render a figure to the bytes of a file: png, svg or pdf; the same figure gives the same bytes."""
    stream = io.BytesIO()
    dates = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(stream, format=kind, dpi=dpi, metadata=dates.get(kind))
    return stream.getvalue()


def convergence(ax: Axes, records: Iterable[Any], V_star: Any = None, gamma: float | None = None) -> None:
    r"""Draw residual, certified bound and true error of one method against its sweeps, on a log axis.

    records: `Sweep` or `Improvement`, or a `Curve`. V_star: (S,) exact values, for the true error. gamma:
    adds gamma**k max|V_star|, which value iteration from V = 0 cannot exceed, where both are given and
    gamma < 1. A value of 0 cannot stand on a log axis: it is a triangle at the lower edge. Where nothing is
    certified (bound = inf) the legend says so.

    >>> from tabrl.types import Sweep
    >>> ax = new_figure().add_subplot()
    >>> convergence(ax, [Sweep(1, np.ones(1), 1.0, 2.0), Sweep(2, np.full(1, 1.5), 0.5, 1.0)], np.array([2.0]), 0.5)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['certified bound', 'true error', 'residual', '$\\gamma^k\\,\\max|V^*|$']
    """
    c = records if isinstance(records, Curve) else curve(records, V_star)
    lines = [("certified bound", c.bound, 1, 1), ("true error", c.error, 0, 0), ("residual", c.residual, 6, 2)]
    floor = lower_edge(c.bound, c.error, c.residual)
    for label, y, colour, dash in lines:
        if np.isinf(y).all():
            label += ": none known"
        if not np.isnan(y).all():
            log_line(ax, c.k, y, floor, label=label, color=COLOURS[colour], linestyle=DASHES[dash], marker="o")
    if V_star is not None and gamma is not None and gamma < 1:
        k = np.arange(int(c.k.max(initial=0)) + 1)
        line = gamma**k * float(abs(np.asarray(V_star)).max())
        keep = line > floor
        ax.plot(k[keep], line[keep], color=INK, lw=1.1, ls=":", label=r"$\gamma^k\,\max|V^*|$", zorder=4)
    log_axes(ax, floor)
    below(ax)


def methods(ax: Axes, curves: Mapping[str, Curve]) -> None:
    """Draw the true error of several methods against their iterations, both axes logarithmic.

    curves: name -> `Curve`. Iterations cost differently: a sweep of value iteration is one backup per
    state, a round of policy iteration solves a linear system. Zeros are triangles at the lower edge.
    """
    floor = lower_edge(*(c.error for c in curves.values()))
    for i, (name, c) in enumerate(curves.items()):
        style = {"color": COLOURS[(0, 1, 4, 3, 7, 5, 6)[i % 7]], "linestyle": DASHES[i % 6], "marker": MARKERS[i % 7]}
        log_line(ax, c.k, c.error, floor, label=name.replace("_", " "), **style)
    ax.set_xscale("log")
    log_axes(ax, floor)
    ax.set_xlabel("iteration (log scale)")
    ax.set_ylabel(r"true error $\max|V_k - V^*|$")
    below(ax)


def below(ax: Axes) -> None:
    """Put the legend under the axes, where no curve can run into it."""
    ax.legend(frameon=False, fontsize=9.5, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def lower_edge(*columns: F) -> float:
    """Power of ten below every positive finite number; where zeros are drawn."""
    y = np.concatenate(columns)
    y = y[np.isfinite(y) & (y > 0)]
    return float(10.0 ** np.floor(np.log10(y.min()) - 0.5)) if y.size else 1e-17


def log_line(ax: Axes, k: F, y: F, floor: float, *, marker: str, **style: Any) -> None:
    """Draw y on a log axis; zeros become triangles at the floor, infinities gaps; few points get markers."""
    shown = np.where(np.isfinite(y), np.maximum(y, floor), np.nan)
    ax.plot(k, shown, lw=1.8, marker=marker if len(k) <= 25 else None, markersize=4.5, **style)
    zero = y == 0
    if zero.any():
        ax.plot(k[zero], shown[zero], "v", color=style["color"], markersize=8, clip_on=False, zorder=5)


def log_axes(ax: Axes, floor: float) -> None:
    """Finish the axes of a convergence figure."""
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    ax.yaxis.set_minor_formatter(NullFormatter())
    if ax.get_xscale() == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("iteration $k$")
    tidy(ax)


def value_bars(
    ax: Axes, V: F, names: Sequence[str] | None = None, *, pi: Any = None, actions: Sequence[str] = ()
) -> None:
    """Draw one bar per state, with its value; coloured and hatched by the action that pi prefers.

    V: (S,). names: S labels. pi: (S,A) policy or mask; a state with several actions is labelled by all of
    them. actions: A labels. Meant for up to about 30 states.

    >>> ax = new_figure().add_subplot()
    >>> value_bars(ax, np.array([1.0, -2.0]), ["a", "b"])
    >>> [round(bar.get_height()) for bar in ax.patches]
    [1, -2]
    """
    V = np.asarray(V, np.float64)
    S = len(V)
    groups = ["value"] * S if pi is None else [preferred(row, actions) for row in np.asarray(pi)]
    order = {groups[s]: () if pi is None else tuple(np.flatnonzero(np.asarray(pi)[s])) for s in reversed(range(S))}
    for i, group in enumerate(sorted(order, key=lambda name: order[name])):
        at = [s for s in range(S) if groups[s] == group]
        style: dict[str, Any] = {
            "color": COLOURS[(0, 7, 3, 4, 8, 5)[i % 6]],
            "hatch": ("", "//", "..", "\\\\", "xx", "--")[i % 6],
        }
        ax.bar(at, V[at], width=0.72, edgecolor="white", linewidth=0.6, label=group, **style)
    ax.axhline(0, color=INK, lw=0.8)
    if S <= 12:
        for s, v in enumerate(V):
            text = f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.4g}"
            ax.annotate(
                minus(text), (s, v), (0, 3 if v >= 0 else -3), textcoords="offset points", ha="center",
                va="bottom" if v >= 0 else "top", fontsize=9,
            )  # fmt: skip
    labels = list(names) if names else [str(s) for s in range(S)]
    turned = max(map(len, labels)) * S > 70
    ax.set_xticks(range(S), labels, rotation=90 if turned else 0)
    ax.margins(y=0.14)
    ax.set_ylabel("value")
    if pi is not None:
        ax.legend(title="action", frameon=False, fontsize=9, ncols=min(6, len(set(groups))), loc="upper left")
        ax.margins(y=0.28)
    tidy(ax, axis="y")


def preferred(row: F, actions: Sequence[str]) -> str:
    """Name the actions that a row of a policy takes; "any" when it takes all of several."""
    chosen = np.flatnonzero(row).tolist()
    if len(chosen) == len(row) > 1:
        return "any"
    return " or ".join(actions[a] if actions else f"action {a}" for a in chosen)


def value_steps(ax: Axes, V: F, *, label: str = "", xlabel: str = "state") -> None:
    """Draw the values of many states as a step line against the number of the state."""
    ax.step(np.arange(len(V)), V, where="mid", color=COLOURS[0], lw=1.2, label=label)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("value")
    tidy(ax)


def policy_steps(ax: Axes, optimal: B, *, first: int = 1) -> None:
    """Draw every optimal stake of the gambler against the capital, the smallest joined by a line.

    optimal: (S,A) mask of maximising stakes; states 0 and S-1 are the ends. first: smallest stake to show.
    Source: Sutton & Barto (2018), figure 4.3 (lower panel).

    >>> ax = new_figure().add_subplot()
    >>> policy_steps(ax, np.array([[1, 0], [0, 1], [1, 0]], bool))
    >>> ax.collections[0].get_offsets().tolist()
    [[1.0, 1.0]]
    """
    capital = np.arange(1, len(optimal) - 1)
    shown = optimal[1:-1].copy()
    shown[:, :first] = False
    s, a = np.nonzero(shown)
    ax.scatter(s + 1, a, s=16, color=COLOURS[7], edgecolors=INK, linewidths=0.4, label="every optimal stake", zorder=3)
    lowest = np.where(shown.any(axis=1), shown.argmax(axis=1), np.nan)
    ax.step(capital, lowest, where="mid", color=COLOURS[0], lw=1.6, label="smallest optimal stake")
    ax.set_xlabel("capital")
    ax.set_ylabel("stake")
    ax.legend(frameon=False, fontsize=9)
    tidy(ax)


def value_curve(ax: Axes, sweeps: Iterable[Any], shown: Sequence[int] = (1, 2, 3)) -> None:
    """Draw the values of the gambler after some sweeps, and after the last one.

    sweeps: records with k and V. shown: the sweeps to draw besides the last.
    Source: Sutton & Barto (2018), figure 4.3 (upper panel).
    """
    kept = list(sweeps)
    kept = [x for x in kept[:-1] if x.k in shown] + kept[-1:]
    for i, x in enumerate(kept):
        final = i == len(kept) - 1
        ax.plot(
            np.arange(1, len(x.V) - 1), x.V[1:-1], color=INK if final else COLOURS[(0, 4, 3, 7, 5)[i % 5]],
            ls="-" if final else DASHES[1 + i % 4], lw=1.8, label=f"sweep {x.k}" + (" (final)" if final else ""),
        )  # fmt: skip
    ax.set_xlabel("capital")
    ax.set_ylabel("probability of reaching the goal")
    ax.legend(frameon=False, fontsize=9)
    tidy(ax)


def tidy(ax: Axes, axis: str = "both") -> None:
    """Light grid, no box, labels that can be read in a report."""
    ax.grid(axis=axis, color="#dddddd", lw=0.6)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9.5)
