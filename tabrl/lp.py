"""The Bellman linear program.

V (S,) primal values; x (S,A) dual: expected discounted visits to each state and action.
"""

import numpy as np
import scipy.sparse as sp

from tabrl import bellman, checks
from tabrl.errors import ModelError, NotConverged
from tabrl.mdp import MDP
from tabrl.types import F, LinearProgram
from tabrl.undiscounted import weight


def linear_program(mdp: MDP, *, start: F | None = None) -> LinearProgram:
    """Compute V_star by linear programming (HiGHS).

        minimise start . V   subject to   V(s) - gamma * sum over s' of P(s'|s,a) V(s') >= r(s,a)

    start: (S,) positive weights of the non-terminal states, 1/S each unless given. The dual solution is
    the occupancy of an optimal policy started from `start`: x(s,a) > 0 only for optimal actions, and
    start . V = sum of x r. The solver works to about 1e-7; `bound` says what its V is worth. At gamma = 1
    as `value_iteration`. Source: Puterman (1994), section 6.9; Manne (1960). Ledger E1.5.

    >>> program = linear_program(MDP([[[1.0]]], [1], 0.5))
    >>> program.V.round(6), program.occupancy.round(6)
    (array([2.]), array([[2.]]))
    """
    from scipy.optimize import linprog

    w = weight(mdp)
    live = np.flatnonzero(~mdp.terminal)
    use = np.flatnonzero((mdp.legal & ~mdp.terminal[:, None]).ravel())
    cost = positive_start(mdp, start)[live]
    V, x = np.zeros(mdp.S), np.zeros(mdp.S * mdp.A)
    if len(live):
        own = sp.csr_array((np.ones(len(use)), (np.arange(len(use)), use // mdp.A)), shape=(len(use), mdp.S))
        ahead = sp.csr_array(mdp.csr[use])
        constraints = sp.csr_array((own - mdp.gamma * ahead)[:, live])
        found = linprog(
            cost, A_ub=-constraints, b_ub=-mdp.r.ravel()[use], bounds=(None, None), method="highs-ds",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )  # fmt: skip
        if found.status != 0:
            raise NotConverged(f"linear program ended with: {found.message}; an optimum is expected", found)
        V[live], x[use] = found.x, -found.ineqlin.marginals
    return LinearProgram(V, x.reshape(mdp.S, mdp.A), bellman.certified_bound(mdp, V, w))


def positive_start(mdp: MDP, start: F | None) -> F:
    """Weights of the objective; every non-terminal state needs a positive one to be pinned to V_star."""
    if start is None:
        return np.full(mdp.S, 1.0 / mdp.S)
    start = checks.real(start, "start", (mdp.S,))
    low = (start <= 0) & ~mdp.terminal
    if low.any():
        s = int(np.argmax(low))
        raise ModelError(f"start[{s}] is {start[s]}; a positive weight is expected, else V[{s}] is not determined")
    return start
