"""The loops over single states, on CSR rows s·A+a (indptr, indices, p); compiled when numba is installed.

r, legal (S,A); V (S,), changed in place; gamma discount.
"""

import heapq

from tabrl._jit import kernel
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


@kernel
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
def walk(
    u: F,
    K: int,
    keep: F,
    other: I,
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
    """Follow a policy for len(s) steps by its alias tables (see `sample.Tables`).

    at: state, or -1 for a new start, and steps so far; carried over from call to call. The arrays from
    outcome on are filled.
    """
    state, steps = at[0], at[1]
    for t in range(s.shape[0]):
        if state < 0:
            i = 0
            if start.shape[0] > 1:
                x = u[t, 1] * start.shape[0]
                i = int(x)
                if x - i >= start_keep[i]:
                    i = start_other[i]
            state = start[i]
            steps = 0
        x = u[t, 0] * K
        i = int(x)
        o = state * K + i
        instead = other[o]
        o = o if x - i < keep[o] else instead  # a select: a branch would be mispredicted
        steps += 1
        outcome[t], s[t], r[t], discount[t] = o, state, pays[o], gamma[o]
        state = to[o]
        s_next[t] = state
        last[t] = ends[o] or steps >= limit
        if last[t]:
            state = -1
    at[0], at[1] = state, steps
