"""Correction 5: the TD error is an unbiased advantage for V = V_pi alone, and TD(0) descends no squared error.

"E[delta | s, a] = A(s, a)" holds when the critic is exact, and then only. With an error e = V - V_pi,

    E[delta | s, a] - A(s, a) = gamma sum over s' of P(s'|s,a) e(s') - e(s)

1. This is 0 for all s and a iff e = 0 (gamma < 1 or an end). Larger lam trades it for variance; at lam = 1 it is -e(s).
2. The policy gradient may be unbiased all the same: it is iff sum over s' of P e(s') does not depend on a, for instance
   where e is the same in all states.
3. "The critic is trained to minimise the TD error": TD(0) moves V(s) alone, as if V(s') in the target were a constant.
   That is a semi-gradient, the gradient of no function (D (I - gamma P) is not symmetric). What the mean squared TD
   error itself leads to, in closed form, is

       minimiser of E[delta^2] = H^-1 h,   H = E[x x'],  h = E[R x],   x = e_s - gamma e_s'

   which is V_pi in a model without chance only. TD(0) ends at V_pi, where the squared TD error is larger.

The experiment runs on a ring of three states. V (S,); d (S,) how often states are drawn; runs of columns; alpha, lam.
"""

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import advantage_moments, sample
from tabrl.advantage_moments import AdvantageMoments, expected_gradient
from tabrl.branches import step
from tabrl.chain import evaluate, induce
from tabrl.gradient import exact
from tabrl.mdp import MDP
from tabrl.returns import gae
from tabrl.summary import standard_error
from tabrl.td_moments import independent_moments
from tabrl.trace import column
from tabrl.types import F, Names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
ERROR = np.array([2.0, -1.0, 1.0, 0.0])  # of the critic, by state
RUNS, EPISODES, SEED = 20, 100, 5
ALPHA, UPDATES, EVERY = 0.02, 1500, 15


class Found(NamedTuple):
    """Advantages in state 0 by action, and values learnt with both rules."""

    mean: dict[str, F]  # (2,lams,runs) by critic
    variance: dict[str, F]  # (2,lams,runs) by critic
    V: dict[str, F]  # (K,runs,S) after EVERY, 2 EVERY, … updates, by rule


def world(noise: float = 0.3, end: float = 0.1, gamma: float = 0.9) -> MDP:
    """A ring: "stay" stays, "on" goes on; with probability noise the state before is next; every step may end.

    Arriving in state 1 pays 1, in 2 pays 3.

    >>> exact(world(), even()).V.round(3)
    array([6.24 , 6.379, 6.328, 0.   ])
    """
    P, R, i = np.zeros((4, 2, 4)), np.zeros((4, 2, 4)), np.arange(3)
    P[i, 0, i], P[i, 1, (i + 1) % 3] = 1 - noise, 1 - noise
    P[i, :, (i + 2) % 3] += noise
    P[:3], P[:3, :, 3] = (1 - end) * P[:3], end
    R[:3, :, 1], R[:3, :, 2] = 1.0, 3.0
    return MDP(P, R, gamma, mu=[1, 0, 0, 0], terminal=np.arange(4) == 3, names=Names((), ("stay", "on")))


def ring(noise: float = 0.4) -> MDP:
    """The same without an end, gamma = .7: where TD(0) is tried."""
    return world(noise, 0.0, 0.7)


def even() -> F:
    """Both actions with probability 1/2."""
    return np.full((4, 2), 0.5)


def going() -> F:
    """Always on: without noise and end, a model without chance."""
    return np.tile([0.0, 1.0], (4, 1))


def critics(mdp: MDP) -> dict[str, F]:
    """The exact critic and the wrong one, (S,) each."""
    V = evaluate(induce(mdp, even()))
    return {"V = V_π": V, "wrong V": V + ERROR}


def estimated(mdp: MDP, V: F, lam: float) -> AdvantageMoments:
    """Exact mean, bias and variance of GAE with the critic V; lam = 0 is the TD error.

    >>> wrong = critics(world())["wrong V"]
    >>> [estimated(world(), wrong, lam).bias[0].round(3) for lam in (0, 1)]
    [array([-0.623, -2.324]), array([-2., -2.])]
    """
    return advantage_moments.advantage(mdp, even(), V, lam)


def biases(mdp: MDP, e: F) -> tuple[float, float]:
    """Largest bias of the TD error as an advantage, and size of the bias of the gradient, for the critic V_pi + e.

    >>> [round(x, 3) for x in biases(world(), np.array([1.0, 1.0, 1.0, 0.0]))]
    [0.19, 0.0]
    """
    bias = estimated(mdp, evaluate(induce(mdp, even())) + e, 0.0).bias
    return float(abs(bias).max()), float(np.linalg.norm(expected_gradient(mdp, even(), bias)))


def sampled(mdp: MDP, runs: int, episodes: int, rng: np.random.Generator) -> tuple[dict[str, F], dict[str, F]]:
    """Mean and variance of advantages of the first step, by critic: (2,lams,runs) by action."""
    source, V = sample.episodes(mdp, even(), rng), critics(mdp)
    mean, variance = ({name: np.empty((2, len(LAMBDAS), runs)) for name in V} for _ in range(2))
    for run in range(runs):
        drawn = list(islice(source, episodes))
        a = np.array([x.a[0] for x in drawn])
        for name, v in V.items():
            A = np.array([[gae(x.r, x.discount, v[x.s], lam)[0] for lam in LAMBDAS] for x in drawn])
            for k in (0, 1):
                mean[name][k, :, run] = A[a == k].mean(axis=0)
                variance[name][k, :, run] = A[a == k].var(axis=0, ddof=1)
    return mean, variance


def squared(mdp: MDP, pi: F) -> tuple[F, F, float]:
    """H, h and c of the mean squared TD error V'HV - 2h'V + c, states drawn evenly; over non-terminal states."""
    law = step(mdp, pi)
    n = len(law.states)
    x = np.eye(n)[:, None, :] - mdp.gamma * np.vstack([np.eye(n), np.zeros(n)])[None]  # (n, n+1, n)
    weight = law.P / n
    h = np.einsum("sy,sy,syk->k", weight, law.R, x)
    return np.einsum("sy,syk,syl->kl", weight, x, x), h, float((weight * (law.R**2 + law.noise)).sum())


def squared_error(mdp: MDP, pi: F, V: F) -> F:
    """Mean of delta^2 with states drawn evenly, for values (...,n) of the non-terminal states."""
    H, h, c = squared(mdp, pi)
    return np.asarray(((V @ H) * V).sum(axis=-1) - 2 * V @ h + c)


def minimiser(mdp: MDP, pi: F) -> F:
    """The values with the least mean squared TD error, H^-1 h, over non-terminal states.

    >>> minimiser(ring(), going()).round(3), evaluate(induce(ring(), going()))[:3].round(3)
    (array([5.084, 4.764, 3.486]), array([4.841, 4.734, 3.759]))
    """
    H, h, _ = squared(mdp, pi)
    return np.asarray(np.linalg.solve(H, h))


def learn(mdp: MDP, pi: F, rule: str, runs: int, updates: int, rng: np.random.Generator) -> F:
    """V after EVERY, 2 EVERY, … updates from V_pi, states drawn evenly, no end: (K,runs,n).

    "TD(0)": V(s) += alpha delta. "residual": V -= alpha/2 grad delta^2, so V(s') -= alpha gamma delta as well.
    """
    law, each, found = step(mdp, pi), np.arange(runs), []
    n = len(law.states)
    V, total = np.tile(evaluate(induce(mdp, pi))[law.states], (runs, 1)), law.P[:, :n].cumsum(axis=1)
    for k in range(1, updates + 1):
        s, u = rng.integers(n, size=runs), rng.random(runs)
        y = np.minimum((total[s] <= u[:, None]).sum(axis=1), n - 1)
        delta = law.R[s, y] + mdp.gamma * V[each, y] - V[each, s]
        V[each, s] += ALPHA * delta
        if rule == "residual":
            V[each, y] -= ALPHA * mdp.gamma * delta
        if k % EVERY == 0:
            found.append(V.copy())
    return np.array(found)


def means(mdp: MDP, pi: F, rule: str, updates: int, V: F) -> F:
    """Exact E[V] after EVERY, 2 EVERY, … updates from V, (K,n); no end."""
    if rule == "TD(0)":
        n = int((~mdp.terminal).sum())
        d, start = np.where(mdp.terminal, 0.0, 1 / n), np.append(V, np.zeros(mdp.S - n))
        records = independent_moments(mdp, pi, alpha=ALPHA, d=d, steps=updates, V=start, every=EVERY)
        return column(records, "mean")[:, :n]
    (H, h, _), found = squared(mdp, pi), []
    for k in range(1, updates + 1):
        V = V - ALPHA * (H @ V - h)
        if k % EVERY == 0:
            found.append(V)
    return np.array(found)


def ends() -> tuple[F, F]:
    """Where TD(0) and where the descent of the squared TD error end on the ring: V_pi and the minimiser, (3,) each."""
    return evaluate(induce(ring(), going()))[:3], minimiser(ring(), going())


def experiment(*, runs: int = RUNS, episodes: int = EPISODES, updates: int = UPDATES) -> Found:
    """Estimate advantages with both critics, and learn V by TD(0) and by descending delta^2."""
    rng = np.random.default_rng(SEED)
    V = {rule: learn(ring(), going(), rule, runs, updates, rng) for rule in ("TD(0)", "residual")}
    return Found(*sampled(world(), runs, episodes, rng), V)


def figure(fig: "Figure") -> None:
    """Draw biases, variances, critics and TD(0); fig: an empty figure, about 14 by 8 inches, layout "constrained"."""
    axes, found = fig.subplots(2, 3).ravel(), experiment()
    draw_moments(axes[0], axes[1], found)
    draw_critics(axes[2])
    draw_learning(axes[3], found)
    draw_squares(axes[4], axes[5])


def draw_moments(bias: "Axes", variance: "Axes", found: Found) -> None:
    """Draw bias and variance over lam in state 0, by critic and action: exact lines, sampled points."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, points

    mdp, fine, at = world(), np.linspace(0, 1, 101), np.array(LAMBDAS)
    A = exact(mdp, even()).advantage[0]
    for (name, V), colour in zip(critics(mdp).items(), (RIGHT, WRONG), strict=True):
        lines = [estimated(mdp, V, lam) for lam in fine]
        for a, (action, dash, marker) in enumerate((("stay", "-", "o"), ("on", "--", "s"))):
            label = f"{name}, {action}, exact"
            bias.plot(fine, [x.bias[0, a] for x in lines], color=colour, ls=dash, lw=1.5, label=label)
            variance.plot(fine, [x.variance[0, a] for x in lines], color=colour, ls=dash, lw=1.5, label=label)
            shift = 0.008 * (2 * a - 1)
            points(bias, at + shift, found.mean[name][a] - A[a], colour, marker=marker)
            points(variance, at + shift, found.variance[name][a], colour, marker=marker)
    bias.set_ylim(-3, 2.2)
    finish(bias, "λ (0: TD error, 1: G − V)", "bias in state 0 (reward)", f"Bias ({RUNS} runs ± 2 se; lines exact)")
    finish(variance, "λ", "variance in state 0 (reward²)", "Variance of one estimate", legend=None)


def draw_critics(ax: "Axes") -> None:
    """Draw the bias of the TD error, and of the gradient, against the error of the critic."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish

    x = np.linspace(-1, 1, 81)
    for name, e, colour in (("e = x (2, −1, 1)", ERROR, WRONG), ("e = x (1, 1, 1)", np.array([1.0, 1, 1, 0]), RIGHT)):
        both = np.array([biases(world(), y * e) for y in x])
        ax.plot(x, both[:, 0], color=colour, lw=1.6, label=f"{name}: largest |bias| of δ, exact")
        ax.plot(x, both[:, 1], color=colour, lw=1.6, ls="--", label=f"{name}: |bias of gradient|, exact")
    ax.set_ylim(-0.1, 3.9)
    finish(ax, "x, size of the error e = V − V_π", "bias (reward)", "δ: unbiased for V_π alone", legend="upper center")


def draw_learning(ax: "Axes", found: Found) -> None:
    """Draw V(2) over updates by TD(0) and by descending delta^2: runs, exact mean, limits."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, level, paths

    (V_pi, least), t = ends(), EVERY * np.arange(1, len(found.V["TD(0)"]) + 1)
    for (rule, V), colour in zip(found.V.items(), (RIGHT, WRONG), strict=True):
        exactly = means(ring(), going(), rule, int(t[-1]), V_pi)[:, 2]
        paths(ax, t, V[:, :, 2], colour, f"{rule}, {V.shape[1]} runs ± 2 se")
        ax.plot(t, exactly, color=colour, ls="--", lw=1.4, label=f"{rule}, exact mean")
    level(ax, V_pi[2], 800, "V_π(2) = {:.3f}", lift=45)
    level(ax, least[2], 600, "minimiser of E[δ²]: {:.3f}", lift=-42)
    ax.set_ylim(3.2, 4.6)
    finish(ax, "update t", "V(2) (reward)", "From V_π: TD(0) stays, descending δ² leaves", legend="upper left")


def draw_squares(ax: "Axes", chance: "Axes", updates: int = 1500) -> None:
    """Draw E[delta^2] along the mean paths of both rules, each from where the other ends; and the minimiser's error."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, level

    t, noise = EVERY * np.arange(updates // EVERY + 1), np.linspace(0, 1, 101)
    for rule, start, colour in (("TD(0)", ends()[1], RIGHT), ("residual", ends()[0], WRONG)):
        V = np.vstack([start, means(ring(), going(), rule, updates, start)])
        ax.plot(t, squared_error(ring(), going(), V), color=colour, lw=1.8, label=f"{rule}, exact mean path")
    for V, name in zip(ends(), ("at V_π", "least"), strict=True):
        level(ax, squared_error(ring(), going(), V), 700, name + ": {:.4f}")
    gap = [minimiser(ring(x), going()) - evaluate(induce(ring(x), going()))[:3] for x in noise]
    chance.plot(noise, np.linalg.norm(gap, axis=1), color=WRONG, lw=1.8, label="minimiser of E[δ²], exact")
    chance.axhline(0, color=RIGHT, lw=1.8, label="TD(0), exact limit of E[V]")
    finish(ax, "update t", "mean of δ² (reward²)", "TD(0) climbs from the least E[δ²] to V_π", legend="center right")
    finish(chance, "probability of going back instead of on", "|V − V_π| (reward)", "Without chance both agree")


def main() -> None:
    """Print the findings."""
    found, mdp = experiment(), world()
    A = exact(mdp, even()).advantage[0]
    print("bias of the advantage of staying in state 0: exact | sampled ± 2 se; exact variance")
    for name, V in critics(mdp).items():
        for i, lam in enumerate(LAMBDAS):
            x, y = estimated(mdp, V, lam), found.mean[name][0, i] - A[0]
            print(f"    {name}, lam = {lam:<4g} {x.bias[0, 0]:7.4f} | {y.mean():7.4f} ± {2 * standard_error(y):.4f}; "
                  f"{x.variance[0, 0]:.4f}")  # fmt: skip
    for rule, V in zip(found.V, ends(), strict=True):
        y, least = found.V[rule][-1, :, 2], squared_error(ring(), going(), V)
        print(
            f"{rule}: V(2) -> {V[2]:.4f} exact, {y.mean():.4f} ± {2 * standard_error(y):.4f} learnt; E[δ²] {least:.4f}"
        )


if __name__ == "__main__":
    main()
