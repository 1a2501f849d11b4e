"""Correction 4: where returns are discounted, so is J, and its gradient weighs step t by gamma^t.

J written as the expected sum of rewards, beside returns and TD errors that discount, leaves open what is maximised. For

    J = E[sum of gamma^t r_t],   grad J = E[sum of gamma^t grad log pi(a_t|s_t) A(s_t,a_t)]

Without gamma^t every visit counts the same: states weigh n(s), their undiscounted visits, in place of the discounted
d(s). Four things follow, and all are exact here:

1. Late rooms weigh too much, by up to gamma^-t, so that the direction is another one the longer the model is.
2. With a table, one row of preferences for each state, this does no harm: every row keeps its direction, so that J
   still rises. Late rooms are learnt sooner, and that can even help: the right ascent sits on a plateau, the usual one
   leaves it. This is why most programs leave gamma^t out.
3. Where states share preferences it can do all the harm there is: the right ascent ends at 1, the usual one at
   c gamma^(L-1), which is as small as L is large.
4. It is the gradient of no function: its Jacobian is not symmetric.

The experiment runs on a corridor, and on a fork in time between what pays early and what pays late.

theta (S,A); L rooms; w the discount of the scores, gamma or 1; p chance of "late".
"""

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import dp, sample
from tabrl.chain import evaluate, induce, occupancy
from tabrl.gradient import at, objective, policy_gradient, usual_gradient, visit_counts
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.policy import through_pi
from tabrl.summary import standard_error
from tabrl.types import F, Names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAMMA, LATE, RUNS, SEED, BATCH = 0.9, 2.0, 20, 4, 32
LENGTHS, UPDATES, ETA = (2, 4, 6, 8, 12, 16), 150, 1.0
DIRECTIONS = {"right": policy_gradient, "usual": usual_gradient}


class Found(NamedTuple):
    """What the experiment gives."""

    visits: dict[str, F]  # (rooms,runs) discounted and plain visits per episode
    path: dict[str, F]  # (updates+1,runs) J of sampled learners on the fork, L = 12
    ends: dict[str, F]  # (lengths,runs) their last J, over LENGTHS


def corridor(L: int = 8, gamma: float = GAMMA) -> MDP:
    """L rooms: back or on by one, each works with probability .9; back pays .02, leaving the last room 1.

    >>> corridor()
    MDP(S=9, A=2, gamma=0.9, 1 terminal, dense)
    """
    P, R, i = np.zeros((L + 1, 2, L + 1)), np.zeros((L + 1, 2, L + 1)), np.arange(L)
    P[i, :, i] = 0.1
    P[i, 0, np.maximum(i - 1, 0)] += 0.9
    P[i, 1, i + 1] = 0.9
    R[:L, 0], R[L - 1, 1, L] = 0.02, 1.0
    return MDP(P, R, gamma, mu=np.eye(L + 1)[0], terminal=np.arange(L + 1) == L, names=names(L, "back", "on"))


def fork(L: int = 12) -> MDP:
    """L rooms, one after the other whatever is done; "early" pays 1 in the first, "late" pays 2 in the last.

    >>> [round(objective(fork(), shared(fork(), x)), 4) for x in (-30.0, 30.0)]
    [1.0, 0.6276]
    """
    P, R, i = np.zeros((L + 1, 2, L + 1)), np.zeros((L + 1, 2)), np.arange(L)
    P[i, :, i + 1] = 1.0
    R[0, 0], R[L - 1, 1] = 1.0, LATE
    return MDP(P, R, GAMMA, mu=np.eye(L + 1)[0], terminal=np.arange(L + 1) == L, names=names(L, "early", "late"))


def names(L: int, *actions: str) -> Names:
    """Labels of rooms and actions."""
    return Names((*(str(k) for k in range(L)), "end"), actions)


def shared(mdp: MDP, x: float) -> F:
    """Preferences (S,2) that all rooms share: x for "late", 0 for "early"."""
    return np.tile([0.0, x], (mdp.S, 1))


def cosine(a: F, b: F) -> float:
    """Cosine of the angle between two tables."""
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def angle(L: int, gamma: float) -> float:
    """Cosine between the usual and the right gradient in the corridor, both actions at even odds.

    >>> [round(angle(L, 0.9), 3) for L in (2, 4, 8, 12)]
    [0.999, 0.992, 0.906, 0.454]
    """
    mdp = corridor(L, gamma)
    theta = np.zeros((mdp.S, 2))
    return cosine(policy_gradient(mdp, theta), usual_gradient(mdp, theta))


def table_ascent(name: str, L: int = 12, updates: int = 200, length: float = 0.2) -> F:
    """J in the corridor after 0, 1, … steps of one length along the right or the usual direction, (updates+1,)."""
    mdp = corridor(L)
    theta, J = np.zeros((mdp.S, 2)), []
    for _ in range(updates + 1):
        J.append(objective(mdp, theta))
        g = DIRECTIONS[name](mdp, theta)
        theta = theta + length * g / np.sqrt((g**2).sum())
    return np.array(J)


def fork_ascent(name: str, L: int, updates: int = UPDATES) -> F:
    """J on the fork after 0, 1, … exact updates of the shared preference, (updates+1,).

    In closed form, p = 1/(1 + exp(-x)):

        J = (1-p) + c gamma^(L-1) p,   right  dJ/dx = p (1-p) (c gamma^(L-1) - 1),   usual  p (1-p) (c - 1)

    >>> fork_ascent("right", 12)[-1].round(2), fork_ascent("usual", 12)[-1].round(2)
    (np.float64(0.99), np.float64(0.63))
    """
    mdp, x, J = fork(L), 0.0, []
    for _ in range(updates + 1):
        J.append(objective(mdp, shared(mdp, x)))
        x += ETA * float(DIRECTIONS[name](mdp, shared(mdp, x))[:, 1].sum())
    return np.array(J)


def estimates(L: int, x: F, w: float, batch: int, rng: np.random.Generator) -> F:
    """REINFORCE on the fork with the exact values as baseline: mean over a batch of sum of w^t psi_t (G_t - V_t).

    x: (runs,) shared preferences. Returns (runs,). w = gamma estimates the right derivative, w = 1 the usual one.
    """
    p = 1 / (1 + np.exp(-x))[:, None, None]
    late = rng.random((len(x), batch, L)) < p
    r = np.zeros(late.shape)
    r[..., 0], r[..., -1] = ~late[..., 0], LATE * late[..., -1]
    mean = np.zeros((len(x), L))
    mean[:, 0], mean[:, -1] = 1 - p[:, 0, 0], LATE * p[:, 0, 0]
    gone = np.subtract.outer(np.arange(L), np.arange(L))  # steps between reward and decision
    to_go = np.where(gone >= 0, GAMMA ** np.maximum(gone, 0.0), 0.0)
    G, V = r @ to_go, (mean @ to_go)[:, None]
    return np.asarray((w ** np.arange(L) * (late - p) * (G - V)).sum(axis=2).mean(axis=1))


def learn(L: int, w: float, runs: int, rng: np.random.Generator, updates: int = UPDATES) -> F:
    """J on the fork after 0, 1, … sampled updates, (updates+1,runs)."""
    x, J = np.zeros(runs), []
    for _ in range(updates + 1):
        p = 1 / (1 + np.exp(-x))
        J.append(1 - p + LATE * GAMMA ** (L - 1) * p)
        x = x + ETA * estimates(L, x, w, BATCH, rng)
    return np.array(J)


def counted(runs: int, episodes: int, rng: np.random.Generator) -> dict[str, F]:
    """Discounted and plain visits to the rooms of the corridor, per episode: (rooms,runs) each."""
    mdp = corridor()
    source = sample.episodes(mdp, np.full((mdp.S, 2), 0.5), rng)
    found = {"right": np.zeros((mdp.S, runs)), "usual": np.zeros((mdp.S, runs))}
    for run in range(runs):
        for x in islice(source, episodes):
            t = np.arange(len(x.a))
            found["right"][:, run] += np.bincount(x.s[:-1], GAMMA**t, mdp.S) / episodes
            found["usual"][:, run] += np.bincount(x.s[:-1], minlength=mdp.S) / episodes
    return {name: y[:-1] for name, y in found.items()}


def jacobian(mdp: MDP, theta: F, w: float) -> F:
    """Derivatives of the direction with visits discounted by w, (S·A, S·A), column by column, exact.

        u = n pi A,   du = dn pi A + n dpi A + n pi dA,   n = (I - w P_pi')^-1 mu

    w = gamma gives the Hessian of J, which is symmetric; w = 1 the Jacobian of the usual direction.

    >>> [round(asymmetry(jacobian(corridor(), np.zeros((9, 2)), w)), 3) for w in (GAMMA, 1.0)]
    [0.0, 0.254]
    """
    x, live = at(mdp, theta), ~mdp.terminal[:, None]
    chain = induce(mdp, x.pi)
    n, columns = occupancy(chain._replace(gamma=w), mdp.mu), []
    for v in np.eye(mdp.S * mdp.A).reshape(-1, mdp.S, mdp.A):
        pi_dot = through_pi(x.pi, v)
        V_dot = evaluate(chain._replace(r=(pi_dot * x.advantage).sum(axis=1)))
        A_dot = np.where(live, mdp.gamma * (mdp.rows @ V_dot).reshape(mdp.S, mdp.A) - V_dot[:, None], 0.0)
        n_dot = solve(chain.P.T, w, w * (mdp.rows.T @ (n[:, None] * pi_dot).ravel()))
        column = n_dot[:, None] * x.pi * x.advantage + n[:, None] * (pi_dot * x.advantage + x.pi * A_dot)
        columns.append(column.ravel())
    return np.array(columns).T


def asymmetry(M: F) -> float:
    """Size of M - M' relative to M + M'; 0 for a symmetric matrix."""
    return float(np.linalg.norm(M - M.T) / np.linalg.norm(M + M.T))


def experiment(*, runs: int = RUNS, updates: int = UPDATES) -> Found:
    """Count visits, and let sampled learners climb with and without gamma^t."""
    rng, path, ends = np.random.default_rng(SEED), {}, {}
    for name, w in (("right", GAMMA), ("usual", 1.0)):
        path[name] = learn(12, w, runs, rng, updates)
        ends[name] = np.array([learn(L, w, runs, rng, updates)[-1] for L in LENGTHS])
    return Found(counted(runs, 20, rng), path, ends)


def figure(fig: "Figure") -> None:
    """Draw visits, angles, ascents and the Jacobian; fig: an empty figure, about 14 by 8 inches, "constrained"."""
    axes, found = fig.subplots(2, 3).ravel(), experiment()
    draw_visits(axes[0], found)
    draw_corridor(axes[1], axes[2])
    draw_fork(axes[3], axes[4], found)
    draw_jacobians(axes[5])


def draw_visits(ax: "Axes", found: Found) -> None:
    """Draw the weight of every room, discounted and not: exact lines, counted points."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, points

    mdp, pi, room = corridor(), np.full((9, 2), 0.5), np.arange(8)
    lines = at(mdp, np.zeros((mdp.S, 2))).d, visit_counts(mdp, pi)
    for (name, y), line, colour, marker in zip(found.visits.items(), lines, (RIGHT, WRONG), "os", strict=True):
        label = {"right": "Σ γᵗ", "usual": "Σ 1"}[name]
        ax.plot(room, line[:-1], color=colour, lw=1.6, label=f"{name}, {label}, exact")
        points(ax, room, y, colour, f"{name}, {y.shape[1]} runs ± 2 se", marker)
    ax.set(yscale="log")
    finish(ax, "room", "visits per episode", "What a room weighs in the corridor")


def draw_corridor(angles: "Axes", table: "Axes") -> None:
    """Draw the cosine of both directions against the length of the corridor, and J along both, a row for each room."""
    from tabrl.lessons._drawing import FOURTH, OTHER, RIGHT, WRONG, finish, level

    L = range(1, 17)
    for gamma, colour, marker in ((0.95, RIGHT, "o"), (0.9, OTHER, "s"), (0.8, FOURTH, "D")):
        angles.plot(L, [angle(x, gamma) for x in L], marker=marker, ms=4, color=colour, label=f"γ = {gamma}, exact")
    for name, colour in (("right", RIGHT), ("usual", WRONG)):
        table.plot(table_ascent(name), color=colour, lw=1.8, label=f"{name}, exact")
    level(table, dp.solve(corridor(12)).V[0], 0, "J* = {:.4f}")
    angles.set_ylim(0, 1.05)
    finish(angles, "rooms L", "cosine of both directions", "In a long corridor they part", legend="lower left")
    finish(table, "step of equal length", "J (reward)", "A row for each of 12 rooms: J rises with both")


def draw_fork(path: "Axes", ends: "Axes", found: Found) -> None:
    """Draw J on the fork over updates, L = 12, and at the end against L: exact ascent, runs, closed forms."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, level, paths, points

    L = np.arange(2, 17)
    lines = np.maximum(1.0, LATE * GAMMA ** (L - 1.0)), LATE * GAMMA ** (L - 1.0)
    for (name, y), line, colour, marker in zip(found.path.items(), lines, (RIGHT, WRONG), "os", strict=True):
        paths(path, np.arange(len(y)), y, colour, f"{name}, {y.shape[1]} runs ± 2 se")
        path.plot(fork_ascent(name, 12), color=colour, lw=1.6, ls="--", label=f"{name}, exact ascent")
        level(path, line[10], 0)
        ends.plot(L, line, color=colour, lw=1.6, label=f"{name}, exact end")
        label = f"{name}, {y.shape[1]} runs, {UPDATES} updates, ± 2 se"
        points(ends, np.array(LENGTHS), found.ends[name], colour, label, marker)
    path.set_ylim(0.6, 1.05)
    ends.set_ylim(0, 2)
    finish(path, "update", "J (reward)", "Shared preferences, L = 12: the usual ascent lowers J")
    finish(ends, "rooms L of the fork", "J (reward)", "The longer, the worse")


def draw_jacobians(ax: "Axes") -> None:
    """Draw the entries of both Jacobians against those mirrored at the diagonal."""
    from tabrl.lessons._drawing import INK, RIGHT, WRONG, finish

    for name, w, colour, marker in (("usual", 1.0, WRONG, "s"), ("right", GAMMA, RIGHT, "o")):
        M = jacobian(corridor(), np.zeros((9, 2)), w)
        M = M / abs(M).max()
        i, j = np.triu_indices(len(M), 1)
        ax.plot(M[i, j], M[j, i], marker, color=colour, ms=4, label=f"{name}, exact: asymmetry {asymmetry(M):.2g}")
    ax.axline((0, 0), slope=1, color=INK, lw=0.8)
    finish(ax, "∂u_i/∂θ_j (largest entry = 1)", "∂u_j/∂θ_i", "The usual direction u is no gradient (L = 8)")


def main() -> None:
    """Print the findings."""
    found = experiment()
    for L in LENGTHS:
        print(f"corridor of {L:2} rooms: cosine of usual and right gradient {angle(L, GAMMA):.4f}")
    ends, best = [table_ascent(name)[-1] for name in DIRECTIONS], dp.solve(corridor(12)).V[0]
    print(f"corridor of 12, a row for each room, 200 steps: {ends[0]:.4f} right, {ends[1]:.4f} usual, J* = {best:.4f}")
    for i, L in enumerate(LENGTHS):
        for name, y in found.ends.items():
            print(f"fork of {L:2} rooms, {name}: J after {UPDATES} updates {fork_ascent(name, L)[-1]:.4f} exact, "
                  f"{y[i].mean():.4f} ± {2 * standard_error(y[i]):.4f} sampled")  # fmt: skip
    for name, w in (("right", GAMMA), ("usual", 1.0)):
        print(f"asymmetry of the Jacobian, {name}: {asymmetry(jacobian(corridor(), np.zeros((9, 2)), w)):.3g}")


if __name__ == "__main__":
    main()
