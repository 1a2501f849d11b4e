"""Vectorised sampling of a small model, straight from its arrays: the judge of exact moments.

Family-wise false alarm: `agree` compares K numbers with their sample means at |z| <= Z; for a normal z and Z = 6.8 one
comparison fails by chance with probability 1.1e-11, so that 90,000 of them stay below 1e-6 together.
"""

from typing import Any

import numpy as np
from models import dense_P, dense_R

from tabrl import MDP

Z = 6.8
Rng = np.random.Generator


def draw(rng: Rng, p: Any) -> Any:
    """One index per row of p (n,K), each row a distribution."""
    total = p.cumsum(axis=1)
    return np.minimum((rng.random((len(p), 1)) * total[:, -1:] >= total).sum(axis=1), p.shape[1] - 1)


def move(rng: Rng, m: MDP, pi: Any, s: Any) -> tuple[Any, Any, Any]:
    """One step from each of n states: action, reward, next state."""
    a = draw(rng, pi[s])
    x = draw(rng, dense_P(m)[s, a])
    return a, dense_R(m)[s, a, x], x


def starts(rng: Rng, m: MDP, n: int) -> Any:
    """n start states from mu that are not terminal."""
    mu = np.where(m.terminal, 0.0, m.mu)
    return draw(rng, np.broadcast_to(mu / mu.sum(), (n, m.S)))


def agree(samples: Any, exact: Any) -> None:
    """The mean over axis 0 of `samples` is `exact`, by a z-test of each number."""
    mean, error = samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    slack = 1e-12 * (1 + abs(exact))  # numbers that do not vary
    worst = np.max((abs(mean - exact) - slack) / np.maximum(error, 1e-300))
    assert worst <= Z, f"z = {worst}"


def second(V: Any, mean: Any) -> Any:
    """(n,S,S) products whose mean is the covariance, about a known mean."""
    return (V - mean)[:, :, None] * (V - mean)[:, None, :]
