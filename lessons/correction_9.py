"""Correction 9: which policies are optimal.

"A policy is optimal if and only if it takes the maximising action" is wrong twice, and at gamma = 1 three times:

1. Any mixture of tied maximising actions is optimal too.
2. J = sum of mu(s) V(s) sees only the states that are visited. Elsewhere a policy may do anything: it still
   has the largest J, but no longer V_pi = V* in every state.
3. At gamma = 1 the other direction fails: a policy can take a maximising action everywhere and never end.

The experiment runs on a small grid, and every statement is exact: values are fractions, not floats.
"""

from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import bellman, rational
from tabrl.envs import GridWorld, grid
from tabrl.mdp import MDP
from tabrl.types import B, F

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = """
....G
.##.#
.....
S....
"""


class Finding(NamedTuple):
    """What one policy is worth."""

    name: str
    pi: F  # (S,A)
    J: Fraction  # mu . V_pi
    loss: list[Fraction]  # V_star - V_pi of each state
    visited: B  # (S,) reached from mu under pi


def world() -> GridWorld:
    """A grid without chance: start bottom left, goal top right, every step costs 1.

    >>> world()
    GridWorld(S=17, A=4, gamma=0.9, 1 terminal, dense)
    """
    return grid(GRID, step=-1.0, rewards={"G": -1.0}, gamma=0.9)


def maximising(mdp: MDP) -> B:
    """Maximising actions of each state, exactly: (S,A) mask of Q* = V*."""
    V = optimal_values(mdp)
    Q = rational.action_values(rational.tables(mdp), V)
    return np.array([[mdp.legal[s, a] and q == max(row) for a, q in enumerate(row)] for s, row in enumerate(Q)])


def optimal_values(mdp: MDP) -> rational.Row:
    """V* in fractions, by policy iteration: V_pi = T V_pi exactly at the end, which proves it.

    >>> float(optimal_values(MDP([[[1.0], [1.0]]], [[1, 3]], 0.5))[0])
    6.0
    """
    t = rational.tables(mdp)
    actions = [0] * mdp.S
    while True:
        V = rational.policy_values(t, np.eye(mdp.A)[actions])
        Q = rational.action_values(t, V)
        better = [row.index(max(row)) if max(row) > row[a] else a for row, a in zip(Q, actions, strict=True)]
        if better == actions:
            return V
        actions = better


def one_each(best: B) -> F:
    """The textbook's policy: the first maximising action of each state."""
    return bellman.one_hot(best.argmax(axis=1), best.shape[1])


def mixed(best: B) -> F:
    """Equal weight on all maximising actions."""
    return np.asarray(best / best.sum(axis=1, keepdims=True))


def careless(mdp: MDP, best: B) -> F:
    """One maximising action where that leads from mu, and one that is not maximising everywhere else."""
    pi = one_each(best)
    spoilt = np.where(mdp.legal & ~best, 1.0, 0.0)
    free = ~visited(mdp, pi) & (spoilt.sum(axis=1) > 0)
    pi[free] = np.eye(mdp.A)[spoilt[free].argmax(axis=1)]
    return pi


def visited(mdp: MDP, pi: F) -> B:
    """States that a policy reaches from mu."""
    P, _ = rational.induced(rational.tables(mdp), pi)
    reached = set[int]().union(*(rational.descendants(P, s) for s in np.flatnonzero(mdp.mu).tolist()))
    return np.isin(np.arange(mdp.S), sorted(reached))


def find(mdp: MDP, name: str, pi: F) -> Finding:
    """Evaluate a policy exactly, and compare it with V*."""
    V, V_star = rational.exact_policy_values(mdp, pi), optimal_values(mdp)
    loss = [best - v for best, v in zip(V_star, V, strict=True)]
    return Finding(name, pi, rational.dot(rational.exact(mdp.mu), V), loss, visited(mdp, pi))


def experiment(mdp: MDP | None = None) -> list[Finding]:
    """Return the three policies side by side.

    >>> for x in experiment():
    ...     print(f"{x.name}: J = {float(x.J):.4f}, {sum(y > 0 for y in x.loss)} states below V*")
    one maximising action: J = -5.2170, 0 states below V*
    all maximising actions, mixed: J = -5.2170, 0 states below V*
    anything where it never goes: J = -5.2170, 9 states below V*
    """
    mdp = world() if mdp is None else mdp
    best = maximising(mdp)
    policies = {
        "one maximising action": one_each(best),
        "all maximising actions, mixed": mixed(best),
        "anything where it never goes": careless(mdp, best),
    }
    return [find(mdp, name, pi) for name, pi in policies.items()]


def waiting_room() -> MDP:
    """One state at gamma = 1: wait for free, or leave for 1. Both actions have Q* = 1."""
    P = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    return MDP(P, np.array([[0.0, 1.0], [0.0, 0.0]]), 1.0, terminal=np.array([False, True]))


def waiting() -> tuple[Fraction, Fraction]:
    """V* of the waiting room, and the value of the maximising policy that waits for ever.

    >>> [int(v) for v in waiting()]
    [1, 0]
    """
    mdp = waiting_room()
    return rational.brute_force(mdp)[0], rational.exact_policy_values(mdp, [[1, 0], [1, 0]])[0]


def figure(fig: "Figure") -> None:
    """Draw the three policies side by side; fig: an empty figure, about 13 by 4 inches, layout "constrained"."""
    from matplotlib.colors import Normalize

    mdp = world()
    found = experiment(mdp)
    scale = Normalize(0.0, max(float(max(x.loss)) for x in found))
    axes = fig.subplots(1, len(found))
    for ax, finding in zip(axes, found, strict=True):
        draw(ax, mdp, finding, scale)
    image = axes[-1].images[0]
    fig.colorbar(image, ax=axes, label="loss V* − V of the state", shrink=0.8)


def draw(ax: "Axes", mdp: GridWorld, x: Finding, scale: object) -> None:
    """Draw one policy: colour is the loss, arrows are the actions taken, rings the states visited from S."""
    loss = mdp.on_grid(np.array([float(y) for y in x.loss]))
    ax.set_facecolor("0.25")
    ax.imshow(loss, cmap="Oranges", norm=scale)  # type: ignore[arg-type]
    for s, a in zip(*np.nonzero(x.pi * ~mdp.terminal[:, None]), strict=True):
        (i, j), (down, right) = mdp.cell[s], mdp.moves[a]
        colour = "white" if x.loss[s] > float(scale.vmax) / 2 else "black"  # type: ignore[attr-defined]
        ax.annotate(
            "", (j + 0.45 * right, i + 0.45 * down), (j, i), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.5}
        )
    for s in np.flatnonzero(x.visited):
        i, j = mdp.cell[s]
        ax.plot(j, i, "o", ms=26, mfc="none", mec="tab:blue", mew=2)
    for s, letter in ((int(mdp.mu.argmax()), "S"), (int(mdp.terminal.argmax()), "G")):
        ax.text(mdp.cell[s, 1] - 0.42, mdp.cell[s, 0] - 0.25, letter, fontweight="bold")
    worse = sum(y > 0 for y in x.loss)
    ax.set_title(f"{x.name}\nJ = {float(x.J):.4f}, below V* in {worse} states", fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])


def main() -> None:
    """Print the findings."""
    for x in experiment():
        worse = sum(y > 0 for y in x.loss)
        print(f"{x.name:32} J = {float(x.J):.6f}   V below V* in {worse:2} of {len(x.loss)} states")
    best, value = waiting()
    print(f"at gamma = 1: V* = {best}, but a maximising policy that waits for ever has V = {value}")


if __name__ == "__main__":
    main()
