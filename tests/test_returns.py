"""Returns of one episode, against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import generators

from tabrl import returns
from tabrl.errors import ShapeError


@given(generators(), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_discounted_sum_is_the_literal_double_sum(rng: np.random.Generator, T: int) -> None:
    x, discount, tail = rng.normal(size=T), rng.random(T), rng.normal()
    y = returns.discounted_sum(x, discount, tail)
    for t in range(T):
        terms = [np.prod(discount[t:k]) * x[k] for k in range(t, T)]
        assert y[t] == pytest.approx(sum(terms) + np.prod(discount[t:]) * tail, abs=1e-12)


@given(generators(), st.integers(1, 30), st.floats(-5, 5))
@settings(max_examples=50, deadline=None)
def test_special_values(rng: np.random.Generator, T: int, tail: float) -> None:
    x = rng.normal(size=T)
    assert (returns.discounted_sum(x, np.zeros(T), tail) == x).all()
    ones = returns.discounted_sum(x, np.ones(T), tail)
    assert np.allclose(ones, x[::-1].cumsum()[::-1] + tail, rtol=0, atol=1e-12)


def test_a_zero_discount_cuts_the_sum() -> None:
    y = returns.discounted_sum(np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.0, 0.5]), tail=100.0)
    assert y.tolist() == [2.0, 2.0, 54.0]


def test_whole_numbers_give_fractions() -> None:
    assert returns.discounted_sum(np.array([1, 1]), np.array([0.5, 0.5])).tolist() == [1.5, 1.0]


def test_empty() -> None:
    assert returns.discounted_sum(np.zeros(0), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((2, 2), (2, 2))])
def test_wrong_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match="discount has shape"):
        returns.discounted_sum(np.zeros(shapes[0]), np.zeros(shapes[1]))
