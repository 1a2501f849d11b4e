"""Acting with a fixed policy on an explicit model.

pi (S,A) probabilities of the actions; x a uniform number; u (n,3) uniform numbers of each step: the action, the
outcome, the start of an episode. model: alias tables of `acting.pairs`, row s A + a.
"""

from tabrl._jit import kernel
from tabrl.control.kernels import draw_outcome
from tabrl.kernels import first_state
from tabrl.sample import Tables
from tabrl.types import B, F, I


@kernel
def draw_action(pi: F, s: int, x: float) -> int:
    """Return the action in which the running sum of pi(·|s) passes x; where rounding keeps it below, the last one."""
    total, chosen = 0.0, 0
    for a in range(pi.shape[1]):
        p = pi[s, a]
        if p > 0.0:
            chosen = a
            total += p
            if x < total:
                return chosen
    return chosen


@kernel
def play(
    pi: F, model: Tables, limit: int, whole: int, at: I, u: F, s: I, a: I, r: F, discount: F, s_next: I, last: B
) -> int:
    """Act for len(u) steps, or until `whole` episodes have ended; fill s … last and return the number of steps.

    at: state (-1: start an episode), steps so far and episodes ended, carried over from call to call.
    """
    to, pays, gamma, ends = model.s_next, model.r, model.discount, model.ends
    start, start_keep, start_other = model.start, model.start_keep, model.start_other
    state, steps, ended, A = at[0], at[1], at[2], pi.shape[1]
    n = len(u)
    for t in range(n):
        if state < 0:
            state, steps = first_state(start, start_keep, start_other, u[t, 2]), 0
        action = draw_action(pi, state, u[t, 0])
        o = draw_outcome(model, state * A + action, u[t, 1])
        steps += 1
        over = ends[o] or steps >= limit
        s[t], a[t], r[t], discount[t], s_next[t], last[t] = state, action, pays[o], gamma[o], to[o], over
        state = -1 if over else to[o]
        ended += over
        if ended == whole:
            n = t + 1
            break
    at[0], at[1], at[2] = state, steps, ended
    return n
