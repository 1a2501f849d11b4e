"""Steps uphill: how far, and along what, parameters move for a given gradient.

theta parameters, g gradient, both of any one shape; lr step size; k number of the step, from 1.
"""

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tabrl._xp import Array, library
from tabrl.errors import ShapeError
from tabrl.schedules import Schedule

Step: TypeAlias = Callable[[Array, Array], Array]  # parameters and gradient to the new parameters
Rate: TypeAlias = float | Schedule


def ascent(step: Step | float) -> Step:
    """The steps of one run: a copy, so that what an optimiser remembers is not shared; a number stands for `sgd`.

    >>> ascent(0.5)(np.zeros(1), np.ones(1))
    array([0.5])
    """
    return copy.deepcopy(step) if callable(step) else sgd(step)


class held:  # noqa: N801
    """The steps of another optimiser, for gradients that are shortened to a largest length.

        g <- g min(1, longest / |g|)

    longest: a positive number. step: an optimiser, or a number for `sgd`.
    Source: Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks.

    >>> held(1.0, 0.5)(np.zeros(2), np.array([3.0, 4.0]))
    array([0.3, 0.4])
    """

    def __init__(self, longest: float, step: "Step | float") -> None:
        self.longest, self.step = positive("longest", longest), ascent(step)

    def __call__(self, theta: Array, g: Array) -> Array:
        """Return theta after one more step."""
        norm = library(g, "g").sqrt((g * g).sum())
        return self.step(theta, g * (self.longest / norm.clip(self.longest)))


class sgd:  # noqa: N801
    """Plain steps along the gradient.

        theta <- theta + lr g

    lr: a positive number, or a schedule of the number of the step (`schedules.harmonic`, `schedules.power`).
    Called with (theta, g) it returns the new theta, and leaves the old one as it is. Raises ShapeError.
    Source: Robbins & Monro (1951); Sutton & Barto (2018), eq. 13.1.

    >>> sgd(0.1)(np.array([1.0]), np.array([2.0]))
    array([1.2])
    """

    def __init__(self, lr: Rate) -> None:
        self.lr, self.k = positive("lr", lr), 0

    def __call__(self, theta: Array, g: Array) -> Array:
        """Return theta after one more step."""
        same_shape(theta, g)
        self.k += 1
        new: Array = theta + size(self.lr, self.k) * g
        return new


class adam:  # noqa: N801
    """Steps scaled, coordinate by coordinate, to the size of the gradients so far.

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        theta <- theta + lr (m / (1 - b1^k)) / (sqrt(v / (1 - b2^k)) + eps)

    m, v start at 0, and the divisors undo the pull of that start. A step is about lr long in each coordinate whatever
    the size of g: the first one is lr sign(g). lr as in `sgd`; b1, b2 in [0, 1); eps > 0. A coordinate whose gradients
    were all 0 stays. Raises ShapeError, ValueError. Source: Kingma & Ba (2015), Adam, algorithm 1.

    >>> adam(0.1)(np.zeros(2), np.array([4.0, -0.001])).round(4)
    array([ 0.1, -0.1])
    """

    def __init__(self, lr: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> None:
        for name, b in (("b1", b1), ("b2", b2)):
            if not 0 <= b < 1:
                raise ValueError(f"{name} is {b}; a number in [0, 1) is expected")
        self.lr, self.b1, self.b2, self.eps = positive("lr", lr), b1, b2, positive("eps", eps)
        self.k, self.m, self.v = 0, 0.0, 0.0

    def __call__(self, theta: Array, g: Array) -> Array:
        """Return theta after one more step."""
        same_shape(theta, g)
        self.k += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        m, v = self.m / (1 - self.b1**self.k), self.v / (1 - self.b2**self.k)
        new: Array = theta + size(self.lr, self.k) * m / (library(g, "g").sqrt(v) + self.eps)
        return new


def size(lr: Rate, k: int) -> float:
    """Size of the k-th step."""
    return float(lr(np.array([float(k)]))[0]) if callable(lr) else lr


def positive(name: str, x: Any) -> Any:
    """Require a positive number, or a schedule."""
    if not callable(x) and not 0 < x < np.inf:
        raise ValueError(f"{name} is {x}; a positive number is expected")
    return x


def same_shape(theta: Array, g: Array) -> None:
    """Require a gradient of the shape of the parameters."""
    if np.shape(theta) != np.shape(g):
        raise ShapeError(f"gradient has shape {np.shape(g)}; the shape of theta, {np.shape(theta)}, is expected")
