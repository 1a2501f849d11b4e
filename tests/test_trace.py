"""Reading a generator of records."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabrl import trace


class Step(NamedTuple):
    k: int
    V: tuple[float, float]


def steps(n: int) -> Iterator[Step]:
    for k in range(1, n + 1):
        yield Step(k, (k / 2, -k))


def test_last() -> None:
    assert trace.last(steps(5)).k == 5
    assert trace.last([None]) is None
    with pytest.raises(ValueError, match="records is empty; the algorithm must yield"):
        trace.last(steps(0))


def test_column_stacks_one_field() -> None:
    assert trace.column(steps(3), "k").tolist() == [1, 2, 3]
    assert trace.column(steps(3), "V").shape == (3, 2)
    assert isinstance(trace.column(steps(0), "k"), np.ndarray)
    with pytest.raises(AttributeError):
        trace.column(steps(1), "residual")


@given(st.integers(0, 40), st.integers(1, 12))
def test_every_keeps_each_nth_and_the_final_record(length: int, n: int) -> None:
    kept = [r.k for r in trace.every(steps(length), n)]
    assert kept == sorted({k for k in range(1, length + 1) if k % n == 0 or k == length})


def test_every_is_lazy() -> None:
    def endless() -> Iterator[int]:
        k = 0
        while True:
            yield (k := k + 1)

    thinned = trace.every(endless(), 10)
    assert [next(thinned), next(thinned)] == [10, 20]


def test_every_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="n is 0; keep every n-th record with n >= 1"):
        next(trace.every(steps(3), 0))
