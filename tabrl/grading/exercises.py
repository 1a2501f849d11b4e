"""The exercises in the order of the lessons, and the files that students start from.

An exercise is known by its number or by the name of its function.
"""

import difflib
import shlex
import textwrap

from tabrl import verify
from tabrl.grading import bank_control, bank_gradients, bank_groups, bank_prediction, bank_tokens
from tabrl.grading.bank_record import Exercise

__all__ = ["EXERCISES", "Exercise", "find", "number", "register", "stub"]

BANKS = (bank_prediction, bank_control, bank_gradients, bank_tokens, bank_groups)
EXERCISES: dict[str, Exercise] = {
    x.name: x for x in sorted((x for bank in BANKS for x in bank.EXERCISES), key=lambda x: x.lesson)
}


def find(which: str | int) -> Exercise:
    """Return an exercise by its number or name. Raises ValueError, with the close names.

    >>> find("td0").title
    'TD(0) along an episode'
    >>> find(1).name
    'returns'
    """
    names = list(EXERCISES)
    key = str(which)
    if key.isdecimal() and 1 <= int(key) <= len(names):
        return EXERCISES[names[int(key) - 1]]
    if key in EXERCISES:
        return EXERCISES[key]
    close = difflib.get_close_matches(key, names, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(f"exercise is {key!r}; 1 to {len(names)}, or a name of the list, is expected{hint}")


def register(exercise: Exercise) -> None:
    """Add a teacher's exercise at the end of the list.

    Raises ValueError if its name is taken or no name of a function, or its row is none of the ledger's.
    """
    if not exercise.name.isidentifier() or exercise.name in EXERCISES:
        raise ValueError(f"the exercise's name is {exercise.name!r}; a function's name that is not taken is expected")
    verify.find(exercise.row)
    EXERCISES[exercise.name] = exercise


def number(exercise: Exercise) -> int:
    """Place of an exercise in the list, from 1.

    >>> number(find("returns"))
    1
    """
    return list(EXERCISES).index(exercise.name) + 1


def stub(exercise: Exercise, cases: str = "") -> str:
    """Text of the file that the student starts from: signature, contract, equation, and no body.

    cases: the teacher's file, if it is checked with one.

    >>> print(stub(find("returns")).partition("def ")[2].partition(":")[0])
    returns(r, discount)
    """
    about = f"lesson {exercise.lesson}, equation {exercise.row}: about {exercise.minutes} minutes"
    contract, equation = paragraph(exercise.contract), paragraph(f"Equation: {exercise.equation}", deeper=4)
    option = with_cases(cases).replace("\\", "\\\\").replace('"', '\\"')  # it stands in a docstring
    return f'''"""Exercise {number(exercise)}, {about}.

Write the body of the function, then run

    tabrl exercise check {exercise.name}.py{option}

NumPy is there; tabrl is not: write it yourself. You get copies, which you may change.
"""

import numpy as np


def {exercise.name}({exercise.arguments}):
    """{exercise.title}.

{contract}

{equation}
    """
    raise NotImplementedError("write me")
'''


def with_cases(cases: str) -> str:
    """The option of the command line that names a teacher's file, if there is one.

    >>> with_cases("my cases.py")
    " --cases 'my cases.py'"
    """
    return f" --cases {shlex.quote(cases)}" if cases else ""


def paragraph(text: str, deeper: int = 0) -> str:
    """Break a text into indented lines."""
    return textwrap.fill(" ".join(text.split()), 110, initial_indent=" " * 4, subsequent_indent=" " * (4 + deeper))
