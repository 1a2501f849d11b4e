"""The exact policy gradient: against complex steps, finite differences, sums over time and closed forms."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from complex_step import J, along, derivative, gradient, parts, policy, trial
from models import dense_P, random_mdp, twin

from tabrl import MDP
from tabrl import gradient as exact_gradient
from tabrl.chain import induce
from tabrl.errors import ModelError, NotConverged, ShapeError
from tabrl.gradient import (
    Exact,
    at,
    exact,
    fisher,
    fisher_vector,
    hessian_vector,
    natural_gradient,
    objective,
    policy_gradient,
    usual_gradient,
    visit_counts,
)
from tabrl.policy import kl, score, softmax

SEEDS = range(200)


def close(x: Any, y: Any, tol: float) -> bool:
    """Whether two tables agree relative to the largest entry of the second."""
    return bool(abs(x - y).max() <= tol * abs(y).max())


@pytest.mark.parametrize("block", range(4))
def test_gradient_is_the_complex_step(block: int) -> None:
    for seed in SEEDS[block::4]:
        m, theta = trial(seed)
        truth = derivative(partial(J, m), theta)
        assert abs(truth).max() > 0 and close(policy_gradient(m, theta), truth, 1e-9)
        assert np.isclose(objective(m, theta), J(m, theta), rtol=1e-9)


@pytest.mark.parametrize("seed", range(50))
def test_hessian_vector_is_the_complex_step_of_the_gradient(seed: int) -> None:
    m, theta = trial(seed)
    rng = np.random.default_rng(seed)
    v, w = rng.normal(size=(2, m.S, m.A))
    Hv = hessian_vector(m, theta, v)
    assert close(Hv, along(lambda x: gradient(m, x), theta, v), 1e-9)
    Hw = hessian_vector(m, theta, w)
    assert abs((w * Hv).sum() - (v * Hw).sum()) <= 1e-9 * abs(w * Hv).sum()  # a Hessian is symmetric
    assert close(hessian_vector(m, theta, v - 2 * w), Hv - 2 * Hw, 1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_any_baseline_gives_the_same_gradient(seed: int) -> None:
    m, theta = trial(seed)
    x, b = at(m, theta), np.random.default_rng(seed).normal(size=(m.S, 1)) * (1 + m.R_max)
    weight = np.where(m.terminal, 0.0, x.d)[:, None, None] * x.pi[:, :, None] * score(x.pi)
    for Q in (x.Q, x.Q - x.V[:, None], x.advantage, x.Q - b):
        assert np.allclose(
            (weight * Q[:, :, None]).sum(axis=1),
            policy_gradient(m, theta),
            rtol=1e-8,
            atol=1e-12 * x.d.max() * (abs(x.Q).max() + abs(b).max()),
        )


@pytest.mark.parametrize("seed", range(30))
def test_structure(seed: int) -> None:
    m, theta = trial(seed)
    g, x = policy_gradient(m, theta), at(m, theta)
    rounding = 1e-12 * x.d.max() * abs(x.Q).max()
    assert abs(g.sum(axis=1)).max() <= rounding
    v = np.random.default_rng(seed).normal(size=theta.shape)
    for table in (g, hessian_vector(m, theta, v), usual_gradient(m, theta, horizon=5), natural_gradient(m, theta)):
        assert (table[m.terminal] == 0).all() and (table[~m.legal] == 0).all()
    assert close(policy_gradient(twin(m), theta), g, 1e-9)
    assert close(hessian_vector(twin(m), theta, v), hessian_vector(m, theta, v), 1e-9)
    assert close(policy_gradient(m, theta + v[:, :1]), g, 1e-9)  # a constant per state is no change


def test_exact_quantities() -> None:
    m, theta = trial(7)
    x = at(m, theta)
    V, Q, d = parts(m, policy(m, theta))
    assert isinstance(x, Exact) and np.allclose(x.pi, policy(m, theta), rtol=1e-14)
    for mine, judge in ((x.V, V), (x.Q, Q), (x.d, d), (x.J, m.mu @ V)):
        assert np.allclose(mine, judge, rtol=1e-10, atol=1e-12 * abs(V).max())
    assert np.isclose(x.J, (x.d * induce(m, x.pi).r).sum(), rtol=1e-10)
    assert np.isclose((x.pi * x.advantage).sum(axis=1), 0, atol=1e-12 * abs(V).max()).all()
    deterministic = np.eye(m.A)[np.where(m.legal, 1, 0).argmax(axis=1)]
    assert np.allclose(exact(m, deterministic).V, parts(m, deterministic)[0], rtol=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_fisher_is_the_covariance_of_the_score(seed: int) -> None:
    m, theta = trial(seed)
    pi, n = policy(m, theta), m.S * m.A
    d = np.where(m.terminal, 0.0, parts(m, pi)[2])
    F = np.zeros((n, n))
    for s in range(m.S):
        for a in range(m.A):
            g = np.zeros((m.S, m.A))
            g[s] -= pi[s]
            g[s, a] += 1
            F += d[s] * pi[s, a] * np.outer(g, g)
    assert np.allclose(fisher(m, theta), F, rtol=1e-9, atol=1e-13 * d.max())
    v = np.random.default_rng(seed).normal(size=theta.shape)
    assert np.allclose(fisher_vector(m, theta, v).ravel(), F @ v.ravel(), rtol=1e-8, atol=1e-12 * d.max())


@pytest.mark.parametrize("seed", range(20))
def test_fisher_is_the_hessian_of_the_divergence(seed: int) -> None:
    m, theta = trial(seed)
    x, rng = at(m, theta), np.random.default_rng(seed)
    d, h = np.where(m.terminal, 0.0, x.d), 1e-4

    def mean_kl(step: Any) -> float:
        return float(d @ kl(x.pi, softmax(theta + step, m.legal)))

    for _ in range(3):
        v, w = rng.normal(size=(2, m.S, m.A))
        second = (mean_kl(h * v) + mean_kl(-h * v)) / h**2
        curve = float((v * fisher_vector(m, theta, v)).sum())
        assert np.isclose(second, curve, rtol=1e-6)
        mixed = (mean_kl(h * (v + w)) - mean_kl(h * (v - w)) - mean_kl(h * (w - v)) + mean_kl(-h * (v + w))) / (
            4 * h**2
        )
        across = float((w * fisher_vector(m, theta, v)).sum())
        scale = math.sqrt(curve * float((w * fisher_vector(m, theta, w)).sum()))
        assert abs(mixed - across) <= 1e-6 * scale


@pytest.mark.parametrize("seed", range(40))
def test_natural_gradient_is_the_advantage(seed: int) -> None:
    m, theta = trial(seed)
    theta = theta / max(1.0, abs(theta).max())  # for pinv's cut of small singular values
    x, g, n = at(m, theta), policy_gradient(m, theta), natural_gradient(m, theta)
    noise = 1e-11 * x.d.max() * abs(x.Q).max()
    assert np.array_equal(n[x.d > 0], x.advantage[x.d > 0]) and (n[x.d <= 0] == 0).all()
    assert abs(fisher_vector(m, theta, n) - g).max() <= noise
    least = (np.linalg.pinv(fisher(m, theta), rcond=1e-12, hermitian=True) @ g.ravel()).reshape(m.S, m.A)
    free = m.legal & ~m.terminal[:, None]
    mean = np.where(free, n, 0.0).sum(axis=1) / np.maximum(free.sum(axis=1), 1)
    assert np.allclose(least, np.where(free, n - mean[:, None], 0.0), rtol=1e-6, atol=1e-8 * abs(x.Q).max())


def test_natural_gradient_of_states_that_are_never_visited() -> None:
    P = np.zeros((3, 2, 3))
    P[0, 0, 0] = P[0, 1, 2] = P[1, 0, 0] = P[1, 1, 2] = P[2, :, 2] = 1.0
    m = MDP(P, [[1, 0], [5, 0], [0, 0]], 0.9, mu=[1, 0, 0], terminal=[0, 0, 1])
    n = natural_gradient(m, np.zeros((3, 2)))
    assert (n[0] != 0).all() and (n[1:] == 0).all() and (policy_gradient(m, np.zeros((3, 2)))[1:] == 0).all()
    assert (at(m, np.zeros((3, 2))).advantage[1] != 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_visits_without_discount_are_sums_over_time(seed: int) -> None:
    m, theta = trial(seed, proper=True)
    pi = policy(m, theta)
    P = np.einsum("sa,sax->sx", pi, dense_P(m))
    p, total = m.mu, np.zeros(m.S)
    for t in range(600):
        if t in (0, 1, 7):
            assert np.allclose(visit_counts(m, pi, t), total, rtol=1e-13, atol=0)
        total, p = total + p, p @ P
    assert np.allclose(visit_counts(m, pi), total, rtol=1e-10)  # ends with probability >= .1 per step
    x = at(m, theta)
    for horizon in (None, 3):
        n = visit_counts(m, pi, horizon)
        usual = usual_gradient(m, theta, horizon=horizon)
        assert np.allclose(usual, n[:, None] * x.pi * x.advantage, rtol=1e-12)
    if m.gamma == 1:
        assert close(usual_gradient(m, theta), policy_gradient(m, theta), 1e-9)


def test_the_usual_gradient_is_the_gradient_of_nothing() -> None:
    m = random_mdp(np.random.default_rng(0), S=4, A=2, gamma=0.5, proper=True, masked=False, rewards="sa")
    theta = np.random.default_rng(1).normal(size=(4, 2))

    def usual(x: Any) -> Any:
        pi = policy(m, x)
        V, Q, _ = parts(m, pi)
        n = parts(m, pi, gamma=1.0)[2]
        return np.where(m.terminal, 0.0, n)[:, None] * pi * (Q - V[:, None])

    assert close(usual_gradient(m, theta), usual(theta), 1e-10)
    for field, crooked in ((usual, True), (lambda x: gradient(m, x), False)):
        rows = [along(field, theta, v.reshape(4, 2)).ravel() for v in np.eye(8)]
        off = abs(np.array(rows) - np.array(rows).T).max() / abs(np.array(rows)).max()
        assert (off > 0.01) == crooked and (crooked or off < 1e-12)


def cycle(n: int, r: float, last: float) -> MDP:
    """n states in a row that pay r; the last one goes back to the first by action 0, or ends and pays `last`."""
    P, R = np.zeros((n + 1, 2, n + 1)), np.full((n + 1, 2), r)
    for s in range(n - 1):
        P[s, :, s + 1] = 1.0
    P[n - 1, 0, 0] = P[n - 1, 1, n] = P[n, :, n] = 1.0
    R[n - 1, 1], R[n] = last, 0.0
    return MDP(P, R, 1.0, mu=np.eye(n + 1)[0], terminal=np.arange(n + 1) == n)


GAPS = np.concatenate([np.arange(0, 20, 4), np.arange(20, 45, 0.5), np.arange(45, 900, 15)])


@pytest.mark.parametrize("seed", range(8))
def test_a_chance_to_end_that_rounding_hides(seed: int) -> None:
    """Every state ends with probability p = 1 / (1 + 2 exp(gap)) per step, so J = -1 / p whatever happens between."""
    rng = np.random.default_rng(seed)
    n, answered = int(rng.integers(2, 8)), 0
    P = np.zeros((n + 1, 3, n + 1))
    P[:n, 1:, :n] = rng.dirichlet(np.full(n, 0.3), (n, 2))
    P[:, 0, n] = P[n, :, n] = 1.0
    m = MDP(P, -1.0 * (np.arange(n + 1) < n), 1.0, terminal=np.arange(n + 1) == n)
    for gap in GAPS:
        theta = np.tile([-gap / 2, gap / 2, gap / 2], (n + 1, 1))
        try:
            found = objective(m, theta)
        except NotConverged:
            assert gap > 25
        else:
            answered += 1
            assert np.isclose(found, -1 - 2 * math.exp(gap), rtol=1e-2)
    assert answered >= 10


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_saturated_softmax_without_discount(n: int) -> None:
    m, answered = cycle(n, -1.0, -1.0), 0
    for gap in GAPS:
        theta = np.zeros((n + 1, 2))
        theta[n - 1] = gap / 2, -gap / 2
        for model in (m, twin(m)):
            try:
                found = objective(model, theta)
            except NotConverged:
                assert gap > 25  # fewer than 1e11 rounds
                continue
            answered += 1
            assert np.isclose(found, -n * (1 + math.exp(gap)), rtol=1e-2)  # rounds are geometric
    assert answered >= 10


@pytest.mark.parametrize("gap", [760.0, 1e4])
def test_a_softmax_that_rounds_to_staying_for_nothing_has_no_finite_objective(gap: float) -> None:
    m, theta = cycle(2, 0.0, 1.0), np.zeros((3, 2))
    assert objective(m, theta) == 1.0
    theta[1] = gap, 0.0
    for function in (objective, policy_gradient, fisher, usual_gradient):
        with pytest.raises(NotConverged, match=r"pi\[s=1, a=1\] is 0 by underflow"):
            function(m, theta)
    theta[1] = 0.0, gap  # leaving at once is no trouble
    assert objective(m, theta) == 1.0


def test_a_model_that_never_ends_is_refused() -> None:
    stay = MDP([[[1.0], [1.0]]], [[0, 1]], 1.0)
    with pytest.raises(ModelError, match=r"never ends|infinitely often"):
        objective(stay, np.zeros((1, 2)))
    with pytest.raises(ModelError, match="infinitely often"):
        usual_gradient(MDP([[[1.0], [1.0]]], [[0, 1]], 0.5), np.zeros((1, 2)))


def test_what_is_refused() -> None:
    m = cycle(2, -1.0, 0.0)
    with pytest.raises(ShapeError, match=r"theta has shape \(2, 2\)"):
        objective(m, np.zeros((2, 2)))
    with pytest.raises(ModelError, match=r"theta\[0, 0\] is nan"):
        policy_gradient(m, np.full((3, 2), np.nan))
    with pytest.raises(ShapeError, match="v has shape"):
        hessian_vector(m, np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="horizon is -1"):
        visit_counts(m, np.full((3, 2), 0.5), -1)
    assert exact_gradient.exact(m, np.full((3, 2), 0.5)).J == -3.0
