"""Advantage estimates with a wrong V: exact moments against every episode listed, samples, and closed forms."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from episodes import (
    Episode,
    acyclic,
    cyclic,
    episodes,
    moments,
    quick,
    ring,
    td_errors,
    tracks,
    with_advantages,
)
from models import dense_P, dense_R, twin
from paths import agree

from tabrl import MDP, chain
from tabrl.advantage_moments import advantage, advantage_gradient, expected_gradient, n_step_advantage
from tabrl.errors import ModelError, ShapeError
from tabrl.gradient import policy_gradient
from tabrl.gradient_moments import reinforce
from tabrl.policy import softmax
from tabrl.returns import lambda_returns

LAMBDAS = (0.0, 0.5, 0.95, 1.0)
N = 20_000


def values(m: MDP, pi: Any) -> Any:
    return chain.evaluate(chain.induce(m, pi))


def true_advantage(m: MDP, pi: Any) -> Any:
    """Q - V by a solve of its own; 0 for illegal actions and at the end."""
    P, r = dense_P(m), (dense_P(m) * dense_R(m)).sum(2)
    V = np.linalg.solve(np.eye(m.S) - m.gamma * np.einsum("sa,sax->sx", pi, P), (pi * r).sum(1))
    return np.where(m.legal & ~m.terminal[:, None], r + m.gamma * P @ V - V[:, None], 0.0)


def starting(m: MDP, pi: Any, s: int, a: int, steps: int) -> list[Episode]:
    """Episodes from s whose first action is a, by their probability given both."""
    P, R = dense_P(m), dense_R(m)
    out = []
    for x in np.flatnonzero(P[s, a]):
        for e in episodes(m, pi, steps - 1, np.eye(m.S)[x]):
            out.append(Episode(e.p * P[s, a, x], (s, *e.s), (a, *e.a), (R[s, a, x], *e.r)))
    return out


def pairs(m: MDP) -> list[tuple[int, int]]:
    return [(int(s), int(a)) for s, a in np.argwhere(m.legal & ~m.terminal[:, None])]


def compare(m: MDP, pi: Any, V: Any, steps: int, *cases: tuple[Any, float, float]) -> None:
    """(moments, factor, n): those of the sum of factor^k delta_k, k < n, over every episode of some steps."""
    A = true_advantage(m, pi)
    for s, a in pairs(m):
        listed = starting(m, pi, s, a, steps)
        p, deltas = np.array([e.p for e in listed]), [td_errors(m, e, V) for e in listed]
        assert abs(p.sum() - 1) < 1e-9
        for got, factor, n in cases:
            y = np.array([sum(factor**k * x for k, x in enumerate(delta) if k < n) for delta in deltas])
            assert got.mean[s, a] == pytest.approx(p @ y, rel=1e-10, abs=1e-12)
            assert got.bias[s, a] == pytest.approx(p @ y - A[s, a], rel=1e-10, abs=1e-12)
            assert got.variance[s, a] == pytest.approx(p @ (y - p @ y) ** 2, rel=1e-10, abs=1e-13)
    out = ~(m.legal & ~m.terminal[:, None])
    assert not any(x[out].any() for got, _, _ in cases for x in got)


def over_lambda(m: MDP, pi: Any, V: Any) -> list[tuple[Any, float, float]]:
    return [(advantage(m, pi, V, lam), m.gamma * lam, math.inf) for lam in LAMBDAS]


@pytest.mark.parametrize("seed", range(8))
def test_every_episode_of_acyclic_models(seed: int) -> None:
    m, pi, V = acyclic(seed)
    n_step = [(n_step_advantage(m, pi, V, n), m.gamma, n) for n in (1, 2, 3, math.inf)]
    compare(m, pi, V, 99, *over_lambda(m, pi, V), *n_step)


@pytest.mark.parametrize("seed", range(8))
def test_every_course_of_n_steps_in_cyclic_models(seed: int) -> None:
    """n steps are all that the n-step estimate sees: nothing is cut off."""
    m, pi, V = cyclic(seed, S=3, A=2, gamma=(0.9, 1.0)[seed % 2], proper=bool(seed % 2), terminal=bool(seed % 3))
    for n in (1, 2, 4):
        compare(m, pi, V, n, (n_step_advantage(m, pi, V, n), m.gamma, n))
    compare(m, pi, V, 1, (advantage(m, pi, V, 0), 0.0, 1))


@pytest.mark.parametrize("seed", range(6))
def test_every_episode_of_quick_cyclic_models(seed: int) -> None:
    """Cut after 8 steps, which fewer than .02^7 = 2e-12 of the episodes reach (the first step may lead anywhere)."""
    m, pi, V = quick(seed, (0.9, 1.0)[seed % 2])
    compare(m, pi, V, 8, *over_lambda(m, pi, V))


@pytest.mark.parametrize("seed", range(6))
def test_every_episode_of_a_ring(seed: int) -> None:
    """An episode is its length; those of more than 100 steps weigh less than .72^100 = 6e-15."""
    m, pi, V = ring(seed, (0.9, 1.0)[seed % 2], S=1 + seed % 3)
    compare(m, pi, V, 100, *over_lambda(m, pi, V))
    listed = list(episodes(m, pi, 100))
    for lam, decay in ((0.0, m.gamma), (0.9, m.gamma), (0.9, 1.0)):
        mean, variance = moments(listed, with_advantages(m, pi, V, lam, decay))
        got = advantage_gradient(m, pi, V, lam, decay=decay)
        assert np.allclose(got.mean, mean, rtol=1e-10, atol=1e-13)
        assert np.allclose(got.variance, variance, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("seed", range(20))
def test_closed_forms_of_the_bias(seed: int) -> None:
    m, pi, V = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    P, e = dense_P(m), np.where(m.terminal, 0.0, V) - values(m, pi)
    real = m.legal & ~m.terminal[:, None]
    td = np.where(real, m.gamma * P @ e - e[:, None], 0.0)
    P_pi = np.einsum("sa,sax->sx", pi, P)
    assert np.allclose(advantage(m, pi, V, 0).bias, td, rtol=1e-12, atol=1e-14)
    assert np.allclose(advantage(m, pi, V, 1).bias, np.where(real, -e[:, None], 0.0), rtol=1e-11, atol=1e-13)
    for n in (1, 2, 5):
        far = m.gamma**n * P @ np.linalg.matrix_power(P_pi, n - 1) @ e
        want = np.where(real, far - e[:, None], 0.0)
        assert np.allclose(n_step_advantage(m, pi, V, n).bias, want, rtol=1e-11, atol=1e-13)
    for lam in LAMBDAS:
        at_v_pi = advantage(m, pi, values(m, pi), lam)
        assert not at_v_pi.bias.any()
        assert np.allclose(at_v_pi.mean, true_advantage(m, pi), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_what_lambda_mixes(seed: int) -> None:
    """lam = 0 is n = 1, lam = 1 is n = inf; in the mean GAE is the geometric mixture of n-step ones."""
    m, pi, V = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    for lam, n in ((0.0, 1), (1.0, math.inf), (1.0, 500)):
        for x, y in zip(advantage(m, pi, V, lam), n_step_advantage(m, pi, V, n), strict=True):
            assert np.allclose(x, y, rtol=1e-10, atol=1e-12)
    lam = 0.7
    mixed = sum((1 - lam) * lam ** (n - 1) * n_step_advantage(m, pi, V, n).mean for n in range(1, 90))
    assert np.allclose(mixed, advantage(m, pi, V, lam).mean, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_lambda_one_is_the_return_less_v(seed: int) -> None:
    m, pi, V = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    full, V_pi = advantage(m, pi, V, 1), values(m, pi)
    A, real = true_advantage(m, pi), m.legal & ~m.terminal[:, None]
    assert np.allclose(full.mean, np.where(real, (A + (V_pi - V)[:, None]), 0.0), rtol=1e-10, atol=1e-12)
    within = (pi * full.variance).sum(1) + (pi * A**2).sum(1)  # total variance
    assert np.allclose(within, chain.return_variance(m, pi), rtol=1e-11, atol=1e-13)
    other = advantage(m, pi, np.zeros(m.S), 1)
    assert np.allclose(other.variance, full.variance, rtol=1e-10, atol=1e-13)  # V cancels but for -V(s)


@pytest.mark.parametrize("seed", range(20))
def test_gradients_from_estimated_advantages(seed: int) -> None:
    """Mean and bias from those of the advantage; lam = 1 is REINFORCE with baseline V."""
    m, _, V = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    theta = np.random.default_rng(seed).normal(size=(m.S, m.A))
    pi = softmax(theta, m.legal)
    right = policy_gradient(m, theta)
    assert np.allclose(expected_gradient(m, pi, true_advantage(m, pi)), right, rtol=1e-11, atol=1e-14)
    for lam in LAMBDAS:
        x = advantage(m, pi, V, lam)
        for decay in (m.gamma, 1.0):
            mean = advantage_gradient(m, pi, V, lam, decay=decay).mean
            assert np.allclose(mean, expected_gradient(m, pi, x.mean, decay=decay), rtol=1e-10, atol=1e-13)
        bias = advantage_gradient(m, pi, V, lam).mean - right
        assert np.allclose(bias, expected_gradient(m, pi, x.bias), rtol=1e-9, atol=1e-13)
    assert np.allclose(expected_gradient(m, pi, advantage(m, pi, V, 1).bias), 0, atol=1e-13)
    one, two = advantage_gradient(m, pi, V, 1), reinforce(m, pi, V)
    assert np.allclose(one.variance, two.variance, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("seed", range(10))
def test_the_gradient_with_td_errors_is_unbiased_iff_the_error_ahead_ignores_the_action(seed: int) -> None:
    m, pi, e = cyclic(seed, proper=False, terminal=False, masked=False, A=3)
    pi = (pi + 0.1) / (pi + 0.1).sum(1, keepdims=True)  # every action is tried and, from mu, every state may be seen
    V_pi, P = values(m, pi), dense_P(m)
    ahead = P @ e
    apart = ahead - (pi * ahead).sum(1, keepdims=True)
    d = chain.occupancy(chain.induce(m, pi), m.mu)[:, None]
    x = advantage(m, pi, V_pi + e, 0)
    assert np.allclose(expected_gradient(m, pi, x.bias), m.gamma * d * pi * apart, rtol=1e-9, atol=1e-12)
    assert abs(apart).max() > 1e-3 and abs(expected_gradient(m, pi, x.bias)).max() > 1e-5
    shift = advantage(m, pi, V_pi + 3, 0)  # the same error everywhere: TD errors are off, the gradient is not
    assert np.allclose(shift.bias, -3 * (1 - m.gamma)) and np.allclose(
        expected_gradient(m, pi, shift.bias), 0, 0, 1e-13
    )
    same = MDP(np.broadcast_to(P[:, :1], P.shape), m.R, m.gamma, mu=m.mu)  # actions pay differently and lead alike
    x = advantage(same, pi, values(same, pi) + e, 0)
    assert abs(x.bias).max() > 1e-2 and np.allclose(expected_gradient(same, pi, x.bias), 0, 0, 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_samples(seed: int) -> None:
    """GAE from one pair (s,a), and a whole episode's gradient; about 250 comparisons at |z| <= 6.8."""
    m, pi, V = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    V = np.where(m.terminal, 0.0, V)
    rng = np.random.default_rng(70 + seed)
    start, first = next((s, a) for s, a in pairs(m) if a or m.legal[s].sum() == 1)
    s, _, r, x = tracks(m, pi, rng, np.full(N, start), first)
    delta = r + m.gamma * V[x] - V[s]  # 0 after the end
    for lam in LAMBDAS:
        got = advantage(m, pi, V, lam)
        y = (m.gamma * lam) ** np.arange(len(s)) @ delta
        agree(y, got.mean[start, first])
        agree((y - got.mean[start, first]) ** 2, got.variance[start, first])
    here = replace(m, mu=np.eye(m.S)[start])
    s, a, r, x = tracks(m, pi, rng, np.full(N, start))
    delta = r + m.gamma * V[x] - V[s]
    for lam, decay in ((0.0, m.gamma), (0.9, m.gamma), (0.9, 1.0)):
        g, H = np.zeros((N, m.S, m.A)), np.zeros(N)
        for t in reversed(range(len(s))):
            H = delta[t] + m.gamma * lam * H
            g[np.arange(N), s[t]] += decay**t * (np.eye(m.A)[a[t]] - pi[s[t]]) * H[:, None]
        got_g = advantage_gradient(here, pi, V, lam, decay=decay)
        agree(g, got_g.mean)
        agree((g - got_g.mean) ** 2, got_g.variance)


def test_a_lambda_return_is_v_plus_gae() -> None:
    """E1.17: the critic's target in the mean, V + E[GAE | s] = (I - gamma lam P)^-1 (r + gamma (1 - lam) P V)."""
    m, pi, V = cyclic(3)
    V = np.where(m.terminal, 0.0, V)
    law = chain.induce(m, pi)
    P = law.P if isinstance(law.P, np.ndarray) else law.P.toarray()
    for lam in LAMBDAS:
        target = np.linalg.solve(np.eye(m.S) - m.gamma * lam * P, law.r + m.gamma * (1 - lam) * P @ V)
        assert np.allclose(V + (pi * advantage(m, pi, V, lam).mean).sum(1), target, rtol=1e-11, atol=1e-13)
    one = MDP([[[0, 1]], [[0, 1]]], [[2], [0]], 0.9, terminal=[0, 1])
    G = lambda_returns(np.array([2.0]), np.array([0.0]), np.array([0.5, 7.0]), 0.3)[0]
    assert 0.5 + advantage(one, np.ones((2, 1)), [0.5, 7.0], 0.3).mean[0, 0] == pytest.approx(G)


def test_values_of_terminal_states_are_never_used_and_storage_does_not_matter() -> None:
    m, pi, V = cyclic(5)
    other = np.where(m.terminal, 99.0, V)
    for f, k in ((advantage, 0.9), (n_step_advantage, 3)):
        want = f(m, pi, V, k)
        assert all(np.array_equal(x, y) for x, y in zip(want, f(m, pi, other, k), strict=True))
        assert all(np.allclose(x, y, 1e-11, 1e-13) for x, y in zip(want, f(twin(m), pi, V, k), strict=True))
    assert advantage_gradient(m, pi, other, 0.9).total == advantage_gradient(m, pi, V, 0.9).total


def test_endless_episodes() -> None:
    """gamma < 1 without an end is allowed; at gamma = 1 a class that never ends needs lam < 1 and must pay nothing."""
    m, pi, V = cyclic(3, proper=False, terminal=False)
    assert np.allclose(advantage(m, pi, V, 1).bias, -(V - values(m, pi))[:, None] * m.legal)
    still = MDP([[[1.0]]], [[0.0]], 1.0)
    one = np.ones((1, 1))
    assert advantage(still, one, [4.0], 0.9).mean[0, 0] == 0
    with pytest.raises(ModelError, match=r"pi never ends from states 0"):
        advantage(still, one, [4.0], 1)
    with pytest.raises(ModelError, match=r"pi never ends from states 0"):
        advantage_gradient(still, one, [4.0], 0.5)
    with pytest.raises(ModelError, match=r"never ends and r\[0\] is 1"):
        advantage(MDP([[[1.0]]], [[1.0]], 1.0), one, [4.0], 0.5)
    with pytest.raises(ModelError, match=r"chain\[s=0\] is visited infinitely often"):
        expected_gradient(still, one, one)


def test_bad_input() -> None:
    m, pi, V = cyclic(0)
    with pytest.raises(ModelError, match=r"lam is 1.1; a number in \[0, 1\]"):
        advantage(m, pi, V, 1.1)
    with pytest.raises(ModelError, match=r"n is 0; a whole number >= 1, or inf"):
        n_step_advantage(m, pi, V, 0)
    with pytest.raises(ShapeError, match=r"V has shape \(2,\); \(4,\) is expected"):
        advantage_gradient(m, pi, [0.0, 1.0], 0.5)
    with pytest.raises(ShapeError, match=r"estimate has shape \(4,\)"):
        expected_gradient(m, pi, V)
