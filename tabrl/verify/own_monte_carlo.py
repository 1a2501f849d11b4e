"""Monte Carlo against fractions: row E1.6 of the ledger.

V (S,) values; G return; p probability of going round once more, k rounds of an episode; n episodes.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np

from tabrl import operators, prediction, rational, visits
from tabrl.mdp import MDP
from tabrl.trace import last
from tabrl.types import Episode, F
from tabrl.verify import literal, recorded
from tabrl.verify.enumeration import expectation, tuples
from tabrl.verify.literal import ZERO
from tabrl.verify.record import Check, Comparison, agree

P = Fraction(1, 8)
ROUNDS = 18  # more than these have probability 8**-18, below 1e-16


class Carousel(NamedTuple):
    """Rooms in a ring; in room 0 one goes round with probability p and else leaves, all other steps are sure."""

    mdp: MDP
    rooms: int

    @property
    def name(self) -> str:
        """Where a comparison is made."""
        return f"{self.rooms} in the ring, gamma {self.mdp.gamma:g}"

    @property
    def pi(self) -> F:
        """The only policy."""
        return np.ones((self.mdp.S, 1))

    @property
    def value(self) -> Fraction:
        """V(0)."""
        return rational.exact_policy_values(self.mdp, self.pi)[0]

    def episode(self, k: int) -> Episode:
        """The episode of k rounds from room 0: the only one there is."""
        s = np.array([*list(range(self.rooms)) * k, 0, self.rooms])
        zeros = np.zeros(len(s) - 1)
        r = self.mdp.R[s[:-1], 0, s[1:]]
        return Episode(s, zeros.astype(np.int64), r, np.where(s[1:] == self.rooms, 0.0, self.mdp.gamma), zeros)

    def law(self) -> list[tuple[Fraction, Episode]]:
        """All episodes but those of too many rounds, with their probabilities."""
        return [((1 - P) * P**k, self.episode(k)) for k in range(ROUNDS)]


def carousel(rooms: int, gamma: float) -> Carousel:
    """Every step pays something else."""
    S = rooms + 1
    R, T = np.zeros((S, 1, S)), np.zeros((S, 1, S))
    for s in range(rooms):
        T[s, 0, (s + 1) % rooms], R[s, 0, (s + 1) % rooms] = 1.0, 1.5 - s
    T[0, 0] *= float(P)
    T[0, 0, rooms], R[0, 0, rooms] = float(1 - P), 2.0
    mdp = MDP(T, R, gamma, terminal=np.arange(S) == rooms, mu=np.eye(S)[0])
    return Carousel(mdp, rooms)


def rides() -> Iterator[Carousel]:
    """A loop without and with a discount, and a ring of two rooms; dyadic, so that fractions stay short."""
    for rooms, gamma in ((1, 1.0), (1, 0.5), (2, 0.875)):
        yield carousel(rooms, gamma)


class Ride(NamedTuple):
    """What the estimates of V(0) need to know of an episode."""

    visits: int
    total: Fraction  # sum of the returns after all visits to room 0
    first: Fraction  # the return after the first


def ride(x: Episode) -> Ride:
    """Returns after the visits to room 0."""
    trace = literal.read(x.s, x.r, x.discount)
    v = [ZERO] * len(trace.s)
    G = [literal.monte_carlo_return(trace, v, t) for t, s in enumerate(trace.s) if s == 0]
    return Ride(len(G), sum(G, ZERO), G[0])


Estimate: TypeAlias = Callable[[tuple[Ride, ...]], Fraction]


def first(x: tuple[Ride, ...]) -> Fraction:
    """First-visit estimate from n episodes."""
    return sum((y.first for y in x), ZERO) / len(x)


def every(x: tuple[Ride, ...]) -> Fraction:
    """Every-visit estimate from n episodes."""
    return sum((y.total for y in x), ZERO) / sum(y.visits for y in x)


def monte_carlo() -> list[Check]:
    """E1.6: averages of recorded episodes, and bias and error over all sets of episodes."""
    swept = recorded.sweeps(prediction.batch_mc, lambda x, V, t: literal.monte_carlo_return(x, literal.along(V, x), t))
    return [
        agree("E1.6", "V after 2 sweeps of batch_mc, against sums in fractions", list(swept)),
        agree("E1.6", "V of monte_carlo on whole episodes, against visit averages in fractions", list(averages())),
        agree("E1.6", "limit of batch Monte Carlo, against visit averages in fractions", list(batches())),
        agree("E1.6", "V of monte_carlo with a constant alpha, against a loop in fractions", list(constant())),
        *errors(),
        *learned(),
        agree("E1.6", "mean sum of returns and mean number of visits, all episodes listed", list(totals())),
    ]


def averages() -> Iterator[Comparison]:
    """The learner; states that were never visited keep their V."""
    for x in recorded.batches(None):
        seen = sorted({s for trace in x.traces for s in trace.s[:-1]})
        for visit in ("first", "every"):
            V = literal.visit_averages(x.traces, x.x.mdp.S, visit)
            exact = [V[s] if s in seen else Fraction(x.V[s]) for s in range(len(V))]
            found = last(prediction.monte_carlo(x.episodes, V=x.V, visit=visit)).V
            yield Comparison(f"{x.x.name}, {visit} visit", found, exact)


def batches() -> Iterator[Comparison]:
    """The averages in closed form."""
    for x in recorded.batches(None):
        triples = [(e.s, e.r, e.discount) for e in x.episodes]
        for visit in ("first", "every"):
            exact = literal.visit_averages(x.traces, x.x.mdp.S, visit)
            found = operators.batch_mc(triples, x.x.mdp.S, first=visit == "first")
            yield Comparison(f"{x.x.name}, {visit} visit", found.V, exact)


def constant() -> Iterator[Comparison]:
    """Episodes that were cut end in the value of their last state."""
    for visit in ("first", "every"):
        yield from recorded.replays(prediction.monte_carlo, literal.monte_carlo, visit=visit)


@cache
def deviations(rooms: int, gamma: float, estimate: Estimate, n: int) -> tuple[Fraction, Fraction]:
    """Bias and mean-square error of an estimate of V(0) on a carousel, over all sets of n episodes."""
    x = carousel(rooms, gamma)
    V = x.value
    errors = [(p, estimate(y) - V) for p, y in tuples([(p, ride(y)) for p, y in x.law()], n)]
    return expectation(errors, lambda e: e), expectation(errors, lambda e: e * e)


def errors() -> list[Check]:
    """Bias and mean-square error of both estimates, all sets of one, two and three episodes."""
    first_visit, every_visit, formula = list[Comparison](), list[Comparison](), list[Comparison]()
    for x, n in product(rides(), (1, 2, 3)):
        where = f"{x.name}, n = {n}"
        found = visits.first_visit(x.mdp, x.pi, 0, n)
        first_visit.append(Comparison(where, [found.bias, found.mse], deviations(x.rooms, x.mdp.gamma, first, n)))
        found = visits.every_visit(x.mdp, x.pi, 0, n)
        exact = deviations(x.rooms, x.mdp.gamma, every, n)
        every_visit.append(Comparison(where, [found.bias, found.mse], exact))
        formula.append(Comparison(where, visits.every_visit_bias(x.mdp, x.pi, 0, n), exact[0]))
    return [
        agree("E1.6", "bias (none) and error of first-visit averages, all sets of n episodes listed", first_visit),
        agree("E1.6", "bias and error of every-visit averages, all sets of n episodes listed", every_visit),
        agree("E1.6", "bias formula of every-visit averages, all sets of n episodes listed", formula),
    ]


def learned() -> list[Check]:
    """The learner on every pair of episodes: its mean, its bias, and the standard error from the return's variance."""
    mean, biased, spread = list[Comparison](), list[Comparison](), list[Comparison]()
    for x in rides():
        for visit, found in (("first", mean), ("every", biased)):
            V = [(float(p), estimate(y, visit)) for p, y in tuples(x.law(), 2)]
            exact = x.value + (deviations(x.rooms, x.mdp.gamma, every, 2)[0] if visit == "every" else ZERO)
            found.append(Comparison(x.name, sum(p * v for p, v in V), exact))
            if visit == "first":
                square = sum(p * (v - float(x.value)) ** 2 for p, v in V)
                spread.append(Comparison(x.name, square, deviations(x.rooms, x.mdp.gamma, first, 1)[1] / 2))
    return [
        agree("E1.6", "mean of first-visit monte_carlo, all pairs of episodes, against V_pi in fractions", mean),
        agree(
            "E1.6", "mean of every-visit monte_carlo, all pairs of episodes, against V_pi + bias in fractions", biased
        ),
        agree("E1.6", "its squared standard error, all pairs of episodes, against Var[G]/2 in fractions", spread),
    ]


def estimate(x: tuple[Episode, ...], visit: str) -> float:
    """V(0) of the learner after some episodes."""
    return float(last(prediction.monte_carlo(x, V=np.zeros(x[0].s.max() + 1), visit=visit)).V[0])


def totals() -> Iterator[Comparison]:
    """Every-visit averages are a ratio of two unbiased estimates."""
    for x in rides():
        law = [(p, ride(y)) for p, y in x.law()]
        exact = expectation(law, lambda y: y.total), expectation(law, lambda y: Fraction(y.visits))
        yield Comparison(x.name, visits.visit_totals(x.mdp, x.pi, 0), exact)
