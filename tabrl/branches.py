"""Every transition a model can make, as parallel arrays, and what one step looks like under a policy.

N branches (s, a, s') with P(s'|s,a) > 0; n non-terminal states; column n of a step's tables is "the end".
"""

from typing import NamedTuple

import numpy as np

from tabrl import checks
from tabrl.chain import entries_of
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.types import F, I

DENSE = 5000  # states of the largest dense table


class Branches(NamedTuple):
    """The transitions (s, a, s') of positive probability; terminal states have none."""

    s: I  # (N,)
    a: I  # (N,)
    s_next: I  # (N,)
    P: F  # (N,) P(s'|s,a)
    R: F  # (N,) R(s,a,s')


class Step(NamedTuple):
    """One step under a policy, from the n non-terminal states to them and to the end (column n)."""

    states: I  # (n,) the non-terminal states
    P: F  # (n, n+1) probability
    R: F  # (n, n+1) mean reward given both ends of the step
    noise: F  # (n, n+1) variance of the reward given both ends


def branches(mdp: MDP) -> Branches:
    """List the transitions of a model.

    Rewards that were merged (see `MDP.from_gym`) count as their mean.

    >>> branches(MDP([[[0.5, 0.5]], [[0, 1]]], [[[1, 2]], [[0, 0]]], 0.9, terminal=[0, 1])).R
    array([1., 2.])
    """
    rows = mdp.csr
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    col = rows.indices.astype(np.int64)
    return Branches(row // mdp.A, row % mdp.A, col, rows.data, entries_of(mdp, row, col))


def step(mdp: MDP, pi: F) -> Step:
    """One step of a policy, actions summed out and all terminal states joined into one end.

        P(s,y) = sum of pi P,   R(s,y) = E[R | s, y],   noise(s,y) = Var[R | s, y]

    pi: (S,A). Returns tables of shape (n, n+1), dense; R and noise are 0 where P is.
    Source: Sutton & Barto (2018), eq. 3.14.

    >>> step(MDP([[[0.5, 0.5]], [[0, 1]]], [[[1, 2]], [[0, 0]]], 0.9, terminal=[0, 1]), np.ones((2, 1))).R
    array([[1., 2.]])
    """
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    states = np.flatnonzero(~mdp.terminal)
    n = len(states)
    dense_enough(n)
    index = np.full(mdp.S, n)
    index[states] = np.arange(n)
    b = branches(mdp)
    cell, weight = index[b.s] * (n + 1) + index[b.s_next], pi[b.s, b.a] * b.P
    total = np.bincount(cell, weight, n * (n + 1))
    share = weight / np.where(total > 0, total, 1.0)[cell]
    R = np.bincount(cell, share * b.R, n * (n + 1))
    noise = np.bincount(cell, share * (b.R - R[cell]) ** 2, n * (n + 1))
    return Step(states, *(x.astype(np.float64).reshape(n, n + 1) for x in (total, R, noise)))


def dense_enough(n: int) -> None:
    """Refuse to build an (n,n) table for a large sparse model."""
    if n > DENSE:
        raise ModelError(f"mdp has {n} states to tabulate; at most {DENSE} fit the dense tables that are needed here")
