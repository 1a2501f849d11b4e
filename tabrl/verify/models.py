"""Small models on which everything is known exactly; cyclic, with and without an end."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tabrl import rational
from tabrl.mdp import MDP
from tabrl.types import F


class Instance(NamedTuple):
    """A model with everything that the cases need to know about it."""

    name: str
    mdp: MDP
    pi: F  # (S,A) a stochastic policy
    V: F  # (S,) some values, 0 in terminal states
    tables: rational.Tables
    V_pi: rational.Row
    V_star: rational.Row

    @property
    def arrays(self) -> tuple[F, F, float]:
        """P (S,A,S) with zero rows for terminal states, r (S,A), gamma: what a user's function gets."""
        return self.mdp.rows.reshape(self.mdp.S, self.mdp.A, self.mdp.S), self.mdp.r, self.mdp.gamma


def two_states(gamma: float) -> MDP:
    """Two states, two actions, no end."""
    return MDP([[[0.5, 0.5], [0, 1]], [[1, 0], [0.25, 0.75]]], [[1, 0], [-1, 2]], gamma)


def corridor(gamma: float) -> MDP:
    """Four rooms in a row around an exit (state 2); one step in four goes the other way; every policy ends."""
    P = np.zeros((5, 3, 5))
    for s in (0, 1, 3, 4):
        for a, step in enumerate((-1, 1, -1)):  # the third action is the first by another name
            P[s, a, np.clip(s + step, 0, 4)] += 0.75
            P[s, a, np.clip(s - step, 0, 4)] += 0.25
    r = np.array([[-1, -2, -1], [0, -1, 0], [0, 0, 0], [-1, 3, -1], [2, -2, 2]])
    return MDP(P, r, gamma, terminal=np.arange(5) == 2, mu=np.array([1, 1, 0, 1, 1]) / 4)


def scattered(gamma: float) -> MDP:
    """Five states with random rows and rewards R(s,a,s'); state 3 is the end and near from everywhere."""
    rng = np.random.default_rng(5)
    P, R = rng.dirichlet(np.ones(5), (5, 3)), rng.normal(size=(5, 3, 5))
    P[3] = R[3] = 0.0
    return MDP(P, R, gamma, terminal=np.arange(5) == 3)


def ring(gamma: float) -> MDP:
    """Five states in a ring, one or two steps ahead for 1 each; state 4 is the end, but can be jumped over."""
    P = np.zeros((5, 2, 5))
    for s in range(4):
        P[s, 0, (s + 1) % 5] = P[s, 1, (s + 2) % 5] = 1.0
    return MDP(P, np.where(np.arange(5) < 4, -1.0, 0.0), gamma, terminal=np.arange(5) == 4)


def detour(gamma: float) -> MDP:
    """Leave at once, or walk on round four rooms to a better door: worth it only if gamma is left out."""
    P = np.zeros((5, 2, 5))
    P[:4, 0, 4] = 1.0
    P[np.arange(4), 1, (np.arange(4) + 1) % 4] = 1.0
    r = np.array([[1.0, 0], [0.5, 0], [0.5, 0], [1.25, 0], [0, 0]])
    return MDP(P, r, gamma, terminal=np.arange(5) == 4)


def toll(gamma: float) -> MDP:
    """At gamma = 1 some policies never end, at a cost: the ring."""
    return ring(gamma)


def pond(gamma: float) -> MDP:
    """At gamma = 1 some policies never end, for free: wait, or jump to the far side (1/2) or into the water."""
    P = np.zeros((4, 2, 4))
    P[0, 0, 1] = P[1, 0, 0] = 1.0
    P[:2, 1, 2:] = 0.5
    R = np.zeros((4, 2, 4))
    R[:2, 1, 2] = 1.0
    return MDP(P, R, gamma, terminal=np.arange(4) > 1)


def instance(name: str, mdp: MDP) -> Instance:
    """Attach a policy, some values, and the exact answers."""
    rng = np.random.default_rng([mdp.S, mdp.A])
    pi = rng.dirichlet(np.ones(mdp.A), mdp.S)
    V = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))
    t = rational.tables(mdp)
    return Instance(
        f"{name}, gamma {mdp.gamma:g}", mdp, pi, V, t, rational.policy_values(t, pi), rational.best_values(t)
    )


@cache
def instances() -> tuple[Instance, ...]:
    """Models that a user's function is tried on: P, r, gamma say all; at gamma = 1 every policy ends."""
    chosen: list[tuple[Any, tuple[float, ...]]] = [
        (two_states, (0.0, 0.9, 0.99)),
        (corridor, (0.9, 1.0)),
        (scattered, (0.99, 1.0)),
        (ring, (0.9,)),
        (detour, (0.9,)),
    ]
    return tuple(instance(make.__name__.replace("_", " "), make(g)) for make, gammas in chosen for g in gammas)


@cache
def misled() -> tuple[Instance, F]:
    """A model and values 1 off for which the greedy policy loses nearly all that `loss_bound` allows.

    Leave for nothing (first action), or stay for just under 2 gamma (1 - gamma) a step. V is too low by 1 where
    one can stay and too high by 1 where one ends up, which makes leaving look better: loss 2 gamma, bound 2.
    """
    gamma = 0.99
    pay = 0.99999 * 2 * gamma * (1 - gamma)
    P = np.array([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    x = instance("misled", MDP(P, np.array([[0.0, pay], [0.0, 0.0]]), gamma))
    return x, np.array([float(x.V_star[0]) - 1.0, 1.0])


@cache
def harder() -> tuple[Instance, ...]:
    """Models at gamma = 1 in which some policies never end; our solvers answer them too."""
    return tuple(instance(make.__name__, make(1.0)) for make in (toll, pond))
