"""What the commands of the command line share: names that are refused kindly, models, a console, file endings."""

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from tabrl.mdp import MDP

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
FIGURES = (".png", ".svg", ".pdf")


class UsageError(Exception):
    """The command line asks for something that is not there."""


def known(name: str, names: Any, what: str) -> None:
    """Refuse a name that is not in the list, and mention the close ones."""
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UsageError(f"{what} is {name!r}; one of {', '.join(names)} is expected{hint}")


def figure_file(path: str | None) -> None:
    """Refuse the name of a figure that cannot be written: a wrong ending, or no such folder."""
    if path and Path(path).suffix not in FIGURES:
        raise UsageError(f"--plot is {path!r}; a file ending in {', '.join(FIGURES)} is expected")
    writable(plot=path)


def writable(**files: str | None) -> None:
    """Refuse, before any work, files to be written into folders that do not exist; by the name of the option."""
    for option, path in files.items():
        if path and not Path(path).parent.is_dir():
            raise UsageError(f"--{option} is {path!r}; a file in a folder that exists is expected")


def model(name: str, gamma: float | None) -> "MDP":
    """Build a world by name, or read a model from a file."""
    from dataclasses import replace

    from tabrl import checks, envs
    from tabrl.mdp import MDP

    keywords = {} if gamma is None else {"gamma": checks.discount(gamma)}
    if name in envs.WORLDS:
        return envs.make(name, **keywords)
    if not (name.endswith(".npz") or Path(name).is_file()):
        known(name, envs.WORLDS, "world")
    mdp = MDP.load(name)
    return replace(mdp, **keywords) if keywords else mdp  # type: ignore[arg-type]


def save_arrays(path: str, arrays: dict[str, Any]) -> None:
    """Write arrays as .npz without pickle, whole or not at all."""
    import io

    import numpy as np

    from tabrl.output import write

    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    write(path, stream.getvalue())


def console(*, stderr: bool = False) -> "Console":
    """Return a console; without a terminal it writes plain lines, wide enough not to break tables."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else 160)


def bar(**options: Any) -> "Progress":
    """Return a progress bar on stderr; options go to rich."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console(stderr=True), **options)
