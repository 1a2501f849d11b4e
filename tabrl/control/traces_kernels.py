"""The updates of the control learners with eligibility traces.

Q (S,A) action values and q (S·A,) the same memory; legal (S,A), None where all is; x moves; delta TD error; lam
trace decay; alpha (m,) step size of a pair's k-th update; count (S·A,) updates of each pair.
"""

from typing import NamedTuple

from tabrl._jit import kernel
from tabrl.control.kernels import Moves, act, best
from tabrl.learning_kernels import step_size
from tabrl.sample import Tables
from tabrl.types import B, F, I

SARSA_LAMBDA, WATKINS_Q = 0, 1


class Traces(NamedTuple):
    """Eligibility traces, and the list of pairs where they are not 0."""

    z: F  # (S·A,)
    pairs: I  # (S·A,) numbers s A + a, the first size[0] of them
    size: I  # (1,)


@kernel
def raise_trace(traces: Traces, i: int, kind: int, a: float) -> None:
    """Raise the trace of pair i at its visit: accumulating (0), replacing (1) or dutch (2) with step size a."""
    z, pairs, size = traces
    if z[i] == 0.0:
        pairs[size[0]] = i
        size[0] += 1
    if kind == 0:
        z[i] += 1.0
    elif kind == 1:
        z[i] = 1.0
    else:
        z[i] += 1.0 - a * z[i]


@kernel
def spread(q: F, traces: Traces, move: float, decay: float) -> None:
    """Q <- Q + move z, z <- decay z; a pair whose trace is 0 then leaves the list."""
    z, pairs, size = traces
    n = 0
    for k in range(size[0]):
        i = pairs[k]
        q[i] += move * z[i]
        z[i] *= decay
        pairs[n] = i
        n += z[i] > 0.0
    size[0] = n


@kernel
def trace_update(
    rule: int, kind: int, lam: float, Q: F, q: F, legal: B | None, traces: Traces, alpha: F, count: I, x: Moves, t: int
) -> float:
    """Learn from move t of x; return the TD error."""
    s, a, s_next = x.s[t], x.a[t], x.s_next[t]
    if rule == WATKINS_Q:
        if Q[s, a] < best(Q, legal, s):
            spread(q, traces, 0.0, 0.0)  # a was not greedy: what came before has no part in what follows
        ahead = best(Q, legal, s_next)
    else:
        ahead = Q[s_next, x.a_next[t]]
    delta: float = x.r[t] + x.discount[t] * ahead - Q[s, a]
    i = s * Q.shape[1] + a
    step = step_size(alpha, count, i)
    raise_trace(traces, i, kind, step)
    spread(q, traces, step * delta, 0.0 if x.last[t] else lam * x.discount[t])
    return delta


@kernel
def trace_walk(
    rule: int, kind: int, lam: float, Q: F, q: F, legal: B | None, eps: float, traces: Traces, alpha: F, count: I,
    model: Tables, limit: int, at: I, u: F, x: Moves,
) -> float:  # fmt: skip
    """Act and learn for len(u) steps on an explicit model; return the last TD error."""
    delta = 0.0
    for t in range(u.shape[0]):
        act(rule == SARSA_LAMBDA, Q, legal, eps, model, limit, at, u[t], x, t)
        delta = trace_update(rule, kind, lam, Q, q, legal, traces, alpha, count, x, t)
    return delta
