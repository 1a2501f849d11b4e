"""One backup of all states at once, as fast as the model allows: BLAS for dense P, compiled threads for sparse P.

V (S,) values; actions (S,) numbers of actions. The same numbers as `bellman`, which is the definition.
"""

from collections.abc import Callable

import numpy as np

from tabrl import threads
from tabrl._jit import compiled
from tabrl.bellman import q_from_v
from tabrl.mdp import MDP
from tabrl.ordering import packed, rows_of
from tabrl.sweep_kernels import action_values, jacobi, jacobi_policy, largest
from tabrl.threads import in_slices
from tabrl.types import F, I

CACHED = 2_000_000  # transitions beyond which the rows of a policy are copied next to each other


def optimality(mdp: MDP, V: F) -> tuple[F, I]:
    """T V and the first action that attains it, both (S,).

    >>> optimality(MDP([[[0, 1], [1, 0]], [[0, 1], [0, 1]]], [[0, 1], [2, 3]], 0.5), np.array([0.0, 4.0]))
    (array([2., 5.]), array([0, 1]))
    """
    if not V.any():
        return greedy(mdp, mdp.r)
    if not (mdp.is_sparse and compiled()):
        return greedy(mdp, q_from_v(mdp, V))
    TV, actions = np.empty(mdp.S), np.empty(mdp.S, np.int64)
    rows = rows_of(mdp)
    in_slices(jacobi, len(rows.p), mdp.S, *rows, V, TV, actions.view(np.uint64))
    return TV, actions


def q_values(mdp: MDP, V: F) -> F:
    """`bellman.q_from_v`, in threads where there is work for them. V: (S,), returns (S,A).

    >>> q_values(MDP([[[0.5, 0.5]], [[0, 1]]], [[1], [2]], 0.5), np.array([4.0, 8.0]))
    array([[4.],
           [6.]])
    """
    if not threaded(mdp):
        return q_from_v(mdp, V)
    Q, rows = np.empty((mdp.S, mdp.A)), rows_of(mdp)._replace(r=mdp.r.ravel())
    in_slices(action_values, len(rows.p), mdp.S, *rows, V, Q.ravel())
    return Q


def threaded(mdp: MDP) -> bool:
    """Whether a sweep over all transitions is worth several threads."""
    return mdp.is_sparse and mdp.csr.nnz >= threads.SLICE and compiled()


def greedy(mdp: MDP, Q: F) -> tuple[F, I]:
    """Largest legal Q(s,a) and the first action that attains it, both (S,).

    >>> greedy(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), np.array([[0.0, 2.0]]))
    (array([2.]), array([1]))
    """
    Q = Q if mdp.legal.all() else np.where(mdp.legal, Q, -np.inf)
    if threaded(mdp):
        TV, actions = np.empty(mdp.S), np.empty(mdp.S, np.int64)
        in_slices(largest, Q.size, mdp.S, np.uint64(mdp.A), Q.ravel(), TV, actions.view(np.uint64))
        return TV, actions
    actions = Q.argmax(axis=1)
    return Q[np.arange(mdp.S), actions], actions


def policy(mdp: MDP, actions: I) -> Callable[[F], F]:
    """The backup V -> T_pi V of deterministic actions (S,).

    >>> policy(MDP([[[0, 1], [1, 0]], [[0, 1], [0, 1]]], [[0, 1], [2, 3]], 0.5), np.array([0, 0]))(np.array([0.0, 4.0]))
    array([2., 4.])
    """
    if mdp.is_sparse and compiled():
        rows, chosen = rows_of(mdp), actions.view(np.uint64)
        if len(rows.p) > CACHED:
            rows, chosen = packed(rows, actions), np.zeros(mdp.S, np.uint64)

        def sweep(V: F) -> F:
            TV = np.empty(mdp.S)
            in_slices(jacobi_policy, len(rows.p) // int(rows.A), mdp.S, *rows, V, TV, chosen)
            return TV

        return sweep
    at = np.arange(mdp.S) * mdp.A + actions
    r, P = mdp.r.ravel()[at], mdp.rows[at]
    return lambda V: r + mdp.gamma * (P @ V)
