"""Run a student's file apart from the grader, and read back what its functions return.

The expected answers stay here: the other process gets arguments, returns values, and is believed in nothing else.

isolation  "bubblewrap": limits of time, memory, processes, files and output; no network; the system read-only; its
           own /tmp; no tabrl to be found; as root, an unprivileged user
           "process": the same limits, an empty environment, no tabrl on the path; as root, an unprivileged user.
           What that user may read, write and reach over the network stays open to it
           "time limit only": Windows and macOS
"""

import contextlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tabrl.grading.answers import parse, why
from tabrl.grading.bubblewrap import JOB, PACKAGES, command
from tabrl.grading.process import Limits, Outcome, execute
from tabrl.grading.transport import frame, frames, pack

__all__ = ["LIMITS", "Limits", "Result", "call", "isolation", "run"]

INSIDE = ("worker.py", "confinement.py", "transport.py")  # copied to the job's folder
SOURCE = 1_000_000  # bytes of a student's file
LINUX = sys.platform == "linux"
USERS = itertools.count()


class Result(NamedTuple):
    """What the functions of one submission returned."""

    values: list[Any | None]  # one per call; None where that call failed
    reasons: list[str]  # why a call failed; "" where it did not
    output: str  # what was printed, cut at the limit
    reason: str  # why the whole submission ended early; "" if it did not
    seconds: float
    isolation: str  # "bubblewrap", "process" or "time limit only"


class Submission(NamedTuple):
    """What is run."""

    name: str  # of the file
    source: bytes
    calls: Sequence[tuple[str, tuple[Any, ...]]]  # (function, arguments)


LIMITS = Limits()


def call(
    file: str | Path,
    function: str,
    calls: Sequence[tuple[Any, ...]],
    *,
    limits: Limits = LIMITS,
    bubblewrap: bool | None = None,
) -> Result:
    """Call one function of a student's file with each tuple of arguments, all in one process; otherwise as `run`.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "double.py")
    ...     _ = file.write_text("def double(x): return 2 / x")
    ...     result = call(file, "double", [(4.0,), (0.0,)])
    >>> result.values, result.reasons[1]
    ([0.5, None], 'it raises ZeroDivisionError: float division by zero (line 1)')
    """
    return run(file, [(function, arguments) for arguments in calls], limits=limits, bubblewrap=bubblewrap)


def run(
    file: str | Path,
    calls: Sequence[tuple[str, tuple[Any, ...]]],
    *,
    limits: Limits = LIMITS,
    bubblewrap: bool | None = None,
) -> Result:
    """Import a student's file in a process of its own and make calls: (name of a function, arguments).

    Each call gets fresh copies. What goes wrong there becomes a reason, never an exception here.
    bubblewrap: None uses it where it runs, True insists on it, False does without.
    Raises OSError if the file cannot be read, ValueError for limits that are not positive and for arguments that are
    not plain, RuntimeError where bubblewrap is insisted on and does not run, or where no process can be set up.
    """
    check(limits)
    how = isolation(bubblewrap)
    path = Path(file)
    if path.stat().st_size > SOURCE:
        why = f"the file has {path.stat().st_size} bytes; at most {SOURCE} are expected"
        return Result([None] * len(calls), [why] * len(calls), "", why, 0.0, how)
    return run_source(Submission(path.name, path.read_bytes(), calls), limits, how)


def check(limits: Limits) -> None:
    """Refuse limits that are not positive and finite."""
    for name, value in limits._asdict().items():
        if not 0 < value < math.inf:
            raise ValueError(f"limits[{name}] is {value}; a positive number is expected")


def isolation(bubblewrap: bool | None = None) -> str:
    """How a submission is kept apart here: "bubblewrap", "process" or "time limit only".

    Raises RuntimeError if bubblewrap=True and it does not run.
    """
    if bubblewrap is not False and LINUX and bubblewrap_runs():
        return "bubblewrap"
    if bubblewrap:
        raise RuntimeError("bubblewrap is not usable here; bwrap that may create namespaces is expected")
    return "process" if LINUX else "time limit only"


@cache
def bubblewrap_runs() -> bool:
    """Whether bwrap is installed and can run a submission here; tried once."""
    if not shutil.which("bwrap"):
        return False
    try:
        trial = run_source(Submission("trial.py", b"def same(x): return x", [("same", (1,))]), LIMITS, "bubblewrap")
    except (OSError, RuntimeError):
        return False
    return trial.values == [1]


def run_source(submission: Submission, limits: Limits, how: str) -> Result:
    """Run a submission; how is the isolation."""
    user = free_user() if LINUX else None
    with temporary_folder() as folder:
        job, home = folder / "job", folder / "home"
        prepare(job, submission, limits, user, how)
        home.mkdir(mode=0o700)
        if user is not None:
            folder.chmod(0o711)
            os.chown(home, user, user)
        with open(job / "result", "w+b", buffering=0) as result:
            outcome = execute(line(how, job, limits), home, environment(), limits, how == "process")
            return read_back(result, len(submission.calls), outcome, limits, how)


def prepare(job: Path, submission: Submission, limits: Limits, user: int | None, how: str) -> None:
    """Fill the folder that the worker reads."""
    job.mkdir(mode=0o700)
    for script in INSIDE:
        shutil.copyfile(Path(__file__).with_name(script), job / script)
    bounds = {
        "seconds": int(limits.seconds + 0.999), "memory": limits.memory_mb * 2**20, "file": limits.files_mb * 2**20,
        "processes": limits.processes,
    }  # fmt: skip
    settings = {
        "name": submission.name, "packages": str(PACKAGES), "uid": user, "watched": how == "process",
        "limits": bounds if LINUX else None,
    }  # fmt: skip
    (job / "job").write_text(json.dumps(settings))
    (job / "source").write_bytes(submission.source)
    (job / "request").write_bytes(b"".join(frame(pack(x)) for x in submission.calls))


def line(how: str, job: Path, limits: Limits) -> list[str]:
    """The command line."""
    flags = ["-I", "-S", "-B", "-u", "-X", "utf8"]
    if how != "bubblewrap":
        return [sys.executable, *flags, str(job / "worker.py"), str(job)]
    program = os.path.realpath(sys.executable)
    outside = command(program, job, limits.files_mb * 2**20, os.geteuid() == 0)
    return [*outside, program, *flags, f"{JOB}/worker.py", JOB]


def environment() -> dict[str, str]:
    """What NumPy needs: one thread, and the system's way to find libraries."""
    kept = ("LD_LIBRARY_PATH",) if os.name == "posix" else ("SYSTEMROOT", "PATH")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return threads | {name: os.environ[name] for name in kept if name in os.environ}


def free_user() -> int | None:
    """As root: the number of a user that nobody else is; otherwise None."""
    if os.geteuid():
        return None
    key = (os.getpid() * 64 + next(USERS) % 64) % 2**28
    spans = [[int(x) for x in row.split()] for row in Path("/proc/self/uid_map").read_text().splitlines()]
    choices = (0x6000_0000 + key, 61184 + key % 4336, 65534)  # the second range is that of systemd's dynamic users
    return next(uid for uid in choices if uid == 65534 or any(a <= uid < a + n for a, _, n in spans))


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is removed afterwards, however deep or closed its contents are."""
    folder = tempfile.mkdtemp(prefix="grading-")
    try:
        yield Path(folder)
    finally:
        with contextlib.suppress(RecursionError):
            shutil.rmtree(folder, ignore_errors=True)
        if os.path.exists(folder) and os.name == "posix":
            subprocess.run(["chmod", "-R", "u+rwX", folder], capture_output=True)
            subprocess.run(["rm", "-rf", folder], capture_output=True)


def read_back(result: BinaryIO, count: int, outcome: Outcome, limits: Limits, how: str) -> Result:
    """The answers in the channel, and reasons for those that are missing."""
    result.seek(0)
    if not outcome.ready and not outcome.late:
        raise RuntimeError(f"no process could be set up for the file (exit code {outcome.code}): {outcome.output}")
    cut_off = outcome.late or outcome.loud or outcome.code
    messages, left = frames(result.read(limits.files_mb * 2**20))
    found = parse(messages, 0 if cut_off else left, count)
    done = found.ending is not None and not outcome.loud
    reason = str(found.ending) if done else why(outcome, limits)
    missing = count - len(found.values)
    values, reasons = found.values + [None] * missing, found.reasons + [reason] * missing
    return Result(values, reasons, outcome.output, reason, outcome.seconds, how)
