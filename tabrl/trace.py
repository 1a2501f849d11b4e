"""Read a generator of records: the answer, a curve, a thinned run.

An algorithm yields one NamedTuple per step. `next(it)` steps through it, `last(it)` is the answer
and `column(it, "residual")` is a curve.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

Record = TypeVar("Record")


def last(records: Iterable[Record]) -> Record:
    """Run to the end and return the final record. Raises ValueError when there is none.

    >>> last(iter([1, 2, 3]))
    3
    """
    end = object()
    final: Any = end
    for final in records:  # noqa: B007
        pass
    if final is end:
        raise ValueError("records is empty; the algorithm must yield at least once")
    return final  # type: ignore[no-any-return]


def column(records: Iterable[Any], name: str) -> np.ndarray[Any, Any]:
    """Collect one field of every record as an array.

    >>> from tabrl.types import Sweep
    >>> column([Sweep(1, np.zeros(2), 0.5, 1.0), Sweep(2, np.zeros(2), 0.25, 0.5)], "residual")
    array([0.5 , 0.25])
    """
    return np.array([getattr(record, name) for record in records])


def every(records: Iterable[Record], n: int) -> Iterator[Record]:
    """Keep records n, 2n, 3n, … and always the final one.

    >>> list(every(iter(range(1, 8)), 3))
    [3, 6, 7]
    """
    if n < 1:
        raise ValueError(f"n is {n}; keep every n-th record with n >= 1")
    k, record = 0, None
    for k, record in enumerate(records, 1):
        if k % n == 0:
            yield record
    if k % n:
        yield record  # type: ignore[misc]
