"""The book's control figures: against literal loops, brute force on tiny models, and the numbers it prints.

Means of samples are compared with exact numbers at |z| <= 6.8 (see `paths`). Whatever a learner does, its policy is
eps-soft at every step: so no mean return may exceed that of the best eps-soft policy, at any time.
"""

from itertools import product
from typing import Any

import numpy as np
import pytest
from models import random_mdp
from paths import Z, agree

from tabrl import MDP, chain, dp, envs, plots
from tabrl.companions import eps_soft
from tabrl.control.dyna import Dyna
from tabrl.control.kernels import DOUBLE_Q, Q_LEARNING, SARSA, Moves
from tabrl.control.one_step import OneStep
from tabrl.errors import ModelError
from tabrl.figures import gallery
from tabrl.figures.bias import left_moves, maximisation_bias
from tabrl.figures.cliff import RULES, exploring_lines, online_returns, performance, smoothed
from tabrl.figures.control_runs import episode_lengths, episode_returns, first_episodes
from tabrl.figures.maze import expected_steps, step_counts
from tabrl.figures.policy_gallery import POLICIES
from tabrl.figures.token_gallery import TOKENS
from tabrl.plots.grid import INK


def learner(rule: int, mdp: MDP, seed: Any, **options: Any) -> OneStep:
    """A learner with its defaults filled in; seed: an integer or a generator."""
    given = {"alpha": 0.5, "eps": 0.1, "Q": None, "limit": None, "every": 64, "gamma": None, **options}
    return OneStep(rule, mdp, np.random.default_rng(seed), *given.values())


def literal(x: OneStep, n: int) -> list[list[tuple[int, int, float]]]:
    """The first n episodes, one list of (s, a, r) each."""
    out: list[list[tuple[int, int, float]]] = [[]]
    for moves, _ in x.moves():
        for s, a, r, last in zip(moves.s, moves.a, moves.r, moves.last, strict=True):
            out[-1].append((int(s), int(a), float(r)))
            if last and len(out) == n:
                return out
            if last:
                out.append([])
    raise AssertionError


def ends_well(mean: Any, low: float, high: float) -> None:
    """The mean of samples (runs,) is in [low, high], up to |z| = 6.8."""
    error = Z * mean.std(ddof=1) / np.sqrt(len(mean))
    assert low - error <= mean.mean() <= high + error


# ---- episodes ----


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [1, 7])
def test_first_episodes(seed: int, n: int) -> None:
    rng = np.random.default_rng([60, seed])
    mdp = random_mdp(rng, gamma=0.9, proper=seed % 2 == 0)
    mdp = MDP(mdp.P, mdp.R, 0.9, mu=np.where(mdp.terminal, 0.0, 1.0) / (~mdp.terminal).sum(), terminal=mdp.terminal,
              legal=mdp.legal)  # fmt: skip
    options = {"limit": int(rng.integers(1, 30)), "every": int(rng.integers(1, 40))}
    x = first_episodes(learner(SARSA, mdp, seed, **options), n)
    episodes = literal(learner(SARSA, mdp, seed, **options), n)
    assert [y for episode in episodes for y in episode] == list(
        zip(x.s.tolist(), x.a.tolist(), x.r.tolist(), strict=True)
    )
    assert episode_lengths(x).tolist() == [len(episode) for episode in episodes]
    totals = [sum(r for _, _, r in episode) for episode in episodes]
    assert np.allclose(episode_returns(x), totals, rtol=0, atol=1e-10 * (1 + abs(x.r).sum()))


def test_bad_input_is_named() -> None:
    cliff, rng = envs.cliff(), np.random.default_rng(0)
    with pytest.raises(ValueError, match="episodes is 0; "):
        first_episodes(learner(SARSA, cliff, 0), 0)
    with pytest.raises(ValueError, match="window is 0; "):
        smoothed(np.ones((3, 1)), 0)
    with pytest.raises(ValueError, match="runs is 0; "):
        online_returns(cliff, rng, runs=0)
    with pytest.raises(ModelError, match=r"gamma is 0\.9; 1 is expected, as the returns are not discounted"):
        online_returns(envs.cliff(gamma=0.9), rng)


def test_moving_mean() -> None:
    y = np.random.default_rng(0).normal(size=(30, 4))
    for window in (1, 4, 30, 50):
        slow = np.array([y[max(0, t - window + 1) : t + 1].mean(axis=0) for t in range(30)])
        assert abs(smoothed(y, window) - slow).max() < 1e-12


# ---- the cliff ----


def deterministic(mdp: MDP, allowed: Any) -> list[Any]:
    """All policies that pick one allowed action in each state, as (S,A) arrays."""
    choices = [np.flatnonzero(row) if not end else [0] for row, end in zip(allowed, mdp.terminal, strict=True)]
    return [np.eye(mdp.A)[np.array(a)] for a in product(*choices)]


@pytest.mark.parametrize("seed", range(12))
def test_exploring_lines_by_brute_force(seed: int) -> None:
    """Every deterministic policy, mixed with the uniform one; every choice among tied actions of Q*."""
    rng, eps = np.random.default_rng([61, seed]), 0.2
    mdp = random_mdp(rng, S=4, A=3, gamma=0.9, masked=seed % 2 == 0)
    if seed % 3 == 0:  # ties
        mdp = MDP(mdp.P, np.zeros((4, 3)) - ~mdp.terminal[:, None], 0.9, terminal=mdp.terminal, legal=mdp.legal)
    uniform = mdp.legal / mdp.legal.sum(axis=1, keepdims=True)

    def J(pi: Any) -> float:
        return float(mdp.mu @ chain.evaluate(chain.induce(mdp, pi)))

    Q = dp.solve(mdp).Q
    tied = mdp.legal & (np.where(mdp.legal, Q, -np.inf).max(axis=1, keepdims=True) - Q <= 1e-9)
    among = [J(eps * uniform + (1 - eps) * pi) for pi in deterministic(mdp, tied)]
    every = [eps * uniform + (1 - eps) * pi for pi in deterministic(mdp, mdp.legal)]
    shared = eps * uniform + (1 - eps) * tied / tied.sum(axis=1, keepdims=True)
    best = max(J((pi - eps * uniform) / (1 - eps)) for pi in every)
    exact = best, J(shared), min(among), max(among), max(J(pi) for pi in every)
    assert np.allclose(exploring_lines(mdp, eps), exact, rtol=0, atol=1e-6 * (1 + abs(best)))


def test_exact_returns_of_the_cliff() -> None:
    """Example 6.6: -13 without exploration, -50.8 eps-greedy in Q*, -20.7 for the best eps-soft policy."""
    lines = exploring_lines(envs.cliff(), 0.1)
    assert abs(lines.optimal + 13) < 1e-6
    assert abs(lines.greedy + 50.8) < 0.05 and abs(lines.soft + 20.7) < 0.05
    assert lines.greedy_low <= lines.greedy <= lines.greedy_high <= lines.soft <= lines.optimal


def test_online_returns_are_the_learners_run_by_run() -> None:
    cliff = envs.cliff()
    x = online_returns(cliff, np.random.default_rng(1), runs=2, episodes=20)
    assert x.labels == ("SARSA", "Q-learning", "expected SARSA")
    rng = np.random.default_rng(1)
    for i, rule in enumerate(RULES.values()):
        for run, own in enumerate(rng.spawn(2)):
            episodes = literal(learner(rule, cliff, own, every=4096), 20)
            assert x.returns[i, :, run].tolist() == [sum(r for _, _, r in episode) for episode in episodes]


def test_example_6_6() -> None:
    """alpha = .5, eps = .1, 100 runs, episodes 101 to 500: SARSA above Q-learning, none above the best eps-soft."""
    x = online_returns(envs.cliff(), np.random.default_rng(2))
    mean = x.returns[:, 100:].mean(axis=1)
    for y in mean:
        ends_well(y, -np.inf, x.lines.soft)
    sarsa, q, expected = mean
    ends_well(sarsa, x.lines.greedy, x.lines.soft)
    ends_well(q, x.lines.greedy - 5, x.lines.greedy_high)
    for better, worse in ((sarsa, q), (expected, sarsa)):
        gap = better - worse
        assert gap.mean() > 2 * gap.std(ddof=1) / np.sqrt(len(gap))


def test_q_learning_ends_at_the_eps_greedy_policy_of_the_optimum() -> None:
    """Episodes 1,001 to 4,000 of 20 runs: between the worst and the best tie rule."""
    rules = {"Q-learning": Q_LEARNING}
    x = online_returns(envs.cliff(), np.random.default_rng(3), rules=rules, runs=20, episodes=4000)
    ends_well(x.returns[0, 1000:].mean(axis=0), x.lines.greedy_low, x.lines.greedy_high)


def test_performance() -> None:
    """Figure 6.3: the means of the runs; none above the best eps-soft; large steps ruin SARSA, not expected SARSA."""
    cliff, options = envs.cliff(), {"runs": 10, "long_runs": 5, "long_episodes": 300}
    x = performance(cliff, np.random.default_rng(4), alpha=np.array([0.5, 1.0]), **options)  # type: ignore[arg-type]
    assert x.interim.shape == (3, 2, 10) and x.asymptotic.shape == (3, 2, 5)
    own = np.random.default_rng(4).spawn(10)[0]
    first = literal(learner(SARSA, cliff, own, every=4096), 100)
    assert abs(x.interim[0, 0, 0] - np.mean([sum(r for _, _, r in episode) for episode in first])) < 1e-9
    for y in (*x.interim.reshape(6, -1), *x.asymptotic.reshape(6, -1)):
        ends_well(y, -np.inf, x.lines.soft)
    assert x.asymptotic[0, 1].mean() < x.asymptotic[2, 1].mean()


# ---- maximisation bias ----


def test_rewards_of_the_bias_model_have_normal_moments() -> None:
    mdp = maximisation_bias(4, mean=-0.1, points=16)
    p, R = mdp.P[1, 2], mdp.R[1, 2] + 0.1
    for k in range(1, 31):
        odd_factorial = float(np.prod(np.arange(k - 1, 0, -2.0)))
        exact = 0.0 if k % 2 else odd_factorial
        size = float(p[3:] @ abs(R[3:]) ** k)
        assert abs(p[3:] @ R[3:] ** k - exact) < 1e-9 * size
    assert abs(dp.solve(mdp).Q[0, :2] - [0.0, -0.1]).max() < 1e-9
    with pytest.raises(ValueError, match="actions is 1; "):
        maximisation_bias(1)


def test_left_moves_are_the_learners_run_by_run() -> None:
    x = left_moves(np.random.default_rng(5), runs=2, episodes=30)
    rng, mdp = np.random.default_rng(5), maximisation_bias()
    for i, rule in enumerate((Q_LEARNING, DOUBLE_Q)):
        for run, own in enumerate(rng.spawn(2)):
            episodes = literal(learner(rule, mdp, own, alpha=0.1, every=512), 30)
            assert x.left[i, :, run].tolist() == [float(episode[0][1] == 1) for episode in episodes]


def test_figure_6_5() -> None:
    """1,000 runs: both start at 50 %, stay within eps/2 … 1 - eps/2, end above 5 %; Q-learning far above double."""
    x = left_moves(np.random.default_rng(6))
    assert (x.optimal, x.first) == (0.05, 0.5)
    for left in x.left:
        agree(left[:2].T, np.full(2, x.first))
        for share in (left.mean(axis=1), 1 - left.mean(axis=1)):
            assert (share > x.optimal - Z * np.sqrt(0.05 * 0.95 / 1000)).all()
    q, double = x.left
    assert q.mean(axis=1).max() > 0.75  # the transient climbs above the start
    for early, late in ((20, 100), (250, 300)):
        gap = q[early:late].mean(axis=0) - double[early:late].mean(axis=0)
        assert gap.mean() > 2 * gap.std(ddof=1) / np.sqrt(len(gap))
    for y in x.left:
        ends_well(y[250:].mean(axis=0), x.optimal, 0.2)


# ---- the maze ----


def test_step_counts_are_the_learners_run_by_run() -> None:
    maze = envs.dyna_maze()
    x = step_counts(maze, np.random.default_rng(7), planning=(0, 3), runs=2, episodes=4)
    rng = np.random.default_rng(7)
    for i, n in enumerate((0, 3)):
        for run, own in enumerate(rng.spawn(2)):
            one: Any = Dyna(n, None, maze, own, 0.1, 0.1, None, None, 2048, None)
            assert x.lengths[i, :, run].tolist() == [len(episode) for episode in literal(one, 4)]


def test_figure_8_2() -> None:
    """No episode is shorter than 14 steps, none faster in the mean than the best eps-soft policy; planning helps."""
    maze = envs.dyna_maze()
    x = step_counts(maze, np.random.default_rng(8))
    timed = MDP(maze.P, np.where(maze.terminal, 0.0, -1.0), 1.0, mu=maze.mu, terminal=maze.terminal)
    soft = -float(timed.mu @ dp.solve(eps_soft(timed, 0.1)).V)
    assert x.shortest == 14 and x.lengths.min() >= 14
    assert x.shortest < soft <= x.greedy < x.first
    for y in x.lengths:
        ends_well(y[30:].mean(axis=0), soft, np.inf)
    ends_well(x.lengths[1:, 30:].mean(axis=(0, 1)), soft, x.greedy + 2)
    none, five, fifty = x.lengths[:, 1:5].mean(axis=1)
    for slow, fast in ((none, five), (five, fifty)):
        gap = slow - fast
        assert gap.mean() > 2 * gap.std(ddof=1) / np.sqrt(len(gap))


def test_first_episode_of_the_maze_is_a_uniform_walk() -> None:
    x = step_counts(envs.dyna_maze(), np.random.default_rng(9), planning=(0, 5), runs=300, episodes=1)
    agree(x.lengths[:, 0].T, np.full(2, x.first))


def test_expected_steps_of_a_corridor() -> None:
    """Three cells and a goal: 3 steps, and a uniform walk with a wall at its back takes 3 (3 + 1) of them."""
    P, R = np.zeros((4, 2, 4)), np.zeros((4, 2, 4))
    for s in range(3):
        P[s, 0, max(s - 1, 0)] = P[s, 1, s + 1] = 1.0
    R[2, 1, 3] = 1.0
    corridor = MDP(P, R, 0.9, mu=[1, 0, 0, 0], terminal=[0, 0, 0, 1])
    shortest, greedy, uniform = expected_steps(corridor, 0.1)
    assert shortest == 3 and abs(uniform - 12) < 1e-9
    up, T = 0.95, np.zeros(3)
    A = np.array([[up, -up, 0], [-(1 - up), 1, -up], [0, -(1 - up), 1]])
    T = np.linalg.solve(A, np.ones(3))
    assert abs(greedy - T[0]) < 1e-9


# ---- drawing ----


@pytest.mark.parametrize("name", ["example-6.6", "6.3", "6.5", "8.2"])
def test_gallery(name: str) -> None:
    """Axes with names, a legend, one curve for each learner, and the exact numbers as black lines."""
    figure = gallery.FIGURES[name].draw(np.random.default_rng(0), 3)
    (ax,) = figure.axes
    assert ax.get_xlabel() and ax.get_ylabel() and ax.get_legend() is not None
    black = [float(np.asarray(line.get_ydata(), float)[0]) for line in ax.lines if line.get_color() == INK]
    lines = exploring_lines(envs.cliff(), 0.1)
    exact = {"6.5": [5, 50], "8.2": expected_steps(envs.dyna_maze(), 0.1)[:1]}.get(
        name, [lines.optimal, lines.soft, lines.greedy]
    )
    assert np.allclose(black[: len(exact)], exact)
    assert plots.image(figure, dpi=40)[:4] == b"\x89PNG"


def test_gallery_lists_the_figures() -> None:
    book = {"6.2", "6.3", "6.5", "7.2", "8.2", "12.3", "12.6", "12.8", "example-6.2", "example-6.6"}
    assert set(gallery.FIGURES) == book | set(POLICIES) | set(TOKENS)
    assert all(gallery.FIGURES[name].runs >= 30 for name in book)
    assert all("\n" not in x.summary and x.runs >= 2 for x in gallery.FIGURES.values())


def test_moves_of_no_episode() -> None:
    empty = np.zeros(0)
    x = Moves(*(empty.astype(int),) * 2, empty, empty, *(empty.astype(int),) * 2, empty.astype(bool))
    assert len(episode_returns(x)) == len(episode_lengths(x)) == 0
