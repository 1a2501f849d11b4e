"""Correction 10: one-step ratios and support; judged by occupancies, literal products, a killed model, and samples."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import dense_P, random_mdp
from paths import agree

from tabrl import MDP, chain, importance, sample, weights
from tabrl.errors import ModelError
from tabrl.lessons import correction_10 as lesson
from tabrl.off_policy import off_policy_monte_carlo
from tabrl.trace import last
from tabrl.types import Episode

EPISODES = 20_000


def proper(seed: int) -> tuple[MDP, Any, Any]:
    """A cyclic model that ends, started in one state, with rewards R(s,a); a target and a behaviour with support."""
    rng = np.random.default_rng([100, seed])
    mdp = random_mdp(rng, S=4, A=3, gamma=0.9, proper=True, masked=False, rewards="sa", sparse=False)
    mu = np.eye(4)[int(np.argmin(mdp.terminal))]
    mdp = MDP(mdp.P, mdp.R, mdp.gamma, mu=mu, terminal=mdp.terminal)
    pi, b = (rng.dirichlet(np.full(3, 3.0), 4) for _ in range(2))
    return mdp, pi, b


def recorded(mdp: MDP, b: Any, n: int, seed: int) -> list[Episode]:
    return list(islice(sample.episodes(mdp, b, np.random.default_rng([101, seed])), n))


@pytest.mark.parametrize("seed", range(20))
def test_exact_means_by_occupancies(seed: int) -> None:
    mdp, pi, b = proper(seed)
    d = chain.occupancy(chain.induce(mdp, b), mdp.mu)
    V = chain.evaluate(chain.induce(mdp, b))
    A = mdp.r + mdp.gamma * np.einsum("sax,x->sa", dense_P(mdp), V) - V[:, None]
    A[mdp.terminal] = 0.0
    J = chain.objective(chain.induce(mdp, pi), mdp.mu)
    L = mdp.mu @ V + d @ (pi * A).sum(axis=1)
    size = 1e-11 * (1 + mdp.R_max)
    assert lesson.exact(mdp, pi, b).mean == pytest.approx([J, J, d @ (pi * mdp.r).sum(axis=1), L], rel=1e-11, abs=size)


@pytest.mark.parametrize("seed", range(20))
def test_the_error_of_the_surrogate_is_a_change_of_occupancy(seed: int) -> None:
    """J(pi) - L = (d_pi - d_b) . (sum over a of pi A_b), the performance difference lemma; no error at pi = b."""
    mdp, pi, b = proper(seed)
    _, A = lesson.advantages(mdp, b)
    d_pi, d_b = (chain.occupancy(chain.induce(mdp, p), mdp.mu) for p in (pi, b))
    mean = lesson.exact(mdp, pi, b).mean
    size = 1e-10 * (1 + mdp.R_max)
    assert mean[0] - mean[3] == pytest.approx((d_pi - d_b) @ (pi * A).sum(axis=1), abs=size)
    same = lesson.exact(mdp, b, b)
    assert np.allclose(same.mean, same.mean[0], rtol=1e-12, atol=size)
    assert np.allclose(same.variance[:3], chain.return_variance(mdp, b)[mdp.mu.argmax()], rtol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_orders_of_the_biases_on_random_models(seed: int) -> None:
    """(1-theta) b + theta pi: both biases by halving theta; second differences of a smooth function are O(theta)."""
    mdp, pi, b = proper(seed)
    theta = 2.0 ** -np.arange(6, 12)
    means = np.array([lesson.exact(mdp, (1 - x) * b + x * pi, b).mean for x in theta])
    first, second = (means[:, k] - means[:, 0] for k in (2, 3))
    for bias, order in ((first / theta, 1), (second / theta**2, 2)):
        change = abs(np.diff(bias))
        assert (change[1:] <= 0.6 * change[:-1] + 1e-9 * (1 + mdp.R_max) * 4.0 ** (6 * (order - 1))).all()
    assert abs(second[-1]) <= 0.05 * abs(first[-1]) + 1e-9 * (1 + mdp.R_max)


def test_orders_in_the_corridor() -> None:
    assert lesson.orders(lesson.world(), lesson.behaviour()) == pytest.approx([1, 2], abs=5e-3)


@pytest.mark.parametrize("theta", np.linspace(0.05, 1, 20))
def test_the_bound_of_kakade_and_langford(theta: float) -> None:
    """|J - L| <= 2 eps gamma theta^2 / ((1-gamma)(1-gamma(1-theta))) for mixtures, eps = max |sum of pi_1 A_b|."""
    mdp, b = lesson.world(), lesson.behaviour()
    _, A = lesson.advantages(mdp, b)
    eps = abs((lesson.target(1.0) * A).sum(axis=1)).max()
    mean = lesson.exact(mdp, lesson.target(theta), b).mean
    assert abs(mean[0] - mean[3]) <= 2 * eps * 0.9 * theta**2 / (0.1 * (1 - 0.9 * (1 - theta)))


def test_on_rewards_the_one_step_estimate_moves_the_wrong_way() -> None:
    mdp, b = lesson.world(), lesson.behaviour()
    means = np.array([lesson.exact(mdp, lesson.target(x), b).mean for x in np.linspace(0, 1, 11)])
    assert (np.diff(means[:, 0]) > 0).all()
    assert (np.diff(means[:, 2]) < 0).all()
    assert (abs(means[1:, 3] - means[1:, 0]) < 0.2 * abs(means[1:, 2] - means[1:, 0])).all()


def test_variances_become_infinite_at_the_radii() -> None:
    """Rows of B add up to .9 (1 + theta^2): 1 at theta = 1/3; with gamma^2 at sqrt(1/.729 - 1) = .6097."""
    mdp, b = lesson.world(), lesson.behaviour()
    for theta in (0.1, 1 / 3 - 1e-6, 1 / 3 + 1e-6, 0.6, 0.6097, 0.61, 1.0):
        radii = importance.radii(mdp, lesson.target(theta), b)
        assert radii.trajectory == pytest.approx(0.9 * (1 + theta**2), rel=1e-12)
        assert radii.per_decision == pytest.approx(0.729 * (1 + theta**2), rel=1e-12)
        variance = lesson.exact(mdp, lesson.target(theta), b).variance
        assert np.isinf(variance[0]) == (theta > 1 / 3)
        assert np.isinf(variance[1]) == (theta > 0.6098)
        assert (variance[2:] < 25).all()


def test_variances_over_horizons() -> None:
    """The product grows at the rate of the radius, the others settle at the variance of whole episodes."""
    mdp, b, pi = lesson.world(), lesson.behaviour(), lesson.target(0.5)
    found = lesson.horizons(mdp, pi, b, 400)
    assert found[0, 0] == pytest.approx(found[0, 1], rel=1e-12)
    assert found[-1, 0] / found[-2, 0] == pytest.approx(1.125, rel=1e-6)
    assert np.allclose(found[-1, 1:], lesson.exact(mdp, pi, b).variance[1:], rtol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_estimates_of_recorded_episodes_by_literal_products(seed: int) -> None:
    mdp, pi, b = proper(seed)
    V, A = lesson.advantages(mdp, b)
    for x in recorded(mdp, b, 3, seed):
        product, G, decided, rewards, surrogate, so_far = 1.0, 0.0, 0.0, 0.0, V[x.s[0]], 1.0
        for t in range(len(x.r)):
            rho = pi[x.s[t], x.a[t]] / b[x.s[t], x.a[t]]
            product *= rho
            G += so_far * x.r[t]
            decided += so_far * product * x.r[t]
            rewards += so_far * rho * x.r[t]
            surrogate += so_far * rho * A[x.s[t], x.a[t]]
            so_far *= mdp.gamma
        want = np.array([product * G, decided, rewards, surrogate])
        assert lesson.estimates(x, pi, V, A) == pytest.approx(want, rel=1e-12, abs=1e-12 * (1 + mdp.R_max))


def test_sampled_estimates_have_the_exact_moments() -> None:
    """Means of all four, variances of the two bounded ones, at |z| <= 6.8 (see `paths`)."""
    mdp, b, pi = lesson.world(), lesson.behaviour(), lesson.target(0.1)
    V, A = lesson.advantages(mdp, b)
    X = np.array([lesson.estimates(x, pi, V, A) for x in recorded(mdp, b, EPISODES, 40)])
    exact = lesson.exact(mdp, pi, b)
    agree(X, exact.mean)
    agree((X[:, 2:] - exact.mean[2:]) ** 2, exact.variance[2:])


def without_support(seed: int) -> tuple[MDP, Any, Any]:
    """As `proper`, with one action of the start that b never takes."""
    mdp, pi, b = proper(seed)
    s = int(mdp.mu.argmax())
    b[s, seed % 3] = 0.0
    b[s] /= b[s].sum()
    return mdp, pi, b


@pytest.mark.parametrize("seed", range(20))
def test_without_support_by_a_model_that_is_killed(seed: int) -> None:
    """Actions that b never takes end the episode, unpaid: the per-decision mean; then the chance that none is taken."""
    mdp, pi, b = without_support(seed)
    end = int(np.argmax(mdp.terminal))
    P, R = dense_P(mdp).copy(), np.array(mdp.R)
    killed = (b == 0) & ~mdp.terminal[:, None]
    P[killed], R[killed] = np.eye(4)[end], 0.0
    found = lesson.silent(mdp, pi, b)
    value = chain.objective(chain.induce(MDP(P, R, mdp.gamma, mu=mdp.mu, terminal=mdp.terminal), pi), mdp.mu)
    assert found.per_decision == pytest.approx(value, rel=1e-10, abs=1e-10 * mdp.R_max)
    count = MDP(P, killed * 1.0, 1.0, mu=mdp.mu, terminal=mdp.terminal)
    assert found.weight == pytest.approx(1 - chain.objective(chain.induce(count, pi), mdp.mu), rel=1e-10)
    assert chain.objective(chain.induce(mdp, pi), mdp.mu) == found.J


@pytest.mark.parametrize("seed", range(10))
def test_with_support_everything_settles_at_the_truth(seed: int) -> None:
    mdp, pi, b = proper(seed)
    x = lesson.silent(mdp, pi, b)
    assert x == pytest.approx((x.J, x.J, x.J, 1.0), rel=1e-10, abs=1e-10 * mdp.R_max)


def test_without_support_samples_settle_where_they_should() -> None:
    """Per-decision, W and W G from 20,000 recorded episodes, at |z| <= 6.8; none of them raises."""
    mdp, b, pi = lesson.world(), lesson.timid(), lesson.target(0.5)
    exact = lesson.silent(mdp, pi, b)
    episodes = recorded(mdp, b, EPISODES, 41)
    rows = np.array([lesson.overlooked([x], pi)[:, 0] for x in episodes])
    agree(rows[:, 0], exact.per_decision)
    agree(rows[:, 2], exact.weight)
    agree(rows[:, 1] * rows[:, 2], exact.weighted * exact.weight)
    assert abs(rows[:, 2].mean() - 1) > 0.7
    learnt = last(off_policy_monte_carlo(episodes, pi=pi, V=np.zeros(5), every=EPISODES)).V
    assert np.isfinite(learnt).all()
    assert abs(learnt[0] - exact.J) > 6


def test_missing_support_is_refused_where_it_can_be_seen() -> None:
    mdp, pi, b = lesson.world(), lesson.target(0.5), lesson.timid()
    for check in (importance.per_decision, importance.trajectory, importance.radii):
        with pytest.raises(ModelError, match=r"b\[s=1, a=1\] is 0 where pi\[s=1, a=1\] is 0.75; the behaviour policy"):
            check(mdp, pi, b)
    with pytest.raises(ValueError, match=r"logp_b\[0\] is -inf; an action that was taken has a positive probability"):
        weights.ratios(np.log([0.75]), np.array([-np.inf]))


def test_running_estimates() -> None:
    pi = lesson.target(0.5)
    episodes = recorded(lesson.world(), lesson.timid(), 30, 42)
    found = lesson.overlooked(episodes, pi)
    for n in (1, 10, 30):
        W = np.array([lesson.rho_of(x, pi).prod() for x in episodes[:n]])
        G = np.array([sum(0.9**t * r for t, r in enumerate(x.r)) for x in episodes[:n]])
        assert found[2, n - 1] == pytest.approx(W.mean(), rel=1e-12)
        assert found[1, n - 1] == pytest.approx(W @ G / W.sum(), rel=1e-12, abs=1e-15)


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure

    few = lesson.experiment(runs=3, episodes=20)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert all(text.count(f"    {kind} ") == len(lesson.THETAS) for kind in lesson.KINDS)
    assert text.count("| inf: ± 2 se means nothing here") == 4 + 2
    assert "order 1.00 on rewards, 2.00 on advantages" in text
    assert "it is refused: b[s=1, a=1] is 0" in text
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    means, biases, variances, horizons, silent, weight = fig.axes
    assert len(means.containers) == len(variances.containers) == len(lesson.KINDS)
    assert len(biases.get_lines()) == 4
    assert len(horizons.get_lines()) == 5
    settled = {float(np.asarray(x.get_ydata())[0]) for x in silent.get_lines() if x.get_linestyle() == "--"}
    assert settled == set(lesson.silent(lesson.world(), lesson.target(0.5), lesson.timid())[1:3])
    assert "settles at 0.188, exact" in [x.get_text() for x in weight.get_legend().get_texts()]  # type: ignore[union-attr]
