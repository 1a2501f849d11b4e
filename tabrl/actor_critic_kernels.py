"""One-step actor-critic on an explicit model.

theta, z_theta (S,A) preferences and their trace; V, z_V (S,) critic and its trace; p (1,A) a row of the policy.
rates (6,): alpha_theta, alpha_V, gamma lam_theta, gamma lam_V, decay of I per step; and I itself, the factor gamma^t.
"""

import math

from tabrl._jit import kernel
from tabrl.control.kernels import allowed, draw_outcome
from tabrl.kernels import first_state
from tabrl.rollout_kernels import draw_action
from tabrl.sample import Tables
from tabrl.types import B, F, I


@kernel
def policy_row(theta: F, legal: B | None, s: int, p: F) -> None:
    """Write the softmax probabilities of state s to p (1,A), 0 for illegal actions."""
    top, total = -float("inf"), 0.0
    for a in range(theta.shape[1]):
        if allowed(legal, s, a):
            top = max(top, theta[s, a])
    for a in range(theta.shape[1]):
        p[0, a] = math.exp(theta[s, a] - top) if allowed(legal, s, a) else 0.0
        total += p[0, a]
    for a in range(theta.shape[1]):
        p[0, a] /= total


@kernel
def td_step(
    theta: F, V: F, z_theta: F, z_V: F, p: F, rates: F, s: int, a: int, r: float, discount: float, s_next: int
) -> float:
    """Move the critic and the policy by one TD error, which is returned; p (1,A) is the policy in s."""
    delta: float = r + discount * V[s_next] - V[s]
    alpha_theta, alpha_V, fade_theta, fade_V = rates[0], rates[1], rates[2], rates[3]
    first, end = (0, V.shape[0]) if fade_theta > 0.0 or fade_V > 0.0 else (s, s + 1)  # without traces, s alone
    for i in range(first, end):
        z_V[i] *= fade_V
        for b in range(theta.shape[1]):
            z_theta[i, b] *= fade_theta
    z_V[s] += 1.0
    for b in range(theta.shape[1]):
        z_theta[s, b] += rates[5] * ((1.0 if b == a else 0.0) - p[0, b])
    for i in range(first, end):
        V[i] += alpha_V * delta * z_V[i]
        for b in range(theta.shape[1]):
            theta[i, b] += alpha_theta * delta * z_theta[i, b]
    rates[5] *= rates[4]
    return delta


@kernel
def restart(z_theta: F, z_V: F, rates: F) -> None:
    """Forget the episode that has ended."""
    rates[5] = 1.0
    for i in range(z_theta.shape[0]):
        z_V[i] = 0.0
        for b in range(z_theta.shape[1]):
            z_theta[i, b] = 0.0


@kernel
def act_and_improve(
    theta: F, V: F, z_theta: F, z_V: F, p: F, rates: F, legal: B | None, model: Tables, limit: int, at: I, u: F, seen: I
) -> None:
    """Act and learn for len(u) steps; count the states in which it acted in seen (S,).

    u (n,3): the action, the outcome, the start of an episode. at: state (-1: start an episode) and steps so far,
    carried over from call to call.
    """
    to, pays, gamma, ends = model.s_next, model.r, model.discount, model.ends
    start, start_keep, start_other = model.start, model.start_keep, model.start_other
    s, steps, A = at[0], at[1], theta.shape[1]
    for t in range(u.shape[0]):
        if s < 0:
            s, steps = first_state(start, start_keep, start_other, u[t, 2]), 0
            restart(z_theta, z_V, rates)
        seen[s] += 1
        policy_row(theta, legal, s, p)
        a = draw_action(p, 0, u[t, 0])
        o = draw_outcome(model, s * A + a, u[t, 1])
        td_step(theta, V, z_theta, z_V, p, rates, s, a, pays[o], gamma[o], to[o])
        steps += 1
        over = ends[o] or steps >= limit
        s = -1 if over else to[o]
    at[0], at[1] = s, steps
