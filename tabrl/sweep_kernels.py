"""The sweeps over states, on CSR rows s·A+a (indptr, indices, p); compiled when numba is installed.

r (S·A,) expected reward, -inf where an action is illegal; V (S,) and action (S,) are changed in place; gamma discount.
Terminal rows are empty and pay 0, so their value is 0. lo, hi: the states lo, …, hi - 1 are swept, in that order.
Jacobi sweeps read V and write TV, so that slices may run side by side; Gauss-Seidel sweeps use every new value at once.
Whole numbers come without sign: compiled code need not ask whether an index is negative, which halves the time.
"""

import math

import numpy as np

from tabrl._jit import kernel
from tabrl.types import F, Index, N

NONE, ONE, TWO = np.uint64(0), np.uint64(1), np.uint64(2)


@kernel
def action_value(k: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F) -> float:
    """Return r(s,a) + gamma * sum over s' of P(s'|s,a) V(s') for row k = s·A+a."""
    ahead = 0.0
    for i in range(indptr[k], indptr[k + ONE]):
        ahead += p[i] * V[indices[i]]
    return r[k] + gamma * ahead  # type: ignore[return-value]


@kernel
def best(s: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F) -> tuple[float, N]:
    """Return max over a of Q(s,a), and the first action that attains it."""
    most, chosen = -math.inf, NONE
    for a in range(A):
        q = action_value(s * A + a, indptr, indices, p, r, gamma, V)
        if q > most:
            most, chosen = q, a  # type: ignore[assignment]
    return most, chosen


@kernel
def jacobi(
    lo: N, hi: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F, TV: F, action: Index
) -> None:
    """Optimality sweep: TV(s) = max over a of Q(s,a), and the first action that attains it."""
    for s in range(lo, hi):
        TV[s], action[s] = best(s, A, indptr, indices, p, r, gamma, V)


@kernel
def jacobi_policy(
    lo: N, hi: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F, TV: F, action: Index
) -> None:
    """Sweep of the policy that takes action[s]: TV(s) = Q(s, action(s))."""
    for s in range(lo, hi):
        TV[s] = action_value(s * A + action[s], indptr, indices, p, r, gamma, V)


@kernel
def action_values(lo: N, hi: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F, Q: F) -> None:
    """All of Q (S·A,), not only the largest."""
    for k in range(lo * A, hi * A):
        Q[k] = action_value(k, indptr, indices, p, r, gamma, V)


@kernel
def largest(lo: N, hi: N, A: N, Q: F, TV: F, action: Index) -> None:
    """TV(s) = max over a of Q(s,a), and the first action that attains it."""
    for s in range(lo, hi):
        TV[s], action[s] = -math.inf, NONE
        for a in range(A):
            if Q[s * A + a] > TV[s]:
                TV[s], action[s] = Q[s * A + a], a


@kernel
def improve(lo: N, hi: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F, action: Index) -> float:
    """Gauss-Seidel optimality sweep; return the largest change."""
    change = 0.0
    for s in range(lo, hi):
        q, action[s] = best(s, A, indptr, indices, p, r, gamma, V)
        change = max(change, abs(q - V[s]))
        V[s] = q
    return change


@kernel
def evaluate(lo: N, hi: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F, action: Index) -> float:
    """Gauss-Seidel sweep of the policy that takes action[s]; return the largest change."""
    change = 0.0
    for s in range(lo, hi):
        q = action_value(s * A + action[s], indptr, indices, p, r, gamma, V)
        change = max(change, abs(q - V[s]))
        V[s] = q
    return change


@kernel
def enter(lo: N, hi: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F) -> None:
    """First values of states whose successors before them are known; a step to any other counts as staying.

        V(s) = max over a of (r(s,a) + gamma * sum over s' < s of P(s'|s,a) V(s')) / (1 - gamma * P(s' >= s|s,a))

    A value stays as it is where that is not defined: at gamma = 1, when nothing known can follow.
    """
    for s in range(lo, hi):
        most = -math.inf
        for a in range(A):
            k = s * A + a
            known, stay = 0.0, 0.0
            for i in range(indptr[k], indptr[k + ONE]):
                if indices[i] < s:
                    known += p[i] * V[indices[i]]
                else:
                    stay += p[i]
            if gamma * stay < 1.0:
                most = max(most, (r[k] + gamma * known) / (1.0 - gamma * stay))
        if most > -math.inf:
            V[s] = most


@kernel
def level(A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F) -> None:
    """Move all values by the same amount, so that the Bellman equation holds in state 0 (where no episode ends)."""
    shift = (best(NONE, A, indptr, indices, p, r, gamma, V)[0] - V[0]) / (1.0 - gamma)
    for s in range(V.shape[0]):
        V[s] += shift


@kernel
def settle(
    lo: N, hi: N, ahead: N, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F, action: Index,
    eps: float, rounds: N, sweeps: N, endless: bool,
) -> N:  # fmt: skip
    """Modified policy iteration on lo, …, hi - 1 until a sweep changes nothing by more than eps; return backups done.

    The states hi, …, ahead - 1 are entered anew in the first four rounds, so that they follow what the window learns.
    endless: no episode ends; then the first window also finds the level of all values.
    """
    done = NONE
    for k in range(rounds):
        if k < 4:
            enter(hi, ahead, A, indptr, indices, p, r, gamma, V)
        done += A * (hi - lo)
        if improve(lo, hi, A, indptr, indices, p, r, gamma, V, action) <= eps:
            break
        for _ in range(sweeps):
            done += hi - lo
            if evaluate(lo, hi, A, indptr, indices, p, r, gamma, V, action) <= eps:
                break
        if endless and lo == NONE:
            level(A, indptr, indices, p, r, gamma, V)
    return done


@kernel
def slide(
    width: N, fresh: bool, A: N, indptr: Index, indices: Index, p: F, r: F, gamma: float, V: F, action: Index,
    eps: float, rounds: N, sweeps: N, endless: bool,
) -> N:  # fmt: skip
    """Settle one window of `width` >= 2 states after another, each half a width ahead of the last; return backups done.

    fresh: V holds nothing yet; `enter` gives a state its first value when the window is half a width away from it.
    """
    S, lo, hi, done = np.uint64(V.shape[0]), NONE, NONE, NONE
    while hi < S:
        old, hi = hi, min(lo + width, S)
        ahead = min(hi + width // TWO, S) if fresh else hi
        if fresh:
            enter(old, hi, A, indptr, indices, p, r, gamma, V)
        done += settle(lo, hi, ahead, A, indptr, indices, p, r, gamma, V, action, eps, rounds, sweeps, endless)
        lo += width // TWO
    return done
