"""An independent judge of softmax policies: everything from theta directly, by dense solves of complex numbers.

The complex step f'(x) = Im f(x + ih) / h has no rounding of a difference, so h can be 1e-200.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from models import dense_P, dense_R, random_mdp

from tabrl import MDP

H = 1e-200


def policy(m: MDP, theta: Any) -> Any:
    """Softmax over the legal actions, (S,A); theta real or complex."""
    weight = np.where(m.legal, np.exp(theta), 0.0)
    return weight / weight.sum(axis=1, keepdims=True)


def parts(m: MDP, pi: Any, *, tau: float = 0.0, gamma: float | None = None) -> tuple[Any, Any, Any]:
    """V (S,), Q (S,A) and d (S,) of a policy, entropy-regularised by tau; terminal states take no decision."""
    g, P = m.gamma if gamma is None else gamma, dense_P(m)
    r = (P * dense_R(m)).sum(axis=2)
    P_pi = np.einsum("sa,sax->sx", pi, P)
    logs = np.log(np.where(pi != 0, pi, 1.0))
    r_pi = np.where(m.terminal, 0.0, (pi * (r - tau * logs)).sum(axis=1))
    V = np.linalg.solve(np.eye(m.S) - g * P_pi, r_pi)
    return V, r + g * P @ V, np.linalg.solve(np.eye(m.S) - g * P_pi.T, m.mu)


def J(m: MDP, theta: Any, *, tau: float = 0.0) -> Any:
    """Objective mu . V of a softmax policy."""
    return m.mu @ parts(m, policy(m, theta), tau=tau)[0]


def gradient(m: MDP, theta: Any) -> Any:
    """Policy gradient theorem with Q itself, no baseline: sum over s, a of d(s) Q(s,a) d pi(a|s)/d theta."""
    pi = policy(m, theta)
    _, Q, d = parts(m, pi)
    jacobian = pi[:, :, None] * np.eye(m.A) - pi[:, :, None] * pi[:, None, :]
    return np.einsum("s,sa,sab->sb", np.where(m.terminal, 0.0, d), Q, jacobian)


def along(f: Callable[[Any], Any], x: Any, v: Any) -> Any:
    """Derivative of f at x in the direction v."""
    return np.imag(f(x + 1j * H * v)) / H


def derivative(f: Callable[[Any], Any], x: Any) -> Any:
    """All partial derivatives of a scalar f, the shape of x."""
    result = np.zeros(x.shape)
    for where in np.ndindex(*x.shape):
        v = np.zeros(x.shape)
        v[where] = 1.0
        result[where] = along(f, x, v)
    return result


def trial(seed: int, **fixed: Any) -> tuple[MDP, Any]:
    """A cyclic model with terminal states and masked actions, and preferences; every fifth has gamma = 1.

    Some non-terminal state has a choice.
    """
    rng = np.random.default_rng(seed)
    ends = seed % 5 == 0
    options: dict[str, Any] = {"terminal": True, "masked": True, "proper": ends}
    if ends:
        options["gamma"] = 1.0
    while True:
        m = random_mdp(rng, **{**options, "A": int(rng.integers(2, 5)), **fixed})
        if ((m.legal.sum(axis=1) > 1) & ~m.terminal).any():
            break
    return m, rng.normal(size=(m.S, m.A)) * rng.choice([0.1, 1.0, 3.0])
