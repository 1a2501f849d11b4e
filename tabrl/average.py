"""The average reward per step, without discounting.

h (S,) relative values; gain average reward per step.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np

from tabrl import bellman, checks
from tabrl.mdp import MDP
from tabrl.rounding import UP
from tabrl.types import F, RelativeSweep

LIMIT = 1_000_000


def relative_value_iteration(
    mdp: MDP, *, h: F | None = None, tol: float = 1e-8, damping: float = 0.5, limit: int = LIMIT
) -> Iterator[RelativeSweep]:
    """Relative value iteration for the largest average reward per step; gamma plays no part.

        d(s) = max over a of r(s,a) + sum over s' of P(s'|s,a) h(s') - h(s),   h <- h + damping * d - its first entry

    min d <= gain <= max d for any h, in every state; `gain` is the middle, `bound` half the width,
    rounding included. The interval closes when the optimal gain is the same in all states; damping < 1
    makes that true of periodic models too. Terminal states stay where they are and earn 0. Stops at tol,
    at the rounding floor, or at the limit (a model with several gains: bound stays large).
    Source: Puterman (1994), section 8.5.5 and theorem 8.5.5; Odoni (1969).

    >>> from tabrl.trace import last
    >>> switch = MDP([[[0.0, 1.0]], [[1.0, 0.0]]], [2, 0], 1.0)
    >>> round(last(relative_value_iteration(switch)).gain, 6)
    1.0
    """
    checks.tolerance(tol)
    if not 0 < damping <= 1:
        raise ValueError(f"damping is {damping}; a number in (0, 1] is expected")
    h = np.zeros(mdp.S) if h is None else checks.real(h, "h", (mdp.S,))
    P = mdp.P if mdp.is_sparse else mdp.P.reshape(mdp.S * mdp.A, mdp.S)
    for k in count(1):
        d = bellman.maximum(mdp.r + (P @ h).reshape(mdp.S, mdp.A), mdp.legal) - h
        noise = 2 * bellman.rounding(mdp, mdp.R_max + float(abs(h).max()))
        low, high = float(d.min()), float(d.max())
        h = h + damping * d
        h -= h[0]
        bound = ((high - low) / 2 + noise) * UP
        yield RelativeSweep(k, h.copy(), (low + high) / 2, bound)
        if bound <= tol or high - low <= noise or k >= limit:
            return
