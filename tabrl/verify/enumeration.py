"""Everything that can happen in a tiny model, listed with its probability, in fractions.

p probability; b (S,A) the policy that acts; V (S,) values; alpha step size; gamma discount.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tabrl import rational
from tabrl.mdp import MDP
from tabrl.rational import Row
from tabrl.types import Episode, F
from tabrl.verify.literal import ONE, ZERO

T = TypeVar("T")


class Outcome(NamedTuple):
    """One thing that can follow state s, and its probability."""

    s: int
    a: int
    s_next: int
    r: Fraction
    p: Fraction


class Moments(NamedTuple):
    """Mean and covariance of values."""

    mean: Row  # (S,)
    covariance: list[Row]  # (S,S)


def outcomes(mdp: MDP, b: F) -> list[Outcome]:
    """All outcomes of positive probability under a policy."""
    t, weight = rational.tables(mdp), rational.exact(b)
    return [
        Outcome(s, a, y, t.R[s][a][y], weight[s][a] * t.P[s][a][y])
        for s, a, y in np.ndindex(mdp.S, mdp.A, mdp.S)
        if weight[s][a] * t.P[s][a][y]
    ]


def trajectories(mdp: MDP, b: F, s: int, limit: int = 99) -> Iterator[tuple[Fraction, Episode]]:
    """All episodes from s under b with their probabilities, cut after `limit` steps."""
    law, gamma = outcomes(mdp, b), mdp.gamma

    def walk(s: list[int], a: list[int], r: list[float], p: Fraction) -> Iterator[tuple[Fraction, Episode]]:
        if mdp.terminal[s[-1]] or len(r) == limit:
            steps = np.array(s), np.array(a, np.int64), np.array(r)
            discount = np.where(mdp.terminal[steps[0][1:]], 0.0, gamma)
            yield p, Episode(*steps, discount, np.log(b[steps[0][:-1], steps[1]]))
            return
        for o in law:
            if o.s == s[-1]:
                yield from walk([*s, o.s_next], [*a, o.a], [*r, float(o.r)], p * o.p)

    return walk([s], [], [], ONE)


def tuples(law: Sequence[tuple[Fraction, T]], n: int) -> Iterator[tuple[Fraction, tuple[T, ...]]]:
    """All n independent draws, in one order each, with the probability of all orders together.

    >>> [(float(p), "".join(x)) for p, x in tuples([(Fraction(1, 2), "a"), (Fraction(1, 2), "b")], 2)]
    [(0.25, 'aa'), (0.5, 'ab'), (0.25, 'bb')]
    """
    for chosen in combinations_with_replacement(range(len(law)), n):
        orders = math.factorial(n)
        for i in set(chosen):
            orders //= math.factorial(chosen.count(i))
        yield orders * math.prod((law[i][0] for i in chosen), start=ONE), tuple(law[i][1] for i in chosen)


def expectation(law: Sequence[tuple[Fraction, T]], f: Callable[[T], Fraction]) -> Fraction:
    """Sum of p f(x)."""
    return sum((p * f(x) for p, x in law), ZERO)


def moments(law: Sequence[tuple[Fraction, Row]]) -> Moments:
    """Mean and covariance of vectors."""
    S = range(len(law[0][1]))
    mean = [sum((p * V[s] for p, V in law), ZERO) for s in S]
    square = [[sum((p * V[s] * V[y] for p, V in law), ZERO) for y in S] for s in S]
    return Moments(mean, [[square[s][y] - mean[s] * mean[y] for y in S] for s in S])


def td_moments(mdp: MDP, pi: F, alpha: float, V: F, steps: int, d: F | None = None) -> Moments:
    """Moments of TD(0)'s values after some updates, by every sequence of outcomes.

    d: states are drawn from it afresh; None: along a trajectory, restarted from mu.
    """
    law, step, gamma = outcomes(mdp, pi), Fraction(alpha), Fraction(mdp.gamma)
    first = rational.exact(mdp.mu if d is None else d)
    found: list[tuple[Fraction, Row]] = []

    def walk(V: Row, at: Row, p: Fraction, left: int) -> None:
        if not left:
            found.append((p, V))
            return
        for o in (o for o in law if at[o.s]):
            ahead = ZERO if mdp.terminal[o.s_next] else gamma * V[o.s_next]
            U = [v + step * (o.r + ahead - v) if s == o.s else v for s, v in enumerate(V)]
            moved_on = d is None and not mdp.terminal[o.s_next]
            there = [Fraction(s == o.s_next) for s in range(mdp.S)] if moved_on else first
            walk(U, there, p * at[o.s] * o.p, left - 1)
        idle = sum((p for p, end in zip(at, mdp.terminal, strict=True) if end), ZERO)
        if idle:
            walk(V, first, p * idle, left - 1)

    walk(rational.exact(V), first, ONE, steps)
    return moments(found)


class Jump(NamedTuple):
    """What one outcome does to the values, V' = B V + b, and where the next update starts."""

    s: int
    land: Row  # (S,)
    p: Fraction
    B: list[Row]  # (S,S)
    b: Row  # (S,)


def jumps(mdp: MDP, pi: F, alpha: float, d: F | None) -> list[Jump]:
    """TD(0)'s updates as affine maps of the values; d: where every update starts, None: where the last one ended."""
    found, S, step = [], range(mdp.S), Fraction(alpha)
    first = rational.exact(mdp.mu if d is None else d)
    for o in outcomes(mdp, pi):
        B = [[Fraction(s == y) for y in S] for s in S]
        B[o.s][o.s] -= step
        end = bool(mdp.terminal[o.s_next])
        B[o.s][o.s_next] += ZERO if end else step * Fraction(mdp.gamma)
        b = [step * o.r * (s == o.s) for s in S]
        there = [Fraction(y == o.s_next) for y in S]
        found.append(Jump(o.s, there if d is None and not end else first, o.p, B, b))
    return found


def td_limit(mdp: MDP, pi: F, alpha: float, d: F | None = None) -> Moments:
    """Moments at which TD(0) settles, from the equations for E[V 1{s}] and E[V V' 1{s}].

        f(u) = sum of p (B f(s) + b q(s)),   g(u) = sum of p (B g(s) B' + B f(s) b' + b f(s)' B' + q(s) b b')

    q the stationary distribution of the state; sums over outcomes that start in s, with the next update in u. d: states
    are drawn from it afresh; None: along a trajectory. For models without an end in which no state is left for ever.
    """
    law, S = jumps(mdp, pi, alpha, d), range(mdp.S)
    q = stationary(law, mdp.S)

    def first(f: list[Row], q: Row) -> list[Row]:
        new = [[ZERO] * mdp.S for _ in S]
        for j in law:
            after = [rational.dot(row, f[j.s]) + y * q[j.s] for row, y in zip(j.B, j.b, strict=True)]
            for u in S:
                new[u] = [x + j.p * j.land[u] * y for x, y in zip(new[u], after, strict=True)]
        return new

    f = fixed_point(lambda x, one: pack(first(unpack(x, mdp.S), [one * y for y in q])), mdp.S**2)

    def second(g: list[list[Row]], one: Fraction) -> list[list[Row]]:
        new = [[[ZERO] * mdp.S for _ in S] for _ in S]
        for j in law:
            after = product(product(j.B, g[j.s]), transposed(j.B))
            Bf = [one * rational.dot(row, unpack(f, mdp.S)[j.s]) for row in j.B]
            for i, k, u in np.ndindex(mdp.S, mdp.S, mdp.S):
                noise = Bf[i] * j.b[k] + j.b[i] * Bf[k] + one * q[j.s] * j.b[i] * j.b[k]
                new[u][i][k] += j.p * j.land[u] * (after[i][k] + noise)
        return new

    def flat(x: Row, one: Fraction) -> Row:
        blocks = [unpack(x[s * mdp.S**2 : (s + 1) * mdp.S**2], mdp.S) for s in S]
        return [y for block in second(blocks, one) for y in pack(block)]

    g = fixed_point(flat, mdp.S**3)
    mean = [sum(column, ZERO) for column in zip(*unpack(f, mdp.S), strict=True)]
    square = unpack([sum(g[i :: mdp.S**2], ZERO) for i in range(mdp.S**2)], mdp.S)
    return Moments(mean, [[square[i][k] - mean[i] * mean[k] for k in S] for i in S])


def stationary(law: list[Jump], S: int) -> Row:
    """Stationary distribution of the states that updates start in: q = q K, the first equation replaced by sum 1."""
    K = [[sum((j.p * j.land[u] for j in law if j.s == s), ZERO) for u in range(S)] for s in range(S)]
    M = [[(s == u) - K[s][u] for s in range(S)] for u in range(S)]
    return rational.solve([[ONE] * S, *M[1:]], [ONE, *[ZERO] * (S - 1)])


def fixed_point(f: Callable[[Row, Fraction], Row], n: int) -> Row:
    """Solve x = f(x, 1) for an f that is linear in both."""
    b = f([ZERO] * n, ONE)
    columns = [f([Fraction(i == k) for i in range(n)], ZERO) for k in range(n)]
    return rational.solve([[(i == k) - columns[k][i] for k in range(n)] for i in range(n)], b)


def pack(M: list[Row]) -> Row:
    """Write the rows of a matrix one after the other."""
    return [y for row in M for y in row]


def unpack(x: Row, n: int) -> list[Row]:
    """Cut a list into rows of n."""
    return [x[i : i + n] for i in range(0, len(x), n)]


def transposed(M: list[Row]) -> list[Row]:
    """Exchange rows and columns."""
    return [list(column) for column in zip(*M, strict=True)]


def product(A: list[Row], B: list[Row]) -> list[Row]:
    """Matrix product."""
    return [[rational.dot(row, column) for column in transposed(B)] for row in A]


def certainty_equivalence(S: int, episodes: Sequence[Any], lam: Fraction = ZERO) -> tuple[list[int], Row]:
    """States that were left in a batch of traces, and their values where TD(lambda)'s updates sum to 0.

        sum over t of z[t] (r[t] + discount[t] V(s[t+1]) - V(s[t])) = 0,   z[t] = discount lam z[t-1] + e_s[t]

    lam = 0: the values of the model that the counts describe. States never left count as 0.
    """
    A, b = [[ZERO] * S for _ in range(S)], [ZERO] * S
    for x in episodes:
        z = [ZERO] * S
        for t, (r, d) in enumerate(zip(x.r, x.discount, strict=True)):
            z[x.s[t]] += 1
            for s in range(S):
                A[s][x.s[t]] += z[s]
                A[s][x.s[t + 1]] -= d * z[s]
                b[s] += r * z[s]
            z = [d * lam * y for y in z]
    seen = sorted({s for x in episodes for s in x.s[:-1]})
    return seen, rational.solve([[A[s][y] for y in seen] for s in seen], [b[s] for s in seen])
