"""Proximal policy optimisation: several gradient steps on one batch, held near the policy that drew it.

theta (S,A) preferences of a softmax policy; V (S,) critic; rho = pi(a|s) / pi_old(a|s); A advantages by GAE, y targets
of V; beta weight of KL(old || new), c of the entropy. What holds the policy is a `Loss`: a clip, or a penalty.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from tabrl._xp import at_least
from tabrl.control.acting import Rng
from tabrl.decisions import Batch, entropy_gradient, kl_gradient, loss_gradient, mean_kl, part, state_weights
from tabrl.losses import adaptive_beta, check_clip, clipped, d_ppo_clip, d_ppo_kl
from tabrl.on_policy import Critic, OnPolicy, Plan, Start, positive_count
from tabrl.optimise import Rate, Step, adam, ascent, size
from tabrl.types import B, F, I, PGStep
from tabrl.weights import LIMIT

ADAM = adam(0.03)  # copied by every run


class Loss(Protocol):
    """What is descended: a loss of single decisions, plus beta times the mean over states of KL(old || new)."""

    @property
    def beta(self) -> float:
        """Weight of the KL; 0 leaves it out."""

    def slope(self, logp: F, logp_old: F, adv: F) -> F:
        """The derivative of the loss of single decisions with respect to logp; all (n,)."""

    def stopped(self, logp: F, logp_old: F, adv: F) -> B:
        """Where that derivative is 0 because rho went too far; all (n,)."""

    def after(self, kl: float) -> "Loss":
        """The loss of the next update, where this one's moved the policy by a mean KL of `kl`."""


class Clip(NamedTuple):
    """The clipped surrogate: nothing is gained by a ratio beyond 1 - low or 1 + high. See `losses.ppo_clip`."""

    low: float = 0.2
    high: float = 0.2
    beta: float = 0.0

    def slope(self, logp: F, logp_old: F, adv: F) -> F:
        """-rho A, 0 where clipped."""
        return d_ppo_clip(logp, logp_old, adv, low=self.low, high=self.high)  # type: ignore[no-any-return]

    def stopped(self, logp: F, logp_old: F, adv: F) -> B:
        """Where A > 0 and rho > 1 + high, or A < 0 and rho < 1 - low."""
        return clipped(logp, logp_old, adv, low=self.low, high=self.high)  # type: ignore[no-any-return]

    def after(self, kl: float) -> "Clip":
        """The same."""
        return self


class Penalty(NamedTuple):
    """The surrogate -rho A, plus beta KL(old || new); with a target for the KL beta follows `losses.adaptive_beta`."""

    beta: float
    target: float | None = None

    def slope(self, logp: F, logp_old: F, adv: F) -> F:
        """-rho A."""
        return d_ppo_kl(logp, logp_old, adv, beta=0.0)  # type: ignore[no-any-return]

    def stopped(self, logp: F, logp_old: F, adv: F) -> B:
        """Nowhere but at the clamp of the ratio."""
        return abs(logp - logp_old) > LIMIT

    def after(self, kl: float) -> "Penalty":
        """The same, or with the beta that brings the KL nearer to its target."""
        return self if self.target is None else self._replace(beta=adaptive_beta(self.beta, kl, self.target))


def proximal_gradient(rows: F, rows_old: F, x: Batch, loss: Loss, entropy: float = 0.0) -> F:
    """Gradient, uphill, of what PPO ascends on a batch.

        - sum over i of weight[i] loss[i] - beta sum over s of w(s) KL(old || new)(s) + c sum over s of w(s) H(s)

    rows, rows_old: (S,A) log-probabilities of the policy and of the one that acted; entropy: c. The KL and the entropy
    of a state are exact sums over its actions. Returns (S,A), with respect to theta. At the policy that acted, with
    exact advantages and visits (`decisions.expected`) and c = 0, it is grad J; where every decision is clipped it is 0
    exactly. Source: Schulman et al. (2017), eq. 7 to 9; ledger E1.15, E1.16.

    >>> from tabrl.decisions import expected
    >>> rows = np.log([[0.5, 0.5]])
    >>> x = expected(np.exp(rows), np.ones(1), np.array([[1.0, -1.0]]))
    >>> proximal_gradient(rows, rows, x, Clip()), proximal_gradient(np.log([[0.8, 0.2]]), rows, x, Clip())
    (array([[ 0.5, -0.5]]), array([[0., 0.]]))
    """
    g = 0.0 - loss_gradient(rows, x, loss.slope)
    if loss.beta == entropy == 0:
        return g
    w = state_weights(x, len(rows))
    return g - loss.beta * kl_gradient(rows, rows_old, w) + entropy * entropy_gradient(rows, w)


class Passes(NamedTuple):
    """How PPO uses a batch."""

    epochs: int  # passes over the batch
    minibatches: int  # parts, drawn anew for each pass; one gradient step each
    step: Step | float  # of theta
    entropy: Rate  # c, or a schedule of the number of the update
    stop_kl: float | None  # no further pass once the mean KL(old || new) is larger


class Proximal(OnPolicy):
    """PPO at work, with any loss."""

    def __init__(self, loss: Loss, passes: Passes, *settings: Any) -> None:
        super().__init__(*settings)
        positive_count("epochs", passes.epochs)
        positive_count("minibatches", passes.minibatches)
        if passes.minibatches > self.plan.steps:
            raise ValueError(f"minibatches is {passes.minibatches}; at most steps, {self.plan.steps}, are expected")
        if passes.stop_kl is not None and not passes.stop_kl > 0:
            raise ValueError(f"stop_kl is {passes.stop_kl}; a positive number, or None, is expected")
        if not callable(passes.entropy) and not abs(passes.entropy) < np.inf:
            raise ValueError(f"entropy is {passes.entropy}; a finite number, or a schedule, is expected")
        self.loss, self.passes, self.step = loss, passes, ascent(passes.step)

    def update(self, x: Batch, y: F, rows_old: F) -> None:
        """Pass over the batch until all is done, or the policy has gone too far; then settle the next loss."""
        V_old, far, c = self.V, self.passes.stop_kl, size(self.passes.entropy, self.k)
        for epoch in range(self.passes.epochs):
            if epoch and far is not None and self.moved(x, rows_old) > far:
                break
            for i in self.parts(len(y)):
                m = part(x, i)
                g = proximal_gradient(self.rows(), rows_old, m, self.loss, c)
                self.theta, self.V = self.step(self.theta, g), self.critic(self.V, m.s, y[i], V_old)
        self.loss = self.loss.after(self.moved(x, rows_old))

    def moved(self, x: Batch, rows_old: F) -> float:
        """Mean KL(old || new) over the states of a batch."""
        return mean_kl(state_weights(x, len(self.V)), np.exp(rows_old), np.exp(self.rows()))

    def parts(self, n: int) -> list[I]:
        """Split n decisions at random."""
        order = self.rng.permutation(n) if self.passes.minibatches > 1 else np.arange(n)
        return np.array_split(order, self.passes.minibatches)

    def stopped(self, x: Batch) -> B:
        """Where the clip stops the gradient at the end of the update."""
        return self.loss.stopped(self.rows()[x.s, x.a], x.logp_old, x.adv)


def ppo(
    source: Any, rng: Rng, *, clip: tuple[float, float] = (0.2, 0.2), steps: int = 1024, epochs: int = 4,
    minibatches: int = 4, lam: float = 0.95, step: Step | float = ADAM, critic: Critic | float = 0.5,
    entropy: Rate = 0.0, whiten: bool = True, stop_kl: float | None = None, theta: F | None = None, V: Start = None,
    limit: int | None = None, gamma: float | None = None, every: int = 1,
) -> Iterator[PGStep]:  # fmt: skip
    """PPO with the clipped surrogate, for a softmax table.

        theta ascends on the mean of min(rho A, clip(rho, 1 - low, 1 + high) A) + c H

    source: an `MDP`; a gymnasium environment or vector environment with discrete observations, whose discount is
    `gamma` (a model has its own). Each update draws `steps` transitions with the current policy, estimates A by GAE
    with `lam`, and makes `epochs` passes over them in `minibatches` random parts. clip: (low, high). step:
    `optimise.adam` or `optimise.sgd` with a rate or a schedule of the gradient steps, or a number for the latter.
    critic: `on_policy.averages` or `on_policy.descent`, once per part, or a number for the first. entropy: c, or a
    schedule of the updates. whiten: A of the batch moved to mean 0 and deviation 1, which changes the scale of the
    gradient (`advantages.whiten`). stop_kl: no further pass once the mean KL(old || new) over the batch is larger.
    theta, V: start, zeros unless given; V may be one number, above what can be had for an optimistic start. limit:
    largest number of steps of an episode; a cut episode is continued by V. Visits count the same at all times, so the
    mean is `gradient.usual_gradient`, not grad J. An endless generator with one record per `every` updates;
    clip_fraction is that at the end of the update. Raises ValueError, ModelError.
    Source: Schulman et al. (2017), algorithm 1 with eq. 7; ledger E1.15.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(ppo(bandit, np.random.default_rng(0), steps=64, every=50))
    >>> x.k, x.t, round(x.J, 2)
    (50, 3200, 3.0)
    """
    check_clip(*clip, None)
    passes, plan = Passes(epochs, minibatches, step, entropy, stop_kl), Plan(steps, lam, whiten, every)
    return Proximal(Clip(*clip), passes, source, rng, plan, critic, theta, V, limit, gamma).records()


def ppo_kl(
    source: Any, rng: Rng, *, beta: float = 1.0, target: float | None = None, steps: int = 1024, epochs: int = 4,
    minibatches: int = 4, lam: float = 0.95, step: Step | float = ADAM, critic: Critic | float = 0.5,
    entropy: Rate = 0.0, whiten: bool = True, stop_kl: float | None = None, theta: F | None = None, V: Start = None,
    limit: int | None = None, gamma: float | None = None, every: int = 1,
) -> Iterator[PGStep]:  # fmt: skip
    """PPO with a penalty for leaving the policy that acted, in place of the clip.

        theta ascends on the mean of rho A - beta KL(old || new) + c H

    beta: weight, fixed; with a `target` for the mean KL over a batch it is halved or doubled after each update
    (`losses.adaptive_beta`). Other arguments and records as in `ppo`; nothing is clipped.
    Source: Schulman et al. (2017), eq. 8 and section 4; ledger E1.16.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(ppo_kl(bandit, np.random.default_rng(0), steps=64, target=0.01, every=50))
    >>> x.k, x.t, round(x.J, 1)
    (50, 3200, 3.0)
    """
    at_least(0, beta=beta, target=0.0 if target is None else target)
    passes, plan = Passes(epochs, minibatches, step, entropy, stop_kl), Plan(steps, lam, whiten, every)
    return Proximal(Penalty(beta, target), passes, source, rng, plan, critic, theta, V, limit, gamma).records()
