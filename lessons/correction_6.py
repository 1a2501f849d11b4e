"""Correction 6: what vanishes when TD(0) has learnt, and what does not.

"The TD error goes to zero" is true of a model without chance only. In a random model the next state and the reward
still differ from step to step when V is already exact, and delta with them. Four things are right:

1. At V_pi the mean of delta vanishes in every state, E[delta | s] = 0. Its variance does not: it is what one step of
   chance adds to the return, sigma^2(s) = E[(R + gamma V(s') - V(s))^2 | s].
2. V goes to V_pi for step sizes of Robbins and Monro. With c/k at the k-th visit the error falls like 1/sqrt(t), by a
   factor known in closed form.
3. A constant step size leaves a noise of known size for ever.
4. Its mean is V_pi only for independently drawn states. Along a trajectory it is off by O(alpha), although the
   average of delta vanishes there too, as it must wherever V stays bounded: that average proves nothing.

The experiment runs on two states that follow each other for ever. t counts updates; alpha step size; S states.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import envs, sample
from tabrl.branches import step
from tabrl.chain import evaluate, induce
from tabrl.markov import class_distribution
from tabrl.mdp import MDP
from tabrl.prediction import td0
from tabrl.schedules import Alpha, power
from tabrl.summary import standard_error
from tabrl.td_limits import ValueLimit, independent_limit, trajectory_limit
from tabrl.td_moments import ValueMoments, restarts, surprise, trajectory_moments
from tabrl.trace import column
from tabrl.types import F, I, Transitions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCALE = 10.0  # of the Robbins-Monro steps 10/k; 1/(1 - gamma) is always enough
CONSTANT = (0.4, 0.05)
ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.4)
SEED = 6


class DeltaMoments(NamedTuple):
    """Mean and variance of the TD error by state, for values that are held fixed."""

    mean: F  # (S,) T_pi V - V
    variance: F  # (S,)


class Deltas(NamedTuple):
    """TD errors along trajectories while V is learnt."""

    s: I  # (runs,T)
    delta: F  # (runs,T)


class Curve(NamedTuple):
    """Squared errors of V, averaged over states, of one step size."""

    label: str
    t: I  # (K,)
    sampled: F  # (runs,K)
    exact: F  # (K,) nan where no closed form is known
    limit: F  # (K,) constant noise, or what t times the error tends to over t


class Found(NamedTuple):
    """What the experiment gives."""

    deltas: dict[str, Deltas]  # by step size
    curves: list[Curve]
    biases: dict[str, F]  # (alphas,runs) mean of V(0) - V_pi(0), by the way states are drawn


def world() -> MDP:
    """Two states: 0 to 1 with probability .1, 1 to 0 with .2, leaving 0 pays 1, gamma = .9.

    >>> world()
    MDP(S=2, A=1, gamma=0.9, 0 terminal, dense)
    """
    return envs.two_state()


def only(mdp: MDP) -> F:
    """The policy of a model with one action."""
    return np.ones((mdp.S, 1))


def delta_moments(mdp: MDP, pi: F, V: F) -> DeltaMoments:
    """Mean and variance of delta = R + gamma V(s') - V(s) in each state; 0 in terminal states.

        mean = r + gamma P V - V,   variance = E[delta^2 | s] - mean^2

    pi: (S,A). V: (S,). At V_pi the mean is 0 and the variance is the source term of Sobel's equation for the variance
    of the return, Var = variance + gamma^2 P Var. Source: Sobel (1982); ledger E1.7.

    >>> x = delta_moments(world(), only(world()), evaluate(induce(world(), only(world()))))
    >>> abs(x.mean).max() < 1e-14, x.variance.round(4)
    (np.True_, array([0.5325, 0.9467]))
    """
    law = step(mdp, pi)
    x = surprise(law, mdp.gamma, V[law.states])
    mean, variance = np.zeros(mdp.S), np.zeros(mdp.S)
    mean[law.states] = m = (law.P * x).sum(axis=1)
    variance[law.states] = (law.P * ((x - m[:, None]) ** 2 + law.noise)).sum(axis=1)
    return DeltaMoments(mean, variance)


def robbins_monro_covariance(mdp: MDP, pi: F, scale: float) -> F:
    """Limit of t Cov[V_t] for step sizes scale/k at the k-th visit of a state, over the n non-terminal states.

        L C + C L' = scale^2 diag(sigma^2 / d),   L = scale (I - gamma P) - I/2

    d (n,) share of updates in each state. At V_pi delta is a martingale difference, so that the correlation of
    successive states does not enter. pi: (S,A). Raises ValueError where L has an eigenvalue that is not to the right of
    0: the error then falls more slowly than 1/sqrt(t). Source: Fabian (1968); Kushner & Yin (2003), chapter 10.

    >>> float(np.trace(robbins_monro_covariance(world(), only(world()), 10.0)).round(2))
    173.16
    """
    from scipy.linalg import solve_continuous_lyapunov

    law = step(mdp, pi)
    n = len(law.states)
    d = class_distribution(law.P @ np.vstack([np.eye(n), restarts(mdp, None)]))
    L = scale * (np.eye(n) - mdp.gamma * law.P[:, :n]) - np.eye(n) / 2
    if not np.linalg.eigvals(L).real.min() > 0:
        raise ValueError(f"scale is {scale:g}; a larger one is expected for errors that fall like 1/sqrt(t)")
    variance = delta_moments(mdp, pi, evaluate(induce(mdp, pi))).variance[law.states]
    C: F = solve_continuous_lyapunov(L, scale**2 * np.diag(variance / d))
    return C


def trajectories(mdp: MDP, steps: int, runs: int, seed: int, limit: int | None = None) -> list[Transitions]:
    """Draw one trajectory for each run; limit = 1 restarts after every step, so that states are independent."""
    rngs = [np.random.default_rng(x) for x in np.random.SeedSequence(seed).spawn(runs)]
    return [sample.Stream(mdp, only(mdp), rng, limit=limit).draw(steps)[0] for rng in rngs]


def values(mdp: MDP, runs: Sequence[Transitions], alpha: Alpha, every: int) -> F:
    """Learn V from 0 on each trajectory: (runs,K,S)."""
    return np.array([column(td0([x], alpha=alpha, V=np.zeros(mdp.S), every=every), "V") for x in runs])


def deltas(mdp: MDP, alpha: Alpha, *, steps: int = 5000, runs: int = 40, seed: int = SEED) -> Deltas:
    """Record every TD error of every run.

    >>> deltas(world(), 0.4, steps=10, runs=2).delta.shape
    (2, 10)
    """
    drawn = trajectories(mdp, steps, runs, seed)
    return Deltas(
        np.array([x.s for x in drawn]),
        np.array([column(td0([x], alpha=alpha, V=np.zeros(mdp.S)), "delta") for x in drawn]),
    )


def windows(x: Deltas, s: int, edges: I, degree: int) -> F:
    """Sum of delta**degree over the visits to s between edges, by the mean number of visits of all runs: (runs,K)."""
    here = (x.s == s)[:, : edges[-1]].astype(np.float64)
    total, count = (np.add.reduceat(here * y, edges[:-1], axis=1) for y in (x.delta[:, : edges[-1]] ** degree, 1.0))
    means: F = total / count.mean(axis=0)
    return means


def curves(mdp: MDP, *, steps: int = 20_000, every: int = 100, runs: int = 40, seed: int = SEED) -> list[Curve]:
    """Squared error of V over time: two constant step sizes, and Robbins-Monro steps.

    >>> [x.label for x in curves(world(), steps=200, runs=2)]
    ['α = 0.4', 'α = 0.05', 'α = 10/k']
    """
    pi, t = only(mdp), np.arange(every, steps + 1, every)
    V, drawn = evaluate(induce(mdp, pi)), trajectories(mdp, steps, runs, seed)

    def sampled(alpha: Alpha) -> F:
        return ((values(mdp, drawn, alpha, every) - V) ** 2).mean(axis=2)  # type: ignore[no-any-return]

    def mean_square(x: ValueMoments | ValueLimit) -> float:
        return float(((x.mean - V) ** 2 + x.covariance.diagonal()).mean())

    found = []
    for alpha in CONSTANT:
        moments = trajectory_moments(mdp, pi, alpha=alpha, steps=steps, every=every)
        exact = np.array([mean_square(x) for x in moments])
        floor = np.full(len(t), mean_square(trajectory_limit(mdp, pi, alpha=alpha)))
        found.append(Curve(f"α = {alpha:g}", t, sampled(alpha), exact, floor))
    falling = np.trace(robbins_monro_covariance(mdp, pi, SCALE)) / mdp.S / t
    return [*found, Curve(f"α = {SCALE:g}/k", t, sampled(power(SCALE, 1.0)), np.full(len(t), np.nan), falling)]


def biases(mdp: MDP, *, steps: int = 50_000, runs: int = 20, seed: int = SEED) -> dict[str, F]:
    """Mean of V(0) at constant step sizes less V_pi(0), averaged over the second half of each run: (alphas,runs)."""
    V = evaluate(induce(mdp, only(mdp)))[0]
    found = {}
    for i, (way, limit) in enumerate({"along a trajectory": None, "independent states": 1}.items()):
        found[way] = np.empty((len(ALPHAS), runs))
        for k, alpha in enumerate(ALPHAS):  # on trajectories of its own, so that the points err independently
            drawn = trajectories(mdp, steps, runs, seed + 1 + i * len(ALPHAS) + k, limit)
            found[way][k] = values(mdp, drawn, alpha, 50)[:, steps // 100 :, 0].mean(axis=1) - V
    return found


def exact_biases(mdp: MDP, alphas: Sequence[float] = ALPHAS) -> dict[str, F]:
    """Exact bias of V(0) at constant step sizes, (alphas,) each.

    >>> {way: x.round(3).tolist() for way, x in exact_biases(world(), [0.2, 0.4]).items()}
    {'along a trajectory': [-0.076, -0.164], 'independent states': [0.0, 0.0]}
    """
    pi = only(mdp)
    V = evaluate(induce(mdp, pi))[0]
    along = [trajectory_limit(mdp, pi, alpha=a).mean[0] - V for a in alphas]
    apart = [independent_limit(mdp, pi, alpha=a, d=mdp.mu).mean[0] - V for a in alphas]
    return {"along a trajectory": np.array(along), "independent states": np.array(apart)}


def experiment(mdp: MDP | None = None, *, runs: int = 40) -> Found:
    """TD errors, errors of V, and the bias of V at constant step sizes."""
    mdp = world() if mdp is None else mdp
    steps: dict[str, Alpha] = {f"α = {SCALE:g}/k": power(SCALE, 1.0), "α = 0.4": 0.4}
    recorded = {label: deltas(mdp, alpha, runs=runs) for label, alpha in steps.items()}
    return Found(recorded, curves(mdp, runs=runs), biases(mdp, runs=runs // 2))


def figure(fig: "Figure") -> None:
    """Draw delta, its mean and square, the error, the bias; fig: empty, about 12 by 8 inches, layout "constrained"."""
    mdp, found = world(), experiment()
    axes = fig.subplots(2, 2)
    draw_delta(axes[0, 0], mdp, found.deltas[f"α = {SCALE:g}/k"])
    draw_means(axes[0, 1], mdp, found.deltas[f"α = {SCALE:g}/k"])
    draw_errors(axes[1, 0], found.curves)
    draw_bias(axes[1, 1], found.biases, exact_biases(mdp))


def draw_delta(ax: "Axes", mdp: MDP, x: Deltas) -> None:
    """Draw the TD errors of one run, and the values that delta takes at V_pi."""
    from tabrl.plots import COLOURS, tidy

    law, V = step(mdp, only(mdp)), evaluate(induce(mdp, only(mdp)))
    final = surprise(law, mdp.gamma, V)
    t = np.unique(np.geomspace(1, x.delta.shape[1], 900).astype(np.int64)) - 1
    for s in range(mdp.S):
        at = t[x.s[0, t] == s]
        ax.plot(at + 1, x.delta[0, at], "os"[s], color=COLOURS[s], ms=3.5, alpha=0.7, mew=0, label=f"δ in state {s}")
        for y in np.flatnonzero(law.P[s, : mdp.S] > 0):
            ax.axhline(final[s, y], color=COLOURS[s], lw=1, ls=("-", "--")[s])
            ax.annotate(f"{s}→{y}", (1, final[s, y]), (4, 0), ax.get_yaxis_transform(), textcoords="offset points",
                        va="center", fontsize=9, color=COLOURS[s])  # fmt: skip
    ax.set(xscale="log", xlabel="update t", ylabel="TD error δ (reward)", ylim=(-4, 4))
    ax.set_title(r"δ does not vanish: it takes its values at $V_\pi$ (lines)", fontsize=10)
    ax.legend(frameon=False, fontsize=9, loc="upper center")
    tidy(ax)


def draw_means(ax: "Axes", mdp: MDP, x: Deltas) -> None:
    """Draw mean and mean square of delta in windows of time, and their exact limits."""
    from tabrl.plots import COLOURS, tidy

    edges = np.geomspace(20, x.delta.shape[1], 11).astype(np.int64)
    middle = np.sqrt(edges[:-1] * edges[1:])
    limit = delta_moments(mdp, only(mdp), evaluate(induce(mdp, only(mdp))))
    for s in range(mdp.S):
        for p, line in ((1, limit.mean[s]), (2, limit.variance[s])):
            y, face = windows(x, s, edges, p), (COLOURS[s] if p == 1 else "white")
            at = middle * (0.96, 1.04)[s]
            bars = ax.errorbar(at, np.nanmean(y, 0), 2 * standard_error(y, 0), fmt="os"[s], color=COLOURS[s], mfc=face)
            bars.set_label(f"mean of δ{('', '²')[p - 1]} in state {s}")
            ax.axhline(line, color=COLOURS[s], lw=1.2, ls=("-", "--")[s])
    ax.set(xscale="log", xlabel="update t", ylabel="mean of δ (reward), of δ² (reward²)")
    ax.set_title(f"Its mean vanishes, its variance stays ({len(x.s)} runs ± 2 se)", fontsize=10)
    ax.legend(frameon=False, fontsize=9, ncols=2)
    tidy(ax)


def draw_errors(ax: "Axes", found: list[Curve]) -> None:
    """Draw the mean-square error of V against time: exact lines, sampled points, limits."""
    from tabrl.plots import COLOURS, tidy

    for i, x in enumerate(found):
        k, colour = np.unique(np.geomspace(1, len(x.t), 14).astype(np.int64)) - 1, COLOURS[(0, 4, 3)[i]]
        mean, half = x.sampled.mean(axis=0)[k], 2 * standard_error(x.sampled, 0)[k]
        ax.plot(x.t, x.exact, color=colour, lw=1.4)
        ax.plot(x.t, x.limit, color=colour, lw=1.4, ls=":")
        ax.errorbar(x.t[k], mean, half, fmt="os^"[i], color=colour, ms=4, capsize=2, label=x.label)
    ax.set(xscale="log", yscale="log", xlabel="update t", ylabel="mean-square error of V (reward²)")
    ax.set_title(f"V: constant α stops at a floor, 10/k does not ({len(x.sampled)} runs ± 2 se)", fontsize=10)
    ax.legend(frameon=False, fontsize=9, title="line: exact; dotted: limit")
    tidy(ax)


def draw_bias(ax: "Axes", found: dict[str, F], exact: dict[str, F]) -> None:
    """Draw the bias of V(0) against alpha."""
    from tabrl.plots import COLOURS, tidy

    for i, (way, y) in enumerate(found.items()):
        colour = COLOURS[i]
        ax.plot([0, *ALPHAS], [0, *exact[way]], color=colour, lw=1.4, label=f"{way}, exact")
        at, half = np.array(ALPHAS) + (-0.002, 0.002)[i], 2 * standard_error(y)
        bars = ax.errorbar(at, y.mean(axis=1), half, fmt="os"[i], ms=4, capsize=2, color=colour)
        bars.set_label(f"{way}, {y.shape[1]} runs ± 2 se")
    ax.set(xlabel="constant step size α", ylabel=r"mean of $V(0) - V_\pi(0)$ (reward)")
    ax.set_title("A constant α moves the mean of V along a trajectory", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    tidy(ax)


def main() -> None:
    """Print the findings."""
    mdp, found = world(), experiment()
    V = evaluate(induce(mdp, only(mdp)))
    variance = delta_moments(mdp, only(mdp), V).variance
    for label, x in found.deltas.items():
        for s in range(mdp.S):
            y = [windows(x, s, np.array([2500, 5000]), degree) for degree in (1, 2)]
            got = ", ".join(f"{z.mean():.3f} ± {2 * standard_error(z, 0)[0]:.3f}" for z in y)
            print(f"{label:8} state {s}: late mean of δ, of δ²: {got}; exact at V_pi: 0, {variance[s]:.4f}")
    for c in found.curves:
        got, limit = np.sqrt(c.sampled.mean(axis=0)[-1]), np.sqrt(c.limit[-1])
        print(f"{c.label:8} RMS error of V after {c.t[-1]} updates: {got:.4f}; exact limit {limit:.4f}")
    for way, exact in exact_biases(mdp).items():
        last = found.biases[way][-1]
        sampled = f"{V[0] + last.mean():.3f} ± {2 * standard_error(last):.3f}"
        print(f"{way}: mean of V(0) at α = 0.4: {V[0] + exact[-1]:.3f}, sampled {sampled}; V_pi(0) = {V[0]:.3f}")


if __name__ == "__main__":
    main()
