"""The figures of policy gradients: against literal loops, closed forms and exact moments.

Means of samples are compared with exact numbers at |z| <= 6.8 (see `paths`).
"""

from dataclasses import replace
from itertools import islice, takewhile
from typing import Any

import numpy as np
import pytest
from models import random_mdp
from paths import agree

from tabrl import MDP, chain, dp, envs, plots
from tabrl.errors import ModelError
from tabrl.figures import gallery
from tabrl.figures.ascent import climb, eight_by_eight, falling, grid_methods, held, lake_methods
from tabrl.figures.estimators import baselines, episode_gradients, gae, parabola
from tabrl.figures.policy_gallery import POLICIES, STARTS, shortfall, slippery
from tabrl.figures.simplex import bandit, exact_paths, sampled_paths
from tabrl.gradient import objective, policy_gradient
from tabrl.plots import policies as drawing
from tabrl.plots.grid import INK
from tabrl.policy import softmax
from tabrl.policy_gradients import reinforce
from tabrl.ppo import ppo
from tabrl.rollout import Actor
from tabrl.types import PGStep

TRACES = range(20)


def model(seed: int, *, proper: bool = True) -> MDP:
    """A random cyclic model (self-loops, terminal states, masked actions) with one start state."""
    rng = np.random.default_rng([70, seed])
    size: dict[str, Any] = {"S": int(rng.integers(3, 6)), "A": int(rng.integers(2, 4))}
    mdp = random_mdp(rng, **size, gamma=float(rng.choice([0.8, 0.95])), proper=proper, masked=seed % 2 == 0)
    start = np.zeros(mdp.S)
    start[np.flatnonzero(~mdp.terminal)[0]] = 1.0
    return replace(mdp, mu=start, R=mdp.R / mdp.R_max)


def preferences(mdp: MDP, seed: int) -> Any:
    return np.random.default_rng([71, seed]).normal(size=(mdp.S, mdp.A))


def values(mdp: MDP, theta: Any) -> Any:
    return chain.evaluate(chain.induce(mdp, softmax(theta, mdp.legal)))


# ---- J of the policies ----


def record(t: int) -> PGStep:
    return PGStep(t, t, np.zeros((1, 1)), np.zeros(1), float(t), 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", TRACES)
def test_held_is_the_last_record_that_had_seen_no_more(seed: int) -> None:
    rng = np.random.default_rng([72, seed])
    seen = np.cumsum(rng.integers(1, 9, size=60))
    t = np.sort(rng.integers(0, 60, size=15)).astype(float)
    found = held((record(int(n)) for n in seen), t)
    assert [None if x is None else x.t for x in found] == [max((n for n in seen if n <= y), default=None) for y in t]


@pytest.mark.parametrize("seed", range(4))
def test_climb_is_the_exact_J_of_the_learners_run_by_run(seed: int) -> None:
    mdp, t = model(seed), np.array([0.0, 30, 31, 60, 299])
    methods: Any = {
        "PPO": lambda m, rng: ppo(m, rng, steps=30, limit=9),
        "REINFORCE": lambda m, rng: reinforce(m, rng, step=0.1, limit=9),
    }
    x = climb(mdp, methods, np.random.default_rng(seed), t=t, runs=3)
    assert x.labels == ("PPO", "REINFORCE") and x.J.shape == x.kl.shape == x.clip.shape == (2, 5, 3)
    rng = np.random.default_rng(seed)
    for i, method in enumerate(methods.values()):
        for run, own in enumerate(rng.spawn(3)):
            records = list(takewhile(lambda y: y.t <= t[-1], method(mdp, own)))
            for k, n in enumerate(t):
                last = [y for y in records if y.t <= n][-1:]
                theta = last[0].theta if last else np.zeros((mdp.S, mdp.A))
                np.testing.assert_allclose(x.J[i, k, run], mdp.mu @ values(mdp, theta), rtol=1e-12, atol=1e-12)
                assert x.kl[i, k, run] == (last[0].kl if last else 0)
                assert x.clip[i, k, run] == (last[0].clip_fraction if last else 0)
    assert x.first == x.J[0, 0, 0] and (x.best + 1e-9 >= x.J).all()
    assert (shortfall(x) >= 1e-3).all()


def test_methods_reach_the_optimum_of_the_grid_but_for_the_plain_ones() -> None:
    """64,000 transitions: exact J within 1 % of J*; plain REINFORCE is far off, or walks into a wall at once."""
    x = climb(eight_by_eight(), grid_methods(), np.random.default_rng(0), t=np.array([12_000.0, 64_000.0]), runs=2)
    fast, slow, *others = shortfall(x)
    assert len(others) == 5 and (np.array(others)[:, 1] < 1).all()
    assert (slow[1] > 20).all() and (fast[0] > 600).all()
    assert abs(x.best + (1 - 0.99**14) / 0.01) < 1e-6  # 14 steps


def test_settings_for_the_lake_are_those_they_say() -> None:
    lake = envs.make("frozen-lake", gamma=0.99)
    usual, tuned = lake_methods(10).values()
    options: dict[str, Any] = {"steps": 4096, "lam": 0.8, "V": 1.0, "every": 4}
    anneal = lambda k: 0.05 + (0.0 - 0.05) * np.minimum(k / 10, 1.0)  # noqa: E731
    for method, own in ((usual, {"lam": 0.95, "V": 0.0, "entropy": 0.0}), (tuned, {"entropy": anneal})):
        x, y = next(method(lake, np.random.default_rng(1))), next(ppo(lake, np.random.default_rng(1), **options | own))
        np.testing.assert_allclose(x.theta, y.theta, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="updates is 0; "):
        falling(1.0, 0)


# ---- advantages and gradients ----


@pytest.mark.parametrize("seed", TRACES)
def test_episode_gradients_are_the_literal_sums(seed: int) -> None:
    """On self-loops, terminal ends, time limits and masked actions."""
    mdp, rng = model(seed, proper=seed % 3 > 0), np.random.default_rng([73, seed])
    pi = softmax(preferences(mdp, seed), mdp.legal)
    x = Actor(mdp, rng, limit=int(rng.integers(1, 9))).episodes(pi, 5)
    c = rng.normal(size=len(x.s))
    found = episode_gradients(x, c, pi, mdp.gamma)
    literal = np.zeros((5, mdp.S, mdp.A))
    episode, factor = 0, 1.0
    for s, a, last, weight in zip(x.s, x.a, x.last, c, strict=True):
        for b in range(mdp.A):
            literal[episode, s, b] += factor * weight * ((a == b) - pi[s, b])
        episode, factor = (episode + 1, 1.0) if last else (episode, factor * mdp.gamma)
    np.testing.assert_allclose(found, literal, rtol=0, atol=1e-12 * (1 + abs(literal).max()))


@pytest.mark.parametrize("seed", range(6))
def test_gae_samples_lie_on_the_exact_curves(seed: int) -> None:
    """8,000 episodes: mean and mean square of what the figure draws, at every lambda it draws."""
    mdp, theta = model(seed), preferences(model(seed), seed)
    V = values(mdp, theta) + np.random.default_rng(seed).normal(size=mdp.S)
    shown = np.array([0.0, 0.5, 0.9, 1.0])
    x = gae(mdp, theta, V, np.random.default_rng([74, seed]), lam=shown, shown=shown, runs=8000)
    for a in np.unique(x.action):
        error = x.error[:, x.action == a].T
        agree(error, x.bias[:, a])
        agree((error - x.bias[:, a]) ** 2, x.std[:, a] ** 2)
    agree(x.gradient_error.T, x.gradient_bias)
    agree(x.gradient_square.T, x.gradient_std**2)


@pytest.mark.parametrize("seed", TRACES)
def test_ends_of_the_gae_curves(seed: int) -> None:
    """lambda = 0: gamma P e - e(s). lambda = 1: -e(s) whatever the action, and no bias of the gradient."""
    mdp, theta = model(seed), preferences(model(seed), seed)
    e = np.where(mdp.terminal, 0.0, np.random.default_rng(seed).normal(size=mdp.S))
    x = gae(mdp, theta, values(mdp, theta) + e, np.random.default_rng(seed), lam=np.array([0.0, 1.0]), runs=2)
    s = int(mdp.mu.argmax())
    legal = mdp.legal[s]
    ahead = mdp.gamma * (mdp.rows @ e).reshape(mdp.S, mdp.A)[s]
    np.testing.assert_allclose(x.bias[:, legal], [(ahead - e[s])[legal], np.full(legal.sum(), -e[s])], atol=1e-10)
    assert x.gradient_bias[1] < 1e-10 and (x.gradient_std >= 0).all()


def test_variance_over_the_baseline() -> None:
    """One state, left with probability .8 or so: a parabola through the marked points, least at the last of them."""
    wait = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1], mu=[1, 0])
    theta = np.array([[0.0, np.log(4.0)], [0.0, 0.0]])
    x = parabola(wait, theta, np.random.default_rng(0), runs=20_000)
    none, V, best = x.marks
    assert none == 0 and abs(V - values(wait, theta)[0]) < 1e-12
    fit = np.polynomial.Polynomial.fit(x.b, x.total, 2)
    np.testing.assert_allclose(fit(x.b), x.total, atol=1e-9)
    assert abs(fit.deriv().roots()[0] - best) < 1e-6
    agree(x.square.T, fit(x.marks))
    even = parabola(wait, np.zeros((2, 2)), np.random.default_rng(0), b=np.array([0.0, 1.0, -1.0]), runs=2)
    np.testing.assert_allclose(even.total, [3, 6, 2], atol=1e-9)
    with pytest.raises(ModelError, match="model has 15 states that are not terminal; one is expected"):
        parabola(slippery(), np.zeros((16, 4)), np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(6))
def test_variance_of_the_four_baselines(seed: int) -> None:
    """Samples agree; the best of all is no worse than any; the best constant no worse than 0 and constants near it."""
    mdp = model(seed)
    x = baselines(mdp, np.random.default_rng([75, seed]), eta=0.5, updates=6, shown=(0, 6), runs=5000)
    assert x.total.shape == (4, 7) and x.square.shape == (4, 2, 5000)
    for several, total in zip(x.square, x.total, strict=True):
        agree(several.T, total[[0, 6]])
    slack = 1e-10 * (1 + x.total)
    assert (x.total[3] <= x.total + slack).all() and (x.total[1] <= x.total[0] + slack[0]).all()
    assert (np.diff(x.J) >= -1e-12).all() and x.J[-1] <= x.best + 1e-9
    assert abs(x.J[0] - objective(mdp, np.zeros((mdp.S, mdp.A)))) < 1e-12


def test_bad_input_is_named() -> None:
    mdp, rng = model(0), np.random.default_rng(0)
    many = replace(mdp, mu=np.where(mdp.terminal, 0.0, 1.0) / (~mdp.terminal).sum())
    theta, V = np.zeros((mdp.S, mdp.A)), np.zeros(mdp.S)
    with pytest.raises(ModelError, match="one start state is expected"):
        gae(many, theta, V, rng)
    with pytest.raises(ValueError, match="runs is 0; "):
        gae(mdp, theta, V, rng, runs=0)
    with pytest.raises(ValueError, match="runs is 0; "):
        climb(mdp, {}, rng, t=np.ones(1), runs=0)
    with pytest.raises(ValueError, match="runs is 0; "):
        sampled_paths(bandit(), np.zeros(3), rng, runs=0)
    with pytest.raises(ValueError, match="every is 0; "):
        sampled_paths(bandit(), np.zeros(3), rng, every=0)
    with pytest.raises(ValueError, match="success is 2; "):
        bandit(2)


# ---- the simplex ----


def test_the_bandit_is_worth_what_its_arms_pay() -> None:
    mdp = bandit()
    for seed in TRACES:
        theta = preferences(mdp, seed)
        assert abs(objective(mdp, theta) - softmax(theta)[0] @ [0.8, 0.5, 0.1]) < 1e-12


def test_exact_paths() -> None:
    """Natural gradient: pi_k ~ pi_0 exp(k eta success). Gradient: theta += eta pi (success - J), step by step."""
    mdp, p = bandit(), np.array([0.8, 0.5, 0.1])
    x = exact_paths(mdp, STARTS, eta=0.4, updates=50)
    for start, natural, gradient in zip(STARTS, x.natural, x.gradient, strict=True):
        closed = np.array([softmax(start + 0.4 * k * p) for k in range(51)])
        np.testing.assert_allclose(natural, closed, atol=1e-10)
        theta = start.copy()
        for pi in gradient:
            own = softmax(theta)
            np.testing.assert_allclose(pi, own, atol=1e-10)
            theta += 0.4 * own * (p - own @ p)


def test_sampled_paths_are_the_learners_run_by_run() -> None:
    mdp = bandit()
    x = sampled_paths(mdp, STARTS[0], np.random.default_rng(3), updates=9, batch=5, every=2, runs=2)
    assert x.k.tolist() == [0, 2, 4, 6, 8] and x.gradient.shape == (10, 3)
    start, rng = np.zeros((3, 3)), np.random.default_rng(3)
    start[0] = STARTS[0]
    learners: list[Any] = [
        lambda own: reinforce(mdp, own, step=0.4, episodes=5, theta=start),
        lambda own: ppo(mdp, own, steps=5, minibatches=1, theta=start),
    ]
    for i, learner in enumerate(learners):
        for run, own in enumerate(rng.spawn(2)):
            records: Any = list(islice(learner(own), 8))
            expected = [softmax(theta)[0] for theta in [start, *(y.theta for y in records[1::2])]]
            np.testing.assert_allclose(x.pi[i, run], expected, atol=1e-12)


def test_reinforce_goes_uphill_in_the_mean() -> None:
    """One update of 800 runs: theta moves by eta grad J in the mean (rows of theta keep their sum)."""
    mdp, start = bandit(), np.zeros((3, 3))
    x = sampled_paths(mdp, start[0], np.random.default_rng(4), updates=1, batch=2, every=1, runs=800)
    theta = np.log(x.pi[0, :, 1])
    agree(theta - theta.mean(axis=1, keepdims=True), 0.4 * policy_gradient(mdp, start)[0])


# ---- drawing ----

SMALL = {"policy-gradients": 2, "gae": 200, "baselines": 100, "simplex": 2, "frozen-lake-ppo": 2}


@pytest.mark.parametrize("name", ["gae", "baselines", "simplex"])
def test_gallery(name: str) -> None:
    """Axes with names, a legend, and an image."""
    figure = gallery.FIGURES[name].draw(np.random.default_rng(0), SMALL[name])
    for ax in figure.axes:
        assert not ax.axison or (ax.get_xlabel() and ax.get_ylabel())
    assert any(ax.get_legend() is not None for ax in figure.axes)
    assert any(line.get_color() == INK for ax in figure.axes for line in ax.lines)
    assert plots.image(figure, dpi=40)[:4] == b"\x89PNG"


def test_gallery_of_learners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact lines at their heights, every run drawn, failing ones counted, on a small budget."""
    figure = POLICIES["policy-gradients"].draw(np.random.default_rng(0), 2)
    left, right = figure.axes
    flat = [float(y[0]) for line in left.lines if line.get_color() == INK for y in [np.asarray(line.get_ydata())]]
    best, uniform = (objective(eight_by_eight(), np.zeros((64, 4))), float(dp.solve(eight_by_eight()).V[0]))[::-1]
    np.testing.assert_allclose(flat, [best, uniform, -100])
    assert [float(np.asarray(line.get_ydata())[0]) for line in right.lines if line.get_color() == INK] == [1]
    thin = [line for line in left.lines if line.get_linewidth() < 1]
    assert len(thin) == 7 * 2 and right.get_legend() is not None
    monkeypatch.setattr("tabrl.figures.policy_gallery.UPDATES", 8)
    figure = POLICIES["frozen-lake-ppo"].draw(np.random.default_rng(0), 2)
    titles = [ax.get_title() for ax in figure.axes]
    assert "more than 1 % below J* at the end: usual 2, other 2 of 2 runs" in titles
    assert plots.image(figure, dpi=40)[:4] == b"\x89PNG"


def test_gallery_lists_the_figures() -> None:
    assert set(POLICIES) == set(SMALL) and set(POLICIES) <= set(gallery.FIGURES)
    assert all(x.runs >= 8 and "\n" not in x.summary for x in POLICIES.values())


@pytest.mark.parametrize("seed", TRACES)
def test_contours_of_the_simplex(seed: int) -> None:
    """Both ends of a line lie on edges and have J = value . pi; all tenths between the corners are there."""
    value = np.random.default_rng([76, seed]).uniform(-0.5, 1.2, size=3)
    ax = plots.new_figure().add_subplot()
    drawing.simplex(ax, value, "abc")
    lines = [line for line in ax.lines if len(np.asarray(line.get_xdata())) == 2]
    to_pi = np.linalg.inv(np.vstack([drawing.CORNERS.T, np.ones(3)]))
    levels = []
    for line in lines:
        ends = np.vstack([*np.asarray(line.get_data(), float), np.ones(2)])
        pi = to_pi @ ends
        assert (pi > -1e-9).all() and (pi.min(axis=0) < 1e-9).all()
        np.testing.assert_allclose(value @ pi, (value @ pi)[0], atol=1e-9)
        levels.append(10 * float((value @ pi)[0]))
    expected = np.arange(np.ceil(10 * value.min()), np.floor(10 * value.max()) + 1)
    np.testing.assert_allclose(levels, expected, atol=1e-6)


def test_sampled_points_and_many_runs() -> None:
    ax = plots.new_figure().add_subplot()
    samples = np.array([[1.0, 3.0, np.nan], [4.0, 4.0, 4.0]])
    drawing.sampled_points(ax, np.array([0.0, 1.0]), samples, 0, root=True)
    np.testing.assert_allclose(np.asarray(ax.lines[0].get_ydata(), float), [np.sqrt(2), 2])
    y = np.arange(60.0).reshape(1, 4, 15)
    other = plots.new_figure().add_subplot()
    drawing.many_runs(other, np.arange(4.0), y, ["x"], middle=True)
    drawn = [np.asarray(line.get_ydata(), float) for line in other.lines]
    np.testing.assert_array_equal(drawn[:15], y[0].T)
    np.testing.assert_array_equal(drawn[15], y[0, :, 7])
