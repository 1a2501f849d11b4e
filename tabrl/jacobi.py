"""One backup of all states at once, as fast as the model allows: BLAS for dense P, compiled threads for sparse P.

V (S,) values; actions (S,) numbers of actions. The same numbers as `bellman`, which is the definition.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tabrl._jit import compiled
from tabrl.bellman import q_from_v
from tabrl.mdp import MDP
from tabrl.ordering import as_rows, rows_of
from tabrl.sweep_kernels import jacobi, jacobi_policy
from tabrl.types import F, I

THREADS = min(os.cpu_count() or 1, 8)
CACHED = 2_000_000  # transitions beyond which the rows of a policy are copied next to each other
SLICE = 250_000  # transitions that are worth a thread


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


def greedy(mdp: MDP, Q: F) -> tuple[F, I]:
    """Largest legal Q(s,a) and the first action that attains it, both (S,).

    >>> greedy(MDP([[[1.0], [1.0]]], [[0, 2]], 0.5), np.array([[0.0, 2.0]]))
    (array([2.]), array([1]))
    """
    best = (Q if mdp.legal.all() else np.where(mdp.legal, Q, -np.inf)).argmax(axis=1)
    return Q[np.arange(mdp.S), best], best


def policy(mdp: MDP, actions: I) -> Callable[[F], F]:
    """The backup V -> T_pi V of deterministic actions (S,).

    >>> policy(MDP([[[0, 1], [1, 0]], [[0, 1], [0, 1]]], [[0, 1], [2, 3]], 0.5), np.array([0, 0]))(np.array([0.0, 4.0]))
    array([2., 4.])
    """
    if mdp.is_sparse and compiled():
        rows, chosen = rows_of(mdp), actions.view(np.uint64)
        if len(rows.p) > CACHED:
            at = np.arange(mdp.S) * mdp.A + actions
            rows, chosen = as_rows(mdp.csr[at], rows.r[at], 1, mdp.gamma), np.zeros(mdp.S, np.uint64)

        def sweep(V: F) -> F:
            TV = np.empty(mdp.S)
            in_slices(jacobi_policy, len(rows.p) // int(rows.A), mdp.S, *rows, V, TV, chosen)
            return TV

        return sweep
    at = np.arange(mdp.S) * mdp.A + actions
    r, P = mdp.r.ravel()[at], mdp.rows[at]
    return lambda V: r + mdp.gamma * (P @ V)


def in_slices(sweep: Any, work: int, S: int, *arguments: Any) -> None:
    """Run sweep(lo, hi, *arguments) over 0, …, S - 1, in threads side by side where there is work for them."""
    n, run = min(THREADS, work // SLICE), sweep.build()
    if n < 2:
        run(np.uint64(0), np.uint64(S), *arguments)
        return
    edges = np.linspace(0, S, n + 1).astype(np.uint64)
    others = [threading.Thread(target=run, args=(*edges[k : k + 2], *arguments)) for k in range(1, n)]
    for thread in others:
        thread.start()
    run(*edges[:2], *arguments)
    for thread in others:
        thread.join()
