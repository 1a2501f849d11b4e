"""Verification of learners: the package on rows E1.6 to E1.9 and E1.14, a user's functions, and the judge."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import test_prediction as other
from exercise_files import wrong_rows
from test_td_moments import literal as long_recursion
from test_verify import changed
from verified import assert_named, assert_row_passes, untried

from tabrl import (
    importance,
    off_policy,
    operators,
    prediction,
    rational,
    returns,
    td_limits,
    td_moments,
    verify,
    visits,
    weights,
)
from tabrl.envs.chains import two_state
from tabrl.returns import discounted_sum as returns_of
from tabrl.verify import enumeration, literal, models, own_monte_carlo, recorded
from tabrl.verify.literal import Trace

A = Any
ROWS = ("E1.6", "E1.7", "E1.8", "E1.9", "E1.14")


# the package


@pytest.mark.parametrize("row", ROWS)
def test_learners_match_closed_forms(row: str) -> None:
    assert_row_passes(row, 7)


def moved(factor: float) -> Callable[[A], A]:
    """Scale the values that a generator yields, or those of a record."""

    def change(x: A) -> A:
        if hasattr(x, "V"):
            return x._replace(V=x.V * factor)
        return (y._replace(V=y.V * factor) for y in x)

    return change


def field(name: str, factor: float = 1 + 1e-8) -> Callable[[A], A]:
    """Scale one field of a record, or of the records that a generator yields."""

    def one(x: A) -> A:
        return x._replace(**{name: getattr(x, name) * factor})

    return lambda x: one(x) if hasattr(x, name) else (one(y) for y in x)


E = 1 + 1e-9
BREAKS: list[tuple[str, A, str, Callable[[A], A]]] = [
    ("E1.6", prediction, "monte_carlo", moved(E)),
    ("E1.6", prediction, "batch_mc", moved(E)),
    ("E1.6", operators, "batch_mc", moved(E)),
    ("E1.6", visits, "first_visit", lambda x: x._replace(bias=1e-9)),
    ("E1.6", visits, "first_visit", field("mse")),
    ("E1.6", visits, "every_visit", field("bias")),
    ("E1.6", visits, "every_visit", field("mse")),
    ("E1.6", visits, "every_visit_bias", lambda x: -x),
    ("E1.6", visits, "visit_totals", lambda x: (x[0], x[1] * E)),
    ("E1.7", prediction, "td0", moved(E)),
    ("E1.7", prediction, "lstd", lambda V: V * (1 + 1e-7)),
    ("E1.7", prediction, "batch_td", moved(E)),
    ("E1.7", operators, "batch_td", moved(E)),
    ("E1.7", returns, "td_errors", lambda x: x * E),
    ("E1.7", td_moments, "independent_moments", field("mean")),
    ("E1.7", td_moments, "independent_moments", field("covariance")),
    ("E1.7", td_moments, "trajectory_moments", field("mean")),
    ("E1.7", td_moments, "trajectory_moments", field("covariance")),
    ("E1.7", td_limits, "trajectory_limit", field("mean")),
    ("E1.7", td_limits, "trajectory_limit", field("covariance")),
    ("E1.7", td_limits, "independent_limit", field("mean")),
    ("E1.7", td_limits, "independent_limit", field("covariance")),
    ("E1.8", returns, "n_step_returns", lambda G: G * E),
    ("E1.8", prediction, "n_step_td", moved(E)),
    ("E1.8", operators, "n_step_operator", field("vector")),
    ("E1.8", operators, "n_step_operator", field("factor", 0.9)),
    ("E1.9", returns, "lambda_returns", lambda G: G * E),
    ("E1.9", prediction, "td_lambda", moved(E)),
    ("E1.9", prediction, "true_online_td", moved(E)),
    ("E1.9", prediction, "lambda_return", moved(E)),
    ("E1.9", prediction, "lstd", lambda V: V * (1 + 1e-7)),
    ("E1.9", operators, "lambda_operator", field("vector")),
    ("E1.14", weights, "ratios", lambda x: x * E),
    ("E1.14", weights, "remaining_products", lambda x: x * E),
    ("E1.14", weights, "per_decision_returns", lambda x: x * E),
    ("E1.14", off_policy, "off_policy_monte_carlo", moved(E)),
    ("E1.14", importance, "per_decision", field("variance")),
    ("E1.14", importance, "per_decision", field("mean")),
    ("E1.14", importance, "trajectory", field("variance")),
    ("E1.14", importance, "trajectory", lambda x: x._replace(variance=np.minimum(x.variance, 1e6))),
    ("E1.14", importance, "weighted", field("bias")),
    ("E1.14", importance, "weighted", field("variance")),
    ("E1.14", importance, "truncated", field("trajectory")),
    ("E1.14", importance, "radii", field("trajectory")),
]


@pytest.mark.parametrize("case", range(len(BREAKS)))
def test_a_broken_learner_is_caught(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    row, module, name, change = BREAKS[case]
    monkeypatch.setattr(module, name, changed(getattr(module, name), change))
    failed = [c for c in verify.run([row]) if not c.passed]
    assert failed
    assert not any("it raises" in c.where for c in failed)


# a user's function


def first_visit_average(episodes: A, S: int) -> A:
    G: list[list[float]] = [[] for _ in range(S)]
    for s, r, discount in episodes:
        total, after = 0.0, {}
        for t in reversed(range(len(r))):
            total = r[t] + discount[t] * total
            after[s[t]] = total  # earlier visits overwrite later ones
        for state, value in after.items():
            G[state].append(value)
    return [np.mean(g) if g else 0.0 for g in G]


def td0_pass(V: A, s: A, r: A, discount: A, alpha: float) -> A:
    for t in range(len(r)):
        V[s[t]] += alpha * (r[t] + discount[t] * V[s[t + 1]] - V[s[t]])
    return V


def n_step_pass(V: A, s: A, r: A, discount: A, alpha: float, n: int) -> A:
    """The box of the book: at time t the state of time t - n + 1 is updated."""
    T = len(r)
    for t in range(T + n - 1):
        tau = t - n + 1
        if 0 <= tau < T:
            h = min(tau + n, T)
            G = V[s[h]]
            for k in reversed(range(tau, h)):
                G = r[k] + discount[k] * G
            V[s[tau]] += alpha * (G - V[s[tau]])
    return V


def lambda_returns(r: A, discount: A, v: A, lam: float) -> A:
    G, y = np.zeros(len(r)), v[-1]
    for t in reversed(range(len(r))):
        y = G[t] = r[t] + discount[t] * ((1 - lam) * v[t + 1] + lam * y)
    return G


def per_decision(r: A, discount: A, rho: A) -> A:
    G, y = np.zeros(len(r)), 0.0
    for t in reversed(range(len(r))):
        y = G[t] = rho[t] * (r[t] + discount[t] * y)
    return G


RIGHT: dict[str, Callable[..., A]] = {
    "E1.6": first_visit_average,
    "E1.7": td0_pass,
    "E1.8": n_step_pass,
    "E1.9": lambda_returns,
    "E1.14": per_decision,
}


@pytest.mark.parametrize("row", ROWS)
def test_a_right_learner_passes(row: str) -> None:
    checks = verify.check(row, RIGHT[row])
    assert len(checks) >= 10
    assert all(c.passed for c in checks), [c for c in checks if not c.passed]


def ones(discount: A) -> A:
    return (discount > 0) * 1.0


def everywhere(discount: A) -> A:
    return np.full(len(discount), discount.max())


def ended(discount: A) -> A:
    return np.append(discount[:-1], 0.0)


def shifted(discount: A) -> A:
    return np.append(discount[1:], 0.0)


def each_episode(change: Callable[..., A]) -> Callable[..., A]:
    return lambda episodes, S: first_visit_average([change(*x) for x in episodes], S)


def collect(choose: Callable[..., A], combine: Callable[..., A] = np.mean) -> Callable[..., A]:
    """Averages of returns; `choose` says which visits of an episode count."""

    def average(episodes: A, S: int) -> A:
        G: list[list[float]] = [[] for _ in range(S)]
        for s, r, d in episodes:
            y = returns_of(r, d)
            for t in choose(s[:-1].tolist()):
                G[s[t]].append(y[t])
        return [combine(g) if g else 0.0 for g in G]

    return average


def first_steps(s: A) -> A:
    return [t for t in range(len(s)) if s[t] not in s[:t]]


def last_steps(s: A) -> A:
    return [t for t in range(len(s)) if s[t] not in s[t + 1 :]]


def shared(episodes: A, S: int) -> A:
    """First-visit returns, all visits counted."""
    total = collect(first_steps, np.sum)(episodes, S)
    count = collect(lambda s: range(len(s)), len)(episodes, S)
    return [a / max(n, 1) for a, n in zip(total, count, strict=True)]


def whole_return(episodes: A, S: int) -> A:
    """G[0] for every state of an episode."""
    V, n = np.zeros(S), np.zeros(S)
    for s, r, d in episodes:
        for state in set(s[:-1].tolist()):
            V[state] += returns_of(r, d)[0]
            n[state] += 1
    return V / np.maximum(n, 1)


def frozen(V: A, s: A, r: A, d: A, alpha: float, n: int = 1) -> A:
    """All targets from the values before the episode."""
    U = V.copy()
    for t in range(len(r)):
        G = V[s[min(t + n, len(r))]]
        for k in reversed(range(t, min(t + n, len(r)))):
            G = r[k] + d[k] * G
        U[s[t]] += alpha * (G - U[s[t]])
    return U


def unsubtracted(V: A, s: A, r: A, d: A, alpha: float) -> A:
    for t in range(len(r)):
        V[s[t]] += alpha * (r[t] + d[t] * V[s[t + 1]])
    return V


def backwards(V: A, s: A, r: A, d: A, alpha: float) -> A:
    for t in reversed(range(len(r))):
        V[s[t]] += alpha * (r[t] + d[t] * V[s[t + 1]] - V[s[t]])
    return V


def residual(V: A, s: A, r: A, d: A, alpha: float) -> A:
    for t in range(len(r)):
        delta = r[t] + d[t] * V[s[t + 1]] - V[s[t]]
        V[s[t]] += alpha * delta
        V[s[t + 1]] -= alpha * d[t] * delta
    return V


def reached(V: A, s: A, r: A, d: A, alpha: float) -> A:
    for t in range(len(r)):
        V[s[t + 1]] += alpha * (r[t] + d[t] * V[s[t + 1]] - V[s[t]])
    return V


def monte_carlo(V: A, s: A, r: A, d: A, alpha: float) -> A:
    return n_step_pass(V, s, r, d, alpha, len(r))


def n_step(
    weight: Callable[..., A] = np.prod,
    rewards: Callable[..., A] = lambda d: d,
    order: Callable[..., A] = iter,
    keep: float = 0.0,
) -> Callable[..., A]:
    """n-step TD with another weight of the value, other discounts of the rewards, another order, or V(s) kept."""

    def one_pass(V: A, s: A, r: A, d: A, alpha: float, n: int) -> A:
        for t in order(range(len(r))):
            h = min(t + n, len(r))
            fade = np.cumprod([1.0, *rewards(d[t:h])])[:-1]
            G = fade @ r[t:h] + weight(d[t:h]) * V[s[h]]
            V[s[t]] += alpha * (G - (1 - keep) * V[s[t]])
        return V

    return one_pass


def unfinished(V: A, s: A, r: A, d: A, alpha: float, n: int) -> A:
    """Only states that are followed by n steps."""
    for t in range(len(r) - n + 1):
        G = returns_of(r[t : t + n], d[t : t + n], V[s[t + n]])[0]
        V[s[t]] += alpha * (G - V[s[t]])
    return V


def mixed(weight: Callable[..., float]) -> Callable[..., A]:
    """Weighted sums of n-step returns; weight(lam, n, steps left)."""

    def G(r: A, d: A, v: A, lam: float) -> A:
        T = len(r)
        parts = [returns.n_step_returns(r, d, v, n) for n in range(1, T + 1)]
        return [sum(weight(lam, n, T - t) * parts[n - 1][t] for n in range(1, T - t + 1)) for t in range(T)]

    return G


def recursion(step: Callable[..., float], start: Callable[..., float] = lambda v: v[-1]) -> Callable[..., A]:
    """G[t] = step(r[t], d[t], v[t], v[t+1], lam, G[t+1])."""

    def G(r: A, d: A, v: A, lam: float) -> A:
        y, found = start(v), np.zeros(len(r))
        for t in reversed(range(len(r))):
            y = found[t] = step(r[t], d[t], v[t], v[t + 1], lam, y)
        return found

    return G


def remaining(lam: float, n: int, left: int) -> float:
    return float((1 - lam) * lam ** (n - 1) if n < left else lam ** (n - 1))


def ordinary(r: A, d: A, rho: A) -> A:
    return np.cumprod(rho[::-1])[::-1] * returns_of(r, d)


def own_ratio(r: A, d: A, rho: A) -> A:
    return returns_of(rho * r, d)


MISTAKES: list[tuple[str, str, Callable[..., A]]] = [
    ("E1.6", "over every visit", collect(lambda s: range(len(s)))),
    ("E1.6", "over the last visit of each episode", collect(last_steps)),
    ("E1.6", "only the first episode that visits", collect(first_steps, lambda g: g[0])),
    ("E1.6", "the last return instead of the average", collect(first_steps, lambda g: g[-1])),
    ("E1.6", "without dividing", collect(first_steps, np.sum)),
    ("E1.6", "number of episodes", lambda x, S: np.array(collect(first_steps, np.sum)(x, S)) / len(x)),
    ("E1.6", "number of all visits", shared),
    ("E1.6", "return of the whole episode", whole_return),
    ("E1.6", "forget gamma", each_episode(lambda s, r, d: (s, r, ones(d)))),
    ("E1.6", "gamma multiplies the reward", each_episode(lambda s, r, d: (s, d * r, d))),
    ("E1.6", "average rewards instead", each_episode(lambda s, r, d: (s, r, 0 * d))),
    ("E1.6", "leaves out the first reward", each_episode(lambda s, r, d: (s, d * shifted(returns_of(r, d)), 0 * d))),
    ("E1.7", "forget gamma", lambda V, s, r, d, a: td0_pass(V, s, r, ones(d), a)),
    ("E1.7", "value of a terminal state", lambda V, s, r, d, a: td0_pass(V, s, r, everywhere(d), a)),
    ("E1.7", "treat a time limit as an end", lambda V, s, r, d, a: td0_pass(V, s, r, ended(d), a)),
    ("E1.7", "gamma multiplies the reward", lambda V, s, r, d, a: td0_pass(V, s, d * r, d, a)),
    ("E1.7", "discount of the next step", lambda V, s, r, d, a: td0_pass(V, s, r, shifted(d), a)),
    ("E1.7", "values from before the episode", frozen),
    ("E1.7", "alpha twice", lambda V, s, r, d, a: td0_pass(V, s, r, d, a * a)),
    ("E1.7", "as if alpha were 1", lambda V, s, r, d, a: td0_pass(V, s, r, d, 1.0)),
    ("E1.7", "without subtracting V(s)", unsubtracted),
    ("E1.7", "backwards", backwards),
    ("E1.7", "leave out the last step", lambda V, s, r, d, a: td0_pass(V, s[:-1], r[:-1], d[:-1], a)),
    ("E1.7", "towards the return (Monte Carlo)", monte_carlo),
    ("E1.7", "gradient of the squared error", residual),
    ("E1.7", "the state that is reached", reached),
    ("E1.8", "forget gamma", lambda V, s, r, d, a, n: n_step_pass(V, s, r, ones(d), a, n)),
    ("E1.8", "value of a terminal state", lambda V, s, r, d, a, n: n_step_pass(V, s, r, everywhere(d), a, n)),
    ("E1.8", "treat a time limit as an end", lambda V, s, r, d, a, n: n_step_pass(V, s, r, ended(d), a, n)),
    ("E1.8", "gamma multiplies the reward", lambda V, s, r, d, a, n: n_step_pass(V, s, d * r, d, a, n)),
    ("E1.8", "discount of the next step", lambda V, s, r, d, a, n: n_step_pass(V, s, r, shifted(d), a, n)),
    ("E1.8", "values from before the episode", frozen),
    ("E1.8", "alpha twice", lambda V, s, r, d, a, n: n_step_pass(V, s, r, d, a * a, n)),
    ("E1.8", "as if alpha were 1", lambda V, s, r, d, a, n: n_step_pass(V, s, r, d, 1.0, n)),
    ("E1.8", "without subtracting V(s)", n_step(keep=1.0)),
    ("E1.8", "backwards", n_step(order=reversed)),
    ("E1.8", "leave out the last step", n_step(order=lambda steps: steps[:-1])),
    ("E1.8", "n + 1 steps", lambda V, s, r, d, a, n: n_step_pass(V, s, r, d, a, n + 1)),
    ("E1.8", "n - 1 steps", lambda V, s, r, d, a, n: n_step_pass(V, s, r, d, a, max(n - 1, 1))),
    ("E1.8", "one step, whatever n", lambda V, s, r, d, a, n: td0_pass(V, s, r, d, a)),
    ("E1.8", "all steps, whatever n", lambda V, s, r, d, a, n: monte_carlo(V, s, r, d, a)),
    ("E1.8", "last n - 1 states are not updated", unfinished),
    ("E1.8", "leave out the value of the state n steps on", n_step(weight=lambda d: 0.0)),
    ("E1.8", "discounted once, not n times", n_step(weight=lambda d: d[-1])),
    ("E1.8", "n steps on is not discounted", n_step(weight=lambda d: 1.0)),
    ("E1.8", "rewards within the n steps", n_step(rewards=np.ones_like)),
    ("E1.9", "the last weight is (1 - lam)", mixed(lambda lam, n, left: (1 - lam) * lam ** (n - 1))),
    ("E1.9", "leave out the factor 1 - lam", mixed(lambda lam, n, left: lam ** (n - 1))),
    ("E1.9", "start with lam instead of 1", mixed(lambda lam, n, left: lam * remaining(lam, n, left))),
    ("E1.9", "exchanged", lambda r, d, v, lam: lambda_returns(r, d, v, 1 - lam)),
    ("E1.9", "you use lam = 0", lambda r, d, v, lam: r + d * v[1:]),
    ("E1.9", "you use lam = 1", lambda r, d, v, lam: returns_of(r, d, v[-1])),
    ("E1.9", "v[t] instead of v[t+1]", recursion(lambda r, d, v, w, lam, G: r + d * ((1 - lam) * v + lam * G))),
    ("E1.9", "advantages G - v", lambda r, d, v, lam: lambda_returns(r, d, v, lam) - v[:-1]),
    ("E1.9", "is not discounted", recursion(lambda r, d, v, w, lam, G: r + d * (1 - lam) * w + (d > 0) * lam * G)),
    ("E1.9", "starts from 0", recursion(lambda r, d, v, w, lam, G: r + d * ((1 - lam) * w + lam * G), lambda v: 0.0)),
    ("E1.9", "leave out the values", recursion(lambda r, d, v, w, lam, G: r + d * lam * G, lambda v: 0.0)),
    ("E1.9", "forget gamma", lambda r, d, v, lam: lambda_returns(r, ones(d), v, lam)),
    ("E1.9", "value of a terminal state", lambda r, d, v, lam: lambda_returns(r, everywhere(d), v, lam)),
    ("E1.9", "treat a time limit as an end", lambda r, d, v, lam: lambda_returns(r, ended(d), v, lam)),
    ("E1.9", "gamma multiplies the reward", lambda r, d, v, lam: lambda_returns(d * r, d, v, lam)),
    ("E1.9", "discount of the next step", lambda r, d, v, lam: lambda_returns(r, shifted(d), v, lam)),
    ("E1.14", "the ordinary estimate", ordinary),
    ("E1.14", "leave the ratios out", lambda r, d, rho: returns_of(r, d)),
    ("E1.14", "its own action alone", own_ratio),
    ("E1.14", "but not the reward itself", lambda r, d, rho: returns_of(r, d * rho)),
    ("E1.14", "ratio of the next action", lambda r, d, rho: per_decision(r, d, np.append(rho[1:], 1.0))),
    ("E1.14", "ratio of the action before", lambda r, d, rho: per_decision(r, d, np.append(1.0, rho[:-1]))),
    ("E1.14", "from the start of the episode", lambda r, d, rho: np.cumprod([1, *rho[:-1]]) * per_decision(r, d, rho)),
    ("E1.14", "clip the ratios", lambda r, d, rho: per_decision(r, d, np.minimum(rho, 1.0))),
    ("E1.14", "upside down", lambda r, d, rho: per_decision(r, d, 1 / np.where(rho > 0, rho, 1.0))),
    ("E1.14", "forget gamma", lambda r, d, rho: per_decision(r, ones(d), rho)),
    ("E1.14", "go on across the end", lambda r, d, rho: per_decision(r, everywhere(d), rho)),
    ("E1.14", "gamma multiplies the reward", lambda r, d, rho: per_decision(d * r, d, rho)),
    ("E1.14", "discount of the next step", lambda r, d, rho: per_decision(r, shifted(d), rho)),
    *wrong_rows(ROWS),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_a_learners_known_mistake_is_named(case: int) -> None:
    failed = assert_named(*MISTAKES[case])
    assert all(c.difference > c.tolerance for c in failed)


@pytest.mark.parametrize("row", ROWS)
def test_every_mistake_that_is_known_is_tried(row: str) -> None:
    assert not untried(row, MISTAKES)


def test_a_learner_gets_copies() -> None:
    def spoils(episodes: A, S: int) -> A:
        V = first_visit_average(episodes, S)
        for _, r, discount in episodes:
            r[:], discount[:] = 0.0, 0.0
        return V

    assert all(c.passed for c in verify.check("E1.6", spoils) + verify.check("E1.6", first_visit_average))
    assert all(c.passed for c in verify.check("E1.7", td0_pass) + verify.check("E1.7", td0_pass))  # it changes V


def test_a_state_without_a_visit_has_value_0() -> None:
    checks = verify.check("E1.6", collect(first_steps, np.mean))
    assert all(c.passed for c in checks)

    def divides(episodes: A, S: int) -> A:
        V = np.asarray(first_visit_average(episodes, S))
        V[S - 1] = np.nan
        return V

    failed = verify.check("E1.6", divides)
    assert {c.where for c in failed} == {"the result at s=4 is nan; a finite number is expected"}


# the judge

HALF = Fraction(1, 2)
TRACE = Trace([0, 1, 0, 2], [Fraction(1), Fraction(2), Fraction(4)], [HALF, HALF, Fraction(0)])


def test_literal_returns_by_hand() -> None:
    v = [Fraction(x) for x in (8, 16, 8, 32)]
    assert [literal.monte_carlo_return(TRACE, v, t) for t in range(3)] == [3, 4, 4]
    assert [literal.n_step_return(TRACE, v, t, 1) for t in range(3)] == [9, 6, 4]
    assert [literal.n_step_return(TRACE, v, t, 2) for t in range(3)] == [4, 4, 4]
    assert literal.lambda_return(TRACE, v, 0, HALF) == Fraction(9, 2) + 1 + Fraction(3, 4)
    assert literal.lambda_weights(HALF, 4) == [HALF, HALF**2, HALF**3, HALF**3]
    assert literal.per_decision_return(TRACE, [Fraction(2), Fraction(3), Fraction(5)], 0) == 2 + 6 + 30
    assert literal.visit_averages([TRACE, TRACE], 3, "first") == [3, 4, 0]
    assert literal.visit_averages([TRACE], 3, "every") == [Fraction(7, 2), 4, 0]


def test_literal_learners_by_hand() -> None:
    V = [Fraction(x) for x in (0, 0, 9)]
    assert literal.td0(TRACE, V, HALF) == [Fraction(9, 4), Fraction(9, 8), 9]
    assert literal.n_step_td(TRACE, V, HALF, 2) == [Fraction(5, 2), 2, 9]
    assert literal.offline_lambda_return(TRACE, V, HALF, Fraction(1)) == [Fraction(11, 4), 2, 9]
    assert literal.td_lambda(TRACE, V, HALF, Fraction(0), "dutch") == literal.td0(TRACE, V, HALF)


@pytest.mark.parametrize("lam", [Fraction(0), Fraction(1, 3), Fraction(1)])
def test_the_three_forms_are_one(lam: Fraction) -> None:
    for x in recorded.recordings():
        trace, v = x.trace, literal.along(x.values, x.trace)
        forms = literal.recursive_lambda_returns, literal.td_error_lambda_returns
        first = [literal.lambda_return(trace, v, t, lam) for t in range(len(trace.r))]
        assert all(form(trace, v, lam) == first for form in forms)


STEP = Fraction(other.ALPHA)
JUDGES: list[tuple[Callable[..., A], Callable[..., A]]] = [
    (other.literal_td0, lambda x, V: literal.td0(x, V, STEP)),
    (partial(other.literal_n_step, n=3), lambda x, V: literal.n_step_td(x, V, STEP, 3)),
    (
        partial(other.literal_td_lambda, lam=0.5, kind="dutch"),
        lambda x, V: literal.td_lambda(x, V, STEP, HALF, "dutch"),
    ),
    (partial(other.literal_online_lambda_return, lam=0.5), lambda x, V: literal.online_lambda_return(x, V, STEP, HALF)),
    (partial(other.literal_lambda_return, lam=0.5), lambda x, V: literal.offline_lambda_return(x, V, STEP, HALF)),
]


@pytest.mark.parametrize("judge", range(len(JUDGES)))
def test_two_judges_of_learners_agree(judge: int) -> None:
    other_judge, one_pass = JUDGES[judge]
    for batch in recorded.batches():
        V = rational.exact(batch.V)
        for x in batch.traces:
            V = one_pass(x, V)
        assert other.close([float(v) for v in V], other_judge(batch.episodes, batch.V))


def test_what_was_recorded_covers_the_cases() -> None:
    for traces in ([x.trace for x in recorded.recordings()], [y for x in recorded.batches() for y in x.traces]):
        assert any(x.discount[-1] == 0 for x in traces)
        assert any(x.discount[-1] > 0 for x in traces)
        assert any(s == y for x in traces for s, y in pairwise(x.s))
        assert any(len(set(x.s[:-1])) < len(x.r) for x in traces)
    assert all(x.discount[-1] == 0 for b in recorded.batches(None) for x in b.traces)
    assert all(x.V[recorded.END] != 0 for x in recorded.recordings())  # so that its use would be noticed


def test_enumeration_is_complete() -> None:
    x = models.instance("two states", models.two_states(0.5))
    for n in (1, 3):
        assert float(sum(p for p, _ in enumeration.trajectories(x.mdp, x.pi, 0, n))) == pytest.approx(1, abs=1e-15)
    half = [(HALF, "a"), (HALF / 2, "b"), (HALF / 2, "c")]
    assert sum(p for p, _ in enumeration.tuples(half, 3)) == 1
    assert dict((y, p) for p, y in enumeration.tuples(half, 2))["b", "c"] == Fraction(1, 8)


def test_moments_in_the_end_by_long_recursion() -> None:
    chain = two_state()
    exact = enumeration.td_limit(chain, np.ones((2, 1)), 0.4)
    assert float(exact.mean[0]) == pytest.approx(7.404, abs=5e-4)
    assert float(rational.exact_policy_values(chain, np.ones((2, 1)))[0]) == pytest.approx(7.568, abs=5e-4)
    mean, covariance = long_recursion(chain, np.ones((2, 1)), 0.4, np.zeros(2), 2000)
    assert [float(m) for m in exact.mean] == pytest.approx(mean.tolist(), rel=1e-10)
    assert np.array(exact.covariance, np.float64) == pytest.approx(covariance, rel=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_bias_on_the_loop_is_that_of_singh_and_sutton(n: int) -> None:
    p, stay = float(own_monte_carlo.P), 1.5
    bias, _ = own_monte_carlo.deviations(1, 1.0, own_monte_carlo.every, n)
    assert float(bias) == pytest.approx(-p / (1 - p) * stay / (n + 1), rel=1e-12)
    bias, mse = own_monte_carlo.deviations(1, 1.0, own_monte_carlo.first, n)
    assert float(bias) == pytest.approx(0, abs=1e-13)
    assert float(mse) == pytest.approx(stay**2 * p / (1 - p) ** 2 / n, rel=1e-11)
