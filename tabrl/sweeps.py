"""Sweep methods: apply a backup to every state, again and again, until the certified bound is small enough.

V (S,) values; TV (S,) after an optimality backup; w (S,) the weight that certifies (None below gamma = 1);
tol certified accuracy asked for; limit largest number of sweeps. Each yields one `Sweep` per pass.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import scipy.sparse as sp

from tabrl import bellman, checks
from tabrl.chain import evaluate, evaluate_with_weight, induce
from tabrl.errors import ModelError
from tabrl.kernels import gauss_seidel_sweep, prioritized_backups
from tabrl.mdp import MDP
from tabrl.types import F, I, Sweep
from tabrl.undiscounted import proper_actions, weight

LIMIT = 1_000_000


def initial(mdp: MDP, V: F | None, tol: float) -> F:
    """Copy of the starting values, 0 unless given; also checks tol."""
    checks.tolerance(tol)
    if V is None:
        return np.zeros(mdp.S)
    V = checks.real(V, "V", (mdp.S,))
    if V[mdp.terminal].any():
        s = int(np.argmax(mdp.terminal & (V != 0)))
        raise ModelError(f"V[{s}] is {V[s]}; terminal states have value 0")
    return V


def judge(mdp: MDP, k: int, V: F, residual: float, w: F | None, pi: F | None = None) -> Sweep:
    """Record a sweep together with its certified bound."""
    V_max = float(abs(V).max(initial=0.0)) + residual
    return Sweep(k, V, residual, bellman.error_bound(mdp, residual, V_max, w, pi))


def finished(mdp: MDP, sweep: Sweep, tol: float, limit: int) -> bool:
    """Whether to stop: certified, at the limit, diverged, or at the floor where rounding hides progress."""
    noise = bellman.rounding(mdp, mdp.R_max + mdp.gamma * float(abs(sweep.V).max(initial=0.0)))
    return sweep.bound <= tol or sweep.k >= limit or not sweep.residual > noise


def value_iteration(mdp: MDP, *, V: F | None = None, tol: float = 1e-8, limit: int = LIMIT) -> Iterator[Sweep]:
    """Value iteration: V <- T V for all states at once.

        V_k+1(s) = max over a of r(s,a) + gamma * sum over s' of P(s'|s,a) V_k(s')

    V: (S,) start, 0 unless given. The error shrinks by gamma per sweep. Stops when the bound is at most
    tol or at the rounding floor. At gamma = 1 the bound is inf where some policy never ends (`dp.solve`
    certifies those). Source: Sutton & Barto (2018), eq. 4.10; Puterman (1994), section 6.3. Ledger E1.5.

    >>> [float(x.V[0]) for x in value_iteration(MDP([[[1.0]]], [1], 0.5), tol=0.6)]
    [1.0, 1.5, 1.75]
    """
    V, w = initial(mdp, V, tol), weight(mdp)
    for k in count(1):
        TV = bellman.optimality(mdp, V)
        residual, V = float(abs(TV - V).max()), TV
        sweep = judge(mdp, k, V, residual, w)
        yield sweep
        if finished(mdp, sweep, tol, limit):
            return


def gauss_seidel(mdp: MDP, *, V: F | None = None, tol: float = 1e-8, limit: int = LIMIT) -> Iterator[Sweep]:
    """Gauss-Seidel value iteration: each state at once uses the new values of the states before it.

    Arguments, stopping and certificate as in `value_iteration`; the residual is the largest change.
    Source: Puterman (1994), section 6.3.3. Ledger E1.5.

    >>> chain = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [0, 1, 0], 0.5, terminal=[0, 0, 1])
    >>> [x.V.tolist() for x in gauss_seidel(chain)]
    [[0.0, 1.0, 0.0], [0.5, 1.0, 0.0], [0.5, 1.0, 0.0]]
    """
    V, w = initial(mdp, V, tol), weight(mdp)
    rows = mdp.csr
    for k in count(1):
        change = gauss_seidel_sweep(rows.indptr, rows.indices, rows.data, mdp.r, mdp.legal, mdp.gamma, V)
        sweep = judge(mdp, k, V.copy(), float(change), w)
        yield sweep
        if finished(mdp, sweep, tol, limit):
            return


def modified_policy_iteration(
    mdp: MDP, *, V: F | None = None, tol: float = 1e-8, sweeps: int = 10, limit: int = LIMIT
) -> Iterator[Sweep]:
    """Modified policy iteration: one optimality backup, then `sweeps` backups of the policy it found.

    sweeps=0 is value iteration; many sweeps approach policy iteration. A record is yielded after each
    optimality backup. At gamma = 1 it starts from the value of a policy that ends.
    Source: Puterman & Shin (1978); Puterman (1994), section 6.5. Ledger E1.5.

    >>> [round(float(x.V[0]), 3) for x in modified_policy_iteration(MDP([[[1.0]]], [1], 0.5), tol=0.01)]
    [1.0, 2.0]
    """
    if sweeps < 0:
        raise ValueError(f"sweeps is {sweeps}; 0 or more policy backups are expected")
    w = weight(mdp)
    if V is None and mdp.gamma == 1.0:
        V = proper_value(mdp)
    V = initial(mdp, V, tol)
    for k in count(1):
        Q = bellman.q_from_v(mdp, V)
        TV = bellman.maximum(Q, mdp.legal)
        sweep = judge(mdp, k, TV, float(abs(TV - V).max()), w)
        yield sweep
        if finished(mdp, sweep, tol, limit):
            return
        V = policy_sweeps(mdp, np.where(mdp.legal, Q, -np.inf).argmax(axis=1), TV, sweeps)


def proper_value(mdp: MDP) -> F:
    """Value of a policy that ends with probability 1 (gamma = 1)."""
    return evaluate(induce(mdp, bellman.one_hot(proper_actions(mdp), mdp.A)))


def policy_sweeps(mdp: MDP, actions: I, V: F, n: int) -> F:
    """Apply the backup of deterministic actions (S,) n times."""
    at = np.arange(mdp.S) * mdp.A + actions
    r, P = mdp.r.ravel()[at], mdp.rows[at]
    for _ in range(n):
        V = r + mdp.gamma * (P @ V)
    return V


def prioritized_sweeping(mdp: MDP, *, V: F | None = None, tol: float = 1e-8, limit: int = LIMIT) -> Iterator[Sweep]:
    """Prioritized sweeping: always back up the state with the largest Bellman error.

    Predecessors of a changed state get a new priority. One record per S backups; its residual is that of
    a full backup, which also refreshes all priorities. Source: Moore & Atkeson (1993); Sutton & Barto
    (2018), section 8.4. Ledger E1.5.

    >>> chain = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [0, 1, 0], 0.5, terminal=[0, 0, 1])
    >>> [x.V.tolist() for x in prioritized_sweeping(chain)]
    [[0.0, 0.0, 0.0], [0.5, 1.0, 0.0]]
    """
    V, w = initial(mdp, V, tol), weight(mdp)
    rows = mdp.csr
    starts, back = predecessors(mdp)
    for k in count(1):
        error = abs(bellman.optimality(mdp, V) - V)
        sweep = judge(mdp, k, V.copy(), float(error.max()), w)
        yield sweep
        if finished(mdp, sweep, tol, limit):
            return
        model = (rows.indptr, rows.indices, rows.data, mdp.r, mdp.legal, mdp.gamma)
        prioritized_backups(mdp.S, *model, V, error, starts, back)


def predecessors(mdp: MDP) -> tuple[I, I]:
    """States that can lead to s in one step: the second array from first[s] to first[s+1]."""
    row, column = mdp.csr.nonzero()
    pairs = (np.ones(len(row), np.bool_), (column, row // mdp.A))
    back = sp.csr_array(pairs, shape=(mdp.S, mdp.S))
    return back.indptr.astype(np.int64), back.indices.astype(np.int64)


def policy_evaluation(mdp: MDP, pi: F, *, V: F | None = None, tol: float = 1e-8, limit: int = LIMIT) -> Iterator[Sweep]:
    """Iterative policy evaluation: V <- T_pi V for all states at once.

        V_k+1(s) = sum over a of pi(a|s) (r(s,a) + gamma * sum over s' of P(s'|s,a) V_k(s'))

    pi: (S,A). The bound is on max |V - V_pi|. At gamma = 1 the policy must end, else as `chain.evaluate`.
    Source: Sutton & Barto (2018), eq. 4.5; Ledger E1.3.

    >>> from tabrl.trace import last
    >>> last(policy_evaluation(MDP([[[1.0]]], [1], 0.5), np.array([[1.0]]))).V.round(6)
    array([2.])
    """
    V = initial(mdp, V, tol)
    pi = checks.policy(pi, mdp.S, mdp.A, mdp.legal)
    w = policy_weight(mdp, pi) if mdp.gamma == 1.0 else None
    for k in count(1):
        TV = bellman.expectation(mdp, pi, V)
        residual, V = float(abs(TV - V).max()), TV
        sweep = judge(mdp, k, V, residual, w, pi)
        yield sweep
        if finished(mdp, sweep, tol, limit):
            return


def policy_weight(mdp: MDP, pi: F) -> F:
    """Expected steps to the end of a policy that ends, the weight that certifies it at gamma = 1."""
    return evaluate_with_weight(induce(mdp, pi))[1]
