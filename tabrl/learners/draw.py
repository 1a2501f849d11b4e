"""Figures of what was learned, written to a file: errors over time, exact returns over time.

t transitions; J expected return from the start distribution; a figure appears whole or not at all.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tabrl.learners.judged import Acting, Improved, Valued
from tabrl.output import write
from tabrl.plots import image, new_figure
from tabrl.plots.runs import finish, learning_curve
from tabrl.types import F, I


def draw_errors(path: str, title: str, times: I, x: Valued) -> None:
    """Draw the RMS error of every run and its mean, the exact expectation and the exact limit.

    The axis reaches to 1.3 times the error of V = 0, or further where the middle of the mean curve needs it, up to
    four times that error.
    """
    first = float((x.V_pi[~x.mdp.terminal] ** 2).mean())
    with np.errstate(over="ignore", invalid="ignore"):
        middle = float(np.nan_to_num(np.median(x.squares.mean(axis=1)), nan=np.inf))
    known = 0.0 if x.expected is None else float(x.expected.max())
    largest = max(first, min(middle, 16 * first), known, x.floor or 0.0)
    high = 1.3 * math.sqrt(largest) if 0 < largest < math.inf else 1.0
    lines = {} if x.floor is None else {"exact limit at this step size": math.sqrt(x.floor)}
    expected = None if x.expected is None else np.sqrt(x.expected)
    figure, ax = canvas(title)
    learning_curve(ax, times, x.squares, ylabel="RMS error of V", window=(0.0, high), root=True, exact=expected,
                   lines=lines)  # fmt: skip
    save(path, figure)


def draw_worth(path: str, title: str, times: I, x: Acting) -> None:
    """Draw the exact return of the acting policy over time, below the best returns there are."""
    lines = {"J*": x.star.J}
    if x.eps > 0:
        lines[f"best {x.eps:g}-soft policy"] = x.star.J_eps
    figure, ax = canvas(title)
    learning_curve(
        ax, times, x.curve, ylabel="exact return J of the acting policy", lines=lines,
        window=window(x.curve, x.star.J, x.star.J_eps),
    )  # fmt: skip
    save(path, figure)


def draw_policies(path: str, title: str, times: I, x: Improved) -> None:
    """Draw the exact return of the softmax policies over time, from the uniform one on, below the best there is."""
    figure, ax = canvas(title)
    first = np.full((1, x.curve.shape[1]), x.start)
    learning_curve(
        ax, np.append(0, times), np.vstack([first, x.curve]), ylabel="exact return J of the softmax policy",
        lines={"J*": x.J_star}, window=from_start(x.curve, x.J_star, x.start),
    )  # fmt: skip
    save(path, figure)


def from_start(curve: F, top: float, start: float) -> tuple[float, float]:
    """Axis from the optimum down to the first policy; if that one loses ten times |J*|, to where nine in ten runs end.

    >>> from_start(np.array([[0.0]]), 10.0, -40.0)
    (-43.0, 13.0)
    """
    room = top - start
    if not 0 < room <= 10 * abs(top):
        last = curve[-1][np.isfinite(curve[-1])]
        low, _ = window(curve, top, float(np.quantile(last, 0.1)) if last.size else top)
        room = (top - low) / 1.06
    return top - 1.06 * room, top + 0.06 * room


def window(curve: F, top: float, soft: float) -> tuple[float, float]:
    """Axis from a little above the optimum down to four times the distance of the median of the late policies.

    curve: (K,runs). top, soft: J of the best policy, and of the best one that explores.
    """
    unit, late = max(1.0, abs(top)), curve[3 * len(curve) // 4 :]
    late = late[np.isfinite(late)]
    if late.size:
        low = max(top - 4 * (top - min(float(np.median(late)), soft)), float(curve[np.isfinite(curve)].min()))
    else:
        low = top - unit
    room = max(top - min(low, soft), 0.02 * unit)
    return top - 1.06 * room, top + 0.06 * room


def draw_returns(path: str, title: str, runs: list[list[float]]) -> None:
    """Draw the return of the episodes of every run, averaged over a window of a twentieth of them."""
    figure, ax = canvas(f"{title}: no exact values, the environment has no model")
    for run in runs:
        k = max(1, len(run) // 20)
        if run:
            ax.plot(np.arange(k, len(run) + 1), np.convolve(run, np.ones(k) / k, "valid"), lw=0.8, alpha=0.7)
    ax.set_ylabel(f"return, moving average ({len(runs)} runs)")
    finish(ax, "episode")
    save(path, figure)


def canvas(title: str) -> tuple[Any, Any]:
    """A figure with one pair of axes."""
    figure = new_figure(7.0, 4.6)
    ax = figure.add_subplot()
    ax.set_title(title, fontsize=11)
    return figure, ax


def save(path: str, figure: Any) -> None:
    """Write a figure."""
    write(path, image(figure, kind=Path(path).suffix[1:]))
