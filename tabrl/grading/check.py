"""Grade a student's file: run its functions apart from here, judge what they return, and say what is wrong.

The cases are those of the ledger (tabrl.verify), and a teacher's own. Everything is deterministic.
"""

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tabrl.errors import ModelError
from tabrl.grading import sandbox
from tabrl.grading.bank_record import Exercise
from tabrl.grading.exercises import EXERCISES
from tabrl.grading.feedback import Feedback, Trial, feedback, refused
from tabrl.grading.sandbox import LIMITS, Limits
from tabrl.verify import find as find_row
from tabrl.verify.record import Case
from tabrl.verify.users import compare, complaint, failed, run_file, usable

TOLERANCE = 1e-6  # times the largest |expected|, or times 1 if that is larger

PrivateCases = Callable[[str], Sequence[Case]]  # of the exercise of this name


class Returned(NamedTuple):
    """What came back from the calls of one exercise."""

    values: Sequence[Any]
    reasons: Sequence[str]  # "" where a value came back
    end: str = ""  # why calls were not made at all
    printed: str = ""  # by the file, whichever function it was


def check(
    exercise: Exercise, file: str | Path, *, private: PrivateCases | None = None, limits: Limits = LIMITS
) -> Feedback:
    """Grade one exercise of a student's file.

    private: a teacher's further cases. limits: what the file may use. Raises OSError if the file cannot be read.
    """
    return check_file(file, [exercise], private=private, limits=limits)[0]


def check_file(
    file: str | Path, exercises: Sequence[Exercise], *, private: PrivateCases | None = None, limits: Limits = LIMITS
) -> list[Feedback]:
    """Grade several exercises of one file, in one process as long as it goes on.

    When a function ends the process, the exercises behind it get a new one.
    """
    cases = [[*x.cases(), *own(private, x)] for x in exercises]
    returned = run_all(file, exercises, cases, limits)
    return [judge(x, y, z) for x, y, z in zip(exercises, cases, returned, strict=True)]


def own(private: PrivateCases | None, exercise: Exercise) -> list[Case]:
    """A teacher's cases of an exercise. Raises ValueError for what is no case."""
    found = list(private(exercise.name)) if private else []
    for k, x in enumerate(found):
        if not isinstance(x, Case):
            raise ValueError(f"cases({exercise.name!r})[{k}] is {x!r}; a tabrl.verify.Case is expected")
    return found


def run_all(
    file: str | Path, exercises: Sequence[Exercise], cases: Sequence[Sequence[Case]], limits: Limits
) -> list[Returned]:
    """Call the functions with the arguments of their cases."""
    found: list[Returned] = []
    while len(found) < len(exercises):
        rest = range(len(found), len(exercises))
        calls = [(exercises[k].name, case.arguments) for k in rest for case in cases[k]]
        result = sandbox.run(file, calls, limits=limits)
        at = 0
        for k in rest:
            reasons = result.reasons[at : at + len(cases[k])]
            values = result.values[at : at + len(cases[k])]
            at += len(cases[k])
            found.append(Returned(values, reasons, result.reason, result.output))
            if result.reason and result.reason in reasons and not result.reason.startswith("on import"):
                break  # it ended here: what comes behind has not been tried
    return found


def judge(exercise: Exercise, cases: Sequence[Case], returned: Returned) -> Feedback:
    """Compare what came back with what is expected."""
    if returned.end.startswith("on import"):
        return refused(exercise, returned.end)._replace(printed=returned.printed)
    public = len(exercise.cases())
    with np.errstate(all="ignore"):  # a student's numbers may be as large as they like
        trials = [
            trial(exercise, case, value, reason, k >= public, returned.end)
            for k, (case, value, reason) in enumerate(zip(cases, returned.values, returned.reasons, strict=True))
        ]
        return feedback(exercise, trials)._replace(printed=returned.printed)


def trial(exercise: Exercise, case: Case, value: Any, reason: str, private: bool = False, end: str = "") -> Trial:
    """Judge one call: a value, or the reason why there is none."""
    row = find_row(exercise.row)
    tolerance = TOLERANCE * max(1.0, float(abs(case.expected).max()))
    quantity = f"{exercise.name} on {case.name}"

    def without(why: str, kind: str) -> Trial:
        return Trial(case, failed(row.id, quantity, tolerance, why), None, kind, private)

    if reason:
        return without(*told(reason, end))
    if complex_numbers(value):
        return without("it returns complex numbers; real ones are expected", "raises")
    try:
        raw = usable(value, case)
    except ValueError as error:
        return without(str(error), "not finite" if "finite" in str(error) else "shape")
    try:
        measured = case.measure(raw)
    except (ValueError, ModelError) as error:
        return without(str(error), "raises")
    return Trial(case, compare(row, quantity, case, measured, tolerance), measured, private=private)


def complex_numbers(value: Any) -> bool:
    """Whether a result is complex; what is no array at all is not."""
    try:
        return np.asarray(value).dtype.kind == "c"
    except (TypeError, ValueError):
        return False


def told(reason: str, end: str) -> tuple[str, str]:
    """The reason in the student's words, and its kind."""
    if "NotImplementedError: write me" in reason:
        return "it is not written yet", "absent"
    if reason.startswith("it has no function"):
        return reason, "absent"
    if reason != end:
        return reason, "raises"
    return reason, "time" if "takes more than" in reason or "processor time" in reason else "ended"


def functions(file: str | Path) -> list[str]:
    """Names of the functions at the top of a file, without running it.

    Raises ValueError where it is no Python, or too long to be read as such.
    """
    size = Path(file).stat().st_size
    if size > sandbox.SOURCE:
        raise ValueError(f"{file} has {size} bytes; at most {sandbox.SOURCE} are expected")
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{file} is not Python: {cause(error)}") from None
    return [x.name for x in tree.body if isinstance(x, ast.FunctionDef)]


def cause(error: BaseException) -> str:
    """What is wrong, without the name of a file that nobody knows."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{error.msg} (line {error.lineno}); mend that line"
    return str(error)


def exercises_of(file: str | Path) -> list[Exercise]:
    """The exercises that a file has functions for, in the order of the list."""
    there = set(functions(file))
    return [x for name, x in EXERCISES.items() if name in there]


def private_cases(path: str | Path) -> PrivateCases:
    """Read a teacher's file: it is run here, and trusted. Its function cases(name) returns a list of Case.

    It may register exercises of its own, and then needs no function. Raises ValueError or FileNotFoundError.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not a file; a Python file that defines cases(name) is expected")
    before = len(EXERCISES)
    found = getattr(run_file(file, str(path)), "cases", None)
    if found is None and len(EXERCISES) > before:
        return lambda name: []
    if not callable(found):
        raise ValueError(f"{path} has no function 'cases'; cases(name), which returns a list of Case, is expected")

    def cases(name: str) -> list[Case]:
        try:
            return list(found(name))
        except Exception as error:
            why = " ".join(complaint(error, str(file)).split())
            raise ValueError(f"{path}: cases({name!r}) raises {why}; a list of Case is expected") from error

    return cases
