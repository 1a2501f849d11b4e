"""The judge of gradients: softmax policies from theta directly, by dense solves of complex numbers.

theta (S,A) real or complex; pi (S,A); V (S,), Q (S,A), d (S,) of pi; J = mu . V; tau weight of the entropy. The complex
step f'(x) = Im f(x + ih) / h subtracts nothing, so that h can be 1e-200 and rounding stays where it was.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tabrl.mdp import MDP
from tabrl.rational import dense
from tabrl.types import F

H = 1e-200


class Parts(NamedTuple):
    """What a gradient is made of."""

    V: Any  # (S,)
    Q: Any  # (S,A)
    d: Any  # (S,) expected discounted visits


def softmax(theta: Any, legal: Any) -> Any:
    """Probabilities over the legal actions, by the formula."""
    weight = np.where(legal, np.exp(theta), 0.0)
    return weight / weight.sum(axis=-1, keepdims=True)


def parts(m: MDP, pi: Any, tau: float = 0.0) -> Parts:
    """Values, action values and visits; terminal states take no decision."""
    live = (m.legal & ~m.terminal[:, None])[:, :, None]
    P = np.where(live, dense(m.P, (m.S, m.A, m.S)), 0.0)
    R = dense(m.R, (m.S, m.A, m.S))
    r = (P * R).sum(axis=2) if R.ndim == 3 else np.where(live[:, :, 0], R, 0.0)
    P_pi = np.einsum("sa,sax->sx", pi, P)
    logs = np.log(np.where(pi != 0, pi, 1.0))
    r_pi = np.where(m.terminal, 0.0, (pi * (r - tau * logs)).sum(axis=1))
    V = np.linalg.solve(np.eye(m.S) - m.gamma * P_pi, r_pi)
    return Parts(V, r + m.gamma * P @ V, np.linalg.solve(np.eye(m.S) - m.gamma * P_pi.T, m.mu))


def J(m: MDP, theta: Any, tau: float = 0.0) -> Any:
    """Objective of a softmax policy."""
    return m.mu @ parts(m, softmax(theta, m.legal), tau).V


def theorem(m: MDP, theta: Any) -> Any:
    """Sum over s, a of d(s) Q(s,a) times the gradient of pi(a|s); no baseline."""
    pi = softmax(theta, m.legal)
    x = parts(m, pi)
    jacobian = pi[:, :, None] * np.eye(m.A) - pi[:, :, None] * pi[:, None, :]
    return np.einsum("s,sa,sab->sb", np.where(m.terminal, 0.0, x.d), x.Q, jacobian)


def along(f: Callable[[Any], Any], x: F, v: F) -> F:
    """Derivative of f at x in the direction v.

    >>> along(lambda x: x**3, np.array([2.0]), np.array([1.0]))
    array([12.])
    """
    return np.asarray(np.imag(f(x + 1j * H * v)) / H, dtype=np.float64)


def derivative(f: Callable[[Any], Any], x: F) -> F:
    """All partial derivatives of f at x: the shape of x, then that of f.

    >>> derivative(lambda x: x[0] * x[1], np.array([2.0, 3.0]))
    array([3., 2.])
    """
    directions = np.eye(x.size).reshape(x.size, *x.shape)
    columns = np.array([along(f, x, v) for v in directions])
    return columns.reshape(*x.shape, *columns.shape[1:])


def smaller(x: Any, y: Any) -> Any:
    """Minimum by the real part, for functions with kinks."""
    return np.where(np.real(x) <= np.real(y), x, y)


def limited(x: Any, low: float, high: float) -> Any:
    """Clip by the real part: constant, and so without derivative, beyond a bound."""
    return np.where(np.real(x) < low, low, np.where(np.real(x) > high, high, x))
