"""Acting, learning and planning on the tables of a learned model.

Q (S,A) action values, changed in place; legal (S,A); p = s A + a a pair; alpha (m,) step size of a pair's
k-th update; count (S·A,) updates of each pair so far; x moves, t the one at hand; u uniform numbers.
"""

import math
from typing import NamedTuple

from tabrl._jit import kernel
from tabrl.control.kernels import Moves, act, allowed, best, towards
from tabrl.sample import Tables
from tabrl.types import B, F, I


class Memory(NamedTuple):
    """What Dyna-Q knows of the world: the last outcome of each pair that it has met."""

    s_next: I  # (S·A,) -1 where the pair was never met
    r: F  # (S·A,)
    discount: F  # (S·A,) 0 where the step ended the episode, gamma where a time limit cut it
    tried: I  # (S·A,) the step at which the pair was last tried; 0: never
    pairs: I  # (S·A,) the pairs met, in the order of meeting
    n: I  # (2,) how many they are; steps so far


class Plan(NamedTuple):
    """How Dyna-Q plans."""

    n: int  # updates per step
    kappa: float  # bonus for pairs not tried for long
    untried: bool  # whether a state's untried actions are planned too
    gamma: float


class Counts(NamedTuple):
    """The most likely model of what was seen: E edges, one for each pair and state that it went on into."""

    n: I  # (S·A,) how often the pair was tried
    r: F  # (S·A,) its mean reward
    edge: I  # (S·A,) its newest edge, -1 for none
    back: I  # (S,) the newest edge into a state, -1 for none
    edges: I  # (1,) how many edges there are
    pair: I  # (E,) where the edge comes from
    s_next: I  # (E,) where it leads
    taken: I  # (E,) how often it was taken; a step that ends the episode takes none
    edge_next: I  # (E,) the pair's next older edge
    back_next: I  # (E,) the next older edge into the same state


class Queue(NamedTuple):
    """The pairs that wait for an update, as a binary heap: none has a smaller priority than its two children."""

    heap: I  # (S·A,) pairs; the children of place i are at 2 i + 1 and 2 i + 2
    place: I  # (S·A,) where each pair stands, -1 if it does not wait
    priority: F  # (S·A,) of the pairs that wait
    length: I  # (1,) how many wait


class Sweeping(NamedTuple):
    """How prioritized sweeping plans."""

    n: int  # updates per step, at most
    theta: float  # smaller errors are left alone
    gamma: float


# ---- Dyna-Q: the last outcome, pairs at random ----


@kernel
def dyna_walk(
    Q: F, legal: B | None, eps: float, alpha: F, count: I, memory: Memory, plan: Plan, model: Tables, limit: int, at: I,
    u: F, out: Moves,
) -> float:  # fmt: skip
    """Act, learn and plan for len(u) steps on an explicit model; return the last error."""
    delta = 0.0
    for t in range(u.shape[0]):
        act(False, Q, legal, eps, model, limit, at, u[t], out, t)
        delta = dyna_step(Q, legal, alpha, count, memory, plan, out, t, u)
    return delta


@kernel
def dyna_step(Q: F, legal: B | None, alpha: F, count: I, memory: Memory, plan: Plan, x: Moves, t: int, u: F) -> float:
    """Learn from move t, remember it, and plan; return the error of the move itself.

    Planning takes a pair that was met, each as likely as the other, by the numbers u[t,3], u[t,4], …
    """
    A = Q.shape[1]
    target = x.r[t] + x.discount[t] * best(Q, legal, x.s_next[t])
    delta: float = towards(Q, x.s[t], x.a[t], target, alpha, count)
    remember(legal, A, memory, plan, x, t)
    met, now = memory.n
    for k in range(plan.n):
        p = memory.pairs[int(u[t, 3 + k] * met)]
        bonus = plan.kappa * math.sqrt(now - memory.tried[p])
        target = memory.r[p] + bonus + memory.discount[p] * best(Q, legal, memory.s_next[p])
        towards(Q, p // A, p % A, target, alpha, count)
    return delta


@kernel
def remember(legal: B | None, A: int, memory: Memory, plan: Plan, x: Moves, t: int) -> None:
    """Store the outcome of move t. With `untried`, the state's other actions are met too: they stay and pay 0."""
    s, a = x.s[t], x.a[t]
    for b in range(0 if plan.untried else a, A if plan.untried else a + 1):
        p = s * A + b
        if allowed(legal, s, b) and memory.s_next[p] < 0:
            memory.pairs[memory.n[0]] = p
            memory.n[0] += 1
            memory.s_next[p], memory.r[p], memory.discount[p] = s, 0.0, plan.gamma
    p = s * A + a
    memory.n[1] += 1
    memory.tried[p] = memory.n[1]
    memory.s_next[p], memory.r[p], memory.discount[p] = x.s_next[t], x.r[t], x.discount[t]


# ---- prioritized sweeping: counts, the largest error first ----


@kernel
def sweeping_walk(
    Q: F, legal: B | None, eps: float, alpha: F, count: I, counts: Counts, queue: Queue, plan: Sweeping, model: Tables,
    limit: int, at: I, u: F, out: Moves,
) -> float:  # fmt: skip
    """Act and plan for len(u) steps on an explicit model; return the last error."""
    delta = 0.0
    for t in range(u.shape[0]):
        act(False, Q, legal, eps, model, limit, at, u[t], out, t)
        delta = sweeping_step(Q, legal, alpha, count, counts, queue, plan, out, t)
    return delta


@kernel
def sweeping_step(
    Q: F, legal: B | None, alpha: F, count: I, counts: Counts, queue: Queue, plan: Sweeping, x: Moves, t: int
) -> float:  # fmt: skip
    """Count move t, queue its pair, and update the pairs at the head of the queue; return the move's error."""
    A = Q.shape[1]
    record(counts, A, x, t)
    p = x.s[t] * A + x.a[t]
    delta: float = expected(Q, legal, counts, plan.gamma, p) - Q[x.s[t], x.a[t]]
    offer(queue, plan.theta, p, abs(delta))
    for _ in range(plan.n):
        p = take(queue)
        if p < 0:
            break
        s = p // A
        towards(Q, s, p % A, expected(Q, legal, counts, plan.gamma, p), alpha, count)
        e = counts.back[s]
        while e >= 0:
            p = counts.pair[e]
            error = expected(Q, legal, counts, plan.gamma, p) - Q[p // A, p % A]
            offer(queue, plan.theta, p, abs(error))
            e = counts.back_next[e]
    return delta


@kernel
def record(counts: Counts, A: int, x: Moves, t: int) -> None:
    """Count move t."""
    p, s_next = x.s[t] * A + x.a[t], x.s_next[t]
    counts.n[p] += 1
    counts.r[p] += (x.r[t] - counts.r[p]) / counts.n[p]
    if x.discount[t] > 0.0:
        e = counts.edge[p]
        while e >= 0 and counts.s_next[e] != s_next:
            e = counts.edge_next[e]
        if e < 0:
            e = counts.edges[0]
            counts.edges[0] += 1
            counts.pair[e], counts.s_next[e], counts.taken[e] = p, s_next, 0
            counts.edge_next[e], counts.back_next[e] = counts.edge[p], counts.back[s_next]
            counts.edge[p], counts.back[s_next] = e, e
        counts.taken[e] += 1


@kernel
def expected(Q: F, legal: B | None, counts: Counts, gamma: float, p: int) -> float:
    """Return the mean over what was seen after pair p of r + discount max over a' of Q(s',a')."""
    ahead, e = 0.0, counts.edge[p]
    while e >= 0:
        ahead += counts.taken[e] / counts.n[p] * best(Q, legal, counts.s_next[e])
        e = counts.edge_next[e]
    return counts.r[p] + gamma * ahead  # type: ignore[no-any-return]


# ---- the queue: the largest priority first, of equals the lowest pair ----


@kernel
def offer(queue: Queue, theta: float, p: int, error: float) -> None:
    """Queue a pair whose error exceeds theta, unless it waits with as large a priority."""
    waits = queue.place[p] >= 0
    if error > theta and not (waits and queue.priority[p] >= error):
        queue.priority[p] = error
        i = queue.place[p] if waits else queue.length[0]
        queue.length[0] += not waits
        while i > 0 and before(queue.priority, p, queue.heap[(i - 1) // 2]):
            put(queue, i, queue.heap[(i - 1) // 2])
            i = (i - 1) // 2
        put(queue, i, p)


@kernel
def take(queue: Queue) -> int:
    """Take the first pair from the queue; -1 if it is empty."""
    n = queue.length[0] - 1
    if n < 0:
        return -1
    first, p, i = queue.heap[0], queue.heap[n], 0
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and before(queue.priority, queue.heap[child + 1], queue.heap[child]):
            child += 1
        if before(queue.priority, p, queue.heap[child]):
            break
        put(queue, i, queue.heap[child])
        i = child
    put(queue, i, p)
    queue.place[first], queue.length[0] = -1, n
    return first  # type: ignore[no-any-return]


@kernel
def before(priority: F, p: int, q: int) -> bool:
    """Whether pair p comes before pair q."""
    return priority[p] > priority[q] or (priority[p] == priority[q] and p < q)


@kernel
def put(queue: Queue, i: int, p: int) -> None:
    """Write pair p in place i."""
    queue.heap[i], queue.place[p] = p, i
