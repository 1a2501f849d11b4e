"""The files in tests/solutions: right in two styles, and wrong in the ways of the issue."""

import runpy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tabrl.grading.exercises import EXERCISES

SOLUTIONS = Path(__file__).parent / "solutions"
STYLES = ("arrays", "loops")


class Wrong(NamedTuple):
    """A function that makes a known mistake."""

    exercise: str
    words: str  # of what must be said
    function: Callable[..., Any]


def functions(file: Path) -> dict[str, Callable[..., Any]]:
    """The functions of a file, by name."""
    return {name: f for name, f in runpy.run_path(str(file)).items() if callable(f) and hasattr(f, "__code__")}


def right(style: str) -> dict[str, Callable[..., Any]]:
    """The solutions of one style."""
    return {name: f for file in sorted(SOLUTIONS.glob(f"{style}_*.py")) for name, f in functions(file).items()}


def wrong() -> dict[str, Wrong]:
    """The mistakes that are written out."""
    found = {}
    for file in sorted(SOLUTIONS.glob("wrong_*.py")):
        for name, f in functions(file).items():
            exercise, mark, _ = name.partition("__")
            if mark:
                found[name] = Wrong(exercise, str(f.__doc__), f)
    return found


def wrong_rows(rows: Iterable[str]) -> list[tuple[str, str, Callable[..., Any]]]:
    """Row, words and function of the mistakes that the rows' own cases tell."""
    found = [(EXERCISES[x.exercise], x) for x in wrong().values()]
    return [(y.row, x.words, x.function) for y, x in found if y.row in rows and y.special is None]
