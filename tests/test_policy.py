"""The softmax table: against the formula, complex steps, decimal arithmetic and the limits."""

from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import pytest
from complex_step import along
from hypothesis import given
from hypothesis import strategies as st
from models import generators

from tabrl import policy
from tabrl.errors import ModelError, ShapeError

getcontext().prec = 60


def table(rng: np.random.Generator, S: int = 6, A: int = 4) -> tuple[Any, Any]:
    """Preferences and a mask with at least one legal action per state."""
    legal = rng.random((S, A)) < 0.7
    legal[np.arange(S), rng.integers(A, size=S)] = True
    return rng.normal(size=(S, A)) * 3, legal


def exact_kl(p: Any, q: Any) -> Decimal:
    """KL of one row in 60 digits, each row divided by its exact sum."""
    P, Q = ([Decimal(float(x)) for x in row] for row in (p, q))
    P, Q = [x / sum(P) for x in P], [x / sum(Q) for x in Q]
    return sum((x * (x / y).ln() for x, y in zip(P, Q, strict=True) if x > 0), Decimal(0))


@given(generators())
def test_softmax_is_the_formula(rng: np.random.Generator) -> None:
    theta, legal = table(rng)
    pi = policy.softmax(theta, legal)
    for s in range(len(theta)):
        weight = [np.exp(theta[s, a]) if legal[s, a] else 0.0 for a in range(theta.shape[1])]
        assert np.allclose(pi[s], np.array(weight) / sum(weight), rtol=1e-14, atol=0)
    assert (pi[~legal] == 0).all() and (pi[legal] > 0).all()
    assert np.allclose(np.exp(policy.log_softmax(theta, legal)), pi, rtol=1e-14, atol=0)
    assert np.allclose(policy.softmax(theta + rng.normal(size=(6, 1)) * 100, legal), pi, rtol=1e-12, atol=0)
    theta[~legal] += 1e6  # the preference of an illegal action is not read
    assert np.array_equal(policy.softmax(theta, legal), pi)


def test_softmax_of_a_stack_is_a_stack() -> None:
    rng = np.random.default_rng(0)
    theta, legal = rng.normal(size=(3, 6, 4)), table(rng)[1]
    assert np.array_equal(policy.softmax(theta, legal), [policy.softmax(x, legal) for x in theta])
    assert np.array_equal(policy.softmax(theta[0, 0]), policy.softmax(theta)[0, 0])


@pytest.mark.parametrize("size", [1e3, 1e150, 1.7e308])
def test_large_preferences(size: float) -> None:
    pi = policy.softmax([[size, -size], [-size, -size]])
    assert pi.tolist() == [[1.0, 0.0], [0.5, 0.5]]
    logp = policy.log_softmax([[size, -size]])
    assert logp[0, 0] == 0 and logp[0, 1] == (-2 * size if size < 1e300 else -np.inf)


@given(generators())
def test_derivatives_by_complex_step(rng: np.random.Generator) -> None:
    theta, legal = table(rng)
    pi, v, g = policy.softmax(theta, legal), rng.normal(size=theta.shape), rng.normal(size=theta.shape) * legal
    moved = along(lambda x: policy.softmax(x, legal), theta, v)
    assert np.allclose(policy.through_pi(pi, v), moved, rtol=1e-13, atol=2e-15)  # |v| <= 5 and rounding
    some = np.flatnonzero(legal.ravel())
    logs = along(lambda x: policy.log_softmax(x, legal).ravel()[some], theta, v)
    assert np.allclose((policy.score(pi) @ v[:, :, None]).ravel()[some], logs, rtol=1e-12, atol=1e-14)
    assert np.allclose((pi[:, :, None] * policy.score(pi)).sum(axis=1), 0, atol=1e-15)
    pulled = policy.through_log(pi, g)
    assert np.allclose(pulled, (g[:, :, None] * policy.score(pi)).sum(axis=1), rtol=1e-12, atol=1e-14)
    assert np.isclose((pulled * v).sum(), (g.ravel()[some] * logs).sum(), rtol=1e-11, atol=1e-13)
    assert (pulled[~legal] == 0).all()


@given(generators(), st.sampled_from([1.0, 1e-3, 1e-6, 1e-9]))
def test_kl_in_sixty_digits(rng: np.random.Generator, size: float) -> None:
    theta, legal = table(rng)
    p = policy.softmax(theta, legal)
    q = policy.softmax(theta + size * rng.normal(size=theta.shape), legal)
    for k, row, new in zip(policy.kl(p, q), p, q, strict=True):
        truth = float(exact_kl(row, new))
        assert k >= 0 and abs(k - truth) <= 4e-16 * size + 1e-13 * truth  # rounding far below KL = O(size**2)
    far = policy.total_variation(p, q)
    assert (2 * far**2 <= policy.kl(p, q) * (1 + 1e-9) + 1e-30).all()  # Pinsker
    assert np.allclose(far, [max(sum(d for d in row if d > 0), 0) for row in p - q], rtol=1e-12, atol=1e-15)


def test_kl_of_special_rows() -> None:
    one, other, half = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.5, 0.5])
    assert policy.kl(one, one) == 0 and policy.kl(half, half) == 0
    assert policy.kl(one, half) == np.log(2) and policy.kl(half, one) == np.inf and policy.kl(one, other) == np.inf
    tiny = np.array([1 - 1e-310, 1e-310])
    assert abs(policy.kl(tiny, half) - np.log(2)) < 1e-15 and abs(policy.kl(one, tiny)) < 1e-300
    assert np.isclose(policy.kl(half, tiny), 0.5 * np.log(0.5) + 0.5 * (np.log(0.5) + 310 * np.log(10)))
    assert policy.kl(np.array([one, half]), half).tolist() == [np.log(2), 0.0]


def test_entropy() -> None:
    assert policy.entropy(np.array([1.0, 0.0, 0.0])) == 0
    assert np.isclose(policy.entropy(np.full(5, 0.2)), np.log(5), rtol=1e-15)
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(4), 20)
    uniform = np.full(4, 0.25)
    assert np.allclose(policy.entropy(p), np.log(4) - policy.kl(p, uniform), rtol=1e-13)


@pytest.mark.parametrize(
    ("theta", "legal", "error", "message"),
    [
        ([[0.0, np.nan]], None, ModelError, r"theta\[0, 1\] is nan; a finite number is expected; forbid actions"),
        ([[0.0, -np.inf]], None, ModelError, "by the mask"),
        ([["a", "b"]], None, ModelError, "theta has dtype"),
        (1.0, None, ShapeError, r"theta has shape \(\); \(S,A\)"),
        ([[0.0, 0.0]], np.array([[True]]), ShapeError, r"legal has shape \(1, 1\)"),
        ([[0.0, 0.0]], np.array([[1, 1]]), ShapeError, "boolean mask"),
        ([[0.0, 0.0]], np.array([[False, False]]), ModelError, "all False; at least one legal action"),
    ],
)
def test_what_is_refused(theta: Any, legal: Any, error: type[Exception], message: str) -> None:
    for function in (policy.softmax, policy.log_softmax):
        with pytest.raises(error, match=message):
            function(theta, legal)
