"""Natural gradient steps and mirror descent: closed forms, the theorems' rates, and V_star."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from complex_step import trial
from models import random_deterministic_policy, random_mdp

from tabrl import MDP, bellman, dp, natural
from tabrl.errors import ModelError, ShapeError
from tabrl.gradient import at, objective, policy_gradient
from tabrl.natural import gradient_ascent, mirror_descent, npg_step
from tabrl.policy import kl, softmax
from tabrl.trace import last


def unit(seed: int, **fixed: Any) -> MDP:
    """A model with rewards in [0, 1], as the theorems want them."""
    m = random_mdp(np.random.default_rng(seed), A=3, rewards="sa", masked=True, **fixed)
    low = m.R.min()
    R = np.where(m.legal & ~m.terminal[:, None], (m.R - low) / max(m.R.max() - low, 1e-9), 0.0)
    return MDP(m.P, R, m.gamma, mu=m.mu, terminal=m.terminal, legal=m.legal)


@pytest.mark.parametrize("seed", range(100))
def test_the_step_in_closed_form(seed: int) -> None:
    m, theta = trial(seed)
    x, eta = at(m, theta), float(np.random.default_rng(seed).uniform(0, 3))
    A = x.advantage / max(abs(x.advantage).max(), 1e-9)
    new = npg_step(x.pi, A, eta)
    assert np.allclose(new, softmax(theta + eta * A, m.legal), rtol=1e-11, atol=1e-300)
    assert np.allclose(new, npg_step(x.pi, A + x.V[:, None] / (1 + abs(x.V).max()), eta), rtol=1e-12, atol=1e-300)
    weight = x.pi * np.exp(eta * A)
    assert np.allclose(new, weight / weight.sum(axis=1, keepdims=True), rtol=1e-12, atol=1e-300)
    half = npg_step(npg_step(x.pi, A, eta / 2), A, eta / 2)  # steps in one direction add up
    assert np.allclose(new, half, rtol=1e-12, atol=1e-300)
    assert np.allclose(npg_step(x.pi, A, 0.0), x.pi, rtol=1e-15, atol=0)


@pytest.mark.parametrize("seed", range(30))
def test_the_step_maximises_gain_less_divergence(seed: int) -> None:
    m, theta = trial(seed)
    rng, x = np.random.default_rng(seed), at(m, theta)
    A, eta = x.advantage / max(abs(x.advantage).max(), 1e-9), float(rng.uniform(0.1, 3))
    new = npg_step(x.pi, A, eta)

    def worth(p: Any) -> Any:
        return (p * A).sum(axis=1) - kl(p, x.pi) / eta

    peak = np.log((x.pi * np.exp(eta * A)).sum(axis=1)) / eta
    assert np.allclose(worth(new), peak, rtol=1e-10, atol=1e-12)
    for size in (1e-3, 0.1, 3.0):
        other = softmax(theta + eta * A + size * rng.normal(size=theta.shape), m.legal)
        assert (worth(other) <= peak + 1e-13).all()
        assert np.allclose(peak - worth(other), kl(other, new) / eta, rtol=1e-6, atol=1e-12)  # and by how much


def test_a_huge_step_is_policy_iteration() -> None:
    for seed in range(20):
        m, theta = trial(seed)
        x = at(m, theta)
        new = npg_step(x.pi, x.advantage, 1e300)
        greedy = bellman.greedy(x.Q, m.legal)
        best = bellman.maximum(x.Q, m.legal)
        assert np.allclose((new * x.Q).sum(axis=1), best, rtol=1e-14)
        only = (best[:, None] == x.Q).sum(axis=1) == 1
        assert np.array_equal(new[only], greedy[only])
    rounds = []
    for seed in range(20):
        m = unit(seed, gamma=0.9, S=8)
        pi = random_deterministic_policy(np.random.default_rng(seed), m)
        mine = list(mirror_descent(m, eta=lambda k: 1e20**k, theta=50 * pi, limit=8))  # exp(-50) is below rounding
        theirs = list(dp.policy_iteration(m, pi=pi))
        rounds.append(len(theirs))
        for step, improvement in zip(mine, theirs, strict=False):
            assert np.allclose(step.V, improvement.V, rtol=1e-11)
    assert max(rounds) >= 3


@pytest.mark.parametrize("eta", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(10))
def test_mirror_descent_never_falls_and_obeys_its_rates(seed: int, eta: float) -> None:
    m = unit(seed, gamma=float(np.random.default_rng(seed).choice([0.5, 0.9, 0.95])))
    V_star, gamma = dp.solve(m).V, m.gamma
    steps = list(mirror_descent(m, eta=eta, limit=60))
    for old, new in pairwise(steps):
        assert (new.V >= old.V - 1e-11).all()
        Q = bellman.q_from_v(m, old.V)
        chosen = old.pi[np.arange(m.S), bellman.greedy(Q, m.legal).argmax(axis=1)]
        g = -math.log(chosen[~m.terminal].min())
        assert (V_star - new.V).max() <= gamma * (V_star - old.V).max() + g / eta + 1e-11
        assert np.array_equal(new.theta, old.theta + eta * at(m, old.theta).advantage)
    J_star = float(m.mu @ V_star)
    for step in steps[1:]:  # Agarwal et al. (2021), theorem 16: their step is (1-gamma) eta
        assert J_star - step.J <= math.log(3) / ((1 - gamma) * eta * step.k) + 1 / ((1 - gamma) ** 2 * step.k)
        assert float(m.mu @ step.V) == step.J and (abs(step.V - V_star) <= step.bound + 1e-8).all()


@pytest.mark.parametrize("seed", range(20))
def test_growing_steps_converge_linearly_to_the_optimum(seed: int) -> None:
    m, gamma = unit(seed, gamma=0.9), 0.9
    V_star = dp.solve(m, tol=1e-11).V
    steps = list(mirror_descent(m, eta=lambda k: gamma**-k, tol=1e-9))
    assert steps[-1].bound <= 1e-9 and (abs(steps[-1].V - V_star) <= 1e-9 + 1e-11).all()
    assert [step.k for step in steps] == list(range(len(steps)))
    for step in steps:  # the rate of value iteration, with a factor for the steps that were small
        assert (V_star - step.V).max() <= gamma**step.k * ((V_star - steps[0].V).max() + 10 * (1 + step.k)) + 1e-9


def test_a_constant_step_converges_too() -> None:
    m = unit(1, gamma=0.9)
    final = last(mirror_descent(m, eta=5.0, tol=1e-8))
    assert final.bound <= 1e-8 and np.allclose(final.V, dp.solve(m).V, rtol=0, atol=2e-8)


def test_without_discount() -> None:
    m = random_mdp(np.random.default_rng(5), S=6, A=3, gamma=1.0, proper=True, masked=True)
    final = last(mirror_descent(m, eta=lambda k: 2.0**k / (1 + m.R_max), tol=1e-6 * (1 + m.R_max), limit=200))
    assert final.bound <= 1e-6 * (1 + m.R_max) and (abs(final.V - dp.solve(m).V) <= 1e-5 * (1 + m.R_max)).all()


@pytest.mark.parametrize("seed", range(10))
def test_gradient_ascent(seed: int) -> None:
    m = unit(seed, gamma=0.8)
    eta = (1 - m.gamma) ** 3 / 8  # J is 8 / (1-gamma)^3 smooth: Agarwal et al. (2021), appendix
    theta = np.random.default_rng(seed).normal(size=(m.S, m.A))
    steps = list(gradient_ascent(m, eta=eta, theta=theta, limit=30))
    assert np.array_equal(steps[0].theta, theta) and len(steps) == 31
    for old, new in pairwise(steps):
        g = policy_gradient(m, old.theta)
        assert np.allclose(new.theta, old.theta + eta * g, rtol=1e-13, atol=1e-300)
        assert old.J + eta / 2 * (g**2).sum() - 1e-13 <= new.J  # the descent lemma
        assert np.isclose(new.J, objective(m, new.theta), rtol=1e-14)


def test_records_own_their_arrays() -> None:
    m = unit(0, gamma=0.5)
    theta = np.zeros((m.S, m.A))
    steps = list(mirror_descent(m, eta=1.0, theta=theta, limit=3))
    assert not theta.any() and len({id(step.theta) for step in steps}) == len(steps)


def test_what_is_refused() -> None:
    m, row = unit(0, gamma=0.5), np.array([[0.5, 0.5]])
    with pytest.raises(ValueError, match="eta is -1"):
        npg_step(row, row, -1.0)
    with pytest.raises(ShapeError, match="advantage has shape"):
        npg_step(row, row[0], 1.0)
    with pytest.raises(ValueError, match=r"eta is 0\.0 in update 1; a finite step size > 0"):
        list(mirror_descent(m, eta=0.0, limit=2))
    with pytest.raises(ValueError, match="eta is nan in update 2"):
        list(gradient_ascent(m, eta=lambda k: 1.0 if k == 1 else math.nan, limit=2))
    with pytest.raises(ModelError, match="theta"):
        next(mirror_descent(m, eta=1.0, theta=np.full((m.S, m.A), np.inf)))
    with pytest.raises(ValueError, match="tol is 0"):
        next(natural.mirror_descent(m, eta=1.0, tol=0.0))
