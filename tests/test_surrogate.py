"""Surrogates of J: identities, bounds on random pairs of policies, and the clip, term by term."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from complex_step import along, derivative, parts, policy, trial
from models import random_mdp, random_policy

from tabrl import MDP
from tabrl.errors import ModelError, ShapeError
from tabrl.gradient import Exact, at, exact, policy_gradient, usual_gradient, visit_counts
from tabrl.surrogate import (
    clip_fraction,
    clip_gradient,
    clip_surrogate,
    mean_bound,
    mixture_bound,
    performance_difference,
    surrogate,
    trpo_bound,
    trpo_bound_kl,
)

LOWER = (trpo_bound, trpo_bound_kl, mean_bound)


def pair(seed: int, **fixed: Any) -> tuple[MDP, Any, Any]:
    """A model and two policies, near each other or far apart."""
    rng = np.random.default_rng(seed)
    m, theta = trial(seed, **fixed)
    return m, policy(m, theta + rng.choice([1e-3, 0.1, 1.0]) * rng.normal(size=theta.shape)), policy(m, theta)


def literal(m: MDP, new: Any, pi: Any, d: Any, A: Any, low: float, high: float) -> Any:
    """The clipped objective as a sum over states and actions; comparisons look at real parts."""
    total: Any = 0.0
    for s in range(m.S):
        for a in range(m.A):
            if pi[s, a] > 0:
                rho = new[s, a] / pi[s, a]
                cut = min(max(np.real(rho), 1 - low), 1 + high)
                inside = np.real(rho) * A[s, a] <= cut * A[s, a]
                total = total + d[s] * pi[s, a] * (rho if inside else cut) * A[s, a]
    return total


def clipped_at(m: MDP, x: Exact, low: float, high: float, theta: Any) -> Any:
    """The same as a function of the new preferences."""
    return literal(m, policy(m, theta), x.pi, x.d, x.advantage, low, high)


def gained_at(m: MDP, x: Exact, theta: Any) -> Any:
    """The surrogate without a clip, less J, as a function of the new preferences."""
    return (x.d[:, None] * policy(m, theta) * x.advantage).sum()


@pytest.mark.parametrize("block", range(8))
def test_performance_difference(block: int) -> None:
    for seed in range(block, 200, 8):
        m, new, pi = pair(seed)
        J_new, J_old = (float(m.mu @ parts(m, p)[0]) for p in (new, pi))
        scale = abs(parts(m, pi)[0]).max() + abs(parts(m, new)[0]).max()
        assert abs(performance_difference(m, new, pi) - (J_new - J_old)) <= 1e-10 * scale
        x = exact(m, pi)
        assert abs(surrogate(m, new, pi) - (J_old + (x.d[:, None] * new * x.advantage).sum())) <= 1e-10 * scale
        assert abs(surrogate(m, pi, pi) - J_old) <= 1e-10 * scale


def test_of_policies_that_forbid_actions() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        m = random_mdp(rng, gamma=0.9)
        new, pi = random_policy(rng, m), random_policy(rng, m)
        truth = float(m.mu @ (parts(m, new)[0] - parts(m, pi)[0]))
        assert abs(performance_difference(m, new, pi) - truth) <= 1e-10 * (1 + m.R_max)
        J_new = float(m.mu @ parts(m, new)[0])
        assert all(bound(m, new, pi) <= J_new + 1e-10 * (1 + m.R_max) for bound in LOWER)


@pytest.mark.parametrize("block", range(8))
def test_bounds_hold(block: int) -> None:
    for seed in (s for s in range(block, 250, 8) if s % 5):
        m, new, pi = pair(seed)
        V = parts(m, new)[0]
        noise = 1e-9 * (abs(V).max() + abs(parts(m, pi)[0]).max())
        found = {bound: bound(m, new, pi) for bound in LOWER}
        J_new = float(m.mu @ V)
        assert max(found.values()) <= J_new + noise
        assert found[trpo_bound_kl] <= found[trpo_bound] + noise <= found[mean_bound] + 2 * noise
        above = 2 * surrogate(m, new, pi) - found[mean_bound]  # the same distance on the other side
        assert J_new <= above + noise
        for bound in LOWER:
            assert abs(bound(m, pi, pi) - float(m.mu @ parts(m, pi)[0])) <= noise
        for alpha in (0.0, 0.01, 0.3, 1.0):
            mixed = (1 - alpha) * pi + alpha * new
            assert mixture_bound(m, new, pi, alpha) <= float(m.mu @ parts(m, mixed)[0]) + noise


def test_bounds_are_the_formulas() -> None:
    for seed in range(1, 30):
        m, new, pi = pair(seed, gamma=0.9, proper=False)
        x, live = exact(m, pi), ~m.terminal
        eps, gain = abs(x.advantage).max(), (new * x.advantage).sum(axis=1)
        tv = abs(new - pi).sum(axis=1)[live] / 2
        logs = np.log(np.where(pi > 0, pi / np.where(new > 0, new, 1), 1.0))
        far = (pi * logs).sum(axis=1)[live].max()
        L, noise = x.J + x.d @ gain, 1e-9 * (1 + eps) * 1000
        assert abs(trpo_bound(m, new, pi) - (L - 4 * eps * 0.9 / 0.01 * tv.max() ** 2)) <= noise
        assert abs(trpo_bound_kl(m, new, pi) - (L - 4 * eps * 0.9 / 0.01 * far)) <= noise
        assert abs(mean_bound(m, new, pi) - (L - 2 * abs(gain).max() * 0.9 / 0.1 * (x.d[live] @ tv))) <= noise
        part = 2 * abs(gain).max() * 0.9 * 0.25 / (0.1 * (1 - 0.9 * 0.5))
        assert abs(mixture_bound(m, new, pi, 0.5) - (x.J + 0.5 * x.d @ gain - part)) <= noise


def test_a_forbidden_action_leaves_no_bound_by_divergence() -> None:
    m = random_mdp(np.random.default_rng(0), S=4, A=2, gamma=0.9, masked=False, terminal=False)
    one, half = np.eye(2)[[0, 0, 0, 0]], np.full((4, 2), 0.5)
    assert trpo_bound_kl(m, one, half) == -np.inf < trpo_bound(m, one, half)
    assert np.isfinite(trpo_bound_kl(m, half, one))  # from the policy that was run to the new one


def test_bounds_are_not_empty() -> None:
    """Small steps along the advantage improve J for certain, by every bound."""
    m = random_mdp(np.random.default_rng(2), S=4, A=3, gamma=0.5, masked=False, terminal=False, rewards="sa")
    x = at(m, np.zeros((4, 3)))
    near = x.pi * (1 + 1e-3 * x.advantage / abs(x.advantage).max())
    assert all(bound(m, near, x.pi) > x.J for bound in LOWER)
    greedy = np.eye(3)[x.Q.argmax(axis=1)]
    assert mixture_bound(m, greedy, x.pi, 0.01) > x.J


@pytest.mark.parametrize("block", range(8))
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.0, 0.5), (1.0, np.inf)])
def test_clipped_surrogate_and_its_gradient(block: int, low: float, high: float) -> None:
    for seed in range(block, 60, 8):
        m, theta = trial(seed)
        rng, x = np.random.default_rng(seed), at(m, theta)
        after = theta + rng.choice([0.05, 0.3]) * rng.normal(size=theta.shape)
        new, d, A = policy(m, after), x.d, x.advantage
        scale = (d[:, None] * x.pi * abs(A)).sum()
        value = clip_surrogate(new, x.pi, d, A, low=low, high=high)
        assert abs(value - literal(m, new, x.pi, d, A, low, high)) <= 1e-12 * scale
        if high == np.inf:
            assert abs(value - (surrogate(m, new, x.pi) - x.J)) <= 1e-10 * (scale + abs(x.J))
        truth = derivative(partial(clipped_at, m, x, low, high), after)
        assert abs(clip_gradient(new, x.pi, d, A, low=low, high=high) - truth).max() <= 1e-11 * scale
        rho = np.divide(new, x.pi, out=np.ones_like(new), where=x.pi > 0)
        stopped = ((A > 0) & (rho > 1 + high)) | ((A < 0) & (rho < 1 - low))
        share = (d[:, None] * x.pi * stopped).sum() / d.sum()
        assert np.isclose(clip_fraction(new, x.pi, d, A, low=low, high=high), share, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("block", range(8))
def test_at_the_old_policy_the_gradient_is_that_of_J(block: int) -> None:
    for seed in range(block, 100, 8):
        m, theta = trial(seed)
        x = at(m, theta)
        g = policy_gradient(m, theta)
        noise = 1e-13 * x.d.max() * abs(x.Q).max()  # of the sum over a of pi(a|s) A(s,a), which is 0
        assert abs(clip_gradient(x.pi, x.pi, x.d, x.advantage) - g).max() <= 1e-9 * abs(g).max() + noise
        along_surrogate = derivative(partial(gained_at, m, x), theta)
        assert abs(along_surrogate - g).max() <= 1e-9 * abs(g).max() + noise
        n = visit_counts(m, x.pi, 9)
        usual = usual_gradient(m, theta, horizon=9)
        assert abs(clip_gradient(x.pi, x.pi, n, x.advantage) - usual).max() <= 1e-9 * abs(usual).max() + 9 * noise


def test_beyond_the_clip_the_gradient_is_zero() -> None:
    pi, d = np.full((3, 2), 0.5), np.ones(3)
    A = np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    new = np.array([[0.61, 0.39], [0.59, 0.41], [0.61, 0.39]])  # past both clips, short of both, against A
    g = clip_gradient(new, pi, d, A)
    assert (g[0] == 0).all() and not np.signbit(g[0]).any() and (g[1] != 0).all() and (g[2] != 0).all()
    assert clip_fraction(new, pi, d, A) == 1 / 3
    one = clip_gradient(np.array([[0.61, 0.39]]), pi[:1], d[:1], A[:1], low=0.5)  # only A > 0 is clipped
    assert np.allclose(one, 0.61 * 0.39 * np.array([[1.0, -1.0]]))
    moved = [along(literal_row, np.log(new[0]), v) for v in np.eye(2)]
    assert moved == [0.0, 0.0]


def literal_row(theta: Any) -> Any:
    """The clipped objective of one state with pi = (1/2, 1/2), A = (1, -1)."""
    rho = 2 * np.exp(theta) / np.exp(theta).sum()
    up = rho[0] if np.real(rho[0]) < 1.2 else 1.2
    down = rho[1] if np.real(rho[1]) > 0.8 else 0.8
    return 0.5 * (up - down)


def test_what_is_refused() -> None:
    m, new, pi = pair(5)
    assert m.gamma == 1
    for bound in LOWER:
        with pytest.raises(ModelError, match="gamma is 1; the bound needs gamma < 1"):
            bound(m, new, pi)
    with pytest.raises(ValueError, match="alpha is 2"):
        mixture_bound(m, new, pi, 2.0)
    with pytest.raises(ShapeError, match="d has shape"):
        clip_surrogate(new, pi, pi, pi)
    with pytest.raises(ShapeError, match="advantage has shape"):
        clip_gradient(new, pi, pi[:, 0], pi[0])
    with pytest.raises(ValueError, match="low"):
        clip_fraction(new, pi, pi[:, 0], pi, low=-1.0)
