"""The updates of the n-step control learners.

Q (S,A) action values, changed in place; legal (S,A), None where all is; pi eps-greedy in Q; x moves, of which those
from `first` on wait for their update; G target; alpha (m,) step size of a pair's k-th update; count (S·A,) updates
of each pair.
"""

from tabrl._jit import kernel
from tabrl.control.kernels import Moves, act, allowed, best, mean, towards
from tabrl.sample import Tables
from tabrl.types import B, F, I

N_STEP_SARSA, N_STEP_EXPECTED_SARSA, TREE_BACKUP = 0, 1, 2


@kernel
def chance(Q: F, legal: B | None, s: int, a: int, eps: float) -> float:
    """Return pi(a|s) of a legal action, ties broken uniformly."""
    top = best(Q, legal, s)
    n, ties = 0, 0
    for b in range(Q.shape[1]):
        n += allowed(legal, s, b)
        ties += allowed(legal, s, b) & (Q[s, b] == top)
    greedy = 1.0 / max(ties, 1) if Q[s, a] == top else 0.0
    return eps / n + (1.0 - eps) * greedy


@kernel
def n_step_return(rule: int, Q: F, legal: B | None, eps: float, x: Moves, first: int, h: int) -> float:
    """G = r[first] + discount r[first+1] + … + discount**n W, W what the state after move h is worth in Q."""
    s_next = x.s_next[h]
    G = Q[s_next, x.a_next[h]] if rule == N_STEP_SARSA else mean(Q, legal, s_next, eps)
    for k in range(h, first - 1, -1):
        G = x.r[k] + x.discount[k] * G
    return G


@kernel
def tree_return(Q: F, legal: B | None, eps: float, x: Moves, first: int, h: int) -> float:
    """G = r + discount (sum over b of pi(b|s') Q(s',b), with the G of the next move in place of Q(s',a'))."""
    G = x.r[h] + x.discount[h] * mean(Q, legal, x.s_next[h], eps)
    for k in range(h - 1, first - 1, -1):
        s, a = x.s[k + 1], x.a[k + 1]
        inside = mean(Q, legal, s, eps) + chance(Q, legal, s, a, eps) * (G - Q[s, a])
        G = x.r[k] + x.discount[k] * inside
    return G  # type: ignore[no-any-return]


@kernel
def catch_up(
    rule: int, n: int, Q: F, legal: B | None, eps: float, alpha: F, count: I, x: Moves, first: int, h: int, error: F
) -> int:
    """Update every pair whose target is known after move h; return the first that still waits. error[0]: last error.

    That is the pair of n moves ago, and all that wait when the episode ends.
    """
    while first <= h and (x.last[h] or h - first == n - 1):
        if rule == TREE_BACKUP:
            G = tree_return(Q, legal, eps, x, first, h)
        else:
            G = n_step_return(rule, Q, legal, eps, x, first, h)
        error[0] = towards(Q, x.s[first], x.a[first], G, alpha, count)
        first += 1
    return first


@kernel
def n_step_walk(
    rule: int, n: int, Q: F, legal: B | None, eps: float, eps_pi: float, alpha: F, count: I, model: Tables,
    limit: int, at: I, u: F, x: Moves, error: F,
) -> int:  # fmt: skip
    """Act and learn for len(u) steps, behind the moves in x that wait; return the first that waits then.

    eps explores, eps_pi is that of the policy in the targets.
    """
    first, before = 0, x.r.shape[0] - u.shape[0]
    for t in range(u.shape[0]):
        act(rule == N_STEP_SARSA, Q, legal, eps, model, limit, at, u[t], x, before + t)
        first = catch_up(rule, n, Q, legal, eps_pi, alpha, count, x, first, before + t, error)
    return first
