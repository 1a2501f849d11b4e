# mypy: ignore-errors
# ruff: noqa: B905
"""Typical mistakes, lessons 1 to 8: EXERCISE__NAME, and in the docstring words of what the grader must say."""

import numpy as np


def solved(P, r_pi, gamma, pi):
    return np.linalg.solve(np.eye(len(P)) - gamma * np.einsum("sa,sax->sx", pi, P), r_pi)


def returns_from(r, discount, end=0.0):
    G, after = np.zeros(len(r)), end
    for t in reversed(range(len(r))):
        after = G[t] = r[t] + discount[t] * after
    return G


def returns__forwards(r, discount):
    """from the start of the episode"""
    weights = np.cumprod([1.0, *discount[:-1]])
    return np.cumsum((weights * r)[::-1])[::-1]


def policy_values__transposed(P, r, gamma, pi):
    """axes exchanged"""
    return solved(P.swapaxes(0, 2), (pi * r).sum(axis=1), gamma, pi)


def policy_values__terminal(P, r, gamma, pi):
    """bootstrap from a terminal state"""
    P = P.copy()
    P[P.sum(axis=(1, 2)) == 0] = 1 / len(P)
    return solved(P, (pi * r).sum(axis=1), gamma, pi)


def policy_values__axis(P, r, gamma, pi):
    """over the wrong axis"""
    return solved(P, (pi * r).sum(axis=0), gamma, pi)


def policy_values__alike(P, r, gamma, pi):
    """averaged over the actions alike"""
    return solved(P, r.mean(axis=1), gamma, pi)


def policy_values__outside(P, r, gamma, pi):
    """stands outside the mean over pi"""
    return solved(P, r.sum(axis=1), gamma, pi)


def policy_values__gamma(P, r, gamma, pi):
    """forget gamma"""
    return solved(P, (pi * r).sum(axis=1), 1.0, pi)


def backup__axis(P, r, gamma, pi, V):
    """over the wrong axis"""
    r_pi = (pi * r).sum(axis=0)
    return r_pi + gamma * np.einsum("sa,sax->sx", pi, P) @ V


def backup__alike(P, r, gamma, pi, V):
    """averaged over the actions alike"""
    return r.mean(axis=1) + gamma * np.einsum("sa,sax->sx", pi, P) @ V


def backup__outside(P, r, gamma, pi, V):
    """stands outside the mean over pi"""
    return r.sum(axis=1) + gamma * np.einsum("sa,sax->sx", pi, P) @ V


def backup__in_place(P, r, gamma, pi, V):
    """in place"""
    for s in range(len(V)):
        V[s] = pi[s] @ (r[s] + gamma * P[s] @ V)
    return V


def backup__transposed(P, r, gamma, pi, V):
    """axes exchanged"""
    return (pi * (r + gamma * np.einsum("xas,x->sa", P, V))).sum(axis=1)


def iterated(sweep, S):
    V = np.zeros(S)
    for _ in range(5000):
        V = sweep(V)
    return V


def optimal_values__apart(P, r, gamma):
    """each for itself"""
    return iterated(lambda V: r.max(axis=1) + gamma * (P @ V).max(axis=1), len(r))


def optimal_values__lucky(P, r, gamma):
    """best next state instead of the mean"""

    def sweep(V):
        best = np.where(P > 0, V, -np.inf).max(axis=2)
        return (r + gamma * np.where(np.isfinite(best), best, 0.0)).max(axis=1)

    return iterated(sweep, len(r))


def optimal_policy__next_value(P, r, gamma):
    """over V of the next states"""
    V = iterated(lambda V: (r + gamma * P @ V).max(axis=1), len(r))
    return np.eye(r.shape[1])[(P @ V).argmax(axis=1)]


def optimal_policy__once(P, r, gamma):
    """one improvement, not the last"""
    pi = np.full(r.shape, 1 / r.shape[1])
    V = solved(P, (pi * r).sum(axis=1), gamma, pi)
    return np.eye(r.shape[1])[(r + gamma * P @ V).argmax(axis=1)]


def first_visit_values__last(episodes, S):
    """over the last visit"""
    found = [[] for _ in range(S)]
    for s, r, discount in episodes:
        for x, G in dict(zip(s[:-1], returns_from(r, discount))).items():
            found[x].append(G)
    return [np.mean(G) if G else 0.0 for G in found]


def first_visits(s):
    return [t for t in range(len(s) - 1) if s[t] not in s[:t]]


def first_visit_values__from_start(episodes, S):
    """from the start of the episode instead of from t"""
    found = [[] for _ in range(S)]
    for s, r, discount in episodes:
        G = returns__forwards(r, discount)
        for t in first_visits(s):
            found[s[t]].append(G[t])
    return [np.mean(G) if G else 0.0 for G in found]


def first_visit_values__forwards(episodes, S):
    """the past instead of the future"""
    found = [[] for _ in range(S)]
    for s, r, discount in episodes:
        G = 0.0
        for t in range(len(r)):
            G = r[t] + discount.max() * G
            if s[t] not in s[:t]:
                found[s[t]].append(G)
    return [np.mean(G) if G else 0.0 for G in found]


def first_visit_pairs__state(episodes, S, A):
    """state was visited before, not the state with its action"""
    total, count = np.zeros((S, A)), np.zeros((S, A))
    for s, a, r, discount in episodes:
        G = returns_from(r, discount)
        for t in first_visits(s):
            total[s[t], a[t]] += G[t]
            count[s[t], a[t]] += 1
    return total / np.maximum(count, 1)


def td0_pass(V, s, r, discount, alpha):
    for t in range(len(r)):
        V[s[t]] += alpha * (r[t] + discount[t] * V[s[t + 1]] - V[s[t]])
    return V


def td0__terminal(V, s, r, discount, alpha):
    """value of a terminal state"""
    return td0_pass(V, s, r, np.full(len(r), discount.max()), alpha)


def td0__time_limit(V, s, r, discount, alpha):
    """treat a time limit as an end"""
    discount[-1] = 0.0
    return td0_pass(V, s, r, discount, alpha)


def td0__late(V, s, r, discount, alpha):
    """read after V(s) has moved"""
    for t in range(len(r)):
        V[s[t]] -= alpha * V[s[t]]
        V[s[t]] += alpha * r[t]
        V[s[t]] += alpha * discount[t] * V[s[t + 1]]
    return V


def td0__gamma(V, s, r, discount, alpha):
    """forget gamma"""
    for t in range(len(r)):
        done = discount[t] == 0
        V[s[t]] += alpha * (r[t] + (0.0 if done else V[s[t + 1]]) - V[s[t]])
    return V


def td0__sign(V, s, r, discount, alpha):
    """the sign of delta is wrong"""
    for t in range(len(r)):
        V[s[t]] += alpha * (V[s[t]] - (r[t] + discount[t] * V[s[t + 1]]))
    return V


def td0__unseen(V, s, r, discount, alpha):
    """a later visit to s does not see an earlier one"""
    before = V.copy()
    for t in range(len(r)):
        V[s[t]] += alpha * (r[t] + discount[t] * before[s[t + 1]] - before[s[t]])
    return V


def td0__restarted(V, s, r, discount, alpha):
    """only the last one counts"""
    new = V.copy()
    for t in range(len(r)):
        new[s[t]] = V[s[t]] + alpha * (r[t] + discount[t] * V[s[t + 1]] - V[s[t]])
    return new


def td0__unscaled(V, s, r, discount, alpha):
    """the target is not multiplied by alpha"""
    for t in range(len(r)):
        V[s[t]] = (1 - alpha) * V[s[t]] + r[t] + discount[t] * V[s[t + 1]]
    return V


def n_steps(V, s, r, discount, alpha, n, value, stop=0):
    """V moves by alpha (n rewards + value(h, t) - V)."""
    T = len(r)
    for t in range(T - stop):
        h = min(t + n, T)
        G = np.cumprod([1.0, *discount[t : h - 1]]) @ r[t:h] + value(V, h, t)
        V[s[t]] += alpha * (G - V[s[t]])
    return V


def n_step_td__past_the_end(V, s, r, discount, alpha, n):
    """value of a terminal state"""
    gamma = np.full(len(r), discount.max())
    return n_steps(V, s, r, gamma, alpha, n, lambda V, h, t: np.prod(gamma[t:h]) * V[s[h]])


def n_step_td__off_by_one(V, s, r, discount, alpha, n):
    """leave out the last step"""
    return n_steps(V, s, r, discount, alpha, n, lambda V, h, t: np.prod(discount[t:h]) * V[s[h]], stop=1)


def n_step_td__exponent(V, s, r, discount, alpha, n):
    """discounted n - 1 times"""
    gamma = discount.max()
    return n_steps(
        V, s, r, discount, alpha, n, lambda V, h, t: gamma ** (h - t - 1) * V[s[h]] if discount[h - 1] else 0.0
    )


def n_step_td__exponent_above(V, s, r, discount, alpha, n):
    """discounted n + 1 times"""
    gamma = discount.max()
    return n_steps(
        V, s, r, discount, alpha, n, lambda V, h, t: gamma ** (h - t + 1) * V[s[h]] if discount[h - 1] else 0.0
    )


def n_step_td__tail(V, s, r, discount, alpha, n):
    """last n - 1 states are not updated"""
    return n_steps(V, s, r, discount, alpha, n, lambda V, h, t: np.prod(discount[t:h]) * V[s[h]], stop=n - 1)


def n_step_td__sign(V, s, r, discount, alpha, n):
    """the sign of delta is wrong"""
    return n_steps(V, s, r, discount, -alpha, n, lambda V, h, t: np.prod(discount[t:h]) * V[s[h]])


def mixed(r, discount, v, lam, weight):
    """Weighted n-step returns."""
    T, found = len(r), []
    for t in range(T):
        total = 0.0
        for n in range(1, T - t + 1):
            fades = np.cumprod([1.0, *discount[t : t + n]])
            total += weight(n, T - t) * (fades[:-1] @ r[t : t + n] + fades[-1] * v[t + n])
        found.append(total)
    return found


def lambda_returns__last_weight(r, discount, v, lam):
    """the last weight is (1 - lam) lam^(T-t-1)"""
    return mixed(r, discount, v, lam, lambda n, left: (1 - lam) * lam ** (n - 1))


def lambda_returns__sum(r, discount, v, lam):
    """leave out the factor 1 - lam"""
    return mixed(r, discount, v, lam, lambda n, left: lam ** (n - 1))


def lambda_returns__no_monte_carlo(r, discount, v, lam):
    """the last return, that of all steps, is left out"""
    return mixed(r, discount, v, lam, lambda n, left: (1 - lam) * lam ** (n - 1) if n < left else 0.0)


def lambda_returns__gamma(r, discount, v, lam):
    """the return that follows is not discounted"""
    G, after = np.zeros(len(r)), v[-1]
    for t in reversed(range(len(r))):
        after = G[t] = r[t] + discount[t] * (1 - lam) * v[t + 1] + (lam * after if discount[t] else 0.0)
    return G


def td_lambda__not_reset(V, s, r, discount, alpha, lam):
    """run on into the next episode"""
    z = np.zeros(len(V))
    for t in range(len(r)):
        z[s[t]] += 1
        V = V + alpha * (r[t] + discount[t] * V[s[t + 1]] - V[s[t]]) * z
        z *= discount.max() * lam
    return V


def td_lambda__gamma(V, s, r, discount, alpha, lam):
    """with lam alone, without the discount"""
    z = np.zeros(len(V))
    for t in range(len(r)):
        z[s[t]] += 1
        V = V + alpha * (r[t] + discount[t] * V[s[t + 1]] - V[s[t]]) * z
        z = lam * z if discount[t] else 0 * z
    return V


def q_learning__sarsa(Q, s, a, r, discount, alpha):
    """SARSA"""
    for t in range(len(r)):
        after = Q[s[t + 1], a[t + 1]] if t + 1 < len(r) else Q[s[t + 1]].max()
        Q[s[t], a[t]] += alpha * (r[t] + discount[t] * after - Q[s[t], a[t]])
    return Q
