"""Run a function over seeds and a grid of parameters, on one core or many, and lose nothing to a kill.

A cell is one call f(rng, **parameters): the values of the parameters, a replicate number and a seed.
"""

import itertools
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

from tabrl import cells
from tabrl.cells import Array, Cell, Function, Value
from tabrl.errors import ShapeError


class Failed(NamedTuple):
    """A cell that raised."""

    parameters: dict[str, Value]
    replicate: int
    error: str  # type and message
    traceback: str


@dataclass(frozen=True)
class Result:
    """The arrays of all cells, stacked: one axis per parameter in the order of the grid, then the replicates.

    result["name"] has shape (*lengths of the grid, replicates, *shape of one cell). Failed cells are listed in
    `failed` and are NaN in the arrays, which are then floating-point.
    """

    grid: dict[str, tuple[Value, ...]]
    replicates: int
    arrays: dict[str, Array]
    failed: tuple[Failed, ...] = ()

    @property
    def axis(self) -> int:
        """The axis of the replicates, to give to `mean`, `quantiles` and the other summaries."""
        return len(self.grid)

    @property
    def value(self) -> Array:
        """The stacked array of a function that returns a single array."""
        return self["value"]

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            raise KeyError(f"result has no array {name!r}; one of {', '.join(self.arrays)} is expected")
        return self.arrays[name]

    def select(self, **values: Value) -> "Result":
        """Keep the cells with these values of parameters; their axes disappear.

        Values compare exactly. Raises ValueError for a name or a value that is not in the grid.

        >>> def product(rng, a, b):
        ...     return a * b
        >>> run(product, {"a": [2, 3], "b": [5, 7]}, 1).select(a=3).value[:, 0]
        array([15, 21])
        """
        for name, x in values.items():
            choices = self.grid.get(name)
            if choices is None:
                raise ValueError(f"{name} is not a parameter of the grid; one of {', '.join(self.grid)} is expected")
            if x not in choices:
                raise ValueError(f"{name} is {x!r}; one of {', '.join(map(repr, choices))} is expected")
        index = tuple(row.index(values[name]) if name in values else slice(None) for name, row in self.grid.items())
        return Result(
            {name: row for name, row in self.grid.items() if name not in values},
            self.replicates,
            {name: x[index] for name, x in self.arrays.items()},
            tuple(f for f in self.failed if all(f.parameters[name] == x for name, x in values.items())),
        )


def run(
    f: Function, grid: Mapping[str, Any], seeds: int, seed: int = 0, *, folder: str | Path | None = None,
    jobs: int | None = None, version: Value = 0, progress: bool = True,
) -> Result:  # fmt: skip
    """Call f(rng, **parameters) for every combination of the grid and for every replicate 0, …, seeds - 1.

    f returns a number, an array or a dict of arrays, of the same shapes for every cell. Where f runs a generator of
    records, it returns `column(records, "residual")` or `last(records).V` (see `tabrl.trace`).
    grid: name -> list of numbers or strings; {} is a single combination. seed: a non-negative integer.

    Each cell has its own stream, a child of SeedSequence(seed) whose key is the sha256 of the parameters and the
    replicate (`tabrl.cells.stream`). So the bits of a cell do not depend on the number of workers, on the order or
    on the rest of the grid: longer lists and more seeds leave the old cells as they are.

    jobs: processes; -1 is one per processor; None is 1, or what `joblib.parallel_config` says, a cluster included.
    folder: keep each finished cell there, as one .npz file without pickle, renamed into place when it is complete.
    After a kill, the same call computes only what is missing. A file is known by the module and name of f,
    `version`, the parameters, the replicate and the seed; change `version` when f computes something else.
    One run at a time may use the same cells of a folder.

    A cell that raises is listed in `Result.failed`, is NaN in the arrays, and is tried again by the next run; the
    others go on. A progress bar goes to stderr if that is a terminal; the count of failures always, unless progress
    is False. Raises ValueError for a bad grid or function, ModelError for a damaged file of the folder, ShapeError
    where cells disagree in shape, RuntimeError if all cells fail.

    >>> def sample_mean(rng, n):
    ...     return rng.random(n).mean()
    >>> result = run(sample_mean, {"n": [10, 1000]}, seeds=50)
    >>> result.value.shape
    (2, 50)
    >>> result.value.std(axis=result.axis).round(2)
    array([0.09, 0.01])
    """
    axes = {name: cells.check_values(name, values) for name, values in grid.items()}
    check(f, axes, folder, jobs)
    seeds, seed = cells.check_count(seeds, "seeds", 1), cells.check_count(seed, "seed", 0)
    todo = plan(axes, seeds, seed)
    outcomes: dict[int, dict[str, Array] | Failed] = {}
    version = cells.check_value(version, "version")
    store = Store(f, version, Path(folder), todo) if folder is not None else None
    if store is not None:
        outcomes = store.finished()
    with bar(len(todo), len(outcomes), progress) as tick:
        for i, outcome in compute(f, todo, outcomes, jobs):
            if store is not None and not isinstance(outcome, Failed):
                store.keep(i, outcome)
            outcomes[i] = outcome
            tick(isinstance(outcome, Failed))
    result = stack(axes, seeds, [outcomes[i] for i in range(len(todo))])
    if result.failed and progress:
        first = result.failed[0]
        print(f"{len(result.failed)} of {len(todo)} cells failed; the first: {show(first)}", file=sys.stderr)
    return result


def check(f: Function, axes: Mapping[str, Any], folder: str | Path | None, jobs: int | None) -> None:
    """Refuse a function that cannot be called with this grid, or not by other processes."""
    if not callable(f):
        raise ValueError(f"cell is {cells.brief(f)}; a function f(rng, **parameters) is expected")
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs == 0 or jobs < -1):
        raise ValueError(f"jobs is {jobs!r}; a positive integer, -1 for all processors, or None is expected")
    if folder is not None:
        cells.check_name(f, "a folder of finished cells")
    if joblib.effective_n_jobs(jobs) != 1:
        cells.check_name(f, "more than one worker")
    cells.check_call(f, axes)


def plan(axes: Mapping[str, tuple[Value, ...]], seeds: int, seed: int) -> list[Cell]:
    """All cells, the replicate running fastest."""
    combinations = itertools.product(*axes.values())
    return [Cell(dict(zip(axes, row, strict=True)), i, seed) for row in combinations for i in range(seeds)]


class Store:
    """The finished cells of one experiment in a folder."""

    def __init__(self, f: Function, version: Value, folder: Path, todo: Iterable[Cell]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.texts = [cells.description(f, version, cell) for cell in todo]
        self.files = [cells.path(folder, text) for text in self.texts]
        cells.clean(folder, self.files)

    def finished(self) -> dict[int, Any]:
        """Load the arrays of every cell that has a file."""
        pairs = enumerate(zip(self.files, self.texts, strict=True))
        return {i: cells.load(file, text) for i, (file, text) in pairs if file.exists()}

    def keep(self, i: int, arrays: Mapping[str, Array]) -> None:
        """Write one finished cell."""
        cells.save(self.files[i], self.texts[i], arrays)


def compute(
    f: Function, todo: list[Cell], done: Mapping[int, Any], jobs: int | None
) -> Iterator[tuple[int, dict[str, Array] | Failed]]:
    """Yield the outcome of each missing cell as soon as it is there."""
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    missing = [i for i in range(len(todo)) if i not in done]
    with closing(parallel(joblib.delayed(attempt)(f, i, todo[i]) for i in missing)) as outcomes:
        yield from outcomes


def attempt(f: Function, i: int, cell: Cell) -> tuple[int, dict[str, Array] | Failed]:
    """Run one cell; an exception becomes a record."""
    try:
        return i, cells.as_arrays(f(cells.stream(cell), **cell.parameters))
    except Exception as error:
        return i, Failed(cell.parameters, cell.replicate, f"{type(error).__name__}: {error}", traceback.format_exc())


@contextmanager
def bar(total: int, done: int, progress: bool) -> Iterator[Callable[[bool], None]]:
    """Show a progress bar on stderr, if that is a terminal; give the function that counts a cell."""
    if not progress or not sys.stderr.isatty():
        yield lambda failed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failures = 0
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task("cells", total=total, completed=done)

        def tick(failed: bool) -> None:
            nonlocal failures
            failures += failed
            display.update(task, advance=1, description=f"cells ({failures} failed)" if failures else "cells")

        yield tick


def stack(axes: dict[str, tuple[Value, ...]], seeds: int, outcomes: list[dict[str, Array] | Failed]) -> Result:
    """Put the arrays of all cells together; failed cells become NaN."""
    failed = tuple(x for x in outcomes if isinstance(x, Failed))
    first = next((x for x in outcomes if not isinstance(x, Failed)), None)
    if first is None:
        raise RuntimeError(f"all {len(failed)} cells failed; the first: {show(failed[0])}\n{failed[0].traceback}")
    grid_shape = (*map(len, axes.values()), seeds)
    shapes = {name: x.shape for name, x in first.items()}
    hole = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
    rows = [hole if isinstance(x, Failed) else x for x in outcomes]
    for i, row in enumerate(rows):
        if (found := {name: x.shape for name, x in row.items()}) != shapes:
            where = ", ".join(map(str, np.unravel_index(i, grid_shape)))
            raise ShapeError(f"cell[{where}] has shapes {found}; {shapes} is expected, as in the first cell")
    arrays = {name: np.stack([row[name] for row in rows]).reshape(grid_shape + shapes[name]) for name in shapes}
    return Result(axes, seeds, arrays, failed)


def show(failed: Failed) -> str:
    """One line about a failed cell."""
    where = ", ".join(f"{name}={x!r}" for name, x in failed.parameters.items())
    return f"({where}{', ' if where else ''}replicate {failed.replicate}) {failed.error}"
