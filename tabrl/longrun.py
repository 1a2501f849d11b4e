"""The long run of a chain: where it spends its time, when it arrives, what it earns per step.

P (S,S), in which terminal states are absorbing here; gain, bias (S,). Discounting plays no part.
"""

import math

import numpy as np
import scipy.sparse as sp

from tabrl import checks
from tabrl.chain import Chain, listed
from tabrl.errors import ModelError
from tabrl.graph import recurrent_classes
from tabrl.markov import class_distribution, limiting_matrix, solve, visited
from tabrl.types import B, F, Matrix


def absorbing(chain: Chain) -> Matrix:
    """P with the zero rows of terminal states replaced by self-loops: a proper stochastic matrix."""
    loops = sp.diags_array(chain.terminal.astype(np.float64))
    return sp.csr_array(chain.P + loops) if sp.issparse(chain.P) else chain.P + loops.toarray()


def stationary(chain: Chain) -> F:
    """The stationary distribution, for a chain with one recurrent class; terminal states are absorbing.

        d = d P,  sum of d = 1

    Returns (S,). Raises ModelError when several recurrent classes make it ambiguous.
    Source: Puterman (1994), theorem A.2.

    >>> stationary(Chain(np.array([[0.5, 0.5], [1.0, 0.0]]), np.zeros(2), 0.9, np.array([False, False])))
    array([0.66666667, 0.33333333])
    """
    P = absorbing(chain)
    classes, n = recurrent_classes(P)
    if n > 1:
        parts = "; ".join(listed(np.flatnonzero(classes == k)) for k in range(min(n, 4)))
        raise ModelError(
            f"chain has {n} recurrent classes ({parts}); one is expected; the stationary distribution is not unique"
        )
    d = np.zeros(len(classes))
    members = np.flatnonzero(classes == 0)
    d[members] = class_distribution(P[members][:, members])
    return d


def hitting_times(chain: Chain, target: B) -> F:
    """Expected number of steps until the chain first enters a set of states.

        h(s) = 0 on the target, else 1 + sum over s' of P(s,s') h(s')

    target: (S,) mask. Returns (S,), inf where the target may be missed. Discounting plays no part.
    Source: Norris (1997), theorem 1.3.5.

    >>> walk = Chain(np.array([[0.0, 1.0], [0.5, 0.5]]), np.zeros(2), 0.9, np.array([False, False]))
    >>> hitting_times(walk, np.array([True, False]))
    array([0., 2.])
    """
    target = checks.mask(target, "target", chain.r.shape)
    P = sp.csr_array(absorbing(chain))
    stay = sp.csr_array(sp.diags_array((~target).astype(np.float64)) @ P)
    doomed = (recurrent_classes(stay)[0] >= 0) & ~target
    finite = ~visited(sp.csr_array(stay.T), doomed) if doomed.any() else np.ones(len(target), np.bool_)
    keep = np.flatnonzero(finite & ~target)
    h = np.where(finite, 0.0, math.inf)
    if len(keep):
        h[keep] = solve(P[keep][:, keep], 1.0, np.ones(len(keep)))
    return h


def gain_bias(chain: Chain) -> tuple[F, F]:
    """Average reward per step and the relative value of each state; terminal states are absorbing.

        gain = P* r,   bias = (I - P + P*)^-1 (I - P*) r,   P* = limit of the averages of P**t

    Both (S,); P* bias = 0. Several recurrent classes are allowed. Discounting plays no part.
    Source: Puterman (1994), theorem A.5 and section 8.2.

    >>> gain_bias(Chain(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 0.0]), 0.9, np.array([False, False])))
    (array([1., 1.]), array([ 0.5, -0.5]))
    """
    P = absorbing(chain)
    P = P.toarray() if sp.issparse(P) else P
    limit = limiting_matrix(P)
    gain = limit @ chain.r
    return gain, np.linalg.solve(np.eye(len(P)) - P + limit, chain.r - gain)
