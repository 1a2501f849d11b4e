"""What a user's advantages and targets are given in rows E1.13 and E1.17, and what they must return.

r, discount (T,), v (T+1,) values along an episode; delta TD errors; A (T,) advantages; y (T,) targets; lam in [0, 1].
Everything in fractions.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from tabrl.rational import Row
from tabrl.types import F
from tabrl.verify import literal
from tabrl.verify.cases_td import Answer, answers, continued
from tabrl.verify.estimates import gae
from tabrl.verify.literal import ONE, ZERO, Trace
from tabrl.verify.mistakes import floats
from tabrl.verify.record import Case
from tabrl.verify.recorded import CUT, ENDS, Recording, V, discounts, recordings

LAMBDAS = (0.5, 0.5, 0.75, 0.75, 0.0, 1.0, 0.95, 0.5, 0.5, 0.5, 0.875, 0.5)  # of each episode

FADES = "the TD errors fade with lam alone, without the discount"


class Given(NamedTuple):
    """One call: an episode, its values, lam; read as fractions."""

    x: Trace
    v: Row
    lam: Fraction


def episodes() -> list[tuple[str, tuple[F, F, F, float], Given]]:
    """The recorded episodes, and pairs of episodes in one buffer."""
    found = []
    for x, lam in zip((*recordings(), two(), both_end()), LAMBDAS, strict=True):
        name = f"{x.name.rpartition(',')[0]}, lam {lam:g}"
        given = Given(x.trace, literal.along(x.values, x.trace), Fraction(lam))
        found.append((name, (x.r, x.discount, x.V[x.s], lam), given))
    return found


def two() -> Recording:
    """An episode that ends, and another one behind it; the value after the end is that of the next start."""
    s, r = np.concatenate([ENDS[0][:-1], ENDS[0]]), np.concatenate([ENDS[1], CUT[1]])
    discount = discounts(np.concatenate([ENDS[0], ENDS[0][1:]]), 0.9)
    return Recording("two episodes, one after the other, gamma 0.9, alpha 0", V, s, r, discount, 0.0)


def both_end() -> Recording:
    """The same with an episode behind it that ends as well."""
    s, r = np.concatenate([ENDS[0][:-1], ENDS[0][1:]]), np.concatenate([ENDS[1], ENDS[1][1:]])
    discount = discounts(np.concatenate([ENDS[0], ENDS[0][2:]]), 0.75)
    return Recording("two episodes that end, one after the other, gamma 0.75, alpha 0", V, s, r, discount, 0.0)


def recursion(y: Given, x: Trace, error: Callable[[int], Fraction], follow: Row) -> Row:
    """A[t] = error(t) + follow[t] A[t+1]."""
    A = [ZERO]
    for t in reversed(range(len(x.r))):
        A.insert(0, error(t) + follow[t] * A[0])
    return A[:-1]


def variants(y: Given) -> dict[str, Answer]:
    """Wrong advantages that a wrong target may contain as well."""
    v, lam = y.v, y.lam

    def delta(x: Trace) -> Callable[[int], Fraction]:
        return lambda t: x.r[t] + x.discount[t] * v[t + 1] - v[t]

    return {
        FADES: lambda x: recursion(y, x, delta(x), [lam * c for c in continued(x)]),
        f"{FADES}, and across the end of an episode": lambda x: recursion(y, x, delta(x), [lam] * len(x.r)),
        "the recursion has a constant gamma, not discount[t]: it goes on across the end of an episode": lambda x: (
            recursion(y, x, delta(x), [lam * max(x.discount)] * len(x.r))
        ),
        "a constant gamma but for the last step: an episode may end before it, where discount[t] is 0": lambda x: gae(
            x._replace(discount=[*[max(x.discount)] * (len(x.r) - 1), x.discount[-1]]), v, lam
        ),
        "you leave the discount out altogether, so that no episode ends": lambda x: gae(
            x._replace(discount=[ONE] * len(x.r)), v, lam
        ),
        "you use lam = 0, the TD errors": lambda x: gae(x, v, ZERO),
        "you use lam = 1, returns less v: lam is missing": lambda x: gae(x, v, ONE),
        "lam and 1 - lam are exchanged": lambda x: gae(x, v, 1 - lam),
        "the TD errors are multiplied by 1 - lam": lambda x: [(1 - lam) * A for A in gae(x, v, lam)],
        "v[t] and v[t+1] are exchanged": lambda x: recursion(
            y, x, lambda t: x.r[t] + x.discount[t] * v[t] - v[t + 1], [lam * d for d in x.discount]
        ),
        "v[t+1] is not discounted in the TD error": lambda x: recursion(
            y, x, lambda t: x.r[t] + continued(x)[t] * v[t + 1] - v[t], [lam * d for d in x.discount]
        ),
        "you leave out the value of the next state": lambda x: recursion(
            y, x, lambda t: x.r[t] - v[t], [lam * d for d in x.discount]
        ),
    }


def doubled(y: Given, x: Trace) -> Row:
    """Sums of r + discount v' without -v."""
    return recursion(y, x, lambda t: x.r[t] + x.discount[t] * y.v[t + 1], [y.lam * d for d in x.discount])


def plus(A: Row, v: Row) -> Row:
    """A[t] + v[t]."""
    return [a + b for a, b in zip(A, v, strict=False)]


def minus(A: Row, v: Row) -> Row:
    """A[t] - v[t]."""
    return [a - b for a, b in zip(A, v, strict=False)]


# E1.13


@cache
def advantage_cases() -> list[Case]:
    """E1.13: f(r, discount, v, lam) -> A."""
    return [advantage_case(*x) for x in episodes()]


def advantage_case(name: str, arguments: tuple[F, F, F, float], y: Given) -> Case:
    """One episode; the closed form is the sum of faded TD errors, term by term."""

    def answer(x: Trace) -> Row:
        return gae(x, y.v, y.lam)

    others: dict[str, Answer] = variants(y) | {
        "you return the lambda-returns, A + v": lambda x: plus(answer(x), y.v),
        "the sign is wrong: v less the lambda-return": lambda x: [-A for A in answer(x)],
        "you leave out -v[t] in the TD errors": lambda x: doubled(y, x),
        "you subtract v[t] twice": lambda x: minus(answer(x), y.v),
    }
    return case(name, arguments, y, answer, others)


def case(name: str, arguments: tuple[F, F, F, float], y: Given, answer: Answer, others: dict[str, Answer]) -> Case:
    """What must be returned, and what mistakes return."""
    return Case(
        name, arguments, arguments[0].shape, "t", floats(answer(y.x)), cache(lambda: answers(y.x, answer, others))
    )


# E1.17


@cache
def target_cases() -> list[Case]:
    """E1.17: f(r, discount, v, lam) -> y."""
    return [target_case(*x) for x in episodes()]


def target_case(name: str, arguments: tuple[F, F, F, float], y: Given) -> Case:
    """One episode; the closed form is the weighted sum of n-step returns."""

    def answer(x: Trace) -> Row:
        return [literal.lambda_return(x, y.v, t, y.lam) for t in range(len(x.r))]

    others: dict[str, Answer] = {
        "you return the advantages: v[t] has to be added": lambda x: gae(x, y.v, y.lam),
        "V counts twice: the TD errors must subtract v[t] before it is added": lambda x: plus(doubled(y, x), y.v),
        "you add v[t+1] instead of v[t]": lambda x: plus(gae(x, y.v, y.lam), y.v[1:]),
        "you subtract v[t] instead of adding it": lambda x: minus(gae(x, y.v, y.lam), y.v),
    } | {name: lambda x, f=f: plus(f(x), y.v) for name, f in variants(y).items()}
    return case(name, arguments, y, answer, others)
