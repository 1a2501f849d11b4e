"""What a user's function is given in each row, what it must return, and what well-known mistakes return instead.

t the exact tables of a model (see `tabrl.rational`); pi (S,A); V (S,). Everything is computed in fractions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from tabrl import rational
from tabrl.errors import ModelError
from tabrl.rational import Row, Tables
from tabrl.types import F
from tabrl.verify.models import Instance, instances
from tabrl.verify.record import Case, distance, largest

Mistakes: TypeAlias = list[tuple[str, F]]
Answer: TypeAlias = Callable[[Tables], Sequence[Fraction]]

FORGETS = "you forget gamma"
PAYS_LATE = "gamma multiplies the reward as well"
BOOTSTRAPS = "you bootstrap from a terminal state (its row of P is zero: nothing follows it)"
TRANSPOSED = "P is read with its axes exchanged (they are s, a, next s)"


def floats(x: Sequence[Fraction]) -> F:
    """Round fractions to floats."""
    return np.array([float(y) for y in x])


def mutants(t: Tables) -> Iterator[tuple[str, Tables]]:
    """Models that differ from t as a misreading of its arrays would."""
    S, A = len(t.P), len(t.P[0])
    yield FORGETS, t._replace(gamma=Fraction(1))
    zero, ends = [Fraction()] * S, [not any(map(any, rows)) for rows in t.P]
    if any(ends):
        first = [Fraction(x == 0) for x in range(S)]
        anywhere = [Fraction(1, S)] * S
        for row in (first, anywhere):
            yield BOOTSTRAPS, t._replace(P=[[row] * A if end else P for end, P in zip(ends, t.P, strict=True)])
    swapped = [[[t.P[x][a][s] for x in range(S)] for a in range(A)] for s in range(S)]
    yield TRANSPOSED, t._replace(P=swapped)
    yield "you leave out what comes after the first reward", t._replace(P=[[zero] * A] * S)


def answers(t: Tables, answer: Answer, others: dict[str, Answer]) -> Mistakes:
    """Answers on the mutants of a model, and other wrong answers."""
    wrong = [(name, answer, u) for name, u in mutants(t)]
    return finite([*wrong, *((name, other, t) for name, other in others.items())])


def finite(wrong: list[tuple[str, Answer, Tables]]) -> Mistakes:
    """Compute wrong answers; those without a finite value are left out."""
    found: Mistakes = []
    for name, f, t in wrong:
        with suppress(ZeroDivisionError, ModelError):
            found.append((name, floats(f(t))))
    return found


def uniform(t: Tables) -> list[Row]:
    """Equal weight on all actions."""
    A = len(t.P[0])
    return [[Fraction(1, A)] * A for _ in t.P]


def chosen(t: Tables, V: Row, best: Callable[[Row], Fraction] = max) -> list[Row]:
    """One-hot policy of the first action with the largest (or smallest) Q(V)."""
    Q = rational.action_values(t, V)
    first = [q.index(best(q)) for q in Q]
    return [[Fraction(a == k) for a in range(len(q))] for q, k in zip(Q, first, strict=True)]


def undiscounted_policy(t: Tables) -> list[Row]:
    """Policy that is optimal when gamma is left out."""
    return chosen(t, rational.best_values(t))


def value_of(policy: Callable[[Tables], Any]) -> Answer:
    """Values of a policy that is computed from the model."""
    return lambda t: policy_values(t, policy(t))


def policy_values(t: Tables, pi: list[Row]) -> Row:
    """V_pi of a policy given as fractions."""
    P = [[rational.dot(w, column) for column in zip(*rows, strict=True)] for w, rows in zip(pi, t.P, strict=True)]
    return rational.chain_values(P, [rational.dot(w, r) for w, r in zip(pi, t.r, strict=True)], t.gamma)


def worst(t: Tables) -> Row:
    """The smallest values that a policy can get: V* of the model with all rewards negated, negated."""
    return [-v for v in rational.best_values(t._replace(r=[[-x for x in row] for row in t.r]))]


def scaled(answer: Answer) -> Answer:
    """Gamma times an answer."""
    return lambda t: [t.gamma * v for v in answer(t)]


def backup(t: Tables, pi: Any, V: Row) -> Row:
    """T_pi V."""
    Q = rational.action_values(t, V)
    return [rational.dot(w, q) for w, q in zip(rational.exact(pi), Q, strict=True)]


def best_backup(t: Tables, V: Row) -> Row:
    """T V."""
    return [max(q) for q in rational.action_values(t, V)]


def in_place(t: Tables, pi: Any, V: Row) -> Row:
    """T_pi V, state after state, each seeing the new values of those before it."""
    V = list(V)
    for s in range(len(V)):
        V[s] = backup(t, pi, V)[s]
    return V


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
            cache(lambda: answers(x.tables, rational.best_values, others)),
            remark=stopped_early(x, x.V_star, lambda V: best_backup(x.tables, V)),
        )  # fmt: skip

    return [case(x) for x in instances()]


def checked(pi: F) -> F:
    """Refuse a policy whose rows are not distributions, naming the row."""
    for s, row in enumerate(pi):
        if (row < 0).any() or abs(row.sum() - 1) > 1e-9:
            raise ValueError(f"pi[s={s}] is {row.tolist()}; a distribution over actions (one-hot or mixed) is expected")
    return pi


def stopped_early(x: Instance, exact: Row, sweep: Callable[[Row], Row]) -> Callable[[F], str]:
    """Say so when V is much closer to its own backup than to the truth."""

    def remark(V: F) -> str:
        v = rational.exact(V)
        residual = largest([a - b for a, b in zip(sweep(v), v, strict=True)])
        error = distance(V, exact)
        if not residual * 4 < error < largest(exact) / 100:
            return ""
        return (
            f"it stopped too early: another sweep changes V by {float(residual):.2g} at most, "
            f"the error is {float(error):.2g} (up to residual / (1 - gamma))"
        )

    return remark


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
