"""All figures by name: of learning here, of policy gradients in `policy_gallery`, of tokens in `token_gallery`.

A picture takes a random generator and a number of runs, and returns a figure. Curves are means over runs with an
interval of two standard errors; black lines that are not solid are exact.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from tabrl import envs
from tabrl.control.acting import Rng
from tabrl.figures.bias import left_moves
from tabrl.figures.cliff import Lines, online_returns, performance, smoothed
from tabrl.figures.maze import step_counts
from tabrl.figures.picture import Picture, sheet
from tabrl.figures.policy_gallery import POLICIES
from tabrl.figures.random_walk import batch_errors, td0_estimates, td_against_mc
from tabrl.figures.surfaces import FINE, LAMBDAS, POWERS, Learner, error_surface, exact_errors
from tabrl.figures.token_gallery import TOKENS
from tabrl.plots import learning as plot_learning
from tabrl.plots.learning import (
    band_curves,
    episode_curves,
    exact_curve,
    exact_levels,
    exact_span,
    finish,
    step_size_curves,
)
from tabrl.plots.runs import band
from tabrl.prediction import lambda_return, n_step_td, td_lambda, true_online_td

ONE_STEP = {r"$\lambda$ = 0, exact": "td0"}  # online learners with lambda = 0 are TD(0)
SPREAD = "shade: two standard errors; black: exact"
SQUARES = f"curves: root of the mean square over states and runs; {SPREAD}"
MEANS = f"curves: mean over runs; {SPREAD}"
ROOTS = f"curves: mean over runs of the RMS error; {SPREAD},\nthe root of the expected square, which is a little more"
WALK = "bars, and shades on the right: two standard errors; right: root of the mean square over states and runs"
WINDOW = 10  # episodes of the moving mean on the cliff


class Family(NamedTuple):
    """Learners that share a panel."""

    title: str
    labels: Sequence[str]
    learners: Sequence[Learner]
    exact: Mapping[str, str]  # label -> field of `ExactErrors` that is known of a member


def n_steps() -> Family:
    """The n-step TD learners of figure 7.2."""
    exact = {"n = 1, exact": "td0", "n = ∞ (Monte Carlo), exact": "monte_carlo"}
    return Family("n-step TD", [f"n = {n}" for n in POWERS], [partial(n_step_td, n=n) for n in POWERS], exact)


def lambdas(title: str, learner: Learner, exact: Mapping[str, str]) -> Family:
    """A learner with the values of lambda of figures 12.3 to 12.8."""
    return Family(title, [rf"$\lambda$ = {x:g}" for x in LAMBDAS], [partial(learner, lam=x) for x in LAMBDAS], exact)


def over_step_sizes(families: Sequence[Family], rng: Rng, runs: int) -> Figure:
    """Figures 7.2, 12.3, 12.6 and 12.8: a panel for each family, all on the same experience."""
    walk = envs.random_walk_19()
    pi = np.ones((walk.S, 1))
    rms = error_surface(walk, pi, rng, [x for family in families for x in family.learners], runs=runs)
    known = exact_errors(walk, pi, alpha=FINE)
    figure, used = sheet(6.9 * len(families), 4.7, ROOTS), 0
    for ax, family in zip(figure.subplots(1, len(families), squeeze=False)[0], families, strict=True):
        part, used = rms[used : used + len(family.learners)], used + len(family.learners)
        exact = {label: getattr(known, field) for label, field in family.exact.items()}
        title = f"{family.title}, 19-state walk, {runs} runs"
        step_size_curves(ax, FINE, part, family.labels, exact, known.none, title=title)
    return figure


def figure_7_2(rng: Rng, runs: int) -> Figure:
    """n-step TD."""
    return over_step_sizes([n_steps()], rng, runs)


def figure_12_3(rng: Rng, runs: int) -> Figure:
    """The offline lambda-return algorithm beside n-step TD."""
    offline = lambdas(
        r"offline $\lambda$-return", lambda_return, {r"$\lambda$ = 1 (Monte Carlo), exact": "monte_carlo"}
    )
    return over_step_sizes([offline, n_steps()], rng, runs)


def figure_12_6(rng: Rng, runs: int) -> Figure:
    """TD(lambda) with the three traces."""
    families = [
        lambdas(rf"TD($\lambda$), {trace} trace", partial(td_lambda, trace=trace), ONE_STEP)
        for trace in ("accumulating", "replacing", "dutch")
    ]
    return over_step_sizes(families, rng, runs)


def figure_12_8(rng: Rng, runs: int) -> Figure:
    """True online TD(lambda)."""
    return over_step_sizes([lambdas(r"true online TD($\lambda$)", true_online_td, ONE_STEP)], rng, runs)


def example_6_2(rng: Rng, runs: int) -> Figure:
    """Values of TD(0), and its errors beside those of Monte Carlo."""
    walk = envs.random_walk()
    pi, live = np.ones((walk.S, 1)), np.flatnonzero(~walk.terminal)
    figure = sheet(12.6, 4.6, WALK)
    left, right = figure.subplots(1, 2)
    x = td0_estimates(walk, pi, rng, runs=runs)
    values = x.V[..., live], x.mean[:, live], x.std[:, live], x.exact[live]
    title = rf"TD(0), $\alpha$ = 0.1, {runs} runs (dotted: exact mean; shade: exact std)"
    plot_learning.value_estimates(left, x.k, *values, [walk.names.states[s] for s in live], title=title)
    y = td_against_mc(walk, pi, rng, runs=runs)
    plot_learning.error_pairs(
        right, y.k, {"TD(0)": (y.td, y.td_square, y.td_exact), "MC": (y.mc, y.mc_square, y.mc_exact)},
        title=f"TD(0) against constant-α Monte Carlo, {runs} runs",
    )  # fmt: skip
    return figure


def figure_6_2(rng: Rng, runs: int) -> Figure:
    """Batch TD beside batch Monte Carlo."""
    walk = envs.random_walk()
    x = batch_errors(walk, np.ones((walk.S, 1)), rng, runs=runs)
    figure = sheet(8.2, 4.6, SQUARES)
    ax = figure.add_subplot()
    band_curves(ax, x.k, [band(y, root=True) for y in (x.td_square, x.mc_square)], ["batch TD", "batch MC"])
    exact_curve(ax, x.k, x.mc_exact, "batch MC, exact")
    late = x.k[x.k >= 10]
    leading = rf"batch TD: $\sqrt{{{x.td_rate:.3f} / k}}$, exact leading term"
    exact_curve(ax, late, np.sqrt(x.td_rate / late), leading, dash=1)
    ax.set_ylim(0, None)
    title = f"Batch updating, {runs} runs: MC's error tends to {np.sqrt(x.mc_rate / x.td_rate):.3f} times TD's"
    finish(ax, "episodes k in the batch", "RMS error over states and runs", title)
    return figure


def named(lines: Lines) -> dict[str, float]:
    """The exact returns of the cliff with their names."""
    return {
        "V*": lines.optimal, "best ε-soft policy": lines.soft, "ε-greedy in Q*, ties shared": lines.greedy,
    }  # fmt: skip


def example_6_6(rng: Rng, runs: int) -> Figure:
    """Returns on the cliff while learning."""
    x = online_returns(envs.cliff(), rng, runs=runs)
    figure = sheet(8.6, 4.8, MEANS)
    ax = figure.add_subplot()
    y = np.array([smoothed(z, WINDOW) for z in x.returns])
    title = f"Cliff walking, α = 0.5, ε = 0.1, {runs} runs, mean of the last {WINDOW} episodes"
    label = "sum of rewards in an episode"
    exact_span(ax, x.lines.greedy_low, x.lines.greedy_high, "ε-greedy in Q*, any tie rule")
    episode_curves(ax, y, x.labels, named(x.lines), ylabel=label, window=(-100.0, 0.0), title=title)
    return figure


def figure_6_3(rng: Rng, runs: int) -> Figure:
    """Interim and asymptotic performance on the cliff."""
    x = performance(envs.cliff(), rng, runs=runs)
    figure = sheet(8.8, 4.8, MEANS)
    ax = figure.add_subplot()
    early = [f"{label}, episodes 1–100" for label in x.labels]
    band_curves(ax, x.alpha, [band(y) for y in x.interim], early, low=-160.0, top=0.0)
    late = [f"{label}, episodes 1–1000" for label in x.labels]
    band_curves(ax, x.alpha, [band(y) for y in x.asymptotic], late, dash=1, low=-160.0, top=0.0)
    exact_levels(ax, named(x.lines))
    title = f"Cliff walking, ε = 0.1, {runs} and {x.asymptotic.shape[2]} runs"
    finish(ax, r"step size $\alpha$", "sum of rewards in an episode", title)
    return figure


def figure_6_5(rng: Rng, runs: int) -> Figure:
    """Maximisation bias."""
    x = left_moves(rng, runs=runs)
    figure = sheet(8.2, 4.6, MEANS)
    levels = {"ε-greedy in Q*": 100 * x.optimal, "episodes 1 and 2": 100 * x.first}
    title = f"Maximisation bias, α = ε = 0.1, {runs:,} runs"
    label = "episodes that go left (%)"
    episode_curves(figure.add_subplot(), 100 * x.left, x.labels, levels, ylabel=label, window=(0.0, 100.0), title=title)
    return figure


def figure_8_2(rng: Rng, runs: int) -> Figure:
    """Dyna-Q in the maze."""
    x = step_counts(envs.dyna_maze(), rng, runs=runs)
    figure = sheet(8.2, 4.8, MEANS)
    ax = figure.add_subplot()
    levels = {"shortest way": x.shortest, "ε-greedy in Q*": x.greedy, "uniform policy": x.first}
    labels = [f"planning = {n}" for n in x.planning]
    title = f"Dyna maze, Dyna-Q, α = ε = 0.1, {runs} runs"
    episode_curves(ax, x.lengths, labels, levels, ylabel="steps in the episode (log scale)", title=title)
    ax.set_yscale("log")
    return figure


FIGURES: dict[str, Picture] = {
    "example-6.2": Picture("TD(0) and Monte Carlo on the 5-state random walk", example_6_2, 100),
    "6.2": Picture("Batch TD and batch Monte Carlo on the 5-state random walk", figure_6_2, 100),
    "example-6.6": Picture("SARSA, Q-learning and expected SARSA along the cliff", example_6_6, 100),
    "6.3": Picture("The same over step sizes: first and later episodes", figure_6_3, 50),
    "6.5": Picture("The maximisation bias of Q-learning, and double Q-learning", figure_6_5, 1000),
    "7.2": Picture("n-step TD on the 19-state random walk, over n and the step size", figure_7_2, 100),
    "8.2": Picture("Dyna-Q in a maze with 0, 5 and 50 planning steps", figure_8_2, 30),
    "12.3": Picture("The offline lambda-return algorithm beside n-step TD, 19-state walk", figure_12_3, 100),
    "12.6": Picture("TD(lambda) with accumulating, replacing and dutch traces, 19-state walk", figure_12_6, 100),
    "12.8": Picture("True online TD(lambda), 19-state walk", figure_12_8, 100),
    **POLICIES,
    **TOKENS,
}
