"""NPG and TRPO: the natural gradient against dense solves, the trust region held, J that never falls, loops, a grid."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import complex_step
import numpy as np
import pytest
from models import random_mdp

from tabrl import MDP, dp, envs
from tabrl.decisions import Batch, drawn, estimate, expected
from tabrl.envs import TabularEnv, TabularVectorEnv
from tabrl.errors import ModelError, ShapeError
from tabrl.gradient import Exact, at, fisher_vector, objective
from tabrl.natural import npg_step
from tabrl.on_policy import Plan
from tabrl.policy import log_softmax, softmax
from tabrl.surrogate import surrogate
from tabrl.trpo import (
    PRODUCTS,
    Natural,
    TrustRegion,
    conjugate_gradient,
    fisher_product,
    natural,
    npg,
    trpo,
    trpo_step,
)
from tabrl.types import PGStep

RUNS = range(24)
DELTAS = (1e-6, 1e-3, 0.01, 0.1, 1.0, 10.0)


def close(x: Any, y: Any, tolerance: float = 1e-12) -> bool:
    """Largest difference, relative to the largest number where that is above 1."""
    x, y = np.asarray(x), np.asarray(y)
    return bool(abs(x - y).max(initial=0.0) <= tolerance * max(1.0, abs(y).max(initial=0.0)))


def decisions(m: MDP, theta: Any) -> tuple[Exact, Batch]:
    """The exact batch of a softmax policy."""
    x = at(m, theta)
    return x, expected(x.pi, np.where(m.terminal, 0.0, x.d), x.advantage)


# ---- the natural gradient ----


def system(seed: int) -> tuple[Any, Any, Any]:
    """A policy with masked actions, weights of states that may be 0, and a gradient: its rows sum to 0."""
    rng = np.random.default_rng([61, seed])
    S, A = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    legal = np.column_stack([np.ones(S, np.bool_), rng.random((S, A - 1)) < 0.7])
    pi = softmax(rng.normal(size=(S, A)) * rng.choice([0.5, 2.0]), legal)
    w = rng.random(S) * (rng.random(S) < 0.8)
    x = rng.normal(size=(S, A))
    g = np.where(w[:, None] > 0, pi * (x - (pi * x).sum(axis=1, keepdims=True)), 0.0)
    return g, pi, w


def dense(pi: Any, w: Any, damping: float) -> Any:
    """F + damping as a matrix (S·A, S·A)."""
    S, A = pi.shape
    F = np.zeros((S, A, S, A))
    for s in range(S):
        F[s, :, s, :] = w[s] * (np.diag(pi[s]) - np.outer(pi[s], pi[s]))
    return F.reshape(S * A, S * A) + damping * np.eye(S * A)


@pytest.mark.parametrize("seed", range(60))
def test_products_and_solutions(seed: int) -> None:
    g, pi, w = system(seed)
    v = np.random.default_rng(seed).normal(size=g.shape)
    for damping in (0.0, 1e-3, 0.5):
        F = dense(pi, w, damping)
        assert close(fisher_product(v, pi, w, damping).ravel(), F @ v.ravel())
    for damping in (1e-3, 0.5):
        wanted = np.linalg.solve(dense(pi, w, damping), g.ravel())
        assert close(natural(g, pi, w, damping=damping).ravel(), wanted, 1e-9)
        found = conjugate_gradient(g, pi, w, iterations=200, damping=damping, tol=1e-13)
        assert close(found.ravel(), wanted, 1e-9)
    wanted = np.linalg.pinv(dense(pi, w, 0.0), rcond=1e-9) @ g.ravel()
    assert close(natural(g, pi, w).ravel(), wanted, 1e-7)
    assert close(conjugate_gradient(g, pi, w, iterations=200, tol=1e-13).ravel(), wanted, 1e-7)


@pytest.mark.parametrize("seed", RUNS)
def test_conjugate_gradient_is_the_literal_recursion(seed: int) -> None:
    """Hestenes & Stiefel with a matrix; every iterate goes uphill."""
    g, pi, w = system(seed)
    F, b = dense(pi, w, 0.01), g.ravel()
    x, r, p = np.zeros_like(b), b, b
    for n in range(1, 5):
        if r @ r <= 1e-20 * (b @ b):
            break
        step = (r @ r) / (p @ F @ p)
        x, before = x + step * p, r
        r = before - step * F @ p
        p = r + (r @ r) / (before @ before) * p
        found = conjugate_gradient(g, pi, w, iterations=n, damping=0.01)
        assert close(found.ravel(), x, 1e-9)
        assert (found * g).sum() > 0


@pytest.mark.parametrize("seed", range(60))
def test_with_exact_quantities_it_is_the_advantage(seed: int) -> None:
    """F is gradient.fisher's, and the solution A less its plain mean: the closed form of the step of NPG."""
    m, theta = complex_step.trial(seed)
    x, batch = decisions(m, theta)
    w, v = np.where(m.terminal, 0.0, x.d), np.random.default_rng(seed).normal(size=theta.shape)
    assert close(fisher_product(v, x.pi, w), fisher_vector(m, theta, v))
    found = natural(estimate(log_softmax(theta, m.legal), batch), x.pi, w)
    scale = max(1.0, abs(x.Q).max())
    mean = (x.advantage * m.legal).sum(axis=1) / m.legal.sum(axis=1)
    wanted = np.where(m.legal & (w > 0)[:, None], x.advantage - mean[:, None], 0.0)
    assert close(found / scale, wanted / scale, 1e-9)
    eta = 0.3 / scale
    step, closed = softmax(theta + eta * found, m.legal), npg_step(x.pi, x.advantage, eta)
    assert close(step[w > 0], closed[w > 0], 1e-9)


# ---- the step ----


def rounding(m: MDP, x: Exact) -> float:
    """How far an exact J may be off: linear solves of this size."""
    return 1e-11 * max(1.0, float(abs(x.Q).max())) / (1 - min(m.gamma, 0.999))


def literal_kl(pi: Any, pi_new: Any, weight: Any) -> float:
    """Mean KL(old || new), number by number."""
    total = 0.0
    for s in np.flatnonzero(weight):
        total += weight[s] * sum(p * np.log(p / q) for p, q in zip(pi[s], pi_new[s], strict=True) if p > 0)
    return float(total / weight.sum())


@pytest.mark.parametrize("seed", range(200))
def test_exact_quantities_hold_delta_and_never_lower_J(seed: int) -> None:
    """200 models, masked, cyclic, some undiscounted; from deltas of 1e-6 up to 10; J by an independent dense solve."""
    m, theta = complex_step.trial(seed)
    x, batch = decisions(m, theta)
    w = np.where(m.terminal, 0.0, x.d)
    for delta in DELTAS:
        y = trpo_step(theta, batch, delta, legal=m.legal)
        pi = softmax(y.theta, m.legal)
        assert y.kl <= delta
        assert close(y.kl, literal_kl(x.pi, pi, w), 1e-9)
        assert complex_step.J(m, y.theta) >= complex_step.J(m, theta) - rounding(m, x)
        assert close((y.gain + x.J) / (1 + abs(x.J)), surrogate(m, pi, x.pi) / (1 + abs(x.J)), 1e-9)
        assert (y.kept > 0) == (y.gain > 0) and 0 <= y.kept <= 1


@pytest.mark.parametrize("seed", RUNS)
def test_J_never_falls_on_the_way_to_the_optimum(seed: int) -> None:
    """Forty steps with delta = .1, and KL <= .1 in each of them."""
    m, theta = complex_step.trial(seed)
    first = here = objective(m, theta)
    for _ in range(40):
        x, batch = decisions(m, theta)
        y = trpo_step(theta, batch, 0.1, legal=m.legal)
        if not y.kept or abs(y.theta).max() > 600:
            break
        theta, before, here = y.theta, here, objective(m, y.theta)
        assert y.kl <= 0.1 and here >= before - rounding(m, x)
    best = float(m.mu @ dp.solve(m).V)
    assert best - here <= 0.2 * (best - first) + rounding(m, x)


@pytest.mark.parametrize("direction", [natural, partial(natural, damping=0.1), conjugate_gradient])
@pytest.mark.parametrize("seed", RUNS)
def test_the_line_search_is_the_literal_one(seed: int, direction: Any) -> None:
    """Drawn decisions: the first power of the shrinkage that holds the KL and gains."""
    rng = np.random.default_rng([62, seed])
    m, theta = complex_step.trial(seed)
    pi = at(m, theta).pi
    s = rng.choice(np.flatnonzero(~m.terminal), 20)
    a = np.array([rng.choice(m.A, p=pi[z]) for z in s])
    batch = drawn(s, a, np.log(pi[s, a]), rng.normal(size=20))
    y = trpo_step(theta, batch, 0.05, direction=direction, legal=m.legal, shrink=0.5, tries=8)
    w = np.bincount(s, minlength=m.S) / 20
    g = np.zeros_like(theta)
    for z, b, A in zip(s, a, batch.adv, strict=True):
        g[z] += A * (np.eye(m.A)[b] - pi[z]) / 20
    rows = log_softmax(theta, m.legal)
    found = estimate(rows, batch)
    assert close(found, g)
    v = direction(found, np.exp(rows), w)  # the same bits: ten conjugate gradients magnify a difference in the last one
    curvature = (found * v).sum()
    if curvature <= 1e-30:
        return
    if direction is not conjugate_gradient:
        damping = getattr(direction, "keywords", {}).get("damping", 0.0)
        assert close(curvature, v.ravel() @ dense(pi, w, damping) @ v.ravel(), 1e-9)
    for j in range(8):
        new = theta + 0.5**j * np.sqrt(0.1 / curvature) * v
        pi_new = softmax(new, m.legal)
        gain = np.mean((pi_new[s, a] / pi[s, a] - 1) * batch.adv)
        if literal_kl(pi, pi_new, w) <= 0.05 and gain > 0:
            assert y.kept == 0.5**j and close(y.theta, new, 1e-9) and close(y.gain, gain, 1e-9)
            return
    assert y.kept == 0 and (y.theta == theta).all()


def test_where_nothing_is_gained_theta_stays() -> None:
    x = drawn(np.zeros(2, np.int64), np.arange(2), np.log([0.5, 0.5]), np.zeros(2))
    y = trpo_step(np.zeros((1, 2)), x, 0.01)
    assert not y.theta.any() and (y.kl, y.gain, y.kept) == (0, 0, 0)
    x = x._replace(adv=np.array([1.0, -1.0]))
    down: Callable[[Any, Any, Any], Any] = lambda g, pi, w: -g  # noqa: E731
    y = trpo_step(np.zeros((1, 2)), x, 0.01, direction=down)
    assert not y.theta.any() and y.kept == 0


# ---- updates ----


def model(seed: int) -> tuple[MDP, int]:
    """A random cyclic model (self-loops, terminal states, masked actions), and a time limit."""
    rng = np.random.default_rng([63, seed])
    size: dict[str, Any] = {"S": int(rng.integers(2, 7)), "A": int(rng.integers(2, 5))}
    mdp = random_mdp(rng, **size, gamma=float(rng.choice([0.8, 0.95])), proper=seed % 2 == 0)
    free = np.where(mdp.terminal, 0.0, 1.0)
    return replace(mdp, mu=free / free.sum()), int(rng.integers(1, 15))


def literal_batch(learner: Any, theta: Any, V: Any, lam: float, whiten: bool) -> Any:
    """Act with theta; pi, the rollout, advantages and targets by double sums."""
    weight = np.where(learner.legal, np.exp(theta), 0.0)
    pi = weight / weight.sum(axis=1, keepdims=True)
    x = learner.actor.steps(pi, 30)
    adv = np.zeros(30)
    for t in range(30):
        factor = 1.0
        for k in range(t, 30):
            adv[t] += factor * (x.r[k] + x.discount[k] * V[x.s_next[k]] - V[x.s[k]])
            factor *= lam * x.discount[k]
            if x.last[k]:
                break
    y = adv + V[x.s]
    return pi, x, (adv - adv.mean()) / (adv.std() + 1e-8) if whiten and np.ptp(adv) > 0 else adv, y


def literal_natural(pi: Any, x: Any, adv: Any, damping: float) -> Any:
    """(F + damping)^-1 g with matrices."""
    g = np.zeros_like(pi)
    for s, a, A in zip(x.s, x.a, adv, strict=True):
        g[s] += A * (np.eye(pi.shape[1])[a] - pi[s]) / len(adv)
    w = np.bincount(x.s, minlength=len(pi)) / len(adv)
    return np.linalg.solve(dense(pi, w, damping), g.ravel()).reshape(pi.shape), w


def literal_critic(V: Any, s: Any, y: Any) -> Any:
    new = V.copy()
    for z in set(s.tolist()):
        new[z] += 0.5 * (np.mean([y[t] for t in range(len(s)) if s[t] == z]) - V[z])
    return new


@pytest.mark.parametrize("region", [False, True])
@pytest.mark.parametrize("seed", RUNS)
def test_replay(seed: int, region: bool) -> None:
    """Three updates of NPG, and of TRPO, with a Fisher matrix that is solved as a matrix."""
    mdp, limit = model(seed)
    rng = np.random.default_rng([64, seed])
    theta, V = rng.normal(size=(mdp.S, mdp.A)), np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))
    lam, whiten = 0.8, seed % 2 == 0
    settings = (mdp, np.random.default_rng(seed), Plan(30, lam, whiten, 1), 0.5, theta, V, limit, None)
    direction, damping = partial(natural, damping=0.05), 0.05
    learner: Any = TrustRegion(0.02, direction, *settings) if region else Natural(0.3, direction, *settings)
    twin = copy.deepcopy(learner)
    for x in islice(learner.records(), 3):
        pi, roll, adv, y = literal_batch(twin, theta, V, lam, whiten)
        v, w = literal_natural(pi, roll, adv, damping)
        curvature = v.ravel() @ dense(pi, w, damping) @ v.ravel()
        for size in np.sqrt(0.04 / curvature) * 0.8 ** np.arange(30) if region and curvature > 1e-30 else [0.3]:
            new = theta + size * v if curvature > 1e-30 else theta
            weight = np.where(mdp.legal, np.exp(new), 0.0)
            pi_new = weight / weight.sum(axis=1, keepdims=True)
            gain = np.mean((pi_new[roll.s, roll.a] / pi[roll.s, roll.a]) * adv) - np.mean(adv)
            if not region or (literal_kl(pi, pi_new, w) <= 0.02 and gain > 0):
                break
        theta, V = new, literal_critic(V, roll.s, y)
        assert close(x.theta, theta, 1e-10) and close(x.V, V)
        assert close(x.kl, literal_kl(pi, softmax(theta, mdp.legal), w), 1e-10)
        assert x.clip_fraction == 0
        theta, V = x.theta, x.V


@pytest.mark.parametrize("direction", [natural, conjugate_gradient, PRODUCTS])
@pytest.mark.parametrize("delta", [1e-3, 0.3])
def test_every_record_is_within_the_region(delta: float, direction: Any) -> None:
    for seed in range(6):
        mdp, limit = model(seed)
        options: dict[str, Any] = {"delta": delta, "direction": direction, "steps": 50, "limit": limit}
        xs = list(islice(trpo(mdp, np.random.default_rng(seed), **options), 20))
        assert all(x.kl <= delta for x in xs) and max(x.kl for x in xs) > 0
        assert [x.t for x in xs] == [50 * x.k for x in xs]


# ---- runs ----


def bits(x: PGStep) -> Any:
    return b"".join(np.asarray(y).tobytes() for y in x)


@pytest.mark.parametrize("learner", [npg, trpo])
def test_same_seed_same_bits(learner: Any) -> None:
    mdp, limit = model(7)

    def run(seed: int, every: int) -> PGStep:
        rng = np.random.default_rng(seed)
        xs: list[PGStep] = list(islice(learner(mdp, rng, steps=40, limit=limit, every=every), 6 // every))
        return xs[-1]

    assert bits(run(0, 1)) == bits(run(0, 3)) == bits(run(0, 6))
    assert bits(run(0, 1)) != bits(run(1, 1))


def test_a_schedule_of_step_sizes() -> None:
    """eta = 1/k: the second update is half as long as with eta = 1 from the same state."""
    mdp, limit = model(8)
    one, two = (npg(mdp, np.random.default_rng(0), eta=eta, steps=40, limit=limit) for eta in (lambda k: 1 / k, 1.0))
    first, same = next(one), next(two)
    assert (first.theta == same.theta).all()
    x, y = next(one).theta - first.theta, next(two).theta - first.theta
    assert close(2 * x, y) and x.any()


def test_a_region_that_shrinks() -> None:
    mdp, limit = model(8)
    xs = islice(trpo(mdp, np.random.default_rng(0), delta=lambda k: 0.1 / k**2, steps=40, limit=limit), 8)
    assert all(0 < x.kl <= 0.1 / x.k**2 for x in xs)


@pytest.mark.parametrize("copies", [0, 4])
@pytest.mark.parametrize("learner", [npg, trpo])
def test_environments(copies: int, learner: Any) -> None:
    mdp = random_mdp(np.random.default_rng(5), S=5, A=3, gamma=0.9, proper=True, masked=True, rewards="sas")
    mdp = replace(mdp, R=mdp.R / mdp.R_max, mu=np.where(mdp.terminal, 0, 1) / (~mdp.terminal).sum())

    def run() -> list[PGStep]:
        source: Any = TabularVectorEnv(mdp, num_envs=copies) if copies else TabularEnv(mdp)
        return list(islice(learner(source, np.random.default_rng(3), gamma=0.9, steps=64, limit=20), 12))

    xs = run()
    assert np.isnan(xs[-1].J) and 64 * 12 <= xs[-1].t < (64 + max(copies, 1)) * 12
    assert objective(mdp, xs[-1].theta) > objective(mdp, np.zeros((mdp.S, mdp.A)))
    assert bits(xs[-1]) == bits(run()[-1])


@pytest.mark.parametrize("learner", [npg, trpo])
@pytest.mark.parametrize("seed", range(3))
def test_grid(seed: int, learner: Any) -> None:
    """8 by 8, 150 updates of 2,048 steps: exact J of the softmax policy within 1 % of J* after the whole budget."""
    m = envs.grid("S....... " + "........ " * 6 + ".......G", rewards={}, step=-1.0, gamma=0.99)
    best = float(m.mu @ dp.solve(m).V)
    x = next(learner(m, np.random.default_rng(seed), limit=500, steps=2048, every=150))
    assert x.t == 150 * 2048
    assert best * 1.01 <= x.J <= best + 1e-9


# ---- bad input ----


@pytest.mark.parametrize(
    ("learner", "options", "error", "message"),
    [
        (npg, {"eta": 0.0}, ValueError, "eta is 0.0"),
        (npg, {"steps": 0}, ValueError, "steps is 0"),
        (npg, {"theta": np.zeros(3)}, ShapeError, "theta has shape"),
        (trpo, {"delta": 0.0}, ValueError, "delta is 0.0"),
        (trpo, {"delta": np.inf}, ValueError, "delta is inf"),
        (trpo, {"lam": -0.1}, ValueError, "lam is -0.1"),
        (trpo, {"gamma": 0.1}, ModelError, "gamma is 0.1"),
        (trpo, {"every": 0}, ValueError, "every is 0"),
    ],
)
def test_bad_input(learner: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        learner(model(0)[0], np.random.default_rng(0), **options)


def test_more_bad_input() -> None:
    g, pi, w = system(0)
    x = drawn(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), np.ones(1))
    for call, message in (
        (lambda: natural(g, pi, w, damping=-1.0), "damping is -1.0"),
        (lambda: conjugate_gradient(g, pi, w, damping=-1.0), "damping is -1.0"),
        (lambda: conjugate_gradient(g, pi, w, iterations=0), "iterations is 0"),
        (lambda: trpo_step(np.zeros((1, 2)), x, -1.0), "delta is -1.0"),
        (lambda: trpo_step(np.zeros((1, 2)), x, 1.0, shrink=1.0), "shrink is 1.0"),
        (lambda: trpo_step(np.zeros((1, 2)), x, 1.0, tries=0), "tries is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
