# mypy: ignore-errors
"""Solutions in plain loops, or by another way: exercises of lessons 1 to 8."""

import numpy as np


def returns(r, discount):
    G = [0.0] * len(r)
    after = 0.0
    for t in range(len(r) - 1, -1, -1):
        after = r[t] + discount[t] * after
        G[t] = after
    return G


def policy_values(P, r, gamma, pi):
    """Fixed-point iteration."""
    S, A = r.shape
    V = [0.0] * S
    for _ in range(4000):
        V = [
            sum(pi[s, a] * (r[s, a] + gamma * sum(P[s, a, x] * V[x] for x in range(S) if P[s, a, x])) for a in range(A))
            for s in range(S)
        ]
    return V


def backup(P, r, gamma, pi, V):
    S, A = r.shape
    new = []
    for s in range(S):
        total = 0.0
        for a in range(A):
            q = r[s, a]
            for x in range(S):
                q += gamma * P[s, a, x] * V[x]
            total += pi[s, a] * q
        new.append(total)
    return new


def optimal_policy(P, r, gamma):
    """Policy iteration; an action is changed only for one that is clearly better."""
    S, A = r.shape
    choice = [0] * S
    while True:
        P_pi = np.array([P[s, choice[s]] for s in range(S)])
        r_pi = np.array([r[s, choice[s]] for s in range(S)])
        V = np.linalg.solve(np.eye(S) - gamma * P_pi, r_pi)
        changed = False
        for s in range(S):
            q = [r[s, a] + gamma * P[s, a] @ V for a in range(A)]
            if max(q) > q[choice[s]] + 1e-9:
                choice[s], changed = int(np.argmax(q)), True
        if not changed:
            return np.eye(A)[choice]


def optimal_values(P, r, gamma):
    """In place, state after state."""
    V = np.zeros(len(r))
    change = 1.0
    while change > 1e-11:
        change = 0.0
        for s in range(len(r)):
            best = max(r[s, a] + gamma * P[s, a] @ V for a in range(r.shape[1]))
            change, V[s] = max(change, abs(best - V[s])), best
    return V


def first_visit_values(episodes, S):
    found = [[] for _ in range(S)]
    for s, r, discount in episodes:
        seen = set()
        for t in range(len(r)):
            if s[t] not in seen:
                seen.add(s[t])
                weight, G = 1.0, 0.0
                for k in range(t, len(r)):
                    G += weight * r[k]
                    weight *= discount[k]
                found[s[t]].append(G)
    return [sum(G) / len(G) if G else 0.0 for G in found]


def first_visit_pairs(episodes, S, A):
    found = {}
    for s, a, r, discount in episodes:
        G, after = {}, 0.0
        for t in reversed(range(len(r))):
            after = r[t] + discount[t] * after
            G[int(s[t]), int(a[t])] = after  # an earlier visit overwrites a later one
        for pair, value in G.items():
            found.setdefault(pair, []).append(value)
    return [[float(np.mean(found.get((x, b), [0.0]))) for b in range(A)] for x in range(S)]


def td0(V, s, r, discount, alpha):
    values = list(V)
    for t in range(len(r)):
        delta = r[t] + discount[t] * values[s[t + 1]] - values[s[t]]
        values[s[t]] += alpha * delta
    return values


def n_step_td(V, s, r, discount, alpha, n):
    """A state moves n steps after its visit; the tail after the end."""
    T = len(r)
    for now in range(1, T + n):
        t = now - n
        if t < 0 or t >= T:
            continue
        end = t + n if t + n < T else T
        G = V[s[end]]
        for k in range(end - 1, t - 1, -1):
            G = r[k] + discount[k] * G
        V[s[t]] += alpha * (G - V[s[t]])
    return V


def lambda_returns(r, discount, v, lam):
    G, after = [], v[len(r)]
    for t in reversed(range(len(r))):
        after = r[t] + discount[t] * ((1 - lam) * v[t + 1] + lam * after)
        G = [after, *G]
    return G


def td_lambda(V, s, r, discount, alpha, lam):
    z = [0.0] * len(V)
    for t in range(len(r)):
        delta = r[t] + discount[t] * V[s[t + 1]] - V[s[t]]
        z[s[t]] += 1.0
        for x in range(len(V)):
            V[x] += alpha * delta * z[x]
            z[x] *= discount[t] * lam
    return V


def q_learning(Q, s, a, r, discount, alpha):
    table = [[float(q) for q in row] for row in Q]
    for t in range(len(r)):
        best = table[s[t + 1]][0]
        for q in table[s[t + 1]]:
            if q > best:
                best = q
        table[s[t]][a[t]] += alpha * (r[t] + discount[t] * best - table[s[t]][a[t]])
    return table
