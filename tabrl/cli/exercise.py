"""`tabrl exercise list|start|check`: stubs to fill in, and a grader that names the mistake."""

import argparse
import math
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tabrl.cli.parts import DONE, FAILED, UsageError, bar, console

if TYPE_CHECKING:
    from tabrl.grading.bank_record import Exercise
    from tabrl.grading.check import PrivateCases
    from tabrl.grading.classroom import Student
    from tabrl.grading.output import Submission

SHOWN = 5  # names, or reasons, in one message
PRINTED = 2000  # characters of what a student's file prints
ALOUD = {
    "bubblewrap": "each file runs in a process of its own: limited, without network, the system read-only (bubblewrap)",
    "process": "each file runs in a process of its own: limited, but without bubblewrap it may reach the network, "
    "and read what everybody may read",
    "time limit only": "each file runs in a process of its own with a limit of time ONLY: grade files that you trust",
}


def exercise_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl exercise`."""
    actions = p.add_subparsers(dest="action", required=True, metavar="list|start|check")
    listed = actions.add_parser("list", help="list the exercises")
    start = actions.add_parser("start", help="write the file that an exercise starts from")
    start.add_argument("which", metavar="N", help="number or name of an exercise")
    start.add_argument("--dir", default=".", metavar="D", help="folder to write to (default: here)")
    check = actions.add_parser("check", help="grade a file, a folder, or a class")
    check.add_argument("what", nargs="*", metavar="FILE [N ...]", help="a file or folder of one student, and exercises")
    check.add_argument("--all", metavar="DIR", help="grade a class: a folder or a .py file for each student")
    for p in (listed, start, check):
        p.add_argument(
            "--cases", metavar="FILE.py", help="a teacher's file, with exercises or cases; see docs/teaching.md"
        )
    check.add_argument("--seconds", type=float, default=10.0, metavar="S", help="limit for each file (default: 10)")
    check.add_argument("--jobs", type=int, metavar="J", help="files at a time (default: one for each processor)")
    check.add_argument("--junit", metavar="FILE.xml", help="write JUnit XML")
    check.add_argument("--gradescope", metavar="FILE.json", help="write results.json of Gradescope, for one student")
    check.add_argument("--csv", metavar="FILE.csv", help="write a row for each student and exercise")


def exercise(options: argparse.Namespace) -> int:
    """List the exercises, start one, or grade."""
    actions = {"list": list_exercises, "start": start, "check": check}
    return actions[options.action](options)


def list_exercises(options: argparse.Namespace) -> int:
    """Print one line per exercise."""
    from rich.table import Table

    from tabrl.grading.exercises import EXERCISES

    teacher(options)
    table = Table(box=None, pad_edge=False)
    for name, side in (("", "right"), ("lesson", "right"), ("name", "left"), ("min", "right"), ("equation", "left")):
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("what you write")
    for k, x in enumerate(EXERCISES.values(), 1):
        table.add_row(str(k), str(x.lesson), x.name, str(x.minutes), x.row, x.title)
    console().print(table)
    return DONE


def teacher(options: argparse.Namespace) -> "PrivateCases | None":
    """Read the teacher's file, if there is one; its exercises are in the list from then on."""
    from tabrl.grading.check import private_cases

    return private_cases(options.cases) if options.cases else None


def start(options: argparse.Namespace) -> int:
    """Write the stub of an exercise, and never over a file that is there."""
    from tabrl.grading.exercises import find, stub, with_cases

    teacher(options)
    chosen = find(options.which)
    file = Path(options.dir) / f"{chosen.name}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(stub(chosen, seen_from(options.dir, options.cases)))
    except FileExistsError:
        raise UsageError(
            f"{file} is there already and is left as it is; move it away, or choose another --dir"
        ) from None
    then = f"tabrl exercise check {shlex.quote(str(file))}{with_cases(options.cases or '')}"
    console().print(f"{file}: {chosen.title}, about {chosen.minutes} minutes\nthen: {then}", soft_wrap=True)
    return DONE


def seen_from(folder: str, file: str | None) -> str:
    """The path of a file as it is called in a folder; "" for none."""
    return file if file and os.path.isabs(file) else os.path.relpath(file, folder) if file else ""


def check(options: argparse.Namespace) -> int:
    """Grade one student or a class, print, and write what was asked for."""
    from tabrl.grading import classroom, sandbox

    possible(options)
    private = teacher(options)
    asked, handed_in = submissions(options)
    exercises = chosen(asked, handed_in) or nothing(options, handed_in)
    console(stderr=True).print(ALOUD[sandbox.isolation()])
    limits = sandbox.LIMITS._replace(seconds=options.seconds)
    with bar(transient=True, disable=not options.all) as progress:
        task = progress.add_task("submissions", total=len(handed_in))
        graded = classroom.grade(
            handed_in, exercises, private=private, limits=limits, jobs=options.jobs,
            done=lambda x: progress.advance(task),
        )  # fmt: skip
    show(graded, exercises, one=not options.all)
    save(options, graded)
    return DONE if options.all or all(x.passed for y in graded for x in y.feedback) else FAILED


def possible(options: argparse.Namespace) -> None:
    """Refuse options that cannot be kept, before any work."""
    if options.gradescope and options.all:
        raise UsageError("--gradescope is for one student; give FILE instead of --all, or --csv or --junit for a class")
    if not 0 < options.seconds < math.inf:
        raise UsageError(f"--seconds is {options.seconds:g}; a positive number of seconds is expected")
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"--jobs is {options.jobs}; at least 1 is expected")
    for name in ("junit", "gradescope", "csv"):
        if (path := getattr(options, name)) is not None:
            writable(f"--{name}", Path(path))


def writable(option: str, path: Path) -> None:
    """Refuse the path of a file that could not be written."""
    if not path.parent.is_dir():
        raise UsageError(f"{option} is {path}; a file in a folder that exists is expected")
    if path.is_dir():
        raise UsageError(f"{option} is {path}; a file, not a folder, is expected")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{option} is {path}; a file in a folder that may be written to is expected")


def submissions(options: argparse.Namespace) -> tuple[list[str], "list[Student]"]:
    """The exercises that are asked for, and what was handed in."""
    from tabrl.grading import classroom

    if options.all:
        return options.what, classroom.students(options.all)
    if not options.what:
        raise UsageError("FILE is missing; a file or folder of one student is expected, or --all DIR for a class")
    path = Path(options.what[0])
    if not path.exists():
        raise UsageError(f"{path} is not there; a Python file or a folder is expected")
    return options.what[1:], [classroom.student(path.resolve().stem, path)]


def chosen(asked: Sequence[str], handed_in: "Sequence[Student]") -> "list[Exercise]":
    """The exercises by number or name; all that are there unless some are asked for."""
    from tabrl.grading import classroom
    from tabrl.grading.exercises import find

    return list(dict.fromkeys(find(x) for x in asked)) or classroom.wanted(handed_in)


def nothing(options: argparse.Namespace, handed_in: "Sequence[Student]") -> NoReturn:
    """Say why there is nothing to grade: files that cannot be read, or functions of no exercise."""
    unread = [x for y in handed_in for x in y.unread]
    others = [x for y in handed_in for x in y.others]
    if unread and not others:
        raise UsageError("; ".join(unread[:SHOWN]))
    there = f", but {', '.join(others[:SHOWN])}" if others else ""
    cure = "a name of `tabrl exercise list` is expected; `tabrl exercise start NAME` writes a file to begin with"
    where = options.all or options.what[0]
    raise UsageError("; ".join([*unread[:SHOWN], f"{where} defines no function of an exercise{there}; {cure}"]))


def show(graded: "Sequence[Submission]", exercises: "Sequence[Exercise]", *, one: bool) -> None:
    """Print the feedback of one student, or the table of a class and its most frequent mistakes."""
    from tabrl.grading import output

    if one:
        for x in graded[0].feedback:
            console().print(output.clean(x.text), style="green" if x.passed else None, end="\n\n", soft_wrap=True)
        for printed in dict.fromkeys(x.printed for x in graded[0].feedback if x.printed):
            console().print(f"The file printed:\n{output.clean(printed[:PRINTED]).rstrip()}\n", soft_wrap=True)
        return
    console().print(output.table(graded, [x.name for x in exercises]))
    for line in output.common(graded):
        console().print(output.clean(line), soft_wrap=True)


def save(options: argparse.Namespace, graded: "Sequence[Submission]") -> None:
    """Write the files that were asked for, each whole or not at all."""
    from tabrl.grading import output
    from tabrl.output import write

    if options.junit:
        write(options.junit, output.junit(graded))
    if options.gradescope:
        write(options.gradescope, output.gradescope(graded[0]).encode())
    if options.csv:
        write(options.csv, output.table_of_values(graded).encode())
