"""REINFORCE: exact moments against every episode listed, samples, closed forms, and a gradient found another way."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from episodes import acyclic, cyclic, episodes, moments, quick, ring, to_go, tracks, whole
from models import dense_P, dense_R, twin
from paths import agree

from tabrl import MDP, chain
from tabrl.errors import ModelError, NotConverged, ShapeError
from tabrl.gradient import policy_gradient, usual_gradient
from tabrl.gradient_moments import cut_reinforce, optimal_baseline, reinforce, whole_return
from tabrl.policy import softmax

N = 20_000


def close(got: Any, mean: Any, variance: Any) -> None:
    """Each number to 1e-10 of itself; a number that cancels to nothing, to 1e-13 of the largest."""
    for x, y in ((got.mean, mean), (got.variance, variance)):
        assert np.allclose(x, y, rtol=1e-10, atol=1e-13 * abs(y).max())
    assert got.total == pytest.approx(variance.sum(), rel=1e-10, abs=1e-15)


def gradient(m: MDP, pi: Any) -> Any:
    """dJ / dtheta by complex steps through a softmax written here."""
    P, r = dense_P(m), (dense_P(m) * dense_R(m)).sum(2)
    out = np.zeros_like(pi)
    for s, a in np.argwhere(pi > 0):
        weight = pi.astype(complex)
        weight[s, a] *= np.exp(1e-30j)
        p = weight / weight.sum(1, keepdims=True)
        V = np.linalg.solve(np.eye(m.S) - m.gamma * np.einsum("sa,sax->sx", p, P), (p * r).sum(1))
        out[s, a] = (m.mu @ V).imag / 1e-30
    return out


def values(m: MDP, pi: Any) -> Any:
    return chain.evaluate(chain.induce(m, pi))


def wait_or_go() -> tuple[MDP, Any]:
    """Waiting costs 1, leaving pays 2, at even odds."""
    m = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1])
    return m, np.full((2, 2), 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_every_episode_of_acyclic_models(seed: int) -> None:
    m, pi, b = acyclic(seed)
    listed = list(episodes(m, pi))
    for baseline in (np.zeros(m.S), np.full(m.S, 0.7), values(m, pi), b):
        for decay in (m.gamma, 1.0, 0.4):
            close(reinforce(m, pi, baseline, decay=decay), *moments(listed, to_go(m, pi, baseline, decay)))
        close(whole_return(m, pi, baseline), *moments(listed, whole(m, pi, baseline)))


@pytest.mark.parametrize("seed", range(8))
def test_every_episode_of_cyclic_models_cut_at_a_horizon(seed: int) -> None:
    """States are visited up to four times; the cut is part of the estimate, so there is no tail."""
    m, pi, b = cyclic(seed, S=3, A=2, gamma=(0.9, 1.0)[seed % 2], proper=bool(seed % 3), terminal=bool(seed % 3))
    for steps in (0, 1, 4):
        listed = list(episodes(m, pi, steps))
        for decay in (m.gamma, 1.0):
            close(cut_reinforce(m, pi, steps, b, decay=decay), *moments(listed, to_go(m, pi, b, decay)))


@pytest.mark.parametrize("seed", range(6))
def test_every_episode_of_quick_cyclic_models(seed: int) -> None:
    """Cut after 8 steps, which fewer than .02^8 = 3e-14 of the episodes reach, each more step 1/50 of those before."""
    m, pi, b = quick(seed, (0.9, 1.0)[seed % 2])
    listed = list(episodes(m, pi, 8))
    assert sum(e.p for e in listed if not m.terminal[e.s[-1]]) < 3e-14
    for decay in (m.gamma, 1.0):
        close(reinforce(m, pi, b, decay=decay), *moments(listed, to_go(m, pi, b, decay)))
    close(whole_return(m, pi, b), *moments(listed, whole(m, pi, b)))


@pytest.mark.parametrize("seed", range(6))
def test_every_episode_of_a_ring(seed: int) -> None:
    """An episode is its length; those of more than 100 steps weigh less than .72^100 = 6e-15."""
    m, pi, b = ring(seed, (0.9, 1.0)[seed % 2], S=1 + seed % 3)
    listed = list(episodes(m, pi, 100))
    for decay in (m.gamma, 1.0):
        close(reinforce(m, pi, b, decay=decay), *moments(listed, to_go(m, pi, b, decay)))
    close(whole_return(m, pi, b), *moments(listed, whole(m, pi, b)))


@pytest.mark.parametrize("seed", range(20))
def test_longer_and_longer_episodes_approach_whole_ones(seed: int) -> None:
    """Two derivations of one number on cyclic models, the endless ones included."""
    proper = seed % 4 != 0
    m, pi, b = cyclic(seed, gamma=(0.9, 1.0)[seed % 2], proper=proper, terminal=proper, S=None, A=None)
    for decay in (m.gamma, 1.0 if proper else 0.5):
        far = cut_reinforce(m, pi, 400, b, decay=decay)
        close(reinforce(m, pi, b, decay=decay), far.mean, far.variance)


def joint(m: MDP, pi: Any, steps: int) -> Any:
    """E[Y^j G^k | s] (3,3,S,S·A) for the first steps, not centred: literal sums over one more step at a time."""
    P, R = dense_P(m), dense_R(m)
    psi = np.einsum("st,sac->satc", np.eye(m.S), np.eye(m.A) - pi[:, None, :]).reshape(m.S, m.A, -1)
    law = pi[:, :, None] * P
    M = np.zeros((3, 3, m.S, m.S * m.A))
    M[0, 0] = 1.0
    for _ in range(steps):
        new = np.zeros_like(M)
        new[0, 0, m.terminal] = 1.0
        for j, k in np.ndindex(3, 3):
            for i, h in np.ndindex(j + 1, k + 1):
                c = math.comb(j, i) * math.comb(k, h) * m.gamma**h
                new[j, k] += c * np.einsum("sai,sai->si", psi ** (j - i), (law * R ** (k - h)) @ M[i, h])
        M = new
    return M


@pytest.mark.parametrize("seed", range(6))
def test_whole_returns_by_literal_joint_moments(seed: int) -> None:
    m, pi, b = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    M = joint(m, pi, 600)
    c = b[:, None]
    mean = (m.mu @ (M[1, 1] - c * M[1, 0])).reshape(pi.shape)
    square = (m.mu @ (M[2, 2] - 2 * c * M[2, 1] + c**2 * M[2, 0])).reshape(pi.shape)
    close(whole_return(m, pi, b), mean, square - mean**2)


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_is_the_gradient_whatever_the_baseline(seed: int) -> None:
    m, pi, b = cyclic(seed, gamma=(0.9, 1.0)[seed % 2], S=None, A=None)
    want = gradient(m, pi)
    small = 1e-12 * max(1e-3, abs(want).max())
    for baseline in (None, 3.0, values(m, pi), b):
        assert np.allclose(reinforce(m, pi, baseline).mean, want, rtol=1e-9, atol=small)
        assert np.allclose(whole_return(m, pi, baseline).mean, want, rtol=1e-9, atol=small)
    assert not reinforce(m, pi).mean[m.terminal].any() and not reinforce(m, pi).variance[~m.legal].any()


@pytest.mark.parametrize("seed", range(6))
def test_the_mean_of_cut_episodes_is_the_gradient_of_the_first_rewards(seed: int) -> None:
    """By central differences in theta of mu . (r + gamma P (r + …)), T = 5 rewards."""
    m, _, b = cyclic(seed, proper=False, terminal=False)
    theta, P = np.random.default_rng(seed).normal(size=(m.S, m.A)), dense_P(m)

    def J(theta: Any) -> float:
        pi, V = softmax(theta, m.legal), np.zeros(m.S)
        for _ in range(5):
            V = (pi * (P * dense_R(m) + m.gamma * P * V).sum(2)).sum(1)
        return float(m.mu @ V)

    got = cut_reinforce(m, softmax(theta, m.legal), 5, b).mean
    for i in np.ndindex(theta.shape):
        h = np.zeros_like(theta)
        h[i] = 1e-5
        assert got[i] == pytest.approx((J(theta + h) - J(theta - h)) / 2e-5, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_softmax_tables(seed: int) -> None:
    """The same mean as the exact gradients of a table theta, with gamma^t and without."""
    m, _, b = cyclic(seed)
    theta = np.random.default_rng(seed).normal(size=(m.S, m.A))
    pi = softmax(theta, m.legal)
    assert np.allclose(reinforce(m, pi, b).mean, policy_gradient(m, theta), rtol=1e-11, atol=1e-14)
    assert np.allclose(reinforce(m, pi, b, decay=1).mean, usual_gradient(m, theta), rtol=1e-11, atol=1e-14)


def test_without_the_discount_of_the_scores_the_mean_is_not_the_gradient() -> None:
    """A corridor of n steps, reward at the end: the last score weighs 1 instead of gamma^(n-1)."""
    n, gamma = 30, 0.9
    P = np.zeros((n + 1, 2, n + 1))
    P[np.arange(n), :, np.arange(n) + 1] = 1.0
    R = np.zeros((n + 1, 2))
    R[n - 1, 0] = 1.0
    m = MDP(P, R, gamma, mu=np.eye(n + 1)[0], terminal=np.arange(n + 1) == n)
    pi = np.full((n + 1, 2), 0.5)
    right, usual = reinforce(m, pi).mean[n - 1, 0], reinforce(m, pi, decay=1).mean[n - 1, 0]
    assert right == pytest.approx(gradient(m, pi)[n - 1, 0], rel=1e-12)
    assert usual == pytest.approx(0.25) and right == pytest.approx(0.25 * gamma ** (n - 1))


def test_waiting_or_going() -> None:
    """After k waits: G_t = 2 - (k - t), scores -1/2, …, -1/2, 1/2 in the coordinate of going. All by one sum."""
    m, pi = wait_or_go()

    def total(b: float) -> float:
        k = np.arange(200)
        score_sum = [(2 - b) / 2 - sum(2 - b - j for j in range(1, n + 1)) / 2 for n in k]
        p = 0.5 ** (k + 1)
        mean = p @ np.array(score_sum)
        return float(2 * (p @ (np.array(score_sum) - mean) ** 2))

    for b, want in ((0, 3), (1, 6), (-1, 2)):
        assert reinforce(m, pi, b).total == pytest.approx(total(b), rel=1e-12) == pytest.approx(want, rel=1e-12)
    assert values(m, pi)[0] == pytest.approx(1)  # V is worse than none
    psi2 = np.array([0.5, 0.5])
    Q = np.array([-1 + 1, 2])
    assert (psi2 @ Q) / psi2.sum() == 1  # and so is E[|psi|^2 Q] / E[|psi|^2]
    best = optimal_baseline(m, pi)
    assert best.b[0] == pytest.approx(-1) and best.total == pytest.approx(2) and best.curvature[0] == pytest.approx(1)
    assert whole_return(m, pi).total == pytest.approx(12)  # four times the return-to-go


@pytest.mark.parametrize("seed", range(20))
def test_the_optimal_baseline_is_the_minimum_of_a_quadratic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, pi, b = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    for decay in (m.gamma, 1.0):
        best = optimal_baseline(m, pi, decay=decay)
        assert best.total == pytest.approx(reinforce(m, pi, best.b, decay=decay).total, rel=1e-13)
        for other in (b, np.zeros(m.S), values(m, pi), best.b + rng.normal(size=m.S), best.b + 1e-3 * b):
            total = reinforce(m, pi, other, decay=decay).total
            assert total >= best.total * (1 - 1e-13)
            assert total == pytest.approx(best.total + best.curvature @ (other - best.b) ** 2, rel=1e-11, abs=1e-15)
    free = (best.curvature == 0) & ~m.terminal
    assert np.allclose(best.b[free], values(m, pi)[free])


def test_the_optimal_baseline_does_not_depend_on_the_start() -> None:
    m, pi, _ = cyclic(4)
    best = optimal_baseline(m, pi)
    for s in np.flatnonzero(~m.terminal):
        other = optimal_baseline(replace(m, mu=np.eye(m.S)[s]), pi)
        assert np.array_equal(other.b, best.b) and other.curvature[s] >= best.curvature[s]


@pytest.mark.parametrize("seed", range(10))
def test_the_minimum_from_second_differences_alone(seed: int) -> None:
    """Gradient and Hessian of the total variance by differences, exact for a quadratic; nothing else is assumed."""
    m, pi, _ = cyclic(seed)
    states = [int(s) for s in np.flatnonzero((pi > 0).sum(1) * ~m.terminal > 1)]

    def total(*unit: int) -> float:
        return reinforce(m, pi, np.bincount(unit, minlength=m.S).astype(float)).total

    base = total()
    H = np.array([[total(s, z) - total(s) - total(z) + base for z in states] for s in states])
    slope = np.array([total(s) - base for s in states]) - H.diagonal() / 2
    best = optimal_baseline(m, pi)
    assert np.allclose(H, np.diag(2 * best.curvature[states]), rtol=1e-10, atol=1e-13 * base)  # it is diagonal
    assert np.allclose(np.linalg.solve(H, -slope), best.b[states], rtol=1e-8, atol=1e-9)


def known_formula(m: MDP, pi: Any) -> Any:
    """E[|psi|^2 Q | s] / E[|psi|^2 | s]."""
    Q = (dense_P(m) * (dense_R(m) + m.gamma * values(m, pi))).sum(2)
    psi = np.eye(m.A) - pi[:, None, :]
    weight = pi * (psi**2).sum(2)
    return (weight * Q).sum(1) / np.maximum(weight.sum(1), 1e-300)


@pytest.mark.parametrize("seed", range(8))
def test_the_known_formula_is_right_without_revisits_only(seed: int) -> None:
    m, pi, _ = acyclic(seed)
    best = optimal_baseline(m, pi)
    chosen = best.curvature > 0
    assert chosen.any() and np.allclose(best.b[chosen], known_formula(m, pi)[chosen], rtol=1e-11)
    m, pi, _ = cyclic(seed, masked=False)
    best = optimal_baseline(m, pi)
    if best.curvature.any():
        assert reinforce(m, pi, known_formula(m, pi)).total > best.total * (1 + 1e-6)


def sampled(m: MDP, pi: Any, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """States, actions and rewards (T,N) of N episodes from mu."""
    return tracks(m, pi, rng, (rng.random((N, 1)) > m.mu.cumsum()[:-1]).sum(1))[:3]


def estimates(m: MDP, pi: Any, b: Any, decay: float, track: Any) -> tuple[Any, Any]:
    """REINFORCE with return-to-go and with the whole return, (N,S,A) each."""
    s, a, r = track
    run, G, Y = np.arange(N), np.zeros(N), np.zeros((N, m.S, m.A))
    g = np.zeros((N, m.S, m.A))
    for t in reversed(range(len(s))):
        G = r[t] + m.gamma * G
        psi = (np.eye(m.A)[a[t]] - pi[s[t]]) * ~m.terminal[s[t]][:, None]
        g[run, s[t]] += decay**t * psi * (G - b[s[t]])[:, None]
        Y[run, s[t]] += psi
    return g, Y * (G - b[s[0]])[:, None, None]


@pytest.mark.parametrize("seed", range(4))
def test_samples(seed: int) -> None:
    """About 700 comparisons at |z| <= 6.8: together a false alarm below 1e-8."""
    m, pi, b = cyclic(seed, gamma=(0.9, 1.0)[seed % 2])
    track = sampled(m, pi, np.random.default_rng(50 + seed))
    best = optimal_baseline(m, pi)
    for baseline in (np.zeros(m.S), values(m, pi), b, best.b):
        for decay in (m.gamma, 1.0):
            g, whole = estimates(m, pi, baseline, decay, track)
            exact = reinforce(m, pi, baseline, decay=decay)
            agree(g, exact.mean)
            agree((g - exact.mean) ** 2, exact.variance)
        exact = whole_return(m, pi, baseline)
        agree(whole, exact.mean)
        agree((whole - exact.mean) ** 2, exact.variance)


def test_samples_notice_a_wrong_baseline() -> None:
    """The z-test has power: the variance with baseline 0 against that with 1, 3 against 6 in all."""
    m, pi = wait_or_go()
    g, _ = estimates(m, pi, np.zeros(2), 1.0, sampled(m, pi, np.random.default_rng(7)))
    wrong = reinforce(m, pi, 1)
    agree(g, wrong.mean)
    with pytest.raises(AssertionError, match="z ="):
        agree((g - wrong.mean) ** 2, wrong.variance)


@pytest.mark.parametrize("seed", range(6))
def test_storage_does_not_matter(seed: int) -> None:
    m, pi, b = cyclic(seed)
    for f in (reinforce, whole_return):
        one, two = f(m, pi, b), f(twin(m), pi, b)
        assert np.allclose(one.mean, two.mean, rtol=0, atol=1e-13)
        assert np.allclose(one.variance, two.variance, rtol=1e-11, atol=1e-13)


def test_a_policy_without_a_choice_has_no_noise() -> None:
    m, _, b = cyclic(2, masked=False)
    sure = np.eye(m.A)[np.zeros(m.S, np.int64)]
    for x in (reinforce(m, sure, b), whole_return(m, sure, b)):
        assert not x.mean.any() and x.total == 0
    best = optimal_baseline(m, sure)
    assert best.total == 0 and not best.curvature.any() and np.allclose(best.b, values(m, sure))


def test_infinite_horizons() -> None:
    """Endless episodes have finite moments for decay < 1 and none for decay = 1."""
    m, pi, b = cyclic(3, proper=False, terminal=False)
    assert math.isfinite(reinforce(m, pi, b).total)
    endless = r"pi never ends from states 0,1,2,3; sums over a whole episode without discount"
    with pytest.raises(ModelError, match=endless):
        reinforce(m, pi, b, decay=1)
    with pytest.raises(ModelError, match=endless):
        whole_return(m, pi, b)
    assert math.isfinite(cut_reinforce(m, pi, 50, b, decay=1).total)


def test_gamma_one_and_an_end_out_of_reach() -> None:
    """A saturated policy: the answer would be rounding, so there is none."""
    P = [[[1.0, 0], [0, 1]], [[0, 1], [0, 1]]]
    m = MDP(P, [[-1, 0], [0, 0]], 1.0, terminal=[0, 1])
    for leave in (1e-15, 1e-17, 1e-300):
        with pytest.raises(NotConverged, match=r"rounding hides|singular to working precision"):
            reinforce(m, np.array([[1 - leave, leave], [1, 0]]))
    with pytest.raises(ModelError, match=r"pi never ends from states 0"):
        reinforce(m, np.array([[1.0, 0], [1, 0]]))
    assert math.isfinite(reinforce(m, np.array([[1 - 1e-6, 1e-6], [1, 0]])).total)


def test_starts_that_are_over_count_as_zero() -> None:
    m, pi = wait_or_go()
    half = replace(m, mu=np.array([0.5, 0.5]))
    one, two = reinforce(m, pi), reinforce(half, pi)
    assert np.allclose(two.mean, one.mean / 2)
    assert np.allclose(two.variance, one.variance / 2 + one.mean**2 / 4)


def test_bad_input() -> None:
    m, pi = wait_or_go()
    with pytest.raises(ShapeError, match=r"baseline has shape \(3,\); \(2,\) is expected"):
        reinforce(m, pi, [1, 2, 3])
    with pytest.raises(ModelError, match=r"baseline is nan|baseline\[\] is nan"):
        reinforce(m, pi, np.nan)
    with pytest.raises(ModelError, match=r"decay is 1.5; a number in \[0, 1\]"):
        optimal_baseline(m, pi, decay=1.5)
    with pytest.raises(ModelError, match=r"steps is -1; a whole number >= 0"):
        cut_reinforce(m, pi, -1)
    with pytest.raises(ModelError, match=r"pi\[s=0\] sums to 0.5"):
        whole_return(m, np.array([[0.5, 0], [1, 0]]))
