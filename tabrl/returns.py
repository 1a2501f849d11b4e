"""Returns of one episode.

r, discount (T,): reward and discount that follow a[t]; discount is 0 where s[t+1] is terminal; G (T,).
"""

import numpy as np

from tabrl.errors import ShapeError
from tabrl.types import F


def discounted_sum(x: F, discount: F, tail: float = 0.0) -> F:
    """Discounted sums of what is still to come, by one backward recursion.

        y[t] = x[t] + discount[t] * y[t+1],   y[T] = tail

    x, discount: (T,). tail: what follows the last entry, 0 unless the episode was cut. Returns (T,).
    With x the rewards, y is the return G; discount=0 gives y = x. Raises ShapeError when lengths differ.
    Source: Sutton & Barto (2018), eq. 3.9; ledger E1.1.

    >>> discounted_sum(np.array([1.0, 0.0, 2.0]), np.array([0.5, 0.5, 0.0]))
    array([1.5, 1. , 2. ])
    """
    if x.shape != discount.shape or x.ndim != 1:
        raise ShapeError(f"discount has shape {discount.shape}; the shape of x, {x.shape}, is expected, one axis")
    y = np.empty(len(x))
    for t in reversed(range(len(x))):
        tail = y[t] = x[t] + discount[t] * tail
    return y
