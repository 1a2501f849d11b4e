"""Actor-critic: a policy improved by the errors of a critic, after every step or every batch of steps.

theta (S,A) preferences of a softmax policy pi; V (S,) critic; psi = grad log pi(a|s); delta TD error; lam decay of a
trace z or of the advantage estimate; alpha step sizes; k updates.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.actor_critic_kernels import act_and_improve, restart, td_step
from tabrl.control.acting import Rng
from tabrl.decisions import mean_entropy, mean_kl
from tabrl.errors import ModelError
from tabrl.mdp import MDP
from tabrl.on_policy import Critic, Plan, Start, first_values, judged, positive_count
from tabrl.optimise import Rate, Step, ascent, positive
from tabrl.policy import softmax
from tabrl.policy_gradients import GradientStep
from tabrl.rollout import Actor, ModelPlay
from tabrl.sample import BLOCK
from tabrl.schedules import fraction
from tabrl.types import F, I, PGStep


def actor_critic(
    source: Any, rng: Rng, *, alpha_theta: float, alpha_V: float, lam_theta: float = 0.0, lam_V: float = 0.0,
    discounted: bool = True, theta: F | None = None, V: Start = None, limit: int | None = None, every: int = BLOCK,
    gamma: float | None = None,
) -> Iterator[PGStep]:  # fmt: skip
    """One-step actor-critic, with traces if wanted: policy and critic learn from every step.

        delta = r + discount V(s') - V(s)
        z_V <- gamma lam_V z_V + grad V(s),              V <- V + alpha_V delta z_V
        z <- gamma lam_theta z + I grad log pi(a|s),     theta <- theta + alpha_theta delta z,     I <- gamma I

    source: an `MDP` (compiled), or one gymnasium environment with discrete observations, whose discount is `gamma`.
    lam_theta, lam_V in [0, 1]: 0 looks one step ahead. I is gamma^t, t the time in the episode; discounted=False
    keeps it at 1, as most programs do. theta, V: first preferences and values, 0 unless given. limit: largest number
    of steps of an episode; in the last one V(s') counts as in any other. Endless; one record per `every` steps, each
    of which is an update; cosine, kl and entropy are those of all the steps since the record before taken together.
    Source: Sutton & Barto (2018), sections 13.5 and 13.6 (episodic); ledger E1.12.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(actor_critic(bandit, np.random.default_rng(0), alpha_theta=0.3, alpha_V=0.3, every=100))
    >>> x.k, x.t, x.J > 2.9
    (100, 100, True)
    """
    positive_count("every", every)
    positive("alpha_theta", alpha_theta)
    for name, x in (("lam_theta", lam_theta), ("lam_V", lam_V)):
        fraction(name, x)
    if not 0 < alpha_V <= 1:
        raise ValueError(f"alpha_V is {alpha_V}; a step size in (0, 1] is expected")
    actor = Actor(source, rng, gamma=gamma, limit=limit)
    if getattr(source, "num_envs", 1) > 1:
        raise ModelError(f"source has {source.num_envs} environments; one is expected; `a2c` learns from many")
    g = actor.gamma
    rates = np.array([alpha_theta, alpha_V, g * lam_theta, g * lam_V, g if discounted else 1.0, 1.0])
    return OneStep(source, actor, rates, theta, V).records(every)


class OneStep:
    """One-step actor-critic at work."""

    def __init__(self, source: Any, actor: Actor, rates: F, theta: F | None, V: Start) -> None:
        S, A = actor.S, actor.A
        self.source, self.actor, self.rates = source, actor, rates
        self.theta = np.zeros((S, A)) if theta is None else checks.real(theta, "theta", (S, A))
        self.V = first_values(V, S)
        if isinstance(source, MDP):
            self.V[source.terminal] = 0.0
        self.z_theta, self.z_V = np.zeros((S, A)), np.zeros(S)
        self.room, self.over = np.empty((1, A)), True

    def records(self, every: int) -> Iterator[PGStep]:
        """Yield the policy after every `every` steps."""
        for k in count(1):
            before, seen = self.theta.copy(), np.zeros(self.actor.S, np.int64)
            for n in range(0, every, BLOCK):
                self.go(min(BLOCK, every - n), seen)
            legal, change = self.actor.legal, self.theta - before
            pi_old, pi = softmax(before, legal), softmax(self.theta, legal)
            J, cosine = judged(self.source, before, self.theta, change)
            copies = self.theta.copy(), self.V.copy()
            w = seen.astype(np.float64)
            yield PGStep(k * every, k * every, *copies, J, cosine, 0.0, mean_kl(w, pi_old, pi), mean_entropy(w, pi))

    def go(self, n: int, seen: I) -> None:
        """Act and learn for n steps; add to seen (S,) where."""
        play, table = self.actor.play, (self.theta, self.V, self.z_theta, self.z_V)
        if isinstance(play, ModelPlay):
            legal = None if self.actor.legal.all() else self.actor.legal
            act_and_improve(
                *table, self.room, self.rates, legal, play.model, play.limit, play.at, play.uniform(n), seen
            )
            return
        for _ in range(n):
            pi = softmax(self.theta, self.actor.legal)
            x = self.actor.steps(pi, 1)
            if self.over:
                restart(self.z_theta, self.z_V, self.rates)
            s, p = int(x.s[0]), softmax(self.theta[x.s], self.actor.legal[x.s])
            td_step(*table, p, self.rates, s, int(x.a[0]), x.r[0], x.discount[0], int(x.s_next[0]))
            seen[s] += 1
            self.over = bool(x.last[0])


def a2c(
    source: Any, rng: Rng, *, step: Step | float, critic: Critic | float, steps: int = 32, lam: float = 1.0,
    entropy: Rate = 0.0, whiten: bool = False, theta: F | None = None, V: Start = None, limit: int | None = None,
    every: int = 1, gamma: float | None = None,
) -> Iterator[PGStep]:  # fmt: skip
    """Advantage actor-critic: one gradient step for every batch of steps.

        g = mean over the batch of psi_t A_t + entropy grad H(pi(·|s_t)),   A_t by GAE(lam), within the batch

    source: an `MDP`, a gymnasium environment with discrete observations, or a vector environment (see
    `rollout.Actor`); gamma: the discount of an environment. steps: transitions per update, of all copies together; the
    episodes run on from batch to batch. lam: 1 looks ahead to the end of the batch, as in A3C, 0 one step.
    step: `optimise.adam`, `optimise.sgd`, or a number for the latter. critic: moves V towards A + V, by
    `on_policy.averages`, whose step size may stand for it, or `on_policy.descent`. entropy: weight of the bonus, or
    a schedule of the updates.
    whiten: move the batch's advantages to mean 0 and deviation 1. Every visit counts the same, without gamma^t: for
    gamma < 1 the mean is no gradient of J, even with V = V_pi. theta, V: first preferences and values, 0 unless given;
    V may be one number. limit: largest number of steps of an episode; what would follow counts as V. Endless; one
    record per `every` updates.
    Source: Mnih et al. (2016), Asynchronous methods for deep reinforcement learning, section 4 and algorithm S3, in
    step; Schulman et al. (2016) for GAE; ledger E1.12, E1.13.

    >>> from tabrl import MDP
    >>> bandit = MDP([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], [[1, 3], [0, 0]], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> x = next(a2c(bandit, np.random.default_rng(0), step=1.0, critic=0.5, steps=8, every=50))
    >>> x.k, x.t, x.J > 2.9
    (50, 400, True)
    """
    if not callable(entropy) and not 0 <= entropy < np.inf:
        raise ValueError(f"entropy is {entropy}; a number >= 0, or a schedule, is expected")
    learner = GradientStep(source, rng, Plan(steps, lam, whiten, every), critic, theta, V, limit, gamma)
    learner.step, learner.bonus = ascent(step), entropy
    return learner.records()
