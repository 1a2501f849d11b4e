"""What a user's temporal-difference functions are given in rows E1.7 to E1.9, and what they must return.

V (S,) values, v (T+1,) along an episode; s (T+1,) states; r, discount (T,); alpha step size; n steps; lam in [0, 1].
Everything in fractions.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache
from typing import TypeAlias

from tabrl.rational import Row
from tabrl.verify import literal
from tabrl.verify.literal import ZERO, Trace, moved
from tabrl.verify.mistakes import FORGETS, PAYS_LATE, Mistakes, floats
from tabrl.verify.record import Case
from tabrl.verify.recorded import Recording, recordings
from tabrl.verify.wrong_updates import next_moved, one_step, read_late, residual

Answer: TypeAlias = Callable[[Trace], Row]
Target: TypeAlias = Callable[[Trace, Row, int], Fraction]  # of step t, from the values V

BOOTSTRAPS = "you use the value of a terminal state (discount is 0 there: nothing follows)"
STOPS = "you treat a time limit as an end (the discount is not 0 there: the value of the last state counts)"


def misread(x: Trace) -> dict[str, Trace]:
    """Episodes that differ from x as a misreading of its arrays would."""
    return {
        FORGETS: x._replace(discount=continued(x)),
        BOOTSTRAPS: x._replace(discount=[max(x.discount)] * len(x.r)),
        STOPS: x._replace(discount=[*x.discount[:-1], ZERO]),
        PAYS_LATE: x._replace(r=[r * d for r, d in zip(x.r, x.discount, strict=True)]),
        "you use the discount of the next step": x._replace(discount=[*x.discount[1:], ZERO]),
    }


def continued(x: Trace) -> Row:
    """1 where the episode goes on, 0 at its end."""
    return [Fraction(d > 0) for d in x.discount]


def answers(x: Trace, answer: Answer, others: dict[str, Answer]) -> Mistakes:
    """Wrong answers to an episode, and right answers to the misread one."""
    wrong = [(name, answer(y)) for name, y in misread(x).items()]
    wrong[3:3] = [(name, other(x)) for name, other in others.items()]  # what explains most comes first
    return [(name, floats(y)) for name, y in wrong]


def passes(V: Row, alpha: Fraction, target: Target) -> dict[str, Answer]:
    """What goes wrong in a pass over an episode, whatever V(s[t]) moves towards."""

    def towards(x: Trace, step: Fraction = alpha, order: Iterable[int] | None = None) -> Row:
        return moved(x, V, step, lambda now, t: target(x, now, t), order)

    def frozen(x: Trace) -> Row:
        return moved(x, V, alpha, lambda _, t: target(x, V, t))

    def whole(x: Trace) -> Row:
        return moved(x, V, alpha, lambda now, t: target(x, now, t) + now[x.s[t]])

    return {
        "all targets use the values from before the episode; each update sees the ones before it": frozen,
        "you multiply by alpha twice": lambda x: towards(x, alpha**2),
        "you replace V(s) by its target, as if alpha were 1": lambda x: towards(x, Fraction(1)),
        "you add alpha times the target without subtracting V(s)": whole,
        "you go through the episode backwards": lambda x: towards(x, order=reversed(range(len(x.r)))),
        "you leave out the last step": lambda x: towards(x, order=range(len(x.r) - 1)),
        "the sign of delta is wrong: V(s) moves away from its target": lambda x: towards(x, -alpha),
    }


# E1.7


@cache
def td_cases() -> list[Case]:
    """E1.7: f(V, s, r, discount, alpha) -> V."""
    return [td_case(x) for x in recordings()]


def td_case(x: Recording) -> Case:
    """One pass over one episode; the closed form is the literal loop."""
    V, alpha = x.values, Fraction(x.alpha)
    others: dict[str, Answer] = passes(V, alpha, one_step) | {
        "you move towards the return (Monte Carlo)": lambda y: literal.n_step_td(y, V, alpha, len(y.r)),
        "you move the next state as well (the gradient of the squared error); only V(s[t]) moves": lambda y: residual(
            y, V, alpha
        ),
        "you move the state that is reached instead of the one that is left": lambda y: next_moved(y, V, alpha),
        "V(s) and V(s') are read from before the episode; a later visit to s does not see an earlier one": lambda y: (
            literal.sweep([y], V, alpha, one_step)
        ),
        "each visit starts from V(s) before the episode: only the last one counts": lambda y: restarted(y, V, alpha),
        "the target is not multiplied by alpha: (1 - alpha) V(s) + target": lambda y: unscaled(y, V, alpha),
        "V(s') is read after V(s) has moved: it matters where s' is s": lambda y: read_late(y, V, alpha),
    }
    return Case(
        x.name, (x.V, x.s, x.r, x.discount, x.alpha), (len(V),), "s", floats(literal.td0(x.trace, V, alpha)),
        cache(lambda: answers(x.trace, lambda y: literal.td0(y, V, alpha), others)),
    )  # fmt: skip


def unscaled(x: Trace, V: Row, alpha: Fraction) -> Row:
    """V(s[t]) <- (1 - alpha) V(s[t]) + target."""
    V = list(V)
    for t in range(len(x.r)):
        V[x.s[t]] = (1 - alpha) * V[x.s[t]] + one_step(x, V, t)
    return V


def restarted(x: Trace, V: Row, alpha: Fraction) -> Row:
    """V(s[t]) becomes V(s[t]) as it was plus alpha times its TD error, each time."""
    found = {s: V[s] + alpha * (one_step(x, V, t) - V[s]) for t, s in enumerate(x.s[:-1])}
    return [found.get(s, v) for s, v in enumerate(V)]


# E1.8

STEPS = (2, 2, 3, 3, 1, 4, 5, 3, 2, 2)  # of each recording


@cache
def n_step_cases() -> list[Case]:
    """E1.8: f(V, s, r, discount, alpha, n) -> V."""
    found = [n_step_case(x, n) for x, n in zip(recordings(), STEPS, strict=True)]
    return [*found, *(n_step_case(x, 20) for x in recordings()[:2])]


def n_step_case(x: Recording, n: int) -> Case:
    """One pass over one episode; the closed form is the literal loop."""
    V, alpha = x.values, Fraction(x.alpha)

    def n_steps(n: int) -> Target:
        return lambda y, now, t: literal.n_step_return(y, literal.along(now, y), t, n)

    def towards(target: Target) -> Answer:
        return lambda y: moved(y, V, alpha, lambda now, t: target(y, now, t))

    others: dict[str, Answer] = passes(V, alpha, n_steps(n)) | {
        "you take n + 1 steps": towards(n_steps(n + 1)),
        "you take n - 1 steps": towards(n_steps(max(n - 1, 1))),
        "you take one step, whatever n": towards(n_steps(1)),
        "you take all steps, whatever n": towards(n_steps(len(x.r))),
        "the last n - 1 states are not updated": lambda y: moved(
            y, V, alpha, lambda now, t: n_steps(n)(y, now, t), range(len(y.r) - n + 1)
        ),
        "you leave out the value of the state n steps on": towards(lambda y, now, t: valued(y, now, t, n, 0)),
        "the value of the state n steps on is discounted once, not n times": towards(
            lambda y, now, t: valued(y, now, t, n, y.discount[min(t + n, len(y.r)) - 1])
        ),
        "the value of the state n steps on is not discounted": towards(lambda y, now, t: valued(y, now, t, n, 1)),
        "the value of the state n steps on is discounted n - 1 times, not n": towards(
            lambda y, now, t: valued(y, now, t, n, powered(y, t, n, -1))
        ),
        "the value of the state n steps on is discounted n + 1 times, not n": towards(
            lambda y, now, t: valued(y, now, t, n, powered(y, t, n, 1))
        ),
        "rewards within the n steps are not discounted": towards(lambda y, now, t: undiscounted(y, now, t, n)),
    }
    return Case(
        f"{x.name}, n = {n}", (x.V, x.s, x.r, x.discount, x.alpha, n), (len(V),), "s",
        floats(literal.n_step_td(x.trace, V, alpha, n)),
        cache(lambda: answers(x.trace, towards(n_steps(n)), others)),
    )  # fmt: skip


def valued(x: Trace, V: Row, t: int, n: int, weight: Fraction | int) -> Fraction:
    """Sum n discounted rewards and the value of the state that follows, with another weight."""
    h = min(t + n, len(x.r))
    rewards = literal.n_step_return(x, [ZERO] * len(x.s), t, n)
    return rewards + weight * V[x.s[h]]


def powered(x: Trace, t: int, n: int, more: int) -> Fraction:
    """Gamma^(steps + more), and 0 at the end of the episode."""
    h = min(t + n, len(x.r))
    return max(x.discount) ** (h - t + more) if x.discount[h - 1] else ZERO


def undiscounted(x: Trace, V: Row, t: int, n: int) -> Fraction:
    """Sum n rewards as they are and the discounted value of the state that follows."""
    h = min(t + n, len(x.r))
    return sum(x.r[t:h], ZERO) + literal.weights(x.discount[t:h])[-1] * V[x.s[h]]


# E1.9

LAMBDAS = (0.5, 0.5, 0.75, 0.75, 0.0, 1.0, 0.9, 0.5, 0.5, 0.5)  # of each recording


@cache
def lambda_cases() -> list[Case]:
    """E1.9: f(r, discount, v, lam) -> G."""
    return [lambda_case(x, lam) for x, lam in zip(recordings(), LAMBDAS, strict=True)]


def lambda_case(x: Recording, lam: float) -> Case:
    """One episode; the closed form is the weighted sum of n-step returns."""
    y, v = Fraction(lam), literal.along(x.values, x.trace)

    def answer(z: Trace) -> Row:
        return [literal.lambda_return(z, v, t, y) for t in range(len(z.r))]

    def weighted(weight: Callable[[int, int], Fraction]) -> Answer:
        """The sum over n of weight(n, steps left) times the n-step return."""
        return lambda z: [
            sum((weight(n, T - t) * literal.n_step_return(z, v, t, n) for n in range(1, T - t + 1)), ZERO)
            for T in [len(z.r)]
            for t in range(T)
        ]

    def last(n: int, left: int) -> Fraction:
        return literal.lambda_weights(y, left)[n - 1]

    others: dict[str, Answer] = {
        "the last weight is (1 - lam) lam^(T-t-1), so the weights do not add up to 1": weighted(
            lambda n, left: (1 - y) * y ** (n - 1)
        ),
        "you leave out the factor 1 - lam of the weights": weighted(
            lambda n, left: y ** (n - 1)
        ),
        "the last return, that of all steps, is left out: its weight is lam^(T-t-1)": weighted(
            lambda n, left: last(n, left) if n < left else ZERO
        ),
        "the weights start with lam instead of 1": weighted(lambda n, left: y * last(n, left)),
        "lam and 1 - lam are exchanged": lambda z: literal.recursive_lambda_returns(z, v, 1 - y),
        "you use lam = 0, the one-step targets": lambda z: literal.recursive_lambda_returns(z, v, Fraction(0)),
        "you use lam = 1, the Monte Carlo returns": lambda z: literal.recursive_lambda_returns(z, v, Fraction(1)),
        "you use v[t] instead of v[t+1]": lambda z: backwards(z, [ZERO, *v[:-1]], y, z.discount, tail=v[-1]),
        "you return the advantages G - v": lambda z: [a - b for a, b in zip(answer(z), v, strict=False)],
        "the return that follows is not discounted": lambda z: backwards(z, v, y, continued(z)),
        "the recursion starts from 0 instead of v[T]": lambda z: backwards(z, v, y, z.discount, tail=ZERO),
        "you leave out the values and keep the recursion": lambda z: literal.recursive_lambda_returns(
            z, [ZERO] * len(v), y
        ),
    }  # fmt: skip
    return Case(
        f"{x.name.rpartition(',')[0]}, lam {lam:g}", (x.r, x.discount, x.V[x.s], lam), x.r.shape, "t",
        floats(answer(x.trace)), cache(lambda: answers(x.trace, answer, others)),
    )  # fmt: skip


def backwards(x: Trace, v: Row, lam: Fraction, follow: Row, tail: Fraction | None = None) -> Row:
    """G[t] = r[t] + discount[t] (1 - lam) v[t+1] + follow[t] lam G[t+1], from another end."""
    G = [v[-1] if tail is None else tail]
    for t in reversed(range(len(x.r))):
        G.insert(0, x.r[t] + x.discount[t] * (1 - lam) * v[t + 1] + follow[t] * lam * G[0])
    return G[:-1]
