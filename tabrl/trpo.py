"""Natural gradients from samples: NPG with a fixed step size, TRPO with a trust region.

theta (S,A) preferences of a softmax policy, pi (S,A); w (S,) weight of the states of a batch; g (S,A) its policy
gradient; F Fisher information of the policy in those states, exact over actions: blocks w(s) (diag(pi) - pi pi'); delta
the largest mean KL(old || new) of an update; v (S,A) direction. Unvisited states and illegal actions do not move.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl._xp import at_least
from tabrl.control.acting import Rng
from tabrl.decisions import Batch, estimate, mean_kl, state_weights
from tabrl.on_policy import Critic, OnPolicy, Plan, Start, positive_count
from tabrl.optimise import Rate, positive, size
from tabrl.policy import log_softmax, through_pi
from tabrl.types import B, F, PGStep
from tabrl.weights import log_ratios

Direction: TypeAlias = Callable[[F, F, F], F]  # g, pi, w to v with (F + damping) v = g, or nearly so


def fisher_product(v: F, pi: F, w: F, damping: float = 0.0) -> F:
    """Fisher information of a batch times a direction, without the matrix.

        (F v + damping v)[s,a] = w(s) pi(a|s) (v[s,a] - sum over b of pi(b|s) v[s,b]) + damping v[s,a]

    v, pi: (S,A); w: (S,). With w the exact visits it is `gradient.fisher_vector`. Source: Schulman et al. (2015),
    appendix C.1, with the exact mean over actions; ledger E1.16.

    >>> fisher_product(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]), np.ones(1))
    array([[ 0.25, -0.25]])
    """
    return w[:, None] * through_pi(pi, v) + damping * v


def natural(g: F, pi: F, w: F, *, damping: float = 0.0) -> F:
    """Natural gradient of a table in closed form, state by state: the solution of (F + damping) v = g.

        v[s,a] = (g[s,a] - pi(a|s) R) / D(a),   D = w(s) pi(.|s) + damping
        R = (sum over b of g[s,b] / D(b)) / (sum over b of pi(b|s) / D(b))

    g (its rows sum to 0), pi: (S,A); w: (S,). damping >= 0: 0 gives pinv(F) g, which with exact g and w is the
    advantage less its plain mean over the actions; a large one g / damping, the plain gradient. Drawn decisions divided
    by a small pi are wild, and a damping of the size of w(s) pi for the rarest action worth listening to tames them.
    Raises ValueError. Source: the Sherman-Morrison formula on the blocks of F; ledger E1.16.

    >>> natural(np.array([[0.25, -0.25]]), np.array([[0.5, 0.5]]), np.ones(1))
    array([[ 0.5, -0.5]])
    """
    at_least(0, damping=damping)
    D = w[:, None] * pi + damping
    at = D > 0
    share = np.divide(pi, D, out=np.zeros_like(D), where=at)
    steep = np.divide(g, D, out=np.zeros_like(D), where=at)
    total = share.sum(axis=1, keepdims=True)
    R = np.divide(steep.sum(axis=1, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    return steep - R * share  # type: ignore[no-any-return]


def conjugate_gradient(g: F, pi: F, w: F, *, iterations: int = 10, damping: float = 0.0, tol: float = 1e-10) -> F:
    """Natural gradient by conjugate gradients: products with F in place of its inverse, as for a network.

    Solves (F + damping) v = g from v = 0, until the residual is at most tol times |g| or after `iterations` products.
    g: (S,A) in the range of F, as every policy gradient is; v stays there, so that F need not be regular. Each iterate
    goes uphill, g . v > 0. With enough iterations it is `natural`; stopped early, it leaves out the actions that hardly
    ever happen. Raises ValueError. Source: Hestenes & Stiefel (1952); Schulman et al. (2015), appendix C; ledger E1.16.

    >>> conjugate_gradient(np.array([[0.25, -0.25]]), np.array([[0.5, 0.5]]), np.ones(1))
    array([[ 0.5, -0.5]])
    """
    at_least(0, damping=damping)
    positive_count("iterations", iterations)
    v, residual, p = np.zeros_like(g), g, g
    square = least = float((g * g).sum())
    for _ in range(iterations):
        Fp = fisher_product(p, pi, w, damping)
        curvature = float((p * Fp).sum())
        if square <= tol**2 * least or curvature <= 0:
            break
        v, residual = v + square / curvature * p, residual - square / curvature * Fp
        before, square = square, float((residual * residual).sum())
        p = residual + square / before * p
    return v


class TrustStep(NamedTuple):
    """What a step within a trust region did."""

    theta: F  # (S,A)
    kl: float  # mean KL(old || new), at most delta
    gain: float  # of the surrogate, > 0; 0 where theta stays
    kept: float  # share of the longest step that the line search kept; 0 where theta stays


def trpo_step(
    theta: F, x: Batch, delta: float, *, direction: Direction = natural, legal: B | None = None, shrink: float = 0.8,
    tries: int = 30,
) -> TrustStep:  # fmt: skip
    """One step of TRPO: the longest that the trust region allows along the natural gradient, and is an improvement.

        maximise sum over i of weight[i] (rho[i] - 1) adv[i]   so that   mean KL(old || new) <= delta
        theta + shrink^j sqrt(2 delta / g . v) v,   the first j = 0, 1, …, tries - 1 that keeps both

    x: decisions of the policy of theta, drawn or `decisions.expected`; v: the direction, g . v = v (F + damping) v the
    curvature of the KL along it, for weights that sum to 1. The KL is the exact one of the states of x, averaged with
    their weights; it is held, not approximated. Where no j does, or the gradient is 0, theta stays.
    With exact advantages and visits and the closed form (`natural` without damping), pi_new ~ pi exp(c A) in each
    state that is visited, so that sum over a of pi_new A >= 0 there and J never falls, for any delta (performance
    difference lemma). Drawn advantages, damping, or few conjugate gradients come without that proof. The more certain
    a policy, the longer the steps that the KL allows it; damping keeps them below sqrt(2 delta / damping).
    Raises ValueError. Source: Schulman et al. (2015), eq. 14 and appendix C; ledger E1.16.

    >>> from tabrl.decisions import expected
    >>> x = expected(np.array([[0.5, 0.5]]), np.ones(1), np.array([[1.0, -1.0]]))
    >>> y = trpo_step(np.zeros((1, 2)), x, 0.01)
    >>> y.kept, round(y.kl, 4), round(y.gain, 3)
    (1.0, 0.01, 0.14)
    """
    check_region(delta, shrink, tries)
    rows, w = log_softmax(theta, legal), state_weights(x, len(theta))
    pi, g = np.exp(rows), estimate(rows, x)
    v = direction(g, pi, w)
    slope = float((g * v).sum())
    longest = np.sqrt(2 * delta * w.sum() / slope) if slope > 0 else 0.0
    for j in range(tries if 0 < longest < np.inf else 0):
        new = theta + shrink**j * longest * v
        rows_new = log_softmax(new, legal)
        kl, gain = mean_kl(w, pi, np.exp(rows_new)), surrogate_gain(rows_new, x)
        if kl <= delta and gain > 0:
            return TrustStep(new, kl, gain, shrink**j)
    return TrustStep(theta, 0.0, 0.0, 0.0)


def surrogate_gain(rows: F, x: Batch) -> float:
    """What a policy gains over the one that acted, to first order: sum over i of weight[i] (rho[i] - 1) adv[i].

    rows: (S,A) log-probabilities. With `decisions.expected` it is `surrogate.surrogate` less J. Ledger E1.16.
    """
    return float((x.weight * np.expm1(log_ratios(rows[x.s, x.a], x.logp_old)) * x.adv).sum())


def check_region(delta: float, shrink: float, tries: int) -> None:
    """Require delta > 0, shrink in (0, 1), tries >= 1."""
    if not 0 < delta < np.inf:
        raise ValueError(f"delta is {delta}; a positive number is expected")
    if not 0 < shrink < 1:
        raise ValueError(f"shrink is {shrink}; a number in (0, 1) is expected")
    positive_count("tries", tries)


CLOSED: Direction = partial(natural, damping=1e-4)  # a large step for what happens once in ten thousand decisions
PRODUCTS: Direction = partial(conjugate_gradient, damping=1e-2)  # of the size of w(s) pi(a|s) in a small world


class Natural(OnPolicy):
    """NPG at work."""

    def __init__(self, eta: Rate, direction: Direction, *settings: Any) -> None:
        super().__init__(*settings)
        self.eta, self.direction = positive("eta", eta), direction

    def update(self, x: Batch, y: F, rows_old: F) -> None:
        """Step along the natural gradient; the critic follows."""
        w = state_weights(x, len(self.V))
        v = self.direction(estimate(rows_old, x), np.exp(rows_old), w)
        self.theta, self.V = self.theta + size(self.eta, self.k) * v, self.critic(self.V, x.s, y, self.V)


class TrustRegion(OnPolicy):
    """TRPO at work."""

    def __init__(self, delta: Rate, direction: Direction, *settings: Any) -> None:
        super().__init__(*settings)
        self.delta, self.direction = positive("delta", delta), direction

    def update(self, x: Batch, y: F, rows_old: F) -> None:
        """Step within the trust region; the critic follows."""
        delta = size(self.delta, self.k)
        self.theta = trpo_step(self.theta, x, delta, direction=self.direction, legal=self.legal).theta
        self.V = self.critic(self.V, x.s, y, self.V)


def npg(
    source: Any, rng: Rng, *, eta: Rate = 0.1, direction: Direction = CLOSED, steps: int = 1024, lam: float = 0.95,
    critic: Critic | float = 0.5, whiten: bool = True, theta: F | None = None, V: Start = None,
    limit: int | None = None, gamma: float | None = None, every: int = 1,
) -> Iterator[PGStep]:  # fmt: skip
    """Natural policy gradient, for a softmax table.

        theta <- theta + eta (F + damping)^-1 g

    Each update draws `steps` transitions and makes one step. g: their policy gradient with advantages by GAE; F: Fisher
    information in the states that were visited, exact over actions. eta: a number, or a schedule of the updates, in
    units of 1 / advantage (of 1 where they are whitened). direction: `natural` in closed form or `conjugate_gradient`,
    with their damping by functools.partial; the first with 1e-4 unless given. critic: once per update. Other arguments
    and records as in `ppo.ppo`. Without noise and damping this is `natural.npg_step`. Raises ValueError, ModelError.
    Source: Kakade (2001); Rajeswaran et al. (2017), algorithm 1; ledger E1.16.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(npg(bandit, np.random.default_rng(0), steps=64, every=50))
    >>> x.k, x.t, round(x.J, 1)
    (50, 3200, 3.0)
    """
    plan = Plan(steps, lam, whiten, every)
    return Natural(eta, direction, source, rng, plan, critic, theta, V, limit, gamma).records()


def trpo(
    source: Any, rng: Rng, *, delta: Rate = 0.01, direction: Direction = PRODUCTS, steps: int = 2048,
    lam: float = 0.95, critic: Critic | float = 0.5, whiten: bool = True, theta: F | None = None, V: Start = None,
    limit: int | None = None, gamma: float | None = None, every: int = 1,
) -> Iterator[PGStep]:  # fmt: skip
    """TRPO, for a softmax table: `trpo_step` on each batch.

        maximise the mean of (rho - 1) A   so that   mean KL(old || new) <= delta

    delta: in nats, or a schedule of the updates; the KL of every record is at most that. Each update goes as far as it
    may, along noise where nothing is left to gain. direction: `conjugate_gradient` or `natural` in closed form,
    with their damping by functools.partial; ten products and 1e-2 unless given. Other arguments and records as in
    `npg`; an update whose line search finds nothing leaves theta, with kl = 0. Raises ValueError, ModelError.
    Source: Schulman et al. (2015), section 6 and appendix C; ledger E1.16.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> xs = [x for x, _ in zip(trpo(bandit, np.random.default_rng(0), steps=64), range(50))]
    >>> max(x.kl for x in xs) <= 0.01, round(xs[-1].J, 1)
    (True, 3.0)
    """
    plan = Plan(steps, lam, whiten, every)
    return TrustRegion(delta, direction, source, rng, plan, critic, theta, V, limit, gamma).records()
