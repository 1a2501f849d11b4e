"""What a model can reach and where it can stay, from the pattern of P alone.

An end component is a set of states with actions that never leave it: a policy can stay there forever.
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from tabrl.mdp import MDP
from tabrl.types import B, I, Matrix


def end_components(mdp: MDP, allowed: B | None = None) -> tuple[I, B]:
    """Maximal end components among the non-terminal states.

    allowed: (S,A) actions that may be used, all legal ones unless given. Returns (component, inside):
    component (S,), its number from 0, or -1 for states outside; inside (S,A), the actions that stay.
    Source: de Alfaro (1997), algorithm 3.1; Baier & Katoen (2008), algorithm 47.

    >>> loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [0, 0], 1.0, terminal=[0, 1])
    >>> end_components(loop)[0]
    array([ 0, -1])
    """
    S, A = mdp.S, mdp.A
    inside = mdp.legal & ~mdp.terminal[:, None]
    if allowed is not None:
        inside = inside & allowed
    row, col = mdp.csr.nonzero()
    while True:
        use = inside.ravel()[row]
        graph = sp.csr_array((np.ones(int(use.sum()), np.bool_), (row[use] // A, col[use])), shape=(S, S))
        _, label = connected_components(graph, directed=True, connection="strong")
        leaves = np.zeros(S * A, np.bool_)
        outside: B = ~np.asarray(inside.any(axis=1))
        leaves[row[use & ((label[row // A] != label[col]) | outside[col])]] = True
        if not leaves.any():
            break
        inside = inside & ~leaves.reshape(S, A)
    component = np.full(S, -1)
    member: B = np.asarray(inside.any(axis=1))
    component[member] = np.unique(label[member], return_inverse=True)[1]
    return component, inside


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
    back = sp.csc_array(mdp.csr)  # column s' lists the rows s·A+a that can lead to it
    distance = np.where(target, 0, -1)
    action = np.full(mdp.S, -1)
    frontier, d = np.flatnonzero(target), 0
    while len(frontier):
        d += 1
        rows = np.unique(np.concatenate([back.indices[back.indptr[s] : back.indptr[s + 1]] for s in frontier]))
        s, a = np.divmod(rows, mdp.A)
        new = usable[s, a] & (distance[s] < 0)
        s, a = s[new], a[new]
        action[s[::-1]] = a[::-1]  # the first action where several lead there
        distance[s] = d
        frontier = np.unique(s)
    return distance, action


def reachable(mdp: MDP, start: B, pi: B | None = None) -> B:
    """States that can be reached from `start` (S,) mask, by any legal action or by those where pi > 0.

    >>> m = MDP([[[1, 0], [1, 0]], [[0, 1], [1, 0]]], [0, 0], 0.9)
    >>> reachable(m, np.array([True, False]))
    array([ True, False])
    """
    use = (mdp.legal if pi is None else pi > 0) & ~mdp.terminal[:, None]
    row, col = mdp.csr.nonzero()
    keep = use.ravel()[row]
    graph = sp.csr_array((np.ones(int(keep.sum())), (row[keep] // mdp.A, col[keep])), shape=(mdp.S, mdp.S))
    seen = start.copy()
    frontier = seen.astype(np.float64)
    while frontier.any():
        frontier = (graph.T @ frontier > 0) & ~seen
        seen |= frontier
        frontier = frontier.astype(np.float64)
    return seen
