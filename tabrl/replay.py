"""Feeding experience to a prediction learner: checked, cut into pieces, and counted.

V (S,) values, or (runs,S) for many runs at once; t transitions used; k what `every` counts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tabrl import checks
from tabrl.errors import ModelError, ShapeError
from tabrl.learning_kernels import n_step_sums
from tabrl.sample import Stream, cut, join, transitions
from tabrl.schedules import Alpha, Steps
from tabrl.types import F, Transitions, ValueUpdate


def start(V: F, alpha: Alpha, every: int) -> tuple[F, Steps]:
    """Copy the initial values and check what all learners take."""
    V = checks.real(V, "V")
    if V.ndim not in (1, 2):
        raise ShapeError(f"V has shape {V.shape}; (S,), or (runs, S) for many runs at once, is expected")
    if every < 1:
        raise ValueError(f"every is {every}; a record after every 1 or more steps is expected")
    return V, Steps(alpha, V.size)


def checked(experience: Iterable[Any], S: int) -> Iterator[Transitions]:
    """Read experience as transitions between states 0 … S-1; a stream is known to have them."""
    if isinstance(experience, Stream):
        if experience.S != S:
            raise ShapeError(f"V has {S} entries; {experience.S} are expected, one for each state of the model")
        yield from experience
    for x in transitions(experience):
        check_states(x, S)
        yield x


def side_by_side(experiences: Sequence[Any], S: int) -> Iterator[Transitions]:
    """Lay many runs out as one: in each round, the next episode (or block of a `Stream`) of every run.

    experiences: one for each run. Run i has the states i S, …, i S + S - 1 of all, so that a learner with V (runs,S)
    keeps the runs apart. Ends with the shortest of them.

    >>> x = Transitions(np.array([0]), np.array([1]), np.array([5.0]), np.array([0.0]), np.array([True]))
    >>> next(side_by_side([[x], [x], [x]], S=2)).s
    array([0, 2, 4])
    """
    for pieces in zip(*(checked(x, S) for x in experiences), strict=False):
        yield join([x._replace(s=x.s + i * S, s_next=x.s_next + i * S) for i, x in enumerate(pieces)])


def check_states(x: Transitions, S: int) -> None:
    """Require states 0 … S-1."""
    for name, states in (("s", x.s), ("s_next", x.s_next)):
        if len(states) and not (states.min() >= 0 and states.max() < S):
            t = int(np.argmax((states < 0) | (states >= S)))
            raise ModelError(f"{name}[{t}] is {int(states[t])}; a state below {S}, the length of V, is expected")


def pieces(experience: Iterable[Transitions], every: int) -> Iterator[Transitions]:
    """Cut transitions so that every multiple of `every` ends a piece."""
    t = 0
    for x in experience:
        i = 0
        while i < len(x.r):
            j = min(len(x.r), i + every - t % every)
            t += j - i
            yield cut(x, i, j)
            i = j


def records(
    experience: Iterable[Transitions], V: F, every: int, update: Callable[[Transitions], float]
) -> Iterator[ValueUpdate]:
    """Apply `update`; yield after every `every` transitions (rounds for many runs), and at the end."""
    if V.ndim == 2:
        yield from counted(experience, V, every, update, lambda x: 1)
    else:
        yield from counted(pieces(experience, every), V, every, update, lambda x: len(x.r))


def counted(
    experience: Iterable[Transitions],
    V: F,
    every: int,
    update: Callable[[Transitions], float],
    count: Callable[[Transitions], int],
) -> Iterator[ValueUpdate]:
    """Apply `update` to piece after piece; yield whenever the count reaches a multiple of `every`, and at the end."""
    t, k, delta = 0, 0, 0.0
    for x in experience:
        delta = update(x)
        t, k = t + len(x.r), k + count(x)
        if k % every == 0:
            yield ValueUpdate(t, V.copy(), float(delta))
    if k % every:
        yield ValueUpdate(t, V.copy(), float(delta))


def n_step_transitions(experience: Iterable[Transitions], n: int, *, whole: bool = False) -> Iterator[Transitions]:
    """Make one transition of n, or of as many as are left of the episode: n-step TD is TD(0) on them.

        r = r[t] + discount[t] r[t+1] + … ,   discount = discount[t] discount[t+1] … ,   s_next = s[t+n]

    whole: require that what is read ends with the end of an episode each time.

    >>> last = np.array([False, True])
    >>> x = Transitions(np.array([0, 1]), np.array([1, 2]), np.array([1.0, 4.0]), np.array([0.5, 0.5]), last)
    >>> y = next(n_step_transitions([x], 2))
    >>> y.r, y.discount, y.s_next
    (array([3., 4.]), array([0.25, 0.5 ]), array([2, 2]))
    """
    rest: Transitions | None = None
    for x in experience:
        x = x if rest is None else join([rest, x])
        to, R, D = np.empty_like(x.s_next), np.empty_like(x.r), np.empty_like(x.discount)
        ready = n_step_sums(x.s_next, x.r, x.discount, x.last, n, to, R, D)
        yield cut(Transitions(x.s, to, R, D, x.last), 0, ready)
        rest = cut(x, ready, len(x.r)) if ready < len(x.r) else None
        require_end(x, whole)


def require_end(x: Transitions, whole: bool) -> None:
    """Refuse a round in which a run has not ended its episode."""
    if whole and not x.last[-1:].all():
        raise ModelError(f"last[{len(x.r) - 1}] is False; a round of whole episodes is expected, one of each run")


def whole_episodes(experience: Iterable[Transitions], V: F, every: int) -> Iterator[Transitions]:
    """Cut transitions into buffers of at most `every` whole episodes, or rounds of them for many runs.

    A buffer ends where the number of episodes reaches a multiple of `every`. An unfinished end is left out.
    """
    k, rest = 0, None
    for x in experience:
        x = x if rest is None else join([rest, x])
        if V.ndim == 2:
            require_end(x, True)
            yield x
            continue
        ends, i = np.flatnonzero(x.last) + 1, 0
        for j in [*ends[every - 1 - k % every :: every].tolist(), *ends[-1:].tolist()]:
            if j > i:
                yield cut(x, i, j)
            i = j
        k += len(ends)
        rest = cut(x, i, len(x.r)) if i < len(x.r) else None
