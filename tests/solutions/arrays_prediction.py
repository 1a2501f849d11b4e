# mypy: ignore-errors
# ruff: noqa: B905
"""Solutions in array style: exercises of lessons 1 to 8."""

import numpy as np


def returns(r, discount):
    T = len(r)
    W = np.array([[np.prod(discount[t:k]) if k >= t else 0.0 for k in range(T)] for t in range(T)])
    return W @ r


def policy_values(P, r, gamma, pi):
    P_pi = np.einsum("sa,sax->sx", pi, P)
    r_pi = (pi * r).sum(axis=1)
    return np.linalg.solve(np.eye(len(r)) - gamma * P_pi, r_pi)


def backup(P, r, gamma, pi, V):
    return np.einsum("sa,sa->s", pi, r + gamma * P @ V)


def optimal_values(P, r, gamma):
    V = np.zeros(len(r))
    while True:
        TV = (r + gamma * P @ V).max(axis=1)
        if np.abs(TV - V).max() < 1e-10:
            return TV
        V = TV


def optimal_policy(P, r, gamma):
    """Value iteration, then all the best actions alike."""
    V = optimal_values(P, r, gamma)
    Q = r + gamma * P @ V
    best = Q.max(axis=1, keepdims=True) - 1e-7 <= Q
    return best / best.sum(axis=1, keepdims=True)


def first_visit_values(episodes, S):
    total, count = np.zeros(S), np.zeros(S)
    for s, r, discount in episodes:
        G = returns(r, discount)
        states, first = np.unique(s[:-1], return_index=True)
        total[states] += G[first]
        count[states] += 1
    return np.divide(total, count, out=np.zeros(S), where=count > 0)


def first_visit_pairs(episodes, S, A):
    total, count = np.zeros(S * A), np.zeros(S * A)
    for s, a, r, discount in episodes:
        G = returns(r, discount)
        pairs, first = np.unique(s[:-1] * A + a, return_index=True)
        total[pairs] += G[first]
        count[pairs] += 1
    return (total / np.maximum(count, 1)).reshape(S, A)


def td0(V, s, r, discount, alpha):
    for x, reward, d, y in zip(s[:-1], r, discount, s[1:]):
        V[x] = (1 - alpha) * V[x] + alpha * (reward + d * V[y])
    return V


def n_step_td(V, s, r, discount, alpha, n):
    T = len(r)
    for t in range(T):
        h = min(t + n, T)
        weights = np.concatenate([[1.0], np.cumprod(discount[t:h])])
        G = weights @ np.append(r[t:h], V[s[h]])
        V[s[t]] += alpha * (G - V[s[t]])
    return V


def lambda_returns(r, discount, v, lam):
    """v plus faded TD errors."""
    delta = r + discount * v[1:] - v[:-1]
    T = len(r)
    W = np.array([[np.prod(lam * discount[t:k]) if k >= t else 0.0 for k in range(T)] for t in range(T)])
    return v[:-1] + W @ delta


def td_lambda(V, s, r, discount, alpha, lam):
    z = np.zeros(len(V))
    for t in range(len(r)):
        z[s[t]] += 1
        V = V + alpha * (r[t] + discount[t] * V[s[t + 1]] - V[s[t]]) * z
        z = z * discount[t] * lam
    return V


def q_learning(Q, s, a, r, discount, alpha):
    for t in range(len(a)):
        target = r[t] + discount[t] * Q[s[t + 1]].max()
        Q[s[t], a[t]] += alpha * (target - Q[s[t], a[t]])
    return Q
