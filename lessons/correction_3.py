"""Correction 3: the target of the critic contains V once.

The advantage estimate A_t = delta_t + gamma lam A_{t+1} subtracts V, as delta_t = r_t + gamma V(s_{t+1}) - V(s_t).
So A_t + V(s_t) = r_t + gamma V(s_{t+1}) + gamma lam A_{t+1}, the lambda-return, without another V(s_t). To take this
sum for A_t loses the -V(s_t) in delta; with V(s_t) added once more it is GAE + 2 V. In the mean

    right    T^lam V        = b + L V,         V_pi = b + L V_pi
    wrong    T^lam V + V    = b + (I + L) V,   b = (I - gamma lam P)^-1 r,  L = gamma (1-lam) (I - gamma lam P)^-1 P

1. The wrong target is met only by V = -L^-1 b, a number without meaning: it solves T^lam V = 0, not T^lam V = V.
2. No learner stays there. L has the eigenvalue kappa = gamma (1-lam) rho / (1 - gamma lam rho) > 0, rho the largest of
   P, so that V grows like (1 + alpha kappa)^k: exponentially for lam < 1. At lam = 1, L is 0: V grows by alpha V_pi
   with every update, for ever.
3. Forgetting -V in every delta instead, not only in the first, changes the rate to gamma rho / (1 - gamma lam rho).

The experiment runs on a ring of three states that ends by chance. Targets are means over fresh episodes from every
state, so that E[V_k] obeys the affine recursion exactly.

V (S,); P, r on all states, terminal rows 0; k updates of step size alpha; lam trace decay.
"""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tabrl import sample
from tabrl.chain import Chain, evaluate, induce
from tabrl.markov import solve
from tabrl.mdp import MDP
from tabrl.operators import Affine, lambda_operator
from tabrl.returns import discounted_sum, gae, value_target
from tabrl.summary import standard_error
from tabrl.types import Episode, F, Names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Target = Callable[[F, F, F, float], F]
LAMBDAS = (0.0, 0.5, 0.95, 1.0)
ALPHA, UPDATES, EPISODES, RUNS, SEED = 0.1, 60, 8, 20, 3


class Curve(NamedTuple):
    """Values of state 0 while they are learnt, by one target and one lam."""

    name: str
    lam: float
    exact: F  # (updates+1,) mean
    sampled: F  # (updates+1,runs)


def world() -> MDP:
    """A ring: 0 to 1 to 2 to 0 with probability .7, stay with .2, end with .1; leaving 0, 1, 2 pays 1, 0, -.5.

    >>> evaluate(induce(world(), only(world()))).round(3)
    array([1.573, 0.46 , 0.599, 0.   ])
    """
    P, i = np.zeros((4, 1, 4)), np.arange(3)
    P[i, 0, i], P[i, 0, (i + 1) % 3], P[i, 0, 3] = 0.2, 0.7, 0.1
    names = Names(("0", "1", "2", "end"), ("on",))
    return MDP(P, np.array([1.0, 0.0, -0.5, 0.0]), 0.9, mu=[1, 0, 0, 0], terminal=np.arange(4) == 3, names=names)


def only(mdp: MDP) -> F:
    """The policy of a model with one action."""
    return np.ones((mdp.S, 1))


def right(r: F, discount: F, v: F, lam: float) -> F:
    """GAE + V of an episode, the lambda-return. Arguments as in `returns.gae`."""
    return value_target(gae(r, discount, v, lam), v[:-1])


def doubled(r: F, discount: F, v: F, lam: float) -> F:
    """The mistake: r + gamma V(s') + gamma lam A' taken for A, and V added to it. That is GAE + 2 V.

    >>> r, discount, v = np.ones(2), np.array([0.5, 0.0]), np.array([4.0, 2.0, 0.0])
    >>> right(r, discount, v, 0.5), doubled(r, discount, v, 0.5)
    (array([1.75, 1.  ]), array([5.75, 3.  ]))
    """
    A = gae(r, discount, v, lam)
    expanded = r + discount * v[1:] + lam * discount * np.append(A[1:], 0.0)
    return np.asarray(expanded + v[:-1])


def everywhere(r: F, discount: F, v: F, lam: float) -> F:
    """The mistake in every step: the recursion runs on r + gamma V(s'), without -V, and V is added.

    >>> everywhere(np.ones(2), np.array([0.5, 0.0]), np.array([4.0, 2.0, 0.0]), 0.5)
    array([6.25, 3.  ])
    """
    return np.asarray(discounted_sum(r + discount * v[1:], lam * discount) + v[:-1])


def mean_right(chain: Chain, lam: float) -> Affine:
    """The mean target given the state, T^lam V, as matrix and vector."""
    return lambda_operator(chain, lam)


def mean_doubled(chain: Chain, lam: float) -> Affine:
    """The mean of `doubled`: T^lam V + V."""
    x = lambda_operator(chain, lam)
    return x._replace(matrix=x.matrix + live(chain))


def mean_everywhere(chain: Chain, lam: float) -> Affine:
    """The mean of `everywhere`: (I - gamma lam P)^-1 (r + gamma P V) + V."""
    x = lambda_operator(chain, lam)
    step = solve(inner(chain), chain.gamma * lam, chain.gamma * inner(chain))
    return x._replace(matrix=step + live(chain))


RULES: dict[str, tuple[Target, Callable[[Chain, float], Affine]]] = {
    "right": (right, mean_right), "wrong": (doubled, mean_doubled),
    "wrong in every step": (everywhere, mean_everywhere),
}  # fmt: skip


def live(chain: Chain) -> F:
    """The identity on non-terminal states."""
    return np.diag(1.0 - chain.terminal)


def inner(chain: Chain) -> F:
    """P between non-terminal states, 0 elsewhere."""
    return np.asarray(live(chain) @ chain.P @ live(chain))


def radius(chain: Chain) -> float:
    """Largest eigenvalue rho of P between non-terminal states.

    >>> round(radius(induce(world(), only(world()))), 9)
    0.9
    """
    return float(abs(np.linalg.eigvals(inner(chain))).max())


def growth(chain: Chain, lam: float, *, every: bool = False) -> float:
    """Rate kappa at which the wrong target makes V grow: by the factor 1 + alpha kappa in every update.

        gamma (1-lam) rho / (1 - gamma lam rho),   without (1-lam) where -V is forgotten in every step

    >>> [round(growth(induce(world(), only(world())), lam), 3) for lam in LAMBDAS]
    [0.81, 0.681, 0.176, 0.0]
    """
    g = chain.gamma * radius(chain)
    return g * (1.0 if every else 1 - lam) / (1 - g * lam)


def wrong_values(chain: Chain, lam: float) -> F:
    """The only V that meets the wrong target: T^lam V = 0, which is V = -(gamma (1-lam) P)^-1 r, (S,).

    P must be regular between non-terminal states, and lam < 1: at lam = 1 there is none (ValueError).

    >>> wrong_values(induce(world(), only(world())), 0.5).round(3)
    array([ 1.298, -3.545,  1.013,  0.   ])
    """
    if lam == 1:
        raise ValueError("lam is 1; a number below 1 is expected: T V does not depend on V, so nothing makes it 0")
    V, s = np.zeros(len(chain.r)), np.flatnonzero(~chain.terminal)
    V[s] = -np.linalg.solve(chain.gamma * (1 - lam) * chain.P[np.ix_(s, s)], chain.r[s])
    return V


def means(chain: Chain, operator: Affine, updates: int, alpha: float = ALPHA) -> F:
    """E[V_k] for k = 0 … updates from V = 0, exact: V + alpha (vector + matrix V - V); (updates+1,S)."""
    V = [np.zeros(len(chain.r))]
    for _ in range(updates):
        V.append(V[-1] + alpha * (operator.vector + operator.matrix @ V[-1] - V[-1]))
    return np.array(V)


def fresh(mdp: MDP, updates: int, rng: np.random.Generator) -> list[list[Episode]]:
    """For every update EPISODES episodes from each non-terminal state."""
    found: list[list[Episode]] = [[] for _ in range(updates)]
    for s in np.flatnonzero(~mdp.terminal):
        start = MDP(mdp.P, mdp.R, mdp.gamma, mu=np.eye(mdp.S)[s], terminal=mdp.terminal)
        source = sample.episodes(start, only(mdp), rng)
        for batch in found:
            batch.extend(islice(source, EPISODES))
    return found


def learn(batches: list[list[Episode]], S: int, lam: float, target: Target, alpha: float = ALPHA) -> F:
    """V after 0, 1, … updates towards the mean target of the episodes that start in each state, (updates+1,S)."""
    V, found = np.zeros(S), [np.zeros(S)]
    for batch in batches:
        total, count = np.zeros(S), np.zeros(S)
        for x in batch:
            total[x.s[0]] += target(x.r, x.discount, V[x.s], lam)[0]
            count[x.s[0]] += 1
        V = V + alpha * np.where(count > 0, total / np.maximum(count, 1) - V, 0.0)
        found.append(V)
    return np.array(found)


def experiment(*, runs: int = RUNS, updates: int = UPDATES) -> list[Curve]:
    """Learn V from the same episodes by the right and by the wrong target, for every lam."""
    mdp = world()
    chain = induce(mdp, only(mdp))
    rngs = [np.random.default_rng(x) for x in np.random.SeedSequence(SEED).spawn(runs)]
    drawn = [fresh(mdp, updates, rng) for rng in rngs]
    curves = []
    for lam in LAMBDAS:
        for name in ("right", "wrong"):
            target, mean = RULES[name]
            V = np.array([learn(batches, mdp.S, lam, target)[:, 0] for batches in drawn]).T
            curves.append(Curve(name, lam, means(chain, mean(chain, lam), updates)[:, 0], V))
    return curves


def figure(fig: "Figure") -> None:
    """Draw learning, growth and fixed points; fig: an empty figure, about 14 by 8 inches, layout "constrained"."""
    axes, found = fig.subplots(2, 2).ravel(), experiment()
    chain = induce(world(), only(world()))
    draw_learning(axes[0], [x for x in found if x.lam == 0.95], evaluate(chain)[0])
    draw_all(axes[1], [x for x in found if x.name == "wrong"], evaluate(chain)[0])
    draw_growth(axes[2], chain)
    draw_fixed(axes[3], chain)


def draw_learning(ax: "Axes", curves: list[Curve], V: float) -> None:
    """Draw V(0) over updates by both targets: runs, interval and exact mean."""
    from tabrl.lessons._drawing import RIGHT, WRONG, finish, level, paths

    for x, colour in zip(curves, (RIGHT, WRONG), strict=True):
        k = np.arange(len(x.exact))
        paths(ax, k, x.sampled, colour, f"{x.name}, {x.sampled.shape[1]} runs ± 2 se")
        ax.plot(k, x.exact, color=colour, lw=1.4, ls="--", label=f"{x.name}, exact mean")
    level(ax, V, 0, "V_π = {:.3f}")
    finish(ax, "update k", "V(0) (reward)", f"λ = {curves[0].lam}: with V counted twice the critic never settles")


def draw_all(ax: "Axes", curves: list[Curve], V: float) -> None:
    """Draw V(0) by the wrong target for every lam: exact mean, and sampled means at some updates."""
    from tabrl.lessons._drawing import FOURTH, INK, OTHER, WRONG, finish, points
    from tabrl.plots import COLOURS

    at = np.arange(10, len(curves[0].exact), 10)
    for x, colour, marker in zip(curves, (COLOURS[5], OTHER, WRONG, FOURTH), "osD^", strict=True):
        ax.plot(x.exact, color=colour, lw=1.4)
        points(ax, at, x.sampled[at], colour, f"λ = {x.lam:g}", marker)
    ax.axhline(V, color=INK, ls="--", lw=1, label="V_π, the right target's limit")
    ax.set(yscale="log", ylim=(0.1, None))
    finish(ax, "update k", "V(0) (reward)", f"The wrong target for every λ ({curves[0].sampled.shape[1]} runs ± 2 se; "
           "lines exact)")  # fmt: skip


def draw_growth(ax: "Axes", chain: Chain, updates: int = 250) -> None:
    """Draw the factor by which max |V| grows in the end against lam: from the recursion, and in closed form."""
    from tabrl.lessons._drawing import OTHER, RIGHT, WRONG, finish

    lams, fine = np.linspace(0, 0.99, 12), np.linspace(0, 1, 101)
    for (name, (_, mean)), colour, marker in zip(RULES.items(), (RIGHT, WRONG, OTHER), "osD", strict=True):
        far = [abs(means(chain, mean(chain, lam), updates)[-2:] - (evaluate(chain) if mean is mean_right else 0)).max(1)
               for lam in lams]  # fmt: skip
        ax.plot(lams, [y[1] / y[0] for y in far], marker, color=colour, ms=5, label=f"{name}, from the recursion")
        less, every = float(mean is mean_right), mean is mean_everywhere
        line = [1 + ALPHA * (growth(chain, lam, every=every) - less) for lam in fine]
        ax.plot(fine, line, color=colour, lw=1.4, label=f"{name}, 1 {'− α(1 − κ)' if less else '+ ακ'}, exact")
    ax.axhline(1, color="black", lw=0.8)
    finish(ax, "λ", f"factor per update, α = {ALPHA}", "Growth of |V| (right: decay of |V − V_π|)", legend="upper left")


def draw_fixed(ax: "Axes", chain: Chain) -> None:
    """Draw V_pi and the values that meet the wrong target, by state."""
    from tabrl.lessons._drawing import FOURTH, OTHER, RIGHT, finish
    from tabrl.plots import COLOURS

    bars = {"V_π": (evaluate(chain), RIGHT)}
    for lam, colour in zip((0.0, 0.5, 0.9), (COLOURS[5], OTHER, FOURTH), strict=True):
        bars[f"meets the wrong target, λ = {lam:g}"] = (wrong_values(chain, lam), colour)
    for i, (name, (V, colour)) in enumerate(bars.items()):
        ax.bar(np.arange(3) + 0.2 * (i - 1.5), V[:3], 0.2, color=colour, label=name)
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks([0, 1, 2], ["0", "1", "2"])
    finish(ax, "state", "value (reward)", "Exact solutions: the wrong ones mean nothing, and repel")


def main() -> None:
    """Print the findings."""
    chain, found = induce(world(), only(world())), experiment()
    print(f"V_pi(0) = {evaluate(chain)[0]:.4f}; V(0) after {UPDATES} updates, exact mean and sampled ± 2 se")
    for x in found:
        y = x.sampled[-1]
        print(f"lam = {x.lam:<4g} {x.name:5} {x.exact[-1]:10.4f} {y.mean():10.4f} ± {2 * standard_error(y):.4f}")
    for lam in LAMBDAS:
        meets = wrong_values(chain, lam)[:3].round(3) if lam < 1 else "nothing"
        once, always = (1 + ALPHA * growth(chain, lam, every=x) for x in (False, True))
        print(f"lam = {lam:<4g} |V| grows by {once:.4f} an update, {always:.4f} without any -V; met by {meets}")


if __name__ == "__main__":
    main()
