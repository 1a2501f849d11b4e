"""A process with a time limit and an output limit, of which nothing is left afterwards.

leash  standard input of the process, never written to: closing it tells a watcher to end all
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tabrl.grading.transport import READY

GRACE = 1.0  # seconds that a watcher has to clear up
POSIX = os.name == "posix"


class Limits(NamedTuple):
    """What one submission may use."""

    seconds: float = 10.0  # from start to end, all calls together
    memory_mb: int = 1024  # address space of each process
    output_bytes: int = 1_000_000  # printed
    processes: int = 8  # and threads, at any time
    files_mb: int = 16  # largest file; under bubblewrap all files together


class Outcome(NamedTuple):
    """How a process ended."""

    output: str  # what it printed, both streams, cut at the limit
    ready: bool  # it came as far as the student's file; output is what was printed from there on
    code: int  # exit code; 128 + n after signal n
    late: bool  # the time limit ended it
    loud: bool  # it printed more than its limit
    seconds: float


class Listener(threading.Thread):
    """Reads what a process prints, up to a limit."""

    def __init__(self, stream: int, limit: int, done: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stream, self.limit, self.done = stream, limit, done
        self.heard = bytearray()

    def run(self) -> None:
        """Read until the other side closes, or says too much."""
        with contextlib.suppress(OSError):
            while len(self.heard) <= self.limit and (part := os.read(self.stream, 65536)):
                self.heard += part
        if len(self.heard) > self.limit:
            self.done.set()

    def text(self) -> tuple[str, bool]:
        """What was heard after READY, as text without control characters, and whether READY was."""
        before, ready, after = bytes(self.heard).partition(READY)
        text = (after if ready else before)[: self.limit].decode("utf-8", errors="replace")
        return text.translate(CONTROLS), bool(ready)


CONTROLS = {
    i: "\ufffd" for i in (*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F)) if i not in (9, 10)
}


def execute(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: Limits, watched: bool
) -> Outcome:
    """Run a command in a folder until it ends, takes longer or prints more than its limits.

    watched: the process ends itself and all that it has started when its standard input is closed.
    """
    started, done = time.monotonic(), threading.Event()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=dict(environment), cwd=folder, start_new_session=POSIX,
    )  # fmt: skip
    assert process.stdin and process.stdout
    listener = Listener(process.stdout.fileno(), limits.output_bytes, done)

    def wait() -> None:
        process.wait()
        done.set()

    waiter = threading.Thread(target=wait, daemon=True)
    listener.start()
    waiter.start()
    try:
        in_time = done.wait(limits.seconds)
    finally:
        process.stdin.close()
        if watched:
            waiter.join(GRACE)
        end(process)
        waiter.join(GRACE)
        listener.join(GRACE)
    if not listener.is_alive():
        process.stdout.close()
    loud = len(listener.heard) > limits.output_bytes
    code = process.returncode if process.returncode is not None else 0
    seconds = time.monotonic() - started
    return Outcome(*listener.text(), code if code >= 0 else 128 - code, not in_time, loud, seconds)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and its group."""
    with contextlib.suppress(OSError):
        process.kill()
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
