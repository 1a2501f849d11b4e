"""Things that are made by their name."""

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from tabrl.errors import ModelError

T = TypeVar("T")


def constructor(name: str, table: Mapping[str, Callable[..., T]], what: str) -> Callable[..., T]:
    """The constructor of a name in a table. Raises ModelError, with the close matches, for an unknown one.

    >>> constructor("lst", {"list": list, "tuple": tuple}, "a sequence")
    Traceback (most recent call last):
    tabrl.errors.ModelError: name is 'lst'; the name of a sequence is expected; did you mean list?
    """
    if name not in table:
        close = difflib.get_close_matches(str(name), table) or list(table)
        raise ModelError(f"name is {name!r}; the name of {what} is expected; did you mean {', '.join(close)}?")
    return table[name]
