"""The figures of the report: which picture shows a world best.

mdp model; V (S,), best (S,A) mask of the actions that maximise Q; curves method -> `plots.Curve`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tabrl import dp, plots
from tabrl.mdp import MDP
from tabrl.report_page import Picture
from tabrl.types import B, F

BARS = 30  # states; more are drawn as a line


def picture(figure: Figure, alt: str, caption: str) -> Picture:
    """Render a figure; its width on the page follows its size in inches."""
    return Picture(plots.image(figure), alt, caption, width=round(100 * figure.get_size_inches()[0]))


def values(name: str, mdp: MDP, V: F, best: B) -> Picture:
    """Draw the optimal values and decisions of a world in the form that suits it."""
    if name in SPECIAL:
        return SPECIAL[name](mdp, V, best)
    if hasattr(mdp, "layout"):
        return on_grid(mdp, V, best)
    return bars(mdp, V, best) if mdp.S <= BARS else steps(mdp, V, best)


def convergence(mdp: MDP, V: F, curves: Mapping[str, plots.Curve]) -> Picture:
    """Draw value iteration in detail beside the true error of all methods."""
    figure = plots.new_figure(9.4, 3.7)
    left, right = figure.subplots(1, 2)
    if "value_iteration" in curves:
        plots.convergence(left, curves["value_iteration"], V_star=V, gamma=mdp.gamma)
    left.set_title("value iteration", fontsize=11)
    plots.methods(right, curves)
    right.set_title("all iterative methods", fontsize=11)
    alt = (
        "Left: certified bound, true error and residual of value iteration by sweep. Right: true error by iteration of "
    )
    caption = (
        "Left: the certified bound stays above the true error; the residual alone does not show how far V is from V*. "
        "Right: iterations differ in cost (a round of policy iteration solves a linear system). "
        "A triangle at the lower edge is an error of exactly 0."
    )
    return picture(figure, alt + ", ".join(n.replace("_", " ") for n in curves) + ".", caption)


def on_grid(mdp: Any, V: F, best: B) -> Picture:
    """Values and arrows on a grid."""
    rows, columns = mdp.shape
    cell = min(0.95, 8.6 / columns, 5.2 / rows)
    figure = plots.new_figure(cell * columns + 0.3, cell * rows + 0.3)
    plots.grid_values(figure.add_subplot(), mdp, V, best)
    caption = "Optimal values; a head or arrow for every action that maximises Q. " + legend(mdp)
    alt = f"Heat map of the optimal values on a {rows} by {columns} grid, {extent(V, mdp)}, with policy arrows."
    return picture(figure, alt, caption)


def legend(mdp: Any) -> str:
    """Explain the marks that occur in a grid."""
    letters = "".join(mdp.layout)
    marks = {
        "G": "green: goal", "X": "orange: trap", "C": "orange: cliff", "#": "dark: wall", "S": "blue frame: start"
    }  # fmt: skip
    found = [text for letter, text in marks.items() if letter in letters]
    others = sorted({c for c in letters if c not in "GXCS#."})
    found += [f"letters {', '.join(others)}: jumps"] if others else []
    return ("; ".join(found) + ".").capitalize() if found else ""


def extent(V: F, mdp: MDP) -> str:
    """Say in words between what the values lie."""
    V = V[~mdp.terminal]
    return f"from {V.min():.4g} to {V.max():.4g}"


def bars(mdp: MDP, V: F, best: B) -> Picture:
    """One bar per state."""
    figure = plots.new_figure(7.2, 3.4)
    ax = figure.add_subplot()
    states = [f"{n} (end)" if end else n for n, end in zip(named(mdp), mdp.terminal, strict=True)]
    pi = None if mdp.A == 1 else best
    plots.value_bars(ax, V, states, pi=pi, actions=mdp.names.actions or [f"action {a}" for a in range(mdp.A)])
    caption = "Optimal value of each state" + (", by the action that maximises Q." if mdp.A > 1 else ".")
    return picture(figure, f"Bar chart of the optimal values, {extent(V, mdp)}.", caption)


def named(mdp: MDP) -> list[str]:
    """Short names of the states."""
    return [n.removesuffix(" end") for n in mdp.names.states] or [str(s) for s in range(mdp.S)]


def steps(mdp: MDP, V: F, best: B) -> Picture:
    """A line over the numbers of the states."""
    figure = plots.new_figure(7.2, 3.4)
    plots.value_steps(figure.add_subplot(), V, xlabel="state number")
    return picture(figure, f"Optimal values of {mdp.S} states, {extent(V, mdp)}.", "Optimal value of each state.")


def gambler(mdp: MDP, V: F, best: B) -> Picture:
    """Values by sweep, and every optimal stake."""
    figure = plots.new_figure(9.4, 3.7)
    left, right = figure.subplots(1, 2)
    plots.value_curve(left, dp.value_iteration(mdp), shown=(1, 2, 3))
    plots.policy_steps(right, best)
    left.set_title("value iteration", fontsize=11)
    right.set_title("optimal stakes", fontsize=11)
    caption = "Left: the probability of reaching the goal after some sweeps. Right: the policy is not unique."
    return picture(figure, "Two line charts: value by capital for several sweeps; optimal stakes by capital.", caption)


def car_rental(mdp: MDP, V: F, best: B) -> Picture:
    """Net number of cars moved, and values, by the cars at both locations."""
    n = round(mdp.S**0.5)
    figure = plots.new_figure(9.4, 4.3)
    left, right = figure.subplots(1, 2)
    cars = np.array([int(name) for name in mdp.names.actions])
    plots.policy_contour(left, cars[best.argmax(axis=1)].reshape(n, n))
    drawn = right.imshow(V.reshape(n, n), cmap="cividis", origin="lower")
    lines = right.contour(V.reshape(n, n), levels=8, colors="white", linewidths=0.8)
    right.clabel(lines, fontsize=8, fmt="%.0f")
    figure.colorbar(drawn, ax=right, shrink=0.85)
    for ax, title in ((left, "cars moved from 1 to 2 overnight"), (right, "optimal value")):
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("cars at location 2")
        ax.set_ylabel("cars at location 1")
        ax.set_xticks(range(0, n, 5))
        ax.set_yticks(range(0, n, 5))
    alt = f"Left: regions of the optimal number of cars moved, from 5 to -4. Right: optimal values, {extent(V, mdp)}."
    return picture(figure, alt, "Left: the optimal policy; a negative number moves cars from location 2 to 1.")


def blackjack(mdp: MDP, V: F, best: B) -> Picture:
    """Values with the decision to hit or stick, with and without a usable ace."""
    figure = plots.new_figure(9.4, 5.0)
    cards = ["A", *map(str, range(2, 11))]
    totals = [str(t) for t in range(21, 11, -1)]
    V = V[:200].reshape(10, 10, 2)[::-1]
    hit = best[:200, 1].reshape(10, 10, 2)[::-1]
    for usable, ax in zip((1, 0), figure.subplots(1, 2), strict=True):
        plots.table(ax, V[:, :, usable], totals, cards, places=2)
        plots.borders(ax, hit[:, :, usable], colour=plots.COLOURS[1], width=3.0)
        ax.set_title("usable ace" if usable else "no usable ace", fontsize=11)
        ax.set_xlabel("dealer's card")
        ax.set_ylabel("player's sum")
    alt = "Two tables of the optimal value by player's sum and dealer's card, with and without a usable ace."
    return picture(
        figure, alt, "Optimal values; inside the white outline the optimal action is to hit, outside to stick."
    )


def taxi(mdp: MDP, V: F, best: B) -> Picture:
    """Values over the 5 by 5 map with the passenger aboard, one map per destination."""
    figure = plots.new_figure(9.4, 2.9)
    V = V[:500].reshape(5, 5, 5, 4)
    for k, ax in enumerate(figure.subplots(1, 4)):
        plots.table(ax, V[:, :, 4, k], [""] * 5, [""] * 5)
        ax.set_title(f"to stand {'RGYB'[k]}", fontsize=11)
    alt = "Four 5 by 5 maps of the optimal value with the passenger in the taxi, one per destination."
    caption = "Optimal value by place of the taxi, the passenger aboard, one map per destination (100 of 500 states)."
    return picture(figure, alt, caption)


SPECIAL: dict[str, Callable[[MDP, F, B], Picture]] = {
    "gambler": gambler,
    "car-rental": car_rental,
    "blackjack": blackjack,
    "taxi": taxi,
}
