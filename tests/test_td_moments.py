"""Moments of TD(0): against enumeration in fractions, a literal recursion, samples, and closed forms."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from models import dense_P, dense_R, random_mdp, random_policy, same_bits, twin, uniform_policy
from paths import agree, draw, move, second, starts
from rational import exact

from tabrl import MDP, chain
from tabrl.envs.chains import random_walk, random_walk_19, two_state
from tabrl.errors import ModelError, ShapeError
from tabrl.td_limits import independent_limit, trajectory_limit
from tabrl.td_moments import independent_moments, trajectory_moments
from tabrl.trace import column, last


def branches(m: MDP, pi: Any) -> list[tuple[int, int, float, float]]:
    """(s, s', pi P, R) of every possible step."""
    P, R = dense_P(m), dense_R(m)
    return [(s, x, pi[s, a] * P[s, a, x], R[s, a, x]) for s, a, x in np.ndindex(P.shape) if pi[s, a] * P[s, a, x] > 0]


def start(m: MDP) -> Any:
    mu = np.where(m.terminal, 0.0, m.mu)
    return mu / mu.sum()


def enumerated(m: MDP, pi: Any, alpha: float, V: Any, steps: int, d: Any = None) -> tuple[Any, Any]:
    """Mean and covariance by walking through every sequence of steps in fractions; d None: along a trajectory."""
    step, gamma, first = Fraction(alpha), Fraction(m.gamma), exact(start(m) if d is None else d)
    law = [(s, x, Fraction(float(w)), Fraction(float(R))) for s, x, w, R in branches(m, pi)]
    total, mean = Fraction(), [Fraction()] * m.S
    square = [[Fraction()] * m.S for _ in range(m.S)]

    def walks(V: Any, at: list[Any], p: Fraction, left: int) -> Iterator[tuple[Any, Fraction]]:
        if not left:
            yield V, p
            return
        for s, x, w, R in law:
            if at[s]:
                ahead = Fraction() if m.terminal[x] else gamma * V[x]
                U = list(V)
                U[s] += step * (R + ahead - V[s])
                there = [Fraction(y == x) for y in range(m.S)]
                yield from walks(U, first if d is not None or m.terminal[x] else there, p * at[s] * w, left - 1)
        idle = sum((at[s] for s in range(m.S) if m.terminal[s]), Fraction())
        if idle:
            yield from walks(V, first, p * idle, left - 1)

    for U, p in walks(exact(V), first, Fraction(1), steps):
        total += p
        mean = [a + p * u for a, u in zip(mean, U, strict=True)]
        square = [[c + p * u * v for c, v in zip(row, U, strict=True)] for row, u in zip(square, U, strict=True)]
    mean = [a / total for a in mean]  # the stored probabilities sum to 1 up to rounding
    C = [[square[i][j] / total - mean[i] * mean[j] for j in range(m.S)] for i in range(m.S)]
    return np.array(mean, dtype=np.float64), np.array(C, dtype=np.float64)


def literal(m: MDP, pi: Any, alpha: float, V: Any, steps: int) -> tuple[Any, Any]:
    """Joint moments of (V, V V', s_t), one matrix product per branch; nothing is centred."""
    mu, law = start(m), branches(m, pi)
    p, first, square = mu, mu[:, None] * V, mu[:, None, None] * np.outer(V, V)
    for _ in range(steps):
        q, f, g = np.zeros_like(p), np.zeros_like(first), np.zeros_like(square)
        for s, x, w, R in law:
            B, b = np.eye(m.S), np.zeros(m.S)
            B[s, s] -= alpha
            B[s, x] += 0 if m.terminal[x] else alpha * m.gamma
            b[s] = alpha * R
            after = B @ first[s] + b * p[s]
            cross = np.outer(B @ first[s], b)
            both = B @ square[s] @ B.T + cross + cross.T + p[s] * np.outer(b, b)
            land = mu if m.terminal[x] else np.eye(m.S)[x]
            q, f, g = q + w * land * p[s], f + w * np.outer(land, after), g + w * land[:, None, None] * both
        p, first, square = q, f, g
    mean = first.sum(0)
    return mean, square.sum(0) - np.outer(mean, mean)


def model(seed: int, **fixed: Any) -> tuple[MDP, Any, Any]:
    """A cyclic model with masked actions, its policy and start values."""
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {"S": 3, "A": 2, "terminal": bool(seed % 3), "masked": True, "rewards": "sas"} | fixed
    m = random_mdp(rng, **options)
    scale = 1 / max(m.R_max, 1e-3)
    m = replace(m, R=m.R * scale)
    return m, random_policy(rng, m), rng.normal(size=m.S)


@pytest.mark.parametrize("seed", range(12))
def test_two_updates_in_fractions(seed: int) -> None:
    m, pi, V = model(seed)
    d = np.random.default_rng(seed + 100).dirichlet(np.ones(m.S))
    got = last(independent_moments(m, pi, alpha=0.375, d=d, steps=2, V=V))
    want = enumerated(m, pi, 0.375, V, 2, d)
    assert np.allclose(got.mean, want[0], rtol=0, atol=1e-13) and np.allclose(got.covariance, want[1], 0, 1e-13)
    got = last(trajectory_moments(m, pi, alpha=0.375, steps=3, V=V))
    want = enumerated(m, pi, 0.375, V, 3)
    assert np.allclose(got.mean, want[0], rtol=0, atol=1e-13) and np.allclose(got.covariance, want[1], 0, 1e-13)


@pytest.mark.parametrize("seed", range(12))
def test_trajectory_equals_the_literal_recursion(seed: int) -> None:
    m, pi, V = model(seed, S=None, A=None, terminal=None)
    got = last(trajectory_moments(m, pi, alpha=0.3, steps=80, V=V))
    mean, C = literal(m, pi, 0.3, V, 80)
    assert np.allclose(got.mean, mean, rtol=1e-11, atol=1e-12)
    assert np.allclose(got.covariance, C, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", range(6))
def test_episodes_of_one_step_are_independent_draws(seed: int) -> None:
    """Two derivations of one quantity: every step ends, so the restart distribution is d."""
    rng = np.random.default_rng(seed)
    m, pi, V = model(seed, S=5, terminal=True)
    ends = int(np.flatnonzero(m.terminal)[0])
    P = np.zeros((5, 2, 5))
    P[~m.terminal, :, ends] = 1.0
    mu = np.where(m.terminal, 0.0, rng.random(5))
    m = MDP(P, dense_R(m), m.gamma, terminal=m.terminal, legal=m.legal, mu=mu / mu.sum())
    d = m.mu
    a = last(independent_moments(m, pi, alpha=0.2, d=d, steps=50, V=V))
    b = last(trajectory_moments(m, pi, alpha=0.2, steps=50, V=V))
    assert np.allclose(a.mean, b.mean, 0, 1e-13) and np.allclose(a.covariance, b.covariance, 0, 1e-13)


N = 20_000


@pytest.mark.parametrize("seed", range(4))
def test_samples_of_independent_updates(seed: int) -> None:
    m, pi, V0 = model(seed, S=4, gamma=0.9)
    rng = np.random.default_rng(1000 + seed)
    d = rng.dirichlet(np.ones(m.S))
    V, run = np.tile(V0, (N, 1)), np.arange(N)
    for record in independent_moments(m, pi, alpha=0.25, d=d, steps=40, V=V0):
        s = draw(rng, np.broadcast_to(d, (N, m.S)))
        live = ~m.terminal[s]
        _, R, x = move(rng, m, pi, np.where(live, s, np.argmin(m.terminal)))
        delta = R + m.gamma * np.where(m.terminal[x], 0.0, V[run, x]) - V[run, s]
        V[run, s] += 0.25 * np.where(live, delta, 0.0)
        if record.t in (1, 5, 40):
            agree(V, record.mean)
            agree(second(V, record.mean), record.covariance)


@pytest.mark.parametrize("seed", range(4))
def test_samples_along_a_trajectory(seed: int) -> None:
    m, pi, V0 = model(seed, S=4, gamma=0.9)
    rng = np.random.default_rng(2000 + seed)
    V, run, s = np.tile(V0, (N, 1)), np.arange(N), starts(rng, m, N)
    for record in trajectory_moments(m, pi, alpha=0.25, steps=40, V=V0):
        _, R, x = move(rng, m, pi, s)
        V[run, s] += 0.25 * (R + m.gamma * np.where(m.terminal[x], 0.0, V[run, x]) - V[run, s])
        s = np.where(m.terminal[x], starts(rng, m, N), x)
        if record.t in (1, 5, 40):
            agree(V, record.mean)
            agree(second(V, record.mean), record.covariance)


def test_a_wrong_step_size_is_noticed() -> None:
    """The z-test has power: moments at alpha = .25 against those at .26."""
    m, pi, V0 = model(1, S=4, gamma=0.9)
    rng, run = np.random.default_rng(5), np.arange(N)
    V, s = np.tile(V0, (N, 1)), starts(np.random.default_rng(6), m, N)
    for record in trajectory_moments(m, pi, alpha=0.26, steps=5, V=V0):  # noqa: B007
        _, R, x = move(rng, m, pi, s)
        V[run, s] += 0.25 * (R + m.gamma * np.where(m.terminal[x], 0.0, V[run, x]) - V[run, s])
        s = np.where(m.terminal[x], starts(rng, m, N), x)
    with pytest.raises(AssertionError, match="z ="):
        agree(V, record.mean)


def test_independent_mean_settles_at_v_pi_and_the_trajectory_does_not() -> None:
    two = two_state()
    one = uniform_policy(two)
    V = chain.evaluate(chain.induce(two, one))
    assert V[0] == pytest.approx(7.568, abs=5e-4)
    free = independent_limit(two, one, alpha=0.4, d=[0.5, 0.5])
    walk = trajectory_limit(two, one, alpha=0.4)
    assert np.allclose(free.mean, V, rtol=1e-14)
    assert walk.mean[0] == pytest.approx(7.404, abs=5e-4)
    far = last(trajectory_moments(two, one, alpha=0.4, steps=3000, every=3000))
    assert np.allclose(far.mean, walk.mean, 0, 1e-11) and np.allclose(far.covariance, walk.covariance, 0, 1e-11)
    far = last(independent_moments(two, one, alpha=0.4, d=[0.5, 0.5], steps=3000, every=3000))
    assert np.allclose(far.mean, free.mean, 0, 1e-11) and np.allclose(far.covariance, free.covariance, 0, 1e-11)


@pytest.mark.parametrize("seed", range(10))
def test_limits_are_where_the_recursions_end(seed: int) -> None:
    m, pi, V = model(seed, S=4, gamma=0.5)
    pi = uniform_policy(m)
    m = replace(m, mu=np.where(m.terminal, 0, 1) / (~m.terminal).sum())
    d = np.random.default_rng(seed).dirichlet(np.full(m.S, 5.0))
    free, walk = independent_limit(m, pi, alpha=0.3, d=d), trajectory_limit(m, pi, alpha=0.3)
    for limit, records in (
        (free, independent_moments(m, pi, alpha=0.3, d=d, steps=4000, V=V, every=4000)),
        (walk, trajectory_moments(m, pi, alpha=0.3, steps=4000, V=V, every=4000)),
    ):
        end, live = last(records), ~m.terminal
        assert np.allclose(end.mean[live], limit.mean[live], 0, 1e-11)
        assert np.allclose(end.covariance, limit.covariance, 0, 1e-11)


def test_the_bias_is_of_order_alpha() -> None:
    two = two_state()
    V = chain.evaluate(chain.induce(two, uniform_policy(two)))
    alphas = np.array([0.02, 0.01, 0.005, 0.0025])
    slope = [(trajectory_limit(two, uniform_policy(two), alpha=a).mean - V)[0] / a for a in alphas]
    change = np.diff(slope)
    assert slope[-1] < -0.1 and np.allclose(change[1:] / change[:-1], 0.5, atol=0.02)


def test_gamma_one_with_episodes() -> None:
    walk = random_walk(5)
    limit = trajectory_limit(walk, uniform_policy(walk), alpha=0.1)
    far = last(trajectory_moments(walk, uniform_policy(walk), alpha=0.1, steps=12000, every=12000))
    assert np.allclose(far.mean, limit.mean, 0, 1e-11) and np.allclose(far.covariance, limit.covariance, 0, 1e-11)
    assert abs(limit.mean[1:-1] - np.arange(1, 6) / 6).max() < 0.05


def test_a_periodic_chain_settles_on_average_over_time() -> None:
    """States 0, 1 and states 2, 3 take turns, so the moments of V_t keep two phases."""
    half = np.array([0.3, 0.7])
    P, R = np.zeros((4, 1, 4)), np.zeros((4, 1, 4))
    P[:2, 0, 2:], P[2:, 0, :2] = half, half
    R[:2, 0, 2:] = [[1, -1], [2, 0]]
    m = MDP(P, R, 0.8, mu=[1, 0, 0, 0])
    records = list(trajectory_moments(m, uniform_policy(m), alpha=0.5, steps=2001))
    limit = trajectory_limit(m, uniform_policy(m), alpha=0.5)
    means, C = column(records, "mean")[-2:], column(records, "covariance")[-2:]
    assert np.allclose(means.mean(0), limit.mean, 0, 1e-12)
    spread = means - limit.mean
    assert np.allclose(C.mean(0) + spread.T @ spread / 2, limit.covariance, 0, 1e-12)
    assert abs(C[0] - C[1]).max() > 1e-3  # the phases differ


@pytest.mark.parametrize("law", ["independent", "trajectory"])
def test_stability_is_the_spectral_radius_of_the_second_moments(law: str) -> None:
    """The certificate against eigenvalues of the literal map, on both sides of 1."""
    m = two_state(0.5, 0.5, gamma=0.9)
    pi, d = uniform_policy(m), np.array([0.5, 0.5])
    seen = set()
    for alpha in (0.5, 1.0, 1.1, 1.15, 1.2, 1.3, 1.5, 1.8, 2.0, 2.5):
        T = np.zeros((8, 8)) if law == "trajectory" else np.zeros((4, 4))
        for s, x, w, _ in branches(m, pi):
            B = np.eye(2)
            B[s, s] -= alpha
            B[s, x] += alpha * m.gamma
            if law == "trajectory":
                T[4 * x : 4 * x + 4, 4 * s : 4 * s + 4] += w * np.kron(B, B)
            else:
                T += d[s] * w * np.kron(B, B)
        stable = bool(abs(np.linalg.eigvals(T)).max() < 1)
        seen.add(stable)
        try:
            if law == "trajectory":
                trajectory_limit(m, pi, alpha=alpha)
            else:
                independent_limit(m, pi, alpha=alpha, d=d)
            assert stable, alpha
        except ModelError as error:
            assert not stable and "do not converge" in str(error), alpha
    assert seen == {True, False}


def test_every_keeps_the_bits_and_storage_does_not_matter() -> None:
    m, pi, V = model(2, S=4)
    whole = list(trajectory_moments(m, pi, alpha=0.3, steps=10, V=V))
    some = list(trajectory_moments(m, pi, alpha=0.3, steps=10, V=V, every=4))
    assert [r.t for r in some] == [4, 8, 10] and [r.t for r in whole] == list(range(1, 11))
    assert all(same_bits(r.covariance, whole[r.t - 1].covariance) for r in some)
    a = last(trajectory_moments(twin(m), pi, alpha=0.3, steps=10, V=V))
    assert np.allclose(a.mean, whole[-1].mean, 0, 1e-14)
    d = m.mu
    whole2 = list(independent_moments(m, pi, alpha=0.3, d=d, steps=10, V=V))
    assert same_bits(last(independent_moments(m, pi, alpha=0.3, d=d, steps=10, V=V, every=3)).mean, whole2[-1].mean)
    assert not same_bits(whole[0].mean, whole[1].mean)  # records own their arrays


def test_terminal_values_stay_and_are_never_used() -> None:
    walk = random_walk_19()
    pi, V = uniform_policy(walk), np.zeros(21)
    V[[0, 20]] = 50.0
    a = last(trajectory_moments(walk, pi, alpha=0.1, steps=30, V=V))
    b = last(trajectory_moments(walk, pi, alpha=0.1, steps=30))
    assert a.mean[0] == 50 and np.array_equal(a.mean[1:-1], b.mean[1:-1]) and np.array_equal(a.covariance, b.covariance)
    still = last(trajectory_moments(walk, pi, alpha=0.0, steps=3, V=V))
    assert np.array_equal(still.mean, V) and not still.covariance.any()


def test_nothing_but_terminal_states() -> None:
    end = MDP([[[1.0]]], [0], 0.9, terminal=[1])
    assert not last(independent_moments(end, np.ones((1, 1)), alpha=0.1, d=[1.0], steps=2)).covariance.any()
    assert independent_limit(end, np.ones((1, 1)), alpha=0.1, d=[1.0]).mean.tolist() == [0]


def test_bad_input() -> None:
    two, walk = two_state(), random_walk(3)
    one = uniform_policy(two)
    with pytest.raises(ModelError, match=r"alpha is -1; a finite step size >= 0"):
        next(trajectory_moments(two, one, alpha=-1, steps=1))
    with pytest.raises(ModelError, match=r"alpha is 0; nothing is learnt"):
        trajectory_limit(two, one, alpha=0)
    with pytest.raises(ModelError, match=r"every is 0"):
        next(trajectory_moments(two, one, alpha=0.1, steps=1, every=0))
    with pytest.raises(ModelError, match=r"d sums to 2"):
        next(independent_moments(two, one, alpha=0.1, d=[1, 1], steps=1))
    with pytest.raises(ShapeError, match=r"V has shape \(3,\)"):
        next(independent_moments(two, one, alpha=0.1, d=[1, 0], steps=1, V=[0, 0, 0]))
    with pytest.raises(ModelError, match=r"V\[1\] is updated finitely often"):
        independent_limit(two, one, alpha=0.1, d=[1, 0])
    with pytest.raises(ModelError, match=r"V\[1,3\] is updated finitely often"):
        walk2 = MDP(
            [[[1, 0, 0, 0, 0]]] + [[[1.0, 0, 0, 0, 0]]] * 3 + [[[0, 0, 0, 0, 1]]],
            [0, 1, 1, 1, 0],
            0.9,
            terminal=[1, 0, 0, 0, 1],
            mu=[0, 0, 1, 0, 0],
        )
        trajectory_limit(walk2, uniform_policy(walk2), alpha=0.1)
    with pytest.raises(ModelError, match=r"mu is 0 on every non-terminal state"):
        next(trajectory_moments(walk, uniform_policy(walk), alpha=0.1, steps=1, mu=[1, 0, 0, 0, 0]))
    with pytest.raises(ModelError, match=r"chain\[s=0,1\] never ends; at gamma = 1"):
        trajectory_limit(two_state(gamma=1.0, rewards=(0.0, 0.0)), one, alpha=0.1)
    apart = MDP([[[1.0, 0.0]], [[0.0, 1.0]]], [1, 2], 0.9)
    with pytest.raises(ModelError, match=r"2 recurrent classes"):
        trajectory_limit(apart, uniform_policy(apart), alpha=0.1)
