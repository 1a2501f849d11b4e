"""The updates of the control learners, and the walk that applies them to an explicit model.

Q (S,A) action values, changed in place; pair (2,S,A) the two tables of double Q-learning; legal (S,A);
alpha (m,) step size of a pair's k-th update; count (S·A,) updates of each pair so far; x a uniform number.
"""

from typing import NamedTuple

import numpy as np

from tabrl._jit import kernel
from tabrl.learning_kernels import step_size
from tabrl.sample import Tables
from tabrl.types import B, F, I

Q_LEARNING, SARSA, EXPECTED_SARSA, DOUBLE_Q = 0, 1, 2, 3


class Moves(NamedTuple):
    """Transitions with their actions."""

    s: I  # (n,)
    a: I  # (n,)
    r: F  # (n,)
    discount: F  # (n,)
    s_next: I  # (n,)
    a_next: I  # (n,) the action chosen in s_next; -1 for learners that choose it later
    last: B  # (n,) whether the episode ends with this step, terminated or cut


@kernel
def allowed(legal: B | None, s: int, a: int) -> bool:
    """Whether action a is legal in state s; None stands for a model where everything is."""
    if legal is None:  # decided when the kernel is compiled
        return True
    return legal[s, a]  # type: ignore[no-any-return]


@kernel
def best(Q: F, legal: B | None, s: int) -> float:
    """Return the maximum of Q(s,a) over the legal actions."""
    row, top = np.uint32(s), -float("inf")  # without a sign: no index has to be compared with 0
    for a in range(Q.shape[1]):
        q = Q[row, a] if allowed(legal, s, a) else top
        top = q if q > top else top  # a select: a branch would be mispredicted
    return top


@kernel
def choose(Q: F, legal: B | None, s: int, eps: float, x: float) -> int:
    """Draw an eps-greedy action: with probability eps any legal one, else one of the maximisers.

    eps=0 draws one of the maximisers, each as likely as the other.
    """
    row, explore = np.uint32(s), x < eps
    top, n, chosen = -float("inf"), 0, 0
    for a in range(Q.shape[1]):
        if allowed(legal, s, a):
            q = 0.0 if explore else Q[row, a]
            more = q > top
            n = 1 if more else n + (q == top)
            chosen, top = (a, q) if more else (chosen, top)
    if n == 1:
        return chosen
    skip = int((x / eps if explore else (x - eps) / (1.0 - eps)) * n)
    for a in range(Q.shape[1]):
        candidate = allowed(legal, s, a) & (explore | (Q[row, a] == top))
        chosen = a if candidate & (skip >= 0) else chosen
        skip -= candidate
    return chosen


@kernel
def mean(Q: F, legal: B | None, s: int, eps: float) -> float:
    """Return the sum over a of pi(a|s) Q(s,a), pi eps-greedy in Q."""
    total, n = 0.0, 0
    for a in range(Q.shape[1]):
        total += Q[s, a] if allowed(legal, s, a) else 0.0
        n += allowed(legal, s, a)
    return eps * total / n + (1.0 - eps) * best(Q, legal, s)


@kernel
def towards(Q: F, s: int, a: int, target: float, alpha: F, count: I) -> float:
    """Q(s,a) <- Q(s,a) + alpha (target - Q(s,a)). Return the error."""
    row, column = np.uint32(s), np.uint32(a)
    delta: float = target - Q[row, column]
    Q[row, column] += step_size(alpha, count, s * Q.shape[1] + a) * delta
    return delta


@kernel
def next_value(rule: int, Q: F, legal: B | None, eps: float, s_next: int, a_next: int) -> float:
    """What the next state is worth to a learner with one table: the target is r + discount times it."""
    if rule == Q_LEARNING:
        return best(Q, legal, s_next)
    if rule == SARSA:
        return Q[s_next, a_next]  # type: ignore[no-any-return]
    return mean(Q, legal, s_next, eps)


@kernel
def double_q_update(
    Q: F, pair: F, legal: B | None, s: int, a: int, r: float, discount: float, s_next: int, alpha: F, count: I, x: float
) -> float:
    """Q1(s,a) <- Q1(s,a) + alpha (r + discount Q2(s', argmax Q1(s',·)) - Q1(s,a)), or with the roles swapped.

    Q is the mean of the two tables pair = (Q1, Q2). x < .5 moves the first; the rest of x breaks ties.
    """
    i = int(2.0 * x)
    a_star = choose(pair[i], legal, s_next, 0.0, 2.0 * x - i)
    delta: float = r + discount * pair[1 - i, s_next, a_star] - pair[i, s, a]
    pair[i, s, a] += step_size(alpha, count, s * Q.shape[1] + a) * delta
    Q[s, a] = 0.5 * (pair[0, s, a] + pair[1, s, a])
    return delta


@kernel
def update(rule: int, Q: F, pair: F, legal: B | None, eps: float, moves: Moves, alpha: F, count: I, x: float) -> float:
    """Apply the update of one learner to one transition, arrays of length 1; return its error."""
    s, a, r, discount, s_next, a_next, _ = moves
    if rule == DOUBLE_Q:
        return double_q_update(Q, pair, legal, s[0], a[0], r[0], discount[0], s_next[0], alpha, count, x)
    target = r[0] + discount[0] * next_value(rule, Q, legal, eps, s_next[0], a_next[0])
    return towards(Q, s[0], a[0], target, alpha, count)


@kernel
def draw_start(start: I, keep: F, other: I, x: float) -> int:
    """Draw the first state of an episode."""
    scaled = x * start.shape[0]
    i = int(scaled)
    if scaled - i >= keep[i]:
        i = other[i]
    return start[i]  # type: ignore[no-any-return]


@kernel
def draw_outcome(model: Tables, row: int, x: float) -> int:
    """Draw an outcome of a row s A + a of the alias tables: an index of model.s_next, r, discount and ends."""
    scaled = x * model.K
    i = int(scaled)
    o = row * model.K + i
    instead = model.other[o]
    return o if scaled - i < model.keep[o] else instead


@kernel
def learn(
    rule: int, Q: F, pair: F, legal: B | None, eps: float, alpha: F, count: I, model: Tables, limit: int, at: I, u: F,
    out: Moves,
) -> float:  # fmt: skip
    """Act and learn for len(u) steps on an explicit model; return the last error.

    u (n,3 or 4): the action, the outcome, the start, and one more (SARSA's first action of an episode, double
    Q-learning's coin). at: state (-1: start an episode), next action and steps so far, carried from call
    to call. out is filled with the transitions.
    """
    K, keep, other, to, pays, gamma, ends, start, start_keep, start_other, _ = model
    out_s, out_a, out_r, out_discount, out_s_next, out_a_next, out_last = out
    s, a, steps, delta, A = at[0], at[1], at[2], 0.0, Q.shape[1]
    for t in range(u.shape[0]):
        if s < 0:
            s, steps = draw_start(start, start_keep, start_other, u[t, 2]), 0
            if rule == SARSA:
                a = choose(Q, legal, s, eps, u[t, 3])
        if rule != SARSA:
            a = choose(Q, legal, s, eps, u[t, 0])
        x = u[t, 1] * K
        i = int(x)
        o = np.uint32((s * A + a) * K + i)
        instead = other[o]
        o = o if x - i < keep[o] else instead  # a select: a branch would be mispredicted
        r, discount, s_next, a_next = pays[o], gamma[o], to[o], -1
        if rule == SARSA:
            a_next = choose(Q, legal, s_next, eps, u[t, 0])
        if rule == DOUBLE_Q:  # as in `update`, without the cost of the call
            delta = double_q_update(Q, pair, legal, s, a, r, discount, s_next, alpha, count, u[t, 3])
        else:
            target = r + discount * next_value(rule, Q, legal, eps, s_next, a_next)
            delta = towards(Q, s, a, target, alpha, count)
        steps += 1
        over = ends[o] or steps >= limit
        out_s[t], out_a[t], out_r[t], out_discount[t] = s, a, r, discount
        out_s_next[t], out_a_next[t], out_last[t] = s_next, a_next, over
        s, a = -1 if over else np.int64(s_next), a_next
    at[0], at[1], at[2] = s, a, steps
    return delta
