"""Correction 15: a group of equal rewards teaches nothing, and the mean of a group contains the sample itself.

"GRPO produces different advantages across the group" is true of groups whose rewards differ. With rewards 0 and 1, a
chance p of a right answer, and G answers in a group:

1. A group is flat, all right or all wrong, with probability p^G + (1-p)^G. Its advantages are 0, and so is its part of
   the gradient. A prompt that is answered rightly once in a thousand times stays where it is for a long time.
2. The mean of the group is a baseline that depends on the answer it is subtracted from: r_i is one of its G terms.

       mean of (1/G) sum of (r_i - mean of the group) grad log pi(o_i)  =  (G-1)/G grad p

   The mean of the *other* answers has no such factor: leave-one-out is exact, and is G/(G-1) times the former, group by
   group. With groups of one size that is a matter of the step size. The shrunk one even has the smaller error, but for
   larger groups near p = 1/2.

p (…) chance of a right answer; G answers; the estimate of a bandit with two arms is a number times grad p.
"""

from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl.envs.token_tasks import bandit, modular
from tabrl.lessons._answers import beside, binomial, mean_advantages
from tabrl.summary import standard_error
from tabrl.tokens import exact, train
from tabrl.tokens.draws import Groups
from tabrl.tokens.methods import Method, Outcome
from tabrl.tokens.table import TableLM
from tabrl.types import F

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES = (2, 4, 8, 16)  # G
CREDITS = {"mean of the group": Outcome("none"), "mean of the others": Outcome("none", leave_one_out=True)}
CHANCES = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9])
STARTS = (0.001, 0.003, 0.01)
WAITS = np.array([1, 2, 4, 8, 16, 32])
RUNS, BATCHES, SEED = 200, 20, 15


class Found(NamedTuple):
    """What was sampled."""

    flat: F  # (CHANCES,runs) share of flat groups of 8 among BATCHES
    factor: dict[str, F]  # (SIZES,runs) by baseline: mean of two estimates in multiples of grad J, along grad J
    unmoved: F  # (STARTS,WAITS,runs) 1.0 for runs whose policy has not moved after so many updates


def flat_share(p: F, G: int) -> F:
    """Probability that all answers of a group earn the same.

        p^G + (1-p)^G

    >>> flat_share(np.array([0.01, 0.5]), 8).round(4)
    array([0.9227, 0.0078])
    """
    return np.asarray(p**G + (1 - p) ** G)


def factor(p: F, G: int, *, leave_one_out: bool) -> F:
    """What the mean of the estimate is, in multiples of grad p: no std, sum over tokens.

    >>> [factor(np.array(0.3), 4, leave_one_out=x).item() for x in (False, True)]
    [0.75, 1.0]
    """
    means = mean_advantages(p, beside(G, std="none", leave_one_out=leave_one_out))
    return np.asarray(np.round(means[..., 1] - means[..., 0], 14))


def of_counts(p: F, G: int, credit: Outcome | None) -> F:
    """Estimates on a bandit of two arms by the number of right answers, in its logit: (...,G+1).

        (1/G) sum of A_i grad log pi(o_i),   grad log pi = 1 - p of a right answer, -p of a wrong one

    credit=None: the baseline is p itself, as an exact critic would give it.
    """
    k, p = np.arange(G + 1), np.asarray(p)[..., None]
    if credit is None:
        return np.asarray((k * (1 - p) ** 2 + (G - k) * p**2) / G)
    A = beside(G, std=credit.std, leave_one_out=credit.leave_one_out)
    right, wrong = A[1, np.maximum(k - 1, 0)], A[0, np.minimum(k, G - 1)]
    return np.asarray((k * right * (1 - p) - (G - k) * wrong * p) / G)


def error(p: F, G: int, credit: Outcome | None) -> F:
    """Root of the mean square error of the estimate on a bandit of two arms, over the gradient p (1-p).

    >>> error(np.array(0.5), 2, CREDITS["mean of the group"]), error(np.array(0.5), 2, CREDITS["mean of the others"])
    (array(0.70710678), array(1.))
    """
    exactly = p * (1 - p)
    off = of_counts(p, G, credit) - exactly[..., None]
    return np.asarray(np.sqrt((binomial(G, p) * off**2).sum(axis=-1)) / exactly)


@cache
def policy() -> TableLM:
    """A policy of the modular task that is not uniform: 3 tokens, 9 prefixes' logits drawn once."""
    task = modular(3, prompts=3)
    return TableLM(task, np.random.default_rng(1).normal(size=task.N * task.V))


def estimates(G: int, credit: Outcome, n: int, rng: np.random.Generator) -> F:
    """Of n batches of one group for each prompt: the estimate's part along grad J, in multiples of grad J, (n,)."""
    model, method = policy(), Method(Groups(G), credit, how="constant")
    exactly, found = exact.gradient(model.task, model), np.empty(n)
    for i in range(n):
        x = method.draw(model, rng).x
        mean = train.gradient(model, method, x, credit.advantages(train.scored(method, x, None)))
        found[i] = model.task.length * mean @ exactly / (exactly @ exactly)
    return found


def waiting(p: float, runs: int, rng: np.random.Generator) -> F:
    """1.0 for GRPO runs from p, G = 8, that are exactly where they were after WAITS updates: (WAITS,runs)."""
    task, first = bandit((1.0, 0.0)), np.empty(runs)
    start = np.log([p, 1 - p])
    for run in range(runs):
        model = TableLM(task, start)
        records = islice(train.grpo(task, model, rng, draw=Groups(8), entropy=0.0), int(WAITS[-1]))
        first[run] = next((x.k for x in records if (model.theta != start).any()), np.inf)
    return np.asarray(first > WAITS[:, None], np.float64)


def experiment(*, runs: int = RUNS) -> Found:
    """Draw groups, estimates and short runs."""
    rng = np.random.default_rng(SEED)
    k = rng.binomial(8, np.broadcast_to(CHANCES, (runs, BATCHES, len(CHANCES))))
    flat = ((k == 0) | (k == 8)).mean(axis=1).T
    factors = {
        name: np.array([estimates(G, credit, runs * BATCHES // 10, rng).reshape(runs, -1).mean(axis=1) for G in SIZES])
        for name, credit in CREDITS.items()
    }
    return Found(flat, factors, np.array([waiting(p, runs // 2, rng) for p in STARTS]))


def figure(fig: "Figure") -> None:
    """Draw shares, factors, errors and waits; fig: an empty figure, about 11 by 8 inches, layout "constrained"."""
    (share, size), (off, wait) = fig.subplots(2, 2)
    found = experiment()
    draw_share(share, found)
    draw_factor(size, found)
    draw_error(off)
    draw_wait(wait, found)


def draw_share(ax: "Axes", found: Found) -> None:
    """Draw the share of flat groups against p: exact lines, and sampled points for G = 8."""
    from tabrl.lessons._drawing import FOURTH, INK, OTHER, RIGHT, WRONG, finish, points

    p = np.linspace(0, 1, 201)
    for G, colour in zip(SIZES, (RIGHT, OTHER, WRONG, FOURTH), strict=True):
        ax.plot(p, flat_share(p, G), color=colour, lw=1.6, label=f"G = {G}, exact")
    points(ax, CHANCES, found.flat, INK, "G = 8, sampled ± 2 se")
    ax.set_ylim(0, 1.03)
    finish(
        ax,
        "chance p of a right answer",
        "share of groups",
        "Flat groups, all right or all wrong",
        legend="upper center",
    )


def draw_factor(ax: "Axes", found: Found) -> None:
    """Draw the mean of the estimate, in multiples of the exact gradient, against G."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, points

    G = range(2, 17)
    for (name, y), colour, marker, aside in zip(found.factor.items(), (WRONG, RIGHT), "os", (0.98, 1.02), strict=True):
        exactly = [factor(np.array(0.3), g, leave_one_out=CREDITS[name].leave_one_out) for g in G]
        ax.plot(G, exactly, color=colour, lw=1.6, label=f"{name}, exact")
        points(ax, np.array(SIZES) * aside, y, colour, f"{name}, sampled ± 2 se", marker)
    ax.set(xscale="log", ylim=(0.4, 1.2))
    ax.set_xticks(SIZES, [str(g) for g in SIZES])
    ax.minorticks_off()
    finish(
        ax,
        "G, answers in a group",
        "mean estimate / exact gradient",
        "The own reward in the mean: (G − 1)/G",
        legend="lower right",
    )


def draw_error(ax: "Axes") -> None:
    """Draw the relative error of both baselines against p."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish

    p = np.linspace(0.05, 0.95, 181)
    for G, style in ((2, "--"), (8, "-")):
        for (name, credit), colour in zip(CREDITS.items(), (WRONG, RIGHT), strict=True):
            ax.plot(p, error(p, G, credit), color=colour, ls=style, lw=1.6, label=f"{name}, G = {G}, exact")
    ax.set_ylim(0, 4.2)
    finish(
        ax,
        "chance p of a right answer",
        "rms error / exact gradient",
        "Error of one group’s estimate",
        legend="upper center",
    )


def draw_wait(ax: "Axes", found: Found) -> None:
    """Draw the share of runs that have not moved, against updates: exact lines, counted points."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish, points

    k = np.arange(1, WAITS[-1] + 1)
    for p, y, colour in zip(STARTS, found.unmoved, (WRONG, OTHER, RIGHT), strict=True):
        ax.plot(k, flat_share(np.array(p), 8) ** k, color=colour, lw=1.6, label=f"start p = {p:g}, exact")
        points(ax, WAITS, y, colour)
    ax.set_ylim(-0.03, 1.08)
    finish(ax, "updates", "share of runs", f"Policies that have not moved (G = 8, {y.shape[1]} runs ± 2 se)")


def main() -> None:
    """Print the findings."""
    found = experiment()
    for p, y in zip(CHANCES, found.flat, strict=True):
        print(
            f"p = {p:<4g} flat groups of 8: {flat_share(p, 8):.4f} exact, {y.mean():.4f} ± {2 * standard_error(y):.4f}"
        )
    for name, rows in found.factor.items():
        for G, y in zip(SIZES, rows, strict=True):
            exactly = factor(np.array(0.3), G, leave_one_out=CREDITS[name].leave_one_out)
            print(
                f"{name}, G = {G:2}: {exactly:.4f} grad J exact, {y.mean():.4f} ± {2 * standard_error(y):.4f} sampled"
            )
    for G in SIZES:
        own, others, known = (error(np.array(0.3), G, x) for x in (*CREDITS.values(), None))
        print(
            f"rms error at p = .3, G = {G:2}: {own:.4f} with the group, {others:.4f} with the others, "
            f"{known:.4f} with p itself"
        )
    for p, y in zip(STARTS, found.unmoved, strict=True):
        k = len(WAITS) - 1
        print(f"start p = {p:g}: not moved after {WAITS[k]} updates "
              f"{flat_share(np.array(p), 8) ** WAITS[k]:.4f} exact, "
              f"{y[k].mean():.4f} ± {2 * standard_error(y[k]):.4f} of the runs")  # fmt: skip


if __name__ == "__main__":
    main()
