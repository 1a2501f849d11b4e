"""What a user's Q-learning is given (row E1.5 learned from samples), and what it must return.

Q (S,A) action values; s (T+1,) states; a, r, discount (T,) an episode; alpha step size. Everything in fractions.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import TypeAlias

import numpy as np

from tabrl import rational
from tabrl.rational import Row
from tabrl.types import F
from tabrl.verify.cases_gradient import actions
from tabrl.verify.cases_td import misread
from tabrl.verify.literal import Trace
from tabrl.verify.mistakes import Mistakes
from tabrl.verify.record import Case
from tabrl.verify.recorded import Recording, recordings

Table: TypeAlias = list[Row]
Next: TypeAlias = Callable[[Table, int], Fraction]  # value of what follows step t

Q = np.array([[1.0, -0.5], [0.5, 2.0], [-1.0, 0.25], [3.0, 0.0], [8.0, 4.0]])  # not 0 in the terminal state


@cache
def q_cases() -> list[Case]:
    """E1.5: f(Q, s, a, r, discount, alpha) -> Q."""
    return [q_case(x) for x in recordings()]


def q_case(x: Recording) -> Case:
    """One pass over one episode; the closed form is the literal loop."""
    a, alpha = actions(x.s), Fraction(x.alpha)
    table, y, choice = rational.exact(Q), x.trace, a.tolist()
    exact = one_pass(y, choice, table, alpha, best_next(y))
    arguments = Q, x.s, a, x.r, x.discount, x.alpha
    return Case(x.name, arguments, Q.shape, "s", exact, cache(lambda: wrong_passes(y, choice, table, alpha)))


def best_next(x: Trace) -> Next:
    """The largest action value of the next state."""
    return lambda now, t: max(now[x.s[t + 1]])


def one_pass(
    x: Trace, a: list[int], start: Table, alpha: Fraction, value: Next, *, old: bool = False, backwards: bool = False,
    sign: int = 1,
) -> F:  # fmt: skip
    """Q(s,a) <- Q(s,a) + alpha (r + discount value - Q(s,a)), step after step."""
    now = [list(row) for row in start]
    order = range(len(x.r))
    for t in reversed(order) if backwards else order:
        seen = start if old else now
        delta = x.r[t] + x.discount[t] * value(seen, t) - seen[x.s[t]][a[t]]
        now[x.s[t]][a[t]] += sign * alpha * delta
    return np.array(now, np.float64)


def wrong_passes(x: Trace, a: list[int], start: Table, alpha: Fraction) -> Mistakes:
    """Other values of the next state, other orders, other readings of the episode."""
    best = best_next(x)

    def taken(now: Table, t: int) -> Fraction:
        """The action that is taken next; the greedy one at the end, where none is."""
        return now[x.s[t + 1]][a[t + 1]] if t + 1 < len(a) else best(now, t)

    values: dict[str, Next] = {
        "you use the action that is taken next instead of the best one (SARSA)": taken,
        "you use the mean over the next actions instead of the largest": lambda now, t: (
            sum(now[x.s[t + 1]], Fraction()) / len(now[0])
        ),
        "you keep the action: Q(s',a) instead of the largest Q(s',b)": lambda now, t: now[x.s[t + 1]][a[t]],
        "the maximum is that of the state that is left, not of the next one": lambda now, t: max(now[x.s[t]]),
        "the maximum is over the whole table, not over the next state's actions": lambda now, t: max(map(max, now)),
        "you take the smallest action value instead of the largest": lambda now, t: min(now[x.s[t + 1]]),
        "you leave out the value of the next state": lambda now, t: Fraction(),
    }
    return [
        *((name, one_pass(x, a, start, alpha, value)) for name, value in values.items()),
        ("the sign of delta is wrong: target less value", one_pass(x, a, start, alpha, best, sign=-1)),
        ("you replace Q(s,a) by its target, as if alpha were 1", one_pass(x, a, start, Fraction(1), best)),
        ("you multiply by alpha twice", one_pass(x, a, start, alpha**2, best)),
        ("all targets use the values from before the episode", one_pass(x, a, start, alpha, best, old=True)),
        ("you go through the episode backwards", one_pass(x, a, start, alpha, best, backwards=True)),
        *((name, one_pass(y, a, start, alpha, best_next(y))) for name, y in misread(x).items()),
    ]
