"""First-visit and every-visit Monte Carlo: against a count of visits, closed forms, and samples."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from models import dense_P, dense_R, random_mdp, random_policy, twin, uniform_policy
from paths import agree, move

from tabrl import MDP, chain, visits
from tabrl.branches import branches, step
from tabrl.envs.chains import loop, random_walk, two_state
from tabrl.errors import ModelError

K = 250  # visits counted by the judge


def model(seed: int, **fixed: Any) -> tuple[MDP, Any, int]:
    """A cyclic model that ends, its policy, and a non-terminal state."""
    options: dict[str, Any] = {"S": 4, "A": 2, "proper": True, "rewards": "sas", "masked": True} | fixed
    rng = np.random.default_rng(seed)
    m = random_mdp(rng, **options)
    m = replace(m, R=m.R / max(m.R_max, 1e-3))
    return m, random_policy(rng, m), int(rng.choice(np.flatnonzero(~m.terminal)))


def counted(m: MDP, pi: Any, s: int) -> tuple[Any, Any, Any]:
    """p[k], E[Y 1{k}], E[Y^2 1{k}] from s, Y the sum of the returns of k visits: linear systems per number of visits.

    From y with k visits still to come, h counts the probability, G the return, Y the sum: six moments per k.
    """
    P, R, g = pi[:, :, None] * dense_P(m), dense_R(m), m.gamma
    M, A, AA = P.sum(1), (P * R).sum(1), (P * R**2).sum(1)
    at, S = np.arange(m.S) == s, m.S
    before = {name: np.zeros(S) for name in ("h", "G", "GG", "Y", "GY", "YY")}  # no visit to come: k = -1
    found = []
    for k in range(K + 1):
        now: dict[str, Any] = {}

        def answer(name: str, scale: float, b: Any, extra: Any, now: Any = now, before: Any = before) -> None:
            """Solve x = b(now) + scale M x off s; at s it is the same with one visit fewer to come, plus extra."""
            here = b(before) + scale * (M @ before[name]) + extra
            now[name] = np.linalg.solve(np.eye(m.S) - scale * (M * ~at[:, None]), np.where(at, here, b(now)))

        def zero(x: Any) -> Any:
            return np.zeros(S)

        if k == 0:
            now["h"] = np.linalg.solve(np.eye(S) - M * ~at[:, None], np.where(m.terminal, 1.0, 0.0))
        else:
            answer("h", 1, zero, 0)
        answer("G", g, lambda x: A @ x["h"], 0)
        answer("GG", g * g, lambda x: AA @ x["h"] + 2 * g * A @ x["G"], 0)
        answer("Y", 1, zero, now["G"][s])
        answer("GY", g, lambda x: A @ x["Y"], now["GG"][s])
        # at s: Y = G + Y', so E[G Y] = E[G^2] + E[G Y'], E[Y^2] = E[G^2] + 2 E[G Y'] + E[Y'^2]
        answer("YY", 1, zero, 2 * now["GY"][s] - now["GG"][s])
        found.append([now[name][s] for name in ("h", "Y", "YY")])
        before = now
    return tuple(np.array(found).T)


def judged(m: MDP, pi: Any, s: int, n: int) -> tuple[float, float]:
    """Bias and mean-square error for n episodes, by convolution over the total number of visits, V taken off."""
    p, Y, YY = counted(m, pi, s)
    V, k = chain.evaluate(chain.induce(m, pi))[s], np.arange(K + 1)
    D, DD = Y - V * k * p, YY - 2 * V * k * Y + V**2 * k**2 * p
    one, two = n * D, n * DD
    for _ in range(n - 1):
        one, two = np.convolve(one, p), np.convolve(two, p)
    cross = np.zeros(1)
    if n > 1:
        cross = n * (n - 1) * np.convolve(D, D)
        for _ in range(n - 2):
            cross = np.convolve(cross, p)
    N = np.arange(len(one))
    N[0] = 1
    square = two + np.pad(cross, (0, len(two) - len(cross)))
    return float((one / N).sum()), float((square / N**2).sum())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [1, 2, 3])
def test_general_chains_by_counting_visits(seed: int, n: int) -> None:
    m, pi, s = model(seed, gamma=(0.7, 0.95, 1.0)[seed % 3])
    assert visits.cycle(m, pi, s).back ** K < 1e-14
    bias, mse = judged(m, pi, s, n)
    got = visits.every_visit(m, pi, s, n)
    assert got.bias == pytest.approx(bias, abs=1e-11)
    assert got.mse == pytest.approx(mse, rel=1e-9, abs=1e-11)
    assert visits.every_visit_bias(m, pi, s, n) == pytest.approx(bias, abs=1e-11)
    assert got.variance == pytest.approx(mse - bias**2, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("p", [0.1, 0.75, 0.99])
def test_the_loop_of_singh_and_sutton(n: int, p: float) -> None:
    """Bias -(p / (1-p)) R_s / (n+1), and the mean-square error of n = 1 as a sum over visits."""
    m = loop(p, stay=2.0, end=5.0)
    pi = uniform_policy(m)
    want = -p / (1 - p) * 2.0 / (n + 1)
    assert visits.every_visit_bias(m, pi, 0, n) == pytest.approx(want, rel=1e-12)
    assert visits.every_visit(m, pi, 0, n).bias == pytest.approx(want, rel=1e-8)
    assert visits.first_visit(m, pi, 0, n).mse == pytest.approx(4 * p / (1 - p) ** 2 / n, rel=1e-11)
    if n == 1:
        k = np.arange(1, 6000)
        V = 2 * p / (1 - p) + 5
        mse = float(((1 - p) * p ** (k - 1) * (5 + (k - 1) - V) ** 2).sum())
        assert visits.every_visit(m, pi, 0, 1).mse == pytest.approx(mse, rel=1e-10)


def test_two_episodes_of_the_loop_in_fractions() -> None:
    """p = 3/4, both rewards 1: every pair of visit counts below 240; what is left out is below 1e-22."""
    p, bias, mse = Fraction(3, 4), Fraction(), Fraction()
    for i in range(1, 240):
        for j in range(1, 240 - i):
            error = Fraction(i * (i + 1) + j * (j + 1), 2 * (i + j)) - 4
            weight = p ** (i + j - 2) / 16
            bias, mse = bias + weight * error, mse + weight * error**2
    got = visits.every_visit(loop(0.75), np.ones((2, 1)), 0, 2)
    assert got.bias == pytest.approx(float(bias), rel=1e-12) and got.mse == pytest.approx(float(mse), rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_leading_terms(seed: int) -> None:
    m, pi, s = model(seed, gamma=(0.7, 0.95, 1.0)[seed % 3])
    rate = visits.every_visit_rate(m, pi, s)
    n = 2000
    error = visits.every_visit(m, pi, s, n)
    assert n * error.bias == pytest.approx(rate.bias, rel=0.05, abs=1e-7)
    assert n * error.mse == pytest.approx(rate.mse, rel=0.05, abs=1e-7)


@pytest.mark.parametrize("seed", range(8))
def test_the_ratio_has_unbiased_parts(seed: int) -> None:
    m, pi, s = model(seed, gamma=0.9)
    assert visits.cycle(m, pi, s).back ** K < 1e-14
    p, Y, _ = counted(m, pi, s)
    total, number = visits.visit_totals(m, pi, s)
    assert total == pytest.approx(Y.sum(), rel=1e-9, abs=1e-11)
    assert number == pytest.approx((np.arange(K + 1) * p).sum(), rel=1e-9)
    assert total / number == pytest.approx(chain.evaluate(chain.induce(m, pi))[s], rel=1e-12)


def test_every_visit_has_the_smaller_error_first_and_the_larger_one_later() -> None:
    """Singh & Sutton (1996): on the loop, first-visit wins in the end."""
    m = loop(0.9)
    pi = uniform_policy(m)
    ratio = [visits.every_visit(m, pi, 0, n).mse / visits.first_visit(m, pi, 0, n).mse for n in (1, 2, 100)]
    assert ratio[0] < 1 < ratio[2]
    rate = visits.every_visit_rate(m, pi, 0).mse
    assert rate > chain.return_variance(m, pi)[0]


N = 20_000


def sampled(m: MDP, pi: Any, s: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Visits, sum of the returns over them, and the first return, of N episodes from s."""
    at, T = np.full(N, s), 0
    trace = []
    while not m.terminal[at].all():
        live = ~m.terminal[at]
        _, R, x = move(rng, m, pi, np.where(live, at, s))
        trace.append((live & (at == s), np.where(live, R, 0.0)))
        at, T = np.where(live, x, at), T + 1
    G, number, total = np.zeros(N), np.zeros(N), np.zeros(N)
    for here, R in reversed(trace):
        G = R + m.gamma * G
        number, total = number + here, total + here * G
    return number, total, G


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 4])
def test_samples(seed: int, n: int) -> None:
    """Cyclic models with terminal states and masked actions; starts are in s, as given that it is visited."""
    m, pi, s = model(seed, gamma=0.95)
    number, total, first = (x.reshape(-1, n) for x in sampled(m, pi, s, np.random.default_rng(50 + seed)))
    V = chain.evaluate(chain.induce(m, pi))[s]
    estimate = total.sum(1) / number.sum(1) - V
    every, once = visits.every_visit(m, pi, s, n), visits.first_visit(m, pi, s, n)
    agree(np.column_stack([estimate, estimate**2]), np.array([every.bias, every.mse]))
    average = first.mean(1) - V
    agree(np.column_stack([average, average**2]), np.array([0.0, once.mse]))
    agree(np.column_stack([total[:, 0], number[:, 0]]), np.array(visits.visit_totals(m, pi, s)))


def test_a_state_that_never_comes_back() -> None:
    m = MDP([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], [1, 2, 0], 0.5, terminal=[0, 0, 1])
    pi = uniform_policy(m)
    assert visits.every_visit(m, pi, 0, 3) == (0.0, 0.0, 0.0) and visits.every_visit_bias(m, pi, 0, 3) == 0
    assert visits.visit_totals(m, pi, 0) == (2.0, 1.0)


def test_storage_does_not_matter() -> None:
    m, pi, s = model(3)
    assert visits.every_visit(m, pi, s, 3) == pytest.approx(visits.every_visit(twin(m), pi, s, 3), rel=1e-10, abs=1e-14)
    walk = random_walk(5)
    assert visits.every_visit_bias(walk, uniform_policy(walk), 3, 5) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("seed", range(10))
def test_one_step_is_the_literal_sum(seed: int) -> None:
    m, pi, _ = model(seed, sparse=bool(seed % 2), terminal=bool(seed % 3), proper=False)
    P, R, law = dense_P(m), dense_R(m), step(m, pi)
    n = len(law.states)
    assert np.allclose(law.P.sum(1), 1, 0, 1e-14)
    for i, s in enumerate(law.states):
        for j in range(n + 1):
            ends = [law.states[j]] if j < n else np.flatnonzero(m.terminal)
            cases = [(pi[s, a] * P[s, a, x], R[s, a, x]) for a in range(m.A) for x in ends]
            p = sum(w for w, _ in cases)
            assert law.P[i, j] == pytest.approx(p, abs=1e-15)
            if p > 0:
                mean = sum(w * r for w, r in cases) / p
                assert law.R[i, j] == pytest.approx(mean, abs=1e-14)
                assert law.noise[i, j] == pytest.approx(sum(w * (r - mean) ** 2 for w, r in cases) / p, abs=1e-14)
            else:
                assert law.R[i, j] == law.noise[i, j] == 0
    b = branches(m)
    assert sorted(zip(b.s, b.a, b.s_next, b.P, strict=True)) == [(*i, P[i]) for i in np.ndindex(P.shape) if P[i] > 0]


def test_bad_input() -> None:
    m = loop()
    with pytest.raises(ModelError, match=r"s is 1; a non-terminal state in 0 … 1 is expected"):
        visits.every_visit(m, uniform_policy(m), 1, 1)
    with pytest.raises(ModelError, match=r"n is 0; a whole number of episodes"):
        visits.first_visit(m, uniform_policy(m), 0, 0)
    with pytest.raises(ModelError, match=r"pi never ends from states 0,1; Monte Carlo needs whole episodes"):
        visits.every_visit_bias(two_state(), np.ones((2, 1)), 0, 1)
    assert math.isfinite(visits.every_visit_rate(m, uniform_policy(m), 0).mse)
