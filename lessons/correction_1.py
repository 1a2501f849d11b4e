"""Correction 1: no factor log pi in the objective of PPO.

Where the objective is written with a factor log pi(a|s) behind the clipped ratio, the product rule gives two terms:

    wrong    E[min(rho A, clip(rho) A) log pi],   derivative with respect to log pi at rho = 1: A (1 + log pi)
    right    E[min(rho A, clip(rho) A)],                                                        A

1. 1 + log pi is negative wherever pi < 1/e: a good action that is not yet likely is pushed down, a bad one that is
   unlikely is pushed up. From (.2, .7, .1) exact ascent loses the best action for ever and ends between the two others,
   at a J in closed form. From other starts it ends at another balance, or even with the worst action; never at 1.
2. The ratio alone already carries the score: the gradient of rho is rho grad log pi.
3. There is a charitable reading. Held constant (a stop-gradient), the clipped ratio times A is a weight, and log pi is
   what is differentiated. At rho = 1 that is the policy gradient. For A >= 0 it is the CISPO loss without a lower
   bound: the weight stays at 1 + eps beyond the clip, where PPO's gradient is 0.

The experiment runs on three arms that pay 1, .5 and 0. pi (...,3); A = r - pi . r; J = pi . r; eps = .2.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tabrl import losses
from tabrl.mdp import MDP
from tabrl.policy import log, log_softmax, through_log
from tabrl.summary import standard_error
from tabrl.types import F

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rule = Callable[[F, F, F], F]  # derivative of a loss with respect to logp, from logp, logp_old and A
PAYS, START = np.array([1.0, 0.5, 0.0]), np.array([0.2, 0.7, 0.1])
ETA, BATCH, RUNS, SEED, UPDATES = 0.5, 32, 20, 1, 1000
STARTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)


class Found(NamedTuple):
    """What sampled learners did: probabilities (updates+1,runs,3) from START, and final J over STARTS (starts,runs)."""

    path: dict[str, F]
    final: dict[str, F]


def world() -> MDP:
    """Three arms that pay 1, .5 and 0; one pull is an episode.

    >>> world()
    MDP(S=2, A=3, gamma=1, 1 terminal, dense)
    """
    P = np.tile([0.0, 1.0], (2, 3, 1))
    return MDP(P, [PAYS, np.zeros(3)], 1.0, mu=[1, 0], terminal=[False, True])


def right(logp: F, logp_old: F, A: F) -> F:
    """PPO-clip: the derivative of -min(rho A, clip(rho) A)."""
    return np.asarray(losses.d_ppo_clip(logp, logp_old, A))


def charitable(logp: F, logp_old: F, A: F) -> F:
    """The derivative of -stop(min(rho A, clip(rho) A)) log pi: the clipped loss itself."""
    return np.asarray(losses.ppo_clip(logp, logp_old, A))


def wrong(logp: F, logp_old: F, A: F) -> F:
    """The mistake: the derivative of -min(rho A, clip(rho) A) log pi, by the product rule.

    >>> wrong(np.log([0.2]), np.log([0.2]), np.array([1.0])).round(3)      # right: -1, minimising pushes up
    array([0.609])
    """
    return right(logp, logp_old, A) * logp + charitable(logp, logp_old, A)


RULES: dict[str, Rule] = {"right": right, "wrong": wrong, "stop-gradient": charitable}


def direction(rule: Rule, pi: F, pi_old: F, weight: F) -> F:
    """What ascent adds to theta: -sum over a of weight(a) rule(a) grad log pi(a), all (...,3).

    weight: pi_old for the exact mean, shares of the actions in a batch for an estimate. At pi = pi_old `right` gives
    the gradient of J, and `wrong` the mean of A (1 + log pi) grad log pi.

    >>> direction(right, START, START, START).round(4)
    array([ 0.09 , -0.035, -0.055])
    >>> direction(wrong, START, START, START).round(4)
    array([-0.0537, -0.0185,  0.0722])
    """
    A = PAYS - (pi_old @ PAYS)[..., None]
    return through_log(pi, -weight * rule(log(pi), log(pi_old), A))


def ascend(rule: Rule, start: F, updates: int, *, epochs: int = 1, rng: np.random.Generator | None = None) -> F:
    """Probabilities after 0, 1, … updates of `epochs` steps each, (updates+1,...,3).

    Exact ascent; with rng every update draws BATCH actions, with advantages that are still exact, so that the mean of
    the estimate is the exact direction.
    """
    theta, path = np.log(start), [start]
    for _ in range(updates):
        pi_old = np.exp(log_softmax(theta))
        weight = pi_old if rng is None else rng.multinomial(BATCH, pi_old) / BATCH
        for _ in range(epochs):
            theta = theta + ETA * direction(rule, np.exp(log_softmax(theta)), pi_old, weight)
        path.append(np.exp(log_softmax(theta)))
    return np.array(path)


def trap() -> F:
    """Where wrong ascent ends once the best arm is lost, (3,): it stops between the two others.

        1 + (1-p) log p + p log(1-p) = 0,   p the larger root; J = p/2

    There A (1 + log pi) is the same for both. p > 1/2 is stable, its mirror image is not.

    >>> trap().round(4), (trap() @ PAYS).round(4)
    (array([0.    , 0.7173, 0.2827]), np.float64(0.3586))
    """
    from scipy.optimize import brentq

    p = brentq(lambda p: 1 + (1 - p) * np.log(p) + p * np.log1p(-p), 0.5, 0.99, xtol=1e-15)
    return np.array([0.0, p, 1 - p])


def balance() -> F:
    """Where wrong ascent ends otherwise, (3,): A (1 + log pi) is the same for all three arms.

    >>> balance().round(4), (balance() @ PAYS).round(4)
    (array([0.5894, 0.1247, 0.286 ]), np.float64(0.6517))
    """
    from scipy.optimize import root

    def gap(p: F) -> F:
        return np.append(np.diff((PAYS - p @ PAYS) * (1 + np.log(p))), p.sum() - 1)

    return np.asarray(root(gap, [0.6, 0.1, 0.3], tol=1e-14).x)


def from_best(p: float) -> F:
    """A start with probability p of the best arm, the others 7 to 1 as in START.

    >>> from_best(0.2)
    array([0.2, 0.7, 0.1])
    """
    return np.array([p, (1 - p) * 7 / 8, (1 - p) / 8])


@cache
def threshold(updates: int = 600) -> float:
    """The least p of `from_best` from which wrong ascent keeps the best arm: a search on ever finer grids.

    >>> round(threshold(), 3)
    0.406
    """
    low, high = 0.2, 0.9
    for _ in range(3):
        p = np.linspace(low, high, 41)
        final = ascend(wrong, np.array([from_best(x) for x in p]), updates)[-1, :, 0]
        low, high = p[(final > 0.5).argmax() + np.array([-1, 0])]
    return float(high)


def basin(n: int = 50, updates: int = 400) -> tuple[F, F]:
    """Starts on a lattice in the simplex (N,3), and J where wrong ascent is after many updates (N,)."""
    i, j = np.array([(i, j) for i in range(n) for j in range(n - i)]).T
    starts = (np.column_stack([i, j, n - 1 - i - j]) + 1 / 3) / n
    return starts, ascend(wrong, starts, updates)[-1] @ PAYS


def experiment(*, runs: int = RUNS, updates: int = UPDATES) -> Found:
    """Let sampled learners ascend by the right and by the wrong rule, from START and from other starts."""
    rng = np.random.default_rng(SEED)
    path, final = {}, {}
    for name in ("right", "wrong"):
        starts = np.repeat([START, *(from_best(p) for p in STARTS)], runs, axis=0)
        both = ascend(RULES[name], starts, updates, rng=rng)
        path[name], final[name] = both[:, :runs], (both[-1, runs:] @ PAYS).reshape(len(STARTS), runs)
    return Found(path, final)


def figure(fig: "Figure") -> None:
    """Draw factor, J, simplex, starts, clip and epochs; fig: an empty figure, about 14 by 8 inches, "constrained"."""
    axes, found = fig.subplots(2, 3).ravel(), experiment()
    draw_push(axes[0], axes[4])
    draw_J(axes[1], found)
    draw_simplex(axes[2], found)
    draw_starts(axes[3], found)
    draw_epochs(axes[5])


def draw_push(ax: "Axes", clip: "Axes") -> None:
    """Draw what multiplies grad log pi for A = 1, against the probability at ratio 1, and against the ratio."""
    from tabrl.lessons._drawing import WRONG, finish

    p, rho, old = np.linspace(0.02, 1, 200), np.linspace(0.4, 2, 801), np.full(801, np.log(0.2))
    for name, rule, style in styles():
        clip.plot(rho, -rule(np.log(0.2 * rho), old, np.ones(801)), label=f"{name}, exact", **style)
        if rule is not charitable:
            ax.plot(p, -rule(np.log(p), np.log(p), np.ones(200)), label=f"{name}, exact", **style)
    ax.axvspan(0, np.exp(-1), color=WRONG, alpha=0.1, lw=0)
    ax.annotate("π < 1/e: good actions\nare pushed down", (0.39, -1.2), fontsize=9, va="top")
    for x in (ax, clip):
        x.axhline(0, color="black", lw=0.7)
    clip.annotate("wrong is exactly\nlike stop-gradient here", (1.23, 1.1), fontsize=8.5, va="top")
    finish(ax, "probability π(a|s) of the action", "push on log π for A = 1", "The factor turns the sign")
    finish(clip, "ratio ρ = π / π_old (π_old = .2, A = 1)", "push on log π", "PPO stops at 1 + ε, a weight does not")


def styles() -> list[tuple[str, Rule, dict[str, Any]]]:
    """Name, rule and style of line of the three rules."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG

    looks = ((RIGHT, "-"), (WRONG, "-"), (OTHER, "--"))
    return [(*x, {"color": c, "ls": ls, "lw": 1.8}) for x, (c, ls) in zip(RULES.items(), looks, strict=True)]


def draw_J(ax: "Axes", found: Found) -> None:
    """Draw J over updates: exact ascent, runs, and where they must end."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, level, paths

    k = np.arange(1, len(found.path["right"]))
    for name, colour in (("right", RIGHT), ("wrong", WRONG)):
        paths(ax, k, found.path[name][1:] @ PAYS, colour, f"{name}, {RUNS} runs of {BATCH} draws, ± 2 se")
        ax.plot(k, ascend(RULES[name], START, len(k))[1:] @ PAYS, color=colour, lw=1.8, label=f"{name}, exact ascent")
    level(ax, 1.0, 1.1)
    level(ax, trap() @ PAYS, 1.1)
    ax.set(xscale="log", ylim=(0.3, 1.35))
    finish(ax, "update k", "J (reward)", "From π₀ = (.2, .7, .1)", legend="upper left")


def corners(pi: F) -> tuple[F, F]:
    """Plane coordinates of points in the simplex: best arm on top, second left, third right."""
    return pi[..., 2] + pi[..., 0] / 2, pi[..., 0] * np.sqrt(3) / 2


def draw_simplex(ax: "Axes", found: Found) -> None:
    """Draw paths in the simplex over the region from which wrong ascent loses the best arm."""
    from tabrl.lessons._drawing import RIGHT, WRONG

    starts, J = basin()
    for low, high, alpha in ((0.0, 0.2, 0.35), (0.2, 0.5, 0.13)):
        ax.scatter(*corners(starts[(low < J) & (high > J)]), s=14, marker="h", color=WRONG, alpha=alpha, lw=0)
    ax.plot(*corners(np.eye(3)[[0, 1, 2, 0]]), color="black", lw=1)
    for name, colour in (("right", RIGHT), ("wrong", WRONG)):
        ax.plot(*corners(found.path[name][:, :4]), color=colour, lw=0.5, alpha=0.5)
        ax.plot(*corners(ascend(RULES[name], START, UPDATES)), color=colour, lw=2, label=f"{name} (thin: 4 runs)")
    ax.plot(*corners(START), "o", color="black", ms=6)
    ax.plot(*corners(np.array([trap(), balance(), [0, 0, 1]])), "X", color=WRONG, ms=9, clip_on=False, zorder=5)
    for text, x, y, va in (("pays 1", 0.5, 0.89, "bottom"), ("pays .5", 0, -0.02, "top"), ("pays 0", 1, -0.02, "top")):
        ax.text(x, y, text, ha="center", va=va, fontsize=9)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(-0.12, 1.0))
    ax.set(aspect="equal", xlim=(-0.2, 1.1), ylim=(-0.08, 1.0))
    ax.set_axis_off()
    ax.set_title("Wrong ascent ends at the crosses: white at .65,\nlight at .36, dark at 0", fontsize=10)


def draw_starts(ax: "Axes", found: Found) -> None:
    """Draw the final J against the probability of the best arm at the start."""
    from tabrl.lessons._drawing import GREY, RIGHT, WRONG, finish, level, points

    p = np.linspace(0.02, 0.9, 177)
    starts, edge = np.array([from_best(x) for x in p]), threshold()
    for name, colour, marker in (("right", RIGHT, "o"), ("wrong", WRONG, "s")):
        ax.plot(p, ascend(RULES[name], starts, UPDATES)[-1] @ PAYS, color=colour, lw=1.5, label=f"{name}, exact ascent")
        points(ax, np.array(STARTS), found.final[name], colour, f"{name}, {RUNS} runs ± 2 se", marker)
    ax.axvline(edge, color=GREY, ls=":", lw=1.2)
    ax.annotate(f"{edge:.3f}", (edge, 0.29), (3, 0), textcoords="offset points", fontsize=9)
    level(ax, trap() @ PAYS, 0.62)
    level(ax, balance() @ PAYS, 0.02)
    ax.set_ylim(0.25, 1.4)
    x, y = "probability of the best arm at the start", f"J after {UPDATES} updates (reward)"
    finish(ax, x, y, "The wrong ascent never reaches 1", legend="upper left")


def draw_epochs(ax: "Axes", updates: int = 60, epochs: int = 10) -> None:
    """Draw J over updates of ten exact epochs each, by all three rules."""
    from tabrl.lessons._drawing import finish

    for name, rule, style in styles():
        y = ascend(rule, START, updates, epochs=epochs) @ PAYS
        ax.plot(np.arange(updates + 1), y, label=f"{name}, exact, ends at {y[-1]:.3f}", **style)
    finish(ax, "update", "J (reward)", f"With the clip at work: {epochs} epochs per update", legend="center right")


def main() -> None:
    """Print the findings."""
    for name, path in experiment().path.items():
        y, k = path[-1] @ PAYS, len(path) - 1
        exactly = ascend(RULES[name], START, k)[-1] @ PAYS
        print(f"{name}: J after {k} updates {exactly:.4f} exact, {y.mean():.4f} ± {2 * standard_error(y):.4f} sampled")
    print(f"limit of the wrong ascent: pi = {trap().round(4)}, J = {trap() @ PAYS:.6f}; from "
          f"p >= {threshold():.4f} it ends at {balance().round(4)}, J = {balance() @ PAYS:.6f}")  # fmt: skip
    for name, rule in RULES.items():
        print(f"{name}, 60 updates of 10 epochs: J = {ascend(rule, START, 60, epochs=10)[-1] @ PAYS:.4f}")


if __name__ == "__main__":
    main()
