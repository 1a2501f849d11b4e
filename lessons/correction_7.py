"""Correction 7: what happens at the end of an episode, and what a time limit is not.

Sums written up to infinity say nothing about the end. Two things are right:

1. A sum over steps stops at the end. The lambda-return of an episode with T steps to go gives the last return, which
   is the whole one, all the weight that is left: (1-lam) lam^(n-1) for n < T, and lam^(T-1) for n = T. The infinite
   sum cut off after n = T has weights that add up to 1 - lam^T only, and what is learnt with it is too small; at
   lam = 1 it is 0. (The sum of TD errors may be cut: v + sum of (gamma lam)^k delta is the lambda-return.)
2. A time limit is not an end: the model would have gone on. There discount stays gamma, and the value of the state
   that was reached stands for what was not seen. With discount 0 at the cut, as at an end, other values are learnt,
   and each method has its own: TD(0) forgets the future with the probability that a visit is the last one, Monte
   Carlo averages returns of all lengths up to the limit.

The experiment runs on a machine that wears, is repaired, and breaks. All these limits are exact.

L time limit; T steps to go; V (S,); x `Transitions`; points are learnt by 20 independent runs.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import sample
from tabrl.branches import step
from tabrl.chain import Chain, evaluate, induce
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.operators import lambda_operator
from tabrl.prediction import monte_carlo, td0
from tabrl.returns import discounted_sum, lambda_returns
from tabrl.schedules import power
from tabrl.summary import standard_error
from tabrl.trace import column, last
from tabrl.types import Episode, F, Names, Transitions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIMITS = (2, 3, 5, 10, 20, 50)
LAMBDAS = (0.0, 0.3, 0.6, 0.8, 0.9, 1.0)
STEPS = power(10.0, 1.0)  # Robbins-Monro steps min(1, 10/k)
RUNS, SEED, EVERY = 20, 7, 50
Targets = Callable[[F, F, F, float], F]


class Line(NamedTuple):
    """V(0) learnt by one rule: where it settles, and where 20 runs are."""

    name: str
    exact: F  # (K,)
    sampled: F  # (K,runs)


class Found(NamedTuple):
    """What the experiment gives."""

    time: list[Line]  # over TIMES, at L = 5
    limit: list[Line]  # over LIMITS
    lam: list[Line]  # over LAMBDAS


def world() -> MDP:
    """A machine: good (pays 2) or worn (pays 1); a worn one is repaired, stays worn, or breaks for ever.

        good: .7 good, .3 worn          worn: .4 good, .3 worn, .3 broken          gamma = .95, start good

    >>> V = evaluate(induce(world(), only(world())))
    >>> V.round(3)
    array([13.069,  8.344,  0.   ])
    """
    P = np.array([[[0.7, 0.3, 0.0]], [[0.4, 0.3, 0.3]], [[0.0, 0.0, 0.0]]])
    names = Names(("good", "worn", "broken"), ("run",))
    return MDP(P, np.array([2.0, 1.0, 0.0]), 0.95, mu=[1, 0, 0], terminal=[False, False, True], names=names)


def only(mdp: MDP) -> F:
    """The policy of a model with one action."""
    return np.ones((mdp.S, 1))


def ended(x: Transitions) -> Transitions:
    """The mistake: treat every last step of an episode as its end, discount 0.

    >>> one = Transitions(np.array([0, 0]), np.array([0, 0]), np.ones(2), np.full(2, 0.9), np.array([False, True]))
    >>> ended(one).discount
    array([0.9, 0. ])
    """
    return x._replace(discount=np.where(x.last, 0.0, x.discount))


def visits(chain: Chain, mu: F, limit: int) -> F:
    """Probability d[k, s] that step k = 0 … L-1 of an episode leaves the non-terminal state s: (L,S).

    >>> visits(induce(world(), only(world())), world().mu, 2)
    array([[1. , 0. , 0. ],
           [0.7, 0.3, 0. ]])
    """
    d = [np.where(chain.terminal, 0.0, mu)]
    while len(d) < limit:
        d.append(np.where(chain.terminal, 0.0, d[-1] @ chain.P))
    return np.array(d)


def ended_td(chain: Chain, mu: F, limit: int) -> F:
    """What TD(0) learns when a cut after L steps counts as the end.

        V = r + gamma (1 - q) P V,   q(s) = d[L-1, s] / sum over k of d[k, s]

    q is the probability that a visit is the last before the cut. Returns (S,), nan where no visit comes before the cut;
    L = 1 gives r, L = inf V_pi.

    >>> ended_td(induce(world(), only(world())), world().mu, 10).round(3)
    array([9.719, 6.021, 0.   ])
    """
    d = visits(chain, mu, limit)
    seen = d.sum(axis=0) > 0
    go_on = 1 - d[-1] / np.where(seen, d.sum(axis=0), 1.0)
    V = solve(go_on[:, None] * chain.P * ~chain.terminal, chain.gamma, chain.r)
    return np.where(seen | chain.terminal, V, np.nan)


def ended_mc(chain: Chain, mu: F, limit: int) -> F:
    """What every-visit Monte Carlo learns when a cut after L steps counts as the end.

        V(s) = sum over k of d[k, s] v[L-k](s) / sum over k of d[k, s],   v[j] = r + gamma P v[j-1],   v[0] = 0

    Returns (S,), nan where no visit comes before the cut; L = 1 gives r, L = inf V_pi.

    >>> ended_mc(induce(world(), only(world())), world().mu, 10).round(3)
    array([7.927, 4.482, 0.   ])
    """
    d, v, total = visits(chain, mu, limit), np.zeros(len(mu)), np.zeros(len(mu))
    for at in d[::-1]:
        v = chain.r + chain.gamma * chain.P @ v
        total += at * v
    seen = d.sum(axis=0) > 0
    return np.where(chain.terminal, 0.0, np.divide(total, d.sum(axis=0), out=np.full(len(mu), np.nan), where=seen))


def weights(T: int, lam: float) -> F:
    """Weights of the n-step returns n = 1 … T in the lambda-return, the last one all that is left: they add up to 1.

    >>> weights(3, 0.5)
    array([0.5 , 0.25, 0.25])
    """
    return np.append((1 - lam) * lam ** np.arange(T - 1.0), lam ** (T - 1.0))


def cut_weights(T: int, lam: float) -> F:
    """The mistake: the weights of the infinite sum up to T; they add up to 1 - lam^T.

    >>> cut_weights(3, 0.5)
    array([0.5  , 0.25 , 0.125])
    """
    return np.asarray((1 - lam) * lam ** np.arange(float(T)))


def cut_returns(r: F, discount: F, v: F, lam: float) -> F:
    """The mistake, for all steps of an episode at once: sum over n <= T of (1-lam) lam^(n-1) G^(n).

        y[t] = (1 - lam^(T-t)) r[t] + discount[t] ((1 - lam) v[t+1] + lam y[t+1]),   y[T] = 0

    Arguments as in `returns.lambda_returns`, which is right.

    >>> cut_returns(np.array([1.0, 1.0]), np.array([1.0, 0.0]), np.zeros(3), 0.5)      # right: 1.5, 1
    array([1. , 0.5])
    """
    to_go = np.arange(len(r), 0, -1)
    return discounted_sum((1 - lam**to_go) * r + discount * (1 - lam) * v[1:], lam * discount)


def cut_limit(mdp: MDP, pi: F, lam: float) -> F:
    """What is learnt with the infinite sum cut off: V = T^lam V - w, w(s) = E[lam^T G | s].

        h = E[lam^T] = lam (P h + end),   w = lam (E[R h'] + gamma P w)         (h' = 1 at the end)

    Whole episodes. Returns (S,). lam = 0 gives V_pi, lam = 1 gives 0.

    >>> cut_limit(world(), only(world()), 0.9).round(3)
    array([7.22 , 4.428, 0.   ])
    """
    law, (matrix, vector, _) = step(mdp, pi), lambda_operator(induce(mdp, pi), lam)
    n, V = len(law.states), np.zeros(mdp.S)
    inner = law.P[:, :n]
    h = np.append(solve(inner, lam, lam * law.P[:, n]), 1.0)
    w = solve(inner, lam * mdp.gamma, lam * (law.P * law.R) @ h)
    A = matrix[np.ix_(law.states, law.states)]
    V[law.states] = np.linalg.solve(np.eye(n) - A, vector[law.states] - w)
    return V


def settle(episodes: Iterable[Episode], S: int, lam: float, targets: Targets) -> F:
    """Where learning from a batch ends: the V that is the mean of its own targets, V(s) = mean over visits of G[t].

    Targets are affine in V, so that their means at V = 0 and at the unit vectors give a linear system. (S,), 0 in
    states that are never left. With `lambda_returns` this is `prediction.lstd`.
    """
    total, count, probes = np.zeros((S + 1, S)), np.zeros(S), np.vstack([np.zeros(S), np.eye(S)])
    for x in episodes:
        np.add.at(count, x.s[:-1], 1.0)
        for p in range(S + 1):
            np.add.at(total[p], x.s[:-1], targets(x.r, x.discount, probes[p][x.s], lam))
    mean = total / np.maximum(count, 1.0)
    V: F = np.linalg.solve(np.eye(S) - (mean[1:] - mean[0]).T, mean[0])
    return V


def rngs(seed: int, runs: int) -> list[np.random.Generator]:
    """One generator for each run."""
    return [np.random.default_rng(x) for x in np.random.SeedSequence(seed).spawn(runs)]


def td(x: Transitions, every: int) -> F:
    """V(0) after every, 2 every, … updates of TD(0)."""
    return column(td0([x], alpha=STEPS, V=np.zeros(world().S), every=every), "V")[:, 0]


def mc(x: Transitions) -> float:
    """V(0) after Monte Carlo on the first 4,000 steps."""
    few = Transitions(x.s[:4000], x.s_next[:4000], x.r[:4000], x.discount[:4000], x.last[:4000])
    return float(last(monte_carlo([few], V=np.zeros(world().S), every=len(few.s))).V[0])


def exact_by_limit(limits: Sequence[int]) -> list[F]:
    """Where V(0) settles by each of the three rules, (limits,) each."""
    mdp = world()
    chain = induce(mdp, only(mdp))
    wrong = ([f(chain, mdp.mu, L)[0] for L in limits] for f in (ended_td, ended_mc))
    return [np.full(len(limits), evaluate(chain)[0]), *map(np.array, wrong)]


def by_limit(runs: int, steps: int = 20_000) -> list[Line]:
    """V(0) against the time limit, by three rules."""
    mdp, V = world(), np.empty((3, len(LIMITS), runs))
    for i, limit in enumerate(LIMITS):
        for run, rng in enumerate(rngs(SEED + i, runs)):
            x = sample.Stream(mdp, only(mdp), rng, limit=limit).draw(steps)[0]
            V[:, i, run] = td(x, steps)[-1], td(ended(x), steps)[-1], mc(ended(x))
    names = "TD(0), bootstraps at the limit", "TD(0), limit taken for the end", "Monte Carlo, limit taken for the end"
    return [Line(*x) for x in zip(names, exact_by_limit(LIMITS), V, strict=True)]


def by_time(runs: int, limit: int = 5) -> list[Line]:
    """V(0) of TD(0) against the number of updates, by both rules on the same steps."""
    mdp = world()
    chain = induce(mdp, only(mdp))
    drawn = [sample.Stream(mdp, only(mdp), x, limit=limit).draw(20_000)[0] for x in rngs(SEED + 100, runs)]
    rules = {"bootstraps": (evaluate(chain)[0], drawn), "ends": (ended_td(chain, mdp.mu, limit)[0], map(ended, drawn))}
    lines = []
    for name, (exact, streams) in rules.items():
        V = np.array([td(x, EVERY) for x in streams]).T
        lines.append(Line(name, np.full(len(V), exact), V))
    return lines


def exact_by_lam(lams: Sequence[float]) -> list[F]:
    """Where V(0) settles with both sums, (lams,) each."""
    mdp = world()
    V = evaluate(induce(mdp, only(mdp)))[0]
    return [np.full(len(lams), V), np.array([cut_limit(mdp, only(mdp), lam)[0] for lam in lams])]


def by_lam(runs: int, episodes: int = 400) -> list[Line]:
    """V(0) against lam, where batches of whole episodes lead with both sums."""
    mdp, V = world(), np.empty((2, len(LAMBDAS), runs))
    for run, rng in enumerate(rngs(SEED + 200, runs)):
        drawn = list(islice(sample.episodes(mdp, only(mdp), rng), episodes))
        for i, lam in enumerate(LAMBDAS):
            V[:, i, run] = [settle(drawn, mdp.S, lam, f)[0] for f in (lambda_returns, cut_returns)]
    names = "last weight λ^(T−1)", "infinite sum cut at T"
    return [Line(*x) for x in zip(names, exact_by_lam(LAMBDAS), V, strict=True)]


def experiment(*, runs: int = RUNS) -> Found:
    """Learn by the right and by the wrong rules, over time, over time limits, and over lam."""
    return Found(by_time(runs), by_limit(runs), by_lam(runs))


def figure(fig: "Figure") -> None:
    """Draw time, time limits, weights and lam; fig: an empty figure, about 12 by 8 inches, layout "constrained"."""
    found, axes = experiment(), fig.subplots(2, 2)
    draw_time(axes[0, 0], found.time)
    every, fine = range(LIMITS[0], LIMITS[-1] + 1), np.linspace(0, 1, 101).tolist()
    draw_lines(axes[0, 1], LIMITS, found.limit, every, exact_by_limit(every))
    axes[0, 1].set(xscale="log", xlabel="time limit L (steps)")
    axes[0, 1].set_title(f"A time limit is not an end ({RUNS} runs ± 2 se; lines exact)", fontsize=10)
    axes[0, 1].set_xticks(LIMITS, [str(L) for L in LIMITS])
    axes[0, 1].minorticks_off()
    draw_weights(axes[1, 0])
    draw_lines(axes[1, 1], LAMBDAS, found.lam, fine, exact_by_lam(fine))
    axes[1, 1].set(xlabel="λ", ylim=(-0.5, 14.5))
    axes[1, 1].set_title(f"What is learnt with both sums ({RUNS} runs ± 2 se; lines exact)", fontsize=10)


def draw_time(ax: "Axes", lines: list[Line]) -> None:
    """Draw V(0) of every run against updates, their mean and interval, and where it settles."""
    from tabrl.plots import COLOURS, tidy

    for i, x in enumerate(lines):
        t, mean, half = EVERY * np.arange(1, len(x.exact) + 1), x.sampled.mean(axis=1), 2 * standard_error(x.sampled)
        ax.plot(t, x.sampled, color=COLOURS[i], lw=0.5, alpha=0.35)
        ax.fill_between(t, mean - half, mean + half, color=COLOURS[i], alpha=0.3, lw=0)
        ax.plot(t, mean, color=COLOURS[i], lw=1.6, label=f"limit {x.name}, mean of {RUNS} runs ± 2 se")
        ax.plot(t, x.exact, color=COLOURS[i], lw=1.4, ls="--", label=f"limit {x.name}, exact")
    ax.set(xscale="log", xlabel="update t", ylabel="V(good) (reward)", ylim=(0, None))
    ax.set_title("TD(0) on episodes cut after L = 5 steps", fontsize=10)
    ax.legend(frameon=False, fontsize=8.5, loc="lower right")
    tidy(ax)


def draw_lines(ax: "Axes", at: Sequence[float], lines: list[Line], grid: Sequence[float], exact: list[F]) -> None:
    """Draw exact lines over a grid, and sampled points."""
    from tabrl.plots import COLOURS, tidy

    for x, line, colour, marker in zip(lines, exact, (COLOURS[0], COLOURS[1], COLOURS[3]), "os^", strict=False):
        ax.plot(grid, line, color=colour, lw=1.2)
        mean, half = x.sampled.mean(axis=1), 2 * standard_error(x.sampled)
        ax.errorbar(at, mean, half, fmt=marker, color=colour, ms=3.5, capsize=4, label=x.name)
    ax.set(ylabel="V(good) (reward)", ylim=(0, 14.5))
    ax.legend(frameon=False, fontsize=9)
    tidy(ax)


def draw_weights(ax: "Axes", T: int = 6, lam: float = 0.8) -> None:
    """Draw both sets of weights beside each other, with their sums."""
    from tabrl.plots import COLOURS, tidy

    for i, (name, w) in enumerate({"last weight λ^(T−1)": weights(T, lam), "cut at T": cut_weights(T, lam)}.items()):
        ax.bar(np.arange(1, T + 1) + (-0.2, 0.2)[i], w, 0.4, color=COLOURS[i], hatch=("", "//")[i], edgecolor="white",
               label=f"{name}: sum {w.sum():.3f}")  # fmt: skip
    ax.set(xlabel="n, steps of the return", ylabel="weight in the λ-return")
    ax.set_title(f"Weights with T = {T} steps to go, λ = {lam}", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    tidy(ax, axis="y")


def main() -> None:
    """Print the findings."""
    found = experiment()
    print(f"V_pi(good) = {found.limit[0].exact[0]:.4f}")
    for lines, name, at in ((found.limit, "L", LIMITS), (found.lam, "lam", LAMBDAS)):
        for x in lines:
            print(f"{x.name}: V(good), exact and sampled ± 2 se")
            for value, exact, y in zip(at, x.exact, x.sampled, strict=True):
                print(f"    {name} = {value:<4g} {exact:8.4f}   {y.mean():7.3f} ± {2 * standard_error(y):.3f}")


if __name__ == "__main__":
    main()
