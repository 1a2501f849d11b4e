"""Misreadings of a model: rewards and maxima that are taken in the wrong way.

t the exact tables of a model (see `tabrl.rational`); P (S,A,S), r (S,A) the same as arrays; V (S,).
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from tabrl import rational
from tabrl.errors import ModelError
from tabrl.rational import Row, Tables
from tabrl.types import F
from tabrl.verify.mistakes import Answer, Mistakes
from tabrl.verify.models import Instance


def wrong_rewards(x: Instance, answer: Answer) -> dict[str, Answer]:
    """Rewards that are not averaged as pi says."""
    pi = rational.exact(x.pi)

    def paid(t: Tables, own: Row) -> Sequence[Fraction]:
        return answer(t._replace(r=[[y] * len(t.r[0]) for y in own]))

    def columns(t: Tables) -> Sequence[Fraction]:
        """The sums over the states instead of the actions."""
        if len(t.r) != len(t.r[0]):
            raise ModelError("the sums over the states are as many as the actions; S = A is expected")
        sums = [rational.dot(w, c) for w, c in zip(zip(*pi, strict=True), zip(*t.r, strict=True), strict=True)]
        return paid(t, sums)

    return {
        "the rewards are averaged over the wrong axis: the actions are the last one": columns,
        "the rewards are averaged over the actions alike, not by pi": lambda t: paid(
            t, [sum(row, Fraction()) / len(row) for row in t.r]
        ),
        "the reward stands outside the mean over pi: it is added up over the actions": lambda t: paid(
            t, [sum(row, Fraction()) for row in t.r]
        ),
    }


def wrong_maxima(P: F, r: F, gamma: float) -> Mistakes:
    """Fixed points of sweeps that take the maximum of something else; in floats, and left out where there is none."""

    def lucky(V: F) -> F:
        best = np.where(P > 0, V, -np.inf).max(axis=2)
        return np.asarray((r + gamma * np.where(P.any(axis=2), best, 0.0)).max(axis=1))

    tried: dict[str, Callable[[F], F]] = {
        "the maximum is taken of the reward and of what follows, each for itself": lambda V: (
            r.max(axis=1) + gamma * (P @ V).max(axis=1)
        ),
        "you take the best next state instead of the mean over P": lucky,
    }
    fixed = {name: fixed_point(sweep, len(r)) for name, sweep in tried.items()}
    return [(name, V) for name, V in fixed.items() if V is not None]


def fixed_point(sweep: Callable[[F], F], S: int) -> F | None:
    """Where sweeps from 0 come to rest, or None."""
    V = np.zeros(S)
    for _ in range(5000):
        V, before = sweep(V), V
        if abs(V - before).max() <= 1e-13 * max(1.0, abs(V).max()):
            return V
    return None
