"""The letters of a grid world, and checks of what its author wrote."""

from typing import Any

import numpy as np

from tabrl import checks
from tabrl.errors import ModelError
from tabrl.types import I

FLOOR, WALL, START, GOAL, TRAP = ".", "#", "S", "G", "X"
TERMINAL = GOAL + TRAP
CLIFF = "C"  # drawn like a trap; no state, or one that is never entered


def rows_of(lines: Any) -> tuple[str, ...]:
    """Check that the rows are non-empty strings of one length."""
    rows = tuple(map(str, lines))
    if not rows:
        raise ModelError("text is empty; rows of cells, separated by spaces or newlines, are expected")
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ModelError(f"text[row={i}] has {len(row)} cells; {len(rows[0])} are expected, as in row 0")
    return rows


def characters(layout: tuple[str, ...]) -> Any:
    """Return the layout as a (rows, columns) array of single characters."""
    return np.array(layout).view("<U1").reshape(len(layout), -1).copy()


def check_letters(chars: Any, named: set[str]) -> None:
    """Refuse characters that neither the alphabet nor the keywords explain, and names of several letters."""
    for name in sorted(named):
        if len(name) != 1 or name in WALL:
            raise ModelError(f"letter {name!r} names no kind of cell; one character other than '#' is expected")
    unknown = ~np.isin(chars, [FLOOR, WALL, START, GOAL, TRAP, *named])
    if unknown.any():
        i, j = np.argwhere(unknown)[0]
        raise ModelError(
            f"text[row={i}, column={j}] is {str(chars[i, j])!r}; one of '.', '#', 'S', 'G', 'X', or a letter "
            "in rewards, jumps or falls, is expected"
        )


def check_sources(jumps: dict[str, str], falls: dict[str, str]) -> None:
    """Refuse jumps and falls from letters that have a meaning of their own."""
    for letter in (*jumps, *falls):
        if letter in FLOOR + TERMINAL or (letter in falls and (letter == START or letter in jumps)):
            raise ModelError(
                f"letter {letter!r} cannot lead elsewhere, it has a meaning already; choose another letter"
            )


def whole(x: Any, name: str, shape: tuple[int, ...]) -> I:
    """Copy `x` to int64; refuse fractions and other shapes."""
    y = checks.real(x, name, shape)
    if (y != np.round(y)).any():
        raise ModelError(f"{name} has a fraction; whole numbers are expected")
    return y.astype(np.int64)


def number(x: float, name: str) -> float:
    """Return a finite reward as a float."""
    if not np.isfinite(x):
        raise ModelError(f"rewards[{name!r}] is {x}; a finite number is expected")
    return float(x)
