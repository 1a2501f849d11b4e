"""Grade a folder of submissions: one folder or file for each student.

A submission that fails, hangs or kills its process gets a reason and no marks, and the next one is not touched.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tabrl.grading.bank_record import Exercise
from tabrl.grading.check import PrivateCases, check_file, functions
from tabrl.grading.exercises import EXERCISES
from tabrl.grading.feedback import Feedback, refused
from tabrl.grading.output import Submission
from tabrl.grading.sandbox import LIMITS, Limits


class Student(NamedTuple):
    """What one student handed in."""

    name: str
    files: dict[str, Path]  # of each exercise, where its function is
    remarks: dict[str, str]  # of each exercise, what to say about its file
    unread: list[str]  # why files could not be read
    others: list[str]  # functions of no exercise


def students(folder: str | Path) -> list[Student]:
    """One student for each folder within, and one for each Python file. Raises ValueError where there is none.

    Links are not followed: they might lead to another student's file.
    """
    top = Path(folder)
    if not top.is_dir():
        raise ValueError(f"{folder} is not a folder; one with a folder or a .py file for each student is expected")
    found = []
    for x in sorted(top.iterdir()):
        if x.is_dir() and not x.name.startswith((".", "__")):
            found.append(student(x.name, x))
        elif x.suffix == ".py" and x.is_file() and not x.is_symlink():
            found.append(student(x.stem, x))
    if not found:
        raise ValueError(f"{folder} is empty; a folder or a .py file for each student is expected")
    return found


def student(name: str, where: Path) -> Student:
    """Find the functions of one student, in a file or anywhere in a folder; the first file wins."""
    found, copies = Student(name, {}, {}, [], []), dict[str, list[Path]]()
    for file in sources(where):
        try:
            there = functions(file)
        except (ValueError, OSError) as error:
            found.unread.append(str(error).replace(str(file), within(where, file)))
            continue
        found.others.extend(y for y in there if y not in EXERCISES)
        for exercise in dict.fromkeys(y for y in there if y in EXERCISES):
            copies.setdefault(exercise, []).append(file)
    for exercise, (first, *rest) in copies.items():
        found.files[exercise] = first
        if rest:
            named = ", ".join(within(where, x) for x in rest)
            found.remarks[exercise] = f"{exercise} is also in {named}; the one in {within(where, first)} is graded."
    return found


def within(where: Path, file: Path) -> str:
    """How a student calls a file."""
    return file.name if file == where else file.relative_to(where).as_posix()


def sources(where: Path) -> Iterator[Path]:
    """The Python files of a submission, in order."""
    if where.is_file():
        yield where
        return
    for file in sorted(where.rglob("*.py")):
        inner = file.relative_to(where).parts
        if file.is_file() and not file.is_symlink() and not any(x.startswith((".", "__")) for x in inner):
            yield file


def wanted(handed_in: Sequence[Student]) -> list[Exercise]:
    """The exercises that some student has handed in, in the order of the list."""
    there = {name for x in handed_in for name in x.files}
    return [x for name, x in EXERCISES.items() if name in there]


def grade(
    handed_in: Sequence[Student],
    exercises: Sequence[Exercise],
    *,
    private: PrivateCases | None = None,
    limits: Limits = LIMITS,
    jobs: int | None = None,
    done: Callable[[Submission], None] = lambda x: None,
) -> list[Submission]:
    """Grade all submissions, `jobs` at a time (one for each processor unless given); `done` hears of each."""
    for x in exercises:
        x.cases()  # once, before the threads

    def one(x: Student) -> Submission:
        graded = Submission(x.name, grade_one(x, exercises, private, limits))
        done(graded)
        return graded

    pool = ThreadPoolExecutor(jobs or processors())
    try:
        return list(pool.map(one, handed_in))
    finally:
        pool.shutdown(cancel_futures=True)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def grade_one(
    x: Student, exercises: Sequence[Exercise], private: PrivateCases | None, limits: Limits
) -> list[Feedback]:
    """Grade one student, file by file."""
    found: dict[str, Feedback] = {}
    for file in dict.fromkeys(x.files.values()):
        here = [y for y in exercises if x.files.get(y.name) == file]
        try:
            graded = check_file(file, here, private=private, limits=limits) if here else []
        except (OSError, RuntimeError, MemoryError) as error:
            graded = [refused(y, f"the grader could not run the file ({error})") for y in here]
        found |= {y.exercise: y for y in graded}
    return [remarked(x, found.get(y.name) or refused(y, absent(x, y))) for y in exercises]


def absent(x: Student, exercise: Exercise) -> str:
    """Why an exercise was not found."""
    close = difflib.get_close_matches(exercise.name, x.others, n=1)
    hint = f", but {close[0]}" if close else ""
    return "; ".join([*x.unread, f"there is no function {exercise.name}{hint}"])


def remarked(x: Student, y: Feedback) -> Feedback:
    """Feedback with what there is to say about the file."""
    remark = x.remarks.get(y.exercise)
    return y._replace(text=f"{remark}\n{y.text}") if remark else y
