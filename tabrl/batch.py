"""Prediction from a batch of episodes, used again and again.

V (S,) values; G returns; alpha step size; lam trace decay. The solutions in closed form are in `operators`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tabrl.replay import checked, n_step_transitions, start, whole_episodes
from tabrl.sample import join
from tabrl.schedules import fraction
from tabrl.types import F, Transitions, ValueUpdate


def lstd(experience: Iterable[Any], *, S: int, lam: float = 0.0) -> F:
    """Least-squares TD(lambda): the V at which the sum of all TD(lambda) updates is zero.

        sum over t of z[t] (r[t] + discount[t] V(s[t+1]) - V(s[t])) = 0,   z[t] = discount lam z[t-1] + e_s[t]

    lam=0 is the certainty-equivalence solution of the data (what batch TD converges to), lam=1 the average
    of every-visit returns (batch Monte Carlo). Returns (S,), nan for states that were never visited.
    Source: Bradtke & Barto (1996); Boyan (1999); Sutton & Barto (2018), sections 6.3 and 9.8.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> lstd([one], S=3)
    array([ 1.,  1., nan])
    """
    fraction("lam", lam)
    A, b = np.zeros((S, S)), np.zeros(S)
    for x in whole_episodes(checked(experience, S), b, 1):
        z = np.zeros(S)
        for s, s_next, r, discount in zip(x.s, x.s_next, x.r, x.discount, strict=True):
            z[s] += 1.0
            A[:, s] += z
            A[:, s_next] -= discount * z
            b += r * z
            z *= discount * lam
    seen = np.flatnonzero(A.any(axis=1) | (b != 0))
    V = np.full(S, np.nan)
    V[seen] = np.linalg.solve(A[np.ix_(seen, seen)], b[seen])
    return V


def batch_td(experience: Iterable[Any], *, alpha: float, V: F) -> Iterator[ValueUpdate]:
    """Batch TD(0): add up the TD(0) increments of the whole batch, apply them at once, and repeat.

        V(s) <- V(s) + alpha sum over visits t to s of (r[t] + discount[t] V(s[t+1]) - V(s[t]))

    Converges to the certainty-equivalence solution (`lstd`, `operators.batch_td`) for alpha below 1 over the
    largest number of visits. Endless: one record per sweep over the batch, t counts transitions; delta is the
    largest change of a value. Source: Sutton & Barto (2018), section 6.3; ledger E1.7.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> sweeps = batch_td([one], alpha=0.5, V=np.zeros(3))
    >>> [next(sweeps).V.tolist() for _ in range(3)]
    [[0.0, 0.5, 0.0], [0.25, 0.75, 0.0], [0.5, 0.875, 0.0]]
    """
    V, _ = start(V, alpha, 1)
    x = join([*checked(experience, len(V))])
    return sweeps(V, x, alpha, lambda V: x.r + x.discount * V[x.s_next])


def batch_mc(experience: Iterable[Any], *, alpha: float, V: F) -> Iterator[ValueUpdate]:
    """Batch Monte Carlo: as `batch_td`, with returns as targets.

        V(s) <- V(s) + alpha sum over visits t to s of (G[t] - V(s))

    Converges to the average return of each state's visits (`operators.batch_mc`), which fits the batch best. The
    return of an episode cut by a time limit ends in the value of the state it was cut in.
    Source: Sutton & Barto (2018), section 6.3; ledger E1.6.

    >>> from tabrl.types import Episode
    >>> one = Episode(np.array([0, 1, 2]), np.zeros(2, int), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(2))
    >>> sweeps = batch_mc([one], alpha=0.5, V=np.zeros(3))
    >>> [next(sweeps).V.tolist() for _ in range(2)]
    [[0.5, 0.5, 0.0], [0.75, 0.75, 0.0]]
    """
    V, _ = start(V, alpha, 1)
    x = join([*whole_episodes(checked(experience, len(V)), V, 1)])
    whole = next(n_step_transitions([x], len(x.r)))
    return sweeps(V, x, alpha, lambda V: whole.r + whole.discount * V[whole.s_next])


def sweeps(V: F, x: Transitions, alpha: float, targets: Callable[[F], F]) -> Iterator[ValueUpdate]:
    """Move V towards the targets of all visits at once, for ever."""
    for k in itertools.count(1):
        change = alpha * np.bincount(x.s, targets(V) - V[x.s], minlength=len(V))
        V = V + change
        yield ValueUpdate(k * len(x.r), V, float(abs(change).max(initial=0.0)))
