"""The exact expectation of a learner whose episodes are cut short: every fragment listed with its probability.

A fragment starts from mu and lasts until a terminal state, or L steps. All that a prediction learner remembers between
two fragments is V, and one fragment changes V by an affine map that depends on the fragment alone, so

    E[V after k + 1 fragments] = A E[V after k fragments] + b,     A, b the means of the maps

V (S,) values; A (S,S); b (S,). The maps come from the literal definitions of `verify.literal`, not from the learners.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl.mdp import MDP
from tabrl.types import F
from tabrl.verify.enumeration import trajectories
from tabrl.verify.literal import Trace

Update: TypeAlias = Callable[[Any, Any], Any]  # (Trace, V) to the values after the fragment; affine in V


class Mean(NamedTuple):
    """The mean update by one fragment, V to A V + b, and how many fragments there are."""

    A: F  # (S,S)
    b: F  # (S,)
    fragments: int


def listed(mdp: MDP, pi: F, L: int) -> Iterator[tuple[float, Trace]]:
    """All fragments of positive probability, with it; their numbers are floats."""
    for s in np.flatnonzero(mdp.mu):
        for p, x in trajectories(mdp, pi, int(s), L):
            r: Any = x.r.tolist()
            yield float(mdp.mu[s]) * float(p), Trace(x.s.tolist(), r, x.discount.tolist())


def mean_update(mdp: MDP, pi: F, update: Update, L: int) -> Mean:
    """Average a learner's update over all fragments of at most L steps.

        b = E[update(0)],   column j of A = E[update(e_j)] - b

    Source: from the law of total expectation; fragments are independent of the values before them.

    >>> from tabrl.verify.literal import td0
    >>> coin = MDP([[[0.5, 0.5]], [[0, 1]]], [1, 0], 0.5, terminal=[0, 1])
    >>> x = mean_update(coin, np.ones((2, 1)), lambda x, V: td0(x, V, 0.5), 1)
    >>> x.A[0, 0].item(), x.b[0].item(), x.fragments
    (0.625, 0.5, 2)
    """
    b, A, n = np.zeros(mdp.S), np.zeros((mdp.S, mdp.S)), 0
    units = np.eye(mdp.S).tolist()
    for p, x in listed(mdp, pi, L):
        start = np.array(update(x, [0.0] * mdp.S), np.float64)
        b += p * start
        A += p * (np.array([update(x, V) for V in units], np.float64) - start).T
        n += 1
    return Mean(A, b, n)


def expected_values(x: Mean, counts: Any) -> F:
    """E[V] after the given numbers of fragments, ascending, from V = 0: (K,S)."""
    V, k, found = np.zeros(len(x.b)), 0, []
    for count in counts:
        while k < count:
            V, k = x.A @ V + x.b, k + 1
        found.append(V)
    return np.array(found)


def settled(x: Mean) -> F:
    """What E[V] settles at: the fixed point of the mean update, off V_pi where updates and returns hang together.

    Columns that A leaves as they are (terminal states, states never visited) keep V = 0.
    """
    moved = ~np.isclose(np.diag(x.A), 1.0, rtol=0, atol=1e-14)
    V = np.zeros(len(x.b))
    V[moved] = np.linalg.solve((np.eye(len(V)) - x.A)[np.ix_(moved, moved)], x.b[moved])
    return V
