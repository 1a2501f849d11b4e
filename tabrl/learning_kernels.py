"""The inner loops of the prediction learners, over buffers that may hold many episodes.

V (S,) changed in place; s, s_next, r, discount, last (n,) transitions; z (S,) trace; alpha (m,) step size
of a state's k-th update, the last entry standing for all later ones; count (S,) updates of each state so far.
Each returns its last error.
"""

import numpy as np

from tabrl._jit import kernel
from tabrl.types import B, F, I


@kernel
def step_size(alpha: F, count: I, s: int) -> float:
    """Step size of the next update of state s, which is counted."""
    k = min(count[s], alpha.shape[0] - 1)
    count[s] += 1
    return alpha[k]  # type: ignore[no-any-return]


@kernel
def td0_pass(V: F, s: I, s_next: I, r: F, discount: F, alpha: F, count: I) -> float:
    """V(s) <- V(s) + alpha (r + discount V(s_next) - V(s)), one transition after the other."""
    delta = 0.0
    for t in range(r.shape[0]):
        delta = r[t] + discount[t] * V[s_next[t]] - V[s[t]]
        V[s[t]] += step_size(alpha, count, s[t]) * delta
    return delta


@kernel
def n_step_pass(
    V: F, s: I, s_next: I, r: F, discount: F, last: B, n: int, most: int, alpha: F, count: I, error: F
) -> int:
    """Update towards n-step returns as soon as they are known; return how many states were updated.

    Stops after `most` updates, or where a return needs transitions beyond the buffer. error[0]: last error.
    """
    T = r.shape[0]
    for t in range(min(most, T)):
        h = t
        while h < T - 1 and h - t < n - 1 and not last[h]:
            h += 1
        if h - t < n - 1 and not last[h]:
            return t
        G = V[s_next[h]]
        for k in range(h, t - 1, -1):
            G = r[k] + discount[k] * G
        error[0] = G - V[s[t]]
        V[s[t]] += step_size(alpha, count, s[t]) * error[0]
    return int(min(most, T))


@kernel
def towards(V: F, s: I, G: F, use: B, alpha: F, count: I) -> float:
    """V(s) <- V(s) + alpha (G - V(s)) for the marked visits, in their order."""
    delta = 0.0
    for t in range(s.shape[0]):
        if use[t]:
            delta = G[t] - V[s[t]]
            V[s[t]] += step_size(alpha, count, s[t]) * delta
    return delta


@kernel
def td_lambda_pass(
    V: F, z: F, s: I, s_next: I, r: F, discount: F, last: B, lam: float, trace: int, alpha: F, count: I
) -> float:
    """V <- V + alpha delta z with an accumulating (0), replacing (1) or dutch (2) trace z, carried over."""
    delta = 0.0
    for t in range(r.shape[0]):
        delta = r[t] + discount[t] * V[s_next[t]] - V[s[t]]
        a = step_size(alpha, count, s[t])
        if trace == 0:
            z[s[t]] += 1.0
        elif trace == 1:
            z[s[t]] = 1.0
        else:
            z[s[t]] += 1.0 - a * z[s[t]]
        decay = 0.0 if last[t] else lam * discount[t]
        move = a * delta
        for i in range(V.shape[0]):
            V[i] += move * z[i]
            z[i] *= decay
    return delta


@kernel
def true_online_pass(
    V: F, z: F, old: F, s: I, s_next: I, r: F, discount: F, last: B, lam: float, alpha: F, count: I
) -> float:
    """True online TD(lambda): old[0] is the value that s had when it was entered; carried over, like z."""
    delta = 0.0
    for t in range(r.shape[0]):
        v, v_next = V[s[t]], V[s_next[t]]
        delta = r[t] + discount[t] * v_next - v
        a = step_size(alpha, count, s[t])
        z[s[t]] += 1.0 - a * z[s[t]]
        gap = v - old[0]
        move = a * (delta + gap)
        decay = 0.0 if last[t] else lam * discount[t]
        V[s[t]] -= a * gap
        for i in range(V.shape[0]):
            V[i] += move * z[i]
            z[i] *= decay
        old[0] = 0.0 if last[t] else v_next
    return delta


@kernel
def n_step_runs(V: F, first: I, s: I, s_next: I, r: F, discount: F, last: B, n: int, alpha: float, error: F) -> None:
    """One episode of n-step TD in each of many runs: run i owns V[i] (S,) and transitions first[i] … first[i+1]-1."""
    size, count = error[1:2], np.zeros(V.shape[1], np.int64)
    size[0] = alpha
    for i in range(V.shape[0]):
        a, b = first[i], first[i + 1]
        n_step_pass(V[i], s[a:b], s_next[a:b], r[a:b], discount[a:b], last[a:b], n, b - a, size, count, error)
