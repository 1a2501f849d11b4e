"""The order of the sweeps: by the number of steps to where values come from, whichever process that is on.

n states of this process, then g ghosts; distance (n+g,) steps to the nearest source; back[start[s]:start[s+1]] lists
the states of this process that can lead to s in one step.
"""

import numpy as np

from tabrl._jit import compiled, kernel
from tabrl.ordering import NONE, ONE, Rows, predecessors
from tabrl.petsc.processes import Spread, largest, total
from tabrl.petsc.rows import Block
from tabrl.sliding import MANY
from tabrl.types import B, F, I, Index

EXCHANGES = 20  # after which distances are taken as they are: only the speed of the sweeps depends on them


def sweep_order(block: Block, rows: Rows, distances: Spread) -> I:
    """Order (n,) of the states of this process: reverse breadth first from the sources of all processes together.

    rows: over states and ghosts; distances: a vector to exchange them. Where nothing is compiled the sweeps have no
    order, and states stay as they are. Source: Wingate & Seppi (2005).
    """
    n = len(block.terminal)
    if not compiled():
        return np.arange(n)
    start, back = np.zeros(n + len(distances.ghosts) + 1, np.uint64), np.empty(len(rows.indices), np.uint32)
    predecessors(rows.A, rows.indptr, rows.indices, start, back)
    seeds, distance = np.flatnonzero(sources(block)), np.full(len(start) - 1, np.inf)
    distance[seeds] = 0.0
    for k in range(EXCHANGES):
        distances.own[:] = distance[:n]
        with distances.all() as newest:
            news = k == 0 or (newest[n:] < distance[n:]).any()
            distance[n:] = newest[n:]
        if not largest(float(news))[0]:
            break
        ghosts = n + np.argsort(distance[n:], kind="stable")
        hops(start, back, np.concatenate((seeds, ghosts)).astype(np.uint64), distance, np.empty(n, np.uint64))
    return np.argsort(distance[:n], kind="stable")


def sources(block: Block) -> B:
    """Where values come from, (n,): `sliding.sources` of the whole model."""
    best = np.where(block.legal & ~block.terminal[:, None], block.r, -np.inf).max(axis=1)
    top, ends = largest(best.max(), float(block.terminal.any()))
    paid: B = best >= (top / 2 if top > 0 else top)
    if ends and (top <= 0 or total(paid.sum()) > MANY * total(len(paid))):
        return block.terminal
    return paid


@kernel
def hops(start: Index, back: Index, seeds: Index, distance: F, queue: Index) -> None:
    """Lower the distances to what the seeds, in the order of theirs, make of them; queue (n,) is scratch."""
    i, head, tail = NONE, NONE, NONE
    while i < seeds.shape[0] or head < tail:
        if head == tail or (i < seeds.shape[0] and distance[seeds[i]] <= distance[queue[head]]):
            s = seeds[i]
            i += ONE
        else:
            s = queue[head]
            head += ONE
        for j in range(start[s], start[s + ONE]):
            x = back[j]
            if distance[s] + 1.0 < distance[x]:
                distance[x] = distance[s] + 1.0
                queue[tail] = x
                tail += ONE
