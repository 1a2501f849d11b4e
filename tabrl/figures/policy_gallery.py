"""The figures of policy gradients by name: exact J of every method, exact moments of every estimator, with samples.

A picture takes a random generator and a number of runs. Thin lines are single runs, all of them are shown; bars and
shades are two standard errors.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tabrl import MDP, envs
from tabrl.chain import evaluate, induce
from tabrl.control.acting import Rng
from tabrl.figures.ascent import Climb, climb, eight_by_eight, grid_methods, lake_methods
from tabrl.figures.estimators import Gae, baselines, gae, parabola
from tabrl.figures.picture import Picture, sheet
from tabrl.figures.simplex import ExactPaths, SampledPaths, bandit, exact_paths, sampled_paths
from tabrl.plots import DASHES
from tabrl.plots.grid import INK, minus
from tabrl.plots.learning import exact_curve, exact_level, finish
from tabrl.plots.policies import (
    exact_line,
    many_runs,
    percent_axis,
    sampled_points,
    simplex,
    simplex_path,
    transitions_axis,
)
from tabrl.policy import softmax
from tabrl.types import F

EACH = "thin: every run; thick: mean, shade: two standard errors"
EPISODES = "curves: exact; circles: {:,} episodes each, bars: two standard errors"
UPDATES = 300  # of PPO on the lake
STARTS = np.log([[0.05, 0.15, 0.8], [0.05, 0.9, 0.05], [1 / 3, 1 / 3, 1 / 3]])


def shortfall(x: Climb) -> F:
    """How far J is below J*, in per cent of |J*|, not below 1e-3: (L,K,runs)."""
    return np.maximum(100 * (x.best - x.J) / abs(x.best), 1e-3)


def policy_gradients(rng: Rng, runs: int) -> Figure:
    """J over transitions of seven methods on a grid."""
    world = eight_by_eight()
    x = climb(world, grid_methods(), rng, t=np.geomspace(500, 64_000, 60), runs=runs)
    levels = {"J*": x.best, "uniform policy": x.first, "never arrives": -1 / (1 - world.gamma)}
    figure = sheet(13.6, 5.0, f"left: {EACH}; right: thick: median of the runs. J is exact for every policy drawn")
    left, right = figure.subplots(1, 2)
    many_runs(left, x.t, x.J, x.labels, levels)
    finish(left, "transitions (log scale)", r"$J(\theta)$, exact", f"8 × 8 grid, −1 per step, γ = 0.99, {runs} runs")
    left.get_legend().remove()
    below = shortfall(x)
    many_runs(right, x.t, below, x.labels, middle=True)
    exact_level(right, 1.0, "1 % below J*", dash=4)
    percent_axis(right, 0.7 * below.min(), 1000)
    late = (below[:, -1] > 1).sum(axis=1)
    plain, others = f"{late[:2].sum()} of {2 * runs} plain", f"{late[2:].sum()} of {5 * runs} other runs"
    finish(
        right,
        "transitions (log scale)",
        "shortfall $(J^* - J) / |J^*|$ (log scale)",
        f"over 1 % below J* at the end: {plain}, {others}",
    )
    handles = [*left.get_legend_handles_labels()[0], right.lines[-1]]
    right.legend(handles=handles, frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for ax in (left, right):
        transitions_axis(ax, x.t)
    return figure


def frozen_lake_ppo(rng: Rng, runs: int) -> Figure:
    """PPO on the slippery lake with two settings, and how far its updates go."""
    t = np.linspace(0, 4096 * UPDATES, UPDATES // 4 + 1)
    x = climb(envs.make("frozen-lake", gamma=0.99), lake_methods(UPDATES), rng, t=t, runs=runs)
    figure = sheet(13.2, 6.6, f"{EACH}; lower row: thick: median of the runs. J is exact for every policy drawn")
    (value, clip), (distance, kl) = figure.subplots(2, 2, sharex=True)
    many_runs(value, t / 1000, x.J, x.labels, {"J*": x.best})
    finish(value, "", r"$J(\theta)$, exact", f"PPO on FrozenLake 4 × 4, slippery, γ = 0.99, {runs} runs")
    below, late = shortfall(x), (shortfall(x)[:, -1] > 1).sum(axis=1)
    many_runs(distance, t / 1000, below, x.labels, middle=True)
    exact_level(distance, 1.0, "1 % below J*", dash=2)
    percent_axis(distance, 0.7 * below.min(), 150)
    title = f"more than 1 % below J* at the end: usual {late[0]}, other {late[1]} of {runs} runs"
    finish(distance, "thousand transitions", "shortfall $(J^* - J) / J^*$ (log scale)", title)
    update_sizes(clip, kl, x)
    for ax in (value, distance, kl):
        ax.get_legend().remove()
    handles = [*value.get_legend_handles_labels()[0], distance.lines[-1]]
    clip.legend(handles=handles, frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def update_sizes(clip: Axes, kl: Axes, x: Climb) -> None:
    """How much of the last update before each point was clipped, and how far it moved the policy."""
    t, floor = x.t[1:] / 1000, 1e-6
    many_runs(clip, t, 100 * x.clip[:, 1:], x.labels)
    many_runs(kl, t, np.maximum(x.kl[:, 1:], floor), x.labels, middle=True)
    kl.set_yscale("log")
    kl.set_ylim(bottom=floor)
    kl.set_xlim(0, t[-1])
    finish(clip, "", "decisions clipped (%)", "at the end of each update: how much is clipped")
    finish(
        kl,
        "thousand transitions",
        "KL(old || new) in nats (log scale)",
        "and how far it has moved the policy (at the edge: less)",
    )


def slippery() -> MDP:
    """Four by four cells, -1 per step, in which every fifth step slips; gamma = .95."""
    return envs.grid("S... .... .... ...G", step=-1, slip=0.2, gamma=0.95)


def gae_over_lambda(rng: Rng, runs: int) -> Figure:
    """Bias and deviation of GAE for a wrong V."""
    world = slippery()
    V = evaluate(induce(world, softmax(np.zeros((world.S, world.A))))) + 2 * rng.normal(size=world.S)
    x = gae(world, np.zeros((world.S, world.A)), V, rng, runs=runs)
    figure = sheet(15.6, 4.7, EPISODES.format(runs) + " (left and middle: those that begin with the action)")
    left, middle, right = figure.subplots(1, 3)
    first_advantages(left, middle, x, world.names.actions)
    gradient_errors(right, x)
    title = "4 × 4 grid, slip 0.2, γ = 0.95,\nV wrong by 2 (normal) in each state"
    finish(left, "λ", r"bias of $\hat A$ in the start state", title)
    left.get_legend().remove()
    finish(middle, "λ", r"standard deviation of $\hat A$", "the same estimates")
    finish(right, "λ", "error of the gradient of one episode", "the policy gradient")
    for ax in (middle, right):
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
        ax.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    return figure


def first_advantages(left: Axes, middle: Axes, x: Gae, names: Sequence[str]) -> None:
    """Bias and deviation of the first advantage of an episode, for each first action."""
    for a, name in enumerate(names):
        here = np.where(x.action == a, x.error, np.nan)
        centre = np.interp(x.shown, x.lam, x.bias[:, a])[:, None]
        exact_line(left, x.lam, x.bias[:, a], a, name)
        exact_line(middle, x.lam, x.std[:, a], a, f"first action {name}")
        sampled_points(left, x.shown + 0.007 * (a - 1.5), here, a)
        sampled_points(middle, x.shown, (here - centre) ** 2, a, root=True)


def gradient_errors(ax: Axes, x: Gae) -> None:
    """Bias, deviation and root mean square error of the gradient."""
    rms = np.hypot(x.gradient_bias, x.gradient_std)
    exact_line(ax, x.lam, x.gradient_bias, 4, r"bias $|E\,g - \nabla J|$")
    exact_line(ax, x.lam, x.gradient_std, 6, "standard deviation")
    exact_curve(ax, x.lam, rms, "root mean square error")
    sampled_points(ax, x.shown, x.gradient_error, 4)
    sampled_points(ax, x.shown, x.gradient_square, 6, root=True)
    best, least = x.lam[rms.argmin()], rms.min()
    ax.plot(best, least, "v", color=INK, ms=7, zorder=6, label=f"least at λ = {best:.2f}")


def baseline_variance(rng: Rng, runs: int) -> Figure:
    """Variance of REINFORCE with baselines, for one state and along the way on a grid."""
    wait = MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[-1, 2], [0, 0]], 1.0, terminal=[0, 1], mu=[1, 0])
    x, y = parabola(wait, np.zeros((2, 2)), rng, runs=50 * runs), baselines(slippery(), rng, runs=runs)
    note = f"left: {50 * runs:,} episodes; both: the same episodes for all baselines"
    figure = sheet(13.2, 4.8, f"{EPISODES.format(runs)}; {note}")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    exact_curve(left, x.b, x.total, "exact")
    for i, name, b, square in zip((0, 2, 3), ("none", "V", "best"), x.marks, x.square, strict=True):
        sampled_points(left, np.array([b]), square[None], i, label=f"{name}: b = {minus(f'{b:.3g}')}")
    title = "waiting costs 1, leaving pays 2, even odds: V is worse than none"
    finish(left, "baseline b in the only state", r"variance of the gradient, $E|g - \nabla J|^2$", title)
    left.legend(frameon=False, fontsize=9, loc="upper center")
    for i, label in enumerate(y.labels):
        exact_line(right, y.J, y.total[i], i, label, dash=DASHES[i == 3])
        sampled_points(right, y.J[y.shown], y.square[i], i)
    right.axvline(y.best, color=INK, ls=DASHES[1], lw=1.2, label=f"J*: {minus(f'{y.best:.4g}')}", zorder=4)
    right.set_yscale("log")
    title = "4 × 4 grid, slip 0.2, γ = 0.95, along exact natural gradient ascent"
    finish(right, r"$J(\theta)$, from the uniform policy on", "the same (log scale)", title)
    return figure


def policy_simplex(rng: Rng, runs: int) -> Figure:
    """Paths through the simplex of a bandit with three arms."""
    mdp = bandit()
    x, y = exact_paths(mdp, STARTS), sampled_paths(mdp, STARTS[0], rng, runs=runs)
    figure = sheet(15.6, 5.2, f"left: dots: every 20th update; middle and right, {runs} runs: {EACH}")
    left, middle, right = figure.subplots(1, 3)
    for ax, title in ((left, "exact, three starts, step size 0.4"), (middle, "sampled, from one start")):
        simplex(ax, mdp.r[0], [f"arm {i + 1}: pays {p:g}" for i, p in enumerate(mdp.r[0])])
        ax.set_title(title, fontsize=10.5)
    for k in range(len(STARTS)):
        simplex_path(left, x.gradient[k], 2, "_" * (k > 0) + "gradient ascent", every=20)
        simplex_path(left, x.natural[k], 3, "_" * (k > 0) + "natural gradient ascent", every=20)
    for i, pi in enumerate(y.pi):
        simplex_path(middle, pi[0, :0], i, y.labels[i])
        for one in pi:
            simplex_path(middle, one, i, lw=0.7, alpha=0.6)
    simplex_path(middle, y.gradient, 2, "gradient ascent, exact", color=INK, ls=DASHES[1])
    for ax in (left, middle):
        ax.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 0.06))
    worth(right, mdp.r[0], x, y)
    return figure


def worth(ax: Axes, value: F, x: ExactPaths, y: SampledPaths) -> None:
    """J of the sampled policies, and of the exact ones from the same start, over updates."""
    k = np.arange(float(len(y.gradient)))
    many_runs(ax, y.k.astype(np.float64), np.swapaxes(y.pi @ value, 1, 2), y.labels)
    exact_curve(ax, k, y.gradient @ value, "gradient ascent, exact", dash=1)
    exact_curve(ax, k, x.natural[0] @ value, "natural gradient ascent, exact")
    exact_level(ax, float(value.max()), f"J*: {value.max():g}", dash=3)
    finish(ax, "update", r"$J(\theta)$, exact", "what these policies are worth")
    ax.legend(frameon=False, fontsize=9, loc="lower right")


POLICIES: dict[str, Picture] = {
    "policy-gradients": Picture(
        "Exact J of REINFORCE, actor-critic, A2C, PPO and TRPO on a grid", policy_gradients, 20
    ),
    "gae": Picture("Bias and deviation of generalised advantages over lambda, for a wrong V", gae_over_lambda, 8000),
    "baselines": Picture("Variance of REINFORCE's gradient with four baselines", baseline_variance, 2000),
    "simplex": Picture("Gradient, natural gradient, REINFORCE and PPO through a bandit's simplex", policy_simplex, 30),
    "frozen-lake-ppo": Picture("PPO on the slippery lake: usual settings, and some that reach J*", frozen_lake_ppo, 8),
}
