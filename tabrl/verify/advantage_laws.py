"""Moments of advantage estimates given the state and action they start with, in fractions.

V (S,) any values, 0 in terminal states; e = V - V_pi; delta = R + gamma V(s') - V(s); Ahat the sum of
(gamma lam)^k delta_{t+k}; kappa = gamma lam.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from tabrl import rational
from tabrl.rational import Row, dot
from tabrl.types import F
from tabrl.verify import enumeration, literal
from tabrl.verify.literal import ZERO, Trace
from tabrl.verify.softmax_models import Softmax, Table, live

Branch = Callable[[int, Fraction], Fraction]  # of the next state and the reward on the way


class Law(NamedTuple):
    """Mean, bias and variance; 0 for illegal pairs and at the end."""

    mean: Table  # (S,A)
    bias: Table  # (S,A)
    variance: Table  # (S,A)


def given(x: Softmax, f: Callable[[int], Branch]) -> Table:
    """E[f | s, a]; f(s) is a function of what follows."""
    return [
        [
            sum((p * f(s)(y, x.t.R[s][a][y]) for y, p in enumerate(row) if p), ZERO)
            for a, row in enumerate(x.t.P[s])
        ]
        for s in range(x.mdp.S)
    ]  # fmt: skip


def average(x: Softmax, table: Table) -> Row:
    """E[· | s] of a table of E[· | s, a]."""
    return [dot(p, row) for p, row in zip(x.weight, table, strict=True)]


def minus(a: Table, b: Table) -> Table:
    """Difference of two tables."""
    return [[y - z for y, z in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def gae(x: Softmax, V: Row, lam: Fraction) -> Law:
    """The estimate and its square, each from its own linear equation.

    v = E[delta] + kappa P v,   m = E[delta^2 + 2 kappa delta v(s')] + kappa^2 P m
    """
    g, P = x.t.gamma, rational.induced(x.t, x.weight)[0]
    kappa = g * lam

    def delta(s: int, y: int, r: Fraction) -> Fraction:
        return r + g * V[y] - V[s]

    v = rational.chain_values(P, average(x, given(x, lambda s: lambda y, r: delta(s, y, r))), kappa)
    square = given(x, lambda s: lambda y, r: delta(s, y, r) ** 2 + 2 * kappa * delta(s, y, r) * v[y])
    m = rational.chain_values(P, average(x, square), kappa**2)
    mean = given(x, lambda s: lambda y, r: delta(s, y, r) + kappa * v[y])
    whole = [
        [z + kappa**2 * dot(row, m) for z, row in zip(*rows, strict=True)] for rows in zip(square, x.t.P, strict=True)
    ]
    variance = [[z - u * u for z, u in zip(*rows, strict=True)] for rows in zip(whole, mean, strict=True)]
    return Law(mean, minus(mean, x.advantage), variance)


def error(x: Softmax, V: Row) -> Row:
    """What V is off by, e = V - V_pi."""
    return [a - b for a, b in zip(V, x.V_pi, strict=True)]


def ahead(x: Softmax, e: Row) -> Table:
    """Gamma P e, of the state that follows."""
    return [[x.t.gamma * dot(row, e) for row in rows] for rows in x.t.P]


def td_bias(x: Softmax, V: Row) -> Table:
    """Gamma P e - e(s)."""
    return n_step_bias(x, V, 1)


def n_step_bias(x: Softmax, V: Row, n: int) -> Table:
    """gamma^n P P_pi^(n-1) e - e(s)."""
    e, P = error(x, V), rational.induced(x.t, x.weight)[0]
    far = e
    for _ in range(n - 1):
        far = [x.t.gamma * dot(row, far) for row in P]
    return off(x, ahead(x, far), e)


def off(x: Softmax, table: Table, e: Row) -> Table:
    """Subtract e(s) in all pairs (s,a) that something follows."""
    return [[y - e[s] if live(x.t, s, a) else ZERO for a, y in enumerate(row)] for s, row in enumerate(table)]


def listed(x: Softmax, steps: int, estimate: Callable[[Trace], Fraction]) -> Iterator[tuple[int, int, Row]]:
    """Mean and variance of an estimate for each s and first action a, all episodes from s being listed."""
    for s in range(x.mdp.S):
        law: dict[int, list[tuple[Fraction, Fraction]]] = {}
        for p, e in enumeration.trajectories(x.mdp, x.pi, s, steps):
            if len(e.r):
                y = estimate(literal.read(e.s, e.r, e.discount))
                law.setdefault(int(e.a[0]), []).append((p / x.weight[s][int(e.a[0])], y))
        for a, found in law.items():
            mean = sum((p * y for p, y in found), ZERO)
            yield s, a, [mean, sum((p * (y - mean) ** 2 for p, y in found), ZERO)]


def values(x: Softmax, V: F) -> Row:
    """V in fractions, 0 in terminal states."""
    return [ZERO if end else Fraction(float(v)) for v, end in zip(V, x.mdp.terminal, strict=True)]
