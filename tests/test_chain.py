"""Chains: every closed form against exact arithmetic, enumeration or its own defining equation."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from models import (
    acyclic_mdp,
    dense_P,
    dense_R,
    generators,
    mdps,
    random_deterministic_policy,
    random_mdp,
    random_policy,
    twin,
    uniform_policy,
)
from rational import chain_values, exact, exact_policy_values

from tabrl import MDP, chain, longrun
from tabrl.chain import Chain
from tabrl.errors import ModelError, NotConverged

SEEDS = range(60)


def full(P: Any) -> Any:
    return P.toarray() if sp.issparse(P) else P


def loop(p: float, *, gamma: float = 1.0, reward: float = 1.0) -> MDP:
    """One state that ends with probability p at every step and pays until then."""
    return MDP([[[1 - p, p]], [[0, 1]]], [reward, 0], gamma, terminal=[0, 1])


@given(mdps(), generators())
@settings(max_examples=80, deadline=None)
def test_induced_chain_is_the_literal_sum(m: MDP, rng: np.random.Generator) -> None:
    pi = random_policy(rng, m)
    c = chain.induce(m, pi)
    P, R = dense_P(m), dense_R(m)
    for s in range(m.S):
        for x in range(m.S):
            assert full(c.P)[s, x] == pytest.approx(sum(pi[s, a] * P[s, a, x] for a in range(m.A)), abs=1e-15)
        reward = sum(pi[s, a] * P[s, a, x] * R[s, a, x] for a in range(m.A) for x in range(m.S))
        assert c.r[s] == pytest.approx(reward, abs=1e-13 * max(1, m.R_max))
    assert c.gamma == m.gamma and (c.terminal == m.terminal).all()
    assert sp.issparse(c.P) == m.is_sparse


@pytest.mark.parametrize("seed", SEEDS)
def test_values_equal_the_exact_ones(seed: int) -> None:
    """Relative to the sum of absolute rewards that a value adds up, 1e-12."""
    rng = np.random.default_rng(seed)
    gamma = (0.0, 0.5, 0.9, 0.99, 0.9999, 1.0)[seed % 6]
    m = random_mdp(rng, gamma=gamma, proper=gamma == 1)
    pi = random_policy(rng, m) if seed % 4 else random_deterministic_policy(rng, m)
    V = chain.evaluate(chain.induce(m, pi))
    want = np.array([float(v) for v in exact_policy_values(m, pi)])
    horizon = 1 / (1 - gamma) if gamma < 1 else 20
    assert abs(V - want).max() <= 1e-12 * horizon * max(1.0, m.R_max) * (1 if gamma < 0.9999 else 10)
    assert not V[m.terminal].any()


@pytest.mark.parametrize("seed", range(20))
def test_weight_counts_discounted_steps(seed: int) -> None:
    m = random_mdp(np.random.default_rng(seed), gamma=(0.9, 1.0)[seed % 2], proper=True)
    c = chain.induce(m, uniform_policy(m))
    V, w = chain.evaluate_with_weight(c)
    steps = chain.evaluate(c._replace(r=(~m.terminal).astype(np.float64)))
    assert np.allclose(w, steps, rtol=1e-13) and not w[m.terminal].any() and (w[~m.terminal] >= 1).all()
    assert (chain.evaluate(c) == V).all()


@given(mdps(), generators())
@settings(max_examples=80, deadline=None)
def test_occupancy_prices_rewards(m: MDP, rng: np.random.Generator) -> None:
    c = chain.induce(m, random_policy(rng, m))
    mu = rng.dirichlet(np.ones(m.S))
    d, V = chain.occupancy(c, mu), chain.evaluate(c)
    assert d @ c.r == pytest.approx(mu @ V, rel=1e-10, abs=1e-10 * max(1, m.R_max))
    assert chain.objective(c, mu) == pytest.approx(mu @ V, rel=1e-14)
    assert (d >= mu * (1 - 1e-12)).all()
    assert np.allclose(d, mu + m.gamma * full(c.P).T @ d, rtol=1e-11)
    if not m.terminal.any():
        assert d.sum() == pytest.approx(1 / (1 - m.gamma), rel=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_occupancy_at_gamma_1_counts_visits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, gamma=1.0, proper=True)
    c = chain.induce(m, random_policy(rng, m))
    d = chain.occupancy(c, m.mu)
    assert d @ c.r == pytest.approx(m.mu @ chain.evaluate(c), abs=1e-10 * max(1, m.R_max))
    assert d[m.terminal].sum() == pytest.approx(1, rel=1e-12)  # ends once, for certain
    counts, here = np.zeros(m.S), m.mu.copy()
    for _ in range(600):
        counts += here
        here = full(c.P).T @ here
    assert np.allclose(d, counts, rtol=1e-10)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("terminal", [False, True])
def test_stationary_is_the_long_run(seed: int, terminal: bool) -> None:
    m = random_mdp(np.random.default_rng(seed), terminal=False, masked=False)
    P = 0.5 * dense_P(m) + 0.5 * np.roll(np.eye(m.S), 1, axis=1)[:, None, :]  # one class
    ends = np.arange(m.S) == 0 if terminal else np.zeros(m.S, bool)
    P[ends] = 0
    n = MDP(P, np.zeros(m.S), 0.9, terminal=ends)
    c = chain.induce(n if seed % 2 else twin(n), uniform_policy(n))
    d = longrun.stationary(c)
    with_loops = full(longrun.absorbing(c))
    power = np.linalg.matrix_power((with_loops + np.eye(m.S)) / 2, 2**16)
    assert np.allclose(d, power[0], atol=1e-10)
    assert d.sum() == pytest.approx(1, abs=1e-14) and abs(d @ with_loops - d).max() < 1e-14
    if terminal:
        assert d.tolist() == ends.astype(float).tolist()


def test_stationary_survives_tiny_probabilities() -> None:
    """Two states that hardly ever swap: subtraction would lose everything."""
    c = Chain(np.array([[1 - 1e-13, 1e-13], [3e-13, 1 - 3e-13]]), np.zeros(2), 0.9, np.zeros(2, bool))
    assert np.allclose(longrun.stationary(c), [0.75, 0.25], rtol=1e-14)


def test_stationary_refuses_several_classes() -> None:
    c = Chain(np.eye(3), np.zeros(3), 0.9, np.array([False, False, True]))
    with pytest.raises(ModelError, match=r"chain has 3 recurrent classes \(0; 1; 2\); one is expected"):
        longrun.stationary(c)


@pytest.mark.parametrize("seed", SEEDS)
def test_hitting_times_are_exact(seed: int) -> None:
    """h = 0 on the target and 1 + P h elsewhere, solved in fractions; inf where the target may be missed."""
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, S=int(rng.integers(2, 8)))
    pi = random_deterministic_policy(rng, m) if seed % 2 else random_policy(rng, m)
    c = chain.induce(m, pi)
    target = rng.random(m.S) < 0.4
    h = longrun.hitting_times(c, target)
    P = full(longrun.absorbing(c))
    reach = np.linalg.matrix_power((P > 0) * ~target[:, None] * 1.0 + np.eye(m.S), m.S) > 0
    never = ~(reach & target).any(1)
    missed = (reach & never).any(1)
    assert (np.isinf(h) == missed).all()
    open_rows = np.where((target | missed)[:, None], 0.0, P)
    want = chain_values(exact(open_rows), exact(1.0 * ~(target | missed)), Fraction(1))
    assert np.allclose(h[~missed], [float(want[s]) for s in np.flatnonzero(~missed)], rtol=1e-11)


def test_hitting_times_by_hand() -> None:
    walk = MDP([[[0.5, 0.5, 0]], [[0.25, 0.25, 0.5]], [[0, 0, 0]]], [0, 0, 0], 0.3, terminal=[0, 0, 1])
    c = chain.induce(walk, np.ones((3, 1)))
    assert np.allclose(longrun.hitting_times(c, walk.terminal), [5.0, 3.0, 0])
    assert longrun.hitting_times(c, np.array([True, False, False])).tolist() == [0, np.inf, np.inf]
    assert longrun.hitting_times(c, np.zeros(3, bool)).tolist() == [np.inf] * 3


def many_classes(rng: np.random.Generator, *, sparse: bool) -> MDP:
    """A model of few possible moves, so that policies often have several recurrent classes."""
    S, A = int(rng.integers(2, 9)), int(rng.integers(1, 4))
    jump = np.eye(S)[rng.integers(0, S, (S, A))]
    spread = rng.dirichlet(np.ones(S), (S, A)) * (rng.random((S, A, S)) < 0.4) + 0.1 * jump
    P = np.where(rng.random((S, A, 1)) < 0.6, jump, spread / spread.sum(2, keepdims=True))
    ends = rng.random(S) < 0.2
    P[ends] = 0.0
    m = MDP(P, np.where(ends[:, None], 0.0, rng.normal(size=(S, A))), 0.9, terminal=ends)
    return twin(m) if sparse else m


@given(generators(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_gain_and_bias_solve_the_poisson_equation(rng: np.random.Generator, sparse: bool) -> None:
    """gain = P gain and gain + bias = r + P bias and P* bias = 0 (Puterman 1994, theorem 8.2.6), multichain."""
    m = many_classes(rng, sparse=sparse)
    c = chain.induce(m, random_policy(rng, m))
    gain, bias = longrun.gain_bias(c)
    P = full(longrun.absorbing(c))
    size = max(1.0, abs(c.r).max(), abs(bias).max())
    assert abs(P @ gain - gain).max() <= 1e-10 * size
    assert abs(gain + bias - c.r - P @ bias).max() <= 1e-10 * size
    average = (P + np.eye(m.S)) / 2  # same long-run average, no period
    for _ in range(50):
        average = average @ average
        average /= average.sum(axis=1, keepdims=True)
    assert np.allclose(gain, average @ c.r, atol=1e-7 * size)
    assert abs(average @ bias).max() <= 1e-7 * size


def test_gain_and_bias_of_two_classes() -> None:
    P = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0.25, 0, 0.5, 0.25]])
    gain, bias = longrun.gain_bias(Chain(P, np.array([2.0, 0, 7, 4]), 0.9, np.zeros(4, bool)))
    assert np.allclose(gain, [1, 1, 7, 5])
    assert np.allclose(bias, [0.5, -0.5, 0, -7 / 6])  # h3 = 4 - 5 + h0/4 + h3/4, with h2 = 0


# Return moments


def trajectories(m: MDP, pi: Any, s: int) -> list[tuple[float, float]]:
    """All (probability, return) pairs from a state of an acyclic model."""
    if m.terminal[s]:
        return [(1.0, 0.0)]
    P, R = dense_P(m), dense_R(m)
    return [
        (pi[s, a] * P[s, a, x] * p, R[s, a, x] + m.gamma * g)
        for a in range(m.A) for x in range(m.S) if pi[s, a] * P[s, a, x]
        for p, g in trajectories(m, pi, x)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_moments_by_enumeration(seed: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    m = acyclic_mdp(rng, S=5, A=2, gamma=gamma, sparse=bool(seed % 2))
    pi = random_policy(rng, m)
    M, skewness = chain.return_moments(m, pi, 4), chain.return_skewness(m, pi)
    for s in range(m.S):
        p, g = np.array(trajectories(m, pi, s)).T
        for k in range(4):
            assert M[k, s] == pytest.approx(p @ g ** (k + 1), abs=1e-12)
        V, C = p @ g, [p @ (g - p @ g) ** k for k in range(4)]
        assert chain.return_variance(m, pi)[s] == pytest.approx(C[2], abs=1e-12)
        if C[2] > 1e-6:
            assert skewness[s] == pytest.approx(C[3] / C[2] ** 1.5, abs=1e-9)
        assert M[0, s] == pytest.approx(V, abs=1e-12)


@pytest.mark.parametrize("p", [0.9, 0.5, 0.1, 0.01])
def test_moments_of_the_geometric_loop(p: float) -> None:
    """R = 1 until the end: the return is geometric on 1, 2, ..."""
    for m in (loop(p), twin(loop(p))):
        one = np.ones((2, 1))
        M = chain.return_moments(m, one, 3)[:, 0]
        assert M[0] == pytest.approx(1 / p, rel=1e-13)
        assert M[1] == pytest.approx((2 - p) / p**2, rel=1e-13)
        assert M[2] == pytest.approx((p * p - 6 * p + 6) / p**3, rel=1e-12)
        assert chain.return_variance(m, one)[0] == pytest.approx((1 - p) / p**2, rel=1e-12)
        assert chain.return_skewness(m, one)[0] == pytest.approx((2 - p) / math.sqrt(1 - p), rel=1e-11)


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_moments_of_a_discounted_coin_that_never_ends(gamma: float) -> None:
    """Independent +1/-1 each step: variance 1/(1-gamma²), fourth central moment by cumulants, no skew."""
    R = np.array([[[1.0, -1.0]], [[1.0, -1.0]]])
    m = MDP(np.full((2, 1, 2), 0.5), R, gamma)
    M = chain.return_moments(m, np.ones((2, 1)), 4)
    second = 1 / (1 - gamma**2)
    assert np.allclose(M[0], 0, atol=1e-14) and np.allclose(M[2], 0, atol=1e-13)
    assert np.allclose(M[1], second, rtol=1e-13)
    assert np.allclose(M[3], 3 * second**2 - 2 / (1 - gamma**4), rtol=1e-12)
    assert np.allclose(chain.return_variance(m, np.ones((2, 1))), second, rtol=1e-13)


@given(mdps(), generators())
@settings(max_examples=80, deadline=None)
def test_variance_is_the_second_moment_less_the_square(m: MDP, rng: np.random.Generator) -> None:
    pi = random_policy(rng, m)
    M1, M2, M3 = chain.return_moments(m, pi, 3)
    variance, size = chain.return_variance(m, pi), max(1.0, abs(M1).max()) ** 2
    assert np.allclose(variance, M2 - M1**2, rtol=0, atol=1e-9 * size)
    assert (variance >= 0).all()
    skewness = chain.return_skewness(m, pi)
    third = M3 - 3 * M1 * M2 + 2 * M1**3
    sure = variance > 1e-6 * size
    assert np.allclose((skewness * variance**1.5)[sure], third[sure], rtol=1e-5, atol=1e-7 * size**1.5)
    assert np.allclose(chain.return_moments(m, pi, 1)[0], chain.evaluate(chain.induce(m, pi)))


@pytest.mark.parametrize("gamma", [0.3, 0.9, 0.99])
def test_a_certain_return_has_no_skewness(gamma: float) -> None:
    P = np.roll(np.eye(3), 1, axis=1)[:, None, :]
    m = MDP(P, [0.1, 0.7, 0.3], gamma)
    assert np.isnan(chain.return_skewness(m, np.ones((3, 1)))).all()
    assert chain.return_variance(m, np.ones((3, 1))).max() < 1e-25


def test_moments_by_simulation() -> None:
    """n = 40,000 returns of a cyclic model; 5 standard errors."""
    rng = np.random.default_rng(12)
    m = random_mdp(rng, S=4, A=2, gamma=0.8, proper=True, masked=False, sparse=False, rewards="sas")
    m = replace(m, R=m.R / max(1.0, m.R_max))
    pi, n, s0 = random_policy(rng, m), 40_000, int(np.flatnonzero(~m.terminal)[0])
    P, R = dense_P(m), dense_R(m)
    s, G, discount = np.full(n, s0), np.zeros(n), np.ones(n)
    for _ in range(200):
        a = (rng.random((n, 1)) > pi[s].cumsum(1)[:, :-1]).sum(1)
        x = np.minimum((rng.random((n, 1)) > P[s, a].cumsum(1)).sum(1), m.S - 1)
        live = ~m.terminal[s]
        G += np.where(live, discount * R[s, a, x], 0.0)
        s, discount = np.where(live, x, s), discount * m.gamma
    M = chain.return_moments(m, pi, 4)[:, s0]
    for k in (1, 2):
        error = math.sqrt((M[2 * k - 1] - M[k - 1] ** 2) / n)
        assert abs((G**k).mean() - M[k - 1]) < 5 * error
    assert M[1] - M[0] ** 2 > 1e-3


# Refusals


def test_a_paying_chain_that_never_ends_is_refused_at_gamma_1() -> None:
    P = np.zeros((4, 1, 4))
    P[0, 0, [1, 3]] = 0.5
    P[1, 0, 2] = P[2, 0, 1] = P[3, 0, 3] = 1
    m = MDP(P, [5, 0, 1, 0], 1.0, terminal=[0, 0, 0, 1])
    c = chain.induce(m, np.ones((4, 1)))
    with pytest.raises(ModelError, match=r"chain\[s=1,2\] never ends and r\[2\] is 1; at gamma = 1 .*gamma < 1"):
        chain.evaluate(c)
    with pytest.raises(ModelError, match=r"chain\[s=1,2\] is visited infinitely often; at gamma = 1"):
        chain.occupancy(c, m.mu)
    with pytest.raises(ModelError, match=r"chain\[s=1,2\] never ends"):
        chain.return_moments(m, np.ones((4, 1)))
    assert chain.evaluate(c._replace(gamma=0.5))[1] == pytest.approx(0.5 / (1 - 0.25))


def test_a_free_chain_that_never_ends_is_worth_nothing_at_gamma_1() -> None:
    P = np.zeros((3, 1, 3))
    P[0, 0, [1, 2]] = 0.5
    P[1, 0, 1] = 1
    m = MDP(P, [4, 0, 0], 1.0, terminal=[0, 0, 1])
    c = chain.induce(m, np.ones((3, 1)))
    assert chain.evaluate(c).tolist() == [4, 0, 0]
    with pytest.raises(ModelError, match="infinitely often"):
        chain.occupancy(c, np.array([1.0, 0, 0]))
    assert chain.occupancy(c, np.array([0, 0, 1.0])).tolist() == [0, 0, 1]


def test_a_fair_coin_forever_has_a_mean_but_no_variance_at_gamma_1() -> None:
    m = MDP(np.full((2, 1, 2), 0.5), np.array([[[1.0, -1.0]]] * 2), 1.0)
    assert chain.evaluate(chain.induce(m, np.ones((2, 1)))).tolist() == [0, 0]
    with pytest.raises(ModelError, match="never ends"):
        chain.return_moments(m, np.ones((2, 1)), 2)


@pytest.mark.parametrize("sparse", [False, True])
def test_an_end_hidden_by_rounding_is_not_answered(sparse: bool) -> None:
    """The row [1.0, 1e-18] has a self-loop of exactly 1 in floats."""
    m = MDP([[[1.0, 1e-18]], [[0, 1]]], [1, 0], 1.0, terminal=[0, 1])
    c = chain.induce(twin(m) if sparse else m, np.ones((2, 1)))
    with pytest.raises(NotConverged, match=r"chain\[s=0\].*; .*rounding hides whether it ends"):
        chain.evaluate(c)
    for ask in (lambda: chain.occupancy(c, np.array([1.0, 0])), lambda: longrun.hitting_times(c, c.terminal),
                lambda: longrun.gain_bias(c)):  # fmt: skip
        with pytest.raises(NotConverged, match="singular to working precision"):
            ask()


@pytest.mark.parametrize("p", [1e-3, 1e-6, 1e-9, 2.0**-40])
def test_a_rare_end_is_answered_as_the_stored_floats_say(p: float) -> None:
    m = loop(p)
    want = exact_policy_values(m, np.ones((2, 1)))[0]
    assert chain.evaluate(chain.induce(m, np.ones((2, 1))))[0] == pytest.approx(float(want), rel=1e-12)


@given(st.integers(2, 30), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_long_lists_of_states_are_cut(n: int, start: int) -> None:
    text = chain.listed(np.arange(start, start + n))
    assert text.startswith(",".join(map(str, range(start, start + min(n, 8)))))
    assert text.endswith(f"… ({n} states)") == (n > 8)


@pytest.mark.parametrize("block", range(4))
def test_values_of_nearly_absorbing_chains_are_right_or_refused(block: int) -> None:
    """Ends of probability 1e-18 to 1 beside rows that sum to 1 only within rounding; gamma = 1 and up to 1e-15 below.

    |error| <= 1e-9 max w max|r|, w the expected steps, in exact arithmetic: a quarter of such chains were answered
    wrongly by a float solve whose residual looked fine.
    """
    answered = 0
    for seed in range(100):
        rng = np.random.default_rng([11, block, seed])
        c = nearly_absorbing(rng)
        try:
            V, w = chain.evaluate_with_weight(c)
        except (NotConverged, ModelError):
            continue
        answered += 1
        P, gamma = exact(c.P), Fraction(float(c.gamma))
        truth = chain_values(P, exact(c.r), gamma)
        steps = chain_values(P, exact(1.0 * ~c.terminal), gamma)
        size = Fraction(1e-9) * max(steps) * Fraction(abs(c.r).max())
        assert min(steps) >= 0
        assert max(abs(Fraction(float(v)) - t) for v, t in zip(V, truth, strict=True)) <= size, seed
        assert all(abs(Fraction(float(v)) - t) <= Fraction(1e-9) * t for v, t in zip(w, steps, strict=True)), seed
    assert answered > 50


def nearly_absorbing(rng: np.random.Generator) -> Chain:
    """A chain that ends in its last state, hardly ever."""
    S = int(rng.integers(2, 7))
    P = np.zeros((S, S))
    for s in range(S - 1):
        use = rng.random(S - 1) < 0.6
        use[rng.integers(0, S - 1)] = True
        weight = rng.exponential(size=S - 1) * use if rng.random() < 0.6 else use * 1.0
        leaves = 10.0 ** rng.integers(-18, 0) if rng.random() < 0.5 else 0.0
        P[s, :-1], P[s, -1] = weight / weight.sum() * (1 - leaves), leaves
    r = rng.normal(size=S) if rng.random() < 0.5 else np.ones(S)
    gamma = 1.0 if rng.random() < 0.6 else float(1 - 10.0 ** rng.integers(-15, -8))
    return Chain(P, np.where(np.arange(S) == S - 1, 0.0, r), gamma, np.arange(S) == S - 1)
