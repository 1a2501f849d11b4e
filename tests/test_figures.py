"""The book's prediction figures: against literal loops, exact moments, and the numbers it prints.

Means of samples are compared with exact numbers at |z| <= 6.8 (see `paths`): all comparisons together have a false
alarm below 1e-6. Claims of order between learners ask for z > 2 where about 7 is expected.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import random_mdp, random_policy
from paths import agree, second

from tabrl import MDP, chain, envs, operators, plots, sample
from tabrl.branches import step
from tabrl.errors import ModelError
from tabrl.figures import (
    LAMBDAS,
    batch_errors,
    error_surface,
    exact_errors,
    gallery,
    monte_carlo_episodes,
    n_step_surface,
    random_walk,
    td0_episodes,
    td0_estimates,
    td_against_mc,
)
from tabrl.plots.grid import INK
from tabrl.plots.learning import episode_curves, error_curves, exact_level, step_size_curves
from tabrl.prediction import lambda_return, monte_carlo, n_step_td, td0, td_lambda, true_online_td
from tabrl.replay import side_by_side
from tabrl.td_moments import trajectory_moments
from tabrl.trace import last

LEARNERS = [
    partial(n_step_td, n=1),
    partial(n_step_td, n=4),
    partial(td_lambda, lam=0.8, trace="replacing"),
    partial(true_online_td, lam=0.9),
    partial(lambda_return, lam=0.5),
]


def walk19() -> tuple[MDP, Any]:
    walk = envs.random_walk_19()
    return walk, np.ones((walk.S, 1))


def many(mdp: MDP, pi: Any, rng: Any, runs: int, k: int) -> list[Any]:
    """Rounds of k episodes of many runs, dealt out from one stream."""
    drawn = list(islice(sample.episodes(mdp, pi, rng), runs * k))
    return list(side_by_side([drawn[i * k : i * k + k] for i in range(runs)], mdp.S))


def rms(V: Any, exact: Any, mdp: MDP) -> float:
    """The literal root mean square over the states that are not terminal."""
    live = [s for s in range(mdp.S) if not mdp.terminal[s]]
    return float(np.sqrt(sum((V[s] - exact[s]) ** 2 for s in live) / len(live)))


# ---- over step sizes ----


def test_surface_is_the_learner_run_by_run() -> None:
    walk, pi = walk19()
    exact = chain.evaluate(chain.induce(walk, pi))
    steps = np.array([0.0, 0.2, 0.5])
    found = error_surface(walk, pi, np.random.default_rng(0), LEARNERS, alpha=steps, runs=3, episodes=4)
    streams = [sample.episodes(walk, pi, own) for own in np.random.default_rng(0).spawn(3)]
    drawn = [list(islice(stream, 4)) for stream in streams]
    for i, learner in enumerate(LEARNERS):
        for j, alpha in enumerate(steps):
            for run in range(3):
                V, errors = np.zeros(walk.S), []
                for one in drawn[run]:
                    V = last(learner([one], alpha=float(alpha), V=V)).V if alpha else V
                    errors.append(rms(V, exact, walk))
                assert abs(np.mean(errors) - found[i, j, run]) < 1e-12
    same = n_step_surface(walk, pi, np.random.default_rng(0), n=(1, 4), alpha=steps, runs=3, episodes=4)
    assert (same.rms == found[:2]).all()


def test_random_walk_minimum_is_at_four_steps() -> None:
    """Figure 7.2: the smallest error, about .27, is reached by n = 4; |z| < 5 for the printed value's half digit."""
    walk, pi = walk19()
    surface = n_step_surface(walk, pi, np.random.default_rng(1))
    mean = surface.rms.mean(axis=2)
    best = mean.min(axis=1)
    i = int(np.nanargmin(best))
    assert surface.n[i] == 4
    j = int(mean[i].argmin())
    error = surface.rms[i, j].std() / np.sqrt(surface.rms.shape[2])
    assert abs(best[i] - 0.27) < 0.005 + 5 * error
    assert np.allclose(mean[:, 0], mean[0, 0])  # alpha = 0 learns nothing


FAMILIES: dict[str, Callable[..., Any]] = {
    "offline": lambda_return,
    "accumulating": td_lambda,
    "replacing": partial(td_lambda, trace="replacing"),
    "dutch": partial(td_lambda, trace="dutch"),
    "true online": true_online_td,
}


def test_an_intermediate_lambda_is_best_in_every_family() -> None:
    """Figures 12.3, 12.6, 12.8: lambda = .8 or .9 beats 0 and 1 in every family, run by run; 0 is TD(0) online."""
    walk, pi = walk19()
    lam = [x for x in LAMBDAS if x in (0.0, 0.8, 0.9, 1.0)]
    steps = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8])
    learners = [partial(f, lam=x) for f in FAMILIES.values() for x in lam] + [partial(n_step_td, n=1)]
    found = error_surface(walk, pi, np.random.default_rng(2), learners, alpha=steps)
    for i, name in enumerate(FAMILIES):
        part = found[len(lam) * i : len(lam) * (i + 1)]
        with np.errstate(all="ignore"):
            means = part.mean(axis=2)
        best = [part[k, int(np.nanargmin(means[k]))] for k in range(len(lam))]
        middle = min(best[1], best[2], key=np.mean)
        for end in (best[0], best[-1]):
            gap = end - middle
            assert gap.mean() > 2 * gap.std(ddof=1) / np.sqrt(len(gap))
        if name != "offline":
            assert abs(part[0] - found[-1]).max() < 1e-12


def test_bad_input_is_named() -> None:
    (walk, pi), rng = walk19(), np.random.default_rng(0)
    with pytest.raises(ValueError, match="runs is 0; "):
        n_step_surface(walk, pi, rng, runs=0)
    with pytest.raises(ValueError, match="k is 0; "):
        batch_errors(walk, pi, rng, k=(0, 1))


def test_diverging_runs_are_kept() -> None:
    walk, pi = walk19()
    found = error_surface(
        walk, pi, np.random.default_rng(3), [partial(td_lambda, lam=1.0)], alpha=np.array([1.0]), runs=5
    )
    assert found.shape == (1, 1, 5)
    assert not (found < 10).any()


# ---- exact moments after episodes ----


def started(mdp: MDP) -> MDP:
    mu = np.where(mdp.terminal, 0.0, 1.0)
    return replace(mdp, mu=mu / mu.sum())


def cases() -> list[tuple[MDP, Any]]:
    """The 5-state walk, the loop, and cyclic models with self-loops, terminal states and masked actions."""
    out = [(w, np.ones((w.S, 1))) for w in (envs.random_walk(5), envs.loop(0.6, stay=2.0, end=-1.0, gamma=0.9))]
    for seed in range(2):
        rng = np.random.default_rng([50, seed])
        mdp = started(random_mdp(rng, S=4, A=3, gamma=0.9, proper=True, masked=True, rewards="sas"))
        out.append((mdp, random_policy(rng, mdp)))
    return out


PAIRS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [(td0, td0_episodes), (monte_carlo, monte_carlo_episodes)]


@pytest.mark.parametrize("case", range(4))
def test_values_after_episodes_have_the_exact_mean_and_covariance(case: int) -> None:
    mdp, pi = cases()[case]
    runs = 4000
    V = np.where(mdp.terminal, 0.0, np.random.default_rng(51).normal(size=mdp.S))
    rounds = many(mdp, pi, np.random.default_rng([52, case]), runs, 3)
    for learner, law in PAIRS:
        found = learner(rounds, alpha=0.4, V=np.tile(V, (runs, 1)))
        for x, exact in zip(found, law(mdp, pi, alpha=0.4, episodes=3, V=V), strict=True):
            agree(x.V, exact.mean)
            agree(second(x.V, exact.mean), exact.covariance)


@pytest.mark.parametrize("seed", range(8))
def test_an_episode_is_a_trajectory_that_stops(seed: int) -> None:
    """With an end that is a live state and is never left, 3,000 steps are one episode to rounding."""
    rng = np.random.default_rng([53, seed])
    mdp = started(random_mdp(rng, gamma=0.9, proper=True, rewards="s"))
    pi = random_policy(rng, mdp)
    P, R = np.zeros((mdp.S + 1, 1, mdp.S + 1)), np.zeros((mdp.S + 1, 1, mdp.S + 1))
    law = step(mdp, pi)
    live = law.states
    for i, s in enumerate(live):
        P[s, 0, live], P[s, 0, -1] = law.P[i, :-1], law.P[i, -1]
        R[s, 0, live], R[s, 0, -1] = law.R[i, :-1], law.R[i, -1]
    P[np.flatnonzero(mdp.terminal), 0, -1] = P[-1, 0, -1] = 1.0
    endless = MDP(P, R, mdp.gamma, mu=np.append(mdp.mu, 0.0))
    V = np.where(mdp.terminal, 0.0, 1.0)
    exact = last(trajectory_moments(endless, np.ones((mdp.S + 1, 1)), alpha=0.3, steps=3000, V=np.append(V, 0.0)))
    found = next(td0_episodes(mdp, pi, alpha=0.3, episodes=1, V=V))
    scale = 1 + abs(exact.mean).max()
    assert abs(found.mean - exact.mean[:-1]).max() < 1e-10 * scale
    assert abs(found.covariance - exact.covariance[:-1, :-1]).max() < 1e-10 * scale**2


@pytest.mark.parametrize(("learner", "law"), PAIRS)
def test_limits_of_the_step_size(learner: Any, law: Any) -> None:
    """alpha = 0 keeps V; one state that ends at once moves by alpha to its reward, whatever learns."""
    mdp, pi = cases()[0]
    V = np.where(mdp.terminal, 0.0, 0.3)
    for x in law(mdp, pi, alpha=0.0, episodes=2, V=V):
        assert abs(x.mean - V).max() < 1e-12 and abs(x.covariance).max() < 1e-12
    coin, one = envs.random_walk(1), np.ones((3, 1))
    for alpha in (0.3, 1.0):
        x = next(law(coin, one, alpha=alpha, episodes=1, V=[0.0, 0.4, 0.0]))
        assert abs(x.mean[1] - (0.4 + alpha * 0.1)) < 1e-12
        assert abs(x.covariance[1, 1] - alpha**2 / 4) < 1e-12


@pytest.mark.parametrize("law", [td0_episodes, monte_carlo_episodes])
def test_policies_that_never_end_are_refused(law: Any) -> None:
    two = envs.two_state()
    with pytest.raises(ModelError, match="is visited infinitely often"):
        next(law(two, np.ones((2, 1)), alpha=0.1, episodes=1))


def test_exact_errors_are_the_roots_of_expected_squares() -> None:
    """19-state walk, 2,000 runs: mean squares after each of 2 episodes by z; the mean of the roots is below."""
    walk, pi = walk19()
    exact, live = chain.evaluate(chain.induce(walk, pi)), ~walk.terminal
    runs, alpha = 2000, 0.6
    rounds = many(walk, pi, np.random.default_rng(4), runs, 2)
    known = exact_errors(walk, pi, alpha=np.array([0.0, alpha]), episodes=2)
    assert abs(known.none - np.sqrt(np.mean([(i / 10 - 1) ** 2 for i in range(1, 20)]))) < 1e-12
    for (learner, law), curve in zip(PAIRS, (known.td0, known.monte_carlo), strict=True):
        roots = []
        found = list(learner(rounds, alpha=alpha, V=np.zeros((runs, walk.S))))
        for x, m in zip(found, law(walk, pi, alpha=alpha, episodes=2), strict=True):
            square = ((m.mean - exact) ** 2 + m.covariance.diagonal())[live].mean()
            agree(((x.V - exact)[:, live] ** 2).mean(axis=1)[:, None], np.array([square]))
            roots.append(np.sqrt(square))
        assert abs(curve[1] - np.mean(roots)) < 1e-12
        assert abs(curve[0] - known.none) < 1e-12
        mean_root = np.mean([np.sqrt(((x.V - exact)[:, live] ** 2).mean(axis=1)).mean() for x in found])
        assert mean_root <= curve[1] + 0.01


# ---- the 5-state walk ----


def test_estimates_and_errors_are_the_learners_run_by_run() -> None:
    walk = envs.random_walk()
    pi, exact = np.ones((7, 1)), np.arange(7) / 6
    x = td0_estimates(walk, pi, np.random.default_rng(5), k=(0, 2, 5), runs=3)
    y = td_against_mc(walk, pi, np.random.default_rng(5), td=(0.1,), mc=(0.02,), runs=3, episodes=5)
    assert abs(x.exact[1:6] - exact[1:6]).max() < 1e-12
    start = np.where(walk.terminal, 0.0, 0.5)
    for run, own in enumerate(np.random.default_rng(5).spawn(3)):
        batch = list(islice(sample.episodes(walk, pi, own), 5))
        values = [start, *(last(td0(batch[:n], alpha=0.1, V=start)).V for n in range(1, 6))]
        for i, n in enumerate((0, 2, 5)):
            assert abs(x.V[i, run] - values[n]).max() < 1e-12
        other = [start, *(last(monte_carlo(batch[:n], alpha=0.02, V=start)).V for n in range(1, 6))]
        for n in range(6):
            assert abs(y.td_square[0, n, run] - rms(values[n], exact, walk) ** 2) < 1e-12
            assert abs(y.mc_square[0, n, run] - rms(other[n], exact, walk) ** 2) < 1e-12


def test_example_6_2_agrees_with_its_exact_curves() -> None:
    """150 runs: values of TD(0), and the squared errors of TD(0) and Monte Carlo after every 10th episode."""
    walk = envs.random_walk()
    pi = np.ones((7, 1))
    x = td0_estimates(walk, pi, np.random.default_rng(6), k=(0, 1, 10, 30), runs=150)
    for V, mean, std in zip(x.V, x.mean, x.std, strict=True):
        agree(V, mean)
        agree((V - mean) ** 2, std**2)
    y = td_against_mc(walk, pi, np.random.default_rng(7), runs=150, episodes=50)
    for square, curve in ((y.td_square, y.td_exact), (y.mc_square, y.mc_exact)):
        for one, exact in zip(square, curve, strict=True):
            agree(one[::10].T, exact[::10] ** 2)


def test_batch_errors_are_the_closed_forms_run_by_run() -> None:
    walk = envs.random_walk()
    pi, exact, start = np.ones((7, 1)), np.arange(7) / 6, np.where(envs.random_walk().terminal, 0.0, 0.5)
    x = batch_errors(walk, pi, np.random.default_rng(8), k=(1, 3, 6), runs=3)
    for run, own in enumerate(np.random.default_rng(8).spawn(3)):
        batch = [(e.s, e.r, e.discount) for e in islice(sample.episodes(walk, pi, own), 6)]
        for i, n in enumerate((1, 3, 6)):
            td, mc = (f(batch[:n], 7, start).V for f in (operators.batch_td, operators.batch_mc))
            assert abs(x.td_square[i, run] - rms(td, exact, walk) ** 2) < 1e-12
            assert abs(x.mc_square[i, run] - rms(mc, exact, walk) ** 2) < 1e-12


def test_batch_monte_carlo_has_its_exact_error_at_every_k() -> None:
    walk = envs.random_walk()
    x = batch_errors(walk, np.ones((7, 1)), np.random.default_rng(9), k=(1, 2, 5), runs=300)
    agree(x.mc_square.T, x.mc_exact**2)


def test_batch_td_beats_batch_monte_carlo() -> None:
    """Figure 6.2: mean gap over the batches of each run."""
    walk = envs.random_walk()
    x = batch_errors(walk, np.ones((7, 1)), np.random.default_rng(10), k=(5, 10, 20, 40))
    gap = (x.mc_square - x.td_square).mean(axis=0)
    assert gap.mean() > 2 * gap.std(ddof=1) / np.sqrt(len(gap))
    assert x.td_rate < x.mc_rate


def test_rates_of_batch_learning() -> None:
    """Monte Carlo: k times the exact square, extrapolated to 1/k = 0. TD: the delta method by finite differences."""
    walk = envs.random_walk(4, gamma=0.9, right=2.0)
    pi = np.ones((walk.S, 1))
    td, mc = random_walk.rates(walk, pi)
    start = np.zeros(walk.S)
    square = random_walk.expected_mc_squares(walk, pi, 240, start)
    k = np.array([120, 160, 240])
    fit = np.polynomial.Polynomial.fit(1 / k, k * square[k - 1], 2)
    assert abs(fit(0) - mc) < 1e-3 * mc
    law, (d, _) = step(walk, pi), random_walk.reaching(walk, pi)

    def values(P: Any) -> Any:
        A = np.eye(4) - walk.gamma * P[:, :4]
        return np.linalg.solve(A, (P * law.R).sum(axis=1))

    total = np.zeros(4)
    for s in range(4):
        g = []
        for y in range(5):
            e = np.zeros((4, 5))
            e[s, y] = 1e-6
            g.append((values(law.P + e) - values(law.P - e)) / 2e-6)
        mean = law.P[s] @ np.array(g)
        total += (law.P[s] @ (np.array(g) - mean) ** 2) / d[s]
    assert abs(total.mean() - td) < 1e-6 * td
    coin = envs.random_walk(1)
    one = random_walk.rates(coin, np.ones((3, 1)))
    assert np.allclose(one, 0.25)  # a single state: both are the mean of coin flips


# ---- drawing ----


def heights(ax: Any, colour: str = INK) -> list[list[float]]:
    """What the lines of one colour show, by y."""
    return [np.asarray(line.get_ydata(), float).tolist() for line in ax.lines if line.get_color() == colour]


def test_curves_that_leave_the_picture_are_marked() -> None:
    x = np.array([0.0, 0.5, 1.0])
    tame = np.array([[1.0, 1.2], [0.5, 0.7], [0.6, 0.8]])
    wild = np.array([[1.0, 1.2], [0.9, 1.1], [np.inf, 50.0]])
    ax = plots.new_figure().add_subplot()
    error_curves(ax, x, [tame, wild], ["tame", "wild"], xlabel="alpha", top=2.0)
    assert ax.get_legend_handles_labels()[1] == ["tame", "wild"]
    drawn = {line.get_label(): line for line in ax.lines}
    assert np.allclose(np.asarray(drawn["tame"].get_ydata(), float), [1.1, 0.6, 0.7])
    marks = [np.asarray(line.get_xdata(), float).tolist() for line in ax.lines if line.get_marker() == "^"]
    assert marks == [[], [0.5]]


def test_curves_that_come_from_below_are_marked() -> None:
    y = np.array([[[-900.0, -700.0], [-50.0, -40.0], [-20.0, -30.0]]])
    ax = plots.new_figure().add_subplot()
    episode_curves(ax, y, ["SARSA"], {"V*": -13.0}, ylabel="return", window=(-100.0, 0.0))
    marks = {m: [np.asarray(x.get_xdata(), float).tolist() for x in ax.lines if x.get_marker() == m] for m in "v^"}
    assert marks == {"v": [[2.0]], "^": [[]]}
    line = np.asarray(ax.lines[0].get_ydata(), float)
    assert np.isnan(line[0]) and line[1:].tolist() == [-45.0, -25.0]
    assert heights(ax) == [[-13.0, -13.0]]
    assert ax.get_ylim() == (-100.0, 0.0)
    assert ax.get_legend_handles_labels()[1] == ["SARSA", "V*: \N{MINUS SIGN}13"]


def test_exact_lines_stand_at_the_exact_value() -> None:
    ax = plots.new_figure().add_subplot()
    alpha, exact = np.array([0.0, 0.5, 1.0]), np.array([0.5, 0.25, 0.9])
    step_size_curves(ax, alpha, np.full((1, 3, 4), 0.3), ["n = 1"], {"exact": exact}, 0.5)
    assert heights(ax) == [[0.5, 0.25], [0.5, 0.5]]  # .9 is above the axis
    assert ax.get_xlim() == (0.0, 1.0)
    exact_level(ax, 0.125, "level")
    assert heights(ax)[-1] == [0.125, 0.125]


PREDICTION = ("example-6.2", "6.2", "7.2", "12.3", "12.6", "12.8")


@pytest.mark.parametrize("name", PREDICTION)
def test_gallery(name: str) -> None:
    """Every panel has names on its axes, a legend, sampled curves, and exact ones in black."""
    figure = gallery.FIGURES[name].draw(np.random.default_rng(0), 3)
    for ax in figure.axes:
        assert ax.get_xlabel() and ax.get_ylabel() and ax.get_legend() is not None
        assert heights(ax) and len(ax.lines) > len(heights(ax))
    if name == "example-6.2":
        assert np.allclose(heights(figure.axes[0])[0], np.arange(1, 6) / 6)
    elif name != "6.2":
        none = np.sqrt(np.mean([(i / 10 - 1) ** 2 for i in range(1, 20)]))
        assert all(np.allclose(heights(ax)[-1], none) for ax in figure.axes)
    assert plots.image(figure, dpi=40)[:4] == b"\x89PNG"
