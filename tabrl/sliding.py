"""Gauss-Seidel modified policy iteration on a window that slides over the states.

The states are renumbered in reverse breadth-first order from where reward is earned or the episode ends (see
`ordering`). A window of them is settled, by sweeps that fit into the processor's cache, before it moves on; states that
it has not reached count as staying, so that the first values are already close. A pass visits every state twice. Where
values flow one way, as towards a goal, one or two passes are enough, whatever gamma; a Jacobi sweep certifies them.
Where the first does not suffice, the others take strongly connected components in topological order.
"""

import math
from collections.abc import Iterator
from itertools import count

import numpy as np

from tabrl import bellman, jacobi
from tabrl.graph import strong_components
from tabrl.mdp import MDP
from tabrl.ordering import renumbered, reverse_breadth_first, rows_of
from tabrl.stopping import LIMIT, enclosed, initial, settled
from tabrl.sweep_kernels import slide
from tabrl.types import B, F, Index, Sweep

WIDTH = np.uint64(16384)  # states of a window
ROUNDS = np.uint64(10)  # at most, in a window, before it moves on
SWEEPS = np.uint64(5)  # of the policy, after each improvement
MANY = 0.25  # share of states that pay beyond which reward says nothing about a direction


def gauss_seidel_policy_iteration(
    mdp: MDP, *, V: F | None = None, tol: float = 1e-8, limit: int = LIMIT
) -> Iterator[Sweep]:
    """Gauss-Seidel modified policy iteration, a window of states at a time.

    In a window one optimality sweep and five sweeps of the policy it found alternate until nothing changes by more
    than tol asks for. V: (S,) start; unless given, values are estimated when the window reaches a state. One record per
    pass over all states, certified by a backup of all states at once from its smallest and largest change
    (`bellman.enclosure`); V is the middle of what is possible. At gamma = 1 the bound is inf (`dp.solve` certifies).
    Source: Puterman & Shin (1978) for the iteration; Wingate & Seppi (2005) for sweeping a part at a time.
    Ledger E1.5.

    >>> chain = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [0, 1, 0], 0.5, terminal=[0, 0, 1])
    >>> [x.V.round(9).tolist() for x in gauss_seidel_policy_iteration(chain)]
    [[0.5, 1.0, 0.0]]
    """
    fresh = V is None
    V = initial(mdp, V, tol)
    order = reverse_breadth_first(rows_of(mdp), sources(mdp))
    rows = renumbered(rows_of(mdp), order)
    x, actions = V[order], np.zeros(mdp.S, np.uint32)
    endless, best = mdp.gamma < 1 and not mdp.terminal.any(), math.inf
    for k in count(1):
        slide(WIDTH, fresh, *rows, x, actions, precision(mdp, x, tol), ROUNDS, SWEEPS, endless)
        V = np.empty(mdp.S)
        V[order] = x
        TV = jacobi.optimality(mdp, V)[0]
        sweep = enclosed(mdp, k, V, TV)
        yield sweep
        if settled(mdp, sweep, tol, limit):
            return
        endless = endless and sweep.bound < best  # the level found in the first window need not be the level everywhere
        best = min(best, sweep.bound)
        if k == 1 and not np.array_equal(order, follows := by_component(mdp, order)):
            order, rows = follows, renumbered(rows_of(mdp), follows)
        x, fresh = TV[order], False


def by_component(mdp: MDP, order: Index) -> Index:
    """The same order within each strongly connected component, and after every component those that can lead to it.

    >>> path = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [0, 0, 0], 1.0, terminal=[0, 0, 1])
    >>> by_component(path, np.array([0, 1, 2]))
    array([2, 1, 0])
    """
    return order[np.argsort(strong_components(mdp.csr, mdp.legal.ravel())[order], kind="stable")]


def precision(mdp: MDP, V: F, tol: float) -> float:
    """Largest change that leaves the bound near tol, but not far less than rounding may make."""
    noise = bellman.rounding(mdp, mdp.R_max + mdp.gamma * float(abs(V).max()))
    return max(tol * max(1 - mdp.gamma, 1e-6), noise / 4)


def sources(mdp: MDP) -> B:
    """Where values come from, (S,): the best paid states where reward is rare, else the terminal ones.

    >>> sources(MDP([[[0, 1]], [[0, 1]]], [-1, 0], 0.9, terminal=[0, 1]))
    array([False,  True])
    """
    best = np.where(mdp.terminal, -np.inf, jacobi.greedy(mdp, mdp.r)[0])
    top = float(best.max(initial=-np.inf))
    paid: B = best >= (top / 2 if top > 0 else top)
    if mdp.terminal.any() and (top <= 0 or paid.mean() > MANY):
        return np.asarray(mdp.terminal)
    return paid
