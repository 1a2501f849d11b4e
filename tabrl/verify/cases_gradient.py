"""What a user's policy gradients are given in rows E1.10 to E1.12, and what they must return.

theta (S,A) preferences, pi (S,A) their softmax; d (S,) visits, Q (S,A) of pi; s (T+1,), a, r, discount (T,) an episode;
w^t what the score of step t is discounted with. Fractions, but for the softmax of row E1.12.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from typing import TypeAlias

import numpy as np

from tabrl import rational
from tabrl.rational import Row, Tables, dot
from tabrl.types import F, I
from tabrl.verify import literal, mistakes, recorded
from tabrl.verify.cases_td import continued
from tabrl.verify.estimates import returns, whole
from tabrl.verify.literal import ONE, ZERO, Trace
from tabrl.verify.mistakes import FORGETS, PAYS_LATE, Answer, Mistakes, floats
from tabrl.verify.record import Case
from tabrl.verify.softmax_models import Softmax, Table, expected, open_models, theorem, visits

Score: TypeAlias = Callable[[Row, int], Row]  # of a row of pi and the action taken

NO_FADE = "gamma^t is missing: all steps weigh the same (the gradient of discounted J needs it)"
WRONG_SIGN = "the sign is wrong, the gradient of the loss -J"
NO_PI = "the score leaves out -pi(b|s), which every action of the state gets"
OF_PI = "you use the gradient of pi(a|s) instead of that of log pi(a|s)"


def tables(x: Mistakes, shape: tuple[int, ...]) -> Mistakes:
    """Give wrong answers the shape of the right one."""
    return [(name, y.reshape(shape)) for name, y in x]


# E1.10


@cache
def gradient_cases() -> list[Case]:
    """E1.10: f(P, r, gamma, mu, theta) -> gradient of J."""
    return [gradient_case(x) for x in open_models()]


def gradient_case(x: Softmax) -> Case:
    """One model and one softmax policy; the closed form is the policy gradient theorem."""
    m, mu = x.mdp, rational.exact(x.mdp.mu)

    def answer(t: Tables) -> Row:
        return pack(theorem(t, x.weight, mu))

    others: dict[str, Answer] = {
        WRONG_SIGN: lambda t: [-y for y in pack(x.gradient)],
        **wrong_visits(x, mu),
        **wrong_tables(x, mu),
        "you return the advantage (the natural gradient)": lambda t: pack(x.advantage),
        "you use the reward instead of Q": lambda t: pack(expected(x.d, x.weight, t.r)),
    }
    P = m.rows.reshape(m.S, m.A, m.S)
    return Case(
        x.name, (P, m.r, m.gamma, m.mu, x.theta), (m.S, m.A), "s", np.array(x.gradient, np.float64),
        cache(lambda: tables(mistakes.answers(x.t, answer, others), (m.S, m.A))),
    )  # fmt: skip


def wrong_visits(x: Softmax, mu: Row) -> dict[str, Answer]:
    """The theorem with other weights of the states."""
    S, w = x.mdp.S, x.weight
    found: dict[str, Callable[[Tables], Row]] = {
        "you weigh states by mu instead of the visits d": lambda t: mu,
        "you leave out the visits d(s)": lambda t: [ONE] * S,
        NO_FADE: lambda t: visits(t, w, mu, ONE),
        "you multiply the visits by 1 - gamma (they are not normalised here)": lambda t: [
            (1 - t.gamma) * y for y in x.d
        ],
        "you divide the visits by their sum (they are not normalised here)": lambda t: [y / sum(x.d) for y in x.d],
        "you start in every state alike instead of from mu": lambda t: visits(t, w, [Fraction(1, S)] * S),
    }

    def answer(d: Callable[[Tables], Row]) -> Answer:
        return lambda t: pack(expected(d(t), w, action_values(t, w)))

    return {name: answer(d) for name, d in found.items()}


def wrong_tables(x: Softmax, mu: Row) -> dict[str, Answer]:
    """Visits times something else; p and q are a state's rows of pi and Q."""
    w = x.weight
    found: dict[str, Callable[[Row, Row], Row]] = {
        "you leave out pi(a|s)": lambda p, q: [y - dot(p, q) for y in q],
        NO_PI: lambda p, q: [a * y for a, y in zip(p, q, strict=True)],
        "you take the gradient with respect to pi, not theta": lambda p, q: q,
    }

    def answer(f: Callable[[Row, Row], Row], t: Tables) -> Row:
        rows = zip(visits(t, w, mu), w, action_values(t, w), strict=True)
        return [n * y for n, p, q in rows for y in f(p, q)]

    return {name: partial(answer, f) for name, f in found.items()}


def action_values(t: Tables, pi: Table) -> Table:
    """Q of a policy."""
    return rational.action_values(t, rational.policy_values(t, pi))


def pack(x: Table) -> Row:
    """Write the rows of a table one after the other."""
    return [y for row in x for y in row]


# episodes with actions

PI = np.array([[0.25, 0.75], [0.625, 0.375], [0.5, 0.5], [0.875, 0.125], [0.5, 0.5]])
ACTIONS = np.array([0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0, 1])


def actions(s: I) -> I:
    """Take as many of the written-out actions as there are steps."""
    return ACTIONS[: len(s) - 1]


# E1.11


@cache
def reinforce_cases() -> list[Case]:
    """E1.11: f(pi, s, a, r, discount, baseline) -> estimate of the gradient of J from one episode."""
    rooms = ("0112", "01020", "3", "2210", "00120133")
    b = np.array([0.5, -1.0, 2.0, 0.25, 3.0])
    found = [reinforce_case(f"rooms {x}, gamma {g:g}", x, g, b) for x in rooms for g in (0.9, 1.0)]
    return [*found, reinforce_case("rooms 0102, no baseline, gamma 0.9", "0102", 0.9, np.zeros(5))]


def reinforce_case(name: str, rooms: str, g: float, b: F) -> Case:
    """One whole episode; the closed form is the sum of scores times returns."""
    s, r, discount = recorded.written([rooms], g)[0]
    x, a, gamma = literal.read(s, r, discount), actions(s), Fraction(g)
    exact = score_sum(x, a, returns(rational.exact(b))(x), gamma)
    return Case(
        name, (PI, s, a, r, discount, b), PI.shape, "s", floats(exact).reshape(PI.shape),
        cache(lambda: tables([(n, floats(y)) for n, y in wrong_estimates(x, a, b, gamma).items()], PI.shape)),
    )  # fmt: skip


def softmax_score(p: Row, a: int) -> Row:
    """1{a=b} - p[b]."""
    return [(a == b) - y for b, y in enumerate(p)]


def score_sum(x: Trace, a: I, G: Row, w: Fraction, score: Score = softmax_score) -> Row:
    """The sum of w^t psi_t G[t], its table written in one row."""
    pi = rational.exact(PI)
    g = [[ZERO] * PI.shape[1] for _ in PI]
    for t, y in enumerate(G):
        psi = score(pi[x.s[t]], int(a[t]))
        g[x.s[t]] = [z + w**t * p * y for z, p in zip(g[x.s[t]], psi, strict=True)]
    return pack(g)


def wrong_estimates(x: Trace, a: I, baseline: F, gamma: Fraction) -> dict[str, Row]:
    """Other weights of the steps, other scores, other returns."""
    b: Row = rational.exact(baseline)
    T, right = len(x.r), score_sum(x, a, returns(b)(x), gamma)
    undiscounted = returns(b)(x._replace(discount=continued(x)))
    return {
        NO_FADE: score_sum(x, a, returns(b)(x), ONE),
        "the first step weighs gamma instead of 1": [gamma * y for y in right],
        **{name: score_sum(x, a, returns(b)(x), gamma, score) for name, score in wrong_scores().items()},
        "you take the mean over the steps instead of the sum": [y / T for y in right],
        WRONG_SIGN: [-y for y in right],
        **{name: score_sum(x, a, G, gamma) for name, G in wrong_returns(x, b).items()},
        "the mean of the scores is multiplied by the sum of the rewards": [
            y / T for y in score_sum(x, a, [sum(x.r, ZERO)] * T, ONE)
        ],
        "the baseline depends on the action: b(a[t]) instead of b(s[t])": score_sum(
            x, a, [G - b[k] for G, k in zip(returns()(x), a.tolist(), strict=True)], gamma
        ),
        FORGETS: score_sum(x, a, undiscounted, ONE),
        "only the scores are discounted, the returns are not": score_sum(x, a, undiscounted, gamma),
    }


def wrong_scores() -> dict[str, Score]:
    """Of a row of pi and the action taken."""

    def taken(p: Row, a: int) -> Row:
        return [Fraction(a == b) for b in range(len(p))]

    return {
        NO_PI: taken,
        "you use 1/pi(a|s), the gradient of log pi with respect to pi": lambda p, a: [y / p[a] for y in taken(p, a)],
        OF_PI: lambda p, a: [p[a] * y for y in softmax_score(p, a)],
    }


def wrong_returns(x: Trace, b: Row) -> dict[str, Row]:
    """What may stand in the place of G[t] - b(s[t])."""
    G, go = returns()(x), returns(b)
    late_rewards = x._replace(r=[r * d for r, d in zip(x.r, x.discount, strict=True)])
    return {
        "you leave out the baseline": G,
        "you use the baseline of the next state": [y - b[s] for y, s in zip(G, x.s[1:], strict=True)],
        "you add the baseline instead of subtracting it": returns([-y for y in b])(x),
        "you use the return of the whole episode, not from t on": whole(b)(x),
        "you use the return of the whole episode, each step with its own baseline": [G[0] - b[s] for s in x.s[:-1]],
        "you use the reward instead of the return": go(x._replace(discount=[ZERO] * len(G))),
        PAYS_LATE: go(late_rewards),
        "the return leaves out the first reward": late(x, b),
        "you count the first visit of each state only": [
            y if t in literal.first_visits(x) else ZERO for t, y in enumerate(go(x))
        ],
    }


def late(x: Trace, b: Row) -> Row:
    """Returns from the next step on, discounted by one step."""
    G = [*returns()(x), ZERO]
    return [d * y - b[s] for d, y, s in zip(x.discount, G[1:], x.s, strict=False)]
