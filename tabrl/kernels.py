"""The loops over single states, on CSR rows s·A+a (indptr, indices, p); compiled when numba is installed.

r, legal (S,A); V (S,), changed in place; gamma discount. The last of them draws transitions.
"""

import heapq

import numpy as np

from tabrl._jit import allocating, kernel
from tabrl.types import B, F, I


@kernel
def backup(s: int, indptr: I, indices: I, p: F, r: F, legal: B, gamma: float, V: F) -> float:
    """Return max over legal a of r(s,a) + gamma * sum over s' of P(s'|s,a) V(s')."""
    A = r.shape[1]
    best = -float("inf")
    for a in range(A):
        if legal[s, a]:
            ahead = 0.0
            for i in range(indptr[s * A + a], indptr[s * A + a + 1]):
                ahead += p[i] * V[indices[i]]
            best = max(best, r[s, a] + gamma * ahead)
    return best


@kernel
def gauss_seidel_sweep(indptr: I, indices: I, p: F, r: F, legal: B, gamma: float, V: F) -> float:
    """Back up the states in order, each with the newest values; return the largest change."""
    change = 0.0
    for s in range(V.shape[0]):
        old = V[s]
        V[s] = backup(s, indptr, indices, p, r, legal, gamma, V)
        change = max(change, abs(V[s] - old))
    return change


@allocating
def prioritized_backups(
    n: int, indptr: I, indices: I, p: F, r: F, legal: B, gamma: float, V: F, error: F, back_indptr: I, back: I
) -> int:
    """Back up the state of largest Bellman error, n times; keep error (S,) current. Return backups done.

    back[back_indptr[s]:back_indptr[s+1]] lists the states that can lead to s in one step. The heap may
    hold outdated entries; one is skipped when its priority is no longer the state's error.
    """
    heap = [(-error[s], s) for s in range(V.shape[0]) if error[s] > 0.0]
    heapq.heapify(heap)
    done = 0
    while heap and done < n:
        priority, s = heapq.heappop(heap)
        if error[s] != -priority:
            continue
        V[s] = backup(s, indptr, indices, p, r, legal, gamma, V)
        error[s] = 0.0
        done += 1
        for i in range(back_indptr[s], back_indptr[s + 1]):
            x = back[i]
            gap = abs(backup(x, indptr, indices, p, r, legal, gamma, V) - V[x])
            if gap != error[x]:
                error[x] = gap
                if gap > 0.0:
                    heapq.heappush(heap, (-gap, x))
    return done


@kernel
def first_state(start: I, keep: F, other: I, x: float) -> int:
    """Draw the first state of an episode by an alias table over the states in `start`."""
    scaled = x * start.shape[0]
    i = int(scaled)
    if scaled - i >= keep[i]:
        i = other[i]
    return start[i]  # type: ignore[no-any-return]


@kernel
def walk(
    u: I,
    K: int,
    keep: I,
    other: I,
    row: I,
    row_other: I,
    to: I,
    pays: F,
    gamma: F,
    ends: B,
    start: I,
    start_keep: F,
    start_other: I,
    limit: int,
    at: I,
    outcome: I,
    s: I,
    s_next: I,
    r: F,
    discount: F,
    last: B,
) -> None:
    """Follow a policy for len(s) steps by its alias tables (see `sample.Stream`).

    u (n,1 or 2): uniform 32-bit numbers. u K has the column in its upper half, and in its lower half what is
    compared with keep. gamma, ends (S,): by the state that follows. at: state, its first outcome, and steps so far,
    carried over from call to call. The arrays from outcome on are filled.

    Whole numbers without sign are fast: compiled code need not ask whether an index is negative, and both rows that
    may follow are read before it is known which one does.
    """
    state, here, steps = at[0], at[1], at[2]
    for t in range(s.shape[0]):
        x = np.uint64(u[t, 0]) * K
        o = here + (x >> np.uint64(32))
        kept = (x & np.uint64(0xFFFFFFFF)) < keep[o]
        near, far = row[o], row_other[o]
        here = near if kept else far
        o = o if kept else other[o]
        outcome[t], s[t], r[t] = o, state, pays[o]
        state = to[o]
        s_next[t], discount[t] = state, gamma[state]
        steps += np.uint64(1)
        over = ends[state] or steps >= limit
        last[t] = over
        if over:
            state = start[0] if start.shape[0] == 1 else first_state(start, start_keep, start_other, u[t, 1] / 2.0**32)
            here, steps = np.uint64(state) * K, np.uint64(0)
    at[0], at[1], at[2] = state, here, steps
