"""What a user's dynamic sampling is given (row E2.8), and what it must return.

correct (B,) 1 or 0; reward (B,) correct plus a penalty of length; group (B,) labels, in any order.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from tabrl.types import F, I
from tabrl.verify.mistakes import Mistakes
from tabrl.verify.record import Case


@cache
def filter_cases() -> list[Case]:
    """E2.8: f(correct, reward, group) -> 1 where the group is kept."""
    right = np.array([1.0, 0, 1, 1, 0, 0, 1, 0, 1])
    three, mixed = np.array([4, 4, 4, 1, 1, 1, 2, 2, 2]), np.array([7, 3, 7, 7, 3, 3, 5, 5, 5])
    late = np.array([0.0, -0.5, 0, -0.25, -1, 0, 0, 0, -0.75])
    return [
        filter_case("three groups", right, 0 * late, three),
        filter_case("three groups, overlong answers", right, late, three),
        filter_case("groups whose members are mixed", right, 0 * late, mixed),
        filter_case("groups whose members are mixed, overlong answers", right, late, mixed),
        filter_case("a group that is all wrong", right[[1, 4, 5, 0, 1]], 0 * late[:5], three[[0, 0, 0, 3, 3]]),
        filter_case("a group that is all right", right[[0, 2, 3, 0, 1]], 0 * late[:5], three[[0, 0, 0, 3, 3]]),
        filter_case("one group, all wrong, one overlong", np.zeros(4), late[[0, 1, 2, 2]], np.full(4, 9)),
        filter_case("one group, all right, one overlong", np.ones(4), late[[0, 3, 2, 2]], np.full(4, 9)),
        filter_case("the penalty makes all rewards alike", np.array([1.0, 0, 1]), np.array([-1.0, 0, -1]), three[:3]),
        filter_case("groups of one", right[:3], late[:3], three[[0, 3, 6]]),
    ]  # fmt: skip


def filter_case(name: str, correct: F, penalty: F, group: I) -> Case:
    """Some groups; the closed form counts the right answers of each."""
    size = {y: group.tolist().count(y) for y in group.tolist()}
    right = {y: sum(c for c, g in zip(correct.tolist(), group.tolist(), strict=True) if g == y) for y in size}
    exact = np.array([float(0 < right[y] < size[y]) for y in group.tolist()])
    x = correct, correct + penalty, group
    return Case(name, x, exact.shape, "i", exact, cache(lambda: wrong_filters(*x)))


def wrong_filters(correct: F, reward: F, group: I) -> Mistakes:
    """Other tests of a group."""

    def each(keep: Callable[[F], bool], x: F = correct) -> F:
        return np.array([float(keep(x[group == y])) for y in group])

    def both(x: F) -> bool:
        return bool(0 < x.sum() < len(x))

    kept = each(both)
    return [
        ("you filter after shaping: the penalty makes a group of equals look mixed", each(spread, reward)),
        ("you keep groups with a right answer, also those that are all right", each(lambda x: x.sum() > 0)),
        ("you keep groups with a wrong answer, also those that are all wrong", each(lambda x: x.sum() < len(x))),
        ("you keep the right answers of a group and drop its wrong ones", kept * correct),
        ("you filter the batch as a whole, not each group", np.full(len(group), float(both(correct)))),
        ("right and wrong are exchanged: these are the groups that are dropped", 1 - kept),
        ("you drop nothing", np.ones(len(group))),
    ]


def spread(x: F) -> bool:
    """Whether the numbers differ."""
    return bool(x.max() > x.min())
