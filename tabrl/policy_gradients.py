"""REINFORCE: the policy gradient from whole episodes.

theta (S,A) preferences of a softmax policy pi; psi_t = grad log pi(a_t|s_t); G_t return from time t, with V (S,) in the
place of what a time limit cut off; b (S,) baseline; a batch is M whole episodes, k its number.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from tabrl import checks
from tabrl.advantages import whiten as whitened
from tabrl.control.acting import Rng
from tabrl.decisions import Batch, entropy_gradient, estimate, state_weights
from tabrl.on_policy import Critic, OnPolicy, Plan, Start, positive_count
from tabrl.optimise import Rate, Step, ascent, size
from tabrl.returns import discounted_sum
from tabrl.rollout import Rollout
from tabrl.types import F, I, PGStep

Baseline: TypeAlias = Callable[[F, F], F]  # pi (S,A) and V (S,) to b (S,)


def reinforce(
    source: Any, rng: Rng, *, step: Step | float, episodes: int = 1, critic: Critic | float | None = None,
    baseline: Baseline | None = None, discounted: bool = True, whole: bool = False, whiten: bool = False,
    theta: F | None = None, V: Start = None, limit: int | None = None, every: int = 1, gamma: float | None = None,
) -> Iterator[PGStep]:  # fmt: skip
    """REINFORCE, with or without a baseline: Monte Carlo estimates of the policy gradient.

        g = mean over M episodes of sum over t of gamma^t psi_t (G_t - b(s_t))

    source: an `MDP`, a gymnasium environment with discrete observations, or a vector environment (see
    `rollout.Actor`); gamma: the discount of an environment. step: `optimise.adam`, `optimise.sgd`, or a number for the
    latter. episodes: M. critic: how V is learned from the returns of a batch, after it was used; `on_policy.averages`
    or its step size; without one V stays, 0 unless given. baseline: b as a function of pi and V; V unless given, so
    that without a critic there is none. discounted=False leaves out gamma^t as most programs do: no gradient of J any
    more for gamma < 1. whole=True weighs every psi_t with the return of the whole episode, G_0 - b(s_0), which needs
    no gamma^t and has the same mean. whiten: move the batch's G - b to mean 0 and deviation 1 (`advantages.whiten`).
    theta: first preferences, 0 unless given. limit: largest number of steps of an episode; what would follow counts
    as V. Endless; one record per `every` updates. Unbiased for grad J where episodes end by themselves, discounted and
    not whitened. Source: Williams (1992); Sutton & Barto (2018), sections 13.3 and 13.4; ledger E1.11, correction 4.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(reinforce(bandit, np.random.default_rng(0), step=1.0, episodes=4, critic=0.5, every=50))
    >>> x.k, x.t, x.J > 2.9
    (50, 200, True)
    """
    positive_count("episodes", episodes)
    plan = Plan(episodes, 1.0, whiten, every)
    learner = Reinforce(source, rng, plan, unlearned if critic is None else critic, theta, V, limit, gamma)
    learner.step, learner.discounted, learner.whole = ascent(step), discounted, whole
    learner.baseline = baseline or critics_values
    return learner.records()


class GradientStep(OnPolicy):
    """A learner that takes one step along the gradient of a batch, and throws the batch away."""

    step: Step
    bonus: Rate = 0.0  # weight of the entropy, or a schedule of the number of the update

    def update(self, x: Batch, y: F, rows_old: F) -> None:
        """Move theta along the gradient, and V towards the targets y (n,)."""
        g, c = estimate(rows_old, x), size(self.bonus, self.k)
        if c != 0:
            g = g + c * entropy_gradient(rows_old, state_weights(x, len(self.V)))
        self.theta, self.V = self.step(self.theta, g), self.critic(self.V, x.s, y, self.V)


class Reinforce(GradientStep):
    """REINFORCE at work: a batch is a number of whole episodes."""

    discounted: bool
    whole: bool
    baseline: Baseline

    def batch(self) -> tuple[Batch, F]:
        """Play episodes, and return their decisions, and the returns that followed them."""
        pi = np.exp(self.rows())
        x = self.actor.episodes(pi, self.plan.steps)
        G, b = returns_to_go(x, self.V), checks.real(self.baseline(pi, self.V), "baseline", self.V.shape)
        start, step = positions(x)
        adv = (G - b[x.s])[start] if self.whole else G - b[x.s]
        weight = np.ones(len(x.s)) if self.whole or not self.discounted else self.actor.gamma**step
        return Batch(x.s, x.a, x.logp, whitened(adv) if self.plan.whiten else adv, weight / self.plan.steps), G


def returns_to_go(x: Rollout, V: F) -> F:
    """Return from each step (n,) to the end of its episode, and V (S,) of the state in which it was cut.

        G[t] = r[t] + discount[t] (V(s_next[t]) where the fragment ends, else G[t+1])

    Source: Sutton & Barto (2018), eq. 3.9, with the rule for a time limit; ledger E1.1 and E1.9, correction 7.
    """
    on = np.where(x.last, 0.0, x.discount)
    return discounted_sum(x.r + (x.discount - on) * V[x.s_next], on)


def positions(x: Rollout) -> tuple[I, I]:
    """For each step (n,): the index at which its episode starts, and its number t in the episode."""
    first = np.r_[True, x.last[:-1]]
    every = np.arange(len(first))
    start = np.maximum.accumulate(np.where(first, every, 0))
    return start, every - start


def critics_values(pi: F, V: F) -> F:
    """The baseline V: what the critic has learned."""
    return V


def no_baseline(pi: F, V: F) -> F:
    """The baseline 0, where a critic is there to stand for what a time limit cuts off."""
    return np.zeros_like(V)


def unlearned(V: F, s: I, y: F, V_old: F) -> F:
    """The critic that learns nothing."""
    return V
