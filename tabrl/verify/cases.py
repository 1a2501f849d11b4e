"""What a user's function is given in each row, and what it must return.

t the exact tables of a model (see `tabrl.rational`); pi (S,A); V (S,). Everything is computed in fractions.
"""

from fractions import Fraction
from functools import cache

import numpy as np

from tabrl import rational
from tabrl.rational import Row, Tables
from tabrl.types import F
from tabrl.verify.mistakes import (
    FORGETS,
    PAYS_LATE,
    Answer,
    Mistakes,
    answers,
    backup,
    best_backup,
    chosen,
    finite,
    floats,
    in_place,
    policy_values,
    scaled,
    stopped_early,
    undiscounted_policy,
    uniform,
    value_of,
    worst,
)
from tabrl.verify.models import Instance, instances
from tabrl.verify.record import Case
from tabrl.verify.wrong_models import wrong_maxima, wrong_rewards


@cache
def evaluation_cases() -> list[Case]:
    """E1.2: f(P, r, gamma, pi) -> V_pi."""

    def case(x: Instance) -> Case:
        def answer(t: Tables) -> Row:
            return rational.policy_values(t, x.pi)

        others: dict[str, Answer] = {
            "you use equal weights instead of pi": value_of(uniform),
            "you take the best action instead of the average over pi": rational.best_values,
            PAYS_LATE: scaled(answer),
            **wrong_rewards(x, answer),
        }
        P, r, gamma = x.arrays
        return Case(
            x.name, (P, r, gamma, x.pi), (x.mdp.S,), "s", floats(x.V_pi),
            cache(lambda: answers(x.tables, answer, others)),
            remark=stopped_early(x, x.V_pi, lambda V: backup(x.tables, x.pi, V)),
        )  # fmt: skip

    return [case(x) for x in instances()]


@cache
def backup_cases() -> list[Case]:
    """E1.3: f(P, r, gamma, pi, V) -> T_pi V."""

    def case(x: Instance) -> Case:
        V = rational.exact(x.V)

        def answer(t: Tables) -> Row:
            return backup(t, x.pi, V)

        others: dict[str, Answer] = {
            "you use equal weights instead of pi": lambda t: backup(t, uniform(t), V),
            "you take the best action instead of the average over pi": lambda t: best_backup(t, V),
            "you use new values within the sweep (in place); T_pi V needs the old ones": lambda t: in_place(t, x.pi, V),
            "you return V_pi, the fixed point, instead of one backup": lambda t: x.V_pi,
            PAYS_LATE: lambda t: [t.gamma * y for y in backup(t._replace(gamma=Fraction(1)), x.pi, V)],
            **wrong_rewards(x, answer),
        }
        P, r, gamma = x.arrays
        expected = floats(answer(x.tables))
        return Case(
            x.name,
            (P, r, gamma, x.pi, x.V),
            (x.mdp.S,),
            "s",
            expected,
            cache(lambda: answers(x.tables, answer, others)),
        )

    return [case(x) for x in instances()]


@cache
def policy_cases() -> list[Case]:
    """E1.4: f(P, r, gamma) -> an optimal policy, judged on its exact values."""

    def case(x: Instance) -> Case:
        greedy: Answer = value_of(lambda t: chosen(t, [Fraction()] * len(t.P)))
        others: dict[str, Answer] = {
            "the policy is greedy for the immediate reward (gamma = 0)": greedy,
            "you take the smallest action value instead of the largest": worst,
            "it is the policy with equal weights": value_of(uniform),
            "it is greedy for the values of the policy with equal weights (one improvement, not the last)": value_of(
                lambda t: chosen(t, policy_values(t, uniform(t)))
            ),
            FORGETS: lambda t: policy_values(t, undiscounted_policy(t._replace(gamma=Fraction(1)))),
            "the maximum is over V of the next states: the reward of the action is left out of Q": value_of(
                lambda t: chosen(t._replace(r=[[Fraction()] * len(row) for row in t.r], gamma=Fraction(1)), x.V_star)
            ),
        }

        def measure(pi: F) -> F:
            return floats(rational.policy_values(x.tables, checked(pi)))

        @cache
        def mistakes() -> Mistakes:
            return finite([(name, f, x.tables) for name, f in others.items()])

        return Case(x.name, x.arrays, (x.mdp.S, x.mdp.A), "s", floats(x.V_star), mistakes, measure)

    return [case(x) for x in instances()]


@cache
def optimal_cases() -> list[Case]:
    """E1.5: f(P, r, gamma) -> V*."""

    def case(x: Instance) -> Case:
        others: dict[str, Answer] = {
            "you use the mean over actions instead of the max": value_of(uniform),
            "you take the smallest action value instead of the largest": worst,
            "you stop after two sweeps": lambda t: best_backup(t, best_backup(t, [Fraction()] * len(t.P))),
            PAYS_LATE: scaled(rational.best_values),
        }
        return Case(
            x.name, x.arrays, (x.mdp.S,), "s", floats(x.V_star),
            cache(lambda: [*answers(x.tables, rational.best_values, others), *wrong_maxima(*x.arrays)]),
            remark=stopped_early(x, x.V_star, lambda V: best_backup(x.tables, V)),
        )  # fmt: skip

    return [case(x) for x in instances()]


def checked(pi: F) -> F:
    """Refuse a policy whose rows are not distributions, naming the row."""
    for s, row in enumerate(pi):
        if (row < 0).any() or abs(row.sum() - 1) > 1e-9:
            raise ValueError(f"pi[s={s}] is {row.tolist()}; a distribution over actions (one-hot or mixed) is expected")
    return pi


@cache
def return_cases() -> list[Case]:
    """E1.1: f(r, discount) -> G."""
    r = np.array([1.0, -2.0, 0.5, 3.0, 0.0, 4.0])
    end = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    both = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    mixed = np.array([0.5, 0.9, 1.0, 0.25, 0.0, 0.75])
    episodes = {
        "an episode that ends, gamma 0.9": (r, 0.9 * end),
        "an episode that ends, gamma 1": (r, end),
        "an episode cut by a time limit, gamma 0.9": (r, np.full(6, 0.9)),
        "gamma 0": (r, np.zeros(6)),
        "two episodes, one after the other, gamma 0.9": (r, 0.9 * both),
        "a discount that varies": (r, mixed),
        "a single step": (r[:1], end[-1:]),
    }
    return [return_case(name, *arrays) for name, arrays in episodes.items()]


def return_case(name: str, r: F, discount: F) -> Case:
    """One episode; the closed form is the double sum over t and k."""
    x, d = rational.exact(r), rational.exact(discount)
    g = max(d)
    shifted = [*d[1:], Fraction()]
    tried = {
        FORGETS: hand_sums(x, [Fraction(1)] * len(x)),
        "you go on across the end of an episode (discount is 0 there)": hand_sums(x, [g] * len(x)),
        PAYS_LATE: hand_sums([a * b for a, b in zip(x, d, strict=True)], d),
        "you use the discount of the next step": hand_sums(x, shifted),
        "you add up the past instead of the future": hand_sums(x[::-1], d[::-1])[::-1],
        "you discount from the start of the episode instead of from t": from_start(x, d),
        "you leave out what comes after the first reward": x,
    }
    wrong = [(mistake, floats(y)) for mistake, y in tried.items()]
    return Case(name, (r, discount), r.shape, "t", floats(hand_sums(x, d)), lambda: wrong)


def hand_sums(r: Row, discount: Row) -> Row:
    """G[t] as the sum over k >= t of discount[t] … discount[k-1] r[k], term by term.

    >>> [int(g) for g in hand_sums([Fraction(1), Fraction(2)], [Fraction(3), Fraction(0)])]
    [7, 2]
    """
    G = []
    for t in range(len(r)):
        weights = [Fraction(1)]
        for k in range(t, len(r) - 1):
            weights.append(weights[-1] * discount[k])
        G.append(rational.dot(weights, r[t:]))
    return G


def from_start(r: Row, discount: Row) -> Row:
    """The sum over k >= t of discount[0] … discount[k-1] r[k]."""
    weights = [Fraction(1)]
    for d in discount[:-1]:
        weights.append(weights[-1] * d)
    return [rational.dot(weights[t:], r[t:]) for t in range(len(r))]
