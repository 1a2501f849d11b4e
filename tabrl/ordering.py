"""The order in which Gauss-Seidel sweeps visit states, and models renumbered in that order.

Values flow against the transitions, away from where reward is earned or the episode ends. Sweeping in reverse
breadth-first order from there carries them through the whole model at once.

Rows: a model as the sweeps read it. order (S,) states in the order of the sweep.
"""

from typing import NamedTuple

import numpy as np

from tabrl._jit import kernel
from tabrl.mdp import MDP
from tabrl.threads import in_slices
from tabrl.types import B, F, I, Index, Matrix, N


class Rows(NamedTuple):
    """Arguments of the sweeps: row s·A+a of a CSR matrix, whole numbers without sign."""

    A: N
    indptr: Index  # (S·A+1,)
    indices: Index  # (nnz,)
    p: F  # (nnz,)
    r: F  # (S·A,) -inf where the action is illegal
    gamma: float


def rows_of(mdp: MDP) -> Rows:
    """Read a model as `Rows`; nothing is copied but r where actions are illegal.

    >>> rows_of(MDP([[[0.5, 0.5]], [[0, 1]]], [1, 0], 0.9)).indptr
    array([0, 2, 3], dtype=uint32)
    """
    r = mdp.r if mdp.legal.all() else np.where(mdp.legal, mdp.r, -np.inf)
    return as_rows(mdp.csr, r, mdp.A, mdp.gamma)


def as_rows(P: Matrix, r: F, A: int, gamma: float) -> Rows:
    """Read a CSR matrix (S·A,S) and rewards as `Rows`."""
    return Rows(np.uint64(A), unsigned(P.indptr), unsigned(P.indices), P.data, np.ascontiguousarray(r).ravel(), gamma)


def unsigned(x: Index) -> Index:
    """The same whole numbers, none of them negative, without sign."""
    return x.view(np.dtype(f"u{x.dtype.itemsize}"))


def reverse_breadth_first(rows: Rows, source: B) -> Index:
    """States by the number of steps in which they can reach a source; last, in their order, those that never do.

    >>> walk = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [0, 0, 0], 1.0, terminal=[0, 0, 1])
    >>> reverse_breadth_first(rows_of(walk), walk.terminal)
    array([2, 1, 0], dtype=uint32)
    """
    S = len(source)
    start, back = np.zeros(S + 1, np.uint64), np.empty(len(rows.indices), np.uint32)
    predecessors(rows.A, rows.indptr, rows.indices, start, back)
    order, seen = np.empty(S, np.uint32), source.copy()
    seeds = np.flatnonzero(source)
    order[: len(seeds)] = seeds
    n = int(spread(start, back, order, seen, np.uint64(len(seeds))))
    order[n:] = np.flatnonzero(~seen)
    return order


@kernel
def predecessors(A: N, indptr: Index, indices: Index, start: Index, back: Index) -> None:
    """List the states that can lead to s in back[start[s]:start[s+1]], one entry for each transition."""
    S = np.uint64(start.shape[0] - 1)
    for i in range(indices.shape[0]):
        start[indices[i]] += ONE
    total = NONE
    for s in range(S + ONE):  # the end of each list, from which it is filled backwards
        total += start[s]
        start[s] = total
    for s in range(S):
        for i in range(indptr[s * A], indptr[s * A + A]):
            x = indices[i]
            start[x] -= ONE
            back[start[x]] = s


@kernel
def spread(start: Index, back: Index, order: Index, seen: B, n: N) -> N:
    """Breadth-first search from order[:n]; fill order, mark seen, and return how many states were reached."""
    k = NONE
    while k < n:
        for i in range(start[order[k]], start[order[k] + ONE]):
            x = back[i]
            if not seen[x]:
                seen[x] = True
                order[n] = x
                n += ONE
        k += ONE
    return n


NONE, ONE = np.uint64(0), np.uint64(1)


def renumbered(rows: Rows, order: Index) -> Rows:
    """The same model with state order[k] as number k, its rows next to each other in memory."""
    number = np.empty(len(order), rows.indices.dtype)
    number[order] = np.arange(len(order), dtype=number.dtype)
    new = rows._replace(**{name: np.empty_like(getattr(rows, name)) for name in ("indptr", "indices", "p", "r")})
    lengths(order, rows.A, rows.indptr, new.indptr)
    in_slices(gather, len(rows.p), len(order), order, number, *rows[:5], *new[1:5])
    return new


@kernel
def lengths(order: Index, A: N, indptr: Index, to: Index) -> None:
    """Where the rows of order[0], order[1], … start when they follow each other."""
    to[0] = NONE
    for k in range(order.shape[0]):
        for a in range(A):
            at = order[k] * A + a
            to[k * A + a + ONE] = to[k * A + a] + (indptr[at + ONE] - indptr[at])


@kernel
def gather(
    lo: N, hi: N, order: Index, number: Index, A: N, indptr: Index, indices: Index, p: F, r: F, to: Index,
    to_indices: Index, to_p: F, to_r: F,
) -> None:  # fmt: skip
    """Copy the rows of order[lo], …, order[hi - 1] to their new places."""
    for k in range(lo, hi):
        j, first = to[k * A], order[k] * A
        for a in range(A):
            to_r[k * A + a] = r[first + a]
        for i in range(indptr[first], indptr[first + A]):
            to_indices[j], to_p[j] = number[indices[i]], p[i]
            j += ONE


def packed(rows: Rows, actions: I) -> Rows:
    """The rows of deterministic actions (S,), next to each other in memory; `gather` would look every number up again.

    >>> walk = MDP([[[0, 1], [1, 0]], [[1, 0], [0.5, 0.5]]], [[1, 2], [3, 4]], 0.9)
    >>> packed(rows_of(walk), np.array([0, 1]))[1:5]
    (array([0, 1, 3], dtype=uint32), array([1, 0, 1], dtype=uint32), array([1. , 0.5, 0.5]), array([1., 4.]))
    """
    S = len(actions)
    at = np.arange(S, dtype=np.uint64) * rows.A + actions.view(np.uint64)
    to, r = np.empty(S + 1, rows.indptr.dtype), np.empty(S)
    lengths(at, ONE, rows.indptr, to)
    indices, p = np.empty(to[-1], rows.indices.dtype), np.empty(to[-1])
    in_slices(pack, len(rows.p), S, at, *rows[1:5], to, indices, p, r)
    return Rows(ONE, to, indices, p, r, rows.gamma)


@kernel
def pack(
    lo: N, hi: N, at: Index, indptr: Index, indices: Index, p: F, r: F, to: Index, to_indices: Index, to_p: F, to_r: F
) -> None:
    """Copy the rows at[lo], …, at[hi - 1] to their new places."""
    for s in range(lo, hi):
        j, to_r[s] = to[s], r[at[s]]
        for i in range(indptr[at[s]], indptr[at[s] + ONE]):
            to_indices[j], to_p[j] = indices[i], p[i]
            j += ONE
