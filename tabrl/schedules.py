"""Step sizes: a number, or a schedule of how often a state has been updated.

k number of an update, from 1; alpha step size.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tabrl.types import F

Schedule: TypeAlias = Callable[[F], F]  # number of a state's update, from 1, to its step size
Alpha: TypeAlias = float | Schedule


def harmonic(k: F) -> F:
    """Step size 1/k of the k-th update: V is the average of its targets. A `Schedule`.

    >>> harmonic(np.array([1.0, 2.0, 4.0]))
    array([1.  , 0.5 , 0.25])
    """
    return 1.0 / k


def power(scale: float, exponent: float) -> Schedule:
    """Step size min(1, scale / k**exponent); converges for exponents in (1/2, 1].

    Source: Robbins & Monro (1951); Sutton & Barto (2018), eq. 2.7.

    >>> power(0.5, 1.0)(np.array([1.0, 2.0]))
    array([0.5 , 0.25])
    """
    return lambda k: np.minimum(1.0, scale / k**exponent)


class Steps:
    """The step sizes of a learner: one number, or a table of a schedule that grows with the counts."""

    def __init__(self, alpha: Alpha, S: int) -> None:
        self.schedule = alpha if callable(alpha) else None
        if not callable(alpha) and not 0 < alpha <= 1:
            raise ValueError(f"alpha is {alpha}; a step size in (0, 1], or a schedule, is expected")
        self.table = np.empty(0) if callable(alpha) else np.array([float(alpha)])
        self.count = np.zeros(S, np.int64)

    def ahead(self, n: int) -> F:
        """Step sizes that last for n more updates."""
        if self.schedule is None:
            return self.table
        need = int(self.count.max(initial=0)) + n
        if need > len(self.table):
            self.table = np.asarray(self.schedule(np.arange(1.0, 2 * need + 1)), np.float64)
        return self.table


def fraction(name: str, x: float) -> None:
    """Require a number in [0, 1]."""
    if not 0 <= x <= 1:
        raise ValueError(f"{name} is {x}; a number in [0, 1] is expected")
