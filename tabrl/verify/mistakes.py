"""The right answers in fractions, and what well-known mistakes give instead.

t the exact tables of a model (see `tabrl.rational`); pi (S,A); V (S,).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from tabrl import rational
from tabrl.errors import ModelError
from tabrl.rational import Row, Tables
from tabrl.types import F
from tabrl.verify.models import Instance
from tabrl.verify.record import distance, largest

Mistakes: TypeAlias = list[tuple[str, F]]
Answer: TypeAlias = Callable[[Tables], Sequence[Fraction]]

FORGETS = "you forget gamma"
PAYS_LATE = "gamma multiplies the reward as well"
BOOTSTRAPS = "you bootstrap from a terminal state (its row of P is zero: nothing follows it)"
TRANSPOSED = "P is read with its axes exchanged (they are s, a, next s)"


def floats(x: Sequence[Fraction]) -> F:
    """Round fractions to floats."""
    return np.array([float(y) for y in x])


def mutants(t: Tables) -> Iterator[tuple[str, Tables]]:
    """Models that differ from t as a misreading of its arrays would."""
    S, A = len(t.P), len(t.P[0])
    yield FORGETS, t._replace(gamma=Fraction(1))
    zero, ends = [Fraction()] * S, [not any(map(any, rows)) for rows in t.P]
    if any(ends):
        first = [Fraction(x == 0) for x in range(S)]
        anywhere = [Fraction(1, S)] * S
        for row in (first, anywhere):
            yield BOOTSTRAPS, t._replace(P=[[row] * A if end else P for end, P in zip(ends, t.P, strict=True)])
    swapped = [[[t.P[x][a][s] for x in range(S)] for a in range(A)] for s in range(S)]
    yield TRANSPOSED, t._replace(P=swapped)
    yield "you leave out what comes after the first reward", t._replace(P=[[zero] * A] * S)


def answers(t: Tables, answer: Answer, others: dict[str, Answer]) -> Mistakes:
    """Answers on the mutants of a model, and other wrong answers."""
    wrong = [(name, answer, u) for name, u in mutants(t)]
    return finite([*wrong, *((name, other, t) for name, other in others.items())])


def finite(wrong: list[tuple[str, Answer, Tables]]) -> Mistakes:
    """Compute wrong answers; those without a finite value are left out."""
    found: Mistakes = []
    for name, f, t in wrong:
        with suppress(ZeroDivisionError, ModelError):
            found.append((name, floats(f(t))))
    return found


def uniform(t: Tables) -> list[Row]:
    """Equal weight on all actions."""
    A = len(t.P[0])
    return [[Fraction(1, A)] * A for _ in t.P]


def chosen(t: Tables, V: Row, best: Callable[[Row], Fraction] = max) -> list[Row]:
    """One-hot policy of the first action with the largest (or smallest) Q(V)."""
    Q = rational.action_values(t, V)
    first = [q.index(best(q)) for q in Q]
    return [[Fraction(a == k) for a in range(len(q))] for q, k in zip(Q, first, strict=True)]


def undiscounted_policy(t: Tables) -> list[Row]:
    """Policy that is optimal when gamma is left out."""
    return chosen(t, rational.best_values(t))


def value_of(policy: Callable[[Tables], Any]) -> Answer:
    """Values of a policy that is computed from the model."""
    return lambda t: policy_values(t, policy(t))


def policy_values(t: Tables, pi: list[Row]) -> Row:
    """V_pi of a policy given as fractions."""
    P = [[rational.dot(w, column) for column in zip(*rows, strict=True)] for w, rows in zip(pi, t.P, strict=True)]
    return rational.chain_values(P, [rational.dot(w, r) for w, r in zip(pi, t.r, strict=True)], t.gamma)


def worst(t: Tables) -> Row:
    """The smallest values that a policy can get: V* of the model with all rewards negated, negated."""
    return [-v for v in rational.best_values(t._replace(r=[[-x for x in row] for row in t.r]))]


def scaled(answer: Answer) -> Answer:
    """Gamma times an answer."""
    return lambda t: [t.gamma * v for v in answer(t)]


def backup(t: Tables, pi: Any, V: Row) -> Row:
    """T_pi V."""
    Q = rational.action_values(t, V)
    return [rational.dot(w, q) for w, q in zip(rational.exact(pi), Q, strict=True)]


def best_backup(t: Tables, V: Row) -> Row:
    """T V."""
    return [max(q) for q in rational.action_values(t, V)]


def in_place(t: Tables, pi: Any, V: Row) -> Row:
    """T_pi V, state after state, each seeing the new values of those before it."""
    V = list(V)
    for s in range(len(V)):
        V[s] = backup(t, pi, V)[s]
    return V


def stopped_early(x: Instance, exact: Row, sweep: Callable[[Row], Row]) -> Callable[[F], str]:
    """Say so when V is much closer to its own backup than to the truth."""

    def remark(V: F) -> str:
        v = rational.exact(V)
        residual = largest([a - b for a, b in zip(sweep(v), v, strict=True)])
        error = distance(V, exact)
        if not residual * 4 < error < largest(exact) / 100:
            return ""
        return (
            f"it stopped too early: another sweep changes V by {float(residual):.2g} at most, "
            f"the error is {float(error):.2g} (up to residual / (1 - gamma))"
        )

    return remark
