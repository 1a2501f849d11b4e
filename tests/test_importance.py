"""Importance sampling: against enumeration in fractions, literal sums over time, samples and closed forms."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from models import acyclic_mdp, dense_P, dense_R, random_mdp, random_policy, twin, uniform_policy
from paths import agree, move
from rational import exact

from tabrl import MDP, chain, importance
from tabrl.errors import ModelError
from tabrl.nonnegative import smallest_solution
from tabrl.trace import last

N = 40_000


def mixed(pi: Any, m: MDP, share: float = 0.5) -> Any:
    """A behaviour policy that covers pi."""
    return (1 - share) * pi + share * uniform_policy(m)


def model(seed: int, **fixed: Any) -> tuple[MDP, Any, Any]:
    """A cyclic model that ends, with masked actions, a target and a behaviour policy."""
    options: dict[str, Any] = {"S": 4, "A": 3, "proper": True, "masked": True, "rewards": "sas", "gamma": 0.9} | fixed
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, **options)
    m = replace(m, R=m.R / max(m.R_max, 1e-3))
    pi = random_policy(rng, m)
    return m, pi, mixed(pi, m)


def one_loop(gamma: float = 1.0, *, stay: float = 0.0, end: float = 1.0, p: float = 0.9) -> tuple[MDP, Any, Any]:
    """Example 5.5: left loops with probability p and ends with 1 - p, right ends; the target goes left."""
    P = [[[p, 1 - p], [0, 1]], [[0, 1], [0, 1]]]
    m = MDP(P, [[[stay, end], [0, 0]], [[0, 0], [0, 0]]], gamma, terminal=[0, 1])
    return m, np.array([[1.0, 0], [1, 0]]), np.full((2, 2), 0.5)


def paths(m: MDP, pi: Any, b: Any, s: int, limit: int = 99) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
    """(probability under b, W, G, per-decision sum) of every episode from s, cut at a limit, in fractions."""
    P, R, pi, b = exact(dense_P(m)), exact(dense_R(m)), exact(pi), exact(b)
    gamma, found = Fraction(m.gamma), []

    def walk(s: int, p: Any, W: Any, G: Any, X: Any, g: Any, left: int) -> None:
        if m.terminal[s] or not left:
            found.append((p, W, G, X))
            return
        for a, x in itertools.product(range(m.A), range(m.S)):
            if b[s][a] and P[s][a][x]:
                rho = W * pi[s][a] / b[s][a]
                r = g * R[s][a][x]
                walk(x, p * b[s][a] * P[s][a][x], rho, G + r, X + rho * r, g * gamma, left - 1)

    walk(s, Fraction(1), Fraction(1), Fraction(0), Fraction(0), Fraction(1), limit)
    total = sum(p for p, *_ in found)
    return [(p / total, W, G, X) for p, W, G, X in found]


@pytest.mark.parametrize("seed", range(8))
def test_every_episode_in_fractions(seed: int) -> None:
    m = acyclic_mdp(np.random.default_rng(seed), S=4, A=2, gamma=(0.9, 1.0)[seed % 2], sparse=seed % 3 == 0)
    pi = random_policy(np.random.default_rng(seed), m)
    b = mixed(pi, m)
    direct, whole = importance.per_decision(m, pi, b), importance.trajectory(m, pi, b)
    ratio, moments = importance.weighted(m, pi, b), importance.weight_moments(m, pi, b)
    for s in range(m.S):
        E = paths(m, pi, b, s)
        V = sum(p * W * G for p, W, G, _ in E)

        def mean(f: Any, E: Any = E) -> float:
            return float(sum(p * f(*x) for p, *x in E))

        def close(got: float, f: Any, mean: Any = mean) -> None:
            assert got == pytest.approx(mean(f), rel=1e-11, abs=1e-12)

        assert direct.mean[s] == pytest.approx(float(V), abs=1e-13)
        close(direct.variance[s], lambda W, G, X, V=V: (X - V) ** 2)
        close(whole.mean[s], lambda W, G, X: W * G)
        close(whole.variance[s], lambda W, G, X, V=V: (W * G - V) ** 2)
        close(moments.W[s], lambda W, G, X: (W - 1) ** 2)
        close(moments.cross[s], lambda W, G, X, V=V: (W - 1) * (W * G - V))
        close(ratio.variance[s], lambda W, G, X, V=V: (W * (G - V)) ** 2)
        close(ratio.bias[s], lambda W, G, X, V=V: -W * W * (G - V))


@pytest.mark.parametrize("seed", range(6))
def test_the_first_steps_in_fractions(seed: int) -> None:
    m, pi, b = model(seed, S=3, A=2, proper=bool(seed % 2))
    for record in importance.truncated(m, pi, b, 4):
        for s in range(m.S):
            E = paths(m, pi, b, s, record.n)
            V = sum(p * W * G for p, W, G, _ in E)
            assert record.mean[s] == pytest.approx(float(V), abs=1e-13)
            for got, square in (
                (record.per_decision[s], sum(p * (X - V) ** 2 for p, _, _, X in E)),
                (record.trajectory[s], sum(p * (W * G - V) ** 2 for p, W, G, _ in E)),
            ):
                assert got == pytest.approx(float(square), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_more_steps_approach_whole_episodes(seed: int) -> None:
    m, pi, _ = model(seed)
    b = mixed(pi, m, 0.2)
    end = last(importance.truncated(m, pi, b, 2000))
    whole, direct = importance.trajectory(m, pi, b), importance.per_decision(m, pi, b)
    assert np.allclose(end.mean, whole.mean, rtol=1e-10, atol=1e-12)
    assert np.allclose(end.trajectory, whole.variance, rtol=1e-9, atol=1e-11)
    assert np.allclose(end.per_decision, direct.variance, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("seed", range(12))
def test_sums_over_time_on_cyclic_models(seed: int) -> None:
    """Uncentred second moments, iterated one more step at a time from literal sums."""
    m, pi, b = model(seed)
    b = mixed(pi, m, 0.2)
    P, R, V = dense_P(m), dense_R(m), chain.evaluate(chain.induce(m, pi))
    square = np.divide(pi**2, b, out=np.zeros_like(pi), where=b > 0)[:, :, None] * P
    assert importance.radii(m, pi, b).trajectory < 1
    x, w = np.zeros(m.S), m.terminal * 1.0  # E[X^2] per decision, E[W^2]
    c, y = np.zeros(m.S), np.zeros(m.S)  # E[W W G], E[(W G)^2]
    for _ in range(3000):
        x = np.einsum("sax,sax->s", square, R**2 + 2 * m.gamma * R * V + m.gamma**2 * x)
        y = np.einsum("sax,sax->s", square, R**2 * w + 2 * m.gamma * R * c + m.gamma**2 * y)
        c = np.einsum("sax,sax->s", square, R * w + m.gamma * c)
        w = np.einsum("sax,x->s", square, w) + m.terminal
    live = ~m.terminal
    assert np.allclose(importance.per_decision(m, pi, b).variance, x - V**2, rtol=1e-9, atol=1e-11)
    assert np.allclose(importance.trajectory(m, pi, b).variance, y - V**2, rtol=1e-9, atol=1e-11)
    moments = importance.weight_moments(m, pi, b)
    assert np.allclose(moments.W[live], w[live] - 1, rtol=1e-9, atol=1e-11)
    assert np.allclose(moments.cross[live], (c - V)[live], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("seed", range(6))
def test_on_policy_is_the_variance_of_the_return(seed: int) -> None:
    m, pi, _ = model(seed, sparse=bool(seed % 2))
    sobel = chain.return_variance(m, pi)
    assert np.allclose(importance.per_decision(m, pi, pi).variance, sobel, rtol=1e-12)
    assert np.allclose(importance.trajectory(m, pi, pi).variance, sobel, rtol=1e-12)
    ratio = importance.weighted(m, pi, pi)
    assert np.allclose(ratio.variance, sobel, rtol=1e-12) and not ratio.bias.any()
    assert importance.weight_moments(m, pi, pi).W.max() == 0


@pytest.mark.parametrize("seed", range(6))
def test_storage_does_not_matter(seed: int) -> None:
    m, pi, b = model(seed, proper=True)
    for f in (importance.per_decision, importance.trajectory, importance.weighted, importance.radii):
        one, two = np.array(f(m, pi, b)), np.array(f(twin(m), pi, b))
        assert np.allclose(one, two, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_infinite_horizon_per_decision() -> None:
    m = random_mdp(np.random.default_rng(3), S=4, A=2, gamma=0.5, terminal=False, masked=False)
    pi = random_policy(np.random.default_rng(4), m)
    b = mixed(pi, m, 0.1)
    V, P, R = chain.evaluate(chain.induce(m, pi)), dense_P(m), dense_R(m)
    x, square = np.zeros(m.S), (pi**2 / b)[:, :, None] * P
    for _ in range(300):
        x = np.einsum("sax,sax->s", square, R**2 + 2 * m.gamma * R * V + m.gamma**2 * x)
    assert np.allclose(importance.per_decision(m, pi, b).variance, x - V**2, rtol=1e-10)
    with pytest.raises(ModelError, match=r"pi never ends from states 0,1,2,3"):
        importance.trajectory(m, pi, b)


def test_example_5_5() -> None:
    """rho(B) = 1.8: the weights lose their variance, whatever gamma; with the reward at the end, gamma^2 B counts."""
    m, pi, b = one_loop()
    assert importance.radii(m, pi, b) == pytest.approx((1.8, 1.8))
    for f in (importance.trajectory, importance.per_decision):
        assert f(m, pi, b).mean[0] == pytest.approx(1) and f(m, pi, b).variance[0] == math.inf
    assert np.isinf(importance.weight_moments(m, pi, b).W[0])
    assert importance.weighted(m, pi, b).variance[0] == 0  # every return under pi is 1
    half, pi, b = one_loop(0.5)
    V = 0.1 / (1 - 0.45)
    want = 0.2 / (1 - 1.8 * 0.25) - V**2  # E = sum of (1.8 gamma^2)^k (0.1)^2 / 0.05
    assert importance.radii(half, pi, b) == pytest.approx((0.45, 1.8))
    assert importance.per_decision(half, pi, b).variance[0] == pytest.approx(want)
    assert importance.trajectory(half, pi, b).variance[0] == pytest.approx(want)
    early, pi, b = one_loop(0.5, stay=1.0)  # an early reward is multiplied by every later ratio
    assert importance.per_decision(early, pi, b).variance[0] < math.inf
    assert importance.trajectory(early, pi, b).variance[0] == math.inf
    assert importance.weighted(early, pi, b).variance[0] == math.inf
    assert np.isnan(importance.weighted(early, pi, b).bias[0])


@pytest.mark.parametrize("p", [0.3, 0.45, 0.49, 0.51, 0.6, 0.95])
@pytest.mark.parametrize("gamma", [0.7, 0.9, 1.0])
def test_variances_are_finite_when_the_radii_say_so(p: float, gamma: float) -> None:
    m, pi, b = one_loop(gamma, stay=1.0, p=p)
    rho = importance.radii(m, pi, b)
    assert rho == pytest.approx((2 * p * gamma**2, 2 * p))
    assert np.isfinite(importance.per_decision(m, pi, b).variance[0]) == (rho.per_decision < 1)
    assert np.isfinite(importance.trajectory(m, pi, b).variance[0]) == (rho.trajectory < 1)


def test_only_the_states_that_reach_the_loop_are_infinite() -> None:
    """0 enters the loop 1 or not; 2 leads straight to the end."""
    P = np.zeros((4, 2, 4))
    P[0, 0, 1] = P[0, 1, 2] = P[1, 1, 3] = P[2, :, 3] = 1.0
    P[1, 0, [1, 3]] = 0.9, 0.1
    m = MDP(P, [[0, 0], [1, 1], [1, 2], [0, 0]], 1.0, terminal=[0, 0, 0, 1])
    pi, b = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0]]), np.full((4, 2), 0.5)
    for f in (importance.trajectory, importance.per_decision):
        assert np.isinf(f(m, pi, b).variance).tolist() == [True, True, False, False]
    pi[0] = 0, 1
    assert importance.trajectory(m, pi, b).variance.tolist() == pytest.approx([3, math.inf, 1, 0])
    quiet = replace(m, R=np.zeros((4, 2)))  # nothing is paid: every estimate is 0
    assert not importance.trajectory(quiet, pi, b).variance.any()
    assert importance.per_decision(quiet, pi, b).variance.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_no_reward_ahead_means_no_variance(seed: int) -> None:
    """Half of the states pay nothing and lead only to each other: 0, not rounding times infinity."""
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, S=6, A=2, gamma=0.99, terminal=False, masked=False, sparse=False, rewards="sas")
    P, R = m.P.copy(), m.R.copy()
    P[:3, :, 3:], R[:3] = 0.0, 0.0
    P[:3, :, :3] += 0.1
    P[3:, :, :3] += 2.0
    m = MDP.normalised(P, R, 0.99)
    pi = np.eye(2)[rng.integers(0, 2, 6)]
    b = mixed(pi, m, 0.9)
    assert importance.radii(m, pi, b).per_decision > 1
    assert not importance.per_decision(m, pi, b).variance[:3].any()


def test_a_certain_return_is_known_after_one_episode() -> None:
    """Rounding in V does not make it random, though the weights have no variance."""
    P = np.zeros((4, 2, 4))
    P[0, 0, [1, 0]] = 0.7, 0.3
    P[0, 1, 3] = P[1, :, 3] = P[2, :, 3] = 1.0
    R = np.zeros((4, 2, 4))
    R[1, :, 3] = 0.1 + 0.2
    m = MDP(P, R, 1.0, terminal=[0, 0, 0, 1])
    pi, b = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0]]), np.array([[0.2, 0.8], [0.5, 0.5], [1, 0], [1, 0]])
    ratio = importance.weighted(m, pi, b)
    assert importance.radii(m, pi, b).trajectory > 1
    assert not ratio.variance.any() and not ratio.bias.any()


@pytest.mark.parametrize("seed", range(40))
def test_smallest_solutions_are_sums_of_powers(seed: int) -> None:
    """x = sum over k of M^k source, finite or not, on matrices with several classes and sources at random."""
    rng = np.random.default_rng(seed)
    M = rng.random((6, 6)) * (rng.random((6, 6)) < 0.3) * rng.choice([0.5, 1.0, 2.0])
    source = rng.random(6) * (rng.random(6) < 0.4)
    x, power, term = smallest_solution(M, source), source.copy(), source.copy()
    for _ in range(4000):
        term = M @ term
        power = np.minimum(power + term, 1e200)
        term = np.minimum(term, 1e200)
    assert np.array_equal(np.isinf(x), power > 1e8)
    assert np.allclose(x[np.isfinite(x)], power[np.isfinite(x)], rtol=1e-8, atol=0)
    assert np.allclose(smallest_solution(sp.csr_array(M), source), x, rtol=1e-12, atol=0)


def sample(m: MDP, pi: Any, b: Any, s: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """W, G and the per-decision sum of N episodes of b from s."""
    at, W, G, X, g = np.full(N, s), np.ones(N), np.zeros(N), np.zeros(N), np.ones(N)
    while not m.terminal[at].all():
        run = np.flatnonzero(~m.terminal[at])
        a, R, x = move(rng, m, b, at[run])
        W[run] *= pi[at[run], a] / b[at[run], a]
        G[run] += g[run] * R
        X[run] += g[run] * W[run] * R
        g[run] *= m.gamma
        at[run] = x
    return W, G, X


@pytest.mark.parametrize("seed", range(4))
def test_samples(seed: int) -> None:
    """Means, variances and the weighted estimate's own spread, on cyclic models with terminal states and masks."""
    m, pi, _ = model(seed)
    b = mixed(pi, m, 0.1)
    s, rng = int(np.argmin(m.terminal)), np.random.default_rng(100 + seed)
    W, G, X = sample(m, pi, b, s, rng)
    direct, whole = importance.per_decision(m, pi, b), importance.trajectory(m, pi, b)
    ratio = importance.weighted(m, pi, b)
    V = direct.mean[s]
    agree(np.column_stack([W, W * G, X]), np.array([1, V, V]))
    agree(np.column_stack([(X - V) ** 2, (W * G - V) ** 2]), np.array([direct.variance[s], whole.variance[s]]))
    agree(np.column_stack([(W * (G - V)) ** 2, -W * W * (G - V)]), np.array([ratio.variance[s], ratio.bias[s]]))


def test_the_weighted_estimate_approaches_its_leading_terms() -> None:
    """Exact bias and mean-square error for n episodes of one step, by summing over the multinomial counts."""
    P = [[[0, 1], [0, 1]], [[0, 1], [0, 1]]]
    m = MDP(P, [[1, 0], [0, 0]], 1.0, terminal=[0, 1])
    pi, b = np.array([[0.6, 0.4], [1, 0]]), np.array([[0.3, 0.7], [1, 0]])
    V, rho = 0.6, (2.0, 0.4 / 0.7)
    want = importance.weighted(m, pi, b)
    gaps = []
    for n in (200, 400):
        k = np.arange(n + 1)
        p = np.array([math.comb(n, int(j)) * 0.3**j * 0.7 ** (n - j) for j in k])
        estimate = k * rho[0] / (k * rho[0] + (n - k) * rho[1])
        bias, variance = p @ estimate - V, p @ (estimate - V) ** 2
        gaps.append((abs(n * bias - want.bias[0]), abs(n * variance - want.variance[0])))
    assert max(gaps[0]) < 0.02
    assert np.allclose(np.divide(gaps[1], gaps[0]), 0.5, atol=0.05)  # the rest is of order 1/n^2


def test_bad_input() -> None:
    m, pi, _ = one_loop()
    with pytest.raises(
        ModelError, match=r"b\[s=0, a=0\] is 0 where pi\[s=0, a=0\] is 1; the behaviour policy must try"
    ):
        importance.per_decision(m, pi, np.array([[0.0, 1], [1, 0]]))
    with pytest.raises(ModelError, match=r"b\[s=0\] sums to 0.5"):
        importance.trajectory(m, pi, np.array([[0.5, 0], [1, 0]]))
    with pytest.raises(ModelError, match=r"steps is 0; a whole number >= 1"):
        next(importance.truncated(m, pi, pi, 0))
    ignored = importance.per_decision(m, pi, np.array([[1.0, 0], [0, 1]]))  # nothing is done in a terminal state
    assert ignored.variance[1] == 0
