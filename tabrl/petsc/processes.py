"""What the processes say to each other, through petsc4py alone.

Every function here is collective: all processes call it, in the same order. k numbers per process; n own entries.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

import numpy as np

from tabrl.errors import MissingExtra, ModelError
from tabrl.types import F, I

Result = TypeVar("Result")


def petsc() -> Any:
    """Return petsc4py's module PETSc; raises MissingExtra where petsc4py is not installed."""
    try:
        return import_module("petsc4py.PETSc")
    except ImportError:
        raise MissingExtra("petsc4py", "petsc", "a model spread over processes") from None


def share(S: int) -> tuple[int, int]:
    """First state of this process, and one past its last: as even as can be, in order of the processes."""
    comm = petsc().COMM_WORLD
    if comm.size > S:
        raise ModelError(f"S is {S} for {comm.size} processes; at least one state per process is expected")
    return S * comm.rank // comm.size, S * (comm.rank + 1) // comm.size


def largest(*numbers: float) -> list[float]:
    """Largest of each number over all processes; nan counts as inf, -inf stays what it is."""
    vector = petsc().Vec().createMPI((len(numbers), None), bsize=len(numbers))
    vector.array[:] = np.where(np.isnan(numbers), np.inf, numbers)
    found = [float(vector.strideMax(i)[1]) for i in range(len(numbers))]
    return [x if x > -sys.float_info.max else -math.inf for x in found]  # PETSc starts from the lowest finite number


def total(number: float) -> float:
    """Sum of a number over all processes."""
    vector = petsc().Vec().createMPI((1, None))
    vector.array[:] = number
    return float(vector.sum())


class Spread:
    """A vector of S numbers, n of them on this process, with copies of the g numbers of others that are named."""

    def __init__(self, n: int, S: int, ghosts: I) -> None:
        self.ghosts = ghosts
        self.vector = petsc().Vec().createGhost(ghosts.astype(petsc().IntType), (n, S))

    @property
    def own(self) -> F:
        """The numbers (n,) of this process, to read or to write."""
        return self.vector.array  # type: ignore[no-any-return]

    @contextmanager
    def all(self) -> Iterator[F]:
        """The numbers (n,) of this process, and the newest (g,) of others after them."""
        self.vector.ghostUpdate()
        with self.vector.localForm() as local:
            yield local.array


def gather(own: F) -> F:
    """The whole array (N,…), on every process, of which each process holds its part (n,…).

    A field of a `Share` becomes that of the whole model, where it fits into the memory of each process.
    """
    vector = petsc().Vec().createMPI((own.size, None))
    vector.array[:] = own.ravel()
    scatter, whole = petsc().Scatter.toAll(vector)
    scatter.scatter(vector, whole)
    out: F = whole.array.reshape(-1, *own.shape[1:]).copy()
    for part in (scatter, whole, vector):
        part.destroy()
    return out


def together(work: Callable[[], Result]) -> Result:
    """Do work that needs no other process; where it fails on one process, all raise the error of the first of them."""
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:
        failure = error
    rank = petsc().COMM_WORLD.rank
    first = -largest(-rank if failure else -np.inf)[0]
    if first == np.inf:
        return result
    said = str(failure) if isinstance(failure, ValueError) else f"{type(failure).__name__}: {failure}"
    text = gather(np.frombuffer(said.encode() if rank == first else b"", np.uint8).astype(np.float64))
    if failure and rank == first:
        raise failure
    raise ModelError(text.astype(np.uint8).tobytes().decode())
