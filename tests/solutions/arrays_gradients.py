# mypy: ignore-errors
"""Solutions in array style: exercises of lessons 9 to 15."""

import numpy as np


def softmax(x):
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    return y / y.sum(axis=-1, keepdims=True)


def suffix_sums(x, weight):
    """y[t] = x[t] + weight[t] y[t+1]."""
    T = len(x)
    W = np.array([[np.prod(weight[t:k]) if k >= t else 0.0 for k in range(T)] for t in range(T)])
    return W @ x


def policy_gradient(P, r, gamma, mu, theta):
    pi = softmax(theta)
    M = np.eye(len(mu)) - gamma * np.einsum("sa,sax->sx", pi, P)
    V = np.linalg.solve(M, (pi * r).sum(axis=1))
    d = np.linalg.solve(M.T, mu)
    return d[:, None] * pi * (r + gamma * P @ V - V[:, None])


def reinforce(pi, s, a, r, discount, baseline):
    G = suffix_sums(r, discount)
    weight = np.concatenate([[1.0], np.cumprod(discount)[:-1]]) * (G - baseline[s[:-1]])
    g = np.zeros_like(pi)
    np.add.at(g, s[:-1], weight[:, None] * (np.eye(pi.shape[1])[a] - pi[s[:-1]]))
    return g


def leave_one_out(pi, a, r):
    n = len(r)
    baseline = (r.sum() - r) / (n - 1)
    return ((r - baseline)[:, None] * (np.eye(len(pi))[a] - pi)).mean(axis=0)


def actor_critic(theta, V, s, a, r, discount, alpha, beta):
    fade = 1.0
    for t in range(len(r)):
        delta = r[t] + discount[t] * V[s[t + 1]] - V[s[t]]
        score = np.eye(theta.shape[1])[a[t]] - softmax(theta[s[t]])
        V[s[t]] += beta * delta
        theta[s[t]] += alpha * fade * delta * score
        fade *= discount[t]
    return theta


def gae(r, discount, v, lam):
    return suffix_sums(r + discount * v[1:] - v[:-1], lam * discount)


def critic_target(r, discount, v, lam):
    return gae(r, discount, v, lam) + v[:-1]


def per_decision_returns(r, discount, rho):
    return suffix_sums(rho * r, rho * discount)


def ppo_clip(logp, logp_old, adv, low, high):
    rho = np.exp(logp - logp_old)
    return -np.minimum(rho * adv, np.clip(rho, 1 - low, 1 + high) * adv)


def kl(pi_old, pi_new):
    ratio = np.where(pi_old > 0, pi_old, 1.0) / np.where(pi_old > 0, pi_new, 1.0)
    return (pi_old * np.log(ratio)).sum(axis=1)
