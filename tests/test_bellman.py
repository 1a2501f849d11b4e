"""The Bellman operators, and certified bounds judged in exact rational arithmetic."""

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
from rational import (
    at_most,
    backup,
    brute_force_optimal_values,
    distance,
    exact_optimal_values,
    exact_policy_values,
    shortfall,
    tables,
)

from tabrl import MDP, bellman, chain, rounding

GAMMAS = (0.5, 0.9, 0.99, 0.999, 0.9999)
SIZES = (0.0, 1e-16, 1e-14, 1e-12, 1e-8, 1e-4, 1.0)
MODELS = settings(max_examples=100, deadline=None)


@given(mdps(), generators())
@MODELS
def test_q_from_v_is_the_literal_triple_loop(m: MDP, rng: np.random.Generator) -> None:
    V = rng.normal(size=m.S)
    P, R = dense_P(m), dense_R(m)
    Q = bellman.q_from_v(m, V)
    for s in range(m.S):
        for a in range(m.A):
            total = 0.0
            for x in range(m.S):
                total += P[s, a, x] * (R[s, a, x] + m.gamma * V[x])
            assert Q[s, a] == pytest.approx(total, abs=1e-13 * max(1.0, m.R_max))
            if m.terminal[s] or not m.legal[s, a]:
                assert Q[s, a] == 0


@given(mdps(), generators())
@MODELS
def test_operators_follow_from_q(m: MDP, rng: np.random.Generator) -> None:
    V, pi = rng.normal(size=m.S), random_policy(rng, m)
    Q = bellman.q_from_v(m, V)
    best = [max(Q[s, a] for a in np.flatnonzero(m.legal[s])) for s in range(m.S)]
    assert bellman.optimality(m, V).tolist() == best == bellman.maximum(Q, m.legal).tolist()
    assert np.allclose(bellman.expectation(m, pi, V), [pi[s] @ Q[s] for s in range(m.S)], rtol=1e-13, atol=1e-13)
    greedy = bellman.greedy(Q, m.legal)
    for s in range(m.S):
        first = next(a for a in np.flatnonzero(m.legal[s]) if Q[s, a] == best[s])
        assert greedy[s].tolist() == np.eye(m.A)[first].tolist()
    assert np.allclose(bellman.expectation(m, greedy, V), best, rtol=0, atol=0)


def test_a_zero_that_is_illegal_is_never_chosen() -> None:
    Q, legal = np.array([[0.0, -5.0]]), np.array([[False, True]])
    assert bellman.maximum(Q, legal).tolist() == [-5] and bellman.greedy(Q, legal).tolist() == [[0, 1]]
    m = MDP([[[1.0], [1.0]]], [[7, -1]], 0.5, legal=[[0, 1]])
    assert bellman.optimality(m, np.zeros(1)).tolist() == [-1]


def test_ties_go_to_the_first_action() -> None:
    assert bellman.greedy(np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert bellman.one_hot(np.array([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


@given(mdps(), generators())
@MODELS
def test_operators_are_monotone(m: MDP, rng: np.random.Generator) -> None:
    V, pi = rng.normal(size=m.S), random_policy(rng, m)
    W = V + rng.random(m.S) * (rng.random(m.S) < 0.5)
    assert (bellman.optimality(m, W) - bellman.optimality(m, V)).min() >= -1e-14 * max(1.0, m.R_max)
    assert (bellman.expectation(m, pi, W) - bellman.expectation(m, pi, V)).min() >= -1e-14 * max(1.0, m.R_max)


@given(mdps(), generators())
@MODELS
def test_operators_contract_by_gamma(m: MDP, rng: np.random.Generator) -> None:
    V, W, pi = rng.normal(size=m.S), rng.normal(size=m.S), random_policy(rng, m)
    far = abs(V - W).max()
    for TV, TW in ((bellman.optimality(m, V), bellman.optimality(m, W)),
                   (bellman.expectation(m, pi, V), bellman.expectation(m, pi, W))):  # fmt: skip
        assert abs(TV - TW).max() <= m.gamma * far + 1e-14 * max(1.0, m.R_max)


@given(mdps(terminal=False), generators(), st.floats(-10, 10))
@MODELS
def test_shifts_pass_through(m: MDP, rng: np.random.Generator, shift: float) -> None:
    """T(V + c) = T V + gamma c where nothing ends; rewards shifted by c shift T V by c."""
    V = rng.normal(size=m.S)
    size = 1e-14 * max(10.0, m.R_max)
    TV = bellman.optimality(m, V)
    assert np.allclose(bellman.optimality(m, V + shift), TV + m.gamma * shift, rtol=0, atol=10 * size)
    if not sp.issparse(m.R) and m.R.ndim == 2:
        moved = replace(m, R=m.R + shift)
        assert np.allclose(bellman.optimality(moved, V), TV + shift, rtol=0, atol=10 * size)


@given(mdps(gamma=0.0), generators())
@settings(max_examples=30, deadline=None)
def test_gamma_0_sees_only_rewards(m: MDP, rng: np.random.Generator) -> None:
    V = rng.normal(size=m.S)
    assert (bellman.q_from_v(m, V) == m.r).all()
    assert at_most(distance(bellman.optimality(m, V), exact_optimal_values(m)), rounding.U * 8 * m.R_max)


# The judge


@pytest.mark.parametrize("seed", range(12))
def test_the_judge_agrees_with_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, S=int(rng.integers(2, 5)), A=int(rng.integers(1, 4)), proper=seed % 3 == 0)
    m = replace(m, gamma=1.0) if seed % 3 == 0 else m
    best = exact_optimal_values(m)
    assert best == brute_force_optimal_values(m)
    assert all(shortfall(exact_policy_values(m, random_deterministic_policy(rng, m)), best) <= 0 for _ in range(3))


def test_the_judge_by_hand() -> None:
    m = MDP([[[0.5, 0.5], [0, 1]], [[0, 0], [0, 0]]], [[1, 1.25], [0, 0]], 1.0, terminal=[0, 1])
    assert exact_optimal_values(m) == [2, 0]
    assert exact_policy_values(m, np.array([[0.25, 0.75], [1, 0]])) == [Fraction(1.1875) / Fraction(7, 8), 0]
    rest = MDP([[[1, 0]], [[0, 1]]], [0, 1], 1.0)
    assert exact_policy_values(replace(rest, R=np.zeros((2, 1))), np.ones((2, 1))) == [0, 0]
    with pytest.raises(ZeroDivisionError):
        exact_policy_values(rest, np.ones((2, 1)))


# Bounds


def fixed_point(m: MDP, V: Any, sweeps: int = 60) -> Any:
    """Iterate in floats until nothing moves, or for a while."""
    for _ in range(sweeps):
        W = bellman.optimality(m, V)
        if (W == V).all():
            break
        V = W
    return V


def candidates(rng: np.random.Generator, m: MDP, best: list[Fraction]) -> list[Any]:
    """V_star rounded, disturbed by all sizes, at the fixed point of the floats, and far off."""
    V = np.array([float(x) for x in best])
    size = max(1.0, abs(V).max())
    near = [V + e * size * rng.uniform(-1, 1, m.S) * ~m.terminal for e in SIZES]
    one_sided = V + 1e-13 * size * ~m.terminal
    return [*near, one_sided, fixed_point(m, V), np.zeros(m.S)]


def model_at(seed: int) -> tuple[np.random.Generator, MDP]:
    rng = np.random.default_rng([2024, seed])
    return rng, random_mdp(rng, gamma=GAMMAS[seed % 5])


@pytest.mark.parametrize("block", range(10))
def test_bounds_contain_the_truth(block: int) -> None:
    """150 models: the certified errors of V and of the greedy policy, judged in exact arithmetic."""
    for seed in range(15 * block, 15 * block + 15):
        rng, m = model_at(seed)
        best = exact_optimal_values(m)
        for i, V in enumerate(candidates(rng, m, best)):
            bound = bellman.certified_bound(m, V)
            assert math.isfinite(bound) and at_most(distance(V, best), bound), (seed, i)
            TV = bellman.optimality(m, V)
            residual = float(abs(TV - V).max())
            assert at_most(distance(TV, best), bellman.error_bound(m, residual, float(abs(V).max()))), (seed, i)
        for V in candidates(rng, m, best)[::3]:
            pi = bellman.greedy(bellman.q_from_v(m, V), m.legal)
            loss = shortfall(best, exact_policy_values(m, pi))
            assert loss >= 0 and at_most(loss, bellman.loss_bound(m, V)), seed


@pytest.mark.parametrize("block", range(5))
def test_policy_bounds_contain_the_truth(block: int) -> None:
    for seed in range(12 * block, 12 * block + 12):
        rng, m = model_at(1000 + seed)
        pi = random_policy(rng, m) if seed % 2 else random_deterministic_policy(rng, m)
        true = exact_policy_values(m, pi)
        V = np.array([float(x) for x in true])
        size = max(1.0, abs(V).max())
        for e in SIZES:
            W = V + e * size * rng.uniform(-1, 1, m.S) * ~m.terminal
            assert at_most(distance(W, true), bellman.policy_bound(m, pi, W)), (seed, e)
        computed = chain.evaluate(chain.induce(m, pi))
        assert at_most(distance(computed, true), bellman.policy_bound(m, pi, computed)), seed


@pytest.mark.parametrize("block", range(5))
def test_weighted_bounds_at_gamma_1(block: int) -> None:
    """Proper models: w = steps to the end under the slowest policy certifies V_star, under pi V_pi."""
    for seed in range(10 * block, 10 * block + 10):
        rng = np.random.default_rng([7, seed])
        m = random_mdp(rng, gamma=1.0, proper=True)
        slow = replace(m, R=np.where(m.terminal[:, None] | ~m.legal, 0.0, 1.0))
        w = np.array([float(x) for x in exact_optimal_values(slow)])
        assert 0.99 < bellman.slack(m, w) <= 1 + 1e-12
        best = exact_optimal_values(m)
        for V in candidates(rng, m, best):
            bound = bellman.certified_bound(m, V, w)
            assert math.isfinite(bound) and at_most(distance(V, best), bound), seed
            pi = bellman.greedy(bellman.q_from_v(m, V), m.legal)
            assert at_most(shortfall(best, exact_policy_values(m, pi)), bellman.loss_bound(m, V, w)), seed
        pi = random_policy(rng, m)
        steps = chain.evaluate_with_weight(chain.induce(m, pi))[1]
        true = exact_policy_values(m, pi)
        V = np.array([float(x) for x in true])
        for W in (V, V + rng.uniform(-1, 1, m.S) * ~m.terminal, np.zeros(m.S)):
            bound = bellman.policy_bound(m, pi, W, steps)
            assert math.isfinite(bound) and at_most(distance(W, true), bound), seed


@pytest.mark.parametrize("seed", range(25))
def test_bounds_are_not_loose(seed: int) -> None:
    """A bound is worth something: within (1+gamma)/(1-gamma) of the truth plus the rounding floor."""
    rng, m = model_at(seed)
    best = exact_optimal_values(m)
    V = np.array([float(x) for x in best]) + 0.1 * rng.uniform(-1, 1, m.S) * ~m.terminal
    true, floor = float(distance(V, best)), bellman.error_bound(m, 0.0, float(abs(V).max()))
    assert bellman.certified_bound(m, V) <= true * (1 + m.gamma) / (1 - m.gamma) * 1.001 + 2 * floor
    assert floor <= 200 * rounding.U * (m.R_max + abs(V).max()) / (1 - m.gamma)


def test_the_textbook_bound_is_too_small_at_the_float_fixed_point() -> None:
    """max|TV - V|/(1-gamma) = 0 there although V is not V_star: the rounding term is needed."""
    caught = 0
    for seed in range(20):
        m = random_mdp(np.random.default_rng(seed), gamma=0.9, rewards="sa")
        best = exact_optimal_values(m)
        V = fixed_point(m, np.zeros(m.S), 2000)
        if not (bellman.optimality(m, V) - V).any():
            caught += distance(V, best) > 0
        assert at_most(distance(V, best), bellman.certified_bound(m, V))
    assert caught > 10


def test_terminal_states_take_part() -> None:
    """V of a terminal state that is not 0 is an error too, and one that spreads."""
    m = MDP([[[0.0, 1.0]], [[0, 1]]], [0, 0], 0.9, terminal=[0, 1])
    V = np.array([0.9, 1.0])
    assert bellman.optimality(m, V).tolist() == [0.9, 0]
    assert bellman.certified_bound(m, V) >= 1
    free = replace(m, gamma=1.0)
    w = np.array([1.0, 0.0])
    assert bellman.certified_bound(free, np.array([2.0, 0.0]), w) >= 2
    V = np.array([2.0, 1.0])
    assert bellman.certified_bound(free, V, w) == bellman.loss_bound(free, V, w) == math.inf
    assert bellman.policy_bound(free, np.ones((2, 1)), V, w) == math.inf


@given(mdps(gamma=1.0), generators())
@settings(max_examples=40, deadline=None)
def test_nothing_is_certified_at_gamma_1_without_a_weight(m: MDP, rng: np.random.Generator) -> None:
    V, pi = rng.normal(size=m.S), uniform_policy(m)
    for bound in (bellman.certified_bound(m, V), bellman.policy_bound(m, pi, V), bellman.loss_bound(m, V)):
        assert bound == math.inf


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nothing_is_certified_for_values_that_are_not_finite(wrong: float) -> None:
    m = random_mdp(np.random.default_rng(0), S=3, gamma=0.9, terminal=False)
    V = np.array([0.0, wrong, 0.0])
    with np.errstate(invalid="ignore"):
        for bound in (
            bellman.certified_bound(m, V),
            bellman.policy_bound(m, uniform_policy(m), V),
            bellman.loss_bound(m, V),
        ):
            assert bound == math.inf


@given(mdps(), generators())
@MODELS
def test_slack_is_below_the_exact_one(m: MDP, rng: np.random.Generator) -> None:
    m = replace(m, gamma=1.0) if rng.random() < 0.5 else m
    w = rng.uniform(1, 2, m.S) * ~m.terminal
    gamma, P = Fraction(m.gamma), dense_P(m)
    pi = random_policy(rng, m)
    gaps, mixed = [], []
    for s in np.flatnonzero(~m.terminal):
        row = [
            sum((Fraction(p) * Fraction(v) for p, v in zip(P[s, a], w, strict=True)), Fraction()) for a in range(m.A)
        ]
        gaps += [Fraction(w[s]) - gamma * row[a] for a in np.flatnonzero(m.legal[s])]
        mixed.append(Fraction(w[s]) - gamma * sum(Fraction(p) * y for p, y in zip(pi[s], row, strict=True)))
    if gaps:
        for exact_gap, found in ((min(gaps), bellman.slack(m, w)), (min(mixed), bellman.slack(m, w, pi))):
            assert Fraction(found) <= exact_gap
            assert float(exact_gap) - found < 1e-13
    assert bellman.slack(m) <= 1 - m.gamma
    assert bellman.slack(m) >= 1 - m.gamma - 1e-13


@given(mdps(), generators())
@settings(max_examples=60, deadline=None)
def test_rounding_bounds_a_backup(m: MDP, rng: np.random.Generator) -> None:
    """The computed T V against the exact one, with values of mixed sizes."""
    V = rng.normal(size=m.S) * 10.0 ** rng.integers(-3, 6, m.S)
    P, r, gamma = tables(m)
    Q = bellman.q_from_v(m, V)
    bound = bellman.rounding(m, m.R_max + m.gamma * abs(V).max())
    for s in range(m.S):
        for a in range(m.A):
            error = abs(Fraction(Q[s, a]) - backup(P[s][a], r[s][a], gamma, [Fraction(v) for v in V]))
            assert at_most(error, bound)


@pytest.mark.parametrize("seed", range(20))
def test_dense_and_sparse_bounds_agree(seed: int) -> None:
    rng, m = model_at(seed)
    V = rng.normal(size=m.S) * ~m.terminal
    for f in (bellman.certified_bound, bellman.loss_bound):
        assert f(m, V) == pytest.approx(f(twin(m), V), rel=1e-9)


def test_row_error_bounds_the_exact_row_sums() -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        m = random_mdp(rng)
        sums = [sum(map(Fraction, row)) for row in dense_P(m).reshape(-1, m.S)]
        true = max((abs(x - 1) for x in sums if x), default=Fraction())
        assert at_most(true, m.row_error)
        assert m.row_error <= 2e-15
