"""NumPy or torch, by the argument: an equation that is written once runs on the arrays of either.

xp the module whose functions act on the arguments. torch is looked up among the modules that are loaded already, never
imported: whoever holds a tensor has loaded it.
"""

import sys
from typing import Any, TypeAlias

import numpy as np

from tabrl.errors import ShapeError

NUMPY = (np.ndarray, np.generic)
Array: TypeAlias = Any  # a NumPy array or a torch tensor; the arguments of one call are of one kind


def namespace(**arrays: Array) -> Any:
    """The library of the arrays, numpy or torch, once they are of one kind and one shape.

    Raises TypeError for what is neither, or for a mixture; ShapeError where a shape differs from the first one's.

    >>> namespace(x=np.zeros(2), y=np.ones(2)).__name__
    'numpy'
    """
    first, x = next(iter(arrays.items()))
    xp, shape = library(x, first), x.shape
    for name, y in arrays.items():
        if library(y, name) is not xp:
            raise TypeError(f"{name} is a {type(y).__name__}; a {type(x).__name__} is expected, as {first} is one")
        if y.shape != shape:
            raise ShapeError(f"{name} has shape {tuple(y.shape)}; the shape of {first}, {tuple(shape)}, is expected")
    return xp


def library(x: Array, name: str) -> Any:
    """The module that an array belongs to. Raises TypeError for anything but a NumPy array or a torch tensor."""
    if isinstance(x, NUMPY):
        return np
    torch = sys.modules.get("torch")
    if isinstance(x, getattr(torch, "Tensor", ())):
        return torch
    raise TypeError(f"{name} is a {type(x).__name__}; a NumPy array or a torch tensor is expected")


def at_least(least: float, **numbers: float | None) -> None:
    """Require each number, by its argument's name, to be given and no smaller than `least`."""
    for name, x in numbers.items():
        if x is None or not x >= least:
            raise ValueError(f"{name} is {x}; a number >= {least} is expected")


def one_of(names: tuple[str, ...], **choice: str) -> None:
    """Require a choice, by its argument's name, to be one of the names."""
    for name, x in choice.items():
        if x not in names:
            raise ValueError(f"{name} is {x!r}; one of {', '.join(names)} is expected")
