"""What an exercise is made of: a row of the ledger, a stub, the cases that judge it, and what to say."""

from collections.abc import Callable
from typing import NamedTuple

from tabrl import verify
from tabrl.verify.record import Case


class Exercise(NamedTuple):
    """A function that the student writes, and the row of the ledger that judges it."""

    name: str  # of the function
    arguments: str  # its parameters
    title: str
    lesson: int
    row: str  # id in docs/equations.md
    minutes: int
    equation: str  # as shown when the answer is wrong
    contract: str  # the docstring after its first line: shapes, units, special values
    special: Callable[[], list[Case]] | None = None  # cases in place of the row's own
    advice: tuple[tuple[str, str], ...] = ()  # (kind of failure, sentence): "time", "shape" or "not finite"

    def cases(self) -> list[Case]:
        """The calls of the function, with what it must return and what well-known mistakes return."""
        return (self.special or verify.find(self.row).cases)()
