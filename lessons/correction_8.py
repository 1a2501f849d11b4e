"""Correction 8: counting every visit gives the biased average.

"V(s) is the average of the returns that followed s, n of them" does not say what n counts. Written as it stands, n
counts visits, and a long episode brings more of them than a short one. Two things are right:

1. First visit: one return per episode. The average is unbiased for every number of episodes.
2. Every visit: all returns. The average is a ratio of two sums, biased for every finite number of episodes, by a
   number that shrinks like 1/n. Its mean-square error is nevertheless the smaller one for the first few episodes.

The experiment runs on the loop of Singh & Sutton (1996), one state that loops with probability p. Bias and
mean-square error are exact (`tabrl.visits`); n counts episodes; the points are learnt by `prediction.monte_carlo`.

n (K,) numbers of episodes; V (runs,K) estimates of many independent runs.
"""

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import envs, sample
from tabrl.chain import evaluate, induce
from tabrl.mdp import MDP
from tabrl.prediction import monte_carlo
from tabrl.summary import standard_error
from tabrl.trace import last
from tabrl.types import F, I
from tabrl.visits import Error, every_visit, every_visit_bias, every_visit_rate, first_visit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VISITS = ("first", "every")
EPISODES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32])
RUNS = 400
SEED = 8


class Finding(NamedTuple):
    """One way to count visits to state 0: what it should do, and what it did."""

    visit: str  # "first" or "every"
    n: I  # (K,) episodes
    exact: list[Error]  # (K) bias, variance and mean-square error
    V: F  # (runs,K) estimates


def world(p: float = 0.75) -> MDP:
    """The loop: stay with probability p, every step pays 1, V = 1/(1-p).

    >>> world()
    MDP(S=2, A=1, gamma=1, 1 terminal, dense)
    """
    return envs.loop(p)


def value(mdp: MDP) -> float:
    """V of state 0.

    >>> value(world())
    4.0
    """
    return float(evaluate(induce(mdp, only(mdp)))[0])


def only(mdp: MDP) -> F:
    """The policy of a model with one action."""
    return np.ones((mdp.S, 1))


def exact(mdp: MDP, visit: str, n: I) -> list[Error]:
    """Exact errors of the estimate of state 0 after n episodes.

    >>> [round(x.bias, 9) for x in exact(world(), "every", np.array([1, 2, 5]))]        # -3/(n+1)
    [-1.5, -1.0, -0.5]
    """
    error = {"first": first_visit, "every": every_visit}[visit]
    return [error(mdp, only(mdp), 0, int(k)) for k in n]


def learnt(mdp: MDP, n: I, runs: int, rng: np.random.Generator) -> dict[str, F]:
    """Estimates of state 0 by both ways of counting, on the same episodes: (runs,K) each.

    Every number of episodes has episodes of its own, so that the K columns err independently.
    """
    source = sample.episodes(mdp, only(mdp), rng)
    found = {visit: np.empty((runs, len(n))) for visit in VISITS}
    for run, k in np.ndindex(runs, len(n)):
        batch = list(islice(source, int(n[k])))
        for visit in VISITS:
            found[visit][run, k] = last(monte_carlo(batch, V=np.zeros(mdp.S), visit=visit, every=int(n[k]))).V[0]
    return found


def experiment(mdp: MDP | None = None, n: I = EPISODES, *, runs: int = RUNS, seed: int = SEED) -> list[Finding]:
    """Return both ways of counting side by side.

    >>> for x in experiment(n=np.array([1, 4, 16]), runs=2):
    ...     print(x.visit, [f"{error.bias:.3f}" for error in x.exact], [f"{error.mse:.3f}" for error in x.exact])
    first ['0.000', '0.000', '0.000'] ['12.000', '3.000', '0.750']
    every ['-1.500', '-0.600', '-0.176'] ['5.250', '2.819', '1.072']
    """
    mdp = world() if mdp is None else mdp
    V = learnt(mdp, n, runs, np.random.default_rng(seed))
    return [Finding(visit, n, exact(mdp, visit, n), V[visit]) for visit in VISITS]


def crossing(mdp: MDP, most: int = 1000) -> int:
    """Smallest number of episodes from which the first visit has the smaller mean-square error.

    >>> crossing(world())
    5
    """
    pi = only(mdp)
    for n in range(1, most + 1):
        if every_visit(mdp, pi, 0, n).mse > first_visit(mdp, pi, 0, n).mse:
            return n
    raise ValueError(f"most is {most}; more episodes are expected before the first visit wins")


def ratio(mdp: MDP, n: I) -> F:
    """Mean-square error of every visit over that of the first visit, (K,); on the loop it tends to 1 + p.

    >>> ratio(world(), np.array([1, 1000])).round(2)
    array([0.44, 1.74])
    """
    every, first = exact(mdp, "every", n), exact(mdp, "first", n)
    return np.array([a.mse / b.mse for a, b in zip(every, first, strict=True)])


def unbiased_loops() -> list[float]:
    """Bias of every visit after one episode in the middle of the 5-state walk, at gamma = 1 and at 0.9.

    At gamma = 1 the walks that lead back pay nothing and change no return: every visit is unbiased there too.

    >>> [round(x, 4) for x in unbiased_loops()]
    [0.0, 0.0535]
    """
    walks = [envs.random_walk(5, gamma=gamma) for gamma in (1.0, 0.9)]
    return [every_visit_bias(walk, only(walk), 3, 1) for walk in walks]


def figure(fig: "Figure") -> None:
    """Draw mean, mean-square error and their ratio; fig: an empty figure, about 13 by 4 inches, "constrained"."""
    mean, square, share = fig.subplots(1, 3)
    mdp, found = world(), experiment()
    draw_mean(mean, found, value(mdp))
    draw_square(square, found, value(mdp), crossing(mdp))
    draw_ratio(share, (0.5, 0.75, 0.95))


def draw_mean(ax: "Axes", found: list[Finding], V: float) -> None:
    """Draw the mean estimate against the number of episodes: exact lines, sampled points."""
    from tabrl.plots import COLOURS, tidy

    for i, x in enumerate(found):
        bias = np.array([error.bias for error in x.exact])
        ax.plot(x.n, V + bias, color=COLOURS[i], lw=1.6, label=f"{x.visit} visit, exact")
        points(ax, i, x, x.V)
    ax.set(xscale="log", xlabel="episodes n", ylabel="mean estimate of V(s) (reward)")
    ax.set_title("Mean: only the first visit is unbiased (± 2 se)", fontsize=10)
    plain(ax)
    tidy(ax)


def draw_square(ax: "Axes", found: list[Finding], V: float, cross: int) -> None:
    """Draw the mean-square error against the number of episodes, and where the two lines cross."""
    from tabrl.plots import COLOURS, GREY, tidy

    for i, x in enumerate(found):
        mse = [error.mse for error in x.exact]
        ax.plot(x.n, mse, color=COLOURS[i], lw=1.6, label=f"{x.visit} visit, exact")
        points(ax, i, x, (x.V - V) ** 2)
    ax.axvline(cross, color=GREY, ls=":", lw=1.2)
    ax.annotate(f"first visit wins\nfrom n = {cross}", (cross, 0.97), (5, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", fontsize=9)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="episodes n", ylabel="mean-square error (reward²)")
    ax.set_title("Error: every visit is better at first, then worse (± 2 se)", fontsize=10)
    plain(ax)
    ax.legend(frameon=False, fontsize=8.5, loc="lower left")
    tidy(ax)


def draw_ratio(ax: "Axes", ps: tuple[float, ...]) -> None:
    """Draw the ratio of the two mean-square errors for several loops, with its limit 1 + p."""
    from tabrl.plots import COLOURS, DASHES, tidy
    from tabrl.plots.grid import INK

    n = np.unique(np.geomspace(1, 1000, 60).astype(np.int64))
    for i, p in enumerate(ps):
        ax.plot(n, ratio(world(p), n), color=COLOURS[(4, 3, 5)[i]], ls=DASHES[i], lw=1.6, label=f"p = {p:g}")
        ax.plot([n[-1]], [1 + p], ">", color=COLOURS[(4, 3, 5)[i]], ms=7, clip_on=False)
    ax.axhline(1, color=INK, lw=0.9)
    ax.set(xscale="log", xlabel="episodes n", ylabel="error of every visit / of first visit", ylim=(0, 2.1))
    ax.set_title("Ratio (exact), and its limit 1 + p (triangles)", fontsize=10)
    ax.legend(frameon=False, fontsize=9, loc="lower right")
    tidy(ax)


def points(ax: "Axes", i: int, x: Finding, y: F) -> None:
    """Draw sample means of y (runs,K) with an interval of two standard errors, a little aside."""
    from tabrl.plots import COLOURS

    n, half = x.n * (0.97, 1.03)[i], 2 * standard_error(y, 0)
    bars = ax.errorbar(n, y.mean(axis=0), half, fmt="os"[i], color=COLOURS[i], ms=4, capsize=2, lw=1)
    bars.set_label(f"{x.visit} visit, {len(y)} runs")


def plain(ax: "Axes") -> None:
    """Label a logarithmic axis of episodes with plain numbers."""
    ax.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    ax.minorticks_off()


def row(x: Finding, k: int, V: float) -> str:
    """Say what the k-th number of episodes gave."""
    error, got, half = x.exact[k], x.V[:, k].mean(), 2 * standard_error(x.V[:, k])
    return f"{x.visit} {V + error.bias:.4f}, {got:.3f} ± {half:.3f}, mse {error.mse:7.4f}"


def main() -> None:
    """Print the findings."""
    mdp, pi = world(), only(world())
    first, every = experiment(mdp)
    print(f"loop with p = 3/4, V = {value(mdp):g}; {len(every.V)} runs; mean estimate, exact and sampled (± 2 se)")
    for k, n in enumerate(every.n):
        print(f"n = {n:2}   {row(first, k, value(mdp))}   {row(every, k, value(mdp))}")
    rates = every_visit_rate(mdp, pi, 0), float(first_visit(mdp, pi, 0, 1).mse)
    print(f"as n grows: n bias -> {rates[0].bias:g}; n mse -> {rates[0].mse:g} (every), {rates[1]:g} (first)")
    print(f"every visit has the smaller mean-square error up to n = {crossing(mdp) - 1}, the first visit from then on")
    flat, discounted = unbiased_loops()
    print(f"where loops pay nothing there is no bias: 5-state walk {flat:g} at gamma = 1, {discounted:.4f} at 0.9")


if __name__ == "__main__":
    main()
