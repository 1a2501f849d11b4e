"""The figures of the report: which pictures show a world best.

mdp model; V (S,), best (S,A) mask of the actions that maximise Q; curves method -> `plots.Curve`. A drawing
is a list of panels with one caption: a page shows them side by side or below each other, a file in a row.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tabrl import dp, plots
from tabrl.mdp import MDP
from tabrl.report.page import Image, Picture
from tabrl.types import B, F
from tabrl.undiscounted import free_components

BARS = 30  # states; more are drawn as a line


class Panel(NamedTuple):
    """One pair of axes."""

    draw: Callable[[Axes], None]
    width: float  # inches
    height: float
    alt: str  # what a reader who cannot see it should know


class Drawing(NamedTuple):
    """Panels that belong together."""

    panels: list[Panel]
    caption: str


def figure(panels: list[Panel]) -> Figure:
    """Draw panels side by side in one figure."""
    out = plots.new_figure(sum(p.width for p in panels), max(p.height for p in panels))
    for p, ax in zip(panels, out.subplots(1, len(panels), squeeze=False)[0], strict=True):
        p.draw(ax)
    return out


def picture(drawing: Drawing) -> Picture:
    """Render each panel; its width on the page is its size at 100 pixels per inch."""
    images = [Image(plots.image(figure([p])), p.alt, round(100 * p.width)) for p in drawing.panels]
    return Picture(images, drawing.caption)


def values(name: str, mdp: MDP, V: F, best: B) -> Drawing:
    """Show the optimal values and decisions of a world in the form that suits it."""
    if name in SPECIAL:
        return SPECIAL[name](mdp, V, best)
    if hasattr(mdp, "layout"):
        return on_grid(mdp, V, best)
    return bars(mdp, V, best) if mdp.S <= BARS else steps(mdp, V, best)


def convergence(mdp: MDP, V: F, curves: Mapping[str, plots.Curve]) -> Drawing:
    """Show value iteration in detail, and the true error of all methods."""

    def detail(ax: Axes) -> None:
        plots.convergence(ax, curves["value_iteration"], V_star=V, gamma=mdp.gamma)
        ax.set_title("value iteration", fontsize=11)

    def compare(ax: Axes) -> None:
        plots.methods(ax, curves)
        ax.set_title("all iterative methods", fontsize=11)

    panels = [Panel(compare, 4.5, 4.3, f"True error by iteration of {', '.join(curves).replace('_', ' ')}.")]
    caption = "A round of policy iteration solves a linear system, a sweep of value iteration is one backup per state. "
    if "value_iteration" in curves:
        alt = "Certified bound, true error and residual of value iteration by sweep."
        panels.insert(0, Panel(detail, 4.5, 4.3, alt))
        if np.isfinite(curves["value_iteration"].bound).any():
            caption += "The bound stays above the true error; the residual need not. "
        else:
            caption += (
                "At γ = 1 a sweep can be certified on its own only where every policy ends; the bound in the table is "
                "found at the end, from both sides. "
            )
    return Drawing(panels, caption + "A triangle at the lower edge stands for exactly 0.")


def on_grid(mdp: Any, V: F, best: B) -> Drawing:
    """Values and arrows on a grid."""
    rows, columns = mdp.shape
    cell = min(0.95, 8.6 / columns, 5.2 / rows)
    mark = "arrowhead" if plots.shows_numbers(mdp.shape) else "arrow"
    caption = f"Optimal values; one {mark} for every action that maximises Q. {legend(mdp)}"
    if mdp.gamma == 1 and free_components(mdp)[1].any():
        caption += " At γ = 1 not every choice among ties is optimal: some go in circles for ever."
    alt = f"Heat map of the optimal values on a {rows} by {columns} grid, {extent(V, mdp)}, with policy arrows."
    size = cell * columns + 0.3, cell * rows + 0.3
    return Drawing([Panel(lambda ax: plots.grid_values(ax, mdp, V, best), *size, alt)], caption)


def legend(mdp: Any) -> str:
    """Explain the marks that occur in a grid."""
    letters = "".join(mdp.layout)
    marks = {
        "G": "green: goal", "X": "orange: trap", "C": "orange: cliff", "#": "dark: wall", "S": "blue frame: start"
    }  # fmt: skip
    found = [text for letter, text in marks.items() if letter in letters]
    others = sorted({c for c in letters if c not in "GXCS#."})
    found += [f"letters {', '.join(others)}: jumps"] if others else []
    text = "; ".join(found) + "." if found else ""
    return text[:1].upper() + text[1:]


def extent(V: F, mdp: MDP) -> str:
    """Say in words between what the values lie."""
    V = V[~mdp.terminal] if not mdp.terminal.all() else V
    return f"from {V.min():.4g} to {V.max():.4g}"


def bars(mdp: MDP, V: F, best: B) -> Drawing:
    """One bar per state."""
    names = mdp.names.states or [str(s) for s in range(mdp.S)]
    states = [f"{n} (end)" if end and "end" not in n else n for n, end in zip(names, mdp.terminal, strict=True)]
    actions = mdp.names.actions or [f"action {a}" for a in range(mdp.A)]
    pi = None if mdp.A == 1 else best
    caption = "Optimal value of each state" + (", by the action that maximises Q." if mdp.A > 1 else ".")
    alt = f"Bar chart of the optimal values, {extent(V, mdp)}."
    return Drawing([Panel(lambda ax: plots.value_bars(ax, V, states, pi=pi, actions=actions), 7.2, 3.4, alt)], caption)


def steps(mdp: MDP, V: F, best: B) -> Drawing:
    """A line over the numbers of the states."""
    alt = f"Optimal values of {mdp.S} states, {extent(V, mdp)}."
    panel = Panel(lambda ax: plots.value_steps(ax, V, xlabel="state number"), 7.2, 3.4, alt)
    return Drawing([panel], "Optimal value of each state.")


def gambler(mdp: MDP, V: F, best: B) -> Drawing:
    """Values by sweep, and every optimal stake."""
    panels = [
        Panel(
            lambda ax: plots.value_curve(ax, dp.value_iteration(mdp), shown=(1, 2, 3)), 4.5, 3.6,
            "Value by capital after sweeps 1, 2, 3 and the last.",
        ),
        Panel(lambda ax: plots.policy_steps(ax, best), 4.5, 3.6, "Optimal stakes by capital."),
    ]  # fmt: skip
    return Drawing(panels, "Values during value iteration, and the optimal stakes: the policy is not unique.")


def car_rental(mdp: MDP, V: F, best: B) -> Drawing:
    """Net number of cars moved, and values, by the cars at both locations."""
    n = round(mdp.S**0.5)
    moved = np.array([int(name) for name in mdp.names.actions])[best.argmax(axis=1)].reshape(n, n)

    def policy(ax: Axes) -> None:
        plots.policy_contour(ax, moved)
        by_cars(ax, "cars moved from 1 to 2 overnight", n)

    def value(ax: Axes) -> None:
        plots.value_contour(ax, V.reshape(n, n))
        by_cars(ax, "optimal value", n)

    panels = [
        Panel(policy, 4.2, 4.3, f"Regions of the optimal number of cars moved, from {moved.max()} to {moved.min()}."),
        Panel(value, 4.7, 4.3, f"Optimal values by the cars at both locations, {extent(V, mdp)}."),
    ]
    return Drawing(panels, "The optimal policy and its values; a negative number moves cars from location 2 to 1.")


def by_cars(ax: Axes, title: str, n: int) -> None:
    """Name the axes of a picture by cars at both locations."""
    ax.set_title(title, fontsize=11)
    ax.set_xlabel("cars at location 2")
    ax.set_ylabel("cars at location 1")
    ax.set_xticks(range(0, n, 5))
    ax.set_yticks(range(0, n, 5))


def blackjack(mdp: MDP, V: F, best: B) -> Drawing:
    """Values with the decision to hit or stick, with and without a usable ace."""
    V = V[:200].reshape(10, 10, 2)[::-1]
    hit = best[:200, 1].reshape(10, 10, 2)[::-1]

    def hands(ax: Axes, usable: int) -> None:
        totals, cards = [str(t) for t in range(21, 11, -1)], ["A", *map(str, range(2, 11))]
        plots.table(ax, V[:, :, usable], totals, cards, spec="z.2f")
        plots.borders(ax, hit[:, :, usable], colour=plots.COLOURS[1], width=3.0)
        ax.set_title("usable ace" if usable else "no usable ace", fontsize=11)
        ax.set_xlabel("dealer's card")
        ax.set_ylabel("player's sum")

    panels = [
        Panel(lambda ax, u=u: hands(ax, u), 4.5, 4.6, f"Optimal value by player's sum and dealer's card, {ace}.")  # type: ignore[misc]
        for u, ace in ((1, "with a usable ace"), (0, "without a usable ace"))
    ]
    return Drawing(panels, "Optimal values; the red line parts the hands that hit (low sums) from those that stick.")


def taxi(mdp: MDP, V: F, best: B) -> Drawing:
    """Values over the 5 by 5 map with the passenger aboard, one map per destination."""
    V = V[:500].reshape(5, 5, 5, 4)

    def map_to(ax: Axes, k: int) -> None:
        plots.table(ax, V[:, :, 4, k], [""] * 5, [""] * 5)
        ax.set_title(f"to stand {'RGYB'[k]}", fontsize=11)

    panels = [
        Panel(lambda ax, k=k: map_to(ax, k), 2.2, 2.5, f"Optimal values on the map, the passenger going to {to}.")  # type: ignore[misc]
        for k, to in enumerate("RGYB")
    ]
    return Drawing(
        panels, "Optimal value by place of the taxi, the passenger aboard, for each destination (100 of 500 states)."
    )


SPECIAL: dict[str, Callable[[MDP, F, B], Drawing]] = {
    "gambler": gambler,
    "car-rental": car_rental,
    "blackjack": blackjack,
    "taxi": taxi,
}
