"""Importance weights: what experience of one policy says about another.

logp, logp_b (T,) log-probabilities of the actions taken under the target and the behaviour policy; rho (T,)
their ratios; r, discount (T,). logp_old as logp_b, where the behaviour policy is the one before the update.
"""

import numpy as np

from tabrl._xp import Array, at_least, namespace
from tabrl.errors import ShapeError
from tabrl.types import F

LIMIT = 20.0  # of a log-ratio: ratios stay between 2.1e-9 and 4.9e8


def ratios(logp: F, logp_b: F) -> F:
    """Importance ratios of single actions.

        rho[t] = pi(a[t]|s[t]) / b(a[t]|s[t])

    Both (T,); 0 where the target never takes the action. Raises ShapeError, and ValueError where the
    behaviour policy could not have taken the action. Source: Sutton & Barto (2018), eq. 5.3; ledger E1.14.

    >>> ratios(np.log([0.5, 0.9]), np.log([0.25, 0.9]))
    array([2., 1.])
    """
    if logp.shape != logp_b.shape:
        raise ShapeError(f"logp_b has shape {logp_b.shape}; the shape of logp, {logp.shape}, is expected")
    if np.isneginf(logp_b).any():
        t = int(np.argmax(np.isneginf(logp_b)))
        raise ValueError(f"logp_b[{t}] is -inf; an action that was taken has a positive probability")
    return np.exp(logp - logp_b)


def log_ratios(logp: Array, logp_old: Array, *, limit: float = LIMIT) -> Array:
    """Log-ratios of single actions, clamped so that their exponentials stay finite.

        x = clip(logp - logp_old, -limit, limit)

    NumPy or torch, any one shape. The derivative with respect to logp is 1 where |logp - logp_old| <= limit, at the
    limit too, and 0 beyond. limit=inf clamps nothing. Raises ShapeError, TypeError. Ledger E1.15.

    >>> log_ratios(np.array([-1.0, 0.0]), np.array([-1.5, -1000.0]))
    array([ 0.5, 20. ])
    """
    xp = namespace(logp=logp, logp_old=logp_old)
    at_least(0, limit=limit)
    return xp.clip(logp - logp_old, -limit, limit)


def bounded_ratios(logp: Array, logp_old: Array, *, limit: float = LIMIT) -> Array:
    """Importance ratios of single actions that never overflow: what the losses use, in NumPy or torch.

        rho = exp(clip(logp - logp_old, -limit, limit))

    As `ratios` where |log rho| <= limit; shapes, derivative and errors as in `log_ratios`.
    Source: Schulman et al. (2017), Proximal policy optimization algorithms, section 3; ledger E1.15.

    >>> bounded_ratios(np.log([0.5]), np.log([0.25]))
    array([2.])
    """
    return namespace(logp=logp).exp(log_ratios(logp, logp_old, limit=limit))


def remaining_products(rho: F) -> F:
    """Weight of what follows each step, the product of all ratios from there on: (T,) to (T,).

        W[t] = rho[t] rho[t+1] … rho[T-1]

    Source: Sutton & Barto (2018), eq. 5.3; ledger E1.14.

    >>> remaining_products(np.array([2.0, 0.5, 3.0]))
    array([3. , 1.5, 3. ])
    """
    W: F = np.cumprod(rho[::-1], dtype=np.float64)[::-1]
    return W


def per_decision_returns(r: F, discount: F, rho: F, tail: float = 0.0) -> F:
    """Returns in which each reward is weighed by the ratios of the actions up to it alone.

        G[t] = rho[t] (r[t] + discount[t] G[t+1]),   G[T] = tail

    All (T,). The mean is that of the whole product, the variance is smaller as later ratios average to 1.
    Source: Precup, Sutton & Singh (2000); Sutton & Barto (2018), section 5.9. Ledger E1.14.

    >>> per_decision_returns(np.array([1.0, 1.0]), np.array([1.0, 0.0]), np.array([2.0, 0.5]))
    array([3. , 0.5])
    """
    if not r.shape == discount.shape == rho.shape:
        raise ShapeError(f"r, discount and rho have shapes {r.shape}, {discount.shape}, {rho.shape}; one is expected")
    G = np.empty(len(r))
    for t in reversed(range(len(r))):
        tail = G[t] = rho[t] * (r[t] + discount[t] * tail)
    return G
