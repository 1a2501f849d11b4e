"""What verification is made of: a case, a row of the ledger, and a check.

value ours or a user's; expected the closed form; difference how far apart they are, at the worst place.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tabrl.types import F


class Check(NamedTuple):
    """One quantity compared with its closed form."""

    row: str  # id in docs/equations.md
    quantity: str  # what was compared, and on which case
    value: float  # at the worst place; nan where there is none
    expected: float  # the closed form there, or the bound that value must not exceed
    difference: float  # |value - expected|, or by how much a bound was exceeded
    tolerance: float  # largest difference that passes
    passed: bool
    where: str  # the worst place; for a failure, what is wrong


class Case(NamedTuple):
    """One call of a user's function, and what it must return."""

    name: str
    arguments: tuple[Any, ...]  # plain arrays and floats; the function gets copies
    shape: tuple[int, ...]  # of the result
    axis: str  # letters that index `expected`: "s", "t", "i t"; a second index is "a" unless named; or a number's name
    expected: F  # closed form of measure(result)
    mistakes: Callable[[], list[tuple[str, F]]]  # what well-known mistakes give instead of `expected`
    measure: Callable[[F], F] = lambda result: result  # what is compared
    remark: Callable[[F], str] = lambda result: ""  # a guess at what else went wrong


class Row(NamedTuple):
    """A done row of the ledger."""

    id: str
    equation: str
    signature: str  # of the function that a user may bring
    own: Callable[[], list[Check]]  # the package against the closed form
    cases: Callable[[], list[Case]]


class Comparison(NamedTuple):
    """Numbers of one case beside their exact values."""

    where: str
    value: Any  # floats, any shape
    expected: Any  # fractions or floats, nested likewise


def agree(row: str, quantity: str, comparisons: Iterable[Comparison], relative: float = 1e-11) -> Check:
    """Compare numbers with exact ones; the check reports the worst entry of the worst case.

    The tolerance of a case is `relative` times its largest |expected|, or times 1 if that is larger. NaN fails.

    >>> agree("E0", "half", [Comparison("", [0.5, 0.25], [Fraction(1, 2), Fraction(1, 4)])]).passed
    True
    """
    found = [entry(row, quantity, c, relative) for c in comparisons]
    return max(found, key=lambda x: x.difference / x.tolerance)


def entry(row: str, quantity: str, c: Comparison, relative: float) -> Check:
    """Report the worst entry of one case."""
    value, expected = np.asarray(c.value, np.float64), np.asarray(c.expected, object)
    if value.shape != expected.shape or not value.size:
        raise ValueError(f"{quantity} has shape {value.shape}; {expected.shape} is expected, not empty ({c.where})")
    gaps = [gap(v, x) for v, x in zip(value.ravel(), expected.ravel(), strict=True)]
    worst = int(np.argmax(gaps))
    tolerance = relative * max(1.0, *(abs(float(x)) for x in expected.ravel()))
    at = np.unravel_index(worst, value.shape)
    place = f"{c.where}, entry {','.join(str(int(i)) for i in at)}" if value.ndim else c.where
    v, x, d = float(value.ravel()[worst]), float(expected.ravel()[worst]), gaps[worst]
    return Check(row, quantity, v, x, d, tolerance, d <= tolerance, place)


def gap(value: float, expected: Any) -> float:
    """|value - expected| without rounding before the end; inf unless value is finite."""
    if not math.isfinite(value):
        return math.inf
    return float(abs(Fraction(float(value)) - Fraction(expected)))


def within(row: str, quantity: str, bounds: Iterable[tuple[str, Fraction, float]]) -> Check:
    """Compare exact errors with the bounds that claim to contain them; no tolerance. An infinite bound fails.

    bounds: (where, exact error, bound). The check reports the case that comes closest to its bound.

    >>> within("E0", "bound", [("", Fraction(1, 2), 0.25)]).difference
    0.25
    """

    def tightness(case: tuple[str, Fraction, float]) -> float:
        _, error, bound = case
        return math.inf if not math.isfinite(bound) else float(error) / bound if bound else float(error > 0) * 2

    where, error, bound = max(bounds, key=tightness)
    excess = float(max(error - Fraction(bound), Fraction())) if math.isfinite(bound) else math.inf
    return Check(row, quantity, float(error), bound, excess, 0.0, excess == 0, where)


def largest(x: Sequence[Fraction]) -> Fraction:
    """Largest |entry|."""
    return max((abs(y) for y in x), default=Fraction())


def distance(V: Any, exact: Sequence[Fraction]) -> Fraction:
    """Largest |V - exact|, without rounding. V must be finite."""
    return largest([Fraction(float(v)) - x for v, x in zip(V, exact, strict=True)])


def joined(*parts: Callable[[], list[Check]]) -> Callable[[], list[Check]]:
    """The checks of several modules as one."""
    return lambda: [check for part in parts for check in part()]
