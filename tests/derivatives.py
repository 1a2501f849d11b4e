"""Derivatives by differences and by torch: the judges of the twins in losses and divergences."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

H = 1e-3  # step of the differences; kinks have to be further than 2 H away


def central(f: Callable[[Any], Any], x: Any) -> Any:
    """df/dx for an elementwise f, by the five-point rule: error of order H^4 and rounding 1e-16 / H."""
    near, far = f(x + H) - f(x - H), f(x + 2 * H) - f(x - 2 * H)
    return (8 * near - far) / (12 * H)


def central_rows(f: Callable[[Any], Any], z: Any) -> Any:
    """d f(z) / d z[..., a] for f from rows (…,A) to (…), one coordinate at a time."""

    def along(a: int) -> Any:
        def moved(x: Any) -> Any:
            y = z.copy()
            y[..., a] = x
            return f(y)

        return central(moved, z[..., a])

    return np.stack([along(a) for a in range(z.shape[-1])], -1)


def close(x: Any, y: Any, tolerance: float) -> bool:
    """Largest difference, relative to the size of y where that is above 1."""
    return bool((abs(np.asarray(x) - np.asarray(y)) <= tolerance * np.maximum(1.0, abs(np.asarray(y)))).all())


def autograd(f: Callable[..., Any], x: Any, *others: Any) -> tuple[Any, Any]:
    """f(x, *others) and the derivative of its sum with respect to x, both by torch, as NumPy arrays."""
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x, requires_grad=True)
    y = f(leaf, *(torch.tensor(other) for other in others))
    y.sum().backward()
    return y.detach().numpy(), leaf.grad.numpy()


def log_softmax(z: Any) -> Any:
    """Rows of log-probabilities from logits, NumPy."""
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))
