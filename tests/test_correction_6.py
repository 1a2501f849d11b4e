"""Correction 6: the mean of the TD error vanishes, the error does not; judged by loops, recursions and samples."""

from typing import Any

import numpy as np
import pytest
from models import dense_P, dense_R, random_mdp, random_policy
from paths import agree, move, second

from tabrl import MDP, chain
from tabrl.lessons import correction_6 as lesson
from tabrl.schedules import power
from tabrl.td_limits import independent_limit, trajectory_limit

RUNS = 2000


def cyclic(seed: int, **fixed: Any) -> tuple[MDP, Any]:
    """A cyclic model with rewards R(s,a,s'), masked actions and terminal states, and a policy."""
    rng = np.random.default_rng([60, seed])
    mdp = random_mdp(rng, gamma=0.9, masked=True, rewards="sas", **fixed)
    return mdp, random_policy(rng, mdp)


def listed(mdp: MDP, pi: Any, V: Any, s: int) -> tuple[float, float]:
    """Mean and variance of delta in state s, action by action and successor by successor."""
    P, R = dense_P(mdp), dense_R(mdp)
    found = [
        (pi[s, a] * P[s, a, x], R[s, a, x] + mdp.gamma * (0.0 if mdp.terminal[x] else V[x]) - V[s])
        for a in range(mdp.A)
        for x in range(mdp.S)
    ]
    mean = sum(p * delta for p, delta in found)
    return mean, sum(p * (delta - mean) ** 2 for p, delta in found)


@pytest.mark.parametrize("seed", range(20))
def test_moments_of_delta_by_listing_every_step(seed: int) -> None:
    mdp, pi = cyclic(seed)
    V = np.where(mdp.terminal, 0.0, np.random.default_rng(seed).normal(size=mdp.S))
    got = lesson.delta_moments(mdp, pi, V)
    for s in np.flatnonzero(~mdp.terminal).tolist():
        mean, variance = listed(mdp, pi, V, s)
        assert got.mean[s] == pytest.approx(mean, abs=1e-11 * mdp.R_max)
        assert got.variance[s] == pytest.approx(variance, rel=1e-11, abs=1e-20)
    assert not got.mean[mdp.terminal].any()
    assert not got.variance[mdp.terminal].any()


@pytest.mark.parametrize("seed", range(20))
def test_at_the_exact_values_the_mean_is_none_and_the_variance_is_that_of_the_return(seed: int) -> None:
    """E[delta | s] = 0, and Sobel: Var[G] = variance + gamma^2 P Var[G]."""
    mdp, pi = cyclic(seed)
    induced = chain.induce(mdp, pi)
    V = chain.evaluate(induced)
    at = lesson.delta_moments(mdp, pi, V)
    size = 1 + mdp.R_max + abs(V).max()
    assert abs(at.mean).max() <= 1e-13 * size
    assert abs(lesson.delta_moments(mdp, pi, 2 * V).mean).max() > 1e-3 * abs(V).max() or not V.any()
    P = induced.P.toarray() if mdp.is_sparse else induced.P
    G = chain.return_variance(mdp, pi)
    assert np.allclose(G - mdp.gamma**2 * P @ G, at.variance, rtol=1e-10, atol=1e-12 * size**2)


def test_sampled_errors_at_the_exact_values_have_the_exact_moments() -> None:
    """100,000 steps in every state, at |z| <= 6.8 (see `paths`)."""
    mdp, pi = cyclic(3, S=4, A=3, terminal=True)
    V = chain.evaluate(chain.induce(mdp, pi))
    exact = lesson.delta_moments(mdp, pi, V)
    for s in np.flatnonzero(~mdp.terminal).tolist():
        _, R, x = move(np.random.default_rng([61, s]), mdp, pi, np.full(100_000, s))
        delta = R + mdp.gamma * np.where(mdp.terminal[x], 0.0, V[x]) - V[s]
        agree(delta, 0.0)
        agree(delta**2, exact.variance[s])


def weighted_recursion(mdp: MDP, pi: Any, d: Any, scale: float, T: int) -> Any:
    """t Cov[V_t] when the step size in state s is scale / (d(s) t): the second moment of the error, step by step.

    E(s) moves by scale / (d(s) t) (delta - (H E)(s)) when s is drawn from d; the variance of delta given E is that at
    V_pi and what the errors of the successors add.
    """
    induced = chain.induce(mdp, pi)
    variance = lesson.delta_moments(mdp, pi, chain.evaluate(induced)).variance
    H, C = np.eye(mdp.S) - mdp.gamma * induced.P, np.zeros((mdp.S, mdp.S))
    first = 1 + int(scale / d.min())
    for t in range(first, T):
        new = np.zeros_like(C)
        for s in range(mdp.S):
            M = np.eye(mdp.S)
            M[s] -= scale / (d[s] * t) * H[s]
            new += d[s] * (M @ C @ M.T)
            new[s, s] += d[s] * (scale / (d[s] * t)) ** 2 * (variance[s] + spread(mdp, induced.P, C, s))
        C = new
    return T * C


def spread(mdp: MDP, P: Any, C: Any, s: int) -> float:
    """What the error of V adds to the variance of delta: gamma^2 (E[E(s')^2] - E[(P E)(s)^2])."""
    return float(mdp.gamma**2 * (P[s] @ C.diagonal() - P[s] @ C @ P[s]))


@pytest.mark.parametrize("scale", [8.0, 10.0, 20.0])
def test_the_factor_of_robbins_monro_steps_is_the_limit_of_a_recursion(scale: float) -> None:
    """t C_t at 1,000 and 2,000 and 4,000 updates: its distance to the closed form shrinks, to below 5 %."""
    mdp = lesson.world()
    pi = lesson.only(mdp)
    want = lesson.robbins_monro_covariance(mdp, pi, scale)
    d = np.array([2, 1]) / 3
    far = [abs(weighted_recursion(mdp, pi, d, scale, T) - want).max() / abs(want).max() for T in (1000, 2000, 4000)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.05


def test_robbins_monro_steps_reach_the_exact_values_at_the_exact_rate() -> None:
    """500 runs of 20,000 updates: t times the mean-square error, within 3 % of its limit and sampling error."""
    mdp = lesson.world()
    pi, T = lesson.only(mdp), 20_000
    V = chain.evaluate(chain.induce(mdp, pi))
    drawn = lesson.trajectories(mdp, T, 500, 62)
    error = lesson.values(mdp, drawn, power(10.0, 1.0), T)[:, -1] - V
    square = T * (error**2).sum(axis=1)
    limit = np.trace(lesson.robbins_monro_covariance(mdp, pi, 10.0))
    assert abs(square.mean() - limit) < 0.03 * limit + 4.5 * square.std() / np.sqrt(len(square))
    agree(error.mean(axis=1) / error.std(), 0.0)


def test_curves_of_the_error() -> None:
    """200 runs: mean-square errors are those of the exact lines, at |z| <= 6.8; lines end at their limits."""
    mdp = lesson.world()
    found = lesson.curves(mdp, steps=4000, runs=200, seed=65)
    for c, alpha in zip(found, lesson.CONSTANT, strict=False):
        agree(c.sampled[:, [0, 4, -1]], c.exact[[0, 4, -1]])
        limit = trajectory_limit(mdp, lesson.only(mdp), alpha=alpha)
        V = chain.evaluate(chain.induce(mdp, lesson.only(mdp)))
        want = np.mean((limit.mean - V) ** 2 + np.diag(limit.covariance))
        assert np.allclose(c.limit, want, rtol=1e-12)
        assert c.exact[-1] == pytest.approx(want, rel=1e-3)
    falling, error = found[2].limit, found[2].sampled[:, -1]
    C = lesson.robbins_monro_covariance(mdp, lesson.only(mdp), 10.0)
    assert np.allclose(falling * found[2].t, np.mean(np.diag(C)))
    assert abs(error.mean() - falling[-1]) < 0.2 * falling[-1] + 4.5 * error.std() / np.sqrt(len(error))


def test_too_small_a_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale is 5; a larger one is expected"):
        lesson.robbins_monro_covariance(lesson.world(), lesson.only(lesson.world()), 5.0)


@pytest.mark.parametrize("limit", [None, 1])
def test_constant_steps_leave_the_exact_noise(limit: int | None) -> None:
    """Final values of 2,000 runs against the stationary mean and covariance, at |z| <= 6.8 (see `paths`)."""
    mdp = lesson.world()
    pi = lesson.only(mdp)
    drawn = lesson.trajectories(mdp, 1500, RUNS, 63, limit)
    V = lesson.values(mdp, drawn, 0.4, 1500)[:, -1]
    exact = trajectory_limit(mdp, pi, alpha=0.4) if limit is None else independent_limit(mdp, pi, alpha=0.4, d=mdp.mu)
    agree(V, exact.mean)
    agree(second(V, exact.mean), exact.covariance)


def test_the_bias_is_of_order_alpha_along_a_trajectory_and_none_for_independent_states() -> None:
    """The example of the ledger, 7.404 against 7.568; a bias over alpha that settles as alpha goes to 0."""
    mdp = lesson.world()
    V = chain.evaluate(chain.induce(mdp, lesson.only(mdp)))[0]
    alphas = [0.4, 0.02, 0.01, 0.005]
    bias = lesson.exact_biases(mdp, alphas)
    assert V + bias["along a trajectory"][0] == pytest.approx(7.404, abs=5e-4)
    assert pytest.approx(7.568, abs=5e-4) == V
    assert abs(bias["independent states"]).max() < 1e-12
    slope = bias["along a trajectory"] / alphas
    assert abs(slope[3] - slope[2]) < 0.6 * abs(slope[2] - slope[1])
    assert slope[3] < -0.3


def test_a_bounded_v_alone_makes_the_mean_of_delta_vanish() -> None:
    """At constant alpha the deltas of a state add up to (V_T - V_0) / alpha, whatever V is worth."""
    mdp, alpha, T = lesson.world(), 0.4, 3000
    x = lesson.deltas(mdp, alpha, steps=T, runs=3)
    V = lesson.values(mdp, lesson.trajectories(mdp, T, 3, lesson.SEED), alpha, T)[:, -1]
    for s in range(mdp.S):
        total = np.where(x.s == s, x.delta, 0.0).sum(axis=1)
        assert np.allclose(total, V[:, s] / alpha, rtol=1e-9)


def test_windows_are_sums_over_mean_visits() -> None:
    x = lesson.Deltas(np.array([[0, 1, 0, 0], [1, 1, 0, 1]]), np.array([[1.0, 9, 2, 3], [9, 9, 5, 9]]))
    edges = np.array([0, 2, 4])
    assert lesson.windows(x, 0, edges, 1).tolist() == [[2.0, 5 / 1.5], [0.0, 5 / 1.5]]
    assert lesson.windows(x, 0, edges, 2).tolist() == [[2.0, 13 / 1.5], [0.0, 25 / 1.5]]


def test_late_windows_of_the_learner() -> None:
    """Mean of delta near 0 and of delta^2 near the variance at V_pi, within 5 standard errors and 5 %, in 100 runs."""
    mdp = lesson.world()
    exact = lesson.delta_moments(mdp, lesson.only(mdp), chain.evaluate(chain.induce(mdp, lesson.only(mdp))))
    x = lesson.deltas(mdp, power(10.0, 1.0), steps=4000, runs=100, seed=64)
    for s in range(mdp.S):
        for degree, want in ((1, 0.0), (2, exact.variance[s])):
            y = lesson.windows(x, s, np.array([3000, 4000]), degree)
            assert abs(y.mean() - want) < 5 * y.std() / np.sqrt(len(y)) + 0.05 * want


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    mdp = lesson.world()
    few = lesson.experiment(mdp, runs=4)
    monkeypatch.setattr(lesson, "experiment", lambda *_: few)
    lesson.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert sum("exact at V_pi: 0, 0.5325" in line for line in lines) == 2
    assert "7.404" in lines[-2] and "α = 0.4: 7.568" in lines[-1]
    fig = new_figure(12, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    delta, means, errors, bias = fig.axes
    levels = sorted(round(float(np.asarray(x.get_ydata())[0]), 3) for x in delta.get_lines() if x.get_linewidth() == 1)
    assert levels == [-2.189, -0.486, 0.243, 1.946]  # 1 or 0, + .9 V(s') - V(s), V = (280, 180) / 37
    assert len(means.containers) == 4
    assert [x.get_label() for x in errors.containers] == ["α = 0.4", "α = 0.05", "α = 10/k"]
    assert len(bias.containers) == 2
