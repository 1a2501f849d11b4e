"""Importance ratios that stay finite; products and per-decision returns are tested with the learner, off_policy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import generators

from tabrl import weights
from tabrl.errors import ShapeError


@given(generators(), st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_within_the_limit_they_are_the_ratios(rng: np.random.Generator, n: int) -> None:
    logp, logp_old = -rng.exponential(2, (2, n))
    assert np.array_equal(weights.bounded_ratios(logp, logp_old), weights.ratios(logp, logp_old))
    assert np.array_equal(weights.log_ratios(logp, logp_old), logp - logp_old)


@pytest.mark.parametrize("limit", [0.0, 1.0, weights.LIMIT, np.inf])
def test_the_limit_holds_on_both_sides(limit: float) -> None:
    logp, logp_old = np.array([0.0, -1e3, -0.5, -np.inf, 0.0]), np.array([-1e3, 0.0, -0.5, -1.0, -np.inf])
    x = weights.log_ratios(logp, logp_old, limit=limit)
    assert x.tolist() == [min(1e3, limit), max(-1e3, -limit), 0.0, -limit, limit]


def test_nothing_overflows() -> None:
    rho = weights.bounded_ratios(np.array([0.0, -1e5]), np.array([-1e5, 0.0]))
    assert rho.tolist() == [np.exp(20.0), np.exp(-20.0)]


def test_not_a_number_stays_one() -> None:
    assert np.isnan(weights.bounded_ratios(np.array([np.nan]), np.zeros(1))).all()


def test_torch_gives_the_same_numbers_and_the_stated_derivative() -> None:
    torch = pytest.importorskip("torch")
    logp = np.array([-1.0, -30.0, -0.1, 0.0, -20.0])
    logp_old = np.array([-1.5, 0.0, -50.0, -20.0, 0.0])  # the last two lie on the limit
    x = torch.tensor(logp, requires_grad=True)
    rho = weights.bounded_ratios(x, torch.tensor(logp_old))
    assert abs(rho.detach().numpy() / weights.bounded_ratios(logp, logp_old) - 1).max() <= 1e-12
    rho.log().sum().backward()
    assert abs(x.grad.numpy() - [1.0, 0.0, 0.0, 1.0, 1.0]).max() <= 1e-12


@pytest.mark.parametrize("function", [weights.log_ratios, weights.bounded_ratios, weights.ratios])
def test_shapes(function: Any) -> None:
    with pytest.raises(ShapeError, match=r"^logp_(old|b) has shape \(3,\); the shape of logp, \(2,\), is expected"):
        function(np.zeros(2), np.zeros(3))


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_limit_is_a_number(limit: float) -> None:
    with pytest.raises(ValueError, match=f"^limit is {limit}; a number >= 0 is expected"):
        weights.log_ratios(np.zeros(1), np.zeros(1), limit=limit)
