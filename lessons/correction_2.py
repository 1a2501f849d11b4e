"""Correction 2: the penalty of PPO is KL(old || new), it is subtracted as it is, and its weight adapts.

Written as (rho A - beta KL(new || old)) log pi, the penalty differs from the paper's (Schulman et al., 2017, eq. 8) in
three ways:

1. Direction. Near the old policy both directions are the same, x^2/2 Var(A) for small steps x. Far away they are not:
   KL(old || new) is infinite for a policy that drops an action of the old one, KL(new || old) at most -log q. With
   KL(old || new) the best policy is p = beta q / (c - A): every old action keeps a share of the order of beta
   (covering). With KL(new || old) it is p = q exp(A/beta) / Z: bad actions vanish exponentially (seeking).
2. Factor. log pi is negative, so a KL that is multiplied by it is a reward for leaving the old policy: staying is the
   least, and no optimum exists.
3. The rule for beta is missing. With a fixed beta, how far an update goes depends on the size of the rewards and of
   the advantages that are left. The adaptive rule keeps KL(old || new) near its target for rewards of any size.

"PPO introduces GAE" is wrong too: generalised advantage estimation is an earlier paper of its own (Schulman et al.,
2016; `tabrl.returns.gae`). The experiment runs on one state with three actions, then on FrozenLake with exact values.

q old policy, p new one (...,3); A advantages of q; beta weight of the penalty; x length of a step; k updates.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tabrl import dp, envs, losses
from tabrl.gradient import exact
from tabrl.mdp import MDP
from tabrl.natural import npg_step
from tabrl.policy import kl, log, log_softmax, softmax, through_log, through_pi
from tabrl.summary import standard_error
from tabrl.types import F

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OLD = np.array([0.3, 0.5, 0.2])
PAYS = np.array([1.0, 0.5, 0.0])
BETAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
RUNS, BATCH, SEED, TARGET, SCALES = 20, 100, 2, 0.003, (1.0, 100.0)
Derivative = Callable[[F, F, F, float], F]  # of a loss, by logp, from logp, logp_old, A and beta


class Trace(NamedTuple):
    """Exact PPO-KL, update by update."""

    kl: F  # (K,) mean KL(old || new) over visits
    beta: F  # (K,) used in the update
    J: F  # (K+1,)


def advantage() -> F:
    """A of the three actions under OLD.

    >>> advantage()
    array([ 0.45, -0.05, -0.55])
    """
    return np.asarray(PAYS - OLD @ PAYS)


def covering(q: F, A: F, beta: float) -> F:
    """The best policy for sum of p A - beta KL(q || p), in closed form up to one number per state.

        p(a) = beta q(a) / (c - A(a)),   c such that p sums to 1

    q, A: (...,A). c - max A by Newton's method, which rises to it from below. beta to infinity gives q.
    Source: Schulman et al. (2017), eq. 8, by Lagrange; ledger E1.16.

    >>> covering(OLD, advantage(), 0.5).round(4)
    array([0.589 , 0.3313, 0.0797])
    """
    g = np.where(q > 0, A, -np.inf).max(axis=-1, keepdims=True) - A
    g = np.maximum(g, 0.0)  # an action that q never takes stays at 0, however good
    c = (beta * q - g).max(axis=-1, keepdims=True)
    for _ in range(200):
        p = beta * q / (c + g)
        step = (p.sum(axis=-1, keepdims=True) - 1) / (p / (c + g)).sum(axis=-1, keepdims=True)
        c = c + np.maximum(step, 0.0)
        if not (step > 1e-15 * c).any():
            break
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def seeking(q: F, A: F, beta: float) -> F:
    """The best policy for sum of p A - beta KL(p || q): q exp(A/beta) / Z, a natural gradient step of length 1/beta.

    >>> seeking(OLD, advantage(), 0.5).round(4)
    array([0.5871, 0.36  , 0.053 ])
    """
    return npg_step(q, A, 1 / beta)


def d_paper(logp: F, logp_old: F, A: F, beta: float) -> F:
    """The paper's loss: `losses.ppo_kl`."""
    return np.asarray(losses.d_ppo_kl(logp, logp_old, A, beta=beta))


def d_reversed(logp: F, logp_old: F, A: F, beta: float) -> F:
    """The other direction: -rho A + beta rho log rho, whose mean over old actions is -(p . A) + beta KL(p || q)."""
    rho = np.exp(logp - logp_old)
    return -rho * A + beta * rho * (logp - logp_old)  # less beta rho, whose gradient has mean 0


def multiplied(p: F, q: F, A: F, beta: float) -> float:
    """The mistake: p . A - beta KL(p || q) E_q[log p], the penalty with its factor log pi. To be maximised.

    At A = 0 staying gives 0, the least there is: every other policy gains.

    >>> [round(multiplied(p, OLD, np.zeros(3), 1.0), 3) for p in (OLD, np.array([0.4, 0.4, 0.2]))]
    [0.0, 0.027]
    """
    return float(p @ A - beta * kl(p, q) * (q @ log(p)))


def d_multiplied(p: F, q: F, A: F, beta: float) -> F:
    """Gradient of `multiplied` with respect to the preferences of p, (3,)."""
    C = q @ log(p)
    return through_pi(p, A - beta * C * log(p / q)) - beta * kl(p, q) * through_log(p, q)


def climb(gradient: Callable[[F], F], updates: int, eta: float = 0.1) -> F:
    """KL(old || new) after 1, 2, … steps of exact ascent from the old policy, (updates,)."""
    theta, found = log(OLD), []
    for _ in range(updates):
        theta = theta + eta * gradient(softmax(theta))
        found.append(float(kl(OLD, softmax(theta))))
    return np.array(found)


def learnt(d: Derivative, beta: float, runs: int, rng: np.random.Generator, updates: int = 800) -> F:
    """Policies learnt from batches of old actions, averaged over the second half of the updates: (runs,3).

    Steps along natural gradients, the mean loss's derivative by log p divided by p, which are not slow for small p.
    """
    theta, total = np.tile(log(OLD), (runs, 1)), np.zeros((runs, 3))
    old, A = np.tile(log(OLD), (runs, 1)), np.tile(advantage(), (runs, 1))
    for k in range(updates):
        logp = log_softmax(theta)
        share = rng.multinomial(BATCH, OLD, runs) / BATCH
        theta = theta - 0.2 / (1 + beta) * share * d(logp, old, A, beta) / np.exp(logp)
        total += np.exp(log_softmax(theta)) * (k >= updates // 2)
    return total / (updates - updates // 2)


def lake(scale: float) -> MDP:
    """FrozenLake 4x4, slippery, gamma = .95, that pays `scale` at the goal.

    >>> lake(100.0)
    MDP(S=16, A=4, gamma=0.95, 5 terminal, dense)
    """
    mdp = envs.make("frozen-lake", gamma=0.95)
    return MDP(mdp.P, mdp.R * scale, 0.95, mu=mdp.mu, terminal=mdp.terminal)


def ppo_kl(mdp: MDP, beta: float, updates: int, *, adaptive: bool) -> Trace:
    """PPO-KL with exact visits and advantages, each update carried out to its exact optimum.

    >>> ppo_kl(lake(1.0), 1.0, 2, adaptive=True).beta
    array([1. , 0.5])
    """
    pi = np.full((mdp.S, mdp.A), 1 / mdp.A)
    kls: list[float] = []
    betas: list[float] = []
    J: list[float] = []
    for _ in range(updates):
        x = exact(mdp, pi)
        new = covering(pi, x.advantage, beta)
        weight = np.where(mdp.terminal, 0.0, x.d)
        far = float(weight @ kl(pi, new) / weight.sum())
        for found, y in ((kls, far), (betas, beta), (J, x.J)):
            found.append(y)
        beta, pi = losses.adaptive_beta(beta, far, TARGET) if adaptive else beta, new
    return Trace(np.array(kls), np.array(betas), np.array([*J, exact(mdp, pi).J]))


def experiment(*, runs: int = RUNS) -> dict[str, F]:
    """Policies learnt with both directions over BETAS, (betas,runs,3) each."""
    rng = np.random.default_rng(SEED)
    rules = {"KL(old‖new)": d_paper, "KL(new‖old)": d_reversed}
    return {name: np.array([learnt(d, beta, runs, rng) for beta in BETAS]) for name, d in rules.items()}


def figure(fig: "Figure") -> None:
    """Draw optima, both divergences, the factor, and the rule; fig: an empty figure, about 14 by 8 inches."""
    axes, updates = fig.subplots(2, 3).ravel(), 50
    draw_optima(axes[0], experiment())
    draw_divergences(axes[1])
    draw_factor(axes[2])
    traces = {(scale, adaptive): ppo_kl(lake(scale), 1.0, updates, adaptive=adaptive)
              for scale in SCALES for adaptive in (True, False)}  # fmt: skip
    draw_rule(axes[3:], traces)


def draw_optima(ax: "Axes", found: dict[str, F]) -> None:
    """Draw the shares of the best and of the worst action against beta."""
    from tabrl.lessons._drawing import OTHER, RIGHT, finish, points

    grid = np.geomspace(0.03, 3, 100)
    for (name, p), best, colour, marker in zip(found.items(), (covering, seeking), (RIGHT, OTHER), "os", strict=True):
        line = np.array([best(OLD, advantage(), beta) for beta in grid])
        ax.plot(grid, line[:, 0], color=colour, lw=1.6, label=f"{name}, exact optimum")
        ax.plot(grid, line[:, 2], color=colour, lw=1.6)
        points(ax, np.array(BETAS), p[:, :, 0], colour, f"{name}, {RUNS} runs ± 2 se", marker)
        points(ax, np.array(BETAS), p[:, :, 2], colour, marker=marker)
    ax.annotate("best action", (0.04, 1.15), fontsize=9)
    ax.annotate("worst action", (0.65, 0.05), fontsize=9)
    ax.set(xscale="log", yscale="log", ylim=(1e-4, 2))
    finish(ax, "β, weight of the penalty", "probability in the new policy", "KL(old‖new) keeps what the old policy did",
           legend="lower right")  # fmt: skip


def draw_divergences(ax: "Axes") -> None:
    """Draw both divergences and their common first term along q exp(x A) / Z."""
    from tabrl.lessons._drawing import INK, OTHER, RIGHT, finish, level

    x = np.geomspace(0.05, 60, 200)
    p = np.array([npg_step(OLD, advantage(), y) for y in x])
    ax.plot(x, kl(OLD, p), color=RIGHT, lw=1.8, label="KL(old‖new), exact")
    ax.plot(x, kl(p, OLD), color=OTHER, lw=1.8, label="KL(new‖old), exact")
    ax.plot(x, x**2 / 2 * (OLD @ advantage() ** 2), color=INK, ls=":", lw=1.3, label="x²/2 Var(A), both near 0")
    level(ax, -float(np.log(OLD[0])), 0.06, "−log q(best) = {:.3f}")
    ax.set(xscale="log", yscale="log", ylim=(1e-4, 40))
    finish(ax, "length x of a natural gradient step", "divergence (nats)", "The same near by, not far away",
           legend="lower right")  # fmt: skip


def draw_factor(ax: "Axes", updates: int = 1000, beta: float = 0.5) -> None:
    """Draw how far exact ascent goes with each penalty, and where the optimum is."""
    from tabrl.lessons._drawing import INK, OTHER, RIGHT, WRONG, finish

    A, k = advantage(), np.arange(1, updates + 1)
    lines = {
        "KL(old‖new)": (lambda p: through_log(p, -OLD * d_paper(log(p), log(OLD), A, beta)), RIGHT),
        "KL(new‖old)": (lambda p: through_log(p, -OLD * d_reversed(log(p), log(OLD), A, beta)), OTHER),
        "KL(new‖old) times log π": (lambda p: d_multiplied(p, OLD, A, beta), WRONG),
        "no penalty": (lambda p: through_pi(p, A), INK),
    }
    for name, (gradient, colour) in lines.items():
        ax.plot(k, climb(gradient, updates), color=colour, lw=1.8, label=f"{name}, exact ascent")
    for best, colour in ((covering, RIGHT), (seeking, OTHER)):
        ax.axhline(float(kl(OLD, best(OLD, A, beta))), color=colour, ls="--", lw=1.1)
    ax.set(xscale="log", yscale="log", ylim=(3e-5, 1e5))
    finish(ax, "step of ascent", "KL(old‖new) (nats)", f"β = {beta}: times log π the penalty is a reward",
           legend="upper left")  # fmt: skip


def draw_rule(axes: "list[Axes]", traces: dict[tuple[float, bool], Trace]) -> None:
    """Draw KL, beta and J over updates, for fixed and adaptive beta and two sizes of rewards."""
    from tabrl.lessons._drawing import INK, RIGHT, WRONG, finish, level

    for (scale, adaptive), x in traces.items():
        k, colour = np.arange(1, len(x.kl) + 1), RIGHT if adaptive else WRONG
        style: dict[str, Any] = {"color": colour, "lw": 1.6, "ls": "-" if scale == SCALES[0] else "--"}
        label = f"{'adaptive' if adaptive else 'fixed'} β, rewards × {scale:g}"
        for ax, y in zip(axes, (x.kl, x.beta, x.J[1:] / scale), strict=True):
            ax.plot(k, y, label=label, **style)
    axes[0].axhspan(TARGET / 1.5, TARGET * 1.5, color=INK, alpha=0.12, lw=0)
    axes[0].axhline(TARGET, color=INK, lw=0.9)
    axes[0].set(yscale="log", ylim=(1e-6, 1e3))
    axes[1].set(yscale="log")
    level(axes[2], dp.solve(lake(1.0)).V[0], 33, "J* = {:.4f}")
    finish(
        axes[0],
        "update k (exact)",
        "mean KL(old‖new) (nats)",
        f"FrozenLake, target {TARGET}: kept while there is more to learn",
    )
    finish(axes[1], "update k (exact)", "β", "β finds the size of the rewards", legend=None)
    finish(axes[2], "update k (exact)", "J / size of the rewards", "Exact advantages forgive long updates", legend=None)
    axes[2].set_ylim(0, 0.2)


def main() -> None:
    """Print the findings."""
    found, A = experiment(), advantage()
    print("share of the worst action: exact optimum | learnt ± 2 se")
    for i, beta in enumerate(BETAS):
        for (name, p), best in zip(found.items(), (covering, seeking), strict=True):
            y = p[i, :, 2]
            print(f"    beta = {beta:<4g} {name} {best(OLD, A, beta)[2]:.5f} | ", end="")
            print(f"{y.mean():.5f} ± {2 * standard_error(y):.5f}")
    rest = climb(lambda p: d_multiplied(p, OLD, A, 0.5), 1000)
    print(f"times log pi: KL(old||new) after 10, 100, 1000 steps {rest[9]:.3g}, {rest[99]:.3g}, {rest[-1]:.3g}; "
          f"optimum of the paper's objective {kl(OLD, covering(OLD, A, 0.5)):.3g}")  # fmt: skip
    for scale in SCALES:
        for adaptive in (True, False):
            x = ppo_kl(lake(scale), 1.0, 50, adaptive=adaptive)
            least, most, name = x.kl[10:20].min(), x.kl[10:20].max(), "adaptive" if adaptive else "fixed"
            print(f"rewards x {scale:g}, {name} beta: KL of updates 11 to 20 from {least:.2g} to {most:.2g}, "
                  f"target {TARGET}; J after 50 = {x.J[-1] / scale:.4f} x {scale:g}")  # fmt: skip


if __name__ == "__main__":
    main()
