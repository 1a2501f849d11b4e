"""Verification of policy gradients: the package on rows E1.10 to E1.17, a user's functions, and the judge."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import complex_step as other
import numpy as np
import pytest
from exercise_files import wrong_rows
from scipy.special import rel_entr
from test_verify import changed
from verified import assert_named, assert_row_passes, untried

from tabrl import (
    actor_critic,
    advantage_moments,
    advantages,
    gradient,
    gradient_moments,
    losses,
    natural,
    policy,
    policy_gradients,
    ppo,
    returns,
    soft,
    surrogate,
    trpo,
    verify,
    weights,
)
from tabrl.verify import (
    advantage_laws,
    cases_actor_critic,
    complex_step,
    estimates,
    literal,
    own_reinforce,
    own_surrogate,
    softmax_models,
)
from tabrl.verify.literal import Trace

A = Any
ROWS = ("E1.10", "E1.11", "E1.12", "E1.13", "E1.15", "E1.16", "E1.17")


# the package


@pytest.mark.parametrize("row", ROWS)
def test_policy_gradients_match_closed_forms(row: str) -> None:
    assert_row_passes(row, 7)


E = 1 + 1e-8


def scaled(x: A) -> A:
    return x * E


def field(name: str, factor: float = E) -> Callable[[A], A]:
    """Scale one field of a record, or of the records that a generator yields."""

    def one(x: A) -> A:
        return x._replace(**{name: getattr(x, name) * factor})

    return lambda x: one(x) if hasattr(x, name) else (one(y) for y in x)


def less(x: A) -> A:
    return x - 1e-6


BREAKS: list[tuple[str, A, str, Callable[[A], A]]] = [
    ("E1.10", policy, "softmax", scaled),
    ("E1.10", policy, "log_softmax", scaled),
    ("E1.10", policy, "score", scaled),
    ("E1.10", policy, "through_pi", scaled),
    ("E1.10", policy, "through_log", scaled),
    ("E1.10", gradient, "objective", scaled),
    ("E1.10", gradient, "at", field("d")),
    ("E1.10", gradient, "at", field("advantage")),
    ("E1.10", gradient, "policy_gradient", scaled),
    ("E1.10", gradient, "policy_gradient", lambda g: -g),
    ("E1.10", gradient, "policy_gradient", lambda g: g / 2),
    ("E1.10", advantage_moments, "expected_gradient", scaled),
    ("E1.10", gradient, "hessian_vector", scaled),
    ("E1.10", natural, "gradient_ascent", field("theta")),
    ("E1.11", gradient_moments, "reinforce", field("mean")),
    ("E1.11", gradient_moments, "reinforce", field("variance")),
    ("E1.11", gradient_moments, "reinforce", field("total")),
    ("E1.11", own_reinforce, "cut_reinforce", field("mean")),
    ("E1.11", own_reinforce, "cut_reinforce", field("variance")),
    ("E1.11", gradient_moments, "whole_return", field("mean")),
    ("E1.11", gradient_moments, "whole_return", field("variance")),
    ("E1.11", gradient_moments, "optimal_baseline", field("b")),
    ("E1.11", gradient_moments, "optimal_baseline", field("total")),
    ("E1.11", gradient_moments, "optimal_baseline", field("curvature")),
    ("E1.11", losses, "policy_gradient", scaled),
    ("E1.11", losses, "d_policy_gradient", lambda g: -g),
    ("E1.11", returns, "discounted_sum", scaled),
    ("E1.12", advantage_moments, "advantage", field("mean")),
    ("E1.12", advantage_moments, "advantage", field("bias")),
    ("E1.12", advantage_moments, "advantage", field("variance")),
    ("E1.12", advantage_moments, "n_step_advantage", field("mean")),
    ("E1.12", advantage_moments, "n_step_advantage", field("bias")),
    ("E1.12", advantage_moments, "n_step_advantage", field("variance")),
    ("E1.12", advantage_moments, "advantage_gradient", field("mean")),
    ("E1.12", advantage_moments, "advantage_gradient", field("variance")),
    ("E1.12", advantage_moments, "expected_gradient", scaled),
    ("E1.12", losses, "entropy", scaled),
    ("E1.12", losses, "d_entropy", scaled),
    ("E1.13", returns, "gae", scaled),
    ("E1.13", returns, "gae_fragments", scaled),
    ("E1.13", advantage_moments, "advantage", field("mean")),
    ("E1.13", advantage_moments, "advantage", field("bias")),
    ("E1.13", advantage_moments, "advantage", field("variance")),
    ("E1.13", advantage_moments, "advantage_gradient", field("mean")),
    ("E1.13", advantage_moments, "advantage_gradient", field("total")),
    ("E1.15", losses, "ppo_clip", scaled),
    ("E1.15", losses, "d_ppo_clip", scaled),
    ("E1.15", losses, "d_ppo_clip", lambda g: np.where(g == 0, 1e-12, g)),
    ("E1.15", losses, "clipped", lambda x: ~x),
    ("E1.15", surrogate, "clip_surrogate", scaled),
    ("E1.15", surrogate, "clip_gradient", scaled),
    ("E1.15", surrogate, "clip_gradient", lambda g: g + 1e-15),
    ("E1.15", surrogate, "clip_fraction", scaled),
    ("E1.15", gradient, "visit_counts", scaled),
    ("E1.15", gradient, "usual_gradient", scaled),
    ("E1.15", weights, "bounded_ratios", scaled),
    ("E1.15", weights, "log_ratios", scaled),
    ("E1.15", advantages, "whiten", scaled),
    ("E1.15", advantages, "whiten", lambda x: -x),
    ("E1.16", policy, "kl", scaled),
    ("E1.16", policy, "total_variation", scaled),
    ("E1.16", losses, "kl_penalty", scaled),
    ("E1.16", losses, "d_kl_penalty", scaled),
    ("E1.16", losses, "ppo_kl", scaled),
    ("E1.16", losses, "d_ppo_kl", scaled),
    ("E1.16", losses, "adaptive_beta", lambda b: max(b, 2.0)),
    ("E1.16", gradient, "fisher", scaled),
    ("E1.16", gradient, "fisher_vector", scaled),
    ("E1.16", gradient, "natural_gradient", scaled),
    ("E1.16", natural, "npg_step", scaled),
    ("E1.16", natural, "mirror_descent", field("theta")),
    ("E1.16", surrogate, "performance_difference", scaled),
    ("E1.16", surrogate, "surrogate", scaled),
    ("E1.16", surrogate, "trpo_bound", less),
    ("E1.16", surrogate, "trpo_bound_kl", less),
    ("E1.16", surrogate, "mean_bound", less),
    ("E1.16", surrogate, "mixture_bound", less),
    ("E1.16", soft, "evaluate_soft", lambda V: V * (1 + 1e-10)),
    ("E1.16", soft, "soft_policy_gradient", scaled),
    ("E1.16", soft, "soft_optimum", lambda x: x._replace(Q=x.Q * 1.001)),
    ("E1.16", soft, "soft_optimum", lambda x: x._replace(V=x.V + 10.0)),
    ("E1.11", policy_gradients, "reinforce", field("theta")),
    ("E1.11", policy_gradients, "reinforce", field("J")),
    ("E1.12", actor_critic, "a2c", field("theta")),
    ("E1.12", actor_critic, "a2c", field("V")),
    ("E1.15", ppo, "ppo", field("theta")),
    ("E1.15", ppo, "ppo", field("V")),
    ("E1.16", ppo, "ppo_kl", field("theta")),
    ("E1.16", trpo, "trpo", field("kl")),
    ("E1.16", trpo, "trpo", field("theta", 2.0)),
    ("E1.16", trpo, "trpo_step", lambda x: x._replace(theta=-x.theta)),
    ("E1.17", returns, "value_target", scaled),
    ("E1.17", returns, "gae", scaled),
    ("E1.17", advantage_moments, "advantage", field("mean")),
    ("E1.17", losses, "value_loss", scaled),
    ("E1.17", losses, "d_value_loss", scaled),
]


@pytest.mark.parametrize("case", range(len(BREAKS)))
def test_a_broken_package_is_caught(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    row, module, name, change = BREAKS[case]
    monkeypatch.setattr(module, name, changed(getattr(module, name), change))
    failed = [c for c in verify.run([row]) if not c.passed]
    assert failed
    assert not any("it raises" in c.where for c in failed)


# a user's function


def softmax(theta: A) -> A:
    w = np.exp(theta - theta.max(axis=-1, keepdims=True))
    return w / w.sum(axis=-1, keepdims=True)


def solved(P: A, r: A, gamma: float, theta: A) -> tuple[A, A, A]:
    """pi, Q and P_pi of a softmax policy."""
    pi = softmax(theta)
    P_pi = np.einsum("sa,sax->sx", pi, P)
    V = np.linalg.solve(np.eye(len(P)) - gamma * P_pi, (pi * r).sum(1))
    return pi, r + gamma * P @ V, P_pi


def visits(P_pi: A, mu: A, gamma: float) -> A:
    return np.linalg.solve(np.eye(len(mu)) - gamma * P_pi.T, mu)


def centred(pi: A, Q: A) -> A:
    return Q - (pi * Q).sum(1, keepdims=True)


def grad_J(P: A, r: A, gamma: float, mu: A, theta: A) -> A:
    pi, Q, P_pi = solved(P, r, gamma, theta)
    return visits(P_pi, mu, gamma)[:, None] * pi * centred(pi, Q)


def weighed(d: Callable[[A, A, float], A]) -> Callable[..., A]:
    """The gradient with other visits."""

    def f(P: A, r: A, gamma: float, mu: A, theta: A) -> A:
        pi, Q, P_pi = solved(P, r, gamma, theta)
        return d(P_pi, mu, gamma)[:, None] * pi * centred(pi, Q)

    return f


def valued(x: Callable[[A, A], A]) -> Callable[..., A]:
    """Visits times something made of pi and Q."""

    def f(P: A, r: A, gamma: float, mu: A, theta: A) -> A:
        pi, Q, P_pi = solved(P, r, gamma, theta)
        return visits(P_pi, mu, gamma)[:, None] * x(pi, Q)

    return f


def undiscounted_visits(P_pi: A, mu: A, gamma: float) -> A:
    ends = (P_pi.sum(1) < 0.5).any()
    return visits(P_pi, mu, 1.0 if ends else gamma)


def led(P: A, where: A) -> A:
    P = P.copy()
    P[P.sum(2).max(1) == 0] = where
    return P


def greedy_bandit(P: A, r: A, gamma: float, mu: A, theta: A) -> A:
    pi, _, P_pi = solved(P, r, gamma, theta)
    return visits(P_pi, mu, gamma)[:, None] * pi * centred(pi, r)


def returns_of(r: A, discount: A) -> A:
    G, y = np.zeros(len(r)), 0.0
    for t in reversed(range(len(r))):
        y = G[t] = r[t] + discount[t] * y
    return G


def estimate(
    pi: A, s: A, a: A, r: A, discount: A, baseline: A, *,
    fade: A = None, score: Callable[[A, int], A] = lambda p, a: np.eye(len(p))[a] - p, x: A = None,
) -> A:  # fmt: skip
    """Sum of fade[t] times score times x[t]."""
    g, y = np.zeros_like(pi), returns_of(r, discount) - baseline[s[:-1]] if x is None else x
    fades = np.cumprod([1.0, *discount[:-1]]) if fade is None else fade
    for t in range(len(r)):
        g[s[t]] += fades[t] * score(pi[s[t]], a[t]) * y[t]
    return g


def reinforce(pi: A, s: A, a: A, r: A, discount: A, baseline: A) -> A:
    return estimate(pi, s, a, r, discount, baseline)


def multiplied(x: Callable[..., A]) -> Callable[..., A]:
    """REINFORCE with other multipliers x(s, r, discount, b)."""
    return lambda pi, s, a, r, d, b: estimate(pi, s, a, r, d, b, x=x(s, r, d, b))


def psi(score: Callable[[A, int], A]) -> Callable[..., A]:
    return lambda *x: estimate(*x, score=score)


def faded(fade: Callable[[A], A], d2: Callable[[A], A] = lambda d: d) -> Callable[..., A]:
    return lambda pi, s, a, r, d, b: estimate(pi, s, a, r, d2(d), b, fade=fade(d))


def fades(d: A) -> A:
    return np.cumprod([1.0, *d[:-1]])


def ones(d: A) -> A:
    return np.where(d > 0, 1.0, 0.0)


def everywhere(d: A) -> A:
    return np.full_like(d, d.max())


def ended(d: A) -> A:
    return np.append(d[:-1], 0.0)


def shifted(x: A) -> A:
    return np.append(x[1:], 0.0)


def first_return(s: A, r: A, d: A, b: A) -> A:
    return np.full(len(r), returns_of(r, d)[0] - b[s[0]])


def first_only(s: A, r: A, d: A, b: A) -> A:
    keep = np.zeros(len(r))
    keep[np.unique(s[:-1], return_index=True)[1]] = 1.0
    return keep * (returns_of(r, d) - b[s[:-1]])


def one_step(
    theta: A, V: A, s: A, a: A, r: A, discount: A, alpha: float, beta: float, *,
    fade: bool = True, score: Callable[[A, int], A] = lambda p, a: np.eye(len(p))[a] - p,
) -> A:  # fmt: skip
    """The box of the book, with the actor's step size times I."""
    I = 1.0  # noqa: E741
    for t in range(len(r)):
        delta = r[t] + discount[t] * V[s[t + 1]] - V[s[t]]
        V[s[t]] += beta * delta
        theta[s[t]] += alpha * (I if fade else 1.0) * delta * score(softmax(theta[s[t]]), a[t])
        I *= discount[t]  # noqa: E741
    return theta


def of_pi(p: A, a: int) -> A:
    return p[a] * (np.eye(len(p))[a] - p)


def in_turn(*x: A) -> A:
    return one_step(*x)


def read(f: Callable[..., A]) -> Callable[..., A]:
    """Actor-critic on another reading of the episode."""
    return lambda theta, V, s, a, r, d, alpha, beta: in_turn(theta, V, *f(s, a, r, d), alpha, beta)


def other_pass(**rules: A) -> Callable[..., A]:
    """The same with one rule changed."""

    def f(theta: A, V: A, s: A, a: A, r: A, d: A, alpha: float, beta: float) -> A:
        start, I = theta.copy(), 1.0  # noqa: E741
        for t in range(len(r)):
            delta = r[t] + d[t] * V[s[t + 1]] - (0.0 if rules.get("target") else V[s[t]])
            if not rules.get("frozen"):
                V[s[t]] += beta * delta * (I if rules.get("both") else 1.0)
            if rules.get("late"):
                delta = r[t] + d[t] * V[s[t + 1]] - V[s[t]]
            p = softmax((start if rules.get("old") else theta)[s[t]])
            theta[s[t]] += rules.get("sign", 1.0) * alpha * I * delta * (np.eye(len(p))[a[t]] - p)
            I *= d[t]  # noqa: E741
        return theta

    return f


def with_returns(theta: A, V: A, s: A, a: A, r: A, d: A, alpha: float, beta: float) -> A:
    G, tail = np.zeros(len(r)), V[s[-1]]
    for t in reversed(range(len(r))):
        tail = G[t] = r[t] + d[t] * tail
    I = 1.0  # noqa: E741
    for t in range(len(r)):
        delta = G[t] - V[s[t]]
        V[s[t]] += beta * delta
        p = softmax(theta[s[t]])
        theta[s[t]] += alpha * I * delta * (np.eye(len(p))[a[t]] - p)
        I *= d[t]  # noqa: E741
    return theta


def faded_errors(delta: A, follow: A) -> A:
    return returns_of(delta, follow)


def gae(r: A, discount: A, v: A, lam: float) -> A:
    return faded_errors(r + discount * v[1:] - v[:-1], lam * discount)


def target(r: A, discount: A, v: A, lam: float) -> A:
    G, y = np.zeros(len(r)), v[-1]
    for t in reversed(range(len(r))):
        y = G[t] = r[t] + discount[t] * ((1 - lam) * v[t + 1] + lam * y)
    return G


def clip_loss(logp: A, logp_old: A, adv: A, low: float, high: float) -> A:
    rho = np.exp(logp - logp_old)
    return -np.minimum(rho * adv, np.clip(rho, 1 - low, 1 + high) * adv)


def divergence(old: A, new: A) -> A:
    return rel_entr(old, new).sum(1)


RIGHT: dict[str, Callable[..., A]] = {
    "E1.10": grad_J,
    "E1.11": reinforce,
    "E1.12": one_step,
    "E1.13": gae,
    "E1.15": clip_loss,
    "E1.16": divergence,
    "E1.17": target,
}


@pytest.mark.parametrize("row", ROWS)
def test_a_right_function_passes(row: str) -> None:
    checks = verify.check(row, RIGHT[row])
    assert len(checks) >= 7
    assert all(c.passed for c in checks), [c for c in checks if not c.passed]


def rho(f: Callable[..., A]) -> Callable[..., A]:
    """A loss made of the ratio."""
    return lambda logp, old, adv, low, high: f(np.exp(logp - old), adv, low, high)


def cut(x: A, low: float, high: float) -> A:
    return np.clip(x, 1 - low, 1 + high)


def minimum(x: A, adv: A, low: float, high: float) -> A:
    return -np.minimum(x * adv, cut(x, low, high) * adv)


def wrong_way(x: A, adv: A, low: float, high: float) -> A:
    return -adv * np.where(adv > 0, np.maximum(x, 1 - low), np.minimum(x, 1 + high))


def white(adv: A) -> A:
    return (adv - adv.mean()) / (adv.std() + 1e-8)


def both(f: Callable[..., A]) -> list[tuple[str, Callable[..., A]]]:
    """An error of the advantages, as it shows in them and in the targets."""
    return [("E1.13", f), ("E1.17", lambda r, d, v, lam: f(r, d, v, lam) + v[:-1])]


ADVANTAGES: list[tuple[str, Callable[..., A]]] = [
    ("lam alone, without the discount", lambda r, d, v, lam: faded_errors(r + d * v[1:] - v[:-1], lam * ones(d))),
    ("you use lam = 0", lambda r, d, v, lam: r + d * v[1:] - v[:-1]),
    ("you use lam = 1", lambda r, d, v, lam: gae(r, d, v, 1.0)),
    ("exchanged", lambda r, d, v, lam: gae(r, d, v, 1 - lam)),
    ("multiplied by 1 - lam", lambda r, d, v, lam: (1 - lam) * gae(r, d, v, lam)),
    ("v[t] and v[t+1] are exchanged", lambda r, d, v, lam: faded_errors(r + d * v[:-1] - v[1:], lam * d)),
    ("v[t+1] is not discounted", lambda r, d, v, lam: faded_errors(r + ones(d) * v[1:] - v[:-1], lam * d)),
    ("leave out the value of the next state", lambda r, d, v, lam: faded_errors(r - v[:-1], lam * d)),
    ("forget gamma", lambda r, d, v, lam: gae(r, ones(d), v, lam)),
    ("value of a terminal state", lambda r, d, v, lam: gae(r, everywhere(d), v, lam)),
    ("treat a time limit as an end", lambda r, d, v, lam: gae(r, ended(d), v, lam)),
    ("gamma multiplies the reward", lambda r, d, v, lam: gae(d * r, d, v, lam)),
    ("discount of the next step", lambda r, d, v, lam: gae(r, shifted(d), v, lam)),
]  # fmt: skip
MISTAKES: list[tuple[str, str, Callable[..., A]]] = [
    ("E1.10", "the sign is wrong", lambda *x: -grad_J(*x)),
    ("E1.10", "by mu instead of the visits", weighed(lambda P_pi, mu, g: mu)),
    ("E1.10", "leave out the visits", weighed(lambda P_pi, mu, g: np.ones(len(mu)))),
    ("E1.10", "gamma^t is missing", weighed(undiscounted_visits)),
    ("E1.10", "multiply the visits by 1 - gamma", weighed(lambda P_pi, mu, g: (1 - g) * visits(P_pi, mu, g))),
    ("E1.10", "divide the visits by their sum",
        weighed(lambda P_pi, mu, g: visits(P_pi, mu, g) / visits(P_pi, mu, g).sum())),
    ("E1.10", "every state alike", weighed(lambda P_pi, mu, g: visits(P_pi, np.ones(len(mu)) / len(mu), g))),
    ("E1.10", "leave out pi(a|s)", valued(centred)),
    ("E1.10", "leaves out -pi(b|s)", valued(lambda pi, Q: pi * Q)),
    ("E1.10", "with respect to pi", valued(lambda pi, Q: Q)),
    ("E1.10", "you return the advantage (", lambda P, r, g, mu, theta: centred(*solved(P, r, g, theta)[:2])),
    ("E1.10", "the reward instead of Q", greedy_bandit),
    ("E1.10", "forget gamma", lambda P, r, g, mu, theta: grad_J(P, r, 1.0 if (P.sum(2) == 0).any() else g, mu, theta)),
    ("E1.10", "bootstrap from a terminal state", lambda P, *x: grad_J(led(P, np.eye(len(P))[0]), *x)),
    ("E1.10", "axes exchanged", lambda P, r, g, mu, theta: grad_J(P.transpose(2, 1, 0), r, g, mu, theta)),
    ("E1.10", "what comes after the first reward", lambda P, r, g, mu, theta: grad_J(0 * P, r, g, mu, theta)),
    ("E1.11", "gamma^t is missing", faded(np.ones_like)),
    ("E1.11", "first step weighs gamma", faded(lambda d: d[0] * fades(d) if len(d) > 1 else fades(d))),
    ("E1.11", "leave out the baseline", lambda pi, s, a, r, d, b: reinforce(pi, s, a, r, d, 0 * b)),
    ("E1.11", "baseline of the next state", multiplied(lambda s, r, d, b: returns_of(r, d) - b[s[1:]])),
    ("E1.11", "add the baseline", lambda pi, s, a, r, d, b: reinforce(pi, s, a, r, d, -b)),
    ("E1.11", "leaves out -pi(b|s)", psi(lambda p, a: np.eye(len(p))[a])),
    ("E1.11", "1/pi(a|s)", psi(lambda p, a: np.eye(len(p))[a] / p[a])),
    ("E1.11", "gradient of pi(a|s) instead", psi(of_pi)),
    ("E1.11", "mean over the steps", lambda *x: reinforce(*x) / len(x[3])),
    ("E1.11", "whole episode, not from t on", multiplied(first_return)),
    ("E1.11", "each step with its own baseline", multiplied(lambda s, r, d, b: returns_of(r, d)[0] - b[s[:-1]])),
    ("E1.11", "the sign is wrong", lambda *x: -reinforce(*x)),
    ("E1.11", "reward instead of the return", multiplied(lambda s, r, d, b: r - b[s[:-1]])),
    ("E1.11", "forget gamma", faded(np.ones_like, ones)),
    ("E1.11", "only the scores are discounted", faded(fades, ones)),
    ("E1.11", "gamma multiplies the reward", lambda pi, s, a, r, d, b: reinforce(pi, s, a, d * r, d, b)),
    ("E1.11", "leaves out the first reward", multiplied(lambda s, r, d, b: d * shifted(returns_of(r, d)) - b[s[:-1]])),
    ("E1.11", "first visit of each state only", multiplied(first_only)),
    ("E1.12", "gamma^t is missing", lambda *x: one_step(*x, fade=False)),
    ("E1.12", "multiplied by gamma^t as well", other_pass(both=True)),
    ("E1.12", "leaves out -pi(b|s)", lambda *x: one_step(*x, score=lambda p, a: np.eye(len(p))[a])),
    ("E1.12", "gradient of pi(a|s) instead", lambda *x: one_step(*x, score=of_pi)),
    ("E1.12", "downhill", other_pass(sign=-1.0)),
    ("E1.12", "leave out -V(s)", other_pass(target=True)),
    ("E1.12", "after the critic has moved", other_pass(late=True)),
    ("E1.12", "policy before the episode", other_pass(old=True)),
    ("E1.12", "critic does not learn", other_pass(frozen=True)),
    ("E1.12", "step sizes are exchanged", lambda th, V, s, a, r, d, x, y: one_step(th, V, s, a, r, d, y, x)),
    ("E1.12", "value of a terminal state", read(lambda s, a, r, d: (s, a, r, everywhere(d)))),
    ("E1.12", "treat a time limit as an end", read(lambda s, a, r, d: (s, a, r, ended(d)))),
    ("E1.12", "forget gamma", read(lambda s, a, r, d: (s, a, r, ones(d)))),
    ("E1.12", "gamma multiplies the reward", read(lambda s, a, r, d: (s, a, d * r, d))),
    ("E1.12", "leave out the last step", read(lambda *x: (y[:-1] for y in x))),
    ("E1.12", "return less V(s)", with_returns),
    *((row, text, f) for text, g in ADVANTAGES for row, f in both(g)),
    ("E1.13", "lambda-returns, A + v", target),
    ("E1.13", "the sign is wrong", lambda *x: -gae(*x)),
    ("E1.13", "leave out -v[t]", lambda r, d, v, lam: faded_errors(r + d * v[1:], lam * d)),
    ("E1.13", "subtract v[t] twice", lambda r, d, v, lam: gae(r, d, v, lam) - v[:-1]),
    ("E1.17", "you return the advantages", gae),
    ("E1.17", "V counts twice", lambda r, d, v, lam: faded_errors(r + d * v[1:], lam * d) + v[:-1]),
    ("E1.17", "add v[t+1] instead", lambda r, d, v, lam: gae(r, d, v, lam) + v[1:]),
    ("E1.17", "subtract v[t] instead", lambda r, d, v, lam: gae(r, d, v, lam) - v[:-1]),
    ("E1.15", "the objective instead of the loss", lambda *x: -clip_loss(*x)),
    ("E1.15", "log pi multiplies", lambda logp, *x: clip_loss(logp, *x) * logp),
    ("E1.15", "the clipped ratio alone", rho(lambda x, adv, low, high: -cut(x, low, high) * adv)),
    ("E1.15", "leave out the clip", rho(lambda x, adv, low, high: -x * adv)),
    ("E1.15", "larger of the two terms", rho(lambda x, adv, low, high: -np.maximum(x * adv, cut(x, low, high) * adv))),
    ("E1.15", "upside down", lambda logp, old, *x: clip_loss(old, logp, *x)),
    ("E1.15", "exp is missing", rho(lambda x, *y: minimum(np.log(x), *y))),
    ("E1.15", "logp_old is missing", lambda logp, old, *x: clip_loss(logp, 0 * old, *x)),
    ("E1.15", "low and high are exchanged", lambda p, old, adv, low, high: clip_loss(p, old, adv, high, low)),
    ("E1.15", "low on both sides", lambda p, old, adv, low, high: clip_loss(p, old, adv, low, low)),
    ("E1.15", "high on both sides", lambda p, old, adv, low, high: clip_loss(p, old, adv, high, high)),
    ("E1.15", "a bad action is cut at 1 + high", rho(lambda x, adv, low, high: -np.minimum(x, 1 + high) * adv)),
    ("E1.15", "a good action is cut at 1 - low", rho(lambda x, adv, low, high: -np.maximum(x, 1 - low) * adv)),
    ("E1.15", "the wrong way round", rho(wrong_way)),
    ("E1.15", "there is no ratio", lambda logp, old, adv, low, high: -logp * adv),
    ("E1.15", "whitened", lambda p, old, adv, low, high: clip_loss(p, old, white(adv), low, high)),
    ("E1.16", "KL(pi_new, pi_old)", lambda p, q: divergence(q, p)),
    ("E1.16", "average both directions", lambda p, q: (divergence(p, q) + divergence(q, p)) / 2),
    ("E1.16", "add both directions", lambda p, q: divergence(p, q) + divergence(q, p)),
    ("E1.16", "not weighed by pi_old", lambda p, q: np.log(np.maximum(p, 1e-9) / q).sum(1)),
    ("E1.16", "weighed alike", lambda p, q: np.log(np.maximum(p, 1e-9) / q).mean(1)),
    ("E1.16", "the sign is wrong", lambda p, q: -divergence(p, q)),
    ("E1.16", "base 2", lambda p, q: divergence(p, q) / np.log(2)),
    ("E1.16", "cross-entropy", lambda p, q: -(p * np.log(q)).sum(1)),
    ("E1.16", "total variation", lambda p, q: abs(p - q).sum(1) / 2),
    ("E1.16", "squared distance", lambda p, q: ((p - q) ** 2).sum(1)),
    ("E1.16", "mean over the actions", lambda p, q: rel_entr(p, q).mean(1)),
    *wrong_rows(ROWS),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_a_known_mistake_is_named(case: int) -> None:
    assert_named(*MISTAKES[case])


@pytest.mark.parametrize("row", ROWS)
def test_every_mistake_that_is_known_is_tried(row: str) -> None:
    assert not untried(row, MISTAKES)


def test_a_table_is_judged_entry_by_entry() -> None:
    def spoilt(*x: A) -> A:
        g = grad_J(*x)
        g[1, 0] = np.nan
        return g

    assert {c.where for c in verify.check("E1.10", spoilt)} == {
        "the result at s=1, a=0 is nan; a finite number is expected"
    }
    off = verify.check("E1.10", lambda *x: grad_J(*x) + np.eye(len(x[3]), x[1].shape[1])[::-1] / 64)[0]
    assert off.where.startswith("s=0, a=1: ")
    flat = verify.check("E1.10", lambda *x: grad_J(*x)[:, 0])[0]
    assert flat.where == "the result has shape (2,); (2, 2) is expected"
    actions = verify.check("E1.4", lambda P, r, gamma: np.zeros(len(P)))[0]
    assert actions.where.endswith("make actions one-hot: np.eye(A)[actions]")


# the judge


@pytest.mark.parametrize("seed", range(10))
def test_two_complex_steps_agree(seed: int) -> None:
    m, theta = other.trial(seed)
    scale = max(1.0, abs(other.gradient(m, theta)).max())
    found = complex_step.derivative(lambda z: complex_step.J(m, z), theta)
    assert abs(found - other.gradient(m, theta)).max() <= 1e-10 * scale
    assert abs(complex_step.theorem(m, theta) - other.gradient(m, theta)).max() <= 1e-10 * scale


def test_fractions_and_complex_steps_agree() -> None:
    for x in softmax_models.softmaxes():
        exact = np.array(x.gradient, np.float64)
        found = complex_step.derivative(lambda z, m=x.mdp: complex_step.J(m, z), x.theta)  # type: ignore[misc]
        assert abs(found - exact).max() <= 1e-11 * max(1.0, abs(exact).max()), x.name
        assert not exact[~x.mdp.legal].any()
        assert not exact[x.mdp.terminal].any()


def test_models_have_what_a_gradient_may_get_wrong() -> None:
    x = softmax_models.softmaxes()
    assert any(not y.mdp.legal.all() for y in x)
    assert any((np.array(y.d, np.float64) == 0).any() for y in x)  # a state that is never visited
    assert {y.mdp.gamma for y in x if y.ends} >= {0.9, 0.99, 1.0}
    assert {y.mdp.gamma for y in x if not y.ends} >= {0.0, 0.9, 0.99}
    assert all(abs(np.array(y.V_pi, np.float64) - y.V).max() > 0.1 for y in x)
    assert len({y.name for y in x}) == len(x)


def test_listed_episodes_are_all_there() -> None:
    for x in own_reinforce.listed():
        assert abs(estimates.total(x.law) - 1) <= Fraction(1, 2**60), x.name


def test_moments_of_advantages_by_two_judges() -> None:
    x = softmax_models.tiny()[0]
    V = advantage_laws.values(x, x.V)
    for lam in (Fraction(0), Fraction(1, 2), Fraction(1)):
        law = advantage_laws.gae(x, V, lam)
        each = advantage_laws.listed(x, 9, lambda e, lam=lam: estimates.gae(e, literal.along(V, e), lam)[0])  # type: ignore[misc]
        for s, a, (mean, variance) in each:
            assert law.mean[s][a] == mean
            assert law.variance[s][a] == variance
            assert law.bias[s][a] == mean - x.advantage[s][a]


def test_sums_by_hand() -> None:
    half = Fraction(1, 2)
    x = Trace([0, 1, 0, 2], [Fraction(1), Fraction(2), Fraction(4)], [half, half, Fraction(0)])
    assert estimates.returns()(x) == [3, 4, 4]
    assert estimates.returns([Fraction(1), Fraction(2), Fraction(9)])(x) == [2, 2, 3]
    assert estimates.whole([Fraction(1), Fraction(2), Fraction(9)])(x) == [2, 2, 2]
    v = [Fraction(y) for y in (8, 16, 8, 32)]  # TD errors 1, -10, -4
    assert estimates.gae(x, v, half) == [1 - Fraction(10, 4) - Fraction(4, 16), -11, -4]
    run = estimates.Run(Fraction(1), x, [0, 1, 1])
    pi = [[half, half]] * 3
    assert estimates.estimate(run, pi, [Fraction(8)] * 3, half) == [3, -3, -2, 2, 0, 0]


def test_no_derivative_is_taken_at_a_kink() -> None:
    for x in softmax_models.softmaxes():
        ratio = complex_step.softmax(own_surrogate.moved(x), x.mdp.legal)[x.mdp.legal] / x.pi[x.mdp.legal]
        assert min(abs(ratio - 0.8).min(), abs(ratio - 1.2).min()) > 1e-6, x.name
    everywhere_clipped = [(ratio > 1.2) | (ratio < 0.8)]
    assert np.any(everywhere_clipped) and not np.all(everywhere_clipped)


def test_a_pass_of_actor_critic_by_hand() -> None:
    x = cases_actor_critic.Play(
        np.zeros((2, 2)), np.array([1.0, 2.0]), np.array([0, 0, 1]), np.array([0, 1]), np.array([3.0, 0.0]),
        np.array([0.5, 0.5]), 0.5, 1.0,
    )  # fmt: skip
    first = 3 + 0.5 * 1 - 1  # delta; then V(0) = 3.5, theta[0] = (first / 4, -first / 4)
    p = 1 / (1 + np.exp(-first / 2))
    second = 0.5 * 2 - 3.5
    exact = [first / 4 - 0.25 * second * p, -first / 4 + 0.25 * second * p]
    assert cases_actor_critic.one_pass(x) == pytest.approx(np.array([exact, [0.0, 0.0]]), abs=1e-15)
