"""Sweep methods: apply a backup to every state, again and again, until the certified bound is small enough.

V (S,) values; TV (S,) after an optimality backup; w (S,) the weight that certifies (None below gamma = 1);
tol certified accuracy asked for; limit largest number of sweeps. Each yields one `Sweep` per pass.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import scipy.sparse as sp

from tabrl import bellman, checks, jacobi
from tabrl.chain import evaluate, evaluate_with_weight, induce
from tabrl.kernels import gauss_seidel_sweep, prioritized_backups
from tabrl.mdp import MDP
from tabrl.stopping import LIMIT, enclosed, finished, initial, judge, settled
from tabrl.types import F, I, Sweep
from tabrl.undiscounted import proper_actions, weight


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
    mdp: MDP, *, V: F | None = None, tol: float = 1e-8, sweeps: int = 5, limit: int = LIMIT
) -> Iterator[Sweep]:
    """Modified policy iteration: one optimality backup, then `sweeps` backups of the policy it found.

    sweeps=0 is value iteration; many sweeps approach policy iteration. One record per optimality backup, certified by
    its smallest and largest change (`bellman.enclosure`): where no episode ends, what all states lack alike costs no
    sweeps. V of a record is the middle of what is possible. At gamma = 1 it starts from the value of a policy that ends
    and V is that of the sweep. Source: Puterman & Shin (1978); Puterman (1994), sections 6.5 and 6.6.2. Ledger E1.5.

    >>> [round(float(x.V[0]), 3) for x in modified_policy_iteration(MDP([[[1.0]]], [1], 0.5), tol=0.01)]
    [2.0]
    """
    if sweeps < 0:
        raise ValueError(f"sweeps is {sweeps}; 0 or more policy backups are expected")
    w = weight(mdp)
    if V is None and mdp.gamma == 1.0:
        V = proper_value(mdp)
    V = initial(mdp, V, tol)
    for k in count(1):
        TV, actions = jacobi.optimality(mdp, V)
        sweep = enclosed(mdp, k, V, TV, w)
        yield sweep
        if settled(mdp, sweep, tol, limit):
            return
        V, backup = TV, jacobi.policy(mdp, actions)
        for _ in range(sweeps):
            V = backup(V)


def proper_value(mdp: MDP) -> F:
    """Value of a policy that ends with probability 1 (gamma = 1)."""
    return evaluate(induce(mdp, bellman.one_hot(proper_actions(mdp), mdp.A)))


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
