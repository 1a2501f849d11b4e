"""What a user's averages of first visits of states with actions are given (row E1.6), and what they must return.

s (T+1,) states; a (T,) actions; r, discount (T,); G (T,) returns; Q (S,A). Everything in fractions.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from tabrl.rational import Row
from tabrl.types import F
from tabrl.verify import literal
from tabrl.verify.cases import hand_sums
from tabrl.verify.cases_monte_carlo import mean, total
from tabrl.verify.literal import ZERO, Trace
from tabrl.verify.mistakes import FORGETS, PAYS_LATE, Mistakes
from tabrl.verify.record import Case
from tabrl.verify.recorded import written

S, A = 5, 2
ACTIONS = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0])


class Play(NamedTuple):
    """An episode with its actions, in fractions."""

    x: Trace
    a: list[int]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """State and action of each step."""
        return list(zip(self.x.s, self.a, strict=False))


def returns(x: Trace) -> Row:
    """G[t], term by term."""
    return hand_sums(x.r, x.discount)


@cache
def pair_cases() -> list[Case]:
    """E1.6: f(episodes, S, A) -> Q."""
    rooms = {
        "both actions in one room": ["00123", "0011", "220"],
        "one episode that comes back": ["0010203"],
        "episodes that never come back": ["012", "12", "3"],
        "episodes of one step": ["0", "1", "0", "0"],
    }
    named = [(f"{name}, gamma {g:g}", x, g) for name, x in rooms.items() for g in (0.9, 1.0)]
    return [pair_case(name, x, g) for name, x, g in [*named, ("gamma 0", ["0010203", "11"], 0.0)]]


def pair_case(name: str, rooms: list[str], gamma: float) -> Case:
    """Whole episodes; the closed form is the average return after the first visit of each pair."""
    episodes = [
        (s, ACTIONS[k : k + len(r)].copy(), r, discount) for k, (s, r, discount) in enumerate(written(rooms, gamma))
    ]
    x = [Play(literal.read(s, r, discount), a.tolist()) for s, a, r, discount in episodes]
    return Case(name, (episodes, S, A), (S, A), "s", collected(x), cache(lambda: wrong_averages(x)))


def first_pairs(y: Play) -> Iterable[int]:
    """Steps at which an action is taken in a state for the first time."""
    return [t for t, pair in enumerate(y.pairs) if pair not in y.pairs[:t]]


def collected(
    x: list[Play],
    visits: Callable[[Play], Iterable[int]] = first_pairs,
    combine: Callable[[Row], Fraction] = mean,
    G: Callable[[Trace], Row] = returns,
) -> F:
    """Combine, for each pair, the returns from the chosen visits; 0 without a visit."""
    found: dict[tuple[int, int], Row] = {}
    for y in x:
        values = G(y.x)
        for t in visits(y):
            found.setdefault(y.pairs[t], []).append(values[t])
    Q = np.zeros((S, A))
    for pair, values in found.items():
        Q[pair] = float(combine(values))
    return Q


def wrong_averages(x: list[Play]) -> Mistakes:
    """Other visits, other averages, other returns."""
    read = {
        FORGETS: [y._replace(x=y.x._replace(discount=[Fraction(d > 0) for d in y.x.discount])) for y in x],
        PAYS_LATE: [y._replace(x=y.x._replace(r=[a * b for a, b in zip(y.x.r, y.x.discount, strict=True)])) for y in x],
        "you average rewards instead of returns": [
            y._replace(x=y.x._replace(discount=[ZERO] * len(y.a))) for y in x
        ],
    }  # fmt: skip
    states = collected([y._replace(a=[0] * len(y.a)) for y in x], lambda y: literal.first_visits(y.x))[:, :1]
    tried = collected(x, combine=lambda G: Fraction(1))
    return [
        (
            "you check whether the state was visited before, not the state with its action",
            collected(x, lambda y: literal.first_visits(y.x)),
        ),
        ("you average over every visit instead of the first one of each episode", collected(x, steps)),
        ("you average over the last visit of each episode instead of the first", collected(x, last_pairs)),
        ("you average over all actions of the state: that is V, not Q", states * tried),
        ("you give untried actions the value of the state", states + np.zeros((S, A))),
        ("you add the returns up without dividing", collected(x, combine=total)),
        ("you keep the last return instead of the average", collected(x, combine=lambda G: G[-1])),
        ("you use the return of the whole episode", collected(x, G=lambda y: [returns(y)[0]] * len(y.r))),
        ("you discount from the start of the episode instead of from t", collected(x, G=from_start)),
        ("you add up the past instead of the future: go through the episode backwards", collected(x, G=past)),
        *((name, collected(y)) for name, y in read.items()),
    ]


def steps(y: Play) -> Iterable[int]:
    """Every step of an episode."""
    return range(len(y.a))


def last_pairs(y: Play) -> Iterable[int]:
    """Steps at which an action is taken in a state for the last time."""
    return [t for t, pair in enumerate(y.pairs) if pair not in y.pairs[t + 1 :]]


def from_start(x: Trace) -> Row:
    """The sum over k >= t of discount[0] … discount[k-1] r[k]."""
    weights = literal.weights(x.discount)
    return [weights[t] * G for t, G in enumerate(returns(x))]


def past(x: Trace) -> Row:
    """Running sums from the start: G = r + gamma G, forwards."""
    gamma, G = max(x.discount), [ZERO]
    for r in x.r:
        G.append(r + gamma * G[-1])
    return G[1:]
