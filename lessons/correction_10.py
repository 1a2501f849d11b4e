"""Correction 10: which importance ratios PPO uses, and what they need.

To price a policy pi with episodes of another policy b, every reward must be weighed by the product of the ratios
rho = pi/b of all actions before it. "PPO uses importance sampling" leaves out two things:

1. PPO uses the ratio of one step, not the product. With states as b visits them, sum of gamma^t rho_t r_t has the mean
   d_b . r_pi, which is wrong to first order in pi - b. Put on advantages, L = J(b) + sum of gamma^t rho_t A_b(s_t, a_t)
   is J(pi) to first order, with an error of second order: a local approximation, good near b and nowhere else. In
   return its variance stays bounded, while that of the product grows exponentially with the length of the episode,
   and is infinite once the spectral radius of B = sum of pi^2/b P reaches 1.
2. b must try whatever pi does. Where it does not, no sample can show it: every estimate settles at another number,
   which is exact here too. Then the mean of the weights is below 1, the one symptom there is.

The experiment runs on a corridor, with pi between b and always "on". All lines are exact.

theta how far pi is from b; J expected return from the start; X one estimate per episode; W product of all ratios.
"""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import importance, sample
from tabrl.bellman import q_from_v
from tabrl.chain import average, evaluate, induce, objective
from tabrl.errors import ModelError
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.returns import discounted_sum
from tabrl.summary import standard_error
from tabrl.types import Episode, F, Names
from tabrl.weights import per_decision_returns, ratios

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("product", "per decision", "one step, on rewards", "one step, on advantages")
THETAS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
RUNS, EPISODES, SEED = 20, 250, 10


class Moments(NamedTuple):
    """Exact mean and variance of what one episode says about J(pi), by kind of ratio."""

    mean: F  # (4,)
    variance: F  # (4,) may be inf


class Found(NamedTuple):
    """What the experiment gives: sampled means and variances over theta, and estimates without support."""

    mean: F  # (thetas,4,runs)
    variance: F  # (thetas,4,runs)
    silent: F  # (3,n,runs) per decision, weighted, mean weight after 1 … n episodes


class Silent(NamedTuple):
    """Where estimates settle when b never takes some actions of pi."""

    J: float  # the truth
    per_decision: float
    weighted: float
    weight: float  # mean of W, below 1


def world() -> MDP:
    """A corridor of four rooms: back or on by one room; every step ends it with probability .1.

    Room i pays i, less .3 for going on; gamma = .9, start in room 0.

    >>> world()
    MDP(S=5, A=2, gamma=0.9, 1 terminal, dense)
    """
    P, R, i = np.zeros((5, 2, 5)), np.zeros((5, 2)), np.arange(4)
    P[i, 0, np.maximum(i - 1, 0)] = P[i, 1, np.minimum(i + 1, 3)] = 0.9
    P[i, :, 4] = 0.1
    R[i, 0], R[i, 1] = i, i - 0.3
    names = Names(("0", "1", "2", "3", "end"), ("back", "on"))
    return MDP(P, R, 0.9, mu=np.eye(5)[0], terminal=np.arange(5) == 4, names=names)


def behaviour() -> F:
    """Both actions with probability 1/2."""
    return np.full((5, 2), 0.5)


def target(theta: float) -> F:
    """(1 - theta) b + theta "on"; theta = 0 is b.

    >>> target(0.5)[0]
    array([0.25, 0.75])
    """
    return (1 - theta) * behaviour() + theta * np.array([0.0, 1.0])


def advantages(mdp: MDP, b: F) -> tuple[F, F]:
    """V_b (S,), and A_b = Q_b - V_b (S,A), 0 in terminal states."""
    V = evaluate(induce(mdp, b))
    return V, np.where(mdp.terminal[:, None], 0.0, q_from_v(mdp, V) - V[:, None])


def one_step(mdp: MDP, pi: F, b: F, x: F) -> MDP:
    """The model whose return under b is sum of gamma^t rho_t x(s_t, a_t); x (S,A) rewards or advantages, b > 0."""
    return MDP(mdp.P, x * pi / b, mdp.gamma, mu=mdp.mu, terminal=mdp.terminal)


def exact(mdp: MDP, pi: F, b: F) -> Moments:
    """Mean and variance of all four estimates of J(pi) from one episode of b.

        product, per decision   mean J(pi)
        one step, on rewards    mean d_b . r_pi
        one step, on advantages mean L = J(b) + d_b . (sum over a of pi A_b)

    Start in one state; rewards R(s,a); b > 0. b = pi makes all means J(b). Source: Kakade & Langford (2002) for L;
    ledger E1.14.

    >>> exact(world(), target(0.2), behaviour()).mean.round(3)
    array([4.895, 4.895, 3.51 , 4.866])
    """
    s = int(mdp.mu.argmax())
    V, A = advantages(mdp, b)
    single = [importance.per_decision(one_step(mdp, pi, b, x), b, b) for x in (mdp.r, A)]
    every = [importance.trajectory(mdp, pi, b), importance.per_decision(mdp, pi, b), *single]
    mean = np.array([x.mean[s] for x in every])
    mean[3] += V[s]
    return Moments(mean, np.array([x.variance[s] for x in every]))


def horizons(mdp: MDP, pi: F, b: F, steps: int) -> F:
    """Variance of the four estimates from the first n = 1 … steps steps alone, (steps,4).

    >>> horizons(world(), target(0.5), behaviour(), 40)[[9, 19, 39], 0].round(0)
    array([  498.,  4819., 82083.])
    """
    s = int(mdp.mu.argmax())
    whole = importance.truncated(mdp, pi, b, steps)
    single = [importance.truncated(one_step(mdp, pi, b, x), b, b, steps) for x in (mdp.r, advantages(mdp, b)[1])]
    return np.array([
        (x.trajectory[s], x.per_decision[s], y.per_decision[s], z.per_decision[s])
        for x, y, z in zip(whole, *single, strict=True)
    ])  # fmt: skip


def estimates(x: Episode, pi: F, V: F, A: F) -> F:
    """The four estimates of J(pi) from one episode; V, A (`advantages`) are those of the policy that acted."""
    rho = rho_of(x, pi)
    G = discounted_sum(x.r, x.discount)[0]
    decided = per_decision_returns(x.r, x.discount, rho)[0]
    s, a = x.s[:-1], x.a
    single = [discounted_sum(rho * y, x.discount)[0] for y in (x.r, A[s, a])]
    return np.array([rho.prod() * G, decided, single[0], V[s[0]] + single[1]])


def rho_of(x: Episode, pi: F) -> F:
    """Ratios of the actions of an episode."""
    with np.errstate(divide="ignore"):
        return ratios(np.log(pi[x.s[:-1], x.a]), x.logp)


def timid() -> F:
    """A policy without support: b, but never on from room 1.

    >>> importance.per_decision(world(), target(0.5), timid())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tabrl.errors.ModelError: b[s=1, a=1] is 0 where pi[s=1, a=1] is 0.75; the behaviour policy must try every action...
    """
    b = behaviour()
    b[1] = 1.0, 0.0
    return b


def silent(mdp: MDP, pi: F, b: F) -> Silent:
    """Where the estimates settle when b never takes some actions of pi.

        per decision  pi's return up to the first action that b never takes
        mean weight   h, the probability that pi takes no such action
        weighted      pi's return given that it takes none

    With full support: J, J and 1. Start in one state. pi, b: (S,A).

    >>> [round(x, 3) for x in silent(world(), target(0.5), timid())]
    [6.676, -0.108, 0.037, 0.188]
    """
    s = int(mdp.mu.argmax())
    seen = pi * (b > 0)
    P, PR = (average(mdp, seen, mdp.weighted(k)) for k in (0, 1))
    ends = mdp.terminal.astype(np.float64)
    h = solve(P, 1.0, P @ ends) + ends
    W_G, decided = solve(P, mdp.gamma, np.column_stack([PR @ h, PR.sum(axis=1)])).T
    J = objective(induce(mdp, pi), mdp.mu)
    return Silent(J, float(decided[s]), float(W_G[s] / h[s]), float(h[s]))


def overlooked(episodes: Sequence[Episode], pi: F) -> F:
    """Running estimates from episodes as they are recorded: per decision, weighted, mean weight; (3,n)."""
    rows = []
    for x in episodes:
        rho = rho_of(x, pi)
        W = rho.prod()
        rows.append((per_decision_returns(x.r, x.discount, rho)[0], W * discounted_sum(x.r, x.discount)[0], W))
    total = np.cumsum(rows, axis=0).T
    n, weighted = np.arange(1, len(rows) + 1), total[1] / np.where(total[2] > 0, total[2], 1.0)
    return np.array([total[0] / n, weighted, total[2] / n])


def experiment(*, runs: int = RUNS, episodes: int = EPISODES) -> Found:
    """Estimate J(pi) for several pi from the same episodes of b, and one J(pi) from episodes without support."""
    mdp, b = world(), behaviour()
    V, A = advantages(mdp, b)
    rngs = [np.random.default_rng(x) for x in np.random.SeedSequence(SEED).spawn(runs)]
    X = np.empty((len(THETAS), 4, runs, episodes))
    lost = np.empty((3, 2 * episodes, runs))
    for run, rng in enumerate(rngs):
        for k, x in enumerate(islice(sample.episodes(mdp, b, rng), episodes)):
            for i, theta in enumerate(THETAS):
                X[i, :, run, k] = estimates(x, target(theta), V, A)
        lost[:, :, run] = overlooked(list(islice(sample.episodes(mdp, timid(), rng), 2 * episodes)), target(0.5))
    return Found(X.mean(axis=3), X.var(axis=3, ddof=1), lost)


def orders(mdp: MDP, b: F, theta: float = 1e-3) -> F:
    """How fast the biases of the two one-step estimates vanish as theta does: log2 of bias(2 theta) / bias(theta).

    >>> orders(world(), behaviour()).round(2)
    array([1., 2.])
    """
    means = np.array([exact(mdp, target(x), b).mean for x in (theta, 2 * theta)])
    bias = abs(means[:, 2:] - means[:, :1])
    return np.asarray(np.log2(bias[1] / bias[0]))


def figure(fig: "Figure") -> None:
    """Draw means, biases, variances, horizons, missing support; fig: empty, about 13 by 8 inches, "constrained"."""
    mdp, b, found = world(), behaviour(), experiment()
    axes = fig.subplots(2, 3).ravel()
    grid = np.append(np.geomspace(0.01, 0.1, 11), np.linspace(0.11, 1, 90))
    lines = [exact(mdp, target(theta), b) for theta in grid]
    draw_means(axes[0], grid, np.array([x.mean for x in lines]), found)
    draw_biases(axes[1], grid, np.array([x.mean for x in lines]))
    draw_variances(axes[2], grid, np.array([x.variance for x in lines]), found)
    draw_horizons(axes[3], horizons(mdp, target(0.5), b, 60), importance.radii(mdp, target(0.5), b).trajectory)
    x, y = silent(mdp, target(0.5), timid()), found.silent
    lost = {"per decision": (y[0], x.per_decision), "weighted": (y[1], x.weighted)}
    draw_running(axes[4], x.J, lost, (-1, 12))
    axes[4].set_ylabel("estimate of J(π) (reward)")
    axes[4].set_title("b never goes on from room 1: silently wrong", fontsize=10)
    draw_running(axes[5], 1.0, {"without": (y[2], x.weight)}, (0, 1.75))
    axes[5].set_ylabel("mean weight W")
    axes[5].set_title("The symptom: weights that do not average to 1", fontsize=10)


def palette() -> tuple[list[str], str]:
    """Colours and markers of the four kinds."""
    from tabrl.plots import COLOURS

    return [COLOURS[i] for i in (1, 4, 3, 0)], "s^vo"


def draw_means(ax: "Axes", grid: F, mean: F, found: Found) -> None:
    """Draw the four exact means over theta, and samples."""
    from tabrl.plots import tidy
    from tabrl.plots.grid import INK

    ax.plot(grid, mean[:, 0], color=INK, lw=1.6, label="J(π), exact")
    colours, markers = palette()
    for k, kind in enumerate(KINDS):
        if k > 1:
            ax.plot(grid, mean[:, k], color=colours[k], lw=1.4)
        at, y = np.array(THETAS) + 0.012 * (k - 1.5), found.mean[:, k]
        half = 2 * standard_error(y)
        ax.errorbar(at, y.mean(axis=1), half, fmt=markers[k], color=colours[k], ms=4, capsize=2, lw=1, label=kind)
    ax.text(0.02, 0.02, "product: infinite variance from θ = 1/3,\nits ± 2 se means nothing there", fontsize=8.5,
            color=colours[0], transform=ax.transAxes)  # fmt: skip
    ax.set(xlabel="θ, from b (0) to always on (1)", ylabel="estimate of J(π) (reward)", ylim=(0, 17))
    ax.set_title(f"Estimates ({RUNS} runs ± 2 se; lines exact)", fontsize=10)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left")
    tidy(ax)


def draw_biases(ax: "Axes", grid: F, mean: F) -> None:
    """Draw the exact biases of the one-step estimates over theta, beside lines of slope 1 and 2."""
    from tabrl.plots import GREY, tidy

    for k in (2, 3):
        bias = abs(mean[:, k] - mean[:, 0])
        ax.plot(grid, bias, color=palette()[0][k], lw=1.8, label=f"{KINDS[k]}, exact")
        ax.plot(grid, bias[0] * (grid / grid[0]) ** (k - 1), color=GREY, ls=":", lw=1.2, label=f"slope {k - 1}")
    sign = grid[np.flatnonzero(np.diff(np.sign(mean[:, 3] - mean[:, 0])))]
    ax.annotate("changes sign", (sign[-1], 2e-3), ha="center", va="top", fontsize=8.5)
    ax.set(xscale="log", yscale="log", xlabel="θ", ylabel="|bias| (reward)")
    ax.set_title("Bias of one-step ratios: first and second order", fontsize=10)
    ax.legend(frameon=False, fontsize=8.5)
    tidy(ax)


def draw_variances(ax: "Axes", grid: F, variance: F, found: Found) -> None:
    """Draw the exact variance of one episode's estimate over theta, and where it becomes infinite."""
    from tabrl.plots import tidy

    colours, markers = palette()
    for k, kind in enumerate(KINDS):
        ax.plot(grid, np.where(np.isinf(variance[:, k]), np.nan, variance[:, k]), color=colours[k], lw=1.4)
        finite = np.isfinite(np.interp(THETAS, grid, variance[:, k]))
        y, at = found.variance[finite, k], np.array(THETAS)[finite]
        ax.errorbar(at, y.mean(axis=1), 2 * standard_error(y), fmt=markers[k], color=colours[k], ms=4, label=kind)
        if not finite.all():
            edge = grid[np.isinf(variance[:, k])][0]
            ax.axvline(edge, color=colours[k], ls=":", lw=1.2)
            ax.annotate("infinite →", (edge, 0.97 - 0.06 * k), (3, 0), ax.get_xaxis_transform(),
                        textcoords="offset points", va="top", fontsize=8.5, color=colours[k])  # fmt: skip
    ax.set(yscale="log", ylim=(3, 2e4), xlabel="θ", ylabel="variance of one episode's estimate (reward²)")
    ax.set_title("Variance (points: sampled; few episodes miss the tail)", fontsize=10)
    tidy(ax)


def draw_horizons(ax: "Axes", variance: F, radius: float) -> None:
    """Draw the exact variance against the number of steps, and the rate of the product's growth."""
    from tabrl.plots import GREY, tidy

    n = np.arange(1, len(variance) + 1)
    for k, kind in enumerate(KINDS):
        ax.plot(n, variance[:, k], color=palette()[0][k], lw=1.6, label=kind)
    ax.plot(n, variance[-1, 0] * radius ** (n - n[-1]), color=GREY, ls=":", lw=1.4, label=f"{radius:g}ⁿ, radius of B")
    ax.set(yscale="log", xlabel="steps n of an episode", ylabel="variance, exact (reward²)", ylim=(1, None))
    ax.set_title("θ = 0.5: the product's variance grows with n", fontsize=10)
    ax.legend(frameon=False, fontsize=8.5)
    tidy(ax)


def draw_running(ax: "Axes", truth: float, runs: dict[str, tuple[F, float]], ylim: tuple[float, float]) -> None:
    """Draw running means over episodes, y (n,runs), every run and an interval, where they settle, and the truth."""
    from tabrl.plots import tidy
    from tabrl.plots.grid import INK

    ax.axhline(truth, color=INK, lw=1.6, label="with support, exact")
    for k, (name, (y, settles)) in enumerate(runs.items(), 1):
        n, mean, half, colour = np.arange(1, len(y) + 1), y.mean(axis=1), 2 * standard_error(y), palette()[0][k]
        ax.plot(n, y, color=colour, lw=0.4, alpha=0.3)
        ax.plot(n, mean, color=colour, lw=1.6, label=f"{name}, {y.shape[1]} runs ± 2 se")
        ax.fill_between(n, mean - half, mean + half, color=colour, alpha=0.3, lw=0)
        ax.axhline(settles, color=colour, ls="--", lw=1.2, label=f"settles at {settles:.3f}, exact")
    ax.set(xscale="log", xlabel="episodes n", ylim=ylim)
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    tidy(ax)


def main() -> None:
    """Print the findings."""
    mdp, b, found = world(), behaviour(), experiment()
    print("mean of the estimates of J(pi): exact | sampled ± 2 se | exact variance of one episode")
    for i, theta in enumerate(THETAS):
        line = exact(mdp, target(theta), b)
        print(f"theta = {theta:g}, J = {line.mean[0]:.4f}")
        for k, kind in enumerate(KINDS):
            y = found.mean[i, k]
            sampled = f"{y.mean():6.3f} ± {2 * standard_error(y):.3f}"
            warning = "" if np.isfinite(line.variance[k]) else ": ± 2 se means nothing here"
            print(f"    {kind:24} {line.mean[k]:7.4f} | {sampled} | {line.variance[k]:.4g}{warning}")
    first, second = orders(mdp, b)
    print(f"bias of one-step ratios near b: order {first:.2f} on rewards, {second:.2f} on advantages")
    radii = importance.radii(mdp, target(0.5), b)
    print(f"theta = .5: radius of B {radii.trajectory:g} (product), of gamma² B {radii.per_decision:g} (per decision)")
    x = silent(mdp, target(0.5), timid())
    print(f"without support, theta = .5: J = {x.J:.4f}, per decision settles at {x.per_decision:.4f}, weighted at "
          f"{x.weighted:.4f}, mean weight {x.weight:.4f}")  # fmt: skip
    means = found.silent[:, -1].mean(axis=1)
    print(f"    sampled, {found.silent.shape[1]} episodes a run: {means[0]:.4f}, {means[1]:.4f}, {means[2]:.4f}")
    try:
        importance.per_decision(mdp, target(0.5), timid())
    except ModelError as error:
        print(f"    with the model at hand it is refused: {error}")


if __name__ == "__main__":
    main()
