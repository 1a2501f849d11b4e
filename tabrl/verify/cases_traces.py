"""What a user's TD(lambda) is given (row E1.9), and what it must return.

V (S,) values; s (T+1,) states; r, discount (T,) of one or two episodes; z (S,) traces. Everything in fractions.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from tabrl.rational import Row
from tabrl.verify import literal
from tabrl.verify.cases_td import misread
from tabrl.verify.literal import ONE, ZERO, Trace
from tabrl.verify.mistakes import Mistakes, floats
from tabrl.verify.record import Case
from tabrl.verify.recorded import CUT, ENDS, Recording, V, discounts, recordings

LAMBDAS = (0.5, 0.5, 0.75, 0.75, 0.0, 1.0, 0.875, 0.5, 0.5, 0.5, 0.75, 0.5)  # of each episode


def two(gamma: float, alpha: float) -> Recording:
    """An episode that ends, and another one behind it, whose start stands where the end stood."""
    s, r = np.concatenate([ENDS[0][:-1], CUT[0]]), np.concatenate([ENDS[1], CUT[1]])
    discount = np.concatenate([discounts(ENDS[0], gamma), discounts(CUT[0], gamma)])
    return Recording(f"two episodes, one after the other, gamma {gamma:g}, alpha {alpha:g}", V, s, r, discount, alpha)


@cache
def trace_cases() -> list[Case]:
    """E1.9: f(V, s, r, discount, alpha, lam) -> V."""
    every = (*recordings(), two(0.9, 0.25), two(1.0, 0.5))
    return [trace_case(x, lam) for x, lam in zip(every, LAMBDAS, strict=True)]


class Rules(NamedTuple):
    """TD(lambda) with accumulating traces, and what may be done otherwise."""

    meet: Callable[[Fraction], Fraction] = lambda z: z + 1  # the trace of the state that is left
    lam: Fraction = ONE  # factors of the fading
    fade: Callable[[Trace, int], Fraction] = lambda x, t: x.discount[t]
    first: bool = False  # traces fade before the values move
    alone: bool = False  # only the value of the state that is left moves
    frozen: bool = False  # TD errors from the values before the episode
    sign: int = 1


def swept(x: Trace, V: Row, alpha: Fraction, rules: Rules) -> Row:
    """One pass under these rules."""
    start, V, z = V, list(V), [ZERO] * len(V)
    for t, (s, s_next) in enumerate(zip(x.s, x.s[1:], strict=False)):
        now = start if rules.frozen else V
        delta = rules.sign * (x.r[t] + x.discount[t] * now[s_next] - now[s])
        z[s] = rules.meet(z[s])
        faded = [rules.fade(x, t) * rules.lam * y for y in z]
        moved = faded if rules.first else [y * (k == s) for k, y in enumerate(z)] if rules.alone else z
        V = [v + alpha * delta * y for v, y in zip(V, moved, strict=True)]
        z = faded
    return V


def goes_on(x: Trace, t: int) -> Fraction:
    """1, and 0 at the end of an episode."""
    return Fraction(x.discount[t] > 0)


def trace_case(x: Recording, lam: float) -> Case:
    """One pass over one buffer; the closed form is the literal loop."""
    start, alpha, y = x.values, Fraction(x.alpha), Fraction(lam)
    exact = floats(literal.td_lambda(x.trace, start, alpha, y, "accumulating"))
    name = f"{x.name}, lam {lam:g}"
    return Case(
        name, (x.V, x.s, x.r, x.discount, x.alpha, lam), (len(start),), "s", exact,
        cache(lambda: wrong_passes(x.trace, start, alpha, y)),
    )  # fmt: skip


def wrong_passes(x: Trace, V: Row, alpha: Fraction, lam: Fraction) -> Mistakes:
    """Other traces, and other readings of the episode."""
    right, top = Rules(lam=lam), max(x.discount)
    rules = {
        "traces run on into the next episode: they start from 0 there": right._replace(fade=lambda y, t: top),
        "traces fade with lam alone, without the discount": right._replace(fade=goes_on),
        "traces fade with the discount alone, without lam": right._replace(lam=ONE),
        "traces do not fade at all": right._replace(fade=lambda y, t: ONE, lam=ONE),
        "lam and 1 - lam are exchanged": right._replace(lam=1 - lam),
        "a trace is set to 1 instead of growing by 1 (replacing traces)": right._replace(meet=lambda z: ONE),
        "a trace grows by 1 - alpha z instead of 1 (dutch traces)": right._replace(meet=lambda z: z + 1 - alpha * z),
        "only the state that is left moves: every state moves with its trace": right._replace(alone=True),
        "there is no trace: TD(0)": right._replace(lam=ZERO),
        "traces fade before the values move": right._replace(first=True),
        "all TD errors use the values from before the episode": right._replace(frozen=True),
        "the sign of delta is wrong: target less value": right._replace(sign=-1),
    }
    read = misread(x)
    read.pop("you use the discount of the next step")
    wrong = [
        *((name, swept(x, V, alpha, y)) for name, y in rules.items()),
        *((name, literal.td_lambda(y, V, alpha, lam, "accumulating")) for name, y in read.items()),
        ("you multiply by alpha twice", literal.td_lambda(x, V, alpha**2, lam, "accumulating")),
    ]
    return [(name, floats(y)) for name, y in wrong]
