"""The two pictures of benchmarks/dp.py: time against the number of states, and against 1 / (1 - gamma).

A point is the median of as many solves as fit into ENOUGH, 1 to 15; a line ends where a solve would take longer than
PATIENCE.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tabrl.plots import COLOURS, MARKERS, image, new_figure

GRIDS = {"auto": "tabrl", "quantecon-mpi": "QuantEcon", "storm-vi": "Storm"}
ROOMS = {"auto": "tabrl", "quantecon-mpi5": "QuantEcon", "storm-discounted": "Storm"}
SIDES = (32, 56, 100, 178, 316, 562, 1000, 1778)  # 10^3 … 10^6.5 states
GAMMAS = (0.9, 0.97, 0.99, 0.997, 0.999, 0.9997, 0.9999)
PATIENCE = 60.0  # seconds
ENOUGH = 5.0  # seconds

Run = Callable[..., dict[str, Any]]
Curves = dict[tuple[str, float], list[tuple[float, float]]]  # (solver, gamma) -> (x, seconds)


def plots(folder: Path, run: Run) -> None:
    """Measure and draw both pictures."""
    scaling(folder / "scaling.png", grids(run))
    growth(folder / "two_rooms.png", rooms(run))


def grids(run: Run) -> Curves:
    """Seconds on the slippery grid for each solver and gamma, against its states."""
    return {
        (solver, gamma): list(points(run, solver, [(float(n * n), f"grid:{n}:{gamma}") for n in SIDES]))
        for gamma in (0.99, 0.999)
        for solver in GRIDS
    }


def rooms(run: Run) -> Curves:
    """Seconds on two rooms for each solver, against 1 / (1 - gamma)."""
    models = [(1 / (1 - gamma), f"rooms:{gamma}") for gamma in GAMMAS]
    return {(solver, 0.0): list(points(run, solver, models)) for solver in ROOMS}


def points(run: Run, solver: str, models: list[tuple[float, str]]) -> Iterator[tuple[float, float]]:
    """Measure one line, until a point would take too long, as the growth of the last two says."""
    seen: list[float] = []
    for x, model in models:
        growth = seen[-1] / seen[-2] if len(seen) > 1 else 2.0
        if seen and seen[-1] * max(growth, 1.0) > PATIENCE:
            return
        runs = max(1, min(15, int(ENOUGH / seen[-1]))) if seen else 15
        found = run(model, solver, runs, None, 4 * PATIENCE)
        print(f"  {model:16} {solver:16} {found.get('failed') or found['median']}", flush=True)
        if "failed" in found:
            return
        seen.append(found["median"])
        yield x, seen[-1]


def scaling(path: Path, curves: Curves) -> None:
    """Draw one panel for each gamma."""
    figure = new_figure(8.4, 4.0)
    panels = figure.subplots(1, 2, sharey=True)
    for ax, gamma in zip(panels, (0.99, 0.999), strict=True):
        draw(ax, {GRIDS[solver]: line for (solver, g), line in curves.items() if g == gamma})
        ax.set(xlabel="states", title=rf"slippery grid, $\gamma$ = {gamma:g}", xlim=(700, 5e6))
    panels[0].set_ylabel(r"seconds to $10^{-6}$")
    path.write_bytes(image(figure))


def growth(path: Path, curves: Curves) -> None:
    """Draw time against the horizon."""
    figure = new_figure(6.0, 4.0)
    ax = figure.add_subplot()
    draw(ax, {ROOMS[solver]: line for (solver, _), line in curves.items()})
    ax.set(xlabel=r"$1 / (1 - \gamma)$", ylabel=r"seconds to $10^{-6}$", title="two rooms, 80,001 states")
    path.write_bytes(image(figure))


def draw(ax: Any, lines: dict[str, list[tuple[float, float]]]) -> None:
    """Draw lines on logarithmic axes; the legend gives the slope over the last three points."""
    for i, (name, line) in enumerate(lines.items()):
        x, y = zip(*line, strict=True) if line else ((), ())
        if len(x) > 2:
            slope = math.log(y[-1] / y[-3]) / math.log(x[-1] / x[-3])
            name += f" (slope {round(slope, 1) + 0.0:.1f})"  # + 0.0: no minus before 0
        ax.loglog(x, y, label=name, color=COLOURS[(1, 0, 3)[i]], marker=MARKERS[i], markersize=5)
    ax.legend(frameon=False, loc="upper left")
    ax.grid(True, which="major", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
