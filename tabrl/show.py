"""A solution as text on a console.

V (S,) values; pi (S,A) policy.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from tabrl.mdp import MDP
from tabrl.types import F, Solution

if TYPE_CHECKING:
    from rich.console import Console

HEAD = 20  # states that are listed; of more, the first ones and a summary
WIDEST = 20  # columns of a grid that is printed as a grid
ARROWS = {(-1, 0): "↑", (0, 1): "→", (1, 0): "↓", (0, -1): "←", (0, 0): "·",
          (-1, 1): "↗", (1, 1): "↘", (1, -1): "↙", (-1, -1): "↖"}  # fmt: skip


def show(console: "Console", name: str, mdp: MDP, solution: Solution) -> None:
    """Print what was solved, how well, and the values: as a grid, or as a list of states."""
    console.print(f"{name}: {mdp!r}", soft_wrap=True)
    facts = Table(box=None, show_header=False, pad_edge=False)
    for key, value in (
        ("method", solution.method),
        ("iterations", f"{solution.iterations:,}"),
        ("bound", f"{solution.bound:.3g}  certified max |V - V*|" if math.isfinite(solution.bound) else "none"),
        ("policy loss", f"{solution.policy_loss_bound:.3g}  certified max (V* - V_pi)"
         if math.isfinite(solution.policy_loss_bound) else "none"),
        ("status", solution.status),
        ("start value", f"{float(mdp.mu @ solution.V):.10g}  mu · V"),
    ):  # fmt: skip
        facts.add_row(key, value)
    console.print(facts)
    console.print()
    if hasattr(mdp, "layout") and len(mdp.layout[0]) <= WIDEST and len(mdp.layout) <= 2 * WIDEST:
        console.print(grid(mdp, solution))
    else:
        states(console, mdp, solution)


def grid(mdp: MDP, solution: Solution) -> Table:
    """Values and one action per cell; a cell without a state shows its letter."""
    layout, moves = mdp.layout, [tuple(m) for m in mdp.moves.tolist()]  # type: ignore[attr-defined]
    cells = [list(row) for row in layout]
    for s, (i, j) in enumerate(mdp.cell.tolist()):  # type: ignore[attr-defined]
        arrow = ARROWS.get(moves[int(solution.pi[s].argmax())], "")
        cells[i][j] = layout[i][j] if mdp.terminal[s] else f"{number(solution.V[s])} {arrow}"
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in layout[0]:
        table.add_column(justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def states(console: "Console", mdp: MDP, solution: Solution) -> None:
    """Value and action of each state, or of the first ones with a summary of all."""
    table = Table(box=None, pad_edge=False)
    table.add_column("state", no_wrap=True)
    table.add_column("V", justify="right", no_wrap=True)
    table.add_column("action", no_wrap=True)
    for s in range(min(mdp.S, HEAD)):
        a = int(solution.pi[s].argmax())
        action = "terminal" if mdp.terminal[s] else label(mdp.names.actions, a)
        table.add_row(label(mdp.names.states, s), f"{solution.V[s]:.10g}", action)
    console.print(table)
    if mdp.S > HEAD:
        console.print(f"… {mdp.S - HEAD:,} more states; {summary(solution.V)}")


def label(names: tuple[str, ...], i: int) -> str:
    """Name of a state or action, or its number."""
    return names[i] if names else str(i)


def summary(V: F) -> str:
    """Smallest, middle and largest value."""
    return f"V from {V.min():.6g} to {V.max():.6g}, median {np.median(V):.6g}"


def number(x: float) -> str:
    """Short text of a value; no minus before a zero."""
    return f"{x + 0.0:.4g}"
