"""The command line: `tabrl report`, `solve`, `learn`, `tokens`, `figure`, `envs`, `verify`, `lesson`, `exercise`.

One function per command, and one row per command in `COMMANDS`. Exit codes: 0 done; 1 not converged or a
check failed; 2 wrong usage or unreadable input; 130 interrupted. Everything heavy is imported in the command.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tabrl.cli.exercise import exercise, exercise_arguments
from tabrl.cli.learning import learn, learn_arguments
from tabrl.cli.lesson import lesson, lesson_arguments
from tabrl.cli.pages import report, report_arguments
from tabrl.cli.parts import (
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    UsageError,
    console,
    figure_file,
    known,
    model,
    save_arrays,
)
from tabrl.cli.pictures import figure, figure_arguments
from tabrl.cli.tokens import tokens, tokens_arguments

if TYPE_CHECKING:
    from tabrl.mdp import MDP
    from tabrl.types import Solution


class Command(NamedTuple):
    """A subcommand: what it does, its arguments, and the function that runs it and returns the exit code."""

    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; one line on stderr says what was wrong.

    >>> main(["solve", "two-state", "--method", "policy_iteration"]) == DONE  # doctest: +ELLIPSIS
    two-state...
    True
    """
    from tabrl.errors import MissingExtra, NotConverged

    try:
        options = parser().parse_args(argv)
    except SystemExit as end:  # argparse ends the process for --help, --version and usage errors
        return int(end.code or 0)
    try:
        return COMMANDS[options.command].run(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout is gone; what is left unwritten goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except NotConverged as error:
        return complain(error, FAILED)
    except (UsageError, ValueError, OSError, MissingExtra) as error:
        return complain(error, USAGE)


def complain(error: BaseException, code: int) -> int:
    """Write one line on stderr and return the exit code."""
    print(f"tabrl: {error}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    from tabrl import __version__

    top = argparse.ArgumentParser(prog="tabrl", description="Reinforcement learning with the exact answer beside it.")
    top.add_argument("--version", action="version", version=f"tabrl {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.arguments(commands.add_parser(name, help=command.summary, description=command.summary))
    return top


def solve_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl solve`."""
    p.add_argument("model", metavar="ENV|FILE.npz", help="a world (see `tabrl envs`), or a model written by MDP.save")
    p.add_argument("--method", default="auto", metavar="M", help="a method of tabrl.dp.METHODS (default: auto)")
    p.add_argument("--gamma", type=float, metavar="G", help="discount, in place of the model's own")
    p.add_argument("--tol", type=float, default=1e-8, metavar="T", help="accuracy asked for (default: %(default)g)")
    p.add_argument("--plot", metavar="FILE", help="draw values and policy into a .png, .svg or .pdf file")
    p.add_argument("--save", metavar="FILE", help="write V, Q, pi and the bounds to an .npz file")


def solve(options: argparse.Namespace) -> int:
    """Solve one world or model, print its values, and say how far they can be from the truth."""
    from tabrl import dp
    from tabrl.show import show

    known(options.method, ["auto", *dp.METHODS], "method")
    figure_file(options.plot)
    mdp = model(options.model, options.gamma)
    solution = dp.solve(mdp, options.method, tol=options.tol)
    show(console(), options.model, mdp, solution)
    if options.plot:
        draw(options.plot, options.model, mdp, solution)
    if options.save:
        save(options.save, solution)
    if solution.converged:
        return DONE
    return complain(
        NotReached(f"bound is {solution.bound:.3g} ({solution.status}); at most --tol {options.tol:g} is expected"),
        FAILED,
    )


class NotReached(Exception):
    """A solver stopped above the tolerance."""


def draw(path: str, name: str, mdp: "MDP", solution: "Solution") -> None:
    """Draw values and policy into a file, whole or not at all."""
    from tabrl import plots
    from tabrl.output import write
    from tabrl.report import drawing

    best = (solution.pi > 0) & ~mdp.terminal[:, None]
    figure = drawing.figure(drawing.values(name, mdp, solution.V, best).panels)
    write(path, plots.image(figure, kind=Path(path).suffix[1:]))


def save(path: str, solution: "Solution") -> None:
    """Write a solution as .npz."""
    import numpy as np

    text = {"status": np.str_(solution.status), "method": np.str_(solution.method)}
    save_arrays(path, {**solution._asdict(), **text})


def envs_arguments(p: argparse.ArgumentParser) -> None:
    """`tabrl envs` has no arguments."""


def list_worlds(options: argparse.Namespace) -> int:
    """Print one line per world."""
    from rich.table import Table

    from tabrl import envs

    table = Table(box=None, pad_edge=False)
    for name, side in (("world", "left"), ("S", "right"), ("A", "right"), ("gamma", "right")):
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("description")
    for name, world in envs.WORLDS.items():
        mdp = world()
        line = (world.__doc__ or "").strip().partition("\n")[0]
        table.add_row(name, str(mdp.S), str(mdp.A), f"{mdp.gamma:g}", line)
    console().print(table)
    return DONE


def verify_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl verify`."""
    p.add_argument("function", nargs="?", metavar="FILE:function", help="a function of yours, checked in place of ours")
    p.add_argument("row", nargs="?", metavar="ROW", help="the row of the ledger it is checked on, such as E1.5")


def verify(options: argparse.Namespace) -> int:
    """Compare our values, or those of a function of the user, with the closed forms of the ledger."""
    from rich.table import Table
    from rich.text import Text

    from tabrl import verify as ledger

    if options.function and not options.row:
        raise UsageError(f"ROW is missing after {options.function}; a row of the ledger, such as E1.5, is expected")
    checks = ledger.check(options.row, ledger.load(options.function)) if options.function else ledger.run()
    table = Table(box=None, pad_edge=False)
    for name in ("row", "quantity", "value", "closed form", "difference", "tolerance", "", ""):
        table.add_column(name, justify="left" if name in ("row", "quantity", "") else "right", overflow="fold")
    for x in checks:
        mark = Text("pass", style="green") if x.passed else Text("FAIL", style="bold red")
        numbers = map(number, (x.value, x.expected, x.difference, x.tolerance))
        table.add_row(x.row, x.quantity, *numbers, mark, "" if x.passed else x.where)
    console().print(table)
    wrong = sum(not x.passed for x in checks)
    console().print(f"{len(checks)} checks, {wrong} failed")
    return FAILED if wrong else DONE


def number(x: Any) -> str:
    """Write a number shortly, and anything else as it is."""
    return f"{x:.6g}" if isinstance(x, float | int) else str(x)


COMMANDS: dict[str, Command] = {
    "report": Command("solve every world, run every learner, and write pages about them", report_arguments, report),
    "solve": Command("solve a world or a model from a file, with a certified bound", solve_arguments, solve),
    "learn": Command("learn from samples, and compare with the exact answer", learn_arguments, learn),
    "tokens": Command("train a small language model, with everything exact", tokens_arguments, tokens),
    "figure": Command("draw a learning figure of the textbook anew, with exact lines", figure_arguments, figure),
    "envs": Command("list the worlds", envs_arguments, list_worlds),
    "verify": Command("compare values with the closed forms of the ledger", verify_arguments, verify),
    "lesson": Command("read a lesson in the browser, or list them", lesson_arguments, lesson),
    "exercise": Command("write an update yourself, and be told which mistake you made", exercise_arguments, exercise),
}
