"""Returns and advantages along one episode.

r, discount (T,): reward and discount that follow a[t]; discount is 0 where s[t+1] is terminal; G (T,). v (T+1,) value
estimates along the episode; delta (T,) TD errors; A (T,) advantage estimates; lam trace decay.
"""

import numpy as np

from tabrl._jit import kernel
from tabrl._xp import namespace
from tabrl.errors import ShapeError
from tabrl.types import B, F


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
    backward(x, discount, float(tail), y)
    return y


@kernel
def backward(x: F, discount: F, tail: float, y: F) -> None:
    """Fill y (T,) with the discounted sums, last first."""
    for t in range(len(x) - 1, -1, -1):
        tail = x[t] + discount[t] * tail
        y[t] = tail


def td_errors(r: F, discount: F, v: F) -> F:
    """TD errors of one episode.

        delta[t] = r[t] + discount[t] * v[t+1] - v[t]

    r, discount: (T,). v: (T+1,) value estimates along the episode. Returns (T,). Raises ShapeError.
    Source: Sutton & Barto (2018), eq. 6.5; ledger E1.7.

    >>> td_errors(np.array([1.0]), np.array([0.5]), np.array([0.0, 4.0]))
    array([3.])
    """
    check_lengths(r, discount, v)
    delta: F = r + discount * v[1:] - v[:-1]
    return delta


def gae(r: F, discount: F, v: F, lam: float) -> F:
    """Generalised advantage estimates of one episode: discounted sums of TD errors.

        A[t] = delta[t] + lam * discount[t] * A[t+1],   A[T] = 0

    r, discount: (T,). v: (T+1,) value estimates; v[T] counts only where the episode was cut. lam in [0, 1]:
    0 gives the TD errors, 1 the Monte Carlo returns less v. Returns (T,). Raises ShapeError, ValueError.
    Source: Schulman et al. (2016), High-dimensional continuous control using GAE, eq. 16; ledger E1.13.

    >>> gae(np.array([1.0, 1.0]), np.array([0.5, 0.0]), np.array([0.0, 2.0, 0.0]), 0.5)
    array([ 1.75, -1.  ])
    """
    check_lam(lam)
    return discounted_sum(td_errors(r, discount, v), lam * discount)


def gae_fragments(r: F, discount: F, v: F, v_next: F, last: B, lam: float) -> F:
    """Generalised advantage estimates of a buffer that holds many episodes one after the other.

        A[t] = delta[t] + lam * discount[t] * A[t+1],   A[t+1] = 0 where last[t]

    All (n,): v the values of the states, v_next those of the states that follow; last where an episode ends with the
    step, by a terminal state or a time limit: no estimate looks beyond it, and a time limit still counts v_next. The
    end of the buffer is such an end, said or not. Equal to `gae` of each fragment. Raises ShapeError, ValueError.
    Source: as `gae`, with the rule for the end of a fragment; ledger E1.13.

    >>> gae_fragments(np.ones(2), np.array([0.5, 0.5]), np.zeros(2), np.array([2.0, 4.0]), np.array([True, True]), 1.0)
    array([2., 3.])
    """
    namespace(r=r, discount=discount, v=v, v_next=v_next, last=last)
    check_lam(lam)
    return discounted_sum(r + discount * v_next - v, np.where(last, 0.0, lam * discount))


def value_target(adv: F, v: F) -> F:
    """What the critic should answer: the advantage estimate and the value it was measured from.

        target[t] = A[t] + v[t]

    Both (T,); v without the value after the last step. With A from `gae` this is the lambda-return. The TD errors
    in A already subtract v once, so adding it once leaves returns. Returns (T,). Raises ShapeError.
    Source: Schulman et al. (2017), section 5; ledger E1.17 and correction 3.

    >>> value_target(np.array([1.75, -1.0]), np.array([0.0, 2.0]))
    array([1.75, 1.  ])
    """
    namespace(adv=adv, v=v)
    target: F = adv + v
    return target


def lambda_returns(r: F, discount: F, v: F, lam: float) -> F:
    """Lambda-returns of one episode.

        G[t] = r[t] + discount[t] * ((1 - lam) * v[t+1] + lam * G[t+1]),   G[T] = v[T]

    Computed as v + `gae`. r, discount: (T,). v: (T+1,) value estimates; v[T] counts only where the episode was cut.
    lam in [0, 1]: 0 gives TD(0) targets, 1 Monte Carlo returns. Returns (T,). Raises ShapeError, ValueError.
    Source: Sutton & Barto (2018), eq. 12.3 and 12.9; ledger E1.9.

    >>> lambda_returns(np.array([1.0, 1.0]), np.array([0.5, 0.0]), np.array([0.0, 2.0, 0.0]), 0.5)
    array([1.75, 1.  ])
    """
    return value_target(gae(r, discount, v, lam), v[:-1])


def n_step_returns(r: F, discount: F, v: F, n: int) -> F:
    """n-step returns of one episode.

        G[t] = r[t] + discount[t] * (r[t+1] + … + discount[h-1] * v[h]),   h = min(t + n, T)

    Shapes and errors as in `lambda_returns`. n=1 gives TD(0) targets, n >= T Monte Carlo returns.
    Source: Sutton & Barto (2018), eq. 7.1; ledger E1.8.

    >>> n_step_returns(np.array([1.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.0]), np.array([9.0, 9.0, 9.0, 0.0]), 2)
    array([11.,  2.,  1.])
    """
    check_lengths(r, discount, v)
    if n < 1:
        raise ValueError(f"n is {n}; 1 or more steps are expected")
    T = len(r)
    return np.array([discounted_sum(r[t : t + n], discount[t : t + n], v[min(t + n, T)])[0] for t in range(T)])


def check_lengths(r: F, discount: F, v: F) -> None:
    """Require r and discount (T,), v (T+1,)."""
    if r.shape != discount.shape or r.ndim != 1 or v.shape != (len(r) + 1,):
        raise ShapeError(
            f"v has shape {v.shape}, r {r.shape}, discount {discount.shape}; (T+1,), (T,), (T,) are expected"
        )


def check_lam(lam: float) -> None:
    """Require lam in [0, 1]."""
    if not 0 <= lam <= 1:
        raise ValueError(f"lam is {lam}; a number in [0, 1] is expected")
