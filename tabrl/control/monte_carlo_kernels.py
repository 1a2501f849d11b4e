"""Monte Carlo control: what an episode teaches at its end, and the walk over an explicit model.

Q (S,A) action values, changed in place; legal (S,A); s, a, r, discount, b: the columns of a `Trail`, of which
T steps count; G return; W product of 1/b over the steps after t; alpha, updates, C, first: those of a `Tally`.
"""

from typing import NamedTuple

from tabrl._jit import kernel
from tabrl.control.kernels import Moves, best, choose, draw_outcome, mean, towards
from tabrl.kernels import first_state
from tabrl.sample import Tables
from tabrl.types import B, F, I

FIRST, EVERY, WEIGHTED = 0, 1, 2


class Behaviour(NamedTuple):
    """How a learner acts."""

    eps: float  # exploration of the eps-greedy policy in Q
    pi: F  # (S,A) a given policy, taken instead of it; (0,0) for none
    starts: I  # (L,) pairs s·A+a that an episode starts with, each as likely; (0,) where it starts from mu


class Trail(NamedTuple):
    """The running episode, with room for n steps."""

    s: I  # (n,)
    a: I  # (n,)
    r: F  # (n,)
    discount: F  # (n,)
    b: F  # (n,) probability with which a[t] was drawn


class Tally(NamedTuple):
    """What a learner counts."""

    alpha: F  # (m,) step size of a pair's k-th update
    updates: I  # (S·A,) updates of each pair so far
    C: F  # (S,A) sum of the weights W of each pair's returns
    first: I  # (S·A,) room for the step of each pair's first visit in an episode


@kernel
def act(Q: F, legal: B, eps: float, pi: F, s: int, x: float) -> int:
    """Draw an action in state s: from pi where it is given, else eps-greedy in Q."""
    if pi.shape[0] == 0:
        return choose(Q, legal, s, eps, x)
    chosen, below = -1, 0.0
    for a in range(Q.shape[1]):
        chosen = a if pi[s, a] > 0.0 and x >= below else chosen
        below += pi[s, a]
    return chosen


@kernel
def chance(Q: F, legal: B, eps: float, pi: F, s: int, a: int) -> float:
    """Return the probability with which `act` draws a."""
    if pi.shape[0] > 0:
        return pi[s, a]  # type: ignore[no-any-return]
    top, n, ties = best(Q, legal, s), 0, 0
    for i in range(Q.shape[1]):
        n += legal[s, i]
        ties += legal[s, i] & (Q[s, i] == top)
    return eps / n + ((1.0 - eps) / ties if Q[s, a] == top else 0.0)


@kernel
def target_action(Q: F, legal: B, s: int) -> int:
    """Return the first of the legal actions that maximise Q(s,a)."""
    top = best(Q, legal, s)
    for a in range(Q.shape[1]):
        if legal[s, a] and Q[s, a] == top:
            return a
    return -1


@kernel
def average_returns(
    Q: F, s: I, a: I, r: F, discount: F, T: int, G: float, every_visit: bool, alpha: F, updates: I, first: I
) -> float:
    """Q(s,a) <- Q(s,a) + alpha (G - Q(s,a)) for each pair's first visit, or every visit, last step first."""
    A, delta = Q.shape[1], 0.0
    for t in range(T - 1, -1, -1):
        first[s[t] * A + a[t]] = t
    for t in range(T - 1, -1, -1):
        G = r[t] + discount[t] * G
        if every_visit or first[s[t] * A + a[t]] == t:
            delta = towards(Q, s[t], a[t], G, alpha, updates)
    return delta


@kernel
def weighted_returns(Q: F, legal: B, s: I, a: I, r: F, discount: F, b: F, T: int, G: float, C: F) -> float:
    """Q(s,a) <- Q(s,a) + W/C (G - Q(s,a)), from the last step back to the last action that is not the target's."""
    W, delta = 1.0, 0.0
    for t in range(T - 1, -1, -1):
        G = r[t] + discount[t] * G
        C[s[t], a[t]] += W
        delta = G - Q[s[t], a[t]]
        Q[s[t], a[t]] += W / C[s[t], a[t]] * delta
        if a[t] != target_action(Q, legal, s[t]):
            break
        W /= b[t]
    return delta


@kernel
def learn_episode(
    rule: int, Q: F, legal: B, eps: float, s: I, a: I, r: F, discount: F, b: F, T: int, s_end: int, alpha: F,
    updates: I, C: F, first: I,
) -> float:  # fmt: skip
    """Learn from an episode of T steps that ended in s_end; return the last error.

    Where a limit cut it, the return goes on with the value of s_end to the policy that Q is learned for;
    after a terminal state the last discount is 0, and the value does not count.
    """
    if rule == WEIGHTED:
        return weighted_returns(Q, legal, s, a, r, discount, b, T, best(Q, legal, s_end), C)
    tail = mean(Q, legal, s_end, eps)
    return average_returns(Q, s, a, r, discount, T, tail, rule == EVERY, alpha, updates, first)


@kernel
def walk(
    rule: int, Q: F, legal: B, behaviour: Behaviour, trail: Trail, tally: Tally, model: Tables, limit: int,
    delta: float, at: I, u: F, out: Moves,
) -> float:  # fmt: skip
    """Act for len(u) steps on an explicit model and learn where episodes end; return the last error so far.

    u (n,3): the action, the outcome, the start. at: state (-1: start an episode), nothing, and steps so far.
    out is filled with the transitions. Tuples are unpacked here: their columns are slow to reach in the loop.
    """
    eps, pi, starts = behaviour
    trail_s, trail_a, trail_r, trail_discount, b = trail
    alpha, updates, C, first = tally
    to, pays, gamma, ends = model.s_next, model.r, model.discount, model.ends
    start, start_keep, start_other = model.start, model.start_keep, model.start_other
    out_s, out_a, out_r, out_discount, out_s_next, out_a_next, out_last = out
    s, T, A, L = at[0], at[2], Q.shape[1], starts.shape[0]
    for t in range(u.shape[0]):
        a = -1
        if s < 0 and L > 0:
            pair = starts[int(u[t, 2] * L)]
            s, a, T = pair // A, pair % A, 0
        elif s < 0:
            s, T = first_state(start, start_keep, start_other, u[t, 2]), 0
        if a < 0:
            a = act(Q, legal, eps, pi, s, u[t, 0])
        o = draw_outcome(model, s * A + a, u[t, 1])
        trail_s[T], trail_a[T], trail_r[T], trail_discount[T] = s, a, pays[o], gamma[o]
        if rule == WEIGHTED:
            b[T] = chance(Q, legal, eps, pi, s, a)
        T += 1
        over = ends[o] or limit <= T
        out_s[t], out_a[t], out_r[t], out_discount[t] = s, a, pays[o], gamma[o]
        out_s_next[t], out_a_next[t], out_last[t] = to[o], -1, over
        s = to[o]
        if over:
            delta = learn_episode(
                rule, Q, legal, eps, trail_s, trail_a, trail_r, trail_discount, b, T, s, alpha, updates, C, first
            )
            s = -1
    at[0], at[2] = s, T
    return delta
