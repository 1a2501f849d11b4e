"""What the episodes of a control learner bring: the moves of many runs, cut into episodes.

Moves as in `control.kernels`; returns are undiscounted sums, as the textbook's figures count them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tabrl.cells import check_count
from tabrl.control.acting import Learner, Rng
from tabrl.control.kernels import Moves
from tabrl.types import F, I

Make = Callable[[Rng], Learner]  # a learner at its beginning, for one run


def first_episodes(learner: Learner, n: int) -> Moves:
    """The moves of a learner's first n episodes; the last is the end of the n-th.

    The learner has gone on to the end of a block of `every` moves. It never returns if its episodes never end.

    >>> from tabrl import MDP
    >>> from tabrl.control.one_step import OneStep
    >>> two = MDP([[[0, 1]], [[0, 1]]], [5, 0], 0.9, terminal=[0, 1], mu=[1, 0])
    >>> learner = OneStep(0, two, np.random.default_rng(0), 0.5, 0.1, None, None, 10, None)
    >>> first_episodes(learner, 3).r
    array([5., 5., 5.])
    """
    check_count(n, "episodes", 1)
    parts: list[Moves] = []
    ends = 0
    for x, _ in learner.moves():
        parts.append(x)
        ends += int(x.last.sum())
        if ends >= n:
            break
    columns: Any = [np.concatenate(y) for y in zip(*parts, strict=True)]
    stop = np.flatnonzero(columns[-1])[n - 1] + 1
    return Moves(*(y[:stop] for y in columns))


def episode_returns(x: Moves) -> F:
    """Undiscounted return of each finished episode: (episodes,).

    >>> columns = (np.zeros(4, int), np.zeros(4, int), np.array([1.0, 2, 3, 4]), np.ones(4), np.zeros(4, int))
    >>> episode_returns(Moves(*columns, np.zeros(4, int), np.array([False, True, True, False])))
    array([3., 3.])
    """
    return np.diff(np.cumsum(x.r)[x.last], prepend=0.0)


def episode_lengths(x: Moves) -> I:
    """Number of moves of each finished episode: (episodes,)."""
    return np.diff(np.flatnonzero(x.last), prepend=-1)


def runs_of(make: Make, rng: Rng, *, runs: int, episodes: int) -> Iterator[Moves]:
    """The first episodes of many runs, each with a random stream of its own."""
    for own in rng.spawn(check_count(runs, "runs", 1)):
        yield first_episodes(make(own), episodes)
