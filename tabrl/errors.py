"""The errors of the package.

Every message reads `<what>[<where>] is <value>; <what is expected>[; <what to do>]`.
"""

from typing import Any


class ModelError(ValueError):
    """The arrays do not describe a Markov decision process, or the question has no finite answer."""


class ShapeError(ValueError):
    """An array has the wrong number of axes or the wrong length along one."""


class NotConverged(RuntimeError):
    """An iteration stopped short of its tolerance; `.last` is the last record it produced."""

    def __init__(self, message: str, last: Any = None) -> None:
        super().__init__(message)
        self.last = last


class MissingExtra(ImportError):
    """An optional library is not installed; the message gives the pip command."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f'{library} is not installed; {purpose} needs it; run: pip install "tabrl[{extra}]"')
