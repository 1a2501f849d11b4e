"""Softmax policies on small models, with their gradients and all that goes into them in fractions.

theta (S,A) preferences; pi (S,A) = softmax of theta over the legal actions, its floats read as they stand; V_pi (S,),
advantage (S,A) of pi; mu (S,) start distribution; d (S,) expected discounted visits; psi the score.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from tabrl import rational
from tabrl.mdp import MDP
from tabrl.rational import Row, Tables
from tabrl.types import F
from tabrl.verify import complex_step, models
from tabrl.verify.literal import ZERO

Table = list[Row]


class Softmax(NamedTuple):
    """A model, a softmax policy on it, and the exact answers."""

    name: str
    mdp: MDP
    theta: F  # (S,A)
    pi: F  # (S,A)
    V: F  # (S,) wrong values, 0 in terminal states
    b: F  # (S,) any baseline
    t: Tables
    weight: Table  # pi in fractions
    V_pi: Row
    advantage: Table  # 0 for terminal states and illegal actions
    d: Row
    gradient: Table

    @property
    def ends(self) -> bool:
        """Whether every policy ends, so that sums over whole episodes exist."""
        return bool(self.mdp.terminal.any())


def softmax(name: str, mdp: MDP) -> Softmax:
    """Attach preferences, wrong values, a baseline, and the exact answers."""
    rng = np.random.default_rng([mdp.S, mdp.A, int(mdp.legal.sum())])
    theta = rng.normal(size=(mdp.S, mdp.A))
    V = np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S))
    b = rng.normal(size=mdp.S)
    pi = complex_step.softmax(theta, mdp.legal)
    t, weight, mu = rational.tables(mdp), rational.exact(pi), rational.exact(mdp.mu)
    V_pi = rational.policy_values(t, pi)
    return Softmax(
        f"{name}, gamma {mdp.gamma:g}", mdp, theta, pi, V, b, t, weight, V_pi, advantages(t, V_pi),
        visits(t, weight, mu), theorem(t, weight, mu),
    )  # fmt: skip


def live(t: Tables, s: int, a: int) -> bool:
    """Whether something follows: the state is not terminal and the action is legal."""
    return any(t.P[s][a])


def advantages(t: Tables, V: Row) -> Table:
    """Q less V, r + gamma P V - V(s), 0 for terminal states and illegal actions."""
    Q = rational.action_values(t, V)
    return [[q - V[s] if live(t, s, a) else ZERO for a, q in enumerate(row)] for s, row in enumerate(Q)]


def visits(t: Tables, weight: Table, mu: Row, gamma: Fraction | None = None) -> Row:
    """Expected discounted visits d = mu + gamma P_pi' d."""
    g, (P, _), S = t.gamma if gamma is None else gamma, rational.induced(t, weight), range(len(mu))
    return rational.solve([[(x == s) - g * P[s][x] for s in S] for x in S], mu)


def through(p: Row, x: Row) -> Row:
    """Sum over a of x[a] times the gradient of p[a], which is p[a] (1{a=b} - p[b]), written out.

    >>> [float(y) for y in through([Fraction(1, 2)] * 2, [Fraction(3), Fraction(1)])]
    [0.5, -0.5]
    """
    A = range(len(p))
    return [sum((x[a] * p[a] * ((a == b) - p[b]) for a in A), ZERO) for b in A]


def expected(d: Row, weight: Table, x: Table) -> Table:
    """Sum over s of d(s) sum over a of pi(a|s) psi(s,a) x(s,a)."""
    return [[n * y for y in through(p, q)] for n, p, q in zip(d, weight, x, strict=True)]


def theorem(t: Tables, weight: Table, mu: Row) -> Table:
    """The policy gradient theorem with Q itself."""
    Q = rational.action_values(t, rational.policy_values(t, weight))
    return expected(visits(t, weight, mu), weight, Q)


def masked(mdp: MDP) -> MDP:
    """The model with the last action forbidden in every other state, and a start that is not uniform."""
    legal = np.ones((mdp.S, mdp.A), np.bool_)
    legal[::2, -1] = False
    mu = np.where(mdp.terminal, 0.0, np.arange(1.0, mdp.S + 1))
    P, R = (np.where(legal[:, :, None], x, 0.0) if x.ndim == 3 else np.where(legal, x, 0.0) for x in (mdp.P, mdp.R))
    return MDP(P, R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=legal)


def from_one(mdp: MDP) -> MDP:
    """The model with a sure start in state 0."""
    return MDP(mdp.P, mdp.R, mdp.gamma, mu=np.eye(mdp.S)[0], terminal=mdp.terminal)


@cache
def open_models() -> tuple[Softmax, ...]:
    """All actions legal: what a user's function is tried on; at gamma = 1 every policy ends."""
    made: list[tuple[str, Callable[[float], MDP], tuple[float, ...]]] = [
        ("two states", models.two_states, (0.0, 0.9, 0.99)),
        ("corridor", models.corridor, (0.9,)),
        ("corridor from room 0", lambda g: from_one(models.corridor(g)), (1.0,)),  # rooms 3 and 4 are never reached
        ("scattered", models.scattered, (0.99, 1.0)),
        ("ring from room 0", lambda g: from_one(models.ring(g)), (0.9,)),
        ("detour from room 0", lambda g: from_one(models.detour(g)), (0.9,)),
    ]
    return tuple(softmax(name, make(g)) for name, make, gammas in made for g in gammas)


@cache
def softmaxes() -> tuple[Softmax, ...]:
    """Those, and models with forbidden actions."""
    closed = (masked(models.corridor(0.9)), masked(models.scattered(1.0)), masked(models.two_states(0.9)))
    names = ("corridor with forbidden actions", "scattered with forbidden actions", "two states, one choice")
    return open_models() + tuple(softmax(name, mdp) for name, mdp in zip(names, closed, strict=True))


def ended() -> list[Softmax]:
    """Models on which sums over whole episodes exist without a discount."""
    return [x for x in softmaxes() if x.ends]


# models whose episodes can be listed; dyadic numbers, so that fractions stay short


def forest() -> tuple[MDP, F]:
    """Five states, each leading to later ones only, two actions; and a policy."""
    rng = np.random.default_rng(23)
    P, R = np.zeros((5, 2, 5)), rng.integers(-8, 9, (5, 2, 5)) / 4
    for s, a in np.ndindex(4, 2):
        P[s, a, s + 1 :] = rng.multinomial(16, np.ones(4 - s) / (4 - s)) / 16
    R[4] = 0.0
    pi = np.array([[0.25, 0.75], [0.625, 0.375], [0.5, 0.5], [0.875, 0.125], [0.5, 0.5]])
    return MDP(P, R, 0.875, mu=[0.5, 0.25, 0.25, 0, 0], terminal=np.arange(5) == 4), pi


def small_loop() -> tuple[MDP, F]:
    """Two states without an end, and a policy: episodes are cut."""
    mdp = models.two_states(0.875)
    return MDP(mdp.P, mdp.R, 0.875, mu=[0.75, 0.25]), np.array([[0.25, 0.75], [0.625, 0.375]])


def waiting() -> tuple[MDP, F]:
    """Waiting costs 1, leaving pays 2, at even odds, no discount: V = 1 is a worse baseline than none."""
    P = [[[1, 0], [0, 1]], [[0, 0], [0, 0]]]
    return MDP(P, [[-1, 2], [0, 0]], 1.0, terminal=np.array([False, True]), mu=[1, 0]), np.full((2, 2), 0.5)


def tiny() -> tuple[Softmax, Softmax]:
    """Models whose paths can be listed, with their policies and wrong values."""
    found = []
    for name, (mdp, pi) in (("without revisits", forest()), ("a loop", small_loop())):
        x = softmax(name, mdp)
        weight, V = rational.exact(pi), np.round(x.V * 4) / 4
        V_pi = rational.policy_values(x.t, pi)
        d, A = visits(x.t, weight, rational.exact(mdp.mu)), advantages(x.t, V_pi)
        g = expected(d, weight, A)
        found.append(x._replace(pi=pi, theta=np.log(pi), weight=weight, V=V, V_pi=V_pi, advantage=A, d=d, gradient=g))
    return found[0], found[1]
