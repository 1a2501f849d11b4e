"""Entropy-regularised values: fixed points, complex steps, extended precision, limits."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from complex_step import J, derivative, parts, policy, trial
from models import dense_P, dense_R, random_mdp, random_policy, twin

from tabrl import MDP, dp, soft
from tabrl.errors import ModelError, NotConverged
from tabrl.policy import softmax
from tabrl.trace import last

X = np.longdouble


def model(seed: int, **fixed: Any) -> tuple[MDP, float]:
    """A cyclic model and a temperature of the size of its rewards."""
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {"A": 3, "gamma": float(rng.choice([0.5, 0.9, 0.99]))} | fixed
    m = random_mdp(rng, **options)
    return m, float(rng.choice([0.01, 0.3, 3.0]) * (0.01 + m.R_max))


def smooth_backup(m: MDP, V: Any, tau: float) -> Any:
    """One backup in extended precision, state by state."""
    P, R, new = dense_P(m).astype(X), dense_R(m).astype(X), np.zeros(m.S, X)
    for s in np.flatnonzero(~m.terminal):
        Q = [(P[s, a] * (R[s, a] + X(m.gamma) * V)).sum() for a in np.flatnonzero(m.legal[s])]
        new[s] = max(Q) + X(tau) * np.log(sum(np.exp((q - max(Q)) / X(tau)) for q in Q))
    return new


def limit_of(m: MDP, tau: float, V: Any) -> Any:
    """The soft optimum in extended precision, by iteration from V."""
    for _ in range(600):  # .9**600 < 1e-27
        V = smooth_backup(m, V, tau)
    return V


@pytest.mark.parametrize("seed", range(60))
def test_values_of_a_policy(seed: int) -> None:
    m, theta = trial(seed)
    pi, tau = policy(m, theta), 0.3 * (0.01 + m.R_max)
    V, Q, _ = parts(m, pi, tau=tau)
    mine = soft.evaluate_soft(m, pi, tau)
    assert np.allclose(mine, V, rtol=1e-9, atol=1e-11 * abs(V).max())
    live = ~m.terminal
    logs = np.log(np.where(pi > 0, pi, 1.0))
    assert np.allclose(mine[live], (pi * (Q - tau * logs)).sum(axis=1)[live], rtol=1e-8, atol=1e-10 * abs(V).max())
    assert (mine[m.terminal] == 0).all()
    assert np.allclose(soft.soft_objective(m, theta, tau), J(m, theta, tau=tau), rtol=1e-9)


def test_values_by_fixed_point_iteration() -> None:
    for seed in range(20):
        m, tau = model(seed, gamma=0.9)
        pi = random_policy(np.random.default_rng(seed), m)
        bonus = np.array([-tau * sum(p * math.log(p) for p in row if p > 0) for row in pi]) * ~m.terminal
        P, V = np.einsum("sa,sax->sx", pi, dense_P(m)), np.zeros(m.S)
        r = (pi * (dense_P(m) * dense_R(m)).sum(axis=2)).sum(axis=1)
        for _ in range(500):
            V = r + bonus + 0.9 * P @ V
        assert np.allclose(soft.evaluate_soft(m, pi, tau), V, rtol=1e-10, atol=1e-12 * abs(V).max())
    certain = np.eye(m.A)[m.legal.argmax(axis=1)]
    assert np.array_equal(soft.evaluate_soft(m, certain, tau), soft.evaluate_soft(m, certain, 1e-9))


@pytest.mark.parametrize("seed", range(100))
def test_gradient_by_complex_step(seed: int) -> None:
    m, theta = trial(seed)
    tau = 0.3 * (0.01 + m.R_max)
    truth = derivative(lambda x: J(m, x, tau=tau), theta)
    mine = soft.soft_policy_gradient(m, theta, tau)
    assert abs(mine - truth).max() <= 1e-9 * abs(truth).max()
    assert (mine[m.terminal] == 0).all() and (mine[~m.legal] == 0).all()


@pytest.mark.parametrize("seed", range(25))
def test_optimum_is_the_limit_in_extended_precision(seed: int) -> None:
    m, tau = model(seed, gamma=[0.5, 0.9][seed % 2])
    found = soft.soft_optimum(m, tau, tol=1e-10 * (1 + m.R_max + tau))
    V = limit_of(m, tau, found.V.astype(X))
    assert abs(found.V - V).max() <= found.bound
    for sweep in soft.soft_value_iteration(m, tau, tol=1e-9 * (1 + m.R_max + tau)):
        assert abs(sweep.V - V).max() <= sweep.bound
    for sweep in soft.soft_policy_iteration(m, tau, tol=1e-300):  # to the floor of rounding, the bound still holds
        assert abs(sweep.V - V).max() <= sweep.bound
    live = m.legal & ~m.terminal[:, None]
    assert np.allclose(found.pi[live], np.exp((found.Q - found.V[:, None]) / tau)[live], rtol=1e-6, atol=1e-300)
    other = soft.soft_optimum(twin(m), tau, tol=1e-10 * (1 + m.R_max + tau))
    assert abs(other.V - found.V).max() <= found.bound + other.bound


def test_bound_holds_where_the_rounding_of_the_logarithm_is_all_there_is() -> None:
    errors = []
    for seed in range(20):
        m, _ = model(seed, gamma=0.0)
        tau = (1e6 + seed) * (1 + m.R_max) / 3
        truth = smooth_backup(m, np.zeros(m.S, X), tau)
        for sweep in soft.soft_value_iteration(m, tau, tol=1e-300):
            errors.append(abs(sweep.V - truth).max())
            assert errors[-1] <= sweep.bound
        assert sweep.bound <= 1e-13 * tau and sweep.k <= 3
    assert max(errors) > 0


@pytest.mark.parametrize("seed", range(40))
def test_nothing_beats_the_optimum(seed: int) -> None:
    m, tau = model(seed)
    rng = np.random.default_rng(seed)
    best = soft.soft_optimum(m, tau, tol=1e-8 * (1 + m.R_max + tau))
    noise = best.bound + 1e-9 * (1 + abs(best.V).max())
    assert (abs(soft.evaluate_soft(m, best.pi, tau) - best.V) <= noise).all()  # its policy attains it
    rivals = [random_policy(rng, m), m.legal / m.legal.sum(axis=1, keepdims=True), dp.solve(m).pi]
    top = best.Q / tau
    rivals += [softmax(top + size * rng.normal(size=top.shape), m.legal) for size in (1e-3, 0.1, 1.0)]
    assert all((soft.evaluate_soft(m, pi, tau) <= best.V + noise).all() for pi in rivals)
    g = soft.soft_policy_gradient(m, top - top.max(axis=1, keepdims=True), tau)
    assert abs(g).max() <= 1e-7 * (1 + m.R_max + tau) / (1 - m.gamma)


@pytest.mark.parametrize("seed", range(30))
def test_as_tau_goes_to_zero(seed: int) -> None:
    m, _ = model(seed)
    V_star, gap = dp.solve(m, tol=1e-9 * (1 + m.R_max)).V, math.inf
    for tau in (1.0, 1e-2, 1e-4, 1e-8, 1e-300):
        found = soft.soft_optimum(m, tau, tol=1e-8 * (1 + m.R_max + tau))
        noise = found.bound + 1e-9 * (1 + m.R_max)
        assert (V_star - noise <= found.V).all()
        assert (V_star + tau * math.log(3) / (1 - m.gamma) + noise >= found.V).all()
        assert abs(found.V - V_star).max() <= gap + noise  # falls with tau
        gap = abs(found.V - V_star).max()
        assert np.allclose(found.pi.sum(axis=1), 1) and (found.pi[~m.legal] == 0).all()


def test_iterations_rise_and_contract() -> None:
    for seed in range(20):
        m, tau = model(seed, gamma=0.9)
        V = soft.soft_optimum(m, tau, tol=1e-10 * (1 + m.R_max + tau)).V
        noise = 1e-9 * (1 + m.R_max + tau)
        errors = [abs(x.V - V).max() for x in soft.soft_value_iteration(m, tau, limit=40)]
        assert all(new <= 0.9 * old + noise for old, new in pairwise(errors))
        rounds = list(soft.soft_policy_iteration(m, tau))
        assert all((old.V - noise <= new.V).all() for old, new in pairwise(rounds))
        assert len(rounds) <= 12 and [x.k for x in rounds] == list(range(1, len(rounds) + 1))


def test_soft_maximum_is_between_its_limits() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        m, tau = model(seed)
        Q = rng.normal(size=(m.S, m.A)) * rng.choice([1, 1e8])
        top = np.where(m.legal, Q, -np.inf).max(axis=1)
        value = soft.soft_maximum(m, Q, tau)[~m.terminal]
        count = m.legal.sum(axis=1)
        assert (value >= top[~m.terminal]).all()
        assert (value <= (top + tau * np.log(count))[~m.terminal] * (1 + 1e-15) + 1e-15 * abs(value)).all()
        pi = soft.soft_policy(m, Q, tau)
        bonus = -tau * (pi * np.log(np.where(pi > 0, pi, 1))).sum(axis=1)
        assert np.allclose(value, ((pi * Q).sum(axis=1) + bonus)[~m.terminal], rtol=1e-12)


def test_without_discount() -> None:
    m = random_mdp(np.random.default_rng(4), S=5, A=3, gamma=1.0, proper=True, masked=True)
    tau = 0.1 * (1 + m.R_max)
    found = soft.soft_optimum(m, tau, tol=1e-8 * (1 + m.R_max))
    sweep = last(soft.soft_value_iteration(m, tau, tol=1e-8 * (1 + m.R_max)))
    assert abs(sweep.V - found.V).max() <= sweep.bound + found.bound
    loop = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, -1], [0, 0]], 1.0, mu=[1, 0], terminal=[0, 1])
    with pytest.raises(NotConverged, match="bound is inf"):  # some policy never ends: no certificate
        soft.soft_optimum(loop, 0.5)
    x = math.exp(-1 / 0.5)  # V = tau log(exp((V - 1)/tau) + exp(-1/tau)): exp(V/tau) = x / (1 - x)
    value = last(soft.soft_policy_iteration(loop, 0.5)).V[0]
    assert math.isclose(value, 0.5 * math.log(x / (1 - x)), rel_tol=1e-12)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_that_are_refused(tau: float) -> None:
    m, _ = model(0)
    pi, Q = m.legal / m.legal.sum(axis=1, keepdims=True), np.zeros((m.S, m.A))
    for call in (
        lambda: soft.evaluate_soft(m, pi, tau),
        lambda: soft.soft_maximum(m, Q, tau),
        lambda: soft.soft_policy(m, Q, tau),
        lambda: next(soft.soft_value_iteration(m, tau)),
        lambda: soft.soft_optimum(m, tau),
        lambda: soft.soft_policy_gradient(m, Q, tau),
    ):
        with pytest.raises(ValueError, match="a finite temperature > 0 is expected"):
            call()
    with pytest.raises(ModelError, match=r"V\[\d\] is 1.0; terminal states have value 0"):
        m = random_mdp(np.random.default_rng(0), terminal=True, gamma=0.5)
        next(soft.soft_value_iteration(m, 1.0, V=np.ones(m.S)))
