# mypy: ignore-errors
# ruff: noqa: B905
"""Solutions in plain loops, or by another way: exercises of lessons 9 to 15."""

import math

import numpy as np


def chances(x):
    y = [math.exp(z) for z in x]
    return [z / sum(y) for z in y]


def policy_gradient(P, r, gamma, mu, theta):
    """Complex steps of J."""

    def J(theta):
        pi = np.exp(theta)
        pi = pi / pi.sum(axis=1)[:, None]
        P_pi = (pi[:, :, None] * P).sum(axis=1)
        return mu @ np.linalg.solve(np.eye(len(mu)) - gamma * P_pi, (pi * r).sum(axis=1))

    g = np.zeros(theta.shape)
    for i in np.ndindex(theta.shape):
        moved = theta.astype(complex)
        moved[i] += 1e-20j
        g[i] = J(moved).imag / 1e-20
    return g


def reinforce(pi, s, a, r, discount, baseline):
    S, A = pi.shape
    g = [[0.0] * A for _ in range(S)]
    fade = 1.0
    for t in range(len(r)):
        G, weight = 0.0, 1.0
        for k in range(t, len(r)):
            G += weight * r[k]
            weight *= discount[k]
        for b in range(A):
            g[s[t]][b] += fade * ((a[t] == b) - pi[s[t], b]) * (G - baseline[s[t]])
        fade *= discount[t]
    return g


def leave_one_out(pi, a, r):
    """The mean of all, and n/(n-1)."""
    n, mean = len(r), sum(r) / len(r)
    g = [0.0] * len(pi)
    for i in range(n):
        for b in range(len(pi)):
            g[b] += ((a[i] == b) - pi[b]) * (r[i] - mean) / (n - 1)
    return g


def actor_critic(theta, V, s, a, r, discount, alpha, beta):
    fade = 1.0
    for x, action, reward, d, y in zip(s, a, r, discount, s[1:]):
        p = chances(theta[x])
        delta = reward + d * V[y] - V[x]
        for b in range(len(p)):
            theta[x, b] += alpha * fade * delta * ((b == action) - p[b])
        V[x] += beta * delta
        fade = fade * d
    return theta


def gae(r, discount, v, lam):
    A = np.zeros(len(r) + 1)
    for t in range(len(r) - 1, -1, -1):
        A[t] = r[t] + discount[t] * v[t + 1] - v[t] + lam * discount[t] * A[t + 1]
    return A[:-1]


def critic_target(r, discount, v, lam):
    """The lambda-return."""
    y, after = [], v[-1]
    for t in reversed(range(len(r))):
        after = r[t] + discount[t] * ((1 - lam) * v[t + 1] + lam * after)
        y.append(after)
    return y[::-1]


def per_decision_returns(r, discount, rho):
    G = []
    for t in range(len(r)):
        total, weight = 0.0, 1.0
        for k in range(t, len(r)):
            weight *= rho[k]
            total += weight * r[k]
            weight *= discount[k]
        G.append(total)
    return G


def ppo_clip(logp, logp_old, adv, low, high):
    """Good actions stop at 1 + high, bad ones at 1 - low."""
    loss = []
    for new, old, A in zip(logp, logp_old, adv):
        rho = math.exp(new) / math.exp(old)
        loss.append(-A * (min(rho, 1 + high) if A >= 0 else max(rho, 1 - low)))
    return loss


def kl(pi_old, pi_new):
    found = []
    for p, q in zip(pi_old, pi_new):
        found.append(sum(x * (math.log(x) - math.log(y)) for x, y in zip(p, q) if x > 0))
    return found
