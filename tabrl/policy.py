"""Softmax policies as tables.

    pi(a|s) = exp(theta[s,a]) / sum over legal b of exp(theta[s,b])

theta (S,A) preferences, any finite numbers; legal (S,A) mask; pi (S,A) rows of probabilities, 0 where illegal. A table
may also be a single row (A,), or a stack of tables (...,S,A).
"""

from typing import Any

import numpy as np

from tabrl.errors import ModelError, ShapeError
from tabrl.types import B, F


def softmax(theta: Any, legal: B | None = None) -> F:
    """Probabilities of the softmax policy.

        pi(a|s) = exp(theta[s,a]) / sum over legal b of exp(theta[s,b])

    theta: (...,A) finite, real, or complex for a complex step; legal: a mask that broadcasts against theta, all actions
    unless given. Returns the shape of theta; illegal actions have probability 0 exactly, whatever their preference. A
    constant added to a row changes nothing; large preferences do not overflow. Raises ModelError or ShapeError.
    Source: Sutton & Barto (2018), eq. 13.2; ledger E1.10.

    >>> softmax([[0.0, np.log(3.0)], [0.0, 5.0]], np.array([[True, True], [True, False]]))
    array([[0.25, 0.75],
           [1.  , 0.  ]])
    """
    weight = np.exp(shifted(theta, legal))
    pi: F = weight / weight.sum(axis=-1, keepdims=True)
    return pi


def log_softmax(theta: Any, legal: B | None = None) -> F:
    """Logarithms of the softmax probabilities, without underflow.

        log pi(a|s) = theta[s,a] - log sum over legal b of exp(theta[s,b])

    Arguments as in `softmax`; -inf for illegal actions. Source: ledger E1.10.

    >>> log_softmax([[0.0, -1000.0]])
    array([[    0., -1000.]])
    """
    z = shifted(theta, legal)
    logp: F = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return logp


def shifted(theta: Any, legal: B | None) -> F:
    """Preferences less the largest legal one of their row, -inf where illegal; the checks at the door."""
    theta = np.asarray(theta)
    if theta.dtype.kind not in "biufc":
        raise ModelError(f"theta has dtype {theta.dtype}; numbers are expected")
    if theta.ndim == 0 or theta.shape[-1] == 0:
        raise ShapeError(f"theta has shape {theta.shape}; (S,A) with at least one action is expected")
    if not np.isfinite(theta).all():
        where = tuple(np.argwhere(~np.isfinite(theta))[0])
        raise ModelError(
            f"theta[{', '.join(str(int(i)) for i in where)}] is {theta[where]}; a finite number is expected; "
            "forbid actions by the mask `legal`"
        )
    theta = theta if theta.dtype.kind == "c" else theta.astype(np.float64)
    if legal is None:
        return less(theta, theta.real.max(axis=-1, keepdims=True))
    legal = np.asarray(legal)
    if legal.dtype.kind != "b" or legal.shape[-1:] != theta.shape[-1:] or legal.ndim > theta.ndim:
        raise ShapeError(f"legal has shape {legal.shape}; a boolean mask of shape {theta.shape} is expected")
    top = np.where(legal, theta.real, -np.inf).max(axis=-1, keepdims=True)
    if np.isneginf(top).any():
        raise ModelError("legal has a row that is all False; at least one legal action is expected")
    return np.where(legal, less(theta, top), -np.inf)


def less(theta: F, top: F) -> F:
    """Return theta - top; -inf where that is beyond the largest number, as its exponential is 0 anyway."""
    with np.errstate(over="ignore"):
        return np.subtract(theta, top)


def score(pi: F) -> F:
    """Gradient of the log-probability of each action with respect to the preferences of its state.

        d log pi(a|s) / d theta[s,b] = 1{a = b} - pi(b|s)

    pi: (...,A). Returns (...,A,A), axes a then b. Averaged over a ~ pi it is 0.
    Source: Sutton & Barto (2018), exercise 13.3; ledger E1.10.

    >>> score(np.array([0.25, 0.75]))
    array([[ 0.75, -0.75],
           [-0.25,  0.25]])
    """
    return np.eye(pi.shape[-1]) - pi[..., None, :]


def through_log(pi: F, g: F) -> F:
    """Pull a derivative with respect to log pi back to the preferences.

        sum over a of g[s,a] d log pi(a|s) / d theta[s,b] = g[s,b] - pi(b|s) * sum over a of g[s,a]

    pi, g: (...,A); g is 0 for illegal actions. Returns (...,A). Source: the chain rule with `score`; ledger E1.10.

    >>> through_log(np.array([0.25, 0.75]), np.array([1.0, 0.0]))
    array([ 0.75, -0.75])
    """
    return g - pi * g.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def through_pi(pi: F, x: F) -> F:
    """Multiply by the Jacobian of the softmax, diag(pi) - pi pi', state by state.

        pi(a|s) (x[s,a] - sum over b of pi(b|s) x[s,b])

    pi, x: (...,A). The Jacobian is symmetric, so this is both: with x = d f / d pi the gradient of f in theta, and with
    x a change of theta the change of pi. A constant x gives 0. Source: the chain rule with `score`; ledger E1.10.

    >>> through_pi(np.array([0.5, 0.5]), np.array([3.0, 1.0]))
    array([ 0.5, -0.5])
    """
    return pi * (x - (pi * x).sum(axis=-1, keepdims=True))  # type: ignore[no-any-return]


def log(p: F) -> F:
    """Logarithm of probabilities, 0 where p = 0, for sums in which 0 log 0 = 0."""
    return np.log(p, where=p != 0, out=np.zeros_like(p))


def entropy(pi: F) -> F:
    """Entropy of each row, in nats.

        H(s) = - sum over a of pi(a|s) log pi(a|s),   0 log 0 = 0

    pi: (...,A). Returns (...,): 0 for a deterministic row, log A for a uniform one.
    Source: Cover & Thomas (2006), eq. 2.1; ledger E1.16.

    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(6)
    array([0.693147, 0.      ])
    """
    return 0.0 - (pi * log(pi)).sum(axis=-1)  # type: ignore[no-any-return]


def kl(pi: F, pi_new: F) -> F:
    """Kullback-Leibler divergence of each row, from the first policy to the second.

        KL(s) = sum over a of pi(a|s) log(pi(a|s) / pi_new(a|s))

    Both (...,A) with rows that sum to 1. Returns (...,) >= 0, inf where pi_new forbids what pi does. Not symmetric.
    Written as sum of pi_new - pi - pi log(pi_new / pi), the same number with terms >= 0, so that divergences far below
    the rounding of log pi are right. Source: Cover & Thomas (2006), eq. 2.26; ledger E1.16.

    >>> kl(np.array([1.0, 0.0]), np.array([0.25, 0.75])) == np.log(4)
    np.True_
    >>> kl(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    np.float64(inf)
    """
    pi, pi_new = np.broadcast_arrays(pi, pi_new)
    d = pi_new - pi
    near = (pi_new < 2 * pi) & (2 * pi_new > pi)
    x = np.divide(d, pi, out=np.zeros_like(d), where=near)
    far = (pi > 0) & ~near
    log_rho = np.where(near, np.log1p(x), log(np.where(far, pi_new, 1.0)) - log(np.where(far, pi, 1.0)))
    terms = np.where(far & (pi_new == 0), np.inf, np.maximum(d - pi * log_rho, 0.0))
    return terms.sum(axis=-1)  # type: ignore[no-any-return]


def total_variation(pi: F, pi_new: F) -> F:
    """Total variation distance of each row.

        TV(s) = 1/2 sum over a of |pi(a|s) - pi_new(a|s)|

    Both (...,A). Returns (...,) in [0, 1]; TV**2 <= KL / 2. Source: Cover & Thomas (2006), lemma 11.6.1; ledger E1.16.

    >>> total_variation(np.array([0.5, 0.5]), np.array([0.25, 0.75]))
    np.float64(0.25)
    """
    return 0.5 * abs(pi - pi_new).sum(axis=-1)  # type: ignore[no-any-return]
