"""What PPO, NPG and TRPO have in common: act, estimate advantages, improve the policy on that batch, throw it away.

theta (S,A) preferences of a softmax policy; V (S,) critic; s, a, r, discount, s_next, last (n,) a rollout, adv (n,) its
advantages by GAE, y (n,) the critic's targets; k updates, t transitions so far; lam trace decay; alpha step size.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tabrl import checks
from tabrl.advantages import whiten
from tabrl.control.acting import Rng
from tabrl.decisions import Batch, cosine, drawn, estimate, mean_entropy, mean_kl, state_weights, sums
from tabrl.errors import NotConverged
from tabrl.gradient import at
from tabrl.losses import d_value_loss
from tabrl.mdp import MDP
from tabrl.optimise import Step, ascent
from tabrl.policy import log_softmax
from tabrl.returns import check_lam, gae_fragments, value_target
from tabrl.rollout import Actor
from tabrl.types import B, F, I, PGStep

Critic: TypeAlias = Callable[[F, I, F, F], F]  # V, states and targets (m,), V when the rollout was drawn, to the new V
Start: TypeAlias = Any  # a number for all states, (S,) values, or None for 0


class averages:  # noqa: N801
    """A critic that moves each state towards the mean of its targets.

        V(s) <- V(s) + alpha (mean over i with s[i] = s of y[i] - V(s))

    alpha in (0, 1]; 1 forgets V. States without a target stay. Source: Sutton & Barto (2018), section 9.3, by state.

    >>> averages(0.5)(np.zeros(2), np.array([0, 0]), np.array([1.0, 3.0]), np.zeros(2))
    array([1., 0.])
    """

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha is {alpha}; a step size in (0, 1] is expected")
        self.alpha = alpha

    def __call__(self, V: F, s: I, y: F, V_old: F) -> F:
        """Return V after one more step."""
        visits = np.maximum(np.bincount(s, minlength=len(V)), 1)
        return V + self.alpha * sums(s, y - V[s], len(V)) / visits


class descent:  # noqa: N801
    """A critic that descends on the mean of the value loss.

        V <- step(V, -gradient of mean over i of value_loss(V(s[i]), y[i], V_old(s[i]), clip))

    step: `optimise.sgd` or `optimise.adam`, or a number for the first. clip: None, or how far from V_old a move is
    still rewarded, in units of return. Source: Schulman et al. (2017), eq. 9, and `losses.value_loss`; ledger E1.17.

    >>> descent(0.25)(np.zeros(2), np.array([0, 0]), np.array([1.0, 3.0]), np.zeros(2))
    array([1., 0.])
    """

    def __init__(self, step: Step | float, clip: float | None = None) -> None:
        if clip is not None and not clip > 0:
            raise ValueError(f"clip is {clip}; a positive number, or None, is expected")
        self.step, self.clip = ascent(step), clip

    def __call__(self, V: F, s: I, y: F, V_old: F) -> F:
        """Return V after one more step."""
        old = V_old[s] if self.clip is not None else None
        each = d_value_loss(V[s], y, old, self.clip)
        new: F = self.step(V, -sums(s, each, len(V)) / len(s))
        return new


class Plan(NamedTuple):
    """How an on-policy learner gathers a batch."""

    steps: int  # transitions per update
    lam: float
    whiten: bool  # whether the advantages of a batch are moved to mean 0 and deviation 1
    every: int  # updates per record


class OnPolicy(ABC):
    """A learner that draws a batch with its policy, improves the policy on it (`update`), and draws the next."""

    def __init__(
        self, source: Any, rng: Rng, plan: Plan, critic: Critic | float, theta: F | None, V: Start, limit: int | None,
        gamma: float | None,
    ) -> None:  # fmt: skip
        for name, n in (("steps", plan.steps), ("every", plan.every)):
            positive_count(name, n)
        check_lam(plan.lam)
        self.source, self.rng, self.plan = source, rng, plan
        self.actor = Actor(source, rng, gamma=gamma, limit=limit)
        S, A = self.actor.S, self.actor.A
        self.theta = np.zeros((S, A)) if theta is None else checks.real(theta, "theta", (S, A))
        self.V = first_values(V, S)
        if isinstance(source, MDP):
            self.V[source.terminal] = 0.0
        self.critic = copy.deepcopy(critic) if callable(critic) else averages(critic)
        self.k = self.t = 0

    @abstractmethod
    def update(self, x: Batch, y: F, rows_old: F) -> None:
        """Improve theta and V on a batch of the policy rows_old (S,A), with the critic's targets y (n,)."""

    def stopped(self, x: Batch) -> F | B:
        """Of the decisions (n,) of a batch: whether a clip stops the gradient of theta."""
        return np.zeros(len(x.s))

    @property
    def legal(self) -> B:
        """The legal actions (S,A), as far as they are known."""
        return self.actor.legal

    def rows(self) -> F:
        """Log-probabilities (S,A) of the policy."""
        return log_softmax(self.theta, self.legal)

    def batch(self) -> tuple[Batch, F]:
        """Act, and return the decisions with their advantages, and the targets of the critic."""
        x = self.actor.steps(np.exp(self.rows()), self.plan.steps)
        v = self.V[x.s]
        adv = gae_fragments(x.r, x.discount, v, self.V[x.s_next], x.last, self.plan.lam)
        return drawn(x.s, x.a, x.logp, whiten(adv) if self.plan.whiten else adv), value_target(adv, v)

    def records(self) -> Iterator[PGStep]:
        """Yield the policy after every `every` updates, for ever."""
        for self.k in count(1):
            x, y = self.batch()
            self.t += len(y)
            theta_old, rows_old = self.theta, self.rows()
            self.update(x, y, rows_old)
            if self.k % self.plan.every == 0:
                J, angle = judged(self.source, theta_old, self.theta, estimate(rows_old, x))
                yield self.record(x, rows_old)._replace(J=J, cosine=angle)

    def record(self, x: Batch, rows_old: F) -> PGStep:
        """What an update on a batch did, without J and the cosine."""
        pi, w, pi_old = np.exp(self.rows()), state_weights(x, len(self.V)), np.exp(rows_old)
        stopped, kl, H = float(x.weight @ self.stopped(x)), mean_kl(w, pi_old, pi), mean_entropy(w, pi)
        return PGStep(self.k, self.t, self.theta.copy(), self.V.copy(), np.nan, np.nan, stopped, kl, H)


def judged(source: Any, theta_old: F, theta: F, g: F) -> tuple[float, float]:
    """Exact J of theta, and the cosine of g with the exact gradient at theta_old; nan where there is no exact answer.

    There is none without a model, and none at gamma = 1 for a policy so certain that rounding hides whether it ends.
    """
    if not isinstance(source, MDP):
        return np.nan, np.nan
    try:
        old, new = at(source, theta_old), at(source, theta)
    except NotConverged:
        return np.nan, np.nan
    return new.J, cosine(g, old.d[:, None] * old.pi * old.advantage)


def first_values(V: Start, S: int) -> F:
    """Values (S,) to start from: one number for all states, an array, or None for 0. Raises ShapeError, ModelError."""
    V = 0.0 if V is None else V
    return checks.real(np.full(S, V) if np.ndim(V) == 0 else V, "V", (S,))


def positive_count(name: str, n: int) -> None:
    """Require a number of things to be at least 1."""
    if n < 1:
        raise ValueError(f"{name} is {n}; 1 or more are expected")
