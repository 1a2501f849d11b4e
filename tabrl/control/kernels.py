"""The updates of the control learners, and the walk that applies them to an explicit model.

Q (S,A) action values, changed in place; pair (2,S,A) the two tables of double Q-learning; legal (S,A);
alpha (m,) step size of a pair's k-th update; count (S·A,) updates of each pair so far; x a uniform number.
"""

from typing import Any, NamedTuple

import numpy as np

from tabrl._jit import kernel
from tabrl.kernels import first_state
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
def update(
    rule: int, Q: F, pair: F, legal: B | None, eps: float, alpha: F, count: I, x: Moves, t: int, coin: float
) -> float:
    """Apply the update of one learner to move t of x; return its error."""
    s, a, s_next = x.s[t], x.a[t], x.s_next[t]
    if rule == DOUBLE_Q:
        return double_q_update(Q, pair, legal, s, a, x.r[t], x.discount[t], s_next, alpha, count, coin)
    target = x.r[t] + x.discount[t] * next_value(rule, Q, legal, eps, s_next, x.a_next[t])
    return towards(Q, s, a, target, alpha, count)


@kernel
def draw_outcome(model: Tables, row: int, x: float) -> int:
    """Draw an outcome of a row s A + a of the alias tables: an index of model.s_next, r, discount and ends."""
    scaled = x * model.K
    i = int(scaled)
    o: Any = np.uint32(row * model.K + i)
    instead = model.other[o]  # a select: a branch would be mispredicted
    return o if scaled - i < model.keep[o] else instead  # type: ignore[no-any-return]


@kernel
def act(
    ahead: bool, Q: F, legal: B | None, eps: float, model: Tables, limit: int, at: I, u: F, x: Moves, t: int
) -> None:
    """Take one eps-greedy step on an explicit model and write it down as move t of x.

    ahead: the next action is chosen now, and taken unless the episode ends. at: state (-1: start an episode),
    next action and steps so far. u: the action, the outcome, the start (if there are several), and an episode's
    first action if ahead.
    """
    s, a, a_next, steps = at[0], at[1], -1, at[2]
    several = model.start.shape[0] > 1
    if s < 0:
        s = first_state(model.start, model.start_keep, model.start_other, u[2]) if several else model.start[0]
        steps = 0
        if ahead:
            a = choose(Q, legal, s, eps, u[3])
    if not ahead:
        a = choose(Q, legal, s, eps, u[0])
    o = draw_outcome(model, s * Q.shape[1] + a, u[1])
    s_next = model.s_next[o]
    if ahead:
        a_next = choose(Q, legal, s_next, eps, u[0])
    steps += 1
    over = model.ends[o] or steps >= limit
    x.s[t], x.a[t], x.r[t], x.discount[t] = s, a, model.r[o], model.discount[o]
    x.s_next[t], x.a_next[t], x.last[t] = s_next, a_next, over
    at[0], at[1], at[2] = -1 if over else np.int64(s_next), a_next, steps


@kernel
def learn(
    rule: int, Q: F, pair: F, legal: B | None, eps: float, alpha: F, count: I, model: Tables, limit: int, at: I, u: F,
    x: Moves,
) -> float:  # fmt: skip
    """Act and learn for len(u) steps on an explicit model, filling x; return the last error.

    u (n,2 to 4): what `act` takes; for double Q-learning the last one is its coin. at: carried from call to call.
    """
    delta = 0.0
    for t in range(u.shape[0]):
        act(rule == SARSA, Q, legal, eps, model, limit, at, u[t], x, t)
        delta = update(rule, Q, pair, legal, eps, alpha, count, x, t, u[t, u.shape[1] - 1])
    return delta
