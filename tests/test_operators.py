"""Operators of n-step and lambda-returns, and the limits of batch learning."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from models import dense_P, dense_R, generators, mdps, random_mdp, random_policy, twin, uniform_policy
from paths import move, starts

from tabrl import MDP, chain
from tabrl.chain import Chain
from tabrl.envs.chains import random_walk
from tabrl.errors import ModelError, ShapeError
from tabrl.operators import Affine, apply, batch_mc, batch_td, joined, lambda_operator, n_step_operator
from tabrl.returns import discounted_sum


def full(x: Any) -> Any:
    return x.toarray() if hasattr(x, "toarray") else x


def expected_return(m: MDP, pi: Any, V: Any, s: int, n: int) -> float:
    """Expected n-step return by walking through all sequences of n steps."""
    if m.terminal[s]:
        return 0.0
    if n == 0:
        return float(V[s])
    P, R = dense_P(m), dense_R(m)
    total = sum(
        pi[s, a] * P[s, a, x] * (R[s, a, x] + m.gamma * expected_return(m, pi, V, x, n - 1))
        for a, x in itertools.product(range(m.A), range(m.S))
        if pi[s, a] * P[s, a, x] > 0
    )
    return float(total)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_steps_by_enumeration(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, S=3, A=2, masked=True, terminal=bool(seed % 3), rewards="sas")
    pi, V = random_policy(rng, m), rng.normal(size=m.S) * m.R_max
    got = apply(n_step_operator(chain.induce(m, pi), n), V)
    want = [expected_return(m, pi, V, s, n) for s in range(m.S)]
    assert got == pytest.approx(want, rel=1e-12, abs=1e-13 * m.R_max)


@given(mdps(), generators(), st.integers(1, 6), st.sampled_from([0.0, 0.3, 0.9, 0.999]))
@settings(max_examples=80, deadline=None)
def test_contraction_and_fixed_point(m: MDP, rng: np.random.Generator, n: int, lam: float) -> None:
    c = chain.induce(m, random_policy(rng, m))
    V = chain.evaluate(c)
    scale = 1e-12 * max(1.0, m.R_max) / (1 - m.gamma)
    for T, factor in (
        (n_step_operator(c, n), m.gamma**n),
        (lambda_operator(c, lam), m.gamma * (1 - lam) / (1 - m.gamma * lam)),
    ):
        assert T.factor == factor
        assert abs(full(T.matrix)).sum(axis=1).max() <= factor * (1 + 1e-12)
        if not m.terminal.any():
            assert abs(full(T.matrix)).sum(axis=1).min() == pytest.approx(factor, rel=1e-11)
        assert abs(apply(T, V) - V).max() <= 10 * scale
        U = rng.normal(size=m.S)
        assert abs(apply(T, V + U) - apply(T, V)).max() <= factor * abs(U[~m.terminal]).max() * (1 + 1e-9) + 10 * scale


@given(mdps(), generators())
@settings(max_examples=60, deadline=None)
def test_the_ends_of_the_range(m: MDP, rng: np.random.Generator) -> None:
    c = chain.induce(m, random_policy(rng, m))
    V = np.where(m.terminal, 0.0, rng.normal(size=m.S))
    T_pi = c.r + m.gamma * (c.P @ V)
    size = 1e-13 * max(1.0, m.R_max)
    assert abs(apply(n_step_operator(c, 1), V) - T_pi).max() <= size
    assert abs(apply(lambda_operator(c, 0.0), V) - T_pi).max() <= size
    for T in (n_step_operator(c, math.inf), lambda_operator(c, 1.0)):
        assert np.array_equal(apply(T, V), chain.evaluate(c)) and T.factor == 0
    beyond = np.where(m.terminal, 7.0, V)  # values of terminal states are never used
    for T in (n_step_operator(c, 2), lambda_operator(c, 0.5)):
        assert np.array_equal(apply(T, V), apply(T, beyond)) and not apply(T, beyond)[m.terminal].any()


@pytest.mark.parametrize("seed", range(8))
def test_lambda_mixes_the_n_step_operators(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, gamma=0.9)
    c, lam = chain.induce(m, random_policy(rng, m)), 0.7
    T = lambda_operator(c, lam)
    parts = [n_step_operator(c, n) for n in range(1, 120)]
    weight = (1 - lam) * lam ** np.arange(119)
    assert np.allclose(T.matrix, sum(w * full(p.matrix) for w, p in zip(weight, parts, strict=True)), 0, 1e-13)
    mixed = sum(w * p.vector for w, p in zip(weight, parts, strict=True))
    assert np.allclose(T.vector, mixed, rtol=1e-12, atol=1e-12 * m.R_max)


@pytest.mark.parametrize("seed", range(6))
def test_n_steps_are_n_single_steps_and_storage_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = random_mdp(rng)
    pi, V = random_policy(rng, m), rng.normal(size=m.S)
    one, four = (n_step_operator(chain.induce(m, pi), n) for n in (1, 4))
    U = V
    for _ in range(4):
        U = apply(one, U)
    assert np.allclose(apply(four, V), U, rtol=1e-12, atol=1e-12 * m.R_max)
    other = chain.induce(twin(m), pi)
    assert np.allclose(apply(n_step_operator(other, 4), V), U, rtol=1e-12, atol=1e-12 * m.R_max)
    a, b = lambda_operator(other, 0.4), lambda_operator(chain.induce(m, pi), 0.4)
    assert np.allclose(a.matrix, b.matrix, 0, 1e-13) and np.allclose(a.vector, b.vector, 1e-12, 1e-12 * m.R_max)


def test_gamma_one() -> None:
    walk = random_walk(5)
    c = chain.induce(walk, uniform_policy(walk))
    T = lambda_operator(c, 0.8)
    V = np.arange(7) / 6 * (~walk.terminal)
    assert T.factor == 1 and np.allclose(apply(T, V), V, 0, 1e-14)
    assert abs(np.linalg.eigvals(T.matrix)).max() < 1  # still a contraction, in another norm


def test_bad_operators() -> None:
    c = Chain(np.array([[1.0]]), np.array([1.0]), 0.5, np.array([False]))
    for n in (0, 1.5, -math.inf, math.nan):
        with pytest.raises(ModelError, match=r"n is .*; a whole number >= 1"):
            n_step_operator(c, n)
    for lam in (-0.1, 1.1, math.nan):
        with pytest.raises(ModelError, match=r"lam is .*; a number in \[0, 1\] is expected"):
            lambda_operator(c, lam)
    with pytest.raises(ShapeError, match=r"V has shape \(2,\); \(1,\) is expected"):
        apply(Affine(np.eye(1), np.zeros(1), 1.0), np.zeros(2))


def batch(seed: int, m: MDP, pi: Any, episodes: int, limit: int) -> list[Any]:
    """Episodes of a model, some cut at the limit."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(episodes):
        s, r, discount = [int(starts(rng, m, 1)[0])], list[float](), list[float]()
        while len(r) < limit and not m.terminal[s[-1]]:
            _, R, x = move(rng, m, pi, np.array(s[-1:]))
            s, r, discount = [*s, int(x[0])], [*r, float(R[0])], [*discount, 0.0 if m.terminal[x[0]] else m.gamma]
        out.append((np.array(s), np.array(r), np.array(discount)))
    return out


@pytest.mark.parametrize("seed", range(6))
def test_batch_td_is_where_replayed_td_settles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, S=5, A=2, gamma=0.9, proper=True, rewards="sas")
    pi = random_policy(rng, m)
    episodes, V0 = batch(seed, m, pi, 6, 4), rng.normal(size=m.S)
    got = batch_td(episodes, m.S, V0)
    V = V0.copy()
    for _ in range(6000):
        change = np.zeros(m.S)
        for s, r, discount in episodes:
            for t in range(len(r)):
                change[s[t]] += r[t] + discount[t] * V[s[t + 1]] - V[s[t]]
        V += 0.05 * change
    assert np.allclose(got.V, V, rtol=1e-9, atol=1e-9 * m.R_max)
    assert np.array_equal(got.V[got.visits == 0], V0[got.visits == 0])


@pytest.mark.parametrize("seed", range(6))
def test_batch_td_is_certainty_equivalence(seed: int) -> None:
    """The values of the model that the counts describe."""
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, S=4, A=2, gamma=0.9, proper=True, rewards="sas")
    pi = random_policy(rng, m)
    episodes = batch(seed, m, pi, 40, 1000)
    seen = np.bincount(np.concatenate([s[:-1] for s, _, _ in episodes]), minlength=m.S) > 0
    P, R = np.zeros((m.S, m.S)), np.zeros(m.S)
    for s, r, _ in episodes:
        np.add.at(P, (s[:-1], s[1:]), 1)
        np.add.at(R, s[:-1], r)
    count = np.maximum(P.sum(1), 1)
    learnt = MDP((P / count[:, None])[:, None], R / count, m.gamma, terminal=~seen)
    V = chain.evaluate(chain.induce(learnt, np.ones((m.S, 1))))
    assert np.allclose(batch_td(episodes, m.S).V, V, rtol=1e-11, atol=1e-12 * m.R_max)


@pytest.mark.parametrize("first", [False, True])
def test_batch_mc_averages_returns(first: bool) -> None:
    rng = np.random.default_rng(8)
    m = random_mdp(rng, S=4, A=2, gamma=0.9, proper=True, rewards="sas")
    episodes = batch(8, m, random_policy(rng, m), 30, 10_000)
    G: list[list[float]] = [[] for _ in range(m.S)]
    for s, r, discount in episodes:
        returns = discounted_sum(r, discount)
        for t in range(len(r)):
            if not (first and s[t] in s[:t]):
                G[s[t]].append(float(returns[t]))
    got = batch_mc(episodes, m.S, np.full(m.S, 9.0), first=first)
    want = np.array([np.mean(g) if g else 9.0 for g in G])
    assert np.allclose(got.V, want, rtol=1e-12, atol=0)
    assert got.visits.tolist() == [len(g) for g in G]


def test_example_6_4_tells_td_from_mc() -> None:
    A, B, end = 0, 1, 2
    once, ends = ([A, B, end], [0.0, 0.0], [1.0, 0.0]), [([B, end], [float(i < 6)], [0.0]) for i in range(7)]
    assert batch_td([once, *ends], 3).V.tolist() == pytest.approx([0.75, 0.75, 0])
    assert batch_mc([once, *ends], 3).V.tolist() == [0, 0.75, 0]


def test_many_episodes_approach_v_pi() -> None:
    walk = random_walk(5)
    episodes = batch(1, walk, uniform_policy(walk), 4000, 10_000)
    V = np.arange(7) / 6 * (~walk.terminal)
    assert abs(batch_td(episodes, 7).V - V).max() < 0.03 and abs(batch_mc(episodes, 7).V - V).max() < 0.05


def test_a_cut_episode_bootstraps() -> None:
    cut = ([0, 1], [1.0], [0.9])
    assert batch_td([cut], 2, [0.0, 10.0]).V.tolist() == [10.0, 10.0]
    with pytest.raises(ModelError, match=r"episodes\[0\] is cut \(its last discount is 0.9\)"):
        batch_mc([cut], 2)


def test_large_sparse_models_are_not_densified() -> None:
    n = 6000
    c = Chain(sp.eye_array(n, format="csr"), np.ones(n), 0.5, np.zeros(n, np.bool_))
    T = n_step_operator(c, 3)
    assert sp.issparse(T.matrix) and T.matrix.nnz == n and np.allclose(apply(T, np.full(n, 2.0)), 2.0)
    with pytest.raises(ModelError, match=r"mdp has 6000 states to tabulate; at most 5000"):
        lambda_operator(c, 0.5)


def test_bad_batches() -> None:
    with pytest.raises(ShapeError, match=r"episodes is empty"):
        batch_td([], 2)
    with pytest.raises(ShapeError, match=r"episodes\[1\] has s, r, discount of shape \(1,\), \(1,\), \(1,\)"):
        batch_td([([0, 1], [1.0], [0.0]), ([0], [1.0], [0.0])], 2)
    with pytest.raises(ModelError, match=r"episodes\[0\] has states \[0 2\]; whole numbers in 0 … 1"):
        batch_mc([([0, 2], [1.0], [0.0])], 2)
    with pytest.raises(ModelError, match=r"some of them never end at discount 1"):
        batch_td([([0, 0], [1.0], [1.0])], 1)
    s, r, discount, s_next = joined([([0, 1], [1.0], [0.5]), ([1], [], [])], 2)
    assert (s.tolist(), r.tolist(), discount.tolist(), s_next.tolist()) == ([0], [1.0], [0.5], [1])
