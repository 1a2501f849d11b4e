"""From the results of a student's function to a text that teaches, and gives nothing away but one entry.

A trial is one case with what came back. A known mistake is named when its numbers are the student's on every case
where it makes a difference, and the student is not right where it would be wrong.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tabrl.grading.bank_record import Exercise
from tabrl.types import F
from tabrl.verify.record import Case, Check
from tabrl.verify.users import place

ENTRIES = 40  # of an array that is printed whole
PART = 3  # a mistake that explains a third of what fails, or less, is not named


class Trial(NamedTuple):
    """One case, and what came of it."""

    case: Case
    check: Check
    value: F | None  # what was compared; None where nothing could be
    kind: str = ""  # of failure without a number: "time", "ended", "shape", "not finite", "raises" or "absent"
    private: bool = False  # a teacher's case, whose numbers are not shown


class Feedback(NamedTuple):
    """What an exercise came to."""

    exercise: str  # its name
    passed: bool
    reason: str  # in one line; "" if it passed
    mistake: str  # the known mistake, or ""
    text: str  # for the student
    cases: int  # how many there are
    right: int  # and how many came out right
    printed: str = ""  # by the file, for the student's own eyes

    @property
    def score(self) -> float:
        """1 if every case is right, else 0: an equation holds or it does not."""
        return float(self.passed)


class Diagnosis(NamedTuple):
    """A mistake that explains failing trials."""

    mistake: str
    trials: list[Trial]  # those that it explains
    all: bool  # whether nothing is left that it does not explain


def feedback(exercise: Exercise, trials: Sequence[Trial]) -> Feedback:
    """Say what is right, or what is wrong and why."""
    right = sum(x.check.passed for x in trials)
    if right == len(trials):
        text = f"{exercise.name}: passed, {right} of {right} cases."
        return Feedback(exercise.name, True, "", "", text, right, right)
    found = diagnose(trials)
    reason, lines = named(exercise, found, trials) if found else unnamed(exercise, trials)
    text = "\n".join(
        [
            f"{exercise.name}: not yet, {right} of {len(trials)} cases passed.",
            *lines,
            f"Equation {exercise.row}: {exercise.equation}",
        ]
    )
    return Feedback(exercise.name, False, reason, found.mistake if found else "", text, len(trials), right)


def refused(exercise: Exercise, why: str) -> Feedback:
    """Feedback on a file that could not be called at all."""
    count = len(exercise.cases())
    return Feedback(exercise.name, False, why, "", f"{exercise.name}: not graded.\n{why}", count, 0)


def diagnose(trials: Sequence[Trial]) -> Diagnosis | None:
    """Find the mistake that explains the failing trials, or a good part of them.

    A mistake that would have spoilt a trial which came out right explains nothing. Where a mistake has no answer, as
    its sums are infinite, it neither explains nor fails to.
    """
    fits: dict[tuple[str, int], list[Trial]] = {}
    misses: Counter[tuple[str, int]] = Counter()
    refuted: set[tuple[str, int]] = set()
    numbers = [x for x in trials if x.value is not None]
    for x in numbers:
        for key, wrong in numbered(x.case.mistakes()):
            differs = apart(x, wrong)
            if x.check.passed and differs:
                refuted.add(key)
            elif differs and equal(x, wrong):
                fits.setdefault(key, []).append(x)
            else:
                misses[key] += not x.check.passed
    failing = sum(not x.check.passed for x in numbers)
    found = [Diagnosis(key[0], y, not misses[key]) for key, y in fits.items() if key not in refuted]
    enough = [x for x in found if x.all or len(x.trials) > max(1, failing / PART)]
    return max(enough, key=lambda x: (x.all, len(x.trials)), default=None)


def numbered(mistakes: list[tuple[str, F]]) -> list[tuple[tuple[str, int], F]]:
    """Tell the forms of one mistake apart."""
    names = [name for name, _ in mistakes]
    return [((name, names[:k].count(name)), wrong) for k, (name, wrong) in enumerate(mistakes)]


def apart(x: Trial, wrong: F) -> bool:
    """Whether a mistake makes a difference on this case."""
    return bool(abs(wrong - x.case.expected).max() > x.check.tolerance)


def equal(x: Trial, wrong: F) -> bool:
    """Whether the student's numbers are those of the mistake."""
    return x.value is not None and bool(
        abs(x.value - wrong).max() <= x.check.tolerance * max(1.0, float(abs(wrong).max()))
    )


def size(x: Trial) -> int:
    """How many numbers a case has."""
    return sum(entries(y) for y in x.case.arguments)


def entries(x: Any) -> int:
    """Numbers and texts in an argument."""
    return sum(map(entries, x)) if isinstance(x, list | tuple) else int(np.size(x))


def named(exercise: Exercise, found: Diagnosis, trials: Sequence[Trial]) -> tuple[str, list[str]]:
    """One line, and the lines of the text, when the mistake is known."""
    shown = min(found.trials, key=lambda x: (x.private, size(x)))
    what = f"Your numbers are those of this mistake: {found.mistake}."
    if not found.all:
        failed = sum(not x.check.passed for x in trials)
        what = (
            f"On {len(found.trials)} of the {failed} cases that fail, your numbers are those of this mistake: "
            f"{found.mistake}. There is something else as well."
        )
    return found.mistake, [what, *also(exercise, trials), *example(exercise, shown), *difference(shown)]


def also(exercise: Exercise, trials: Sequence[Trial]) -> list[str]:
    """What failed in another way, if there is something to say about it."""
    said = dict(exercise.advice)
    found = [x for x in trials if x.value is None and not x.check.passed and x.kind in said]
    return [f"And {x.check.where}. {said[x.kind]}" for x in found[:1]]


def unnamed(exercise: Exercise, trials: Sequence[Trial]) -> tuple[str, list[str]]:
    """The same when no known mistake fits: the smallest case that fails, and what is first wrong there."""
    failed = [x for x in trials if not x.check.passed]
    ended = [x for x in failed if x.kind in ("time", "ended")]
    shown = ended[0] if ended else min(failed, key=lambda x: (x.private, size(x)))
    if shown.kind == "absent":
        return shown.check.where, [f"{shown.check.where}."]
    advice = [text for kind, text in exercise.advice if kind == shown.kind]
    if shown.value is None:
        return shown.check.where, [f"{shown.check.where}.", *advice, *example(exercise, shown)]
    remark = shown.case.remark(shown.value)
    hint = [f"Perhaps {remark}."] if remark else []
    reason = " ".join([*difference(shown), *hint]) or "it is wrong on a private case"
    return reason, [*hint, *example(exercise, shown), *difference(shown)]


def difference(x: Trial) -> list[str]:
    """The first entry that differs."""
    if x.value is None or x.private:
        return []
    wrong = np.argwhere(abs(x.value - x.case.expected) > x.check.tolerance)[0]
    at = tuple(int(i) for i in wrong)
    where = f"At {place(x.case, at)}" if at else f"For {place(x.case, at)}"
    found = "you have" if x.value.shape == x.case.shape else "the value of your policy is"
    return [f"{where} {found} {x.value[at]:.6g}; {x.case.expected[at]:.6g} is expected."]


def example(exercise: Exercise, x: Trial) -> list[str]:
    """The case with its arguments."""
    if x.private:
        return ["It shows on one of your teacher's own cases."]
    names = exercise.arguments.split(", ")
    shown = [f"    {name} = {short(y)}" for name, y in zip(names, x.case.arguments, strict=True)]
    return [f"The smallest case that shows it: {x.case.name}", *shown]


def short(x: Any) -> str:
    """Write an argument in a few lines.

    >>> short(np.array([0.5, 1.0])), short(np.ones((9, 9))), short([(np.array([1]), 0.25)])
    ('[0.5, 1]', 'an array of shape (9, 9)', '[([1], 0.25)]')
    >>> short(np.eye(7)[:, :6] * (np.arange(6) == 2) * 0.5)
    'zeros of shape (7, 6), but [2, 2]: 0.5'
    """
    if isinstance(x, list | tuple):
        inner = ", ".join(map(short, x))
        return f"[{inner}]" if isinstance(x, list) else f"({inner})"
    if isinstance(x, str):
        return repr(x)
    y = np.asarray(x)
    if y.ndim and y.size > ENTRIES:
        return sparse(y)
    if not y.ndim:
        return f"{y[()]:.4g}"
    form = {"float_kind": lambda v: f"{v:.4g}", "int_kind": str, "bool": str}
    text = np.array2string(y, separator=", ", formatter=form, max_line_width=10**6)  # type: ignore[arg-type]
    return re.sub(r",\s+", ", ", text)


def sparse(x: Any) -> str:
    """Write a large array: its shape, and what is not 0 if that is not much."""
    if np.count_nonzero(x) > ENTRIES:
        return f"an array of shape {x.shape}"
    found = ", ".join(f"[{', '.join(map(str, at))}]: {x[tuple(at)]:.4g}" for at in np.argwhere(x).tolist())
    return f"zeros of shape {x.shape}, but {found}"
