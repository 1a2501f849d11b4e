"""Policy gradient estimates of single episodes, and their moments over all episodes, in fractions.

g = sum over t of w^t psi_t x_t, a table (S,A); psi_t = 1{s_t} (1{a_t} - pi) the score of step t; w what a score is
discounted with; x (T,) returns, advantages; p probability of an episode.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

from tabrl import rational
from tabrl.mdp import MDP
from tabrl.rational import Row
from tabrl.types import F
from tabrl.verify import enumeration, literal
from tabrl.verify.literal import ONE, ZERO, Trace

Multipliers: TypeAlias = Callable[[Trace], Row]  # x of an episode


class Run(NamedTuple):
    """One episode and its probability."""

    p: Fraction
    x: Trace
    a: list[int]


class Spread(NamedTuple):
    """Mean and variance of an estimate, entry by entry, and the sum of all variances."""

    mean: Row
    variance: Row
    total: Fraction


def runs(mdp: MDP, pi: F, limit: int = 99) -> Iterator[Run]:
    """All episodes from mu, cut after `limit` steps."""
    for s, start in enumerate(rational.exact(mdp.mu)):
        if start:
            for p, e in enumeration.trajectories(mdp, pi, s, limit):
                yield Run(start * p, literal.read(e.s, e.r, e.discount), e.a.tolist())


def estimate(run: Run, pi: Any, x: Row, w: Fraction) -> Row:
    """One estimate, its table written in one row.

    >>> half = Fraction(1, 2)
    >>> [float(y) for y in estimate(Run(ONE, Trace([0, 1], [ONE], [ZERO]), [1]), [[half, half]], [Fraction(4)], ONE)]
    [-2.0, 2.0]
    """
    g = [[ZERO] * len(row) for row in pi]
    for t, (s, a) in enumerate(zip(run.x.s, run.a, strict=False)):
        for b, p in enumerate(pi[s]):
            g[s][b] += w**t * ((a == b) - p) * x[t]
    return [y for row in g for y in row]


def returns(b: Row | None = None) -> Multipliers:
    """G_t - b(s_t), nothing being added where the episode was cut."""

    def centred(x: Trace) -> Row:
        G = [ZERO]
        for r, d in zip(reversed(x.r), reversed(x.discount), strict=True):
            G.append(r + d * G[-1])
        return [y - (b[s] if b else ZERO) for y, s in zip(G[:0:-1], x.s, strict=False)]

    return centred


def whole(b: Row | None = None) -> Multipliers:
    """G_0 - b(s_0) for every step."""

    def G(x: Trace) -> Row:
        return returns(b)(x)[:1] * len(x.r)

    return G


def advantages(V: Row, lam: Fraction) -> Multipliers:
    """Sums of (discount lam)^k delta[t+k]."""
    return lambda x: gae(x, literal.along(V, x), lam)


def gae(x: Trace, v: Row, lam: Fraction) -> Row:
    """Generalised advantage estimates, each a sum of TD errors; v (T+1,).

    >>> v = [Fraction(0), Fraction(2), Fraction(9)]
    >>> [float(y) for y in gae(Trace([0, 1, 2], [ONE, ONE], [ONE / 2, ZERO]), v, ONE / 2)]
    [1.75, -1.0]
    """
    delta = [r + d * v[t + 1] - v[t] for t, (r, d) in enumerate(zip(x.r, x.discount, strict=True))]
    faded = [lam * d for d in x.discount]
    return [rational.dot(literal.weights(faded[t:-1]), delta[t:]) for t in range(len(delta))]


def spread(law: Sequence[Run], pi: F, x: Multipliers, w: Fraction) -> Spread:
    """Moments over all episodes."""
    weight = rational.exact(pi)
    found = [(run.p, estimate(run, weight, x(run.x), w)) for run in law]
    entries = range(pi.size)
    mean = [sum((p * g[i] for p, g in found), ZERO) for i in entries]
    variance = [sum((p * (g[i] - mean[i]) ** 2 for p, g in found), ZERO) for i in entries]
    return Spread(mean, variance, sum(variance, ZERO))


def total(law: Sequence[Run]) -> Fraction:
    """Probability of all listed episodes: 1, or what is missing is too small to matter."""
    return sum((run.p for run in law), ZERO)


class Parabola(NamedTuple):
    """A quadratic f(x) = f(0) + slope x + curvature x^2."""

    at_0: Fraction
    slope: Fraction
    curvature: Fraction

    @property
    def lowest(self) -> Fraction:
        """Where it is least."""
        return -self.slope / (2 * self.curvature)


def parabola(f: Callable[[Fraction], Fraction]) -> Parabola:
    """The quadratic through f(-1), f(0), f(1).

    >>> parabola(lambda x: 3 * x * x - 6 * x).lowest
    Fraction(1, 1)
    """
    left, middle, right = f(-ONE), f(ZERO), f(ONE)
    return Parabola(middle, (right - left) / 2, (right + left) / 2 - middle)
