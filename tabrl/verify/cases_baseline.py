"""What a user's estimate with a baseline made of other episodes is given (row E1.11), and what it must return.

pi (A,) softmax policy of one state; a, r (n,) the actions and rewards of n episodes of one step; g (A,) the estimate.
"""

from fractions import Fraction
from functools import cache

import numpy as np

from tabrl import rational
from tabrl.rational import Row
from tabrl.types import F, I
from tabrl.verify.cases_gradient import OF_PI, WRONG_SIGN
from tabrl.verify.literal import ZERO
from tabrl.verify.mistakes import Mistakes, floats
from tabrl.verify.record import Case

PI = np.array([0.5, 0.25, 0.25])


@cache
def baseline_cases() -> list[Case]:
    """E1.11: f(pi, a, r) -> g."""
    a, r = np.array([0, 1, 0, 2, 0, 1, 2, 0]), np.array([1.0, -2.0, 0.5, 3.0, 0.0, 4.0, -1.0, 2.0])
    skewed = np.array([0.125, 0.75, 0.125])
    return [
        baseline_case("eight episodes", PI, a, r),
        baseline_case("eight episodes, another policy", skewed, a, r),
        baseline_case("three episodes", PI, a[:3], r[:3]),
        baseline_case("two episodes", PI, a[:2], r[:2]),
        baseline_case("two episodes of one action", PI, a[[0, 2]], r[[0, 2]]),
        baseline_case("rewards of 0 and 1", PI, a, np.where(r > 0.75, 1.0, 0.0)),
        baseline_case("rewards far from 0", PI, a[:5], r[:5] + 100),
        baseline_case("rewards that are all the same", PI, a[:4], np.full(4, 2.0)),
    ]


def baseline_case(name: str, pi: F, a: I, r: F) -> Case:
    """Some episodes; the closed form is the mean of scores times what the reward exceeds the others' mean by."""
    p: Row = rational.exact(pi)
    x: Row = rational.exact(r)
    choice = a.tolist()
    exact = floats(weighed(p, choice, [y - others(x, i) for i, y in enumerate(x)]))
    return Case(name, (pi, a, r), pi.shape, "i", exact, cache(lambda: wrong_estimates(pi, a, r)))


def others(x: Row, i: int) -> Fraction:
    """Mean of all but one."""
    rest = [y for j, y in enumerate(x) if j != i]
    return sum(rest, ZERO) / len(rest)


def weighed(p: Row, a: list[int], multiplier: Row) -> Row:
    """Mean over the episodes of (1{a=b} - p[b]) times the multiplier."""
    total = [sum((((b == k) - y) * m for k, m in zip(a, multiplier, strict=True)), ZERO) for b, y in enumerate(p)]
    return [y / len(a) for y in total]


def wrong_estimates(pi: F, a: I, r: F) -> Mistakes:
    """Other baselines, other scores, other means.

    Leaving -pi out of the score is no mistake here: what the rewards exceed the others' means by adds up to 0.
    """
    n, eye = len(r), np.eye(len(pi))[a]
    score, out = eye - pi, r - (r.sum() - r) / (n - 1)
    same = a[:, None] == a
    own = np.array([r[row].mean() for row in same])  # of the episodes with the same action
    alone = same.sum(axis=1) == 1
    rest = np.where(alone, 0.0, (same @ r - r) / np.maximum(same.sum(axis=1) - 1, 1))
    spread = float(r.std())

    def mean(score: F, x: F) -> F:
        return np.asarray((score * x[:, None]).mean(axis=0))

    found = [
        ("the mean contains the episode's own reward: it shrinks the estimate by (n-1)/n", mean(score, r - r.mean())),
        ("the baseline depends on the action (the mean of the episodes that took it): nothing is left of the estimate",
            mean(score, r - own)),
        ("the baseline depends on the action (the others that took it, 0 if there are none): that is biased",
            mean(score, r - rest)),
        ("you divide the sum of the others by n instead of n - 1", mean(score, r - (r.sum() - r) / n)),
        ("you leave out the baseline", mean(score, r)),
        ("you add the baseline instead of subtracting it", mean(score, 2 * r - out)),
        ("you add the episodes up instead of taking their mean", n * mean(score, out)),
        ("the mean of the scores is multiplied by the sum of the rewards", score.mean(axis=0) * r.sum()),
        (OF_PI, mean(pi[a][:, None] * score, out)),
        (WRONG_SIGN, -mean(score, out)),
    ]  # fmt: skip
    if spread > 0:
        found.append(("you divide by the standard deviation", mean(score, out / spread)))
        found.append(("you whiten the rewards", mean(score, (r - r.mean()) / spread)))
    return found
