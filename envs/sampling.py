"""Draw next states from a model, one or many at a time.

Row s·A + a of a table lists the possible next states of (s, a); u in [0,1) are uniform numbers.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.types import F, I


class Table(NamedTuple):
    """Transitions as cumulative sums; entries indptr[row] … indptr[row+1] - 1 belong to a row."""

    indptr: I  # (rows+1,)
    s_next: I  # (n,)
    total: F  # (n,) sum of the probabilities of the row up to here
    x: F  # (n,) reward R(s,a,s_next)


def transitions(mdp: MDP) -> Table:
    """Tabulate P and R; terminal and illegal rows are empty."""
    P = mdp.csr
    indptr = P.indptr.astype(np.int64)
    row = np.repeat(np.arange(mdp.S * mdp.A), np.diff(indptr))
    return Table(indptr, P.indices.astype(np.int64), totals(indptr, P.data), rewards(mdp, row, P.indices))


def starts(mdp: MDP) -> Table:
    """Tabulate the start distribution as one row; an environment cannot start in a terminal state."""
    states = np.flatnonzero(mdp.mu)
    if mdp.terminal[states].any():
        s = int(states[mdp.terminal[states]][0])
        raise ModelError(
            f"mu[{s}] is {mdp.mu[s]:.6g}, and state {s} is terminal; an environment starts in a non-terminal state"
        )
    indptr = np.array([0, len(states)])
    return Table(indptr, states, totals(indptr, mdp.mu[states]), np.zeros(len(states)))


def totals(indptr: I, p: F) -> F:
    """Sum p along each row from the left, all rows at once."""
    total = p.copy()
    length = np.diff(indptr)
    for k in range(1, int(length.max(initial=0))):
        here = indptr[:-1][length > k] + k
        total[here] += total[here - 1]
    return total


def rewards(mdp: MDP, row: I, s_next: I) -> F:
    """Return R(s,a,s_next) for the listed entries, whatever shape R has."""
    R = mdp.R
    if sp.issparse(R):
        return np.asarray(R[row, s_next], dtype=np.float64).ravel()
    flat: F = R.ravel()[row] if R.ndim == 2 else R.reshape(mdp.S * mdp.A, mdp.S)[row, s_next]
    return flat


def draw(table: Table, row: I, u: F) -> I:
    """Return, for each row and u, the entry where the row's running sum first exceeds u: by bisection.

    The last entry answers where rounding left the sum below u.
    """
    low, high = table.indptr[row], table.indptr[row + 1] - 1
    while (low < high).any():
        middle = (low + high) // 2
        beyond = table.total[middle] > u
        low, high = np.where(beyond, low, np.minimum(middle + 1, high)), np.where(beyond, middle, high)
    return low
