"""What a model can reach and where it can stay, from the pattern of P alone.

An end component is a set of states with actions that never leave it: a policy can stay there forever.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from tabrl.graph_kernels import approach, drop_entering, drop_leaving, flood, strong
from tabrl.mdp import MDP
from tabrl.types import B, I, Matrix

SMALL = 2000  # transitions up to which searches run as plain Python


def end_components(mdp: MDP, allowed: B | None = None) -> tuple[I, B]:
    """Maximal end components among the non-terminal states.

    allowed: (S,A) actions that may be used, all legal ones unless given. Returns (component, inside):
    component (S,), its number from 0, or -1 for states outside; inside (S,A), the actions that stay.
    In turn, actions are dropped that can leave their strongly connected component, and those that can lead to a state
    without any action left; most models need two or three rounds, each of the order of the transitions.
    Source: de Alfaro (1997), algorithm 3.1; Baier & Katoen (2008), algorithm 47.

    >>> loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [0, 0], 1.0, terminal=[0, 1])
    >>> end_components(loop)[0]
    array([ 0, -1])
    """
    S, A, rows = mdp.S, mdp.A, mdp.csr
    inside = mdp.legal & ~mdp.terminal[:, None]
    inside = (inside if allowed is None else inside & allowed).ravel()
    left, lost = inside.reshape(S, A).sum(axis=1), np.empty(S, np.int64)
    outside = np.flatnonzero(left == 0)
    lost[: len(outside)], n, dropped = outside, len(outside), 1
    start, back = leading_to(rows)
    while dropped:
        fast(drop_entering, rows.nnz)(A, start, back, inside, left, lost, n)
        label = strong_components(rows, inside)
        dropped, n = fast(drop_leaving, rows.nnz)(A, rows.indptr, rows.indices, label, inside, left, lost)
    member = left > 0
    used = np.zeros(S, np.bool_)
    used[label[member]] = True
    return np.where(member, (np.cumsum(used) - 1)[label], -1), inside.reshape(S, A)


def strong_components(rows: Matrix, use: B) -> I:
    """Number (S,) of each state's strongly connected component under the rows s·A+a that `use` (S·A,) marks.

    rows: CSR (S·A,S). Components come in topological order: what can be reached from one has a smaller number or the
    same. Source: Tarjan (1972).

    >>> strong_components(sp.csr_array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]), np.ones(3, np.bool_))
    array([1, 1, 0])
    """
    S = rows.shape[1]
    label, scratch = np.full(S, -1), [np.zeros(S, np.int64) for _ in range(6)]
    fast(strong, rows.nnz)(len(use) // max(S, 1), rows.indptr, rows.indices, use, label, *scratch)
    return label


def leading_to(rows: Matrix) -> tuple[I, I]:
    """For each column of a CSR matrix the rows with an entry there: the second array from start[s] to start[s+1]."""
    pattern = sp.csr_array((np.ones(rows.nnz, np.bool_), rows.indices, rows.indptr), shape=rows.shape).tocsc()
    return pattern.indptr, pattern.indices


def fast(search: Callable[..., Any], work: int) -> Callable[..., Any]:
    """Return the compiled search, or its source where compiling or loading it would take longer than running that."""
    return search if work > SMALL else search.py_func  # type: ignore[attr-defined]


def recurrent_classes(P: Matrix) -> tuple[I, int]:
    """Closed communicating classes of a chain: (class of each state or -1, how many).

    P: (S,S) dense or CSR; states whose row is zero are terminal and belong to no class.

    >>> recurrent_classes(np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    (array([-1,  0, -1]), 1)
    """
    graph = sp.csr_array(P)
    row, col = graph.nonzero()
    n, label = connected_components(graph, directed=True, connection="strong")
    closed = np.ones(n, np.bool_)
    closed[label[row[label[row] != label[col]]]] = False
    closed[label[np.diff(graph.indptr) == 0]] = False
    number = np.where(closed, np.cumsum(closed) - 1, -1)
    return number[label].astype(np.int64), int(closed.sum())


def distance_to(mdp: MDP, target: B, allowed: B | None = None) -> tuple[I, I]:
    """Fewest steps in which each state can reach `target`, and an action that moves closer.

    target: (S,) mask. Returns (distance (S,), -1 where unreachable; action (S,), -1 on the target and
    where unreachable). The policy made of these actions reaches the target with probability 1 from
    every state it can reach it from, if no other state can be entered.

    >>> walk = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [0, 0, 0], 1.0, terminal=[0, 0, 1])
    >>> distance_to(walk, walk.terminal)
    (array([2, 1, 0]), array([ 0,  0, -1]))
    """
    usable = mdp.legal if allowed is None else mdp.legal & allowed
    distance, action = np.where(target, 0, -1), np.full(mdp.S, -1)
    queue, first = np.empty(mdp.S, np.int64), np.flatnonzero(target)
    queue[: len(first)] = first
    start, back = leading_to(mdp.csr)
    fast(approach, len(back))(mdp.A, start, back, usable.ravel(), distance, action, queue, len(first))
    return distance, action


def breadth_first(P: Matrix, target: B) -> I:
    """States (S,) of a CSR matrix by the steps in which they can reach `target` (S,); those that cannot come last.

    >>> breadth_first(sp.csr_array([[0.0, 1.0], [0.0, 0.0]]), np.array([False, True]))
    array([1, 0])
    """
    distance, use = np.where(target, 0, -1), np.ones(len(target), np.bool_)
    order, first = np.empty(len(target), np.int64), np.flatnonzero(target)
    order[: len(first)] = first
    start, back = leading_to(P)
    fast(approach, len(back))(1, start, back, use, distance, np.full(len(target), -1), order, len(first))
    lost = np.flatnonzero(distance < 0)
    order[len(target) - len(lost) :] = lost
    return order


def reachable(mdp: MDP, start: B, pi: B | None = None) -> B:
    """States that can be reached from `start` (S,) mask, by any legal action or by those where pi > 0.

    >>> m = MDP([[[1, 0], [1, 0]], [[0, 1], [1, 0]]], [0, 0], 0.9)
    >>> reachable(m, np.array([True, False]))
    array([ True, False])
    """
    use = (mdp.legal if pi is None else pi > 0) & ~mdp.terminal[:, None]
    return follow(mdp.csr, use.ravel(), start)


def follow(rows: Matrix, use: B, start: B) -> B:
    """States that can be reached from `start` (S,) by the rows s·A+a of a CSR matrix (S·A,S) that `use` marks.

    >>> follow(sp.csr_array([[0.0, 1.0], [0.0, 1.0]]), np.array([True, True]), np.array([False, True]))
    array([False,  True])
    """
    seen, queue, first = start.copy(), np.empty(len(start), np.int64), np.flatnonzero(start)
    queue[: len(first)] = first
    A = len(use) // max(len(start), 1)
    fast(flood, rows.nnz)(A, rows.indptr, rows.indices, rows.data, use, seen, queue, len(first))
    return seen
