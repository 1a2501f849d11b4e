"""One cell of an experiment: its name, its random stream and its file.

A cell is a function, the values of its parameters, a replicate number and a seed.
"""

import hashlib
import inspect
import json
import operator
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tabrl.errors import ModelError
from tabrl.files import DAMAGE, headers
from tabrl.output import atomic

Array: TypeAlias = npt.NDArray[Any]
Value: TypeAlias = bool | int | float | str
Function: TypeAlias = Callable[..., Any]
FORMAT = 1


class Cell(NamedTuple):
    """What decides the result of one call."""

    parameters: dict[str, Value]
    replicate: int
    seed: int


def canonical(x: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one value, on every machine.

    >>> canonical({"n": 4, "alpha": 0.1})
    '{"alpha":0.1,"n":4}'
    """
    return json.dumps(x, sort_keys=True, separators=(",", ":"), allow_nan=False)


def stream(cell: Cell) -> np.random.Generator:
    """The random stream of a cell, a child of `SeedSequence(seed)`.

    spawn_key = the eight 32-bit words of sha256(canonical JSON of the parameters and the replicate)

    So it depends on nothing but the cell itself: not on the other values of the grid, on the order of the
    cells or on the worker. Cells that differ in any parameter or in the replicate have independent streams.
    Raises ValueError for a negative seed.

    >>> a, b = (stream(Cell({"alpha": 0.1}, i, seed=0)).random() for i in (0, 1))
    >>> a != b and a == stream(Cell({"alpha": 0.1}, 0, seed=0)).random()
    True
    """
    text = canonical({"parameters": cell.parameters, "replicate": cell.replicate})
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=">u4")
    return np.random.default_rng(np.random.SeedSequence(cell.seed, spawn_key=tuple(map(int, words))))


def label(function: Function) -> str:
    """Module and qualified name; a script that is being run counts as the module of its file name.

    >>> label(canonical)
    'tabrl.cells.canonical'
    """
    module = getattr(function, "__module__", None) or "?"
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    module = Path(file).stem if module == "__main__" and file else module
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def description(function: Function, version: Value, cell: Cell) -> str:
    """Everything that names the result of a cell, as canonical JSON; the file is called after its sha256."""
    return canonical({"function": label(function), "version": version, **cell._asdict()})


def path(folder: Path, text: str) -> Path:
    """The file of the cell that `text` describes."""
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"


def brief(x: Any) -> str:
    """One line for an error message: the first 60 characters of repr(x)."""
    return " ".join(repr(x).split())[:60]


def as_arrays(result: Any) -> dict[str, Array]:
    """What a cell returned, as named arrays; a single array is called "value".

    Raises ValueError for anything but numbers, arrays of real numbers, and mappings from text to these.

    >>> as_arrays(3.0)
    {'value': array(3.)}
    """
    named = result if isinstance(result, Mapping) else {"value": result}
    out = {}
    for name, x in named.items():
        y = np.asarray(x)
        if not isinstance(name, str) or y.dtype.kind not in "biuf" or np.ma.is_masked(x):
            raise ValueError(
                f"the result {name!r} is {brief(x)}; a real number, an array of them, or a dict of both is expected"
            )
        out[name] = y
    if not out:
        raise ValueError("the result is an empty dict; at least one array is expected")
    return dict(sorted(out.items()))


def save(file: Path, text: str, arrays: Mapping[str, Array]) -> None:
    """Write a finished cell whole or not at all: what it is, and its arrays. No pickle."""
    header = canonical({"format": FORMAT, "cell": text, "names": list(arrays)})
    members: dict[str, Any] = {f"x{i}": x for i, x in enumerate(arrays.values())}
    with atomic(file) as out:
        np.savez(out, header=np.array(header), **members)


def load(file: Path, text: str) -> dict[str, Array]:
    """Read the arrays of a finished cell; raise ModelError where the file is damaged or holds another cell."""
    what = f"file[{str(file)!r}]"
    try:
        held, arrays = contents(file)
    except (ModelError, *DAMAGE) as error:
        reason = str(error).partition(";")[0]
        raise ModelError(
            f"{what} is not readable ({reason}); a finished cell is expected; delete it and run again"
        ) from None
    if held != text:
        raise ModelError(f"{what} holds {held}; {text} is expected; delete it and run again")
    return arrays


def contents(file: Path) -> tuple[str, dict[str, Array]]:
    """What a file says it holds, and its arrays."""
    with open(file, "rb") as source:
        headers(source, "it", "a sweep")  # refuses objects and sizes that the file does not hold
        source.seek(0)
        with np.load(source, allow_pickle=False) as members:
            header = json.loads(str(members["header"]))
            if header["format"] != FORMAT:
                raise ModelError(f"it has format {header['format']}, not {FORMAT}")
            return header["cell"], {str(name): members[f"x{i}"] for i, name in enumerate(header["names"])}


def clean(folder: Path, files: Iterable[Path]) -> None:
    """Remove what a killed run left of these files: half-written temporary files, never finished cells."""
    names = {file.name for file in files}
    for entry in os.scandir(folder):
        if entry.name.endswith(".part") and entry.name[1:].rpartition(".npz")[0] + ".npz" in names:
            Path(entry.path).unlink(missing_ok=True)


def check_values(name: Any, values: Any) -> tuple[Value, ...]:
    """Turn the values of one parameter into plain Python numbers and strings; refuse anything else."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"grid has the parameter {name!r}; the name of an argument is expected")
    flat = values.ndim == 1 if isinstance(values, np.ndarray) else isinstance(values, list | tuple | range)
    if not flat or not len(values):
        raise ValueError(f"grid[{name!r}] is {brief(values)}; a list of one or more numbers or strings is expected")
    plain = tuple(check_value(x, f"grid[{name!r}][{i}]") for i, x in enumerate(values))
    for i, x in enumerate(plain):
        if x in plain[:i]:
            raise ValueError(f"grid[{name!r}][{i}] is {x!r} for the second time; distinct values are expected")
    return plain


def check_value(x: Any, name: str) -> Value:
    """Return a plain Python number or string."""
    x = x.item() if isinstance(x, np.generic) else x
    if type(x) not in (bool, int, float, str) or (isinstance(x, float) and not np.isfinite(x)):
        raise ValueError(f"{name} is {brief(x)}; a finite number, True, False or a string is expected")
    return x  # type: ignore[no-any-return]


def check_count(n: Any, name: str, least: int) -> int:
    """Return n as an int that is not below `least`."""
    try:
        value = operator.index(n)
    except TypeError:
        value = least - 1
    if isinstance(n, bool) or value < least:
        raise ValueError(f"{name} is {n!r}; an integer >= {least} is expected")
    return value


def check_call(function: Function, parameters: Iterable[str]) -> None:
    """Require a function that can be called as f(rng, **parameters)."""
    names = list(parameters)
    try:
        inspect.signature(function).bind(None, **dict.fromkeys(names))
    except TypeError as error:
        call = ", ".join(["rng", *(f"{name}=..." for name in names)])
        raise ValueError(f"cell {label(function)} cannot be called as f({call}): {error}") from None


def check_name(function: Function, why: str) -> None:
    """Require a function at the top level of a module: other processes and later runs know it by its name."""
    if not inspect.isfunction(function) or "<" in function.__qualname__:
        raise ValueError(
            f"cell is {brief(function)}; {why} needs a function at the top level of a module"
            "; give fixed arguments as grid entries with one value"
        )
