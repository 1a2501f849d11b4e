"""What a user's Monte Carlo functions are given in rows E1.6 and E1.14, and what they must return.

s (T+1,) states; r, discount, rho (T,) rewards, discounts, ratios pi/b; G (T,) returns. Everything in fractions.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from typing import TypeAlias

import numpy as np

from tabrl import rational
from tabrl.rational import Row
from tabrl.types import F, I
from tabrl.verify import literal
from tabrl.verify.cases import return_cases
from tabrl.verify.literal import ONE, ZERO, Trace
from tabrl.verify.mistakes import FORGETS, PAYS_LATE, Mistakes, floats
from tabrl.verify.record import Case
from tabrl.verify.recorded import written

Visits: TypeAlias = Callable[[Trace], Iterable[int]]
S = 5  # rooms, the last one the end


@cache
def average_cases() -> list[Case]:
    """E1.6: f(episodes, S) -> V."""
    rooms = {
        "episodes that come back to their rooms": ["01123", "2201", "10", "3"],
        "one episode that comes back": ["0010203"],
        "episodes that never come back": ["012", "12", "3"],
        "episodes of one step": ["0", "1", "0", "0"],
        "a room that is never visited": ["0121", "112"],
    }
    named = [(f"{name}, gamma {g:g}", written(x, g)) for name, x in rooms.items() for g in (0.9, 1.0)]
    return [average_case(name, x) for name, x in [*named, ("gamma 0", written(["0010203", "11"], 0.0))]]


def average_case(name: str, episodes: list[tuple[I, F, F]]) -> Case:
    """Whole episodes of five rooms; the closed form is the average return after the first visit of each."""
    x = [literal.read(*episode) for episode in episodes]
    exact = literal.visit_averages(x, S, "first")
    return Case(name, (episodes, S), (S,), "s", floats(exact), cache(lambda: wrong_averages(x)))


def wrong_averages(x: list[Trace]) -> Mistakes:
    """Other visits, other averages, other returns."""
    first = literal.first_visits
    visits: dict[str, Visits] = {
        "you average over every visit instead of the first one of each episode": steps,
        "you average over the last visit of each episode instead of the first": last_visits,
    }
    averages: dict[str, Callable[[Row], Fraction]] = {
        "you use only the first episode that visits a state": lambda G: G[0],
        "you keep the last return instead of the average": lambda G: G[-1],
        "you add the returns up without dividing": total,
        "you divide by the number of episodes, also by those that do not visit the state": lambda G: total(G) / len(x),
    }
    episodes = {
        FORGETS: [y._replace(discount=[Fraction(d > 0) for d in y.discount]) for y in x],
        PAYS_LATE: [y._replace(r=[a * b for a, b in zip(y.r, y.discount, strict=True)]) for y in x],
        "you average rewards instead of returns": [y._replace(discount=[ZERO] * len(y.r)) for y in x],
    }
    wrong = [
        *((mistake, collected(x, y)) for mistake, y in visits.items()),
        *((mistake, collected(x, first, combine=y)) for mistake, y in averages.items()),
        *((mistake, collected(y, first)) for mistake, y in episodes.items()),
        ("you use the return of the whole episode for all its states", collected(x, first, start=lambda t: 0)),
        ("the return leaves out the first reward", collected([late(y) for y in x], first, start=lambda t: t + 1)),
        ("you discount from the start of the episode instead of from t", collected(x, first, rest=from_start)),
        ("you add up the past instead of the future: go through the episode backwards", collected(x, first, rest=past)),
        ("you add first visits up but divide by the number of all visits", shared(x)),
    ]
    return [(mistake, floats(V)) for mistake, V in wrong]


def total(G: Row) -> Fraction:
    """Sum of returns."""
    return sum(G, ZERO)


def mean(G: Row) -> Fraction:
    """Average of returns."""
    return total(G) / len(G)


def collected(
    x: list[Trace],
    visits: Visits,
    combine: Callable[[Row], Fraction] = mean,
    start: Callable[[int], int] = lambda t: t,
    rest: Callable[[Trace, int], Fraction] = lambda x, t: literal.monte_carlo_return(x, [ZERO] * (len(x.r) + 1), t),
) -> Row:
    """Combine, for each state, the returns from start(t) of the chosen visits t; 0 without a visit."""
    found: list[Row] = [[] for _ in range(S)]
    for y in x:
        for t in visits(y):
            found[y.s[t]].append(rest(y, start(t)))
    return [combine(G) if G else ZERO for G in found]


def steps(x: Trace) -> range:
    """Every step of an episode."""
    return range(len(x.s) - 1)


def last_visits(x: Trace) -> list[int]:
    """Steps at which a state is left for the last time."""
    return [t for t in steps(x) if x.s[t] not in x.s[t + 1 : -1]]


def late(x: Trace) -> Trace:
    """The episode with one more step, which pays nothing."""
    return x._replace(r=[*x.r, ZERO], discount=[*x.discount, ZERO])


def from_start(x: Trace, t: int) -> Fraction:
    """The sum over k >= t of discount[0] … discount[k-1] r[k]."""
    return literal.weights(x.discount)[t] * literal.monte_carlo_return(x, [ZERO] * (len(x.r) + 1), t)


def past(x: Trace, t: int) -> Fraction:
    """The sum over k <= t of gamma^(t-k) r[k]: G = r + gamma G, forwards."""
    gamma, G = max(x.discount), ZERO
    for r in x.r[: t + 1]:
        G = r + gamma * G
    return G


def shared(x: list[Trace]) -> Row:
    """First-visit returns over the number of all visits."""
    count = collected(x, steps, combine=lambda G: Fraction(len(G)))
    return [a / b if b else ZERO for a, b in zip(collected(x, literal.first_visits, total), count, strict=True)]


# E1.14


@cache
def importance_cases() -> list[Case]:
    """E1.14: f(r, discount, rho) -> G."""
    ratios = {
        "": np.array([0.5, 2.0, 1.25, 0.75, 3.0, 0.25]),
        ", one action that pi never takes": np.array([2.0, 0.5, 1.5, 0.0, 4.0, 0.75]),
    }
    found = []
    for c in return_cases():
        r, discount = c.arguments
        found += [importance_case(f"{c.name}{x}", r, discount, rho[: len(r)]) for x, rho in ratios.items()]
    return found


def importance_case(name: str, r: F, discount: F, rho: F) -> Case:
    """One episode; the closed form is the double sum over steps and rewards."""
    x = literal.read([0] * (len(r) + 1), r, discount)
    W: Row = rational.exact(rho)
    return Case(name, (r, discount, rho), r.shape, "t", floats(sums(x, W)), cache(lambda: wrong_sums(x, W)))


def sums(x: Trace, rho: Row) -> Row:
    """Per-decision returns."""
    return [literal.per_decision_return(x, rho, t) for t in range(len(rho))]


def recursion(x: Trace, own: Row, later: Row) -> Row:
    """G[t] = own[t] r[t] + discount[t] later[t] G[t+1]."""
    G = [ZERO]
    for t in reversed(range(len(x.r))):
        G.insert(0, own[t] * x.r[t] + x.discount[t] * later[t] * G[0])
    return G[:-1]


def wrong_sums(x: Trace, rho: Row) -> Mistakes:
    """Other products, and other readings of the discount."""
    ones, T, g = [ONE] * len(rho), len(rho), max(x.discount)
    plain = recursion(x, ones, ones)
    start = literal.weights(rho)
    weighed = [literal.product(rho[k:]) * r for k, r in enumerate(x.r)]
    wrong = {
        "you multiply every reward by the ratios of the whole rest of the episode (the ordinary estimate)": [
            literal.product(rho[t:]) * plain[t] for t in range(T)
        ],
        "you leave the ratios out": plain,
        "you weigh a reward by the ratio of its own action alone, not by the product": recursion(x, rho, ones),
        "the ratio of an action weighs what comes after its reward, but not the reward itself": recursion(x, ones, rho),
        "you multiply the ratios in the wrong order: a reward is weighed by the actions after it": [
            rational.dot(literal.weights(x.discount[t:-1]), weighed[t:]) for t in range(T)
        ],
        "you use the ratio of the next action (shifted by one step)": sums(x, [*rho[1:], ONE]),
        "you use the ratio of the action before (shifted by one step)": sums(x, [ONE, *rho[:-1]]),
        "you multiply the ratios from the start of the episode instead of from t": [
            start[t] * G for t, G in enumerate(sums(x, rho))
        ],
        "you clip the ratios at 1": sums(x, [min(y, ONE) for y in rho]),
        FORGETS: sums(x._replace(discount=[Fraction(d > 0) for d in x.discount]), rho),
        "you go on across the end of an episode (discount is 0 there)": sums(x._replace(discount=[g] * T), rho),
        PAYS_LATE: sums(x._replace(r=[a * b for a, b in zip(x.r, x.discount, strict=True)]), rho),
        "you use the discount of the next step": sums(x._replace(discount=[*x.discount[1:], ZERO]), rho),
    }
    if all(rho):
        wrong["the ratios are upside down (b/pi instead of pi/b)"] = sums(x, [1 / y for y in rho])
    return [(mistake, floats(G)) for mistake, G in wrong.items()]
