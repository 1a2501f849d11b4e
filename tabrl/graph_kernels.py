"""The searches of `graph`, on CSR rows s·A+a (indptr, indices); compiled when numba is installed.

use (S·A,) actions that may be taken. back[start[s]:start[s+1]] lists the rows that can lead to s. Each looks at every
transition once. Whole numbers come with sign, so that -1 can stand for "none".
"""

from tabrl._jit import kernel
from tabrl.types import B, F, I


@kernel
def strong(
    A: int, indptr: I, indices: I, use: B, label: I, number: I, low: I, row: I, edge: I, path: I, waiting: I
) -> int:
    """Number the strongly connected components: label (S,), -1 before; return how many. Source: Tarjan (1972).

    number, low (S,): 0 before; order of discovery, and the lowest one known to lie in the same component.
    row, edge (S,): where the walk over a state's transitions stands. path, waiting (S,): stacks.
    """
    count, found, n = 0, 0, 0
    for root in range(label.shape[0]):
        depth = 0 if number[root] == 0 else -1
        path[0] = root
        while depth >= 0:
            s = path[depth]
            if number[s] == 0:
                found += 1
                number[s], low[s], row[s], edge[s], waiting[n] = found, found, s * A, indptr[s * A], s
                n += 1
            x = unseen(s, A, indptr, indices, use, label, number, low, row, edge)
            depth += 1
            if x >= 0:
                path[depth] = x
                continue
            depth -= 2
            if low[s] == number[s]:
                while label[s] < 0:
                    n -= 1
                    label[waiting[n]] = count
                count += 1
    return count


@kernel
def unseen(s: int, A: int, indptr: I, indices: I, use: B, label: I, number: I, low: I, row: I, edge: I) -> int:
    """Go on along the transitions of s to one that leads to an undiscovered state, and return that; -1 at the end."""
    while row[s] < s * A + A:
        k = row[s]
        if not use[k] or edge[s] == indptr[k + 1]:
            row[s], edge[s] = k + 1, indptr[k + 1]
            continue
        x = indices[edge[s]]
        if number[x] == 0:
            return x  # type: ignore[no-any-return]
        if label[x] < 0:
            low[s] = min(low[s], low[x])
        edge[s] += 1
    return -1


@kernel
def drop_leaving(A: int, indptr: I, indices: I, label: I, inside: B, left: I, lost: I) -> tuple[int, int]:
    """Drop the actions that can leave their component; return how many, and how many states in `lost` have none left.

    inside (S·A,) and left (S,), the number of actions inside, are changed in place; lost (S,) is filled.
    """
    dropped, n = 0, 0
    for k in range(inside.shape[0]):
        if not inside[k]:
            continue
        s = k // A
        for i in range(indptr[k], indptr[k + 1]):
            if label[indices[i]] != label[s]:
                inside[k] = False
                break
        if not inside[k]:
            dropped += 1
            left[s] -= 1
            if left[s] == 0:
                lost[n] = s
                n += 1
    return dropped, n


@kernel
def drop_entering(A: int, start: I, back: I, inside: B, left: I, lost: I, n: int) -> None:
    """Drop the actions that can lead to lost[:n], and so on from states that lose their last one."""
    while n > 0:
        n -= 1
        x = lost[n]
        for i in range(start[x], start[x + 1]):
            k = back[i]
            if inside[k]:
                inside[k] = False
                left[k // A] -= 1
                if left[k // A] == 0:
                    lost[n] = k // A
                    n += 1


@kernel
def approach(A: int, start: I, back: I, use: B, distance: I, action: I, queue: I, n: int) -> None:
    """Breadth-first search backwards from queue[:n], where distance is 0; elsewhere it is -1 before."""
    k = 0
    while k < n:
        x = queue[k]
        k += 1
        for i in range(start[x], start[x + 1]):
            s, a = back[i] // A, back[i] % A
            if not use[back[i]]:
                continue
            if distance[s] < 0:
                distance[s], action[s] = distance[x] + 1, a
                queue[n] = s
                n += 1
            elif distance[s] == distance[x] + 1:
                action[s] = min(action[s], a)  # the first action where several lead there


@kernel
def flood(A: int, indptr: I, indices: I, p: F, use: B, seen: B, queue: I, n: int) -> None:
    """Mark in seen (S,) whatever follows the states queue[:n], which are marked."""
    while n > 0:
        n -= 1
        s = queue[n]
        for k in range(s * A, s * A + A):
            if not use[k]:
                continue
            for i in range(indptr[k], indptr[k + 1]):
                x = indices[i]
                if p[i] > 0 and not seen[x]:
                    seen[x] = True
                    queue[n] = x
                    n += 1
